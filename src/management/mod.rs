//! The management plane: services are deployed, secured and operated through an API, without touching a file.
//!
//! One mechanism, three faces. [`Operations`] is the mechanism: every operation authorises its [`Caller`], leaves its
//! events in the activity log, changes the store in one batch and hands the change to the data plane. The faces
//! (`native`, `azure_v1`, `azure_v2`) only translate: a request into an operation, its outcome into the words of the
//! API in question. They hold no state and make no decision about rights.
//!
//! Operations block on the store: faces run them on threads that may wait.

mod azure_v1;
mod azure_v2;
mod caller;
mod credentials;
mod duration;
mod http;
mod native;
pub mod operations;
mod refusal;

pub use caller::{Caller, Grants, RequestFacts};
pub use credentials::Credentials;
pub use http::Server;
pub use operations::Operations;
pub use refusal::{Cause, Refusal};

/// All faces side by side on one port. Nothing but `/livez` and the SDK's discovery document answers without credentials,
/// not even to say that there is no such path; the bootstrap judges its own.
pub fn routes(operations: std::sync::Arc<Operations>) -> axum::Router {
    let api = http::Api::new(operations);
    let unknown = axum::Router::new().fallback(unknown_path);
    let router = axum::Router::new()
        .merge(native::routes(&api))
        .merge(azure_v1::routes(&api))
        .merge(azure_v2::routes(&api))
        .merge(api.protect(unknown, native::render))
        .route("/livez", axum::routing::get(|| async { "ok\n" }))
        .with_state(api);
    http::envelop(router, words)
}

/// How the face that `path` belongs to tells a refusal.
fn words(path: &str) -> http::Render {
    if azure_v1::PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
        return azure_v1::render;
    }
    if path.starts_with(azure_v2::ROOT) {
        return azure_v2::render;
    }
    native::render
}

async fn unknown_path(uri: axum::http::Uri) -> axum::response::Response {
    words(uri.path())(&Refusal::not_found(format_args!("path {}", uri.path())))
}
