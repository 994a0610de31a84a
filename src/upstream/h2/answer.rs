//! The body of an answer as it comes from hyper.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::call::Call;
use crate::error::Error;
use crate::upstream::idle_timeout;
use crate::upstream::pool::ReplicaPool;
use crate::upstream::settings::Deadlines;
use crate::wire::Body;
use crate::wire::deadline::Deadline;
use crate::wire::framing::permitted_trailers;

/// The answer's body; dropped before its end it resets the stream.
pub(super) struct Answer {
    incoming: Incoming,
    call: Call,
    /// Since when the next piece is waited for.
    paused: Option<Instant>,
    deadline: Deadline,
    deadlines: Deadlines,
    home: Rc<ReplicaPool>,
}

impl Answer {
    pub(super) const fn new(
        incoming: Incoming,
        call: Call,
        deadlines: Deadlines,
        home: Rc<ReplicaPool>,
    ) -> Self {
        Self { incoming, call, paused: None, deadline: Deadline::new(), deadlines, home }
    }

    /// Whole if it is at hand, as small answers are, else to be pulled.
    pub(super) async fn into_body(mut self) -> Result<Body, Error> {
        if self.incoming.is_end_stream() {
            return Ok(Body::empty());
        }
        let exact = self.incoming.size_hint().exact();
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut self).poll_frame(cx))).await;
        let first = match first {
            Poll::Pending => return Ok(Body::stream(self)),
            Poll::Ready(None) => return Ok(Body::empty()),
            Poll::Ready(Some(frame)) => frame?,
        };
        match first.into_data() {
            Ok(data) if self.incoming.is_end_stream() && exact.is_none_or(|n| n == data.len() as u64) => {
                Ok(Body::full(data))
            }
            Ok(data) => Ok(Body::stream(Begun { first: Some(Frame::data(data)), rest: self })),
            Err(trailers) => Ok(Body::stream(Begun { first: Some(trailers), rest: self })),
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.paused = None;
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(sift_trailers(frame)),
                    Err(cause) => Err(this.call.failure(&cause, &this.home)),
                }))
            }
            Poll::Pending => {
                let since = *this.paused.get_or_insert_with(Instant::now);
                loop {
                    let until = this.call.pause_until(since, &this.deadlines);
                    this.deadline.set(until);
                    ready!(this.deadline.poll_expired(cx));
                    // The client may have moved on meanwhile.
                    if until == this.call.pause_until(since, &this.deadlines) {
                        let error = idle_timeout(&this.deadlines, this.home.label());
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

fn sift_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(trailers) => Frame::<Bytes>::trailers(permitted_trailers(trailers)),
        Err(frame) => frame,
    }
}

/// An answer whose first frame was at hand, but not its end.
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Answer,
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(first + rest),
            None => SizeHint::default(),
        }
    }
}
