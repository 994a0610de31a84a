//! The HTTP/1 server side of one connection: read a head, have it answered, write the answer, again.
//!
//! Ours rather than hyper's because a gateway must see what hyper hides: hyper reads past a bare LF, a length beside
//! chunks, chunk extensions and any number of `Host` fields, and then nobody can refuse them. The strict reader is the
//! one of the upstream leg (`wire`), and the whole exchange runs on this one task, without a channel or a second task.

mod answer;
mod body;
mod interim;
mod wire;

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{Method, Version, header};
use tokio::time::Instant;

use crate::lifecycle::Phase;
use crate::proxy::{self, ConnectionFacts, Inbound, Tunnel, Worker};
use crate::wire::deadline::Deadline;
use crate::wire::framing::{Decoder, Framing};
use crate::wire::head::{self, HeadError, HeadLimits, RequestHead};
use crate::wire::{Body, Interim};

use super::ListenerSettings;
use super::io::DownstreamIo;
use body::{Expectation, InboundBody};
use interim::InterimWriter;
use wire::Wire;

/// Largest request head that is read at all. A service's own `limits.header_bytes` is at most this.
const HEAD_LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100, target: 16 * 1024 };

/// Of a body that nobody wanted, this much is read and thrown away to keep the connection; else it is closed.
const DISCARD_LIMIT: u64 = 64 * 1024;

/// How long a closing connection still reads, so that the last answer is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// How long a connection may still rest once the drain has begun.
const DRAIN_REST: Duration = Duration::from_secs(5);

/// Longest goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// One downstream HTTP/1 connection.
pub(super) struct Connection {
    wire: Rc<RefCell<Wire>>,
    facts: Rc<ConnectionFacts>,
    worker: Rc<Worker>,
    listener: usize,
    timer: Deadline,
    age: Age,
}

/// Whether a connection has carried a request yet: a new one is expected to send its first at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

/// What becomes of the connection after an exchange.
enum After {
    /// The next request may come.
    KeepAlive,
    /// It is closed; what still arrives is read for a moment.
    Close,
    /// It is reset: the client is gone or its answer was cut.
    Abort,
    /// It has become a tunnel.
    Tunnel(Box<Tunnel>),
}

/// What the wait for a head brought.
enum Arrival {
    Head(RequestHead),
    Refused(HeadError),
    Nothing,
}

/// What of a request decides how its answer is written.
#[derive(Clone, Copy)]
struct Asked {
    version: Version,
    keep_alive: bool,
    is_head: bool,
    /// Nobody can say whether the body of a client that asked first is still to come.
    expectation: Expectation,
}

impl Connection {
    /// A connection of listener number `listener`.
    pub fn new(io: DownstreamIo, facts: ConnectionFacts, worker: Rc<Worker>, listener: usize) -> Self {
        let wire = Rc::new(RefCell::new(Wire::new(io)));
        Self { wire, facts: Rc::new(facts), worker, listener, timer: Deadline::new(), age: Age::New }
    }

    /// Serves requests until either side closes.
    pub async fn serve(mut self) {
        let worker = Rc::clone(&self.worker);
        let mut draining = pin!(worker.drain.reached(Phase::Draining));
        loop {
            let after = match self.arrival(draining.as_mut()).await {
                Arrival::Head(head) => self.exchange(head).await,
                Arrival::Refused(refused) => self.refuse(&refused).await,
                Arrival::Nothing => After::Close,
            };
            self.age = Age::Used;
            match after {
                After::KeepAlive => {}
                After::Close => return self.close().await,
                After::Abort => return self.wire.borrow().abort(),
                // Boxed so that a resting connection does not carry its room.
                After::Tunnel(tunnel) => return Box::pin(self.tunnel(*tunnel)).await,
            }
        }
    }

