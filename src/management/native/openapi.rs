//! The OpenAPI 3.1 document, made from the table of routes.

use http::Method;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::route::{Conditions, Parameter, ParameterKind, Route};

/// The document of `routes`.
pub(super) fn document(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operation = operation(route, &mut generator);
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "scoregate management API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every answer has an x-request-id. A refused call changes nothing.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": { "Problem": {
                "description": "Why the call was not done (RFC 9457)",
                "content": { "application/problem+json": { "schema": problem } },
            } },
            "securitySchemes": { "bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "A management token, or a token of a listed outside issuer.",
            } },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut answers = Map::new();
    for (status, schema) in &route.answers {
        let answer = match schema {
            Some(schema) => json!({
                "description": "Done",
                "content": { "application/json": { "schema": schema(generator) } },
            }),
            None => json!({ "description": "Done" }),
        };
        answers.insert(status.to_string(), answer);
    }
    for status in refusals(route) {
        answers.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": answers,
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({
            "required": body.required,
            "content": { body.content_type: { "schema": (body.schema)(generator) } },
        });
    }
    if !route.needs.is_empty() {
        // One of them, by the kind of the service.
        operation["x-scoregate-actions"] = route.needs.iter().map(|action| action.as_str()).collect();
    }
    operation
}

/// Statuses by which the route may refuse.
fn refusals(route: &Route) -> Vec<u16> {
    let writes = route.method != Method::GET;
    let mut statuses = vec![400, 401];
    if !route.needs.is_empty() {
        statuses.push(403);
    }
    if route.path.contains('{') {
        statuses.push(404);
    }
    if writes && !route.is_open() {
        statuses.extend([409, 507]);
    }
    if route.conditions != Conditions::None {
        statuses.push(412);
    }
    if route.body.is_some() {
        statuses.push(413);
    }
    statuses.extend([500, 503]);
    statuses
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": path_schema(name) }))
        .collect();
    parameters.extend(route.query.iter().map(query_parameter));
    let mut header = |name: &str, about: &str| {
        parameters.push(json!({
            "name": name, "in": "header", "description": about, "schema": { "type": "string" },
        }));
    };
    if route.conditions != Conditions::None {
        header("If-Match", "The etag that it was read with, or `*`: 412 if it is another one by now.");
    }
    if route.conditions == Conditions::MatchOrAbsent {
        header("If-None-Match", "`*`: 412 if it is there already.");
    }
    parameters
}

fn path_schema(name: &str) -> Value {
    match name {
        "slot" => json!({ "enum": ["primary", "secondary"] }),
        _ => json!({ "type": "string" }),
    }
}

fn query_parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.kind {
        ParameterKind::Text => json!({ "type": "string" }),
        ParameterKind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        ParameterKind::Number => json!({ "type": "integer", "minimum": 1 }),
        ParameterKind::Time => json!({ "type": "string", "format": "date-time" }),
    };
    json!({ "name": parameter.name, "in": "query", "description": parameter.about, "schema": schema })
}
