//! What the two halves of a call tell each other: hyper's task pulls the request, the call's own waits for the answer.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::upstream::pool::ReplicaPool;
use crate::upstream::settings::Deadlines;
use crate::upstream::{first_byte_timeout, protocol_violation, reset};
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
            let until = call.waiting_since() + deadlines.first_byte;
            if !deadline.is_set() {
                deadline.set(until);
            }
            ready!(deadline.poll_expired(cx));
            if until <= Instant::now() {
                return Poll::Ready(Err(first_byte_timeout(deadlines, home.label())));
            }
            deadline.set(until);
        }
    })
    .await
}

/// What the two halves share.
struct CallState {
    sending: Cell<Sending>,
    failure: RefCell<Option<Error>>,
    /// Wakes hyper's task when it waits for the request's source.
    puller: Cell<Option<Waker>>,
}

#[derive(Clone, Copy)]
enum Sending {
    /// Moved on, or ended, at this time.
    Moved(Instant),
    /// Waits for its source.
    Starved,
    /// The call is over; what is not sent is not wanted any more.
    Abandoned,
}

/// A call's own half. When it goes, the sending of the request ends, too.
pub(super) struct Call(Rc<CallState>);

impl Call {
    pub(super) fn new() -> Self {
        Self(Rc::new(CallState {
            sending: Cell::new(Sending::Moved(Instant::now())),
            failure: RefCell::default(),
            puller: Cell::default(),
        }))
    }

    /// The request's body as hyper shall get it.
    pub(super) fn upload(&self, body: Body) -> Upload {
        Upload { body, call: Rc::clone(&self.0) }
    }

    /// Since when the replica is what the call waits for: never yet, if the client's turn is now.
    fn waiting_since(&self) -> Instant {
        match self.0.sending.get() {
            Sending::Moved(at) => at,
            Sending::Starved | Sending::Abandoned => Instant::now(),
        }
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

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if matches!(this.call.sending.get(), Sending::Abandoned) {
            let error = Error::new(Kind::ClientGone, "the call is over");
            return Poll::Ready(Some(Err(error)));
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {
                this.call.sending.set(Sending::Starved);
                this.call.puller.set(Some(cx.waker().clone()));
            }
            Poll::Ready(Some(Err(error))) => {
                *this.call.failure.borrow_mut() = Some(error.clone());
            }
            Poll::Ready(_) => this.call.sending.set(Sending::Moved(Instant::now())),
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
