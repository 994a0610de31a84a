//! What is kept of one call: facts of its record, and the beginnings of its input and output.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, header};

use super::room::{Room, Rooms};
use crate::error::Reason;
use crate::telemetry::metrics::{Collected, ServiceMetrics};
use crate::telemetry::record::{Record, RequestId};

/// Memory of a sample beside its payloads.
const SAMPLE_BYTES: usize = 1024;

/// The promise that a call of the sample is counted once, however it goes on: as [`Collected::Behind`] unless somebody
/// knows better.
pub struct Ticket {
    counts: Arc<ServiceMetrics>,
    outcome: Collected,
    #[expect(dead_code, reason = "held for its drop")]
    room: Room,
}

impl Ticket {
    /// `None`, and the call is counted, if there is no room for another sample.
    pub(super) fn take(counts: &Arc<ServiceMetrics>, rooms: &Arc<Rooms>) -> Option<Self> {
        let mut room = rooms.room();
        let taken = room.grow_to(SAMPLE_BYTES);
        let ticket = Self { counts: Arc::clone(counts), outcome: Collected::Behind, room };
        taken.is_ok().then_some(ticket)
    }

    /// What became of the sample.
    pub(super) fn settle(mut self, outcome: Collected) {
        self.outcome = outcome;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.counts.collected(self.outcome);
    }
}

/// An input or output: as much of its beginning as is kept, and what it is.
pub struct Payload {
    pub(super) media_type: Option<HeaderValue>,
    pub(super) coding: Option<HeaderValue>,
    pub(super) kept: Vec<u8>,
    /// Bytes that have passed.
    pub(super) passed: u64,
    most: usize,
    room: Room,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Keeping,
    /// There was no room for what should be kept.
    Lost,
}

impl Payload {
    /// The body that comes with `fields`, of which at most `most` bytes are kept.
    pub(super) fn of(fields: &HeaderMap, most: usize, rooms: &Arc<Rooms>) -> Self {
        let field = |name| fields.get(name).cloned();
        Self {
            media_type: field(header::CONTENT_TYPE),
            coding: field(header::CONTENT_ENCODING),
            kept: Vec::new(),
            passed: 0,
            most,
            room: rooms.room(),
            state: State::Keeping,
        }
    }

    /// The next piece passes.
    pub fn see(&mut self, piece: &[u8]) {
        self.passed += piece.len() as u64;
        let wanted = piece.len().min(self.most - self.kept.len());
        if wanted == 0 || self.state == State::Lost {
            return;
        }
        self.kept.extend_from_slice(&piece[..wanted]);
        if self.room.grow_to(self.kept.capacity()).is_err() {
            self.state = State::Lost;
            self.kept = Vec::new();
            self.room.clear();
        }
    }

    /// Whether something has passed that is not kept, for its size.
    pub(super) fn is_truncated(&self) -> bool {
        self.passed > self.kept.len() as u64
    }
}

/// A call as it is collected.
pub struct Sample {
    pub(super) time: SystemTime,
    pub(super) request_id: RequestId,
    pub(super) service: Arc<str>,
    pub(super) deployment: Arc<str>,
    pub(super) status: u16,
    pub(super) reason: Reason,
    /// `None`: not wanted.
    pub(super) input: Option<Payload>,
    /// `None`: not wanted, or there was no answer of the model.
    pub(super) output: Option<Payload>,
    pub(super) ticket: Ticket,
}

impl Sample {
    /// The call that has left `record`.
    #[must_use]
    pub fn of(record: &Record, ticket: Ticket, input: Option<Payload>, output: Option<Payload>) -> Self {
        Self {
            time: record.time,
            request_id: record.request_id,
            service: record.service.clone().unwrap_or_default(),
            deployment: record.deployment.clone().unwrap_or_default(),
            status: record.status,
            reason: record.reason,
            input,
            output,
            ticket,
        }
    }

    /// Whether all is there that was to be kept.
    pub(super) fn is_whole(&self) -> bool {
        [&self.input, &self.output].into_iter().flatten().all(|payload| payload.state == State::Keeping)
    }
}
