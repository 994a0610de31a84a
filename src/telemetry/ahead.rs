//! Writing ahead: what must have a record before the last byte of its call's answer is handed over.
//!
//! The worker itself writes there, past the queue, so that a `kill -9` takes no record of an answer that a caller has: what
//! write(2) took outlives the process. Syncing waits for the disk, and no call does that: it happens every
//! [`SYNC_INTERVAL`], so a power cut takes at most that much more.
//!
//! The price is a system call for each record and place, under a lock, and that a disk which takes no bytes for a while holds
//! up calls. One that refuses them fails none: the record is dropped and counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::export::{Batch, Output};
use super::spool::{EntryKind, Spool};

/// Between two syncs of the record file.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The places that are written ahead.
pub(super) struct Ahead {
    outputs: Vec<Mutex<Output>>,
    /// They take everything, count for themselves what they cannot keep, and are synced by their own upkeep.
    spools: Vec<Arc<Spool>>,
}

impl Ahead {
    /// `None`: nothing is written ahead.
    pub(super) fn of(outputs: Vec<Output>, spools: Vec<Arc<Spool>>) -> Option<Arc<Self>> {
        let is_needed = !outputs.is_empty() || !spools.is_empty();
        let outputs = outputs.into_iter().map(Mutex::new).collect();
        is_needed.then(|| Arc::new(Self { outputs, spools }))
    }

    /// Writes the lines everywhere; returns how many of their records every output has whole.
    pub(super) fn write(&self, lines: &Batch) -> u64 {
        let written = self.outputs.iter().map(|output| lock(output).write(lines)).min();
        self.spools.iter().for_each(|spool| spool.append(EntryKind::Record, lines.lines()));
        written.unwrap_or_else(|| lines.records())
    }

    /// Opens the record file anew; blocks on the disk.
    pub(super) fn reopen(&self) {
        for output in &self.outputs {
            let old = {
                let mut output = lock(output);
                let old = output.take_unsynced();
                output.reopen();
                old
            };
            old.into_iter().for_each(|old| old.sync());
        }
    }

    /// Makes what was written outlast a power cut; blocks on the disk, but nobody who writes.
    pub(super) fn sync(&self) {
        for output in &self.outputs {
            let unsynced = lock(output).take_unsynced();
            unsynced.into_iter().for_each(|unsynced| unsynced.sync());
        }
    }
}

fn lock(output: &Mutex<Output>) -> MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Syncs for as long as somebody may write.
pub(super) async fn sync_in_time(ahead: Weak<Ahead>) {
    let mut rounds = tokio::time::interval(SYNC_INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let Some(ahead) = ahead.upgrade() else { return };
        // Only fails if the runtime ends.
        let _ = tokio::task::spawn_blocking(move || ahead.sync()).await;
    }
}
