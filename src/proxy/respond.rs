//! From an outcome to an answer: the only place where an error becomes a status, and a container's status another one.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

use crate::catalog::{ComputeType, StatusMapping};
use crate::error::{EndedBy, Error, Kind, Quota, Reason, Retry};
use crate::telemetry::record::RequestId;
use crate::wire::Body;
use crate::wire::head::HeadError;

use super::body::ResponseBody;
use super::context::{AnswerForm, Exchange};
use super::grpc::{self, GrpcStatus};
use super::headers;
use super::phases::Answer;

/// With a 424: the container's own status and why (managed online endpoints).
const MODEL_STATUS: HeaderName = HeaderName::from_static("ms-azureml-model-error-statuscode");
const MODEL_REASON: HeaderName = HeaderName::from_static("ms-azureml-model-error-reason");

/// With a 429 for a rate: the rate, and what is left of it.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Passes a replica's answer on.
pub(super) fn pass(mut exchange: Box<Exchange>, answer: Answer) -> Response<ResponseBody> {
    let mut response = match answer {
        Answer::Preflight(response) => {
            exchange.answer(response.status(), Reason::Ok);
            exchange.record.ended_by = EndedBy::Gateway;
            response
        }
        Answer::Model(mut response) => {
            let status = response.status();
            exchange.record.model_status = Some(status.as_u16());
            response.headers_mut().remove(headers::REASON);
            if status.is_success() {
                exchange.watch_usage(response.headers());
            }
            if let Some(collecting) = &mut exchange.collecting {
                collecting.begin_output(response.headers());
            }
            rewrite_status(&exchange, &mut response);
            let status = response.status();
            let is_error = status.is_client_error()
                || status.is_server_error()
                // Of an answer that is only a head (gRPC's trailers-only form).
                || grpc::says_failed(response.headers());
            exchange.answer(status, if is_error { Reason::ModelError } else { Reason::Ok });
            response
        }
    };
    headers::finish_answer(response.headers_mut(), &exchange);
    response.map(|body| ResponseBody::new(body, exchange))
}

/// Answers for the gateway itself.
pub(super) fn refuse(mut exchange: Box<Exchange>, error: &Error) -> Response<ResponseBody> {
    exchange.hold_to_nothing();
    let compute_type = rewritten_as(&exchange);
    let status = status_of(error.kind, compute_type);
    log_refusal(&exchange, error, status);
    let mut response = match exchange.answer.form {
        AnswerForm::Http => refusal(&exchange.record.request_id, error, status),
        AnswerForm::Grpc => grpc::refusal(error, grpc_status_of(error.kind)),
    };
    if error.kind == Kind::MethodNotAllowed {
        let allowed = HeaderValue::from_static(exchange.answer.methods.as_str());
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    if exchange.record.method == Some(Method::HEAD) {
        // An answer to HEAD has no body; hyper would send it all the same, and a body that nobody takes is a client gone.
        *response.body_mut() = Body::empty();
    }
    headers::finish_answer(response.headers_mut(), &exchange);
    if error.kind == Kind::ClientGone {
        // Whoever still reads gets the refusal; in the record the client has left.
        drop(exchange);
        return response.map(ResponseBody::without_record);
    }
    exchange.answer(status, error.reason());
    response.map(|body| ResponseBody::new(body, exchange))
}

/// Answers what never became a call.
pub(super) fn reject(error: &Error) -> Response<ResponseBody> {
    let id = RequestId::new();
    tracing::debug!(request_id = id.as_str(), %error, "request refused");
    let mut response = refusal(&id, error, status_of(error.kind, None));
    headers::set_request_id(response.headers_mut(), &headers::id_value(&id));
    headers::set_date(response.headers_mut());
    response.map(ResponseBody::without_record)
}

/// What a refused head means.
pub(super) fn head_refusal(refused: &HeadError) -> Error {
    match refused {
        HeadError::Malformed(_, problem) => Error::new(Kind::Malformed, *problem),
        HeadError::TargetTooLong { limit } => Error::new(
            Kind::TargetTooLong,
            format!("the request target is over {limit} bytes, which is the most a listener takes"),
        ),
        HeadError::TooLarge { limit } => Error::new(
            Kind::HeadersTooLarge,
            format!("the request head is over {limit} bytes, which is the most a listener takes"),
        ),
        HeadError::TooManyFields { limit } => Error::new(
            Kind::HeadersTooLarge,
            format!("the request has more than {limit} header fields, which is the most a listener takes"),
        ),
    }
}

fn refusal(id: &RequestId, error: &Error, status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::full(error_body(id, error, status)));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(headers::REASON, HeaderValue::from_static(error.reason().as_str()));
    explain(fields, error);
    response
}

