//! What the two halves of a call tell each other: hyper's task pulls the request, the call's own waits for the answer.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::upstream::pool::ReplicaPool;
use crate::upstream::settings::Deadlines;
use crate::upstream::{Special, first_byte_timeout, protocol_violation, reset, silence_timeout};
use crate::wire::Body;
use crate::wire::deadline::Deadline;

/// Waits for the answer's head, as long as the replica may take for it.
pub(super) async fn first_byte<T>(
    answer: impl Future<Output = T>,
    call: &Call,
    deadlines: &Deadlines,
    home: &ReplicaPool,
) -> Result<T, Error> {
    let mut answer = pin!(answer);
    let mut deadline = Deadline::new();
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        loop {
            // Looked at anew each time: hyper sends the request without our taking part.
            let (until, _) = call.head_wait(deadlines);
            if !deadline.is_set() {
                deadline.set(call.next_look(until, deadlines));
            }
            ready!(deadline.poll_expired(cx));
            let (until, wait) = call.head_wait(deadlines);
            if until <= Instant::now() {
                return Poll::Ready(Err(wait.error(deadlines, home)));
            }
            deadline.clear();
        }
    })
    .await
}

/// Which wait for the answer's head ran out.
#[derive(Clone, Copy)]
enum HeadWait {
    /// `scoring_timeout`
    FirstByte,
    /// `idle_timeout`, while the client may still send.
    Silence,
    /// `grpc-timeout`, which the client has sent.
    Asked(Duration),
}

impl HeadWait {
    fn error(self, deadlines: &Deadlines, home: &ReplicaPool) -> Error {
        match self {
            Self::FirstByte => first_byte_timeout(deadlines, home.label()),
            Self::Silence => silence_timeout(deadlines, home.label()),
            Self::Asked(limit) => {
                let message =
                    format!("the replica did not answer within the client's grpc-timeout ({limit:?})");
                Error::new(Kind::UpstreamTimeout, message).with_detail(home.label())
            }
        }
    }
}

/// What the two halves share.
struct CallState {
    sending: Cell<Sending>,
    /// When the request last moved on, or ended.
    moved: Cell<Instant>,
    turns: Turns,
    failure: RefCell<Option<Error>>,
    /// Wakes hyper's task when it waits for the request's source.
    puller: Cell<Option<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Moving,
    /// Waits for its source.
    Starved,
    /// The whole request was pulled.
    Ended,
    /// The call is over; what is not sent is not wanted any more.
    Abandoned,
}

/// Who may send when.
#[derive(Clone, Copy)]
enum Turns {
    /// A request, then its answer.
    Alternate,
    /// Either side at any time, as with gRPC. The client waits until then at most for the answer to begin.
    Free { until: Option<(Instant, Duration)> },
}

/// A call's own half. When it goes, the sending of the request ends, too.
pub(super) struct Call(Rc<CallState>);

impl Call {
    pub(super) fn new(special: Option<&Special>) -> Self {
        let now = Instant::now();
        let turns = match special {
            Some(Special::Grpc { timeout }) => {
                let until = timeout.and_then(|timeout| Some((now.checked_add(timeout)?, timeout)));
                Turns::Free { until }
            }
            Some(Special::WebSocket(_)) | None => Turns::Alternate,
        };
        Self(Rc::new(CallState {
            sending: Cell::new(Sending::Moving),
            moved: Cell::new(now),
            turns,
            failure: RefCell::default(),
            puller: Cell::default(),
        }))
    }

    /// The request's body as hyper shall get it.
    pub(super) fn upload(&self, body: Body) -> Upload {
        if body.is_end_stream() {
            self.0.sending.set(Sending::Ended);
        }
        Upload { body, call: Rc::clone(&self.0) }
    }

