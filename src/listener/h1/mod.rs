//! The HTTP/1 server side of one connection: read a head, have it answered, write the answer, again.
//!
//! Ours rather than hyper's because a gateway must see what hyper hides: hyper reads past a bare LF, a length beside
//! chunks, chunk extensions and any number of `Host` fields, and then nobody can refuse them. The strict reader is the
//! one of the upstream leg (`wire`), and the whole exchange runs on this one task, without a channel or a second task.

mod body;
mod wire;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, Version, header};
use http_body::Body as _;
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::lifecycle::Phase;
use crate::proxy::{self, ConnectionFacts, Inbound, ResponseBody, Worker};
use crate::wire::Body;
use crate::wire::deadline::Deadline;
use crate::wire::framing::{self, CHUNK_END, Decoder, Framing};
use crate::wire::head::{self, ConnectionHeader, HeadError, HeadLimits, RequestHead};

use super::ListenerSettings;
use super::io::DownstreamIo;
use body::{Expectation, InboundBody};
use wire::Wire;

/// Largest request head that is read at all. A service's own `limits.header_bytes` is at most this.
const HEAD_LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100, target: 16 * 1024 };

/// Of a body that nobody wanted, this much is read and thrown away to keep the connection; else it is closed.
const DISCARD_LIMIT: u64 = 64 * 1024;

/// How long a closing connection still reads, so that the last answer is not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// Longest goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// One downstream HTTP/1 connection.
pub(super) struct Connection {
    wire: Rc<RefCell<Wire>>,
    facts: Rc<ConnectionFacts>,
    worker: Rc<Worker>,
    listener: usize,
    timer: Deadline,
}

/// What becomes of the connection after an exchange.
enum After {
    /// The next request may come.
    KeepAlive,
    /// It is closed; what still arrives is read for a moment.
    Close,
    /// It is reset: the client is gone or its answer was cut.
    Abort,
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
}

impl Connection {
    /// A connection of listener number `listener`.
    pub fn new(io: DownstreamIo, facts: ConnectionFacts, worker: Rc<Worker>, listener: usize) -> Self {
        let wire = Rc::new(RefCell::new(Wire::new(io)));
        Self { wire, facts: Rc::new(facts), worker, listener, timer: Deadline::new() }
    }

    /// Serves requests until either side closes.
    pub async fn serve(mut self) {
        let worker = Rc::clone(&self.worker);
        let mut draining = pin!(worker.drain.reached(Phase::Draining));
        let mut is_first = true;
        loop {
            let after = match self.arrival(is_first, draining.as_mut()).await {
                Arrival::Head(head) => self.exchange(head).await,
                Arrival::Refused(refused) => self.refuse(&refused).await,
                Arrival::Nothing => After::Close,
            };
            is_first = false;
            match after {
                After::KeepAlive => {}
                After::Close => return self.close().await,
                After::Abort => return self.wire.borrow().abort(),
            }
        }
    }

    /// Waits for a whole head: as long as the connection may rest for its first byte, then `header_timeout`.
    async fn arrival(&mut self, is_first: bool, mut draining: Pin<&mut impl Future<Output = ()>>) -> Arrival {
        let (rest, whole) = {
            let snapshot = self.worker.snapshot();
            let ListenerSettings { idle_timeout, header_timeout, .. } =
                snapshot.listeners[self.listener].settings;
            (if is_first { header_timeout } else { idle_timeout }, header_timeout)
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
        };
        let inbound = self.inbound(head);
        // Boxed so that a resting connection does not carry the room of a call under way.
        let serving = Box::pin(proxy::serve(Rc::clone(&self.worker), Rc::clone(&self.facts), inbound));
        match self.until_gone(serving).await {
            Some(response) => self.answer(response, asked).await,
            None => After::Abort,
        }
    }

