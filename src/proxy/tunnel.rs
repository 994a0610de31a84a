//! What follows a 101: bytes both ways between client and replica, until both have ended or one breaks off.
//!
//! Each direction holds what one read brought and reads on when that is handed over, so that the pace is that of the slower
//! side. An end is passed on as an end, a reset as a reset.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::error::{EndedBy, Error, Kind};
use crate::telemetry::InTunnel;
use crate::wire::deadline::Deadline;
use crate::wire::{Duplex, Peer, Upgraded};

use super::context::Exchange;

/// What is read at once, and the most that is held per direction.
const READ_SIZE: usize = 16 * 1024;

/// A replica's connection that is to be joined with its client's.
pub struct Tunnel {
    replica: Peer,
    idle: Duration,
    exchange: Box<Exchange>,
}

impl Tunnel {
    pub(super) fn new(upgraded: Upgraded, exchange: Box<Exchange>) -> Self {
        Self { replica: upgraded.replica, idle: upgraded.idle, exchange }
    }

    /// The client left before it was told of the tunnel, or does not read.
    pub fn break_off(mut self, error: &Error) {
        self.replica.io.abort();
        self.exchange.break_off(error);
    }

    /// Passes bytes on until both sides have ended, or one breaks off, or the tunnel may last no longer. Then both
    /// connections are gone and the record is left; so it is when this is dropped before, which resets both.
    pub async fn run(self, client: Peer) {
        let Self { replica, idle, exchange } = self;
        let counted = exchange.start_tunnel();
        let mut open = Open {
            up: Flow::new(client.received),
            down: Flow::new(replica.received),
            client: client.io,
            replica: replica.io,
            idle,
            silence: Deadline::new(),
            ended_first: None,
            is_over: false,
            exchange,
            counted,
        };
        poll_fn(|cx| open.poll(cx)).await;
    }
}

/// A tunnel under way.
struct Open {
    /// Client to replica.
    up: Flow,
    /// Replica to client.
    down: Flow,
    client: Box<dyn Duplex>,
    replica: Box<dyn Duplex>,
    idle: Duration,
    silence: Deadline,
    /// Who ended his side before the other did.
    ended_first: Option<EndedBy>,
    /// Both sides have ended as they should.
    is_over: bool,
    exchange: Box<Exchange>,
    #[expect(dead_code, reason = "held for its drop")]
    counted: Option<InTunnel>,
}

/// One direction.
struct Flow {
    /// Read and not yet handed over.
    held: BytesMut,
    stage: Stage,
    /// Bytes handed over.
    passed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The source has ended; its sink is to be told.
    Ending,
    Ended,
}

/// Which side of a flow broke.
enum Broken {
    Source(std::io::Error),
    Sink(std::io::Error),
}

impl Open {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(error) = self.exchange.poll_ended(cx) {
            return self.end(Some(&error));
        }
        let before = self.progress();
        let up = self.up.poll(cx, &mut *self.client, &mut *self.replica);
        let down = self.down.poll(cx, &mut *self.replica, &mut *self.client);
        self.note();
        if self.progress() != before || !self.silence.is_set() {
            self.silence.set(Instant::now() + self.idle);
        }
        let broken = match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return self.end(None),
            (Poll::Ready(Err(Broken::Source(cause))), _) => (Kind::ClientGone, cause),
            (_, Poll::Ready(Err(Broken::Sink(cause)))) => (Kind::ClientGone, cause),
            (_, Poll::Ready(Err(Broken::Source(cause)))) => (Kind::UpstreamReset, cause),
            (Poll::Ready(Err(Broken::Sink(cause))), _) => (Kind::UpstreamReset, cause),
            (Poll::Pending, _) | (_, Poll::Pending) => {
                ready!(self.silence.poll_expired(cx));
                let limit = self.idle;
                let message = format!("neither side sent anything for limits.idle_timeout ({limit:?})");
                return self.end(Some(&Error::new(Kind::UpstreamTimeout, message)));
            }
        };
        // A replica that has ended and then takes no more has had its say, and so has whoever it said it to.
        if self.down.stage == Stage::Ended {
            return self.end(None);
        }
        let (kind, cause) = broken;
        self.end(Some(&Error::new(kind, "the tunnel was broken off").with_detail(cause)))
    }

    /// What moves when anything does.
    const fn progress(&self) -> (u64, u64, Stage, Stage) {
        (self.up.passed, self.down.passed, self.up.stage, self.down.stage)
    }

    fn note(&mut self) {
        if self.ended_first.is_none() {
            self.ended_first = match (self.up.stage, self.down.stage) {
                (Stage::Open, Stage::Open) => None,
                (Stage::Open, Stage::Ending | Stage::Ended) => Some(EndedBy::Upstream),
                (Stage::Ending | Stage::Ended, _) => Some(EndedBy::Client),
            };
        }
        self.exchange.request_meter().set(self.up.passed);
        self.exchange.record.response_bytes = self.down.passed;
    }

    fn end(&mut self, broken: Option<&Error>) -> Poll<()> {
        match broken {
            Some(error) => self.exchange.break_off(error),
            None => {
                self.is_over = true;
                self.exchange.complete();
                if let Some(side) = self.ended_first {
                    self.exchange.record.ended_by = side;
                }
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_over {
            self.client.abort();
            self.replica.abort();
        }
    }
}

impl Flow {
    const fn new(received: BytesMut) -> Self {
        Self { held: received, stage: Stage::Open, passed: 0 }
    }

    /// Passes on what there is. Ready when the source has ended and its sink knows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut dyn Duplex,
        sink: &mut dyn Duplex,
    ) -> Poll<Result<(), Broken>> {
        loop {
            while self.held.has_remaining() {
                let written =
                    ready!(Pin::new(&mut *sink).poll_write(cx, &self.held)).map_err(Broken::Sink)?;
                if written == 0 {
                    return Poll::Ready(Err(Broken::Sink(std::io::ErrorKind::WriteZero.into())));
                }
                self.held.advance(written);
                self.passed += written as u64;
            }
            // A tunnel at rest holds no buffer.
            self.held = BytesMut::new();
            match self.stage {
                Stage::Open => match self.poll_read(cx, source) {
                    Poll::Ready(read) => read.map_err(Broken::Source)?,
                    Poll::Pending => {
                        ready!(Pin::new(&mut *sink).poll_flush(cx)).map_err(Broken::Sink)?;
                        return Poll::Pending;
                    }
                },
                Stage::Ending => {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Broken::Sink)?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, source: &mut dyn Duplex) -> Poll<std::io::Result<()>> {
        let mut scratch = [MaybeUninit::<u8>::uninit(); READ_SIZE];
        let mut read = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(source).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            self.stage = Stage::Ending;
        } else {
            self.held.extend_from_slice(read.filled());
        }
        Poll::Ready(Ok(()))
    }
}
