//! The request on its way out: pulled from its source as fast as the replica takes it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::AsyncWrite;

use super::{Io, Special};
use crate::error::{Error, Kind};
use crate::wire::Body;
use crate::wire::deadline::Deadline;
use crate::wire::framing::{CHUNK_END, Framing, encode_chunk_head, encode_last_chunk};
use crate::wire::head::{encode_request, encode_websocket_request};

/// Up to here a piece of the body is copied behind what is to be written before it; a larger one is written from where
/// it lies.
const COPY_BYTES: usize = 8 * 1024;

/// How much is gathered from a source of small pieces before it is written.
const GATHER_BYTES: usize = 16 * 1024;

/// Bytes on their way to the replica: what was copied together, a large piece in its own memory, and what ends it.
#[derive(Default)]
pub(super) struct Outgoing {
    copied: BytesMut,
    piece: Bytes,
    piece_end: &'static [u8],
}

/// What the sending of a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// All is sent, or sending has failed.
    Over,
    /// The replica does not take more at present.
    Blocked,
    /// The source has nothing more at present.
    Starved,
}

/// One request on its way.
pub(super) struct Upload {
    body: Body,
    source: Source,
    outcome: Outcome,
    progress: Progress,
}

/// What is still to be pulled from the body.
enum Source {
    /// So many bytes; more or fewer are a fault.
    Exact(u64),
    /// Chunks, until it ends.
    Chunks,
    Ended,
}

enum Outcome {
    Open,
    Done,
    /// The replica takes no more.
    Failed(io::Error),
}

enum Progress {
    /// Not a byte is out; this is the first piece of the body, with which the request could be put together again.
    Unsent(Option<Bytes>),
    Begun,
}

impl Upload {
    /// Puts the head into `out`. The framing follows from the body's size: known, unknown, or none where a body would
    /// be a surprise.
    pub(super) fn start(parts: &http::request::Parts, body: Body, out: &mut Outgoing) -> Self {
        let (framing, source) = match body.size_hint().exact() {
            Some(0) if matches!(parts.method, Method::GET | Method::HEAD) => {
                (Framing::None, Source::Exact(0))
            }
            Some(length) => (Framing::Length(length), Source::Exact(length)),
            None => (Framing::Chunked, Source::Chunks),
        };
        let target = parts.uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes();
        let (method, headers) = (&parts.method, &parts.headers);
        match parts.extensions.get() {
            Some(Special::WebSocket(_)) => encode_websocket_request(&mut out.copied, target, headers),
            _ => encode_request(&mut out.copied, method, target, headers, framing),
        }
        Self { body, source, outcome: Outcome::Open, progress: Progress::Unsent(None) }
    }

