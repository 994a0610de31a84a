//! The two bodies of a call: the caller's, counted and held to its limits, and the answer's, which ends the exchange.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::wire::Body;
use crate::wire::deadline::Deadline;

use super::context::Exchange;
use super::{Service, Tunnel, grpc, respond};

/// A request body on its way to the replica: counted, held to `limits.body_bytes`, and expected to make progress.
pub(super) struct RequestBody {
    body: Body,
    limit: u64,
    meter: Rc<Cell<u64>>,
    patience: Duration,
    deadline: Deadline,
    /// What must have arrived before the deadline moves.
    milestone: u64,
}

/// How a request body is expected to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As something that is there and is sent.
    Steady,
    /// As the client and the replica like: they talk. `limits.idle_timeout` bounds their silence.
    Free,
}

/// A body that brings less than this within `limits.request_body_timeout` is stalled: one byte now and then is no
/// progress.
const PROGRESS_BYTES: u64 = 4096;

impl RequestBody {
    /// `body` under the service's rules. One that is already at hand is counted already and needs no watching.
    pub fn wrap(body: Body, service: &Service, meter: Rc<Cell<u64>>, pace: Pace) -> Body {
        if body.is_buffered() {
            return body;
        }
        let patience = service.settings.limits.request_body;
        let mut deadline = Deadline::new();
        let milestone = match pace {
            Pace::Steady => {
                deadline.set(Instant::now() + patience);
                PROGRESS_BYTES
            }
            Pace::Free => u64::MAX,
        };
        let limit = service.settings.limits.body_bytes;
        Body::stream(Self { body, limit, meter, patience, deadline, milestone })
    }

    fn count(&mut self, data: &Bytes) -> Result<(), Error> {
        let received = self.meter.get() + data.len() as u64;
        self.meter.set(received);
        if received > self.limit {
            let limit = self.limit;
            return Err(Error::new(
                Kind::BodyTooLarge,
                format!(
                    "the request body is over {limit} bytes, which is what this service takes (limits.body_bytes)"
                ),
            ));
        }
        if received >= self.milestone {
            self.milestone = received + PROGRESS_BYTES;
            self.deadline.set(Instant::now() + self.patience);
        }
        Ok(())
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let counted = frame.data_ref().map_or(Ok(()), |data| this.count(data));
                Poll::Ready(Some(counted.map(|()| frame)))
            }
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => this.deadline.poll_expired(cx).map(|()| {
                let patience = this.patience;
                let message = format!(
                    "the request body stopped arriving for {patience:?} (limits.request_body_timeout)"
                );
                Some(Err(Error::new(Kind::BodyTimeout, message)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. It carries the exchange: when it is dropped, the record is written.
pub struct ResponseBody {
    body: Body,
    /// `None` for what never became a call.
    exchange: Option<Box<Exchange>>,
}

impl ResponseBody {
    pub(super) fn new(body: Body, mut exchange: Box<Exchange>) -> Self {
        if body.is_end_stream() && !body.is_upgraded() {
            exchange.complete();
        }
        Self { body, exchange: Some(exchange) }
    }

    /// The answer to what never became a call: no record is left.
    pub(super) const fn without_record(body: Body) -> Self {
        Self { body, exchange: None }
    }

    /// Whether this is no body but a tunnel to the replica.
    #[must_use]
    pub const fn is_tunnel(&self) -> bool {
        self.body.is_upgraded()
    }

    /// The tunnel to be run once the head of the 101 is out.
    pub fn into_tunnel(self) -> Option<Tunnel> {
        Some(Tunnel::new(self.body.into_upgraded()?, self.exchange?))
    }

    /// The answer could not be handed over: the client is gone or does not read. To be called before the drop.
    pub fn break_off(&mut self, error: &Error) {
        if let Some(exchange) = &mut self.exchange {
            exchange.reopen();
            exchange.break_off(error);
        }
    }

    /// The refusal in the place of an answer that broke with `error` before anything of it was handed on, its head included.
    pub fn into_refusal(self, error: &Error) -> Response<Self> {
        let Some(mut exchange) = self.exchange else { return respond::reject(error) };
        exchange.reopen();
        exchange.record.response_bytes = 0;
        respond::refuse(exchange, error)
    }

    /// Longest wait for the client to take the next piece (`limits.response_write_timeout`).
    #[must_use]
    pub fn write_patience(&self) -> Duration {
        let service = self.exchange.as_ref().and_then(|exchange| exchange.service());
        service.map_or(DEFAULT_WRITE_PATIENCE, |service| service.settings.limits.response_write)
    }
}

/// For answers that belong to no service.
const DEFAULT_WRITE_PATIENCE: Duration = Duration::from_secs(30);

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { body, exchange } = self.get_mut();
        if let Some(exchange) = exchange
            && let Poll::Ready(error) = exchange.poll_ended(cx)
        {
            exchange.break_off(&error);
            return Poll::Ready(Some(Err(error)));
        }
        let polled = Pin::new(&mut *body).poll_frame(cx);
        let Some(exchange) = exchange else { return polled };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    exchange.record.response_bytes += data.len() as u64;
                } else if frame.trailers_ref().is_some_and(grpc::says_failed) {
                    exchange.model_failed();
                }
                if body.is_end_stream() {
                    exchange.complete();
                }
            }
            Poll::Ready(Some(Err(error))) => exchange.break_off(error),
            Poll::Ready(None) => exchange.complete(),
            Poll::Pending => {}
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
