//! The face of Azure ML SDK v2: ARM REST for online endpoints and deployments.

use axum::Router;

use super::http::Api;

/// The routes of this face.
#[must_use]
pub fn routes(api: &Api) -> Router<Api> {
    let _ = api;
    Router::new()
}
