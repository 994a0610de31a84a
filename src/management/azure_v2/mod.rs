//! The face of Azure ML SDK v2: ARM REST for online endpoints and deployments.
//!
//! Source of the protocol: the REST reference of `Microsoft.MachineLearningServices` (online endpoints and deployments,
//! every api-version), and what `azure-ai-ml` sends and insists on. What has been done is answered as done, so that no
//! client waits for a poll. The parts: [`target`] reads the path, [`fields`] the body, [`endpoint`], [`deployment`] and
//! [`workspace`] are the JSON of resources, [`call`] turns a request into operations, [`reply`] their outcome into HTTP.
//!
//! Where the gateway is not Azure:
//!
//! - A deployment's replicas are where its property `upstream` says (or its endpoint's): URLs with commas between them.
//!   Models, environments, instance types, probes and scale settings are kept and given back, and have no effect.
//! - `mirrorTraffic` may name a deployment that has traffic of its own; calls that go there are not copied.
//! - `authMode: AADToken` needs an issuer, which ARM has no member for: it is refused, unless the service has that mode
//!   already. Whoever needs it declares the service in the configuration.
//! - A PUT of an endpoint without `traffic` leaves the split as it is (`{}` takes all traffic away), and one of a
//!   deployment leaves what `requestSettings` does not name as it is.
//! - AKS services of SDK v1 are Kubernetes endpoints here; ACI services are none.

mod call;
mod deployment;
mod endpoint;
mod fields;
mod place;
mod probe;
mod query;
mod reply;
mod target;
mod workspace;

#[cfg(test)]
mod tests;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Extension, Router};
use http::Method;
use serde_json::Value;

use super::http::{Api, base_url, precondition, request as json_body};
use super::{Caller, Refusal};
use call::Call;
use reply::Reply;
use target::Target;

pub use reply::render;

/// The first segment of all paths of this face.
pub const ROOT: &str = "/subscriptions";

/// The routes of this face.
pub fn routes(api: &Api) -> Router<Api> {
    let router = Router::new()
        .route(ROOT, any(root))
        .route(&format!("{ROOT}/"), any(root))
        .route(&format!("{ROOT}/{{*rest}}"), any(below));
    api.protect(router, render)
}

async fn root(State(api): State<Api>, Extension(caller): Extension<Caller>, request: Request) -> Response {
    told(answer(&api, caller, "", request).await)
}

async fn below(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(rest): Path<String>,
    request: Request,
) -> Response {
    told(answer(&api, caller, &rest, request).await)
}

fn told(answer: Result<Reply, Refusal>) -> Response {
    answer.map_or_else(|refusal| render(&refusal), Reply::into_response)
}

async fn answer(api: &Api, caller: Caller, rest: &str, request: Request) -> Result<Reply, Refusal> {
    let unknown = || Refusal::not_found(format_args!("path {}", request.uri().path()));
    let target = Target::parse(rest).ok_or_else(unknown)?;
    let uri = request.uri().clone();
    let base = base_url(&uri, request.headers())?;
    let precondition = precondition(request.headers())?;
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    let body = match method.as_str() {
        "PUT" | "PATCH" | "POST" => json_body(request).await?,
        _ => Value::Null,
    };
    let call = Call { caller, method, uri, base, precondition, body };
    api.run(move |operations| call.answer(target, operations)).await
}
