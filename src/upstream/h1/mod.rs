//! The lean HTTP/1.1 client: one exchange on one connection, driven inline by the call's own task.
//!
//! `upload` sends the request, `answer` is the body of an answer that did not arrive whole; this file holds the
//! connection, the exchange and the answer's head. No task, no channel, no timer unless something has to be waited for.

mod answer;
mod upload;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Request, Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use self::answer::Answer;
use self::upload::{Outgoing, Sending, Upload};
use super::connect::Io;
use super::pool::ReplicaPool;
use super::settings::Deadlines;
use super::special::Special;
use super::{SendError, first_byte_timeout, idle_timeout, protocol_violation, reset};
use crate::error::{Error, Kind};
use crate::wire::deadline::Deadline;
use crate::wire::framing::{ChunkExtensions, Decoded, Decoder, Framing, FramingError};
use crate::wire::head::{HeadLimits, ResponseHead, parse_response};
use crate::wire::upgrade::NoHandshake;
use crate::wire::{Body, Handshake, Interim, Peer, Upgraded};

/// Bounds of an answer's head.
const HEAD_LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100, target: 0 };

/// Interim answers before the final one.
const MAX_INTERIM: u32 = 16;

/// What is read at once at first; most answers of a model are far smaller.
const READ_BYTES: usize = 8 * 1024;

/// What is read at once when an answer fills each read.
const MAX_READ_BYTES: usize = 64 * 1024;

/// A connection between two calls, or in one.
pub(super) struct Connection {
    io: Io,
    read: BytesMut,
    read_size: usize,
    out: Outgoing,
    deadline: Deadline,
}

/// The right to make one call on a connection.
pub(super) struct Lease {
    connection: Connection,
    origin: Freshness,
    home: Rc<ReplicaPool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    New,
    /// Was idle: the replica may have closed it without our knowing yet.
    Pooled,
}

/// A call under way. Dropping it closes the connection; [`Exchange::finish`] is the way to keep it.
struct Exchange {
    connection: Connection,
    upload: Upload,
    /// Interim answers seen.
    interim: u32,
    home: Rc<ReplicaPool>,
    deadlines: Deadlines,
}

/// What an answer is held against while it is awaited.
struct Awaited<'a> {
    method: Method,
    handshake: Option<Handshake>,
    interim: &'a dyn Interim,
}

impl Lease {
    /// A pooled connection, if there is a good one.
    pub(super) fn of_idle(home: &Rc<ReplicaPool>) -> Option<Self> {
        home.take().map(|connection| Self { connection, origin: Freshness::Pooled, home: Rc::clone(home) })
    }

    /// A connection just made; `home` gets it after the call.
    pub(super) fn of_new(io: Io, home: Rc<ReplicaPool>) -> Self {
        Self {
            connection: Connection {
                io,
                read: BytesMut::new(),
                read_size: READ_BYTES,
                out: Outgoing::default(),
                deadline: Deadline::new(),
            },
            origin: Freshness::New,
            home,
        }
    }

    #[cfg(test)]
    pub(super) fn is_quiet(&mut self) -> bool {
        self.connection.is_quiet()
    }

    /// See [`super::Connection::send`].
    pub(super) async fn send(
        self,
        request: Request<Body>,
        deadlines: &Deadlines,
        interim: &dyn Interim,
    ) -> Result<Response<Body>, SendError> {
        let Self { mut connection, origin, home } = self;
        if origin == Freshness::Pooled && !connection.is_quiet() {
            return Err(unsent(request, &home, "found closed, or with unasked bytes"));
        }
        let (parts, body) = request.into_parts();
        let upload = Upload::start(&parts, body, &mut connection.out);
        let mut exchange = Exchange { connection, upload, interim: 0, home, deadlines: *deadlines };
        // Does not wait: what can be written at once is written, and a dead pooled connection may show itself.
        poll_fn(|cx| Poll::Ready(exchange.poll_upload(cx))).await?;
        if origin == Freshness::Pooled
            && let Some(cause) = exchange.upload.failed_unsent()
        {
            let cause = cause.to_string();
            let request = Request::from_parts(parts, exchange.upload.into_body());
            return Err(unsent(request, &exchange.home, cause));
        }
        exchange.upload.forget_unsent();
        let handshake = match parts.extensions.get() {
            Some(Special::WebSocket(handshake)) => Some(handshake.clone()),
            _ => None,
        };
        let awaited = Awaited { method: parts.method.clone(), handshake, interim };
        drop(parts);
        let head = poll_fn(|cx| exchange.poll_head(cx, &awaited)).await;
        let head = head.inspect_err(|error| {
            if origin == Freshness::Pooled && error.kind == Kind::UpstreamReset {
                exchange.home.rest().suspect(exchange.home.now());
            }
        })?;
        if let Some(kept) = head.kept_idle {
            exchange.home.rest().told(kept);
        }
        Ok(exchange.respond(head)?)
    }
}