    fn inbound(&self, mut head: RequestHead) -> Inbound {
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
                    let expectation =
                        if head.expect_continue { Expectation::Continue } else { Expectation::None };
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
        }
    }

    /// Drives `serving` while the client is there; `None` once it is gone, which cancels the call.
    async fn until_gone<T>(&self, mut serving: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(served) = serving.as_mut().poll(cx) {
                return Poll::Ready(Some(served));
            }
            let wire = &mut *self.wire.borrow_mut();
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
        let response = proxy::refuse(&self.worker, &self.facts, &refusal(refused));
        self.wire.borrow_mut().inbox.clear();
        self.answer(response, Asked { version: Version::HTTP_11, keep_alive: false, is_head: false }).await
    }

    async fn answer(&mut self, response: Response<ResponseBody>, asked: Asked) -> After {
        let (parts, mut body) = response.into_parts();
        let framing = answer_framing(parts.status, &body, asked);
        let keep_alive = asked.keep_alive
            && !self.worker.drain.is_draining()
            && !matches!(framing, Framing::UntilClose)
            && self.can_reuse();
        let connection = if keep_alive { ConnectionHeader::KeepAlive } else { ConnectionHeader::Close };
        {
            let wire = &mut *self.wire.borrow_mut();
            wire.outbox.reserve(ANSWER_HEAD);
            head::encode_response(
                &mut wire.outbox,
                asked.version,
                parts.status,
                &parts.headers,
                framing,
                connection,
            );
        }
        let written = if asked.is_head || matches!(framing, Framing::None) {
            self.write_end().await
        } else {
            self.write_body(&mut body, framing).await
        };
        match written {
            Ok(()) if keep_alive && self.discard_rest().await => After::KeepAlive,
            Ok(()) => After::Close,
            Err(Some(error)) => {
                body.break_off(&error);
                After::Abort
            }
            Err(None) => After::Abort,
        }
    }

    /// Whether the rest of the request body, if any, is known to be short enough to be thrown away.
    fn can_reuse(&self) -> bool {
        let wire = self.wire.borrow();
        wire.decoder
            .as_ref()
            .is_none_or(|decoder| decoder.remaining().is_some_and(|rest| rest <= DISCARD_LIMIT))
    }

    /// Writes the whole body. `Err(None)`: the body itself broke and has said so; `Err(Some(_))`: the client's doing.
    async fn write_body(&mut self, body: &mut ResponseBody, framing: Framing) -> Result<(), Option<Error>> {
        let patience = body.write_patience();
        loop {
            let frame = match self.next_frame(body).await {
                Next::Frame(frame) => frame,
                Next::End => break,
                Next::Broken => return Err(None),
                Next::Gone => return Err(Some(client_gone())),
            };
            match frame.into_data() {
                Ok(mut data) => self.send(&mut data, framing, patience).await.map_err(Some)?,
                Err(frame) => {
                    // Trailers travel over h2 only: an HTTP/1 client has not asked for them.
                    drop(frame);
                }
            }
        }
        if matches!(framing, Framing::Chunked) {
            framing::encode_last_chunk(&mut self.wire.borrow_mut().outbox, None);
        }
        self.write_end_within(patience).await.map_err(Some)
    }

    /// The next frame of the answer; flushes what is written before it waits, and notices a client that left.
    async fn next_frame(&self, body: &mut ResponseBody) -> Next {
        std::future::poll_fn(|cx| {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Next::Frame(frame)),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Next::Broken),
                Poll::Ready(None) => return Poll::Ready(Next::End),
                Poll::Pending => {}
            }
            let wire = &mut *self.wire.borrow_mut();
            if let Poll::Ready(Err(_)) = wire.poll_flush(cx) {
                return Poll::Ready(Next::Gone);
            }
            if wire.request_is_whole() && wire.poll_gone(cx).is_ready() {
                return Poll::Ready(Next::Gone);
            }
            Poll::Pending
        })
        .await
    }

    /// Sends one piece. Small ones wait in the outbox for the next flush, so that head and body leave together.
    async fn send(&mut self, data: &mut Bytes, framing: Framing, patience: Duration) -> Result<(), Error> {
        {
            let outbox = &mut self.wire.borrow_mut().outbox;
            let chunked = matches!(framing, Framing::Chunked);
            if chunked {
                framing::encode_chunk_head(outbox, data.len());
            }
            if data.len() <= COPY_LIMIT {
                outbox.extend_from_slice(data);
                if chunked {
                    outbox.extend_from_slice(CHUNK_END);
                }
                if outbox.len() <= 2 * COPY_LIMIT {
                    return Ok(());
                }
                data.clear();
            }
        }
        let copied = data.is_empty();
        self.writing(patience, |wire, cx| wire.poll_send(cx, data)).await?;
        if !copied && matches!(framing, Framing::Chunked) {
            self.wire.borrow_mut().outbox.extend_from_slice(CHUNK_END);
        }
        Ok(())
    }

    async fn write_end(&mut self) -> Result<(), Option<Error>> {
        self.write_end_within(GOODBYE).await.map_err(Some)
    }

    async fn write_end_within(&mut self, patience: Duration) -> Result<(), Error> {
        self.writing(patience, Wire::poll_flush).await
    }

    /// Drives a write; the client must take something within every `patience`.
    async fn writing(
        &mut self,
        patience: Duration,
        mut write: impl FnMut(&mut Wire, &mut std::task::Context<'_>) -> Poll<io::Result<()>>,
    ) -> Result<(), Error> {
        self.timer.clear();
        std::future::poll_fn(|cx| {
            let wire = &mut *self.wire.borrow_mut();
            match write(wire, cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(client_gone().with_detail(error))),
                Poll::Pending => {}
            }
            // Every wake-up of a pending write means that the client took something, or that time is up.
            if self.timer.is_set() && self.timer.poll_expired(cx).is_ready() {
                let message =
                    format!("the client took nothing for {patience:?} (limits.response_write_timeout)");
                return Poll::Ready(Err(Error::new(Kind::WriteTimeout, message)));
            }
            self.timer.set(Instant::now() + patience);
            self.timer.poll_expired(cx).map(|()| Err(client_gone()))
        })
        .await
    }

    /// Reads what is left of a request body that nobody wanted. `false`: it did not come, or is broken.
    async fn discard_rest(&mut self) -> bool {
        if self.wire.borrow().request_is_whole() {
            return true;
        }
        let rest = pin!(InboundBody::new(Rc::clone(&self.wire), Framing::None, Expectation::None));
        tokio::time::timeout(LINGER, discard(rest)).await.unwrap_or(false)
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

/// Pieces up to this size are copied behind the head or the last piece; larger ones are written from where they are.
const COPY_LIMIT: usize = 16 * 1024;

/// Room for the head of an answer and a small body, taken at once.
const ANSWER_HEAD: usize = 1024;

/// How long a connection may still rest once the drain has begun.
const DRAIN_REST: Duration = Duration::from_secs(5);

/// What waiting for the next piece of an answer brought.
enum Next {
    Frame(http_body::Frame<Bytes>),
    End,
    Broken,
    Gone,
}

async fn discard(mut body: Pin<&mut InboundBody>) -> bool {
    loop {
        match std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
            None => return true,
        }
    }
}

fn answer_framing(status: StatusCode, body: &ResponseBody, asked: Asked) -> Framing {
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED || status.is_informational() {
        return Framing::None;
    }
    match body.size_hint().exact() {
        Some(length) => Framing::Length(length),
        None if asked.version == Version::HTTP_11 => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

fn refusal(refused: &HeadError) -> Error {
    match refused {
        HeadError::Malformed(problem) => Error::new(Kind::Malformed, *problem),
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

fn client_gone() -> Error {
    Error::new(Kind::ClientGone, "the client left before its answer was complete")
}
