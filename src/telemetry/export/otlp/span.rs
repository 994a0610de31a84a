//! A record as spans: one of kind SERVER for the call, one of kind CLIENT for each attempt at a replica. Their ids follow from
//! the request id, so that a span sent twice is the same span.

use super::attributes::{Attributes, attempt_error, method, route};
use super::call::{Attempt, Call};
use super::protobuf::Fields;
use super::settings::{Failed, GenAi, SamplingSettings};
use crate::telemetry::trace::{SpanId, TraceFlags};

/// `Span.kind` and `Status.code` (trace.proto).
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const ERROR: u64 = 2;
/// `SpanFlags`: whether the parent is of another process is known, and that it is.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// `ScopeSpans.spans`
const SPANS: u32 = 2;
/// `Span.attributes`
const ATTRIBUTES: u32 = 9;

/// Translates records into spans.
pub(super) struct Spans {
    pub sampling: SamplingSettings,
    pub gen_ai: GenAi,
}

/// What a server's and a client's span have in different ways.
struct Frame<'a> {
    id: SpanId,
    parent: Option<SpanId>,
    name: &'a str,
    kind: u64,
    start: u64,
    end: u64,
    flags: u32,
}

impl Spans {
    /// The call's spans as fields of a `ScopeSpans`; empty if sampling leaves it out.
    pub(super) fn translate(&self, call: &Call<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let flags = call.trace_flags(self.sampling.ratio);
        if !self.takes(call, flags) {
            return out;
        }
        out.reserve(2048);
        let mut scope = Fields::new(&mut out);
        self.server(call, flags, &mut scope);
        for attempt in call.attempts() {
            client(call, flags, &attempt, &mut scope);
        }
        out
    }

    /// By what its trace decided, but for what is worth a look whatever chance says. That is known only now: no head sampler
    /// could tell.
    fn takes(&self, call: &Call<'_>, flags: TraceFlags) -> bool {
        let failed = self.sampling.failed == Failed::Kept && call.failure().is_some();
        let slow =
            self.sampling.slower_than.is_some_and(|most| call.line.duration > most.as_secs_f64() * 1000.0);
        flags.is_sampled() || failed || slow
    }

    fn server(&self, call: &Call<'_>, flags: TraceFlags, scope: &mut Fields<'_>) {
        let frame = Frame {
            id: call.span_id(0),
            parent: call.parent,
            name: &name(call),
            kind: SERVER,
            start: call.start,
            end: call.end(),
            flags: u32::from(flags.bits()) | KNOWS_REMOTE | call.parent.map_or(0, |_| IS_REMOTE),
        };
        scope.message(SPANS, |span| {
            frame.write(call, span);
            Attributes { fields: &mut *span, number: ATTRIBUTES }.call(call, self.gen_ai);
            // A caller's mistake is no error of the server.
            if call.line.status_code >= 500 || call.is_broken_off() {
                error(span);
            }
        });
    }
}

fn client(call: &Call<'_>, flags: TraceFlags, attempt: &Attempt<'_>, scope: &mut Fields<'_>) {
    let frame = Frame {
        id: call.span_id(attempt.number),
        parent: Some(call.span_id(0)),
        name: shown(method(call)),
        kind: CLIENT,
        start: call.at(attempt.start),
        end: call.at(attempt.start + attempt.duration),
        flags: u32::from(flags.bits()) | KNOWS_REMOTE,
    };
    scope.message(SPANS, |span| {
        frame.write(call, span);
        Attributes { fields: &mut *span, number: ATTRIBUTES }.attempt(call, attempt);
        if attempt_error(attempt).is_some() {
            error(span);
        }
    });
}

impl Frame<'_> {
    fn write(&self, call: &Call<'_>, span: &mut Fields<'_>) {
        span.bytes(1, &call.trace_id.to_bytes());
        span.bytes(2, &self.id.to_bytes());
        if let Some(parent) = self.parent {
            span.bytes(4, &parent.to_bytes());
        }
        span.text(5, self.name);
        span.number(6, self.kind);
        span.fixed64(7, self.start);
        span.fixed64(8, self.end);
        span.fixed32(16, self.flags);
    }
}

fn error(span: &mut Fields<'_>) {
    span.message(15, |status| status.number(3, ERROR));
}

/// `{method} {route}`, or the method alone where there is no route.
pub(super) fn name(call: &Call<'_>) -> String {
    let method = shown(method(call));
    route(call).map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}

/// In a name an unknown method is `HTTP`.
fn shown(method: &'static str) -> &'static str {
    if method == "_OTHER" { "HTTP" } else { method }
}
