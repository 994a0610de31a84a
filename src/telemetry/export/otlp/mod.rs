//! OpenTelemetry: records as spans and as logs, and metrics, to collectors over OTLP.
//!
//! Spans and logs are two exporters, each with a spool of its own. One exporter with both would write each record to the disk
//! once instead of twice, and would have to remember of each item which signal took it: across a restart as well, or else send
//! again what was taken. With two, a record is settled exactly once for each signal, and a collector that refuses one of them
//! holds up nothing of the other.

mod attributes;
mod call;
mod durations;
mod families;
mod log;
pub(super) mod metrics;
mod protobuf;
mod reply;
mod request;
mod sender;
pub mod settings;
mod span;

use super::exporter::{Again, Exporter, Fate, Outcome, Untranslatable};
use crate::telemetry::spool::{BatchSize, Entry, EntryKind};
use crate::telemetry::trace::SampleRatio;
use call::Call;
use log::Logs;
use reply::Reply;
use request::Requests;
use sender::{Sender, Signal};
use settings::{LogsSettings, OtlpSettings, TracesSettings};
use span::Spans;

/// Names of the exporters, in metrics, logs and folders.
const TRACES: &str = "otlp_traces";
const LOGS: &str = "otlp_logs";

/// As many records as OpenTelemetry's SDKs send at once (512). Spans and attributes take about twice the line's bytes: within the
/// 4 MiB that gRPC servers take unless told otherwise.
const BATCH: BatchSize = BatchSize { records: 512, bytes: 512 * 1024 };

/// The exporter of spans or of logs.
pub(in crate::telemetry) struct Otlp {
    translation: Translation,
    requests: Requests,
    sender: Sender,
}

enum Translation {
    Spans(Spans),
    Logs(Logs),
}

impl Otlp {
    pub(in crate::telemetry) fn traces(settings: &OtlpSettings, traces: &TracesSettings) -> Self {
        let translation = Translation::Spans(Spans { sampling: traces.sampling, gen_ai: settings.gen_ai });
        let sender = Sender::new(Signal::Traces, &traces.collector);
        Self { translation, requests: Requests::new(settings), sender }
    }

    pub(in crate::telemetry) fn logs(settings: &OtlpSettings, logs: &LogsSettings) -> Self {
        let ratio = settings.traces.as_ref().map_or(SampleRatio::ALL, |traces| traces.sampling.ratio);
        let translation = Translation::Logs(Logs { gen_ai: settings.gen_ai, ratio });
        let sender = Sender::new(Signal::Logs, &logs.collector);
        Self { translation, requests: Requests::new(settings), sender }
    }
}

impl Exporter for Otlp {
    fn name(&self) -> &'static str {
        match self.translation {
            Translation::Spans(_) => TRACES,
            Translation::Logs(_) => LOGS,
        }
    }

    fn batch(&self) -> BatchSize {
        BATCH
    }

    fn takes(&self, kind: EntryKind) -> bool {
        match self.translation {
            Translation::Spans(_) => kind == EntryKind::Record,
            Translation::Logs(_) => true,
        }
    }

    /// The item is empty where there is nothing to send: the record counts as delivered, for all that was wanted of it was.
    fn translate(&self, entry: Entry<'_>) -> Result<Vec<u8>, Untranslatable> {
        match (&self.translation, entry.kind) {
            (Translation::Spans(spans), EntryKind::Record) => Ok(spans.translate(&Call::parse(entry.line)?)),
            (Translation::Spans(_), EntryKind::Event) => Ok(Vec::new()),
            (Translation::Logs(logs), EntryKind::Record) => Ok(logs.translate(&Call::parse(entry.line)?)),
            (Translation::Logs(_), EntryKind::Event) => log::event(entry.line),
        }
    }

    async fn send(&mut self, items: &[Vec<u8>]) -> Outcome {
        if items.iter().all(Vec::is_empty) {
            return Outcome::Delivered;
        }
        let message = self.requests.message(items.iter().map(Vec::as_slice));
        match self.sender.send(&message).await {
            Reply::Taken { rejected: 0, message } => {
                if !message.is_empty() {
                    tracing::warn!(exporter = self.name(), message, "the collector took all, with a warning");
                }
                Outcome::Delivered
            }
            Reply::Taken { rejected, message } => partly(items, rejected, &message),
            Reply::Refused { cause } => Outcome::Refused { cause },
            Reply::Later(again) => Outcome::Later(again),
        }
    }
}

/// The collector tells how many spans or log records it rejected, not which. Each counts as a record that is dropped: of logs
/// that is exact, of spans (a record has several) never too few. None is sent again (OTLP, partial success).
fn partly(items: &[Vec<u8>], rejected: u64, message: &str) -> Outcome {
    let mut left = rejected;
    let mut fate = |item: &Vec<u8>| {
        if item.is_empty() || left == 0 {
            return Fate::Delivered;
        }
        left -= 1;
        Fate::Dropped
    };
    let fates = items.iter().map(&mut fate).collect();
    Outcome::Each { fates, again: Again { cause: format!("{rejected} rejected: {message}"), after: None } }
}

#[cfg(test)]
mod tests;
