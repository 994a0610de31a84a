//! Refusals in the words of RFC 9457, `application/problem+json`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use crate::management::Refusal;
use crate::management::http::request_id;

/// Why a call was not done. Nothing has changed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// `about:blank`: the status and `code` say what kind it is (RFC 9457 section 4.2.1).
    #[serde(rename = "type")]
    kind: &'static str,
    /// Phrase of the status.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What is wrong and what to do.
    detail: String,
    /// One word for programs.
    code: &'static str,
    /// The field or resource that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// As in `x-request-id`.
    request_id: String,
}

/// Tells `refusal`.
pub(super) fn render(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = Problem {
        kind: "about:blank",
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        detail: refusal.message.clone(),
        code: refusal.cause.code(),
        field: refusal.target.clone(),
        request_id: request_id().to_string(),
    };
    let mut response = (status, Json(problem)).into_response();
    let content_type = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
