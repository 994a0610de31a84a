//! The record of one call: its fields, as facts. How they are written is `encode`'s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method};

use crate::catalog::{AuthMode, ComputeType};
use crate::error::{EndedBy, Reason};

use super::trace::{TraceId, TraceParent};

/// All that is told about one call. Facts only: what is left out under `privacy: high` is decided when it is written.
#[derive(Clone, Debug)]
pub struct Record {
    /// `HTTPMethod`; `None`: the request line could not be read.
    pub method: Option<Method>,
    /// `UserAgent` as sent.
    pub user_agent: Option<HeaderValue>,
    /// `ComputeType`; `None`: no service was found.
    pub compute_type: Option<ComputeType>,
    /// `RequestUrl` as the caller wrote it.
    pub url: RequestUrl,
    /// `StatusCode` sent to the caller; 499 when the caller left before any.
    pub status: u16,
    /// `RequestId`: a UUID in its 36-letter form.
    pub request_id: RequestId,
    /// `Time`: when the head had arrived.
    pub time: SystemTime,
    /// `Duration`: from there to the last byte handed to the system, on the monotonic clock.
    pub duration: Duration,
    /// `Service`
    pub service: Option<Arc<str>>,
    /// `Deployment`
    pub deployment: Option<Arc<str>>,
    /// `Replica`: host and port.
    pub replica: Option<Arc<str>>,
    /// `AuthType`: the service's mode; `None`: no service was found.
    pub auth: Option<AuthMode>,
    /// `KeyId` or `Subject`: who was let in.
    pub principal: Principal,
    /// `ModelStatusCode`: the container's own status.
    pub model_status: Option<u16>,
    /// `Reason`
    pub reason: Reason,
    /// `EndedBy`
    pub ended_by: EndedBy,
    /// `Attempts` made upstream.
    pub attempts: u32,
    /// `RequestBytes`: body bytes received from the caller.
    pub request_bytes: u64,
    /// `ResponseBytes`: body bytes handed to the caller.
    pub response_bytes: u64,
    /// `ClientRequestId`: the caller's `x-ms-client-request-id`, cleaned.
    pub client_request_id: Option<HeaderValue>,
    /// `TraceId`, `ParentSpanId`, `TraceFlags`: from a valid `traceparent`.
    pub parent: Option<TraceParent>,
    /// `Tries`: empty unless an attempt was in vain; then all of them, of which there are as many as `retry.attempts` allows.
    pub tries: Vec<Try>,
    /// `ClientAddress`
    pub client_address: IpAddr,
    /// `Protocol`: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: http::Version,
    /// `QueueMs`: waited for a replica.
    pub queue: Option<Duration>,
    /// `ConnectMs`: look-up, TCP and TLS to the replica; `None` on a pooled connection.
    pub connect: Option<Duration>,
    /// `FirstByteMs`: from the start of the attempt to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// `StreamMs`: from there to the end.
    pub stream: Option<Duration>,
    /// `Model`, `PromptTokens`, `CompletionTokens`: of OpenAI-style answers that say it.
    pub usage: Option<Box<Usage>>,
}

/// One of several attempts of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// `Replica`: host and port.
    pub replica: Arc<str>,
    /// `StartMs`: when it began, from [`Record::time`] on.
    pub start: Duration,
    /// `Duration`: from there until it had failed or, for the last one, until the call was over.
    pub duration: Duration,
    /// How it ended.
    pub end: TryEnd,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TryEnd {
    /// `StatusCode`: the container's own.
    pub status: Option<u16>,
    /// `Error`: why there was no answer, or not all of it.
    pub error: Option<Reason>,
}

/// What an OpenAI-style answer says of its making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `Model`: the name as the server says it.
    pub model: Option<Box<str>>,
    /// `PromptTokens`
    pub prompt_tokens: Option<u32>,
    /// `CompletionTokens`
    pub completion_tokens: Option<u32>,
    /// Something of it was too long to be read. Counted only.
    pub overlong: bool,
}

/// The URL of a request in parts, put together only when written.
#[derive(Clone, Debug, Default)]
pub struct RequestUrl {
    /// Whether the call came over TLS (`https`) or not (`http`).
    pub tls: bool,
    /// Host and port as the caller named them; `None`: it named none.
    pub authority: Option<HeaderValue>,
    /// Path and query as sent.
    pub path_and_query: bytes::Bytes,
}

/// The caller as authentication established it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody was asked, or nobody was let in.
    #[default]
    Anonymous,
    /// One of the service's keys, by its id (`primary`, `secondary`): never the key.
    Key(&'static str),
    /// A token's subject.
    Subject(Arc<str>),
}

/// A UUID in its 36-letter lower-case form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 36]);

impl RequestId {
    /// A new random id (UUID version 4).
    #[must_use]
    pub fn new() -> Self {
        let mut text = [0; 36];
        uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
        Self(text)
    }

    /// Reads the form that [`as_str`](Self::as_str) gives; `None` also for the UUID that is all zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = uuid::Uuid::try_parse(text).ok().filter(|uuid| !uuid.is_nil())?;
        let mut canonical = [0; 36];
        uuid.hyphenated().encode_lower(&mut canonical);
        (canonical == *text.as_bytes()).then_some(Self(canonical))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Record {
    /// The trace that the call is part of: its caller's, or else the one that begins with it.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.parent.map_or_else(|| self.request_id.trace_id(), |parent| parent.trace_id)
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
impl Record {
    /// A scored call with every field set; the request id is a fixed one.
    pub(crate) fn sample() -> Self {
        Self {
            method: Some(Method::POST),
            user_agent: Some(HeaderValue::from_static("curl/8.0")),
            compute_type: Some(ComputeType::Aks),
            url: RequestUrl {
                tls: true,
                authority: Some(HeaderValue::from_static("score.example.org:8443")),
                path_and_query: bytes::Bytes::from_static(b"/api/v1/service/iris/score?code=s3cret"),
            },
            status: 200,
            request_id: RequestId(*b"11111111-2222-4333-8444-555555555555"),
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_516_132_123_456),
            duration: Duration::from_nanos(12_045_678),
            service: Some("iris".into()),
            deployment: Some("blue".into()),
            replica: Some("127.0.0.1:5001".into()),
            auth: Some(AuthMode::Key),
            principal: Principal::Key("primary"),
            model_status: Some(200),
            reason: Reason::Ok,
            ended_by: EndedBy::Upstream,
            attempts: 1,
            request_bytes: 1024,
            response_bytes: 130,
            client_request_id: Some(HeaderValue::from_static("abc")),
            parent: TraceParent::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            tries: Vec::new(),
            client_address: IpAddr::from([192, 0, 2, 7]),
            protocol: http::Version::HTTP_11,
            queue: Some(Duration::ZERO),
            connect: Some(Duration::from_micros(250)),
            first_byte: Some(Duration::from_millis(11)),
            stream: Some(Duration::from_millis(1)),
            usage: Some(Box::new(Usage {
                model: Some("org/name".into()),
                prompt_tokens: Some(9),
                completion_tokens: Some(12),
                overlong: true,
            })),
        }
    }
}
