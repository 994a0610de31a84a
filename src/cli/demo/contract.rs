//! Owns what the demo's container answers: the HTTP contract of the Azure ML inference server around the
//! demo's model.
//!
//! Routes, headers, messages and their quirks are those seen from azureml-inference-server-http 1.5.1; the
//! oddest: 404 and 405 of its router carry none of the id headers. Three things differ: a form-encoded POST
//! is read like any other (the stock server hands the model an empty text), the body is bounded, and a 405
//! says what is allowed.

use std::fmt::Display;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use uuid::Uuid;

use super::iris::Measurements;
use super::model::Model;
use super::payload::{self, InputError};
use super::swagger;

/// Body of a POST, in bytes: some 40,000 flowers.
const BODY_LIMIT: usize = 1 << 20;
/// Read and dropped of a body over the limit, in bytes, so that a client that writes before it reads gets to
/// see the 413; beyond it the connection is reset.
const DISCARD_LIMIT: usize = 8 << 20;
/// Bytes of each id header (`HEADER_LIMIT` in the stock server's routes.py).
const ID_LIMIT: usize = 100;

const SERVER_VERSION: HeaderValue =
    HeaderValue::from_static(concat!("scoregate-demo/", env!("CARGO_PKG_VERSION")));
const TEXT: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const X_MS_CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const X_MS_SERVER_VERSION: HeaderName = HeaderName::from_static("x-ms-server-version");
const X_MS_RUN_FUNCTION_FAILED: HeaderName = HeaderName::from_static("x-ms-run-function-failed");
const X_MS_RUN_FN_EXEC_MS: HeaderName = HeaderName::from_static("x-ms-run-fn-exec-ms");
/// Office services' own trace id, which the stock server echoes.
const TRACE_ID: HeaderName = HeaderName::from_static("traceid");

pub(super) type Answer = Response<Full<Bytes>>;

/// The answer to any call, bad ones too. It says that the connection closes; closing is the server's part.
pub(super) async fn answer(model: &Model, request: Request<Incoming>) -> Answer {
    let mut answer = match Route::of(request.method(), request.uri().path()) {
        Ok(route) => identified(route, model, request).await,
        Err(refusal) => refusal.answer(),
    };
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

async fn identified(route: Route, model: &Model, request: Request<Incoming>) -> Answer {
    let mut ids = Ids::of(request.headers());
    let mut answer = match ids.drop_oversized() {
        Ok(()) => route.answer(model, request).await,
        Err(message) => failure(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message),
    };
    let headers = answer.headers_mut();
    headers.insert(X_MS_SERVER_VERSION, SERVER_VERSION);
    ids.put_into(headers);
    answer
}

/// The ids that an answer gives back.
struct Ids {
    request: Option<HeaderValue>,
    /// `x-ms-client-request-id`, or the older `x-ms-request-id` in its place.
    client: Option<HeaderValue>,
    /// Goes out as `x-ms-request-id`: what came in as that, else the client's id, else the request's.
    legacy: Option<HeaderValue>,
    trace: Option<HeaderValue>,
}

impl Ids {
    fn of(headers: &HeaderMap) -> Self {
        let given = |name| headers.get(name).filter(|value| !value.is_empty()).cloned();
        let request = headers.get(X_REQUEST_ID).cloned().or_else(new_id);
        let legacy = given(X_MS_REQUEST_ID);
        let client = given(X_MS_CLIENT_REQUEST_ID).or_else(|| legacy.clone());
        let legacy = legacy.or_else(|| client.clone()).or_else(|| request.clone());
        Self { request, client, legacy, trace: headers.get(TRACE_ID).cloned() }
    }

    /// Forgets ids that are too long to be given back. Fails with the message for the caller if there were
    /// any.
    fn drop_oversized(&mut self) -> Result<(), &'static str> {
        let oversized = |id: &Option<HeaderValue>| id.as_ref().is_some_and(|id| id.len() > ID_LIMIT);
        if oversized(&self.request) {
            (self.request, self.client, self.legacy) = (None, None, None);
            return Err("x-request-id must not exceed 100 characters");
        }
        if oversized(&self.client) || oversized(&self.legacy) {
            (self.client, self.legacy) = (None, None);
            return Err("x-ms-request-id and x-ms-client-request-id must not exceed 100 characters");
        }
        Ok(())
    }

    fn put_into(self, headers: &mut HeaderMap) {
        let named = [
            (X_REQUEST_ID, self.request),
            (X_MS_REQUEST_ID, self.legacy),
            (X_MS_CLIENT_REQUEST_ID, self.client),
            (TRACE_ID, self.trace),
        ];
        headers.extend(named.into_iter().filter_map(|(name, id)| Some((name, id?))));
    }
}

fn new_id() -> Option<HeaderValue> {
    HeaderValue::from_str(Uuid::new_v4().hyphenated().encode_lower(&mut Uuid::encode_buffer())).ok()
}

