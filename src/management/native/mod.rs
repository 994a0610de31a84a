//! The native API, `/v1`: resources as they are, problem+json errors, pages, ETags.

use axum::Router;

use super::http::Api;

/// The routes of this face.
#[must_use]
pub fn routes(api: &Api) -> Router<Api> {
    let _ = api;
    Router::new()
}
