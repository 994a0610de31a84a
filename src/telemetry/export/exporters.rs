//! The exporters that the configuration names, each with its spool and its tasks, and their end.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::exporter::Exporter;
use super::insights::{Insights, Meter};
use super::otlp::settings::OtlpSettings;
use super::otlp::{Otlp, metrics};
use super::runner::Runner;
use crate::lifecycle;
use crate::telemetry::spool::{ExporterCounts, Spool, SpoolKey, UPKEEP_INTERVAL};
use crate::telemetry::{InsightsSettings, Metrics, SpoolMode, SpoolSettings, StartError, TelemetrySettings};

/// The running exporters.
pub(in crate::telemetry) struct Exporters {
    running: Vec<Running>,
    closing: watch::Sender<bool>,
    /// Closes when the last runner has ended.
    ended: Receiver<()>,
}

struct Running {
    name: &'static str,
    spool: Arc<Spool>,
    mode: SpoolMode,
    counts: Arc<ExporterCounts>,
}

/// What every task of an exporter gets.
struct Start<'a> {
    metrics: &'a Arc<Metrics>,
    key: Option<&'a SpoolKey>,
    closing: watch::Receiver<bool>,
    ended: Sender<()>,
}

impl Exporters {
    /// Opens the spools and starts what sends from them, as tasks of the runtime that this is called on; with no exporter
    /// there need be none.
    ///
    /// # Errors
    /// A spool cannot be opened.
    pub(in crate::telemetry) fn start(
        settings: &TelemetrySettings,
        key: Option<&SpoolKey>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let closing = watch::Sender::new(false);
        let (ending, ended) = channel();
        let start = Start { metrics, key, closing: closing.subscribe(), ended: ending };
        let mut running = Vec::new();
        if let Some(insights) = &settings.insights {
            running.push(start.exporter(Insights::new(insights), &insights.spool)?);
            if let Some(interval) = insights.metrics_interval {
                start.meter(insights, interval);
            }
        }
        if let Some(otlp) = &settings.otlp {
            running.extend(start.otlp(otlp)?);
        }
        drop(start);
        Ok(Self { running, closing, ended })
    }

    /// No exporter at all.
    #[cfg(test)]
    pub(in crate::telemetry) fn none() -> Self {
        Self { running: Vec::new(), closing: watch::Sender::new(false), ended: channel().1 }
    }

    /// For the writer thread.
    pub(in crate::telemetry) fn spools(&self) -> Vec<Arc<Spool>> {
        self.running.iter().map(|running| Arc::clone(&running.spool)).collect()
    }

    /// Lets the exporters deliver what they have for as long as that goes well, up to `within`, and makes the rest durable.
    /// Blocks.
    pub(in crate::telemetry) fn finish(&self, within: Duration) {
        self.closing.send_replace(true);
        if self.ended.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("exporters were still sending when the time was up");
        }
        for Running { name, spool, mode, counts } in &self.running {
            spool.upkeep();
            match (counts.reading().spooled, mode) {
                (0, _) => {}
                (records, SpoolMode::Memory) => {
                    tracing::error!(
                        exporter = name,
                        records,
                        "records were not delivered and end with the process"
                    );
                }
                (records, SpoolMode::WriteBehind | SpoolMode::WriteAhead) => {
                    tracing::warn!(
                        exporter = name,
                        records,
                        "records were not delivered; they stay in the spool"
                    );
                }
            }
        }
    }
}

impl Start<'_> {
    fn otlp(&self, otlp: &OtlpSettings) -> Result<Vec<Running>, StartError> {
        let mut running = Vec::new();
        if let Some(traces) = &otlp.traces {
            running.push(self.exporter(Otlp::traces(otlp, traces), &traces.spool)?);
        }
        if let Some(logs) = &otlp.logs {
            running.push(self.exporter(Otlp::logs(otlp, logs), &logs.spool)?);
        }
        if let Some(settings) = &otlp.metrics {
            let (measuring, pushing) = metrics::metrics(otlp, settings, self.metrics);
            let (measuring, task) = self.task(measuring, &metrics::spool())?;
            let ended = self.ended.clone();
            lifecycle::spawn("metrics", async move {
                let _ended = ended;
                pushing.run(task).await;
            });
            running.push(measuring);
        }
        Ok(running)
    }

    fn exporter<E: Exporter>(&self, exporter: E, settings: &SpoolSettings) -> Result<Running, StartError> {
        self.task(exporter, settings).map(|(running, _)| running)
    }

    fn task<E: Exporter>(
        &self,
        exporter: E,
        settings: &SpoolSettings,
    ) -> Result<(Running, JoinHandle<()>), StartError> {
        let name = exporter.name();
        let counts = self.metrics.exporter(name);
        let spool = Spool::open(name, settings, self.key, Arc::clone(&counts))
            .map_err(|error| StartError::Spool { exporter: name, error })?;
        let spool = Arc::new(spool);
        let runner = Runner::new(exporter, Arc::clone(&spool), self.closing.clone());
        let ended = self.ended.clone();
        let task = lifecycle::spawn(name, async move {
            let _ended = ended;
            runner.run().await;
        });
        lifecycle::spawn("spool", upkeep(Arc::clone(&spool), self.closing.clone()));
        Ok((Running { name, spool, mode: settings.mode, counts }, task))
    }

    /// Sends the gateway's metrics to Application Insights, too.
    fn meter(&self, settings: &InsightsSettings, interval: Duration) {
        let meter = Meter::new(settings, Arc::clone(self.metrics));
        let (closing, ended) = (self.closing.clone(), self.ended.clone());
        lifecycle::spawn("metrics", async move {
            let _ended = ended;
            meter.run(interval, closing).await;
        });
    }
}

/// Looks after a spool until the end.
async fn upkeep(spool: Arc<Spool>, mut closing: watch::Receiver<bool>) {
    let mut rounds = tokio::time::interval(UPKEEP_INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => return,
            _ = rounds.tick() => {}
        }
        let spool = Arc::clone(&spool);
        // Only fails if the runtime ends.
        let _ = tokio::task::spawn_blocking(move || spool.upkeep()).await;
    }
}
