//! Answers in ARM's words: bodies with a status, ETags, the header that tells where an operation is polled, and refusals.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::management::Refusal;
use crate::management::http::etag;
use crate::management::operations::Written;

/// Where a client polls (Azure Resource Manager, "Track asynchronous operations").
const ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

/// An answer that is no refusal.
pub struct Reply {
    status: StatusCode,
    body: Option<Value>,
    version: Option<u64>,
    operation_uri: Option<String>,
}

impl Reply {
    /// 200 with a body.
    pub const fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body: Some(body), version: None, operation_uri: None }
    }

    /// A status alone.
    pub const fn empty(status: StatusCode) -> Self {
        Self { status, body: None, version: None, operation_uri: None }
    }

    /// The body is in this version.
    #[must_use]
    pub const fn in_version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// What was asked for has been done. A client that waits for a new resource finds its operation ended at the first
    /// look, which costs it no pause; a replaced one it need not look for.
    #[must_use]
    pub fn written(mut self, written: Written, operation_uri: String) -> Self {
        match written {
            Written::Created => {
                self.status = StatusCode::CREATED;
                self.operation_uri = Some(operation_uri);
            }
            Written::Replaced => {}
        }
        self
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => (self.status, Json(body)).into_response(),
            None => self.status.into_response(),
        };
        let headers = response.headers_mut();
        headers.extend(self.version.map(|version| (header::ETAG, etag(version))));
        let uri = self.operation_uri.and_then(|uri| HeaderValue::from_str(&uri).ok());
        headers.extend(uri.map(|uri| (ASYNC_OPERATION, uri)));
        response
    }
}

/// How this face tells a refusal: ARM's error object, with the message once more where older SDKs look for it. The members
/// that are lists must be there: SDK v2 goes through them.
#[must_use]
pub fn render(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.cause.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = refusal.to_string();
    let body = json!({
        "error": {
            "code": refusal.cause.code(),
            "message": message,
            "target": refusal.target,
            "details": [],
            "additionalInfo": [],
        },
        "message": message,
    });
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::Cause;

    async fn body(response: Response) -> Value {
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_refusal_has_the_shape_that_sdk_v2_survives() {
        let response = render(&Refusal::invalid("properties.traffic", "wrong"));
        assert_eq!(response.status(), 400);
        assert!(!response.headers().contains_key(header::RETRY_AFTER), "the client would try again");
        let expected = json!({
            "error": {
                "code": "BadRequest",
                "message": "properties.traffic: wrong",
                "target": "properties.traffic",
                "details": [],
                "additionalInfo": [],
            },
            "message": "properties.traffic: wrong",
        });
        assert_eq!(body(response).await, expected);
        assert_eq!(render(&Refusal::not_found("endpoint 'x'")).status(), 404);
        assert_eq!(render(&Refusal::new(Cause::PreconditionFailed, "x")).status(), 412);
    }

    #[test]
    fn only_what_is_new_names_its_operation() {
        let written = |written| {
            Reply::ok(json!({})).in_version(7).written(written, "https://host/op".into()).into_response()
        };
        let created = written(Written::Created);
        assert_eq!(created.status(), 201);
        assert_eq!(created.headers()[ASYNC_OPERATION], "https://host/op");
        assert_eq!(created.headers()[header::ETAG], "\"7\"");
        let replaced = written(Written::Replaced);
        assert_eq!(replaced.status(), 200);
        assert!(!replaced.headers().contains_key(ASYNC_OPERATION));
    }
}
