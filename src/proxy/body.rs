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

/// A caller's body on its way to the replica: counted, held to `limits.body_bytes`, and expected to make progress.
struct RequestBody {
    body: Body,
    /// As announced, before any of it came.
    announced: SizeHint,
    /// The first piece, while the call waits for its place.
    first: Option<Frame<Bytes>>,
    limit: u64,
    meter: Rc<Cell<u64>>,
    pace: Pace,
    patience: Duration,
    /// Set while the caller is waited for.
    deadline: Deadline,
    /// What must have arrived before the deadline moves.
    milestone: u64,
}

/// A body that brings less than this within `limits.request_body_timeout` is stalled: one byte now and then is no
/// progress.
const PROGRESS_BYTES: u64 = 4096;

/// How a request body is expected to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As something that is there and is sent: the call waits for it to begin, and then for each piece so long.
    Steady,
    /// As caller and replica like: they talk, and either may speak first. `limits.idle_timeout` bounds their silence.
    Free,
}

/// Puts `body` under the service's rules and has it begin: its first piece is waited for and kept, so that a call whose
/// body is slow to come takes no place from others. It also asks a caller that waits to be asked (`100 Continue`). A body
/// that is already at hand is counted already and needs no watching.
///
/// # Errors
/// The body does not begin in time, or is not acceptable.
pub(super) async fn prepare(
    body: &mut Body,
    pace: Pace,
    service: &Service,
    meter: Rc<Cell<u64>>,
) -> Result<(), Error> {
    if body.is_buffered() {
        return Ok(());
    }
    let mut watched = RequestBody::new(std::mem::take(body), pace, service, meter);
    if pace == Pace::Steady
        && let Some(first) = std::future::poll_fn(|cx| Pin::new(&mut watched).poll_frame(cx)).await
    {
        watched.first = Some(first?);
        // The next wait for the caller begins when somebody wants more.
        watched.deadline.clear();
    }
    *body = Body::stream(watched);
    Ok(())
}

impl RequestBody {
    fn new(body: Body, pace: Pace, service: &Service, meter: Rc<Cell<u64>>) -> Self {
        let limits = &service.settings.limits;
        Self {
            announced: body.size_hint(),
            body,
            first: None,
            limit: limits.body_bytes,
            meter,
            pace,
            patience: limits.request_body,
            deadline: Deadline::new(),
            milestone: PROGRESS_BYTES,
        }
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
            self.deadline.clear();
        }
        Ok(())
    }

    /// Ready once the caller has been waited for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if self.pace == Pace::Free {
            return Poll::Pending;
        }
        if !self.deadline.is_set() {
            self.deadline.set(Instant::now() + self.patience);
        }
        self.deadline.poll_expired(cx).map(|()| {
            let patience = self.patience;
            let message =
                format!("the request body stopped arriving for {patience:?} (limits.request_body_timeout)");
            Error::new(Kind::BodyTimeout, message)
        })
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let counted = frame.data_ref().map_or(Ok(()), |data| this.count(data));
                Poll::Ready(Some(counted.map(|()| frame)))
            }
            Poll::Ready(end) => Poll::Ready(end),
            Poll::Pending => this.poll_stalled(cx).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_some() { self.announced } else { self.body.size_hint() }
    }
}

/// An answer's body. It carries the exchange: when it is dropped, the record is written, if not before.
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
    pub const fn without_record(body: Body) -> Self {
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

    /// To be called before the answer's last bytes are handed over: where records are written ahead, this call's is written
    /// now, and the result is `true`. Then the answer is over, whatever its body may still bring.
    pub fn before_end(&mut self) -> bool {
        self.exchange.as_mut().is_some_and(|exchange| exchange.record_ahead())
    }

    /// The answer could not be handed over: the client is gone or does not read. To be called before the drop; too late for
    /// a record that was written ahead.
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
                    exchange.see_piece(data);
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
