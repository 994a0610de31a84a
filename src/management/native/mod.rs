//! The native API, `/v1`: resources as they are, problem+json errors, pages, ETags.
//!
//! `route` declares, `call` reads, `view` shows; the other files are the handlers, one per group of resources.

mod call;
mod credentials;
mod deployments;
mod metrics;
mod openapi;
mod operate;
mod principals;
mod problem;
mod records;
mod roles;
mod route;
mod secret;
mod services;
mod view;
mod workspaces;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use http::Method;
use serde_json::Value;

use super::Refusal;
use super::http::Api;
use route::Route;

/// The routes of this face.
pub fn routes(api: &Api) -> Router<Api> {
    let (open, closed): (Vec<Route>, Vec<Route>) = table().into_iter().partition(Route::is_open);
    api.protect(router(&closed), render).merge(api.refuse_methods(router(&open), render))
}

/// How this face tells a refusal.
#[must_use]
pub fn render(refusal: &Refusal) -> Response {
    problem::render(refusal)
}

fn router(routes: &[Route]) -> Router<Api> {
    routes.iter().fold(Router::new(), |router, route| router.route(route.path, route.endpoint()))
}

/// All routes of `/v1`, the document of them among them.
fn table() -> Vec<Route> {
    let mut table: Vec<Route> = [
        workspaces::routes(),
        services::routes(),
        metrics::routes(),
        deployments::routes(),
        credentials::routes(),
        roles::routes(),
        principals::routes(),
        operate::routes(),
        records::routes(),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Declared before the document is made, so that the document has its own route too.
    table.push(document_route(Arc::new(Value::Null)));
    let document = Arc::new(openapi::document(&table));
    table.pop();
    table.push(document_route(document));
    table
}

fn document_route(document: Arc<Value>) -> Route {
    let handler = move |_| {
        let document = Arc::clone(&document);
        async move { Ok(call::ok(&*document)) }
    };
    Route::new(Method::GET, "/v1/openapi.json", "getDocument", handler)
        .summary("Shows this document")
        .gives::<Value>(200)
}

#[cfg(test)]
mod tests;