    /// Until when the call may wait for the answer's head as things are, and what that wait is.
    fn head_wait(&self, deadlines: &Deadlines) -> (Instant, HeadWait) {
        let (moved, sending) = (self.0.moved.get(), self.0.sending.get());
        let first_byte = |since: Instant| (since + deadlines.first_byte, HeadWait::FirstByte);
        match (self.0.turns, sending) {
            // The client's turn; its own deadline runs.
            (Turns::Alternate, Sending::Starved) => first_byte(Instant::now()),
            (Turns::Alternate, _) => first_byte(moved),
            (Turns::Free { until }, sending) => {
                let wait = match sending {
                    Sending::Ended => first_byte(moved),
                    _ => (moved + deadlines.idle, HeadWait::Silence),
                };
                match until {
                    Some((until, limit)) if until < wait.0 => (until, HeadWait::Asked(limit)),
                    _ => wait,
                }
            }
        }
    }

    /// When to look again at a wait that lasts until `until` as things are: no wait that may take its place is over before.
    fn next_look(&self, until: Instant, deadlines: &Deadlines) -> Instant {
        match self.0.turns {
            Turns::Alternate => until,
            Turns::Free { .. } => until.min(Instant::now() + deadlines.first_byte.min(deadlines.idle)),
        }
    }

    /// Until when the answer may pause that did so at `since`: where both sides send freely, what the client sends counts.
    pub(super) fn pause_until(&self, since: Instant, deadlines: &Deadlines) -> Instant {
        let last = match self.0.turns {
            Turns::Alternate => since,
            Turns::Free { .. } => since.max(self.0.moved.get()),
        };
        last + deadlines.idle
    }

    /// Whose fault it is: the request's source has told, or it is the replica's.
    pub(super) fn failure(&self, cause: &hyper::Error, home: &ReplicaPool) -> Error {
        if let Some(error) = self.0.failure.borrow_mut().take() {
            return error;
        }
        let h2 = cause.source().and_then(|source| source.downcast_ref::<h2::Error>());
        let detail = h2.map_or_else(|| cause.to_string(), ToString::to_string);
        if h2.is_some_and(h2::Error::is_library) {
            protocol_violation(home.label(), detail)
        } else {
            reset("the replica broke the call off", home.label(), detail)
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.sending.set(Sending::Abandoned);
        if let Some(puller) = self.0.puller.take() {
            puller.wake();
        }
    }
}

/// The request's body as hyper pulls it.
pub(super) struct Upload {
    body: Body,
    call: Rc<CallState>,
}

impl Upload {
    /// The body of a request that was given back.
    pub(super) fn into_body(self) -> Body {
        self.body
    }
}

/// Why a request is not sent to its end, in the words of HTTP/2: hyper looks for the code in what caused an error, and
/// without one tells the replica of a fault of ours.
#[derive(Debug)]
pub(super) struct Unfinished(h2::Error);

impl Unfinished {
    /// The client wants no answer any more (RFC 9113 7); gRPC servers take that for the end of the call.
    fn cancelled() -> Self {
        Self(h2::Reason::CANCEL.into())
    }

    fn broken() -> Self {
        Self(h2::Reason::INTERNAL_ERROR.into())
    }
}

impl std::fmt::Display for Unfinished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request was not sent to its end")
    }
}

impl std::error::Error for Unfinished {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        let this = self.get_mut();
        let call = &this.call;
        if call.sending.get() == Sending::Abandoned {
            return Poll::Ready(Some(Err(Unfinished::cancelled())));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => {
                call.sending.set(Sending::Starved);
                call.puller.set(Some(cx.waker().clone()));
                Poll::Pending
            }
            Poll::Ready(Some(Err(error))) => {
                let unfinished = match error.kind {
                    Kind::ClientGone => Unfinished::cancelled(),
                    _ => Unfinished::broken(),
                };
                *call.failure.borrow_mut() = Some(error);
                Poll::Ready(Some(Err(unfinished)))
            }
            Poll::Ready(frame) => {
                let ended = frame.is_none() || this.body.is_end_stream();
                call.sending.set(if ended { Sending::Ended } else { Sending::Moving });
                call.moved.set(Instant::now());
                Poll::Ready(frame.and_then(Result::ok).map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
