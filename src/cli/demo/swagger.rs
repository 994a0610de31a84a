//! Owns the API description of the demo's model, in the three versions that the Azure ML inference server
//! offers.
//!
//! The operation ids and the names of the schemas are those of the stock server's templates
//! (azureml-inference-server-http 1.5.1, `swagger2_template.json` and `swagger3_template.json`), as clients
//! generated from them rely on the names.

use serde_json::{Value, json};

use super::iris::Species;
use super::payload::MAX_CENTIMETRES;

const TITLE: &str = "iris";
const DESCRIPTION: &str = "Species of an iris from its four measurements: the model of scoregate's demo";

/// The document that `?version=` asks for; `None` for a version that there is none of. Without a version it
/// is 2.
pub(super) fn document(version: Option<&str>) -> Option<Value> {
    match version {
        None | Some("2" | "2.0") => Some(swagger_2()),
        Some("3" | "3.0") => Some(openapi("3.0.3")),
        Some("3.1") => Some(openapi("3.1.0")),
        Some(_) => None,
    }
}

fn swagger_2() -> Value {
    let answer = |description: &str, schema: Value| json!({ "description": description, "schema": schema });
    let failed = answer("The call failed.", json!({ "$ref": "#/definitions/ErrorResponse" }));
    json!({
        "swagger": "2.0",
        "info": info(),
        "schemes": ["https"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": { "Bearer": security_scheme() },
        "paths": {
            "/": { "get": {
                "operationId": "ServiceHealthCheck",
                "produces": ["text/html"],
                "responses": { "200": answer("Healthy", json!({ "type": "string" })), "default": failed },
            } },
            "/score": { "post": {
                "operationId": "RunMLService",
                "security": [{ "Bearer": [] }],
                "parameters": [{
                    "name": "serviceInputPayload",
                    "in": "body",
                    "required": true,
                    "schema": { "$ref": "#/definitions/ServiceInput" },
                }],
                "responses": {
                    "200": answer("One entry per flower.", json!({ "$ref": "#/definitions/ServiceOutput" })),
                    "default": failed,
                },
            } },
            "/swagger.json": { "get": {
                "operationId": "GetSwaggerSpec",
                "parameters": [{ "name": "version", "in": "query", "type": "string", "enum": ["2", "3", "3.1"] }],
                "responses": { "200": answer("This document.", json!({ "type": "object" })), "default": failed },
            } },
        },
        "definitions": schemas(),
    })
}

fn openapi(version: &str) -> Value {
    let answer = |description: &str, media: &str, schema: Value| json!({ "description": description, "content": { media: { "schema": schema } } });
    let json = "application/json";
    let failed = answer("The call failed.", json, json!({ "$ref": "#/components/schemas/ErrorResponse" }));
    json!({
        "openapi": version,
        "info": info(),
        "paths": {
            "/": { "get": {
                "operationId": "ServiceHealthCheck",
                "responses": {
                    "200": answer("Healthy", "text/html", json!({ "type": "string" })),
                    "default": failed,
                },
            } },
            "/score": { "post": {
                "operationId": "RunMLService",
                "security": [{ "Bearer": [] }],
                "requestBody": {
                    "required": true,
                    "content": { json: { "schema": { "$ref": "#/components/schemas/ServiceInput" } } },
                },
                "responses": {
                    "200": answer(
                        "One entry per flower.",
                        json,
                        json!({ "$ref": "#/components/schemas/ServiceOutput" })
                    ),
                    "default": failed,
                },
            } },
            "/swagger.json": { "get": {
                "operationId": "GetSwaggerSpec",
                "parameters": [{
                    "name": "version",
                    "in": "query",
                    "schema": { "type": "string", "enum": ["2", "3", "3.1"] },
                }],
                "responses": { "200": answer("This document.", json, json!({ "type": "object" })), "default": failed },
            } },
        },
        "components": { "schemas": schemas(), "securitySchemes": { "Bearer": security_scheme() } },
    })
}

fn info() -> Value {
    json!({ "title": TITLE, "description": DESCRIPTION, "version": env!("CARGO_PKG_VERSION") })
}

fn security_scheme() -> Value {
    json!({ "type": "apiKey", "name": "Authorization", "in": "header", "description": "For example: Bearer abc123" })
}

/// The same in all versions: they use only what Swagger 2 and JSON Schema have in common.
fn schemas() -> Value {
    let numbers = |count: usize, maximum: f64| {
        json!({
            "type": "array",
            "items": { "type": "number", "minimum": 0, "maximum": maximum },
            "minItems": count,
            "maxItems": count,
        })
    };
    json!({
        "ServiceInput": {
            "type": "object",
            "required": ["data"],
            "properties": { "data": {
                "type": "array",
                "description": "Flowers: sepal length, sepal width, petal length, petal width, in centimetres.",
                "minItems": 1,
                "items": numbers(4, MAX_CENTIMETRES),
            } },
            "example": { "data": [[5.1, 3.5, 1.4, 0.2]] },
        },
        "ServiceOutput": {
            "type": "object",
            "required": ["species", "probabilities"],
            "properties": {
                "species": { "type": "array", "items": { "type": "string", "enum": Species::ALL } },
                "probabilities": {
                    "type": "array",
                    "description": "For each flower those of setosa, versicolor and virginica, in this order.",
                    "items": numbers(3, 1.0),
                },
            },
        },
        "ErrorResponse": { "type": "object", "properties": { "message": { "type": "string" } } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_says_what_it_is() {
        for (asked, key, version) in [
            (None, "swagger", "2.0"),
            (Some("2"), "swagger", "2.0"),
            (Some("3"), "openapi", "3.0.3"),
            (Some("3.1"), "openapi", "3.1.0"),
        ] {
            assert_eq!(document(asked).unwrap()[key], version, "{asked:?}");
        }
        assert_eq!(document(Some("4")), None);
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        for version in ["2", "3", "3.1"] {
            let document = document(Some(version)).unwrap();
            let text = document.to_string();
            let references: Vec<_> =
                text.split(r##""$ref":"#"##).skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
            assert_eq!(references.len(), 5, "{version}");
            for pointer in references {
                assert!(document.pointer(pointer).is_some(), "{version}: {pointer}");
            }
        }
    }

    #[test]
    fn the_example_is_one_the_model_takes() {
        let example = document(None).unwrap()["definitions"]["ServiceInput"]["example"].to_string();
        assert_eq!(super::super::payload::flowers_in_body(&example).unwrap(), [[5.1, 3.5, 1.4, 0.2]]);
    }
}
