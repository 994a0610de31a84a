//! The body of an answer that was not at hand with its head.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Exchange, Keep};
use crate::error::Error;
use crate::wire::Body;
use crate::wire::framing::{Decoded, Decoder};

/// Reads on as it is pulled, and goes on sending the request meanwhile, if that is not all out yet.
pub(super) struct Answer {
    /// `None` after the end, clean or not.
    exchange: Option<Exchange>,
    decoder: Decoder,
    keep: Keep,
    /// What was decoded in the search for an answer's end.
    decoded: VecDeque<Decoded>,
}

impl Answer {
    pub(super) fn body<const N: usize>(
        exchange: Exchange,
        decoder: Decoder,
        keep: Keep,
        decoded: [Decoded; N],
    ) -> Body {
        Body::stream(Self { exchange: Some(exchange), decoder, keep, decoded: decoded.into() })
    }

    /// The next step, which is never [`Decoded::NeedMore`].
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded, Error>> {
        if let Some(decoded) = self.decoded.pop_front() {
            return Poll::Ready(Ok(decoded));
        }
        let Some(exchange) = &mut self.exchange else {
            return Poll::Ready(Ok(Decoded::End));
        };
        loop {
            match exchange.decode(&mut self.decoder)? {
                Decoded::NeedMore => {}
                decoded => {
                    exchange.connection.deadline.clear();
                    return Poll::Ready(Ok(decoded));
                }
            }
            match exchange.connection.poll_read(cx) {
                Poll::Ready(Ok(0)) => {
                    self.keep = Keep::Close;
                    let end = self.decoder.eof().map(|()| Decoded::End);
                    return Poll::Ready(end.map_err(|error| exchange.misframed(error)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(exchange.cut(cause))),
                Poll::Pending => break,
            }
        }
        let idle = exchange.deadlines.idle;
        exchange.connection.poll_expired(cx, idle).map(|()| Err(exchange.idle_timeout()))
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match &mut self.exchange {
            Some(exchange) if !exchange.upload.is_over() => exchange.poll_upload(cx).map(drop),
            _ => Ok(()),
        }
    }

    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(self.keep);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let step = match this.poll_upload(cx) {
            Ok(()) => this.poll_step(cx),
            Err(error) => Poll::Ready(Err(error)),
        };
        step.map(|step| match step {
            Ok(Decoded::Data(data)) => {
                if this.decoder.is_done() && this.decoded.is_empty() {
                    this.finish();
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Decoded::Trailers(trailers)) => {
                this.finish();
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(Decoded::End | Decoded::NeedMore) => {
                this.finish();
                None
            }
            Err(error) => {
                this.exchange = None;
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // In chunks, the only framing that leaves something decoded, nothing is known.
        match self.decoder.remaining() {
            Some(remaining) if self.decoded.is_empty() => SizeHint::with_exact(remaining),
            _ => SizeHint::default(),
        }
    }
}