/// What the router lets through.
enum Route {
    Health,
    Score,
    Swagger,
    /// OPTIONS of a route that has no handler for it: the allowed methods.
    Options(&'static str),
}

/// What the router does not let through.
enum Refusal {
    NotFound,
    /// Carries the methods that would have been.
    NotAllowed(&'static str),
}

impl Route {
    fn of(method: &Method, path: &str) -> Result<Self, Refusal> {
        let (route, allowed) = match path {
            "/" => (Self::Health, "GET, HEAD, OPTIONS"),
            "/score" => (Self::Score, "GET, HEAD, OPTIONS, POST"),
            "/swagger.json" => (Self::Swagger, "GET, HEAD, OPTIONS"),
            _ => return Err(Refusal::NotFound),
        };
        match (route, method) {
            (Self::Score, &Method::POST | &Method::OPTIONS) => Ok(Self::Score),
            (route, &Method::GET | &Method::HEAD) => Ok(route),
            (_, &Method::OPTIONS) => Ok(Self::Options(allowed)),
            _ => Err(Refusal::NotAllowed(allowed)),
        }
    }

    async fn answer(self, model: &Model, request: Request<Incoming>) -> Answer {
        match self {
            Self::Health => text("Healthy"),
            Self::Score => score(model, request).await,
            Self::Swagger => describe(request.uri().query().unwrap_or_default()),
            Self::Options(allowed) => allowing(allowed, text("")),
        }
    }
}

impl Refusal {
    fn answer(self) -> Answer {
        match self {
            Self::NotFound => {
                failure(StatusCode::NOT_FOUND, "The requested URL was not found on the server.")
            }
            Self::NotAllowed(methods) => {
                let message = "The method is not allowed for the requested URL.";
                allowing(methods, failure(StatusCode::METHOD_NOT_ALLOWED, message))
            }
        }
    }
}

async fn score(model: &Model, request: Request<Incoming>) -> Answer {
    match *request.method() {
        Method::GET => {
            let query = request.uri().query().unwrap_or_default();
            run(model, || payload::flowers_in_query(query))
        }
        Method::POST => match body(request.into_body()).await {
            Ok(body) => run(model, || payload::flowers_in_body(&body)),
            Err(refused) => refused,
        },
        Method::OPTIONS => from_model(text("")),
        // HEAD: the stock server's router lets it through and its handler refuses it.
        _ => failure(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"),
    }
}

/// The part a score.py plays in the stock server; bad input is the caller's fault and no failure of the
/// function.
fn run(model: &Model, flowers: impl FnOnce() -> Result<Vec<Measurements>, InputError>) -> Answer {
    let started = Instant::now();
    let mut answer = match flowers() {
        Ok(flowers) => json_answer(StatusCode::OK, &payload::answer(&model.predict(&flowers))),
        Err(error) => failure(StatusCode::BAD_REQUEST, error),
    };
    let milliseconds = format!("{:.3}", started.elapsed().as_secs_f64() * 1e3);
    answer
        .headers_mut()
        .extend(HeaderValue::try_from(milliseconds).ok().map(|value| (X_MS_RUN_FN_EXEC_MS, value)));
    answer
}

/// The whole body as text, or the refusal.
async fn body(mut body: Incoming) -> Result<String, Answer> {
    let bytes = match Limited::new(&mut body, BODY_LIMIT).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(body).await;
            let message = format!("body: more than {BODY_LIMIT} bytes");
            return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Err(error) => return Err(failure(StatusCode::BAD_REQUEST, format_args!("body: {error}"))),
    };
    String::from_utf8(bytes.into()).map_err(|error| {
        failure(StatusCode::BAD_REQUEST, format_args!("Input cannot be decoded as UTF-8: {error}"))
    })
}

async fn discard(mut body: Incoming) {
    let mut dropped = 0;
    while dropped < DISCARD_LIMIT
        && let Some(Ok(frame)) = body.frame().await
    {
        dropped += frame.data_ref().map_or(0, Bytes::len);
    }
}

fn describe(query: &str) -> Answer {
    let version = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "version");
    let version = version.as_ref().map(|(_, version)| version.as_ref());
    match swagger::document(version) {
        Some(document) => json_answer(StatusCode::OK, &document),
        None => {
            let version = version.unwrap_or_default();
            let message =
                format!("Swagger version [{version}] is not valid. Supported versions: [2, 3, 3.1].");
            failure(StatusCode::NOT_FOUND, message)
        }
    }
}

fn failure(status: StatusCode, message: impl Display) -> Answer {
    json_answer(status, &json!({ "message": message.to_string() }))
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Answer::new(value.to_string().into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    from_model(answer)
}

fn text(body: &'static str) -> Answer {
    let mut answer = Answer::new(body.into());
    answer.headers_mut().insert(CONTENT_TYPE, TEXT);
    answer
}

/// The stock server marks whatever its own answer type carries, not just answers of the model. Spelled as
/// Python does.
fn from_model(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(X_MS_RUN_FUNCTION_FAILED, HeaderValue::from_static("False"));
    answer
}

fn allowing(methods: &'static str, mut answer: Answer) -> Answer {
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}
