//! The one body type of the request path: nothing, bytes already at hand, or a stream that is pulled.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::upgrade::Upgraded;
use crate::error::Error;

/// A request's or answer's body. Pulled frame by frame, so back-pressure is the reader's pace; dropping it cancels
/// whatever produces it.
///
/// Small messages usually arrive whole in one read: they are [`Body::full`] and cost no allocation of their own.
pub struct Body(Inner);

enum Inner {
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Error>>>),
    /// No body: the connection that a 101 has brought.
    Upgraded(Box<Upgraded>),
}

impl Body {
    /// No body at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// A body that is wholly at hand.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { Inner::Empty } else { Inner::Full(bytes) })
    }

    /// A body that is still to come.
    pub fn stream(body: impl http_body::Body<Data = Bytes, Error = Error> + 'static) -> Self {
        Self(Inner::Stream(Box::pin(body)))
    }

    /// What stands in the place of a 101's body: the connection itself.
    #[must_use]
    pub fn upgraded(connection: Upgraded) -> Self {
        Self(Inner::Upgraded(Box::new(connection)))
    }

    /// The connection that a 101 has brought, if that is what this is.
    pub fn into_upgraded(self) -> Option<Upgraded> {
        match self.0 {
            Inner::Upgraded(connection) => Some(*connection),
            Inner::Empty | Inner::Full(_) | Inner::Stream(_) => None,
        }
    }

    /// Whether this stands for a connection rather than for bytes.
    #[must_use]
    pub const fn is_upgraded(&self) -> bool {
        matches!(self.0, Inner::Upgraded(_))
    }

    /// The same body once more, if it is at hand; shares its bytes.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Inner::Empty => Some(Self::empty()),
            Inner::Full(bytes) => Some(Self(Inner::Full(bytes.clone()))),
            Inner::Stream(_) | Inner::Upgraded(_) => None,
        }
    }

    /// The bytes of a body that is at hand and not empty.
    #[must_use]
    pub const fn bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Full(bytes) => Some(bytes),
            Inner::Empty | Inner::Stream(_) | Inner::Upgraded(_) => None,
        }
    }

    /// Whether all of the body is at hand (an empty one is), so that sending it cannot wait for its source.
    #[must_use]
    pub const fn is_buffered(&self) -> bool {
        matches!(self.0, Inner::Empty | Inner::Full(_))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.get_mut().0 {
            Inner::Empty | Inner::Upgraded(_) => Poll::Ready(None),
            full @ Inner::Full(_) => match std::mem::replace(full, Inner::Empty) {
                Inner::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Inner::Empty | Inner::Stream(_) | Inner::Upgraded(_) => Poll::Ready(None),
            },
            Inner::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty | Inner::Upgraded(_) => true,
            Inner::Full(_) => false,
            Inner::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty | Inner::Upgraded(_) => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream(stream) => stream.size_hint(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Inner::Empty => f.write_str("Body(empty)"),
            Inner::Full(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Inner::Stream(_) => f.write_str("Body(stream)"),
            Inner::Upgraded(_) => f.write_str("Body(upgraded)"),
        }
    }
}
