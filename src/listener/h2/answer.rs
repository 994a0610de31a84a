//! Writing the answer of one stream: its head, its body as the client makes room, and its trailers.
//!
//! A client that makes no room in time has its stream reset; the others of its connection go on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::response::Parts;
use http::{HeaderValue, Response, header};
use http_body::{Body as _, Frame};
use tokio::time::Instant;

use crate::listener::client_stalled;
use crate::proxy::ResponseBody;
use crate::wire::deadline::Deadline;

use super::SEND_BUFFER;
use super::body::Upload;

/// Sends `response`, and says in its record if it did not get through.
pub(super) async fn send(
    mut respond: SendResponse<Bytes>,
    response: Response<ResponseBody>,
    upload: &Upload,
) {
    let Begun { mut parts, mut body, is_whole, length, first } = begin(response).await;
    if let Some(length) = length.filter(|_| !is_whole) {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if is_whole {
        body.before_end();
    }
    let stream = match respond.send_response(Response::from_parts(parts, ()), is_whole) {
        Ok(_) if is_whole => return,
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "an answer could not be sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
            return body.break_off(&upload.fault());
        }
    };
    let patience = body.write_patience();
    let mut sending = Sending { stream, patience, deadline: Deadline::new() };
    match sending.send(first, &mut body).await {
        Ok(()) => {}
        Err(Stop::Gone) => body.break_off(&upload.fault()),
        Err(Stop::Stalled) => {
            body.break_off(&client_stalled(patience));
            sending.stream.send_reset(Reason::CANCEL);
        }
        // The body has said why.
        Err(Stop::Broken) => sending.stream.send_reset(Reason::INTERNAL_ERROR),
    }
}

/// An answer whose head is to be sent.
struct Begun {
    parts: Parts,
    body: ResponseBody,
    /// There is nothing behind the head.
    is_whole: bool,
    /// Bytes of the body, if that is known.
    length: Option<u64>,
    /// What was at hand of the body, if it was looked at.
    first: Poll<Option<Frame<Bytes>>>,
}

/// Looks at what is at hand behind the head before that is sent: an answer that is broken already becomes a refusal.
async fn begin(response: Response<ResponseBody>) -> Begun {
    let mut begun = Begun::new(response);
    if begun.is_whole {
        return begun;
    }
    let first = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut begun.body).poll_frame(cx))).await;
    begun.first = match first {
        Poll::Ready(Some(Err(error))) => return Begun::new(begun.body.into_refusal(&error)),
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(frame)),
        Poll::Ready(None) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    };
    begun
}

impl Begun {
    fn new(response: Response<ResponseBody>) -> Self {
        let (parts, body) = response.into_parts();
        let (is_whole, length) = (body.is_end_stream(), body.size_hint().exact());
        Self { parts, body, is_whole, length, first: Poll::Pending }
    }
}

/// Why an answer did not get to its end.
enum Stop {
    /// The client reset the stream, or has left.
    Gone,
    /// The client made no room in time.
    Stalled,
    /// There is no more of it.
    Broken,
}

impl From<h2::Error> for Stop {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

/// A stream whose answer's head is out.
struct Sending {
    stream: SendStream<Bytes>,
    /// Longest wait for the client to make room.
    patience: Duration,
    deadline: Deadline,
}

impl Sending {
    async fn send(&mut self, first: Poll<Option<Frame<Bytes>>>, body: &mut ResponseBody) -> Result<(), Stop> {
        let mut next = match first {
            Poll::Ready(frame) => frame,
            Poll::Pending => self.next(body).await?,
        };
        while let Some(frame) = next {
            match frame.into_data() {
                Ok(mut data) => {
                    let is_last = body.is_end_stream() && !data.is_empty();
                    // What has no room yet is kept here: the crate would keep it without a deadline.
                    while !data.is_empty() {
                        let room = std::future::poll_fn(|cx| self.poll_room(cx, data.len())).await?;
                        let piece = data.split_to(room.min(data.len()));
                        let ends = is_last && data.is_empty();
                        if ends {
                            body.before_end();
                        }
                        self.stream.send_data(piece, ends)?;
                    }
                    if is_last {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    body.before_end();
                    return Ok(self.stream.send_trailers(trailers)?);
                }
            }
            next = self.next(body).await?;
        }
        body.before_end();
        Ok(self.stream.send_data(Bytes::new(), true)?)
    }

    async fn next(&mut self, body: &mut ResponseBody) -> Result<Option<Frame<Bytes>>, Stop> {
        std::future::poll_fn(|cx| self.poll_next(cx, body)).await
    }

    /// The next frame of the answer; notices a client that does not wait for it.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut ResponseBody,
    ) -> Poll<Result<Option<Frame<Bytes>>, Stop>> {
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.transpose().map_err(|_| Stop::Broken)),
            Poll::Pending => self.stream.poll_reset(cx).map(|_| Err(Stop::Gone)),
        }
    }

    /// How many bytes the client has room for, of `wanted`.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Stop>> {
        self.stream.reserve_capacity(wanted.min(SEND_BUFFER));
        loop {
            match self.stream.capacity() {
                0 => {}
                room => {
                    self.deadline.clear();
                    return Poll::Ready(Ok(room));
                }
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Poll::Ready(Err(Stop::Gone)),
                Poll::Pending => break,
            }
        }
        if !self.deadline.is_set() {
            self.deadline.set(Instant::now() + self.patience);
        }
        ready!(self.deadline.poll_expired(cx));
        Poll::Ready(Err(Stop::Stalled))
    }
}
