//! The attempts of an exchange: which spans of a trace they are, and how those in vain went.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Reason;
use crate::telemetry::record::{Try, TryEnd};
use crate::telemetry::trace::TraceParent;

use super::Exchange;

impl Exchange {
    /// An attempt at the replica of that label begins, the next one of this call.
    pub fn begin_attempt(&mut self, replica: &Arc<str>, now: Instant) {
        self.record.attempts += 1;
        self.record.replica = Some(Arc::clone(replica));
        self.attempt_began = Some(now);
    }

    /// The attempt was in vain, and another one is to follow.
    pub fn end_attempt(&mut self, end: TryEnd) {
        self.keep_attempt(end, Instant::now());
    }

    /// The call is over; how the last attempt went is told if it was not the only one.
    pub(super) fn end_last_attempt(&mut self, now: Instant) {
        if self.record.tries.is_empty() {
            return;
        }
        let error = match self.record.reason {
            Reason::Ok | Reason::ModelError => None,
            reason => Some(reason),
        };
        self.keep_attempt(TryEnd { status: self.record.model_status, error }, now);
    }

    fn keep_attempt(&mut self, end: TryEnd, now: Instant) {
        let (Some(began), Some(replica)) = (self.attempt_began.take(), &self.record.replica) else { return };
        self.record.tries.push(Try {
            replica: Arc::clone(replica),
            start: began.saturating_duration_since(self.started),
            duration: now.saturating_duration_since(began),
            end,
        });
    }

    /// What the span of that `number` (0: the call, from 1 on: its attempts) tells whom it calls; `None`: the gateway takes
    /// no part in traces.
    pub fn span(&self, number: u32) -> Option<TraceParent> {
        let tracing = self.worker.tracing?;
        Some(tracing.span(self.record.parent, &self.record.request_id, number))
    }

    /// Whether a trace begins with this call.
    pub fn begins_trace(&self) -> bool {
        self.worker.tracing.is_some() && self.record.parent.is_none()
    }
}
