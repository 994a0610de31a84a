//! The native API, `/v1`: resources as they are, problem+json errors, pages, ETags.

mod problem;

use axum::Router;
use axum::response::Response;

use super::Refusal;
use super::http::Api;

/// The routes of this face.
#[must_use]
pub fn routes(api: &Api) -> Router<Api> {
    let _ = api;
    Router::new()
}

/// How this face tells a refusal.
#[must_use]
pub fn render(refusal: &Refusal) -> Response {
    problem::render(refusal)
}
