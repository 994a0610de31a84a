//! The face of Azure ML SDK v1 (`azureml-core`): discovery, the model management service's REST API, and as much of the
//! resource provider as its classes ask for.
//!
//! A request becomes one [`Call`], the call an operation, its outcome the JSON that the SDK insists on. Changes are done
//! when they are answered; the operation that the SDK polls afterwards is the one of the activity log.

mod answer;
mod credentials;
mod document;
mod fields;
mod kind;
mod listing;
mod lookups;
mod patch;
mod route;
mod services;
mod view;

#[cfg(test)]
mod tests;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Json, Router};
use http::{HeaderMap, Method, Uri};
use serde_json::Value;

use crate::management::operations::Precondition;

use super::http::{self as shared, Api};
use super::{Caller, Cause, Operations, Refusal};

use answer::{Answer, OperationLink};
use route::{Call, Place};
use services::Services;

/// The routes of this face.
pub fn routes(api: &Api) -> Router<Api> {
    let with_caller = Router::new()
        .route("/modelmanagement/{*path}", any(model_management))
        .route("/rp/workspaces/{*path}", any(resource_provider));
    // The SDK looks up addresses before it has a token.
    let open = Router::new().route("/discovery", get(discovery)).route("/discovery/{*path}", get(discovery));
    api.protect(with_caller, render).merge(open)
}

/// Paths of this face, by what they begin with.
pub const PREFIXES: [&str; 3] = ["/modelmanagement/", "/rp/", "/discovery"];

/// How this face tells a refusal.
#[must_use]
pub fn render(refusal: &Refusal) -> Response {
    answer::refusal(refusal)
}

async fn discovery(headers: HeaderMap, uri: Uri) -> Response {
    match shared::base_url(&uri, &headers) {
        Ok(base) => Json(lookups::discovery(&base)).into_response(),
        Err(refusal) => answer::refusal(&refusal),
    }
}

async fn model_management(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    match manage(&api, caller, path, request).await {
        Ok(response) => response,
        Err(refusal) => answer::refusal(&refusal),
    }
}

async fn manage(
    api: &Api,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let found = path.ok().and_then(|Path(path)| route::model_management(&head.method, &path));
    let (place, call) = found.ok_or_else(|| no_such_call(&head.method, &head.uri))?;
    let base = shared::base_url(&head.uri, &head.headers)?;
    let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let query: Vec<(String, String)> = query.into_owned().collect();
    let body: Value = shared::body(body).await?;
    let link = OperationLink { base, place, id: caller.request.operation_id };
    api.run(move |operations| {
        let answer = perform(operations, &caller, &link, Input { call, query, body })?;
        Ok(answer.respond(&link))
    })
    .await
}

/// A call with what it brings.
struct Input {
    call: Call,
    query: Vec<(String, String)>,
    body: Value,
}

fn perform(
    operations: &Operations,
    caller: &Caller,
    link: &OperationLink,
    input: Input,
) -> Result<Answer, Refusal> {
    let Place { subscription, resource_group, workspace } = &link.place;
    let workspace = operations.azure_workspace(caller, subscription, resource_group, workspace)?.value;
    let services = Services { operations, caller, workspace: &workspace };
    let Input { call, query, body } = input;
    match call {
        Call::List => {
            let url = format!("{}/modelmanagement/v1.0{}/services", link.base, link.place.resource_id());
            services.list(&query, &url)
        }
        Call::ListByFilter => services.list_by_filter(body),
        Call::Get(name) => services.get(&name),
        Call::Create => services.create(body, Precondition::Absent),
        Call::Replace => services.create(body, Precondition::None),
        Call::Patch(name) => services.patch(&name, &body),
        Call::Delete(name) => services.delete(&name),
        Call::ValidateName(name) => services.validate_name(&name),
        Call::Validate => services.validate(body),
        // The gateway places nothing on a cluster, so nothing can be short.
        Call::ValidateResource => Ok(Answer::Found(serde_json::json!({}))),
        Call::ListKeys(name) => services.keys(&name),
        Call::RegenerateKey(name) => services.regenerate_key(&name, body),
        Call::Token(name) => services.token(&name),
        Call::Logs(name) => services.logs(&name),
        Call::Operation(id) => lookups::find_operation(operations, caller, &id),
        Call::Migrate => Err(Refusal::new(
            Cause::Invalid,
            "the gateway has no compute targets to move a web service between; make a Managed service through SDK v2 \
             or the native API, and delete this one when its callers have moved",
        )),
    }
}

async fn resource_provider(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let found = path.ok().and_then(|Path(path)| route::provider(request.method(), &path));
    let Some((place, call)) = found else {
        return answer::refusal(&no_such_call(request.method(), request.uri()));
    };
    let base = match shared::base_url(request.uri(), request.headers()) {
        Ok(base) => base,
        Err(refusal) => return answer::refusal(&refusal),
    };
    let found = api.run(move |operations| {
        let Place { subscription, resource_group, workspace } = &place;
        let workspace = operations.azure_workspace(&caller, subscription, resource_group, workspace)?.value;
        Ok(lookups::provider(&place, &call, &workspace, &base))
    });
    match found.await {
        Ok(resource) => Json(resource).into_response(),
        Err(refusal) => answer::refusal(&refusal),
    }
}

fn no_such_call(method: &Method, uri: &Uri) -> Refusal {
    Refusal::not_found(format_args!("call {method} {} in this API", uri.path()))
}
