//! What became of the records, for who asks for that alone.

use schemars::JsonSchema;
use serde::Serialize;

use super::super::sink::RecordCounts;
use super::super::spool::{ExporterCounts, Reading};

/// What became of the records that go to one place. `accepted = delivered + spooled + dropped`: of an exporter always; of
/// `records` at a moment at which no thread is between two of the counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "DestinationStats")]
pub struct DestinationStats {
    /// `records` (the record file, standard output), or the exporter as the configuration calls it.
    pub name: String,
    /// Those given to it; of an exporter those found in its spool at the start as well, and events of the activity log.
    pub accepted: u64,
    /// Written to the file, or taken by the collector.
    pub delivered: u64,
    /// On their way: in buffers, in the queue, in the spool or being sent.
    pub spooled: u64,
    /// Given up.
    pub dropped: u64,
    /// Bytes of the spool; `null` where there is none.
    pub spool_bytes: Option<u64>,
}

impl DestinationStats {
    pub(super) fn of_records(counts: &RecordCounts) -> Self {
        Self {
            name: "records".to_owned(),
            accepted: counts.accepted_total(),
            delivered: counts.written_total(),
            spooled: counts.queued_now(),
            dropped: counts.dropped_total(),
            spool_bytes: None,
        }
    }

    pub(super) fn of_exporter(name: &str, counts: &ExporterCounts) -> Self {
        let Reading { accepted, delivered, spooled, dropped, bytes } = counts.reading();
        Self { name: name.to_owned(), accepted, delivered, spooled, dropped, spool_bytes: Some(bytes) }
    }
}
