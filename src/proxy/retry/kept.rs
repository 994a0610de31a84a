//! A request that can be sent again: its head, and its body as far as it has passed.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, request};
use http_body::{Body as _, Frame, SizeHint};

use crate::error::{Error, Kind};
use crate::wire::Body;

/// A copy of a request.
pub(super) struct Kept {
    head: request::Parts,
    body: KeptBody,
}

enum KeptBody {
    /// At hand from the beginning.
    Whole(Body),
    /// Kept piece by piece as it goes out.
    Passing(Rc<RefCell<Passing>>),
}

/// Most pieces of a body that are kept: each costs memory beside its bytes.
const MAX_PIECES: usize = 256;

/// A body that is sent for the first time, and what has passed of it.
struct Passing {
    source: Body,
    /// As told at the beginning.
    size: Option<u64>,
    pieces: Vec<Bytes>,
    bytes: usize,
    limit: usize,
    trailers: Option<HeaderMap>,
    state: State,
    /// Which sending is the valid one: an earlier one must not take anything away any more.
    sending: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// All that has passed is kept.
    Open,
    /// All has passed and is kept.
    Ended,
    /// It has grown over its limit, or its source has failed: it cannot be sent again.
    Lost,
}

impl Kept {
    /// A copy of `request`, whose body is replaced by one that keeps up to `limit` bytes of what passes; `None` if that is
    /// too large from the beginning.
    pub fn of(request: &mut Request<Body>, limit: usize) -> Option<Self> {
        let size = request.body().size_hint().exact();
        if size.is_some_and(|size| size > limit as u64) {
            return None;
        }
        let body = match request.body().try_clone() {
            Some(body) => KeptBody::Whole(body),
            None => {
                let passing = Rc::new(RefCell::new(Passing {
                    source: std::mem::take(request.body_mut()),
                    size,
                    pieces: Vec::new(),
                    bytes: 0,
                    limit,
                    trailers: None,
                    state: State::Open,
                    sending: 0,
                }));
                *request.body_mut() = Sending::body(&passing);
                KeptBody::Passing(passing)
            }
        };
        let mut head = Request::new(()).into_parts().0;
        head.method.clone_from(request.method());
        head.uri.clone_from(request.uri());
        head.headers.clone_from(request.headers());
        head.extensions.clone_from(request.extensions());
        Some(Self { head, body })
    }

    /// Whether all that has passed is at hand.
    pub fn is_whole(&self) -> bool {
        match &self.body {
            KeptBody::Whole(_) => true,
            KeptBody::Passing(passing) => passing.borrow().state != State::Lost,
        }
    }

    /// The request from its beginning. What was sent of it before ends where it is.
    pub fn request(&mut self) -> Request<Body> {
        let body = match &self.body {
            KeptBody::Whole(body) => body.try_clone().unwrap_or_default(),
            KeptBody::Passing(passing) => {
                passing.borrow_mut().sending += 1;
                Sending::body(passing)
            }
        };
        Request::from_parts(self.head.clone(), body)
    }
}

impl Passing {
    /// The next frame of the source, kept on its way.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
            None => {
                if self.state == State::Open {
                    self.state = State::Ended;
                }
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.lose();
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame,
        };
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) if self.state == State::Open => self.keep(data.clone()),
            (_, Some(trailers)) => self.trailers = Some(trailers.clone()),
            _ => {}
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep(&mut self, data: Bytes) {
        self.bytes += data.len();
        if self.bytes > self.limit || self.pieces.len() == MAX_PIECES {
            self.lose();
        } else {
            self.pieces.push(data);
        }
    }

    fn lose(&mut self) {
        self.state = State::Lost;
        self.pieces = Vec::new();
    }
}

/// One sending of a body that is kept as it passes.
struct Sending {
    passing: Rc<RefCell<Passing>>,
    number: u32,
    /// Pieces given out of those that are kept.
    given: usize,
    /// Bytes given out.
    bytes: u64,
    trailers: Trailers,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trailers {
    ToCome,
    Given,
}

impl Sending {
    fn body(passing: &Rc<RefCell<Passing>>) -> Body {
        let number = passing.borrow().sending;
        let passing = Rc::clone(passing);
        Body::stream(Self { passing, number, given: 0, bytes: 0, trailers: Trailers::ToCome })
    }

