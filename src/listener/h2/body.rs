//! The request bodies of HTTP/2 streams: as hyper brings them, and what becomes of one that nobody read to its end.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::error::{Error, Kind};
use crate::wire::Body;

/// Of a body that nobody wanted, this much is read and thrown away before the answer.
const DISCARD_LIMIT: u64 = 64 * 1024;
/// Longest wait for it.
const DISCARD_WAIT: Duration = Duration::from_secs(1);

/// Where the body of a refused call is left. An answer that ends while its request is still being sent makes hyper reset
/// the stream with NO_ERROR (RFC 9113 8.1), which older clients take for a failure of the answer (curl before 8): a short
/// rest is read first.
#[derive(Clone, Default)]
pub(super) struct Unread(Rc<RefCell<Option<Incoming>>>);

impl Unread {
    /// The body of a call; what is not read of it comes back here.
    pub fn body(&self, incoming: Incoming) -> Body {
        if incoming.is_end_stream() {
            return Body::empty();
        }
        Body::stream(InboundBody { incoming: Some(incoming), unread: self.clone() })
    }

    /// Reads what is left, if it is known to be short and comes soon.
    pub async fn discard(self) {
        let Some(mut rest) = self.0.take() else { return };
        if rest.size_hint().upper().is_some_and(|rest| rest <= DISCARD_LIMIT) {
            let read = async {
                while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {}
            };
            let _late = tokio::time::timeout(DISCARD_WAIT, read).await;
        }
    }
}

/// A request body as hyper brings it.
struct InboundBody {
    /// Gone once it has ended.
    incoming: Option<Incoming>,
    unread: Unread,
}

impl http_body::Body for InboundBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.incoming = None;
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(|error| broken(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for InboundBody {
    fn drop(&mut self) {
        *self.unread.0.borrow_mut() = self.incoming.take().filter(|incoming| !incoming.is_end_stream());
    }
}

/// Whose fault a broken stream is: a reset or a lost connection means that the client left.
fn broken(error: &hyper::Error) -> Error {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    let by_us = cause.is_some_and(|cause| !cause.is_remote() && !cause.is_io());
    let kind = if by_us { Kind::BodyBroken } else { Kind::ClientGone };
    Error::new(kind, "the request body ended before it was complete").with_detail(error)
}
