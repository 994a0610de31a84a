//! What all faces share of HTTP: authentication before any handler, strict JSON in, blocking operations off the
//! reactor, and each face's own words for a refusal.

mod envelope;
mod json;
mod precondition;
mod server;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{HeaderMap, Method, header};
use secrecy::SecretString;

use super::{Caller, Cause, Operations, Refusal, RequestFacts};

pub use envelope::{envelop, request_id};
pub use json::{MAX_BODY, body, request};
pub use precondition::{etag, precondition};
pub use server::Server;

/// What handlers work with.
#[derive(Clone)]
pub struct Api {
    operations: Arc<Operations>,
}

/// How one face tells a refusal.
pub type Render = fn(&Refusal) -> Response;

impl Api {
    /// An API over `operations`.
    #[must_use]
    pub const fn new(operations: Arc<Operations>) -> Self {
        Self { operations }
    }

    /// Runs an operation on a thread that may wait for the store.
    ///
    /// # Errors
    /// The operation's own refusal.
    pub async fn run<T, F>(&self, operation: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&Operations) -> Result<T, Refusal> + Send + 'static,
    {
        let operations = Arc::clone(&self.operations);
        let done = tokio::task::spawn_blocking(move || operation(&operations)).await;
        done.unwrap_or_else(|error| {
            tracing::error!(%error, "an operation failed");
            Err(Refusal::new(Cause::Internal, "the gateway failed on this request"))
        })
    }

    /// For what needs no store.
    #[must_use]
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Puts authentication before every route of `router`: handlers find the [`Caller`] among the request's extensions
    /// (`Extension<Caller>`). A method that a route does not know is refused in the face's words.
    pub fn protect(&self, router: Router<Self>, render: Render) -> Router<Self> {
        let api = self.clone();
        router
            .method_not_allowed_fallback(async move |method: Method| {
                render(&Refusal::new(Cause::WrongMethod, format!("the resource does not know {method}")))
            })
            .layer(middleware::from_fn_with_state((api, render), authenticate))
    }
}

async fn authenticate(
    State((api, render)): State<(Api, Render)>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let facts = facts(&request, client.ip());
    let token = match bearer(request.headers()) {
        Ok(token) => token,
        Err(refusal) => return render(&refusal),
    };
    match api.run(move |operations| operations.authenticate(&token, facts)).await {
        Ok(caller) => {
            request.extensions_mut().insert::<Caller>(caller);
            next.run(request).await
        }
        Err(refusal) => render(&refusal),
    }
}

pub(super) fn facts(request: &Request<Body>, client: IpAddr) -> RequestFacts {
    let named =
        ["x-ms-client-request-id", "x-request-id"].iter().find_map(|name| request.headers().get(*name));
    let printable = |text: &str| text.chars().filter(char::is_ascii_graphic).take(100).collect::<String>();
    RequestFacts {
        client,
        method: request.method().as_str().to_owned(),
        operation_id: request_id(),
        client_request_id: named.and_then(|value| value.to_str().ok()).map(printable),
    }
}

/// The token of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Result<SecretString, Refusal> {
    let missing =
        || Refusal::new(Cause::AuthMissing, "the API needs 'Authorization: Bearer <management token>'");
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(missing());
    }
    Ok(token.trim().into())
}
