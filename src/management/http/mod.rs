//! What all faces share of HTTP: authentication before any handler, strict JSON in, blocking operations off the
//! reactor, and each face's own words for a refusal.

mod address;
mod envelope;
mod json;
mod merge_patch;
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

use crate::auth::OutsideClaims;

use super::{Caller, Cause, Operations, Refusal, RequestFacts};

pub use address::base_url;
pub use envelope::{envelop, request_id};
pub use json::{body, request};
pub use merge_patch::merge as merge_patch;
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

    /// Whom `token` stands for: an outside issuer vouches for it, or it is a management token.
    async fn caller(&self, token: SecretString, facts: RequestFacts) -> Result<Caller, Refusal> {
        match self.operations.credentials().vouch(&token).await {
            Some(claims) => {
                let OutsideClaims { subject, groups } = claims?;
                self.run(move |operations| operations.outside_caller(&subject, &groups, facts)).await
            }
            None => self.run(move |operations| operations.authenticate(&token, facts)).await,
        }
    }

    /// Puts authentication before every route of `router`: handlers find the [`Caller`] among the request's extensions
    /// (`Extension<Caller>`). A method that a route does not know is refused in the face's words.
    pub fn protect(&self, router: Router<Self>, render: Render) -> Router<Self> {
        let api = self.clone();
        self.refuse_methods(router, render).layer(middleware::from_fn_with_state((api, render), authenticate))
    }

    /// Refuses methods that a route of `router` does not know, in the face's words.
    pub fn refuse_methods(&self, router: Router<Self>, render: Render) -> Router<Self> {
        router.method_not_allowed_fallback(async move |method: Method| {
            render(&Refusal::new(Cause::WrongMethod, format!("the resource does not know {method}")))
        })
    }
}

async fn authenticate(
    State((api, render)): State<(Api, Render)>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let facts = facts(&request, client.ip());
    let caller = match bearer(request.headers()) {
        Ok(token) => api.caller(token, facts.clone()).await,
        Err(refusal) => Err(refusal),
    };
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert::<Caller>(caller);
            next.run(request).await
        }
        Err(refusal) => {
            let answer = render(&refusal);
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            log_stranger(&api, &method, path, facts, refusal).await;
            answer
        }
    }
}

/// Leaves the events of a write that nobody known has tried; reads leave none, as ever.
async fn log_stranger(api: &Api, method: &Method, path: String, facts: RequestFacts, why: Refusal) {
    let operation = match *method {
        Method::PUT | Method::PATCH => "Scoregate/unauthenticated/write",
        Method::DELETE => "Scoregate/unauthenticated/delete",
        Method::POST => "Scoregate/unauthenticated/action",
        _ => return,
    };
    let logged = api.run(move |operations| {
        operations.log_stranger(operation, &path, &facts, &why);
        Ok(())
    });
    // What can fail in it is told to the gateway's own log already.
    let _ = logged.await;
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
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        // Which one counts would be anybody's guess (the data plane refuses two as well).
        return Err(Refusal::new(Cause::AuthInvalid, "there are two Authorization headers; send one"));
    }
    let text = value.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(missing());
    }
    Ok(token.trim().into())
}
