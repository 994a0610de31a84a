//! What is the same around every call of every face: its id, its deadline, the headers of every answer, a line in the
//! log, and an answer even if the handler panics.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use uuid::Uuid;

use super::Render;
use crate::management::{Cause, Refusal};

/// Longest time from a request's head to its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The id of the call, in every answer; operations and the activity log have it as their operation id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// When to try again after 503, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

tokio::task_local! {
    static CALL: Uuid;
}

/// The id of the call that this task answers; it is in the answer's `x-request-id`, and the operation has it as its id.
#[must_use]
pub fn request_id() -> Uuid {
    CALL.try_with(|id| *id).unwrap_or_default()
}

/// Puts the envelope around all of `router`; `words` says for a path how its face tells a refusal.
pub fn envelop(router: Router, words: fn(&str) -> Render) -> Router {
    router.layer(middleware::from_fn_with_state(words, answer))
}

async fn answer(State(words): State<fn(&str) -> Render>, request: Request, next: Next) -> Response {
    // Ordered by time, so that the log of operations is.
    CALL.scope(Uuid::now_v7(), answer_within(words, request, next)).await
}

async fn answer_within(words: fn(&str) -> Render, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, version) = (request.method().clone(), request.version());
    let path = request.uri().path().to_owned();
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(CALL_TIMEOUT, handled).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(%method, path, request_id = %request_id(), "a handler panicked");
            words(&path)(&Refusal::new(Cause::Internal, "the gateway failed on this request"))
        }
        Err(_) => words(&path)(&late()),
    };
    finish(&mut response, version);
    let status = response.status().as_u16();
    tracing::debug!(%method, path, status, request_id = %request_id(), elapsed = ?began.elapsed(), "management call");
    response
}

fn late() -> Refusal {
    let seconds = CALL_TIMEOUT.as_secs();
    let message = format!("there was no answer within {seconds} s; read again to see whether it was done");
    Refusal::new(Cause::Unavailable, message)
}

fn finish(response: &mut Response, version: Version) {
    let status = response.status();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&request_id().to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Both are the client's to act on whatever the face (RFC 9110 sections 11.6.1 and 10.2.3).
    if status == StatusCode::UNAUTHORIZED {
        headers.entry(header::WWW_AUTHENTICATE).or_insert(HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.entry(header::RETRY_AFTER).or_insert(RETRY_AFTER_SECONDS);
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE && version <= Version::HTTP_11 {
        // The rest of the body would have to be read before the next request.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use tower_service::Service as _;

    use super::*;

    fn words(_: &str) -> Render {
        |refusal| StatusCode::from_u16(refusal.cause.status()).unwrap().into_response()
    }

    async fn call(router: Router, path: &str) -> Response {
        envelop(router, words).call(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn every_answer_has_the_id_that_its_handler_saw() {
        let router = Router::new().route("/id", get(|| async { request_id().to_string() }));
        let response = call(router.clone(), "/id").await;
        let id = response.headers()[REQUEST_ID].clone();
        let seen = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(id.as_bytes(), seen);
        let absent = call(router, "/absent").await;
        assert_eq!(absent.status(), 404);
        assert_ne!(absent.headers()[REQUEST_ID], id);
        assert_eq!(absent.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(absent.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }

    #[tokio::test]
    async fn a_panic_is_answered_with_500() {
        async fn panics() -> StatusCode {
            panic!("on purpose")
        }
        let response = call(Router::new().route("/", get(panics)), "/").await;
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key(REQUEST_ID));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_never_ends_is_answered_with_503() {
        let response = call(Router::new().route("/", get(std::future::pending::<()>)), "/").await;
        assert_eq!(response.status(), 503);
    }
}