/// The gateway's own answer to a CORS preflight (Fetch standard, 3.2.3); the origin itself is set with the rest.
pub(super) fn preflight(cors: &PreparedCors) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    fields.insert(headers::REASON, HeaderValue::from_static(Reason::Ok.as_str()));
    fields.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    fields.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone());
    fields.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    response
}

/// A service's cross-origin rules as header values.
#[derive(Clone, Debug)]
pub struct PreparedCors {
    origins: Vec<HeaderValue>,
    headers: HeaderValue,
    max_age: HeaderValue,
}

impl PreparedCors {
    /// Rules for `origins` (a single `*` is any), request `headers` and how long a preflight may be remembered.
    #[must_use]
    pub fn new(origins: Vec<HeaderValue>, headers: &[HeaderName], max_age: Duration) -> Self {
        let names = headers.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        Self {
            origins,
            headers: HeaderValue::try_from(names).unwrap_or(HeaderValue::from_static("")),
            max_age: HeaderValue::from(max_age.as_secs()),
        }
    }

    /// What `access-control-allow-origin` says to `origin`; `None`: nothing.
    pub(super) fn allows(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        self.origins.iter().find(|allowed| *allowed == origin || *allowed == "*").cloned()
    }
}

/// The status of an answer that the gateway makes, per compute type (azureml-fe's for ACI and AKS, the managed front
/// end's for Managed; without a service or with `status_mapping: passthrough`, the former).
#[must_use]
pub const fn status_of(kind: Kind, compute_type: Option<ComputeType>) -> StatusCode {
    let managed = matches!(compute_type, Some(ComputeType::Managed));
    match kind {
        Kind::Malformed | Kind::BodyBroken => StatusCode::BAD_REQUEST,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Kind::TargetTooLong => StatusCode::URI_TOO_LONG,
        Kind::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Kind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::BodyTimeout | Kind::WriteTimeout => StatusCode::REQUEST_TIMEOUT,
        Kind::UnknownService | Kind::UnknownDeployment | Kind::UnknownPath => StatusCode::NOT_FOUND,
        Kind::AuthMissing | Kind::AuthInvalid | Kind::AuthExpired => StatusCode::UNAUTHORIZED,
        Kind::QueueFull | Kind::QueueTimeout if managed => StatusCode::TOO_MANY_REQUESTS,
        Kind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Kind::AuthUnavailable
        | Kind::QueueFull
        | Kind::QueueTimeout
        | Kind::NoReadyReplica
        | Kind::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Kind::ConnectFailed | Kind::UpstreamReset | Kind::UpstreamProtocol => StatusCode::BAD_GATEWAY,
        Kind::UpstreamTimeout if managed => StatusCode::REQUEST_TIMEOUT,
        Kind::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        // Read only by a client that has closed its side alone.
        Kind::ClientGone => StatusCode::BAD_REQUEST,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The status of a gRPC call that the gateway refuses: that which gRPC gives the HTTP status
/// (doc/http-grpc-status-mapping.md), but where a finer one is known (doc/statuscodes.md).
#[must_use]
pub(super) const fn grpc_status_of(kind: Kind) -> GrpcStatus {
    match kind {
        Kind::Malformed | Kind::BodyBroken | Kind::UpstreamProtocol | Kind::Internal => GrpcStatus::Internal,
        Kind::TargetTooLong
        | Kind::HeadersTooLarge
        | Kind::BodyTooLarge
        | Kind::QueueFull
        | Kind::QueueTimeout
        | Kind::RateLimited => GrpcStatus::ResourceExhausted,
        Kind::BodyTimeout | Kind::WriteTimeout | Kind::UpstreamTimeout => GrpcStatus::DeadlineExceeded,
        Kind::MethodNotAllowed | Kind::UnknownService | Kind::UnknownDeployment | Kind::UnknownPath => {
            GrpcStatus::Unimplemented
        }
        Kind::AuthMissing | Kind::AuthInvalid | Kind::AuthExpired => GrpcStatus::Unauthenticated,
        Kind::Misdirected
        | Kind::AuthUnavailable
        | Kind::NoReadyReplica
        | Kind::ConnectFailed
        | Kind::UpstreamReset
        | Kind::Draining => GrpcStatus::Unavailable,
        Kind::ClientGone => GrpcStatus::Cancelled,
    }
}

/// The compute type whose statuses the call's service has; `None`: no service, or `status_mapping: passthrough`.
fn rewritten_as(exchange: &Exchange) -> Option<ComputeType> {
    let settings = &exchange.service()?.settings;
    (settings.status_mapping == StatusMapping::ComputeType).then_some(settings.compute_type)
}

/// Rewrites a container's status as the compute type's own front end would. Those front ends know neither tunnels nor
/// gRPC, whose own status is elsewhere.
fn rewrite_status(exchange: &Exchange, response: &mut Response<Body>) {
    let is_plain = exchange.answer.form == AnswerForm::Http && !response.body().is_upgraded();
    if !is_plain {
        return;
    }
    let Some(compute_type) = rewritten_as(exchange) else { return };
    let status = response.status();
    match compute_type {
        ComputeType::Aci | ComputeType::Aks if status == StatusCode::INTERNAL_SERVER_ERROR => {
            *response.status_mut() = StatusCode::BAD_GATEWAY;
        }
        ComputeType::Aci | ComputeType::Aks => {}
        ComputeType::Managed if status != StatusCode::OK => {
            *response.status_mut() = StatusCode::FAILED_DEPENDENCY;
            response.headers_mut().insert(MODEL_STATUS, HeaderValue::from(status.as_u16()));
            response.headers_mut().insert(MODEL_REASON, HeaderValue::from_static("model_error"));
        }
        ComputeType::Managed => {}
    }
}

/// Fields that tell the client what to do about it. `Retry-After` goes only where a retry can help: the v2 SDK retries
/// whatever carries it, even a 401.
pub(super) fn explain(fields: &mut HeaderMap, error: &Error) {
    match error.kind {
        Kind::AuthMissing => {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Kind::AuthInvalid => {
            let challenge = "Bearer error=\"invalid_token\", error_description=\"the credential is not valid for this service\"";
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        Kind::AuthExpired => {
            let challenge =
                "Bearer error=\"invalid_token\", error_description=\"the credential has expired\"";
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        Kind::AuthUnavailable
        | Kind::QueueFull
        | Kind::QueueTimeout
        | Kind::RateLimited
        | Kind::NoReadyReplica
        | Kind::Draining => {
            tell_when(fields, error.retry.as_deref());
        }
        _ => {}
    }
}

/// When to try again (RFC 9110 10.2.3), and what is used up until then (draft-ietf-httpapi-ratelimit-headers-10).
fn tell_when(fields: &mut HeaderMap, retry: Option<&Retry>) {
    let seconds = retry.map_or(1, |retry| retry.after.as_secs().max(1));
    fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    let Some(Quota { name, calls, window }) = retry.and_then(|retry| retry.quota) else { return };
    let policy = format!("\"{name}\";q={calls};w={}", window.as_secs());
    let left = format!("\"{name}\";r=0;t={seconds}");
    for (field, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, left)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            fields.insert(field, value);
        }
    }
}

/// `{"error": {..}}` with an object inside and a message on both levels would suit both SDKs; the object alone does.
fn error_body(id: &RequestId, error: &Error, status: StatusCode) -> Bytes {
    let body = serde_json::json!({
        "error": {
            "code": status.canonical_reason().unwrap_or("Error").replace(' ', ""),
            "message": error.message,
            "reason": error.reason().as_str(),
            "requestId": id.as_str(),
        }
    });
    Bytes::from(body.to_string())
}

fn log_refusal(exchange: &Exchange, error: &Error, status: StatusCode) {
    let service = exchange.record.service.as_deref().unwrap_or_default();
    let request_id = exchange.record.request_id.as_str();
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(service, request_id, %error, "call failed");
    } else if status.is_server_error() {
        tracing::warn!(service, request_id, %error, "call failed");
    } else {
        tracing::debug!(service, request_id, %error, "call refused");
    }
}
