//! Metrics on their way out: records are read into durations, and every so often all metrics are sent. They are cumulative, so
//! that an export which is lost is made up for by the next one; nothing of them waits on the disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost::Message as _;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::super::exporter::{Exporter, Outcome, Untranslatable};
use super::call::Call;
use super::durations::Durations;
use super::families::{self, Times};
use super::protobuf::Fields;
use super::reply::Reply;
use super::request::Requests;
use super::sender::{Sender, Signal};
use super::settings::{MetricsSettings, OtlpSettings};
use crate::telemetry::spool::{BatchSize, Entry, EntryKind};
use crate::telemetry::{Metrics, SpoolEncryption, SpoolMode, SpoolSettings};

const NAME: &str = "otlp_metrics";
/// Records on their way into durations: some seconds of them, in memory.
const SPOOL_BYTES: u64 = 8 << 20;
const SPOOL_AGE: Duration = Duration::from_secs(3600);
const BATCH: BatchSize = BatchSize { records: 4096, bytes: 1024 * 1024 };
/// Most bytes of one request: gRPC servers take 4 MiB unless told otherwise.
const REQUEST_BYTES: usize = 2 << 20;
/// `ScopeMetrics.metrics`
const METRICS: u32 = 2;

/// Reads records into durations: an exporter that delivers at once.
pub(in crate::telemetry) struct Measuring(Arc<Durations>);

/// Sends metrics every so often.
pub(in crate::telemetry) struct Pushing {
    durations: Arc<Durations>,
    metrics: Arc<Metrics>,
    requests: Requests,
    sender: Sender,
    interval: Duration,
    start: u64,
    health: Health,
}

/// The log tells changes, not every failure.
#[derive(PartialEq)]
enum Health {
    Working,
    Failing,
}

/// The spool of [`Measuring`].
pub(in crate::telemetry) fn spool() -> SpoolSettings {
    SpoolSettings {
        path: "".into(),
        mode: SpoolMode::Memory,
        size: SPOOL_BYTES,
        age: SPOOL_AGE,
        encryption: SpoolEncryption::None,
    }
}

/// The two halves.
pub(in crate::telemetry) fn metrics(
    otlp: &OtlpSettings,
    settings: &MetricsSettings,
    metrics: &Arc<Metrics>,
) -> (Measuring, Pushing) {
    let durations = Arc::new(Durations::new());
    let pushing = Pushing {
        durations: Arc::clone(&durations),
        metrics: Arc::clone(metrics),
        requests: Requests::new(otlp),
        sender: Sender::new(Signal::Metrics, &settings.collector),
        interval: settings.interval,
        start: now(),
        health: Health::Working,
    };
    (Measuring(durations), pushing)
}

impl Exporter for Measuring {
    fn name(&self) -> &'static str {
        NAME
    }

    fn batch(&self) -> BatchSize {
        BATCH
    }

    fn translate(&self, entry: Entry<'_>) -> Result<Vec<u8>, Untranslatable> {
        if entry.kind == EntryKind::Record {
            self.0.record(&Call::parse(entry.line)?);
        }
        Ok(Vec::new())
    }

    async fn send(&mut self, _items: &[Vec<u8>]) -> Outcome {
        Outcome::Delivered
    }
}

impl Pushing {
    /// Sends until `measuring` has read the last record, and then once more.
    pub(in crate::telemetry) async fn run(mut self, mut measuring: JoinHandle<()>) {
        let mut rounds = tokio::time::interval(self.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first round is at once, when there is nothing to tell.
        rounds.tick().await;
        loop {
            tokio::select! {
                _ = &mut measuring => break,
                _ = rounds.tick() => self.push().await,
            }
        }
        self.push().await;
    }

    async fn push(&mut self) {
        for message in self.messages() {
            let problem = match self.sender.send(&message).await {
                Reply::Taken { rejected: 0, .. } => None,
                Reply::Taken { rejected, message } => Some(format!("{rejected} points rejected: {message}")),
                Reply::Refused { cause } => Some(cause),
                Reply::Later(again) => Some(again.cause),
            };
            self.tell(problem);
        }
    }

    /// One message, or several where one would be too large.
    fn messages(&self) -> Vec<Vec<u8>> {
        let times = Times { start: self.start, now: now() };
        let metrics = families::metrics(&self.metrics.families(), times);
        let items = self.durations.collect().into_iter().chain(metrics).map(|metric| {
            let mut item = Vec::new();
            Fields::new(&mut item).bytes(METRICS, &metric.encode_to_vec());
            item
        });
        let mut groups: Vec<(usize, Vec<Vec<u8>>)> = vec![(0, Vec::new())];
        for item in items {
            match groups.last_mut() {
                Some((bytes, group)) if *bytes + item.len() <= REQUEST_BYTES => {
                    *bytes += item.len();
                    group.push(item);
                }
                _ => groups.push((item.len(), vec![item])),
            }
        }
        let message =
            |(_, group): &(usize, Vec<Vec<u8>>)| self.requests.message(group.iter().map(Vec::as_slice));
        groups.iter().map(message).collect()
    }

    fn tell(&mut self, problem: Option<String>) {
        match (problem, &self.health) {
            (Some(cause), Health::Working) => {
                self.health = Health::Failing;
                tracing::warn!(
                    exporter = NAME,
                    cause,
                    "the collector takes no metrics; the next ones make up for it"
                );
            }
            (None, Health::Failing) => {
                self.health = Health::Working;
                tracing::info!(exporter = NAME, "the collector takes metrics again");
            }
            (Some(_), Health::Failing) | (None, Health::Working) => {}
        }
    }
}

/// Unix time in nanoseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
