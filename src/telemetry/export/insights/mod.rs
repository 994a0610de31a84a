//! Azure Application Insights: each record becomes a request telemetry item (`RequestData`), each activity event an event
//! (`EventData`), posted in batches to the ingestion endpoint as the Azure Monitor exporters do. Metrics, where they are
//! wanted, go the same way but over no spool ([`Meter`]).

mod connection;
mod envelope;
mod event;
mod line;
mod meter;
mod point;
mod redirect;
mod reply;
mod request;
mod sender;

pub use connection::{ConnectionError, ConnectionString};
pub(super) use meter::Meter;

use super::exporter::{Exporter, Outcome, Untranslatable};
use crate::telemetry::InsightsSettings;
use crate::telemetry::spool::{BatchSize, Entry, EntryKind};
use envelope::Envelopes;
use sender::{BATCH, Sender};

/// As in the configuration.
pub(in crate::telemetry) const NAME: &str = "application_insights";

/// Sends to one Application Insights resource.
pub(in crate::telemetry) struct Insights {
    envelopes: Envelopes,
    sender: Sender,
}

impl Insights {
    pub(in crate::telemetry) fn new(settings: &InsightsSettings) -> Self {
        let envelopes = Envelopes::new(settings.connection.key().clone());
        Self { envelopes, sender: Sender::new(settings) }
    }
}

impl Exporter for Insights {
    fn name(&self) -> &'static str {
        NAME
    }

    fn batch(&self) -> BatchSize {
        BATCH
    }

    fn translate(&self, entry: Entry<'_>) -> Result<Vec<u8>, Untranslatable> {
        match entry.kind {
            EntryKind::Record => self.envelopes.of_record(entry.line),
            EntryKind::Event => self.envelopes.of_event(entry.line),
        }
    }

    async fn send(&mut self, items: &[Vec<u8>]) -> Outcome {
        self.sender.post(items).await
    }
}

#[cfg(test)]
mod tests;
