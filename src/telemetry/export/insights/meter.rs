//! Sends the gateway's metrics every so often.
//!
//! They go over no spool and into no count of records: what could not be sent is simply part of what has grown until the next
//! time, and only gauges of the time in between are lost.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::super::exporter::{Fate, Outcome};
use super::NAME;
use super::envelope::{Context, Envelopes};
use super::point::{Point, Reached, Taken};
use super::sender::{BATCH, Sender};
use crate::telemetry::{InsightsSettings, Metrics};

/// Most series of one sending, each an item of some 500 bytes; a gateway with a few services has some hundred.
const MOST_SERIES: usize = 4 * BATCH.records;

/// The metrics of one gateway on their way to one resource.
pub(in super::super) struct Meter {
    metrics: Arc<Metrics>,
    envelopes: Envelopes,
    sender: Sender,
    taken: Taken,
    told: Told,
}

/// The log tells changes, not every sending.
#[derive(PartialEq)]
enum Told {
    /// All went well.
    Nothing,
    /// They are not taken, or not all of them fit.
    Problem,
}

impl Meter {
    pub(in super::super) fn new(settings: &InsightsSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            envelopes: Envelopes::new(settings.connection.key().clone()),
            sender: Sender::new(settings),
            taken: Taken::default(),
            told: Told::Nothing,
        }
    }

    /// Sends at each `interval` and once more at the end.
    pub(in super::super) async fn run(mut self, interval: Duration, mut closing: watch::Receiver<bool>) {
        let mut rounds = interval_at(Instant::now() + interval, interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                // A sender that is gone counts as well: whoever started this has ended.
                _ = closing.wait_for(|closing| *closing) => true,
                _ = rounds.tick() => false,
            };
            self.send().await;
            if is_last {
                return;
            }
        }
    }

    pub(super) async fn send(&mut self) {
        let (mut reached, items) = self.items();
        let left_out = items.len().saturating_sub(MOST_SERIES);
        let mut problem = (left_out > 0).then(|| format!("{left_out} series are left out"));
        for batch in items[..items.len() - left_out].chunks(BATCH.records) {
            let rest = reached.split_off(batch.len());
            let sent = std::mem::replace(&mut reached, rest);
            match self.sender.post(batch).await {
                Outcome::Delivered => self.took(sent),
                Outcome::Refused { cause } => {
                    self.took(sent);
                    problem = Some(cause);
                }
                Outcome::Each { fates, again } => {
                    let sent = sent.into_iter().zip(fates).filter(|(_, fate)| *fate != Fate::Again);
                    self.took(sent.map(|(reached, _)| reached));
                    problem = Some(again.cause);
                }
                Outcome::Later(again) => {
                    problem = Some(again.cause);
                    break;
                }
            }
        }
        self.tell(problem);
    }

    /// The items of now, each with how far its series has come.
    fn items(&self) -> (Vec<Reached>, Vec<Vec<u8>>) {
        // Only a year past 9999 cannot be written.
        let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let families = self.metrics.families();
        let points = self.taken.points(&families).into_iter();
        // None is too large: labels are names.
        let items = points.filter_map(|Point { reached, data }| {
            Some((reached, self.envelopes.item(&time, Context::default(), &data).ok()?))
        });
        items.unzip()
    }

    fn took(&mut self, series: impl IntoIterator<Item = Reached>) {
        series.into_iter().for_each(|reached| self.taken.took(reached));
    }

    fn tell(&mut self, problem: Option<String>) {
        match (problem, &self.told) {
            (Some(cause), Told::Nothing) => {
                self.told = Told::Problem;
                tracing::warn!(exporter = NAME, cause, "metrics could not be sent, or not all of them");
            }
            (None, Told::Problem) => {
                self.told = Told::Nothing;
                tracing::info!(exporter = NAME, "metrics are sent again");
            }
            (Some(_), Told::Problem) | (None, Told::Nothing) => {}
        }
    }
}
