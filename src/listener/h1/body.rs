//! The body of the request under way, read from its connection as the replica takes it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::error::{Error, Kind};
use crate::wire::framing::{Decoded, Framing};
use crate::wire::head::CONTINUE;

use super::wire::Wire;

/// A request body still to come. Nothing is read before somebody asks, and no more than is asked for.
pub(super) struct InboundBody {
    wire: Rc<RefCell<Wire>>,
    expectation: Expectation,
    declared: Option<u64>,
    ended: bool,
}

/// Whether the client waits for a `100 Continue` before it sends the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// It sends at once.
    None,
    /// It waits (RFC 9110 10.1.1).
    Continue,
}

impl InboundBody {
    pub fn new(wire: Rc<RefCell<Wire>>, framing: Framing, expectation: Expectation) -> Self {
        let declared = match framing {
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked | Framing::UntilClose => None,
        };
        Self { wire, expectation, declared, ended: false }
    }

    fn poll_decode(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let wire = &mut *self.wire.borrow_mut();
        if self.expectation == Expectation::Continue && wire.inbox.is_empty() {
            self.expectation = Expectation::None;
            wire.outbox.extend_from_slice(CONTINUE);
        }
        if !wire.outbox.is_empty() && ready!(wire.poll_flush(cx)).is_err() {
            return Poll::Ready(Some(Err(client_gone())));
        }
        loop {
            let Some(decoder) = &mut wire.decoder else { return Poll::Ready(None) };
            match decoder.decode(&mut wire.inbox) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                // Trailers of a request end here: no server behind a gateway expects fields that nobody checked.
                Ok(Decoded::Trailers(_)) => {}
                Ok(Decoded::End) => wire.decoder = None,
                Ok(Decoded::NeedMore) => match ready!(wire.poll_fill(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(Some(Err(client_gone()))),
                    Ok(_) => {}
                },
                Err(broken) => {
                    let message = format!("the request body is not acceptable: {broken}");
                    return Poll::Ready(Some(Err(Error::new(Kind::BodyBroken, message))));
                }
            }
        }
    }
}

fn client_gone() -> Error {
    Error::new(Kind::ClientGone, "the client left before its request was complete")
}

impl http_body::Body for InboundBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(self.poll_decode(cx));
        self.ended = !matches!(polled, Some(Ok(_)));
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
