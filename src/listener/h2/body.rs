//! The request bodies of HTTP/2 streams, and what becomes of one that nobody read to its end.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use super::Presence;
use crate::error::{Error, Kind};
use crate::wire::Body;

/// Of a body that nobody wanted, this much is read and thrown away before the answer.
const DISCARD_LIMIT: u64 = 64 * 1024;
/// Longest wait for it.
const DISCARD_WAIT: Duration = Duration::from_secs(1);

/// What the task of a stream keeps of the request's body while the call has it; nothing, if it was at hand.
pub(super) struct Upload(Option<Shared>);

struct Shared {
    incoming: Rc<RefCell<Incoming>>,
    /// Whether the client sends the body whatever the answer. One that asked first (`Expect`) does not.
    will_come: bool,
}

/// Whether a client that asked first has been told to send its body.
#[derive(Default)]
enum Expectation {
    /// It has, or did not ask.
    #[default]
    None,
    /// It has not; this is woken when somebody wants the body.
    Continue(Option<Waker>),
    /// Somebody wants the body.
    Wanted,
}

/// A body as the stream brings it.
struct Incoming {
    stream: RecvStream,
    /// What was at hand with the head.
    first: Option<Bytes>,
    /// Bytes still to come, if the client told.
    remaining: Option<u64>,
    stage: Stage,
    presence: Rc<Presence>,
    expectation: Expectation,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Ended,
}

impl Upload {
    /// The body of a request, and what is kept of it here. A small one usually arrives with its head: it is taken off
    /// the stream at once, and costs the call no more than its bytes.
    pub async fn begin(mut stream: RecvStream, headers: &HeaderMap, presence: Rc<Presence>) -> (Body, Self) {
        if stream.is_end_stream() {
            return (Body::empty(), Self(None));
        }
        let first = std::future::poll_fn(|cx| Poll::Ready(stream.poll_data(cx))).await;
        let first = match first {
            Poll::Ready(Some(Ok(data))) => Some(data),
            // An error stays with the stream, and is told to who reads on.
            Poll::Ready(_) | Poll::Pending => None,
        };
        if let Some(data) = &first {
            give_back(&mut stream, data);
            if stream.is_end_stream() {
                return (first.map_or_else(Body::empty, Body::full), Self(None));
            }
        }
        // The crate refuses a length that is not a number, or that the data does not fit.
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let will_come = !headers.contains_key(header::EXPECT);
        let expectation = if will_come { Expectation::None } else { Expectation::Continue(None) };
        let incoming =
            Incoming { stream, first, remaining: declared, stage: Stage::Data, presence, expectation };
        let incoming = Rc::new(RefCell::new(incoming));
        (Body::stream(InboundBody(Rc::clone(&incoming))), Self(Some(Shared { incoming, will_come })))
    }

    /// Reads what is left of a body that nobody reads, if it is known to be short and comes soon. An answer that ends
    /// while its request is still being sent has the crate reset the stream with NO_ERROR (RFC 9113 8.1), which older
    /// clients take for a failure of the answer (curl before 8).
    pub async fn discard(&self) {
        let Some(Shared { incoming, will_come: true }) = &self.0 else { return };
        let is_short = incoming.borrow().remaining.is_some_and(|rest| rest <= DISCARD_LIMIT);
        if is_short && Rc::strong_count(incoming) == 1 {
            let read = std::future::poll_fn(|cx| {
                let incoming = &mut *incoming.borrow_mut();
                while let Some(Ok(_)) = ready!(incoming.poll_frame(cx)) {}
                Poll::Ready(())
            });
            let _late = tokio::time::timeout(DISCARD_WAIT, read).await;
        }
    }

    /// Ready once, when a client that asked first (`Expect: 100-continue`) is to be told to send its body: somebody wants
    /// it, and nothing of it has come by itself.
    pub fn poll_expected(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Shared { incoming, will_come: false }) = &self.0 else { return Poll::Pending };
        let Ok(mut incoming) = incoming.try_borrow_mut() else { return Poll::Pending };
        match &mut incoming.expectation {
            Expectation::None => Poll::Pending,
            Expectation::Continue(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            expectation @ Expectation::Wanted => {
                *expectation = Expectation::None;
                Poll::Ready(())
            }
        }
    }

    /// Why the stream is reset: the client sent a body that is no body, or has left.
    pub fn fault(&self) -> Error {
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(Shared { incoming, .. }) = &self.0
            && let Poll::Ready(Some(read)) = incoming.borrow_mut().stream.poll_data(&mut cx)
        {
            if let Err(error) = read {
                return broken(&error);
            }
        }
        Error::new(Kind::ClientGone, "the client left before its answer was complete")
    }
}

impl Incoming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(self.piece(first))));
        }
        if self.stage == Stage::Data {
            let polled = self.stream.poll_data(cx);
            match polled {
                Poll::Pending => self.ask(),
                // It comes without being asked for.
                Poll::Ready(_) => self.expectation = Expectation::None,
            }
            match ready!(polled) {
                Some(Ok(data)) => {
                    give_back(&mut self.stream, &data);
                    self.presence.heard.set(true);
                    return Poll::Ready(Some(Ok(self.piece(data))));
                }
                Some(Err(error)) => {
                    self.stage = Stage::Ended;
                    return Poll::Ready(Some(Err(broken(&error))));
                }
                None => self.stage = Stage::Trailers,
            }
        }
        if self.stage == Stage::Trailers {
            let trailers = ready!(self.stream.poll_trailers(cx));
            self.stage = Stage::Ended;
            // Trailers of a request end here: no server behind a gateway expects fields that nobody checked.
            return Poll::Ready(trailers.err().map(|error| Err(broken(&error))));
        }
        Poll::Ready(None)
    }

    /// Somebody waits for the body.
    fn ask(&mut self) {
        if let Expectation::Continue(waker) = &mut self.expectation {
            let waker = waker.take();
            self.expectation = Expectation::Wanted;
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn piece(&mut self, data: Bytes) -> Frame<Bytes> {
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(data.len() as u64));
        Frame::data(data)
    }

    fn is_ended(&self) -> bool {
        self.first.is_none() && (self.stage == Stage::Ended || self.stream.is_end_stream())
    }
}

/// Lets the client send as much again.
fn give_back(stream: &mut RecvStream, data: &Bytes) {
    // Fails only for more than was received.
    let _ = stream.flow_control().release_capacity(data.len());
}

/// Whose fault a broken stream is: one that the crate broke itself was malformed; a reset by the client or a lost
/// connection means that it left.
fn broken(error: &h2::Error) -> Error {
    let kind = if error.is_remote() || error.is_io() { Kind::ClientGone } else { Kind::BodyBroken };
    Error::new(kind, "the request body ended before it was complete").with_detail(error)
}

/// A request body still to come.
struct InboundBody(Rc<RefCell<Incoming>>);

impl http_body::Body for InboundBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.borrow_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
