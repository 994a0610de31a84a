//! One question to a replica, on a connection of its own: what is counted and pooled for calls is not touched.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use super::grpc;
use crate::telemetry::record::RequestId;
use crate::upstream::{Check, Io, ProbeSettings, ReadinessSettings, Replica, ReplicaProtocol, connect_apart};

/// Whom replicas see asking.
const USER_AGENT: &str = concat!("scoregate-probe/", env!("CARGO_PKG_VERSION"));

/// Most bytes of an answer that are read, in one go or over all: what a gRPC health service answers has a few.
const MAX_GRPC_ANSWER: usize = 64 * 1024;

/// Why an answer was no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No connection.
    Unreachable(String),
    /// No whole answer in time.
    TimedOut(Duration),
    /// It broke the exchange off, or what it said is no acceptable HTTP.
    Broken(String),
    /// Another status than those that are good.
    Status(StatusCode),
    /// A gRPC health service that does not say SERVING.
    NotServing(String),
}

/// Asks the small question.
///
/// # Errors
/// Why the answer was no good.
pub(super) async fn probe(replica: &Replica, settings: &ProbeSettings) -> Result<(), Fault> {
    let limit = settings.timeout;
    match &settings.check {
        Check::Http { path, expected } => {
            let request = request(replica, Method::GET, path, Bytes::new());
            let (status, _) = within(limit, exchange(replica, request, Part::Head)).await?;
            if expected.contains(status) { Ok(()) } else { Err(Fault::Status(status)) }
        }
        Check::Grpc { service } => {
            let path = PathAndQuery::from_static(grpc::PATH);
            let mut request = request(replica, Method::POST, &path, grpc::question(service));
            let fields = request.headers_mut();
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            fields.insert(header::TE, HeaderValue::from_static("trailers"));
            match within(limit, exchange(replica, request, Part::Message)).await? {
                (StatusCode::OK, message) => grpc::is_serving(&message).map_err(Fault::NotServing),
                (status, _) => Err(Fault::Status(status)),
            }
        }
    }
}

/// Makes the scoring call, which `request_id` names.
///
/// # Errors
/// Why the answer was no good.
pub(super) async fn score(
    replica: &Replica,
    settings: &ReadinessSettings,
    request_id: RequestId,
) -> Result<(), Fault> {
    let mut request = request(replica, Method::POST, &settings.path, settings.body.clone());
    let fields = request.headers_mut();
    fields.insert(header::CONTENT_TYPE, settings.content_type.clone());
    if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
        fields.insert("x-request-id", id);
    }
    match within(settings.timeout, exchange(replica, request, Part::Whole)).await? {
        (StatusCode::OK, _) => Ok(()),
        (status, _) => Err(Fault::Status(status)),
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Fault::TimedOut(limit)))
}

/// How much of an answer is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Its head.
    Head,
    /// All of it, to see that it ends well; what it says is dropped.
    Whole,
    /// All of it, which is a short message.
    Message,
}

fn request(replica: &Replica, method: Method, path: &PathAndQuery, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path.clone());
    let fields = request.headers_mut();
    fields.insert(header::HOST, replica.host_header().clone());
    fields.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    request
}

async fn exchange(
    replica: &Replica,
    request: Request<Bytes>,
    part: Part,
) -> Result<(StatusCode, Bytes), Fault> {
    let io = connect_apart(replica).await.map_err(|error| {
        Fault::Unreachable(error.detail.map_or_else(|| error.message.into_owned(), Into::into))
    })?;
    match replica.settings().protocol {
        ReplicaProtocol::H1 => over_h1(io, request, part).await,
        ReplicaProtocol::H2 => {
            let scheme = if replica.settings().tls.is_some() { "https" } else { "http" };
            over_h2(io, request, scheme, part).await
        }
    }
}

fn broken(cause: impl fmt::Display) -> Fault {
    Fault::Broken(cause.to_string())
}

async fn over_h1(io: Io, mut request: Request<Bytes>, part: Part) -> Result<(StatusCode, Bytes), Fault> {
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let request = request.map(Full::new);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
    let asking = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let mut body = response.into_body();
        if part != Part::Head {
            while let Some(frame) = body.frame().await {
                frame.map_err(broken)?;
            }
        }
        Ok((status, Bytes::new()))
    };
    driven(connection, asking).await
}

async fn over_h2(
    io: Io,
    request: Request<Bytes>,
    scheme: &str,
    part: Part,
) -> Result<(StatusCode, Bytes), Fault> {
    let (mut fields, content) = request.into_parts();
    // HTTP/2 has the host in the target (RFC 9113, section 8.3.1).
    let host = fields.headers.remove(header::HOST).unwrap_or(HeaderValue::from_static(""));
    let target = fields.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
    fields.uri = Uri::builder()
        .scheme(scheme)
        .authority(host.as_bytes())
        .path_and_query(target)
        .build()
        .map_err(broken)?;
    let (sender, connection) = h2::client::handshake(io).await.map_err(broken)?;
    let asking = async move {
        let mut sender = sender.ready().await.map_err(broken)?;
        let is_whole = content.is_empty();
        let (answer, mut body) =
            sender.send_request(Request::from_parts(fields, ()), is_whole).map_err(broken)?;
        if !is_whole {
            // At most a MiB is buffered until the replica takes it.
            body.send_data(content, true).map_err(broken)?;
        }
        let (head, mut body) = answer.await.map_err(broken)?.into_parts();
        let mut message = Vec::new();
        if part == Part::Head {
            return Ok((head.status, Bytes::new()));
        }
        while let Some(data) = body.data().await {
            let data = data.map_err(broken)?;
            body.flow_control().release_capacity(data.len()).map_err(broken)?;
            if part == Part::Message && message.len() + data.len() <= MAX_GRPC_ANSWER {
                message.extend_from_slice(&data);
            }
        }
        if part == Part::Message {
            let trailers = body.trailers().await.map_err(broken)?;
            // A refusal has no message: its status is in the head (gRPC over HTTP/2, "Trailers-Only").
            grpc::check_status(trailers.as_ref().unwrap_or(&head.headers)).map_err(Fault::NotServing)?;
        }
        Ok((head.status, message.into()))
    };
    driven(connection, asking).await
}

/// Does `asking` while `connection` moves its bytes.
async fn driven<T, E: fmt::Display>(
    connection: impl Future<Output = Result<(), E>>,
    asking: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let (mut connection, mut asking) = (pin!(connection), pin!(asking));
    let mut ended = None;
    poll_fn(|cx| {
        if ended.is_none()
            && let Poll::Ready(end) = connection.as_mut().poll(cx)
        {
            ended = Some(end);
        }
        // The connection may be done before its last bytes have been taken out.
        match (asking.as_mut().poll(cx), &ended) {
            (Poll::Pending, Some(Err(error))) => Poll::Ready(Err(broken(error))),
            (polled, _) => polled,
        }
    })
    .await
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(cause) => write!(f, "no connection: {cause}"),
            Self::TimedOut(limit) => write!(f, "no whole answer within {limit:?}"),
            Self::Broken(cause) => write!(f, "the exchange failed: {cause}"),
            Self::Status(status) => write!(f, "answered {status}"),
            Self::NotServing(cause) => write!(f, "the gRPC health service: {cause}"),
        }
    }
}