    /// Sends on until something has to be waited for. Each step that the replica takes clears `deadline`.
    ///
    /// # Errors
    /// Those of the request's body; a failure to write is kept, see [`Upload::is_over`].
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        out: &mut Outgoing,
        deadline: &mut Deadline,
    ) -> Result<Sending, Error> {
        while !self.is_over() {
            let gathered = self.poll_gather(cx, out)?;
            let before = out.len();
            let flushed = out.poll_flush(cx, io);
            if out.len() < before {
                deadline.clear();
                self.forget_unsent();
            }
            match flushed {
                Poll::Pending => return Ok(Sending::Blocked),
                Poll::Ready(Err(error)) => self.outcome = Outcome::Failed(error),
                Poll::Ready(Ok(())) if matches!(self.source, Source::Ended) => {
                    self.outcome = Outcome::Done;
                }
                Poll::Ready(Ok(())) if gathered.is_pending() => return Ok(Sending::Starved),
                Poll::Ready(Ok(())) => {}
            }
        }
        Ok(Sending::Over)
    }

    /// Whether all of the request is out.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.outcome, Outcome::Done)
    }

    /// Whether nothing more will be sent: all is out, or the replica takes no more.
    pub(super) const fn is_over(&self) -> bool {
        !matches!(self.outcome, Outcome::Open)
    }

    /// Why sending failed before a byte was out, if it did.
    pub(super) const fn failed_unsent(&self) -> Option<&io::Error> {
        match (&self.outcome, &self.progress) {
            (Outcome::Failed(error), Progress::Unsent(_)) => Some(error),
            _ => None,
        }
    }

    /// From now on the request cannot be put together again.
    pub(super) fn forget_unsent(&mut self) {
        self.progress = Progress::Begun;
    }

    /// The body as it was, of a request of which no byte is out.
    pub(super) fn into_body(self) -> Body {
        match self.progress {
            Progress::Begun | Progress::Unsent(None) => self.body,
            Progress::Unsent(Some(first)) if self.body.is_end_stream() => Body::full(first),
            Progress::Unsent(first) => Body::stream(Replay { first, rest: self.body }),
        }
    }

    /// Pulls the body into `out`. Before the first write it takes one piece at most.
    fn poll_gather(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Result<Poll<()>, Error> {
        while out.has_room() && !matches!(self.source, Source::Ended) {
            if self.body.is_end_stream() {
                self.end(out, None)?;
                break;
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(None) => return self.end(out, None).map(Poll::Ready),
                Poll::Ready(Some(frame)) => frame?,
            };
            match frame.into_data().map_err(Frame::into_trailers) {
                Ok(data) => self.push(out, data)?,
                Err(Ok(trailers)) => self.end(out, Some(&trailers))?,
                Err(Err(_)) => {}
            }
            if matches!(self.progress, Progress::Unsent(Some(_))) && !self.body.is_end_stream() {
                break;
            }
        }
        Ok(Poll::Ready(()))
    }

    fn push(&mut self, out: &mut Outgoing, data: Bytes) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        if let Progress::Unsent(first) = &mut self.progress {
            *first = Some(data.clone());
        }
        match &mut self.source {
            Source::Exact(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| Error::new(Kind::BodyBroken, "the body is longer than it was declared"))?;
                out.push(data, b"");
            }
            Source::Chunks => {
                encode_chunk_head(&mut out.copied, data.len());
                out.push(data, CHUNK_END);
            }
            Source::Ended => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Outgoing, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Exact(0) | Source::Ended => Ok(()),
            Source::Exact(_) => Err(Error::new(Kind::BodyBroken, "the body is shorter than it was declared")),
            Source::Chunks => {
                encode_last_chunk(&mut out.copied, trailers);
                Ok(())
            }
        }
    }
}

impl Outgoing {
    fn len(&self) -> usize {
        self.copied.len() + self.piece.len() + self.piece_end.len()
    }

    fn has_room(&self) -> bool {
        self.piece.is_empty() && self.copied.len() < GATHER_BYTES
    }

    fn push(&mut self, data: Bytes, end: &'static [u8]) {
        if data.len() <= COPY_BYTES {
            self.copied.extend_from_slice(&data);
            self.copied.extend_from_slice(end);
        } else {
            self.piece = data;
            self.piece_end = end;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        while self.len() > 0 {
            let written = if self.piece.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.copied))?
            } else {
                let slices = [&self.copied[..], &self.piece[..], self.piece_end];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices.map(IoSlice::new)))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Pin::new(io).poll_flush(cx)
    }

    fn advance(&mut self, written: usize) {
        let of_copied = written.min(self.copied.len());
        self.copied.advance(of_copied);
        let of_piece = (written - of_copied).min(self.piece.len());
        self.piece.advance(of_piece);
        self.piece_end = &self.piece_end[written - of_copied - of_piece..];
        if self.copied.is_empty() {
            // Back to the start of its memory.
            self.copied.clear();
        }
        if self.piece.is_empty() {
            self.piece = Bytes::new();
            self.copied.extend_from_slice(std::mem::take(&mut self.piece_end));
        }
    }
}

/// A body whose first piece was pulled already.
struct Replay {
    first: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Replay {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match this.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(first + rest),
            None => SizeHint::default(),
        }
    }
}
