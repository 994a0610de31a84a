//! The HTTP/2 server side of one connection, on the `h2` crate; each stream is a call and a task of its own.
//!
//! The crate does frames, HPACK, flow control and what guards against abuse (rapid resets, floods of small frames).
//! It is driven directly because between it and a proxy nothing else is needed: `call` turns a stream into a call,
//! `body` reads the request's body, `answer` writes the answer under its deadline, and this file keeps the connection.

mod answer;
mod body;
mod call;

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use tokio::time::Instant;

use crate::lifecycle::{self, Phase};
use crate::proxy::{ConnectionFacts, Worker};
use crate::wire::deadline::Deadline;

use super::io::DownstreamIo;

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
/// How long a client may be silent while calls are under way before it is pinged, and then until it answers.
const PING: Duration = Duration::from_secs(20);
/// After the GOAWAY: how long a connection without calls stays for a client that does not read what it was sent.
const GOODBYE: Duration = Duration::from_secs(30);

/// Serves streams until either side closes.
pub(super) async fn serve(io: DownstreamIo, facts: ConnectionFacts, worker: Rc<Worker>, listener: usize) {
    let (first, idle) = {
        let settings = &worker.snapshot().listeners[listener].settings;
        (settings.header_timeout, settings.idle_timeout)
    };
    // The limits on resets and small frames are the crate's own defaults.
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST)
        .handshake(io);
    let connection = match tokio::time::timeout(first, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "no HTTP/2 preface"),
        Err(_late) => return tracing::debug!("no HTTP/2 preface in time"),
    };
    let draining = pin!({
        let worker = Rc::clone(&worker);
        async move { worker.drain.reached(Phase::Draining).await }
    });
    let mut driven = Driven {
        connection,
        draining,
        origin: Origin { worker, facts: Rc::new(facts), presence: Rc::default() },
        idle,
        stage: Stage::Serving,
        pings: None,
        is_pinged: false,
        calls: 0,
        since: Instant::now(),
        timer: Deadline::new(),
    };
    if let Err(error) = std::future::poll_fn(|cx| driven.poll(cx)).await {
        tracing::debug!(%error, "HTTP/2 connection ended");
    }
}

/// What the calls of one connection share. Each call holds the presence, which counts them.
#[derive(Clone)]
struct Origin {
    worker: Rc<Worker>,
    facts: Rc<ConnectionFacts>,
    presence: Rc<Presence>,
}

/// What calls tell their connection: by holding this that they are under way, and here that the client is alive.
#[derive(Default)]
struct Presence {
    heard: Cell<bool>,
}

/// A connection with what can end it.
struct Driven<'a, D> {
    connection: h2::server::Connection<DownstreamIo, Bytes>,
    draining: Pin<&'a mut D>,
    origin: Origin,
    idle: Duration,
    stage: Stage,
    /// Taken from the connection when first needed.
    pings: Option<PingPong>,
    is_pinged: bool,
    /// Calls under way at the last look.
    calls: usize,
    /// When the wait began that the timer bounds.
    since: Instant,
    timer: Deadline,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Takes calls.
    Serving,
    /// GOAWAY is sent; streams under way finish.
    Leaving,
}

impl<D: Future<Output = ()>> Driven<'_, D> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
            match accepted {
                Some(Ok((request, respond))) => self.begin(request, respond),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        self.poll_end(cx).map(Ok)
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        // Boxed here, since the way into a task would move the whole of it several times.
        lifecycle::spawn_local(Box::pin(call::serve(self.origin.clone(), request, respond)));
    }

    /// A drain or a long rest ends the connection by GOAWAY, so that streams under way finish. Ready when it is to be
    /// dropped: the client does not read its goodbye, or is not there any more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let calls = Rc::strong_count(&self.origin.presence) - 1;
        if self.origin.presence.heard.take() || calls != self.calls {
            self.calls = calls;
            self.since = Instant::now();
        }
        if self.stage == Stage::Serving && self.draining.as_mut().poll(cx).is_ready() {
            self.leave(cx);
        }
        loop {
            if self.is_pinged && self.poll_pong(cx).is_ready() {
                self.is_pinged = false;
                self.since = Instant::now();
            }
            let (has_calls, is_leaving) = (self.calls > 0, self.stage == Stage::Leaving);
            let patience = match has_calls {
                true => PING,
                false if is_leaving => GOODBYE,
                false => self.idle,
            };
            self.timer.set(self.since + patience);
            ready!(self.timer.poll_expired(cx));
            self.since = Instant::now();
            match has_calls {
                true if self.is_pinged => return Poll::Ready(()),
                true => self.ping(cx),
                false if is_leaving => return Poll::Ready(()),
                false => self.leave(cx),
            }
        }
    }

    fn leave(&mut self, cx: &mut Context<'_>) {
        self.stage = Stage::Leaving;
        self.since = Instant::now();
        self.connection.graceful_shutdown();
        cx.waker().wake_by_ref();
    }

    fn ping(&mut self, cx: &mut Context<'_>) {
        if self.pings.is_none() {
            self.pings = self.connection.ping_pong();
        }
        if let Some(pings) = &mut self.pings {
            self.is_pinged = pings.send_ping(Ping::opaque()).is_ok();
            cx.waker().wake_by_ref();
        }
    }

    fn poll_pong(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.pings {
            Some(pings) => pings.poll_pong(cx).map(drop),
            None => Poll::Pending,
        }
    }
}