    /// Whether there is something to give out that has passed in an earlier sending.
    fn is_behind(&self, passing: &Passing) -> bool {
        self.given < passing.pieces.len() || (passing.trailers.is_some() && self.trailers == Trailers::ToCome)
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let mut passing = this.passing.borrow_mut();
        if passing.sending != this.number {
            let error = Error::new(Kind::ClientGone, "the request is sent anew");
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(piece) = passing.pieces.get(this.given) {
            this.given += 1;
            this.bytes += piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if let (Some(trailers), Trailers::ToCome) = (&passing.trailers, this.trailers) {
            this.trailers = Trailers::Given;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if passing.state == State::Ended {
            return Poll::Ready(None);
        }
        let polled = passing.poll_source(cx);
        this.given = passing.pieces.len();
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            match frame.data_ref() {
                Some(data) => this.bytes += data.len() as u64,
                None => this.trailers = Trailers::Given,
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let passing = self.passing.borrow();
        !self.is_behind(&passing) && (passing.state == State::Ended || passing.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let size = self.passing.borrow().size;
        size.map_or_else(SizeHint::default, |size| SizeHint::with_exact(size.saturating_sub(self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn streamed(frames: impl IntoIterator<Item = Result<Frame<Bytes>, Error>> + 'static) -> Body {
        Body::stream(StreamBody::new(stream::iter(frames.into_iter().collect::<Vec<_>>())))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, Error> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn request(body: Body) -> Request<Body> {
        Request::post("/score?x=1").header("x-a", "b").body(body).unwrap()
    }

    async fn whole(body: Body) -> (Bytes, Option<HeaderMap>) {
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        (collected.to_bytes(), trailers)
    }

    async fn next(body: &mut Body) -> Result<Bytes, Error> {
        body.frame().await.unwrap().map(|frame| frame.into_data().unwrap())
    }

    #[tokio::test]
    async fn a_body_at_hand_is_sent_again_as_often_as_needed() {
        let mut first = request(Body::full("hello"));
        let mut kept = Kept::of(&mut first, 5).unwrap();
        drop(first);
        for _ in 0..2 {
            let (head, body) = kept.request().into_parts();
            assert_eq!(
                (head.uri.to_string().as_str(), &head.headers["x-a"]),
                ("/score?x=1", &"b".parse().unwrap())
            );
            assert_eq!(head.method, http::Method::POST);
            assert_eq!(whole(body).await.0, "hello");
        }
    }

    #[tokio::test]
    async fn a_streamed_body_begins_anew_and_goes_on_from_its_source() {
        let mut first = request(streamed([data("one"), data("two"), data("three")]));
        let mut kept = Kept::of(&mut first, 100).unwrap();
        assert_eq!(next(first.body_mut()).await.unwrap(), "one");
        assert!(kept.is_whole());
        let mut second = kept.request();
        let stale = next(first.body_mut()).await.unwrap_err();
        assert_eq!(stale.kind, Kind::ClientGone);
        assert_eq!(next(second.body_mut()).await.unwrap(), "one");
        assert_eq!(next(second.body_mut()).await.unwrap(), "two");
        let third = kept.request();
        assert_eq!(whole(third.into_body()).await, (Bytes::from("onetwothree"), None));
        let fourth = kept.request();
        assert!(!fourth.body().is_end_stream());
        assert_eq!(whole(fourth.into_body()).await, (Bytes::from("onetwothree"), None));
    }

    #[tokio::test]
    async fn trailers_are_sent_again() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
        let mut first = request(streamed([data("a"), Ok(Frame::trailers(trailers.clone()))]));
        let mut kept = Kept::of(&mut first, 100).unwrap();
        let sent = whole(first.into_body()).await;
        assert_eq!(sent, (Bytes::from("a"), Some(trailers)));
        assert_eq!(whole(kept.request().into_body()).await, sent);
    }

    #[tokio::test]
    async fn what_outgrows_its_limit_passes_but_is_not_kept() {
        let mut first = request(streamed([data("12345"), data("6"), data("7")]));
        let kept = Kept::of(&mut first, 5).unwrap();
        assert_eq!(next(first.body_mut()).await.unwrap(), "12345");
        assert!(kept.is_whole());
        assert_eq!(whole(first.into_body()).await.0, "67");
        assert!(!kept.is_whole());
        assert!(Kept::of(&mut request(Body::full("123456")), 5).is_none());
        let mut many = request(streamed((0..=MAX_PIECES).map(|_| data("1"))));
        let kept = Kept::of(&mut many, 100_000).unwrap();
        assert_eq!(whole(many.into_body()).await.0.len(), MAX_PIECES + 1);
        assert!(!kept.is_whole());
    }

    #[tokio::test]
    async fn a_source_that_failed_is_not_sent_again() {
        let broken = Error::new(Kind::BodyBroken, "broken");
        let mut first = request(streamed([data("1"), Err(broken)]));
        let kept = Kept::of(&mut first, 100).unwrap();
        next(first.body_mut()).await.unwrap();
        assert_eq!(next(first.body_mut()).await.unwrap_err().kind, Kind::BodyBroken);
        assert!(!kept.is_whole());
    }

    #[tokio::test]
    async fn the_size_that_was_declared_stays_so() {
        let declared = StreamBody::new(stream::iter([data("abc"), data("de")]));
        struct Sized<B>(B);
        impl<B: http_body::Body<Data = Bytes, Error = Error> + Unpin> http_body::Body for Sized<B> {
            type Data = Bytes;
            type Error = Error;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
                Pin::new(&mut self.0).poll_frame(cx)
            }
            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(5)
            }
        }
        let mut first = request(Body::stream(Sized(declared)));
        let mut kept = Kept::of(&mut first, 100).unwrap();
        next(first.body_mut()).await.unwrap();
        assert_eq!(first.body().size_hint().exact(), Some(2));
        assert_eq!(kept.request().body().size_hint().exact(), Some(5));
    }
}
