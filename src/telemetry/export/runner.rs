//! Runs one exporter: takes batches from its spool, has them translated and sent, again and again if need be, and settles
//! each record exactly once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::exporter::{Again, Exporter, Fate, Outcome};
use crate::telemetry::spool::{Entries, Spool, Took};

/// Longest rest of a record in the spool while the collector is well: records are sent together, not one by one.
const LINGER: Duration = Duration::from_secs(1);
/// Before the disk is read again after it failed.
const READ_RETRY: Duration = Duration::from_secs(1);

/// An exporter with its spool.
pub(super) struct Runner<E> {
    exporter: E,
    spool: Arc<Spool>,
    /// True: deliver what there is as long as that goes well, then end.
    closing: watch::Receiver<bool>,
    health: Health,
}

/// The log tells changes, not every failure.
#[derive(PartialEq)]
enum Health {
    Working,
    Failing,
}

/// Whether to go on after a batch.
#[derive(PartialEq)]
enum Flow {
    GoOn,
    End,
}

impl<E: Exporter> Runner<E> {
    pub(super) fn new(exporter: E, spool: Arc<Spool>, closing: watch::Receiver<bool>) -> Self {
        Self { exporter, spool, closing, health: Health::Working }
    }

    /// Delivers until it is told to close. A batch that is in hand when the task is dropped is sent again by the next
    /// process: it is not settled.
    pub(super) async fn run(mut self) {
        loop {
            match self.next_batch().await {
                Some(Took::Batch(entries)) => {
                    if self.deliver(entries).await == Flow::End {
                        return;
                    }
                }
                Some(Took::Again) => {}
                Some(Took::Failed) => {
                    if self.pause(READ_RETRY).await == Flow::End {
                        return;
                    }
                }
                None if self.is_closing() => return,
                None => self.records().await,
            }
        }
    }

    async fn next_batch(&self) -> Option<Took> {
        let (spool, most) = (Arc::clone(&self.spool), self.exporter.batch());
        // Only ends early if the runtime does.
        tokio::task::spawn_blocking(move || spool.next_batch(most)).await.ok().flatten()
    }

    /// Waits for records, and then a little for more of them.
    async fn records(&mut self) {
        let mut closing = self.closing.clone();
        let closed = async { drop(closing.wait_for(|closing| *closing).await) };
        let gathered = async {
            self.spool.holds(1).await;
            let _late = timeout(LINGER, self.spool.holds(self.exporter.batch().records as u64)).await;
        };
        tokio::select! {
            () = closed => {}
            () = gathered => {}
        }
    }

    async fn deliver(&mut self, entries: Entries) -> Flow {
        let total = entries.len() as u64;
        let mut items = self.translate(&entries);
        drop(entries);
        let mut delivered = 0;
        let mut backoff = Backoff::default();
        while !items.is_empty() {
            let sent = items.len();
            let outcome = self.exporter.send(&items).await;
            let again = self.sort(outcome, &mut items, &mut delivered);
            if items.is_empty() {
                break;
            }
            if items.len() < sent {
                backoff.reset();
            }
            if self.pause(backoff.next(again)).await == Flow::End {
                return Flow::End;
            }
            if self.spool.is_given_up() {
                tracing::warn!(
                    exporter = self.exporter.name(),
                    records = items.len(),
                    "the spool's limits have passed records in hand; they are dropped"
                );
                break;
            }
        }
        self.spool.settle(delivered, total - delivered);
        Flow::GoOn
    }

    fn translate(&self, entries: &Entries) -> Vec<Vec<u8>> {
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            match self.exporter.translate(entry) {
                Ok(item) => items.push(item),
                Err(error) => {
                    tracing::error!(
                        exporter = self.exporter.name(),
                        kind = ?entry.kind,
                        error = error.0,
                        "an entry cannot be sent and is dropped"
                    );
                }
            }
        }
        items
    }

    /// Leaves in `items` those to send again, counts those delivered, and tells the collector's wish.
    fn sort(&mut self, outcome: Outcome, items: &mut Vec<Vec<u8>>, delivered: &mut u64) -> Option<Duration> {
        let name = self.exporter.name();
        match outcome {
            Outcome::Delivered => {
                *delivered += items.len() as u64;
                items.clear();
                self.works();
                None
            }
            Outcome::Refused { cause } => {
                tracing::error!(
                    exporter = name,
                    records = items.len(),
                    cause,
                    "the collector refuses records; they are dropped"
                );
                items.clear();
                None
            }
            Outcome::Each { fates, again } => {
                self.works();
                let of = |fate: Fate| fates.iter().filter(|found| **found == fate).count();
                *delivered += of(Fate::Delivered) as u64;
                let (dropped, left) = (of(Fate::Dropped), of(Fate::Again));
                tracing::warn!(
                    exporter = name,
                    dropped,
                    again = left,
                    cause = again.cause,
                    "the collector took a part of a batch"
                );
                let mut fates = fates.into_iter();
                items.retain(|_| fates.next() == Some(Fate::Again));
                again.after
            }
            Outcome::Later(again) => {
                self.fails(&again);
                again.after
            }
        }
    }

    /// Waits unless the end has come.
    async fn pause(&mut self, time: Duration) -> Flow {
        let mut closing = self.closing.clone();
        let closed = tokio::time::timeout(time, closing.wait_for(|closing| *closing)).await.is_ok();
        if closed { Flow::End } else { Flow::GoOn }
    }

    /// A sender that is gone counts as well: whoever started the exporter has ended.
    fn is_closing(&self) -> bool {
        *self.closing.borrow() || self.closing.has_changed().is_err()
    }

    fn works(&mut self) {
        if self.health == Health::Failing {
            self.health = Health::Working;
            tracing::info!(
                exporter = self.exporter.name(),
                waiting = self.spool.waiting(),
                "the collector takes records again"
            );
        }
    }

    fn fails(&mut self, again: &Again) {
        if self.health == Health::Working {
            self.health = Health::Failing;
            tracing::warn!(
                exporter = self.exporter.name(),
                cause = again.cause,
                "the collector takes no records; they wait in the spool"
            );
        }
    }
}
