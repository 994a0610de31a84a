//! Answers in the words of the model management service: JSON always, also for `/token`, where the SDK reads whatever
//! the status is.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::management::Refusal;

use super::route::Place;

/// The header that makes the SDK poll; it uses the last segment of the path only.
const OPERATION_LOCATION: HeaderName = HeaderName::from_static("operation-location");

/// What has been done.
pub enum Answer {
    /// 200: here it is.
    Found(Value),
    /// 201: it was made.
    Made(Value),
    /// 200: the change is done. Its operation can be looked up.
    Done,
    /// 202: the change is done. The SDK asks for its operation next, and finds it at its end.
    Accepted(Value),
    /// 204: there was nothing to do.
    Nothing,
}

/// Where the operation of a request can be looked up.
pub struct OperationLink {
    /// `https://` and the host that the client used.
    pub base: String,
    /// The workspace.
    pub place: Place,
    /// The operation of the activity log.
    pub id: uuid::Uuid,
}

impl Answer {
    /// The answer with the link to its operation where one is expected.
    pub fn respond(self, link: &OperationLink) -> Response {
        let (status, body, has_operation) = match self {
            Self::Found(body) => (StatusCode::OK, Some(body), false),
            Self::Made(body) => (StatusCode::CREATED, Some(body), false),
            Self::Done => (StatusCode::OK, None, true),
            Self::Accepted(body) => (StatusCode::ACCEPTED, Some(body), true),
            Self::Nothing => (StatusCode::NO_CONTENT, None, false),
        };
        let mut response = match body {
            Some(body) => (status, axum::Json(body)).into_response(),
            None => status.into_response(),
        };
        if has_operation {
            let OperationLink { base, place, id } = link;
            let url = format!("{base}/modelmanagement/v1.0{}/operations/{id}", place.resource_id());
            // Names with letters outside ASCII do not fit a header; the id alone is what counts.
            let value =
                HeaderValue::try_from(url).ok().or_else(|| HeaderValue::try_from(id.to_string()).ok());
            response.headers_mut().extend(value.map(|value| (OPERATION_LOCATION, value)));
        }
        response
    }
}

/// A refusal. `error` is for SDK v2 and others that read errors as Azure's resource manager writes them.
pub fn refusal(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body(refusal))).into_response()
}

/// The body of a refusal.
pub fn body(refusal: &Refusal) -> Value {
    let code = refusal.cause.code();
    let message = refusal.to_string();
    let details: Vec<_> = refusal
        .target
        .iter()
        .map(|target| json!({ "code": code, "message": refusal.message, "target": target }))
        .collect();
    json!({
        "code": code,
        "statusCode": refusal.cause.status(),
        "message": message,
        "details": details,
        "correlation": {},
        "error": { "code": code, "message": message },
    })
}
