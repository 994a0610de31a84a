//! The HTTP/2 server side of one connection, on hyper; each stream is a call of its own.

mod body;
mod stall;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::error::Error;
use crate::lifecycle::Phase;
use crate::proxy::{self, ConnectionFacts, Inbound, ResponseBody, Worker};
use crate::wire::deadline::Deadline;
use crate::wire::head::{Flaw, HeadError};

use super::io::DownstreamIo;
use body::Unread;
use stall::{Progress, StreamExecutor};

/// Streams at once on one connection.
const MAX_STREAMS: u32 = 100;
/// Request bytes that a stream may send ahead of the replica.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Answer bytes held per stream for a client that reads slowly.
const SEND_BUFFER: usize = 64 * 1024;
/// Largest header list (RFC 9113 6.5.2), as large as an HTTP/1 head may be.
const HEADER_LIST: u32 = 64 * 1024;
/// Header fields of one request, cookie crumbs counted.
const MAX_FIELDS: usize = 100;
/// Pings to a client that is silent while calls are under way, and the longest wait for their answer.
const PING: Duration = Duration::from_secs(20);
/// After the GOAWAY: how long a connection without calls stays for a client that does not read what it was sent.
const GOODBYE: Duration = Duration::from_secs(30);

/// Serves streams until either side closes.
pub(super) async fn serve(io: DownstreamIo, facts: ConnectionFacts, worker: Rc<Worker>, listener: usize) {
    let idle = worker.snapshot().listeners[listener].settings.idle_timeout;
    let draining = pin!({
        let worker = Rc::clone(&worker);
        async move { worker.drain.reached(Phase::Draining).await }
    });
    let facts = Rc::new(facts);
    let last_call = Rc::new(Cell::new(Instant::now()));
    let progress = Progress::default();
    let service = {
        let (facts, last_call, progress) = (Rc::clone(&facts), Rc::clone(&last_call), progress.clone());
        service_fn(move |request| {
            last_call.set(Instant::now());
            // Boxed because hyper moves the future of a stream several times before it polls it.
            Box::pin(call(Rc::clone(&worker), Rc::clone(&facts), progress.clone(), request))
        })
    };
    let connection = pin!(
        http2::Builder::new(StreamExecutor(progress))
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .serve_connection(TokioIo::new(io), service)
    );
    if let Err(error) = (Driven { connection, draining, facts, last_call, idle }).run().await {
        tracing::debug!(%error, "HTTP/2 connection ended");
    }
}

/// A connection with what can end it.
struct Driven<'a, C, D> {
    connection: Pin<&'a mut C>,
    draining: Pin<&'a mut D>,
    facts: Rc<ConnectionFacts>,
    last_call: Rc<Cell<Instant>>,
    idle: Duration,
}

/// What hyper's connection offers; named so that [`Driven`] need not spell its type.
trait GracefulConnection: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<S> GracefulConnection for http2::Connection<TokioIo<DownstreamIo>, S, StreamExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = StreamBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    StreamExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, StreamBody>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http2::Connection::graceful_shutdown(self);
    }
}

impl<C: GracefulConnection, D: Future<Output = ()>> Driven<'_, C, D> {
    /// Runs the connection; a drain or a long rest ends it by GOAWAY, so that streams under way finish.
    async fn run(mut self) -> hyper::Result<()> {
        let mut rest = Deadline::new();
        let mut is_ending = false;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ended) = self.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if is_ending {
                // hyper waits for ever for a client that takes no more; calls have deadlines of their own.
                while rest.poll_expired(cx).is_ready() {
                    if !self.has_calls() {
                        return Poll::Ready(Ok(()));
                    }
                    rest.set(Instant::now() + GOODBYE);
                }
                return Poll::Pending;
            }
            rest.set(self.last_call.get() + self.idle);
            let drains = self.draining.as_mut().poll(cx).is_ready();
            let rests = rest.poll_expired(cx).is_ready();
            if rests && self.has_calls() {
                self.last_call.set(Instant::now());
                cx.waker().wake_by_ref();
            } else if rests || drains {
                is_ending = true;
                rest.set(Instant::now() + GOODBYE);
                self.connection.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    /// Every call under way holds the facts, beside this and the service.
    fn has_calls(&self) -> bool {
        Rc::strong_count(&self.facts) > 2
    }
}

async fn call(
    worker: Rc<Worker>,
    facts: Rc<ConnectionFacts>,
    progress: Progress,
    request: Request<Incoming>,
) -> Result<Response<StreamBody>, Infallible> {
    let held = Rc::clone(&facts);
    let unread = Unread::default();
    let response = match inbound(request, &unread) {
        Ok(inbound) => proxy::serve(worker, facts, inbound).await,
        Err(refused) => proxy::refuse(&worker, &facts, &refused),
    };
    unread.discard().await;
    Ok(response.map(|body| StreamBody { body, progress, _connection: held }))
}

fn inbound(request: Request<Incoming>, unread: &Unread) -> Result<Inbound, HeadError> {
    let (mut parts, incoming) = request.into_parts();
    let authority = authority(&parts.uri, &parts.headers)?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let head_bytes = list_size(&parts.headers) + target.len() + authority.len();
    if parts.headers.len() > MAX_FIELDS {
        return Err(HeadError::TooManyFields { limit: MAX_FIELDS });
    }
    if parts.headers.values().any(has_outer_blank) {
        let problem = "a field value begins or ends with a blank";
        return Err(HeadError::Malformed(Flaw::Field, problem));
    }
    // `te: trailers` is the one connection field that HTTP/2 allows (RFC 9113 8.2.2); gRPC servers insist on it.
    let keeps_te = parts.headers.get(header::TE).is_some_and(|te| te == "trailers");
    let asks_first = parts.headers.contains_key(header::EXPECT);
    for name in [header::HOST, header::TE, header::EXPECT, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    if keeps_te {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let target = Bytes::copy_from_slice(target.as_bytes());
    // Who asks first waits for the answer, and after a refusal sends nothing more.
    let body = if asks_first { Unread::default().body(incoming) } else { unread.body(incoming) };
    Ok(Inbound {
        method: parts.method,
        authority: Some(authority),
        target,
        version: parts.version,
        headers: parts.headers,
        body,
        head_bytes,
    })
}

/// `:authority`, or `Host` where it is missing; two different ones are refused (RFC 9113 8.3.1).
fn authority(uri: &http::Uri, headers: &HeaderMap) -> Result<HeaderValue, HeadError> {
    let malformed = |problem| HeadError::Malformed(Flaw::Host, problem);
    let host = headers.get(header::HOST);
    match (uri.authority().map(|authority| authority.as_str()), host) {
        (Some(authority), Some(host)) if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err(malformed(":authority and host name different hosts"))
        }
        (Some(authority), _) => {
            HeaderValue::from_str(authority).map_err(|_| malformed(":authority is not a host"))
        }
        (None, Some(host)) => Ok(host.clone()),
        (None, None) => Err(malformed("the request names no host")),
    }
}

/// What RFC 9113 8.2.1 calls malformed and the `h2` crate lets through.
fn has_outer_blank(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
}

fn list_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

/// An answer's body. It tells its task whom it waits for, and by its hold on the connection, that this is not at rest.
struct StreamBody {
    body: ResponseBody,
    progress: Progress,
    _connection: Rc<ConnectionFacts>,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => self.progress.waits_for_client(self.body.write_patience()),
            Poll::Ready(_) => {}
            Poll::Pending => self.progress.waits_for_model(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if self.progress.is_stalled() {
            let patience = self.body.write_patience();
            self.body.break_off(&super::client_stalled(patience));
        }
    }
}