    /// Waits for a whole head: as long as the connection may rest for its first byte, then `header_timeout`.
    async fn arrival(&mut self, mut draining: Pin<&mut impl Future<Output = ()>>) -> Arrival {
        let (rest, whole) = {
            let snapshot = self.worker.snapshot();
            let ListenerSettings { idle_timeout, header_timeout, .. } =
                snapshot.listeners[self.listener].settings;
            let rest = match self.age {
                Age::New => header_timeout,
                Age::Used => idle_timeout,
            };
            (rest, header_timeout)
        };
        let mut waits_for_head = false;
        let mut drains = false;
        std::future::poll_fn(|cx| {
            let wire = &mut *self.wire.borrow_mut();
            loop {
                match head::parse_request(&mut wire.inbox, &HEAD_LIMITS) {
                    Ok(Some(head)) => return Poll::Ready(Arrival::Head(head)),
                    Err(refused) => return Poll::Ready(Arrival::Refused(refused)),
                    Ok(None) => {}
                }
                let begun = !wire.inbox.is_empty();
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Arrival::Nothing),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending => {}
                }
                if begun != waits_for_head || !self.timer.is_set() {
                    waits_for_head = begun;
                    self.timer.set(Instant::now() + if begun { whole } else { rest });
                }
                // A resting connection is not cut the moment the drain begins: a request may be on its way, and its
                // answer will say `Connection: close`.
                if !begun && !drains && draining.as_mut().poll(cx).is_ready() {
                    drains = true;
                    self.timer.set(Instant::now() + DRAIN_REST);
                }
                ready!(self.timer.poll_expired(cx));
                return Poll::Ready(Arrival::Nothing);
            }
        })
        .await
    }

    async fn exchange(&mut self, head: RequestHead) -> After {
        self.timer.clear();
        let asked = Asked {
            version: head.version,
            keep_alive: head.keep_alive,
            is_head: head.method == Method::HEAD,
            expectation: if head.expect_continue { Expectation::Continue } else { Expectation::None },
        };
        let response = {
            let interim = InterimWriter { wire: &self.wire, version: asked.version };
            let inbound = self.inbound(head, asked.expectation, &interim);
            // Boxed so that a resting connection does not carry the room of a call under way.
            let serving = Box::pin(proxy::serve(Rc::clone(&self.worker), Rc::clone(&self.facts), inbound));
            self.until_gone(serving).await
        };
        match response {
            Some(response) => self.answer(response, asked).await,
            None => After::Abort,
        }
    }

    fn inbound<'a>(
        &self,
        mut head: RequestHead,
        expectation: Expectation,
        interim: &'a dyn Interim,
    ) -> Inbound<'a> {
        let body = {
            let wire = &mut *self.wire.borrow_mut();
            match head.framing {
                Framing::None | Framing::UntilClose | Framing::Length(0) => Body::empty(),
                Framing::Length(length) if length <= wire.inbox.len() as u64 => {
                    // Wholly here: no decoder, no stream.
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    Body::full(wire.inbox.split_to(length).freeze())
                }
                framing => {
                    wire.decoder = Some(Decoder::new(framing));
                    Body::stream(InboundBody::new(Rc::clone(&self.wire), framing, expectation))
                }
            }
        };
        Inbound {
            method: head.method,
            authority: head.headers.remove(header::HOST),
            target: head.target,
            version: head.version,
            headers: head.headers,
            body,
            head_bytes: head.head_bytes,
            websocket: head.websocket,
            interim,
        }
    }

    /// Drives `serving` while the client is there; `None` once it is gone, which cancels the call.
    async fn until_gone<T>(&self, mut serving: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(served) = serving.as_mut().poll(cx) {
                return Poll::Ready(Some(served));
            }
            let wire = &mut *self.wire.borrow_mut();
            if !wire.outbox.is_empty() && matches!(wire.poll_flush(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(None);
            }
            // While the body is still read, its reader sees the end of the stream.
            if wire.request_is_whole() && wire.poll_gone(cx).is_ready() {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }

    /// Answers a head that could not be read and closes: nobody knows where the next request would begin.
    async fn refuse(&mut self, refused: &HeadError) -> After {
        let response = proxy::refuse(&self.worker, &self.facts, refused);
        self.wire.borrow_mut().inbox.clear();
        self.answer(
            response,
            Asked {
                version: Version::HTTP_11,
                keep_alive: false,
                is_head: false,
                expectation: Expectation::None,
            },
        )
        .await
    }

    /// Joins the connection with the replica's. What the client has sent behind its head, until now kept, goes first.
    async fn tunnel(self, tunnel: Tunnel) {
        match Rc::into_inner(self.wire) {
            Some(wire) => tunnel.run(wire.into_inner().into_peer()).await,
            // Only a request body holds it as well, and a handshake has none.
            None => tracing::error!("a connection was to become a tunnel while its request was still read"),
        }
    }

    /// Says goodbye and reads on for a moment, so that unread bytes do not turn the last answer into a reset.
    async fn close(self) {
        let wire = self.wire;
        let goodbye = std::future::poll_fn(|cx| {
            let wire = &mut *wire.borrow_mut();
            ready!(wire.poll_flush(cx))?;
            wire.poll_shutdown(cx)
        });
        if !matches!(tokio::time::timeout(GOODBYE, goodbye).await, Ok(Ok(()))) {
            return;
        }
        let mut left = DISCARD_LIMIT;
        let linger = std::future::poll_fn(|cx| {
            let wire = &mut *wire.borrow_mut();
            loop {
                wire.inbox.clear();
                match ready!(wire.poll_fill(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(read) => match left.checked_sub(read as u64) {
                        Some(rest) => left = rest,
                        None => return Poll::Ready(()),
                    },
                }
            }
        });
        let _ended = tokio::time::timeout(LINGER, linger).await;
    }
}

#[cfg(test)]
mod tests;
