//! What became of the records of one exporter.

use std::sync::{Mutex, PoisonError};

/// The counts of one exporter: `accepted = delivered + spooled + dropped` in every [`reading`](Self::reading), since each
/// change moves records in one step under a lock that nobody holds for longer.
#[derive(Debug, Default)]
pub struct ExporterCounts(Mutex<Reading>);

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Records given to the exporter: by this process, or found in its spool at the start.
    pub accepted: u64,
    /// Records that the collector has taken.
    pub delivered: u64,
    /// Records that are in the spool, on the disk or in memory, those being sent among them.
    pub spooled: u64,
    /// Records given up: no room, too old, refused by the collector, or damaged.
    pub dropped: u64,
    /// Bytes of the spool.
    pub bytes: u64,
}

impl ExporterCounts {
    /// The counts now.
    #[must_use]
    pub fn reading(&self) -> Reading {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that have come into the spool.
    pub(in crate::telemetry) fn accepted(&self, records: u64) {
        self.change(|counts| {
            counts.accepted += records;
            counts.spooled += records;
        });
    }

    /// Records of the spool that were given up.
    pub(in crate::telemetry) fn dropped(&self, records: u64) {
        self.settled(0, records);
    }

    /// Records of the spool that the collector has taken, and that were given up.
    pub(in crate::telemetry) fn settled(&self, delivered: u64, dropped: u64) {
        self.change(|counts| {
            counts.delivered += delivered;
            counts.dropped += dropped;
            counts.spooled -= delivered + dropped;
        });
    }

    pub(in crate::telemetry) fn holds_bytes(&self, bytes: u64) {
        self.change(|counts| counts.bytes = bytes);
    }

    fn change(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
