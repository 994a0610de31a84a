//! Samples of inputs and outputs: what passes of a call is looked at on its way, and its beginning is kept.
//!
//! Nothing is held back for it: the tap sees each piece as it goes by. Pieces are copied rather than kept, since a piece may
//! be a small part of a large buffer that its connection wants to use again. What becomes of the copy (bounds, lines, files)
//! is `telemetry::collect`'s business; here is only which calls and which bytes.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Frame, SizeHint};

use crate::catalog::Endpoint;
use crate::error::Error;
use crate::telemetry::record::Record;
use crate::telemetry::{Payload, Sample, SampleSink, Ticket};
use crate::wire::Body;

use super::context::Exchange;
use super::mirror::is_scoring;
use super::{CollectSettings, Service, Worker};

/// The input and output of a call under way, as far as they have passed.
pub(super) struct Collecting {
    sink: SampleSink,
    ticket: Ticket,
    settings: CollectSettings,
    input: Option<Passing>,
    output: Option<Payload>,
}

/// Shared with the body that is on its way to the replica; empty once the call is over, which the body may outlive.
type Passing = Rc<RefCell<Option<Payload>>>;

/// Has the call collected if it is one of the sample. Not for calls that are special: a conversation is neither input nor
/// output.
pub(super) fn begin(
    worker: &Worker,
    exchange: &mut Exchange,
    (service, settings, endpoint): (&Service, &CollectSettings, Endpoint),
    request: &mut Request<Body>,
) {
    let Some(sink) = &worker.samples else { return };
    if !is_scoring(endpoint, request.method()) || !settings.takes(&exchange.record.request_id) {
        return;
    }
    let Some(ticket) = sink.begin(service.metrics(&worker.metrics)) else { return };
    let input = settings.inputs.then(|| {
        let payload = sink.payload(request.headers(), settings.body_bytes);
        tap(request, payload)
    });
    let sink = sink.clone();
    let collecting = Collecting { sink, ticket, settings: *settings, input, output: None };
    exchange.collecting = Some(Box::new(collecting));
}

/// Has `payload` see the body of `request`, now or as it passes.
fn tap(request: &mut Request<Body>, mut payload: Payload) -> Passing {
    if let Some(bytes) = request.body().bytes() {
        payload.see(bytes);
    }
    let passing = Rc::new(RefCell::new(Some(payload)));
    if !request.body().is_buffered() {
        let (body, payload) = (std::mem::take(request.body_mut()), Rc::clone(&passing));
        *request.body_mut() = Body::stream(Tapped { body, payload });
    }
    passing
}

impl Collecting {
    /// The replica has answered with `fields`.
    pub fn begin_output(&mut self, fields: &HeaderMap) {
        if self.settings.outputs {
            self.output = Some(self.sink.payload(fields, self.settings.body_bytes));
        }
    }

    /// A piece of the answer passes.
    pub fn see_output(&mut self, piece: &[u8]) {
        if let Some(output) = &mut self.output {
            output.see(piece);
        }
    }

    /// The answer is the gateway's own after all.
    pub fn has_no_output(&mut self) {
        self.output = None;
    }

    /// The call is over.
    pub fn finish(self, record: &Record) {
        let input = self.input.and_then(|input| input.take());
        self.sink.hand_over(Sample::of(record, self.ticket, input, self.output));
    }
}

/// A body on its way to the replica, looked at.
struct Tapped {
    body: Body,
    payload: Passing,
}

impl http_body::Body for Tapped {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Some(payload) = &mut *this.payload.borrow_mut()
        {
            payload.see(data);
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