impl Connection {
    /// See [`Io::is_quiet`].
    pub(super) fn is_quiet(&mut self) -> bool {
        self.io.is_quiet()
    }

    /// See [`Io::is_surely_quiet`].
    pub(super) fn is_surely_quiet(&mut self) -> bool {
        self.io.is_surely_quiet()
    }

    /// Reads what is there; 0 bytes is the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.read_size);
        let room = self.read.capacity() - self.read.len();
        let polled = pin!(self.io.read_buf(&mut self.read)).poll(cx);
        if matches!(polled, Poll::Ready(Ok(length)) if length == room) {
            self.read_size = (self.read_size * 2).min(MAX_READ_BYTES);
        }
        polled
    }

    /// Ready when the wait that began with the last progress has lasted for `limit`.
    fn poll_expired(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        if !self.deadline.is_set() {
            self.deadline.set(Instant::now() + limit);
        }
        self.deadline.poll_expired(cx)
    }
}

impl Exchange {
    /// Sends as much of the request as can be sent. A replica that takes no more of it may still have answered, so that
    /// a failure to write is only noted; what fails here is the request's own body.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Sending, Error> {
        let Connection { io, out, deadline, .. } = &mut self.connection;
        self.upload.poll(cx, io, out, deadline)
    }

    /// Sends the request and reads the head of the final answer.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        awaited: &Awaited<'_>,
    ) -> Poll<Result<ResponseHead, Error>> {
        let sending = match self.poll_upload(cx) {
            Ok(sending) => sending,
            Err(error) => return Poll::Ready(Err(error)),
        };
        loop {
            if let Some(head) = self.parse_head(awaited)? {
                self.connection.deadline.clear();
                return Poll::Ready(Ok(head));
            }
            match self.connection.poll_read(cx) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(self.broken("closed by the replica")));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(self.broken(cause))),
                Poll::Pending => break,
            }
        }
        if sending == Sending::Starved {
            // The client's turn; its own deadline runs.
            self.connection.deadline.clear();
            return Poll::Pending;
        }
        self.connection
            .poll_expired(cx, self.deadlines.first_byte)
            .map(|()| Err(first_byte_timeout(&self.deadlines, self.home.label())))
    }

    /// The final answer's head, if the buffer has it.
    fn parse_head(&mut self, awaited: &Awaited<'_>) -> Result<Option<ResponseHead>, Error> {
        let violation = |cause: &dyn std::fmt::Display| protocol_violation(self.home.label(), cause);
        loop {
            let read = &mut self.connection.read;
            let head =
                parse_response(read, &HEAD_LIMITS, &awaited.method).map_err(|error| violation(&error))?;
            match head {
                Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    self.check_switch(&head, awaited).map_err(|problem| violation(&problem))?;
                    return Ok(Some(head));
                }
                Some(head) if head.status.is_informational() => {
                    self.interim += 1;
                    if self.interim > MAX_INTERIM {
                        return Err(violation(&"too many interim answers"));
                    }
                    // 100 was asked for by nobody: the gateway itself has answered the client's `Expect`.
                    if head.status != StatusCode::CONTINUE {
                        awaited.interim.pass(head.status, head.headers);
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// Whether a 101 answers a handshake that is wholly sent. Nothing else may open a tunnel: what the client sends behind
    /// its head would reach the replica as requests that nobody has looked at.
    fn check_switch(&self, head: &ResponseHead, awaited: &Awaited<'_>) -> Result<(), NoHandshake> {
        let handshake = awaited.handshake.as_ref().ok_or(NoHandshake("101 without having been asked"))?;
        if !head.websocket {
            return Err(NoHandshake("101 to something else than a WebSocket"));
        }
        if !self.upload.is_done() {
            return Err(NoHandshake("101 before the handshake was sent"));
        }
        handshake.check(&head.headers)
    }

    /// The answer, whole if it is at hand, else with a body that reads on.
    fn respond(mut self, head: ResponseHead) -> Result<Response<Body>, Error> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(self.switch(head));
        }
        let keep = if head.keep_alive { Keep::Open } else { Keep::Close };
        let mut decoder = Decoder::with_extensions(head.framing, ChunkExtensions::Ignore);
        let body = match head.framing {
            Framing::Length(length) if length > self.connection.read.len() as u64 => {
                Answer::body(self, decoder, keep, [])
            }
            Framing::UntilClose => Answer::body(self, decoder, keep, []),
            Framing::None | Framing::Length(_) | Framing::Chunked => match self.decode(&mut decoder)? {
                Decoded::NeedMore => Answer::body(self, decoder, keep, []),
                Decoded::End => {
                    self.finish(keep);
                    Body::empty()
                }
                first @ Decoded::Trailers(_) => Answer::body(self, decoder, keep, [first]),
                Decoded::Data(first) => match self.decode(&mut decoder)? {
                    Decoded::End => {
                        self.finish(keep);
                        Body::full(first)
                    }
                    Decoded::NeedMore => Answer::body(self, decoder, keep, [Decoded::Data(first)]),
                    second => Answer::body(self, decoder, keep, [Decoded::Data(first), second]),
                },
            },
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    /// The connection is the call's from here on and never a pooled one again.
    fn switch(self, head: ResponseHead) -> Response<Body> {
        let Connection { io, read, .. } = self.connection;
        let replica = Peer { io: Box::new(io), received: read };
        let mut response = Response::new(Body::upgraded(Upgraded { replica, idle: self.deadlines.idle }));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }

    fn decode(&mut self, decoder: &mut Decoder) -> Result<Decoded, Error> {
        decoder.decode(&mut self.connection.read).map_err(|error| self.misframed(error))
    }

    /// The answer has been read to its end: keeps the connection if nothing at all is left over on it.
    fn finish(self, keep: Keep) {
        let Self { mut connection, upload, home, .. } = self;
        if keep == Keep::Open && upload.is_done() && connection.read.is_empty() {
            connection.deadline.clear();
            if connection.read_size > READ_BYTES {
                connection.read = BytesMut::new();
                connection.read_size = READ_BYTES;
            }
            home.put(connection);
        }
    }

    fn idle_timeout(&self) -> Error {
        idle_timeout(&self.deadlines, self.home.label())
    }

    fn broken(&self, cause: impl std::fmt::Display) -> Error {
        const MESSAGE: &str = "the replica closed the connection before it had answered";
        reset(MESSAGE, self.home.label(), cause)
    }

    fn misframed(&self, error: FramingError) -> Error {
        match error {
            FramingError::Truncated => self.cut(error),
            FramingError::ChunkSize
            | FramingError::ChunkExtension
            | FramingError::ChunkEnd
            | FramingError::Trailers(_) => protocol_violation(self.home.label(), error),
        }
    }

    fn cut(&self, cause: impl std::fmt::Display) -> Error {
        const MESSAGE: &str = "the replica closed the connection in mid-answer";
        reset(MESSAGE, self.home.label(), cause)
    }
}

fn unsent(request: Request<Body>, home: &ReplicaPool, cause: impl std::fmt::Display) -> SendError {
    home.rest().suspect(home.now());
    SendError {
        error: reset("the replica closed the connection", home.label(), cause),
        unsent: Some(Box::new(request)),
    }
}

/// Whether the replica lets the connection carry another call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Open,
    Close,
}
