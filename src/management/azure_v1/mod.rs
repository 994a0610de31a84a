//! The face of Azure ML SDK v1: the discovery document and the model management service's REST API.

use axum::Router;

use super::http::Api;

/// The routes of this face.
#[must_use]
pub fn routes(api: &Api) -> Router<Api> {
    let _ = api;
    Router::new()
}
