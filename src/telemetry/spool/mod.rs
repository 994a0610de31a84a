//! The spool of one exporter: records wait here, bounded in bytes and age, until the collector has them.
//!
//! The writer thread appends, the exporter takes one batch at a time and settles it. What each mode promises:
//!
//! | mode | kill -9 | power cut |
//! | --- | --- | --- |
//! | `memory` | all that waits is lost | the same |
//! | `write_behind` | what the system took is kept; lost is what was on its way to the writer thread: some 20 ms, more only if that falls behind | at most the last second more |
//! | `write_ahead` | the same | nothing that counts as spooled |
//!
//! A disk that fails slows no call and loses nothing at first: what comes is kept in memory within [`MEMORY_BYTES`] and goes
//! to the disk when that works again.

mod counts;
mod cursor;
mod entry;
mod folder;
mod frame;
mod log;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use tokio::sync::Notify;

pub use counts::{ExporterCounts, Reading};
pub(super) use entry::{Entries, Entry, EntryKind};

use super::settings::{SpoolMode, SpoolSettings};
use folder::{DiskFolder, Folder};
use log::{Durability, Limits, Log};

/// Records kept in memory while the disk fails.
pub const MEMORY_BYTES: u64 = 8 * 1024 * 1024;
/// A segment has a 64th of the whole, within these bounds: it is what is given up at once.
const SEGMENT_SHARE: u64 = 64;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 256 * 1024..=4 * 1024 * 1024;
/// The folder of this format's segments; another format gets another one and leaves these alone.
const FORMAT_FOLDER: &str = "v1";

/// The most that a batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSize {
    pub records: usize,
    pub bytes: usize,
}

/// What came of the wish for a batch.
#[derive(Debug)]
pub(super) enum Took {
    /// It is in hand until it is settled.
    Batch(Entries),
    /// Something has changed: try again.
    Again,
    /// The disk cannot be read just now.
    Failed,
}

/// A spool with its counts.
pub(super) struct Spool {
    log: Mutex<Log>,
    mode: SpoolMode,
    arrived: Notify,
}

impl Spool {
    /// Opens the spool of the exporter `name`, with all that a former process left in it; blocks on the disk.
    ///
    /// # Errors
    /// Its folder cannot be made, locked or read.
    pub(super) fn open(
        name: &str,
        settings: &SpoolSettings,
        counts: Arc<ExporterCounts>,
    ) -> Result<Self, SpoolError> {
        let path = settings.path.join(name).join(FORMAT_FOLDER);
        let failed = |error| SpoolError { path: path.clone(), error };
        let folder: Option<Arc<dyn Folder>> = match settings.mode {
            SpoolMode::Memory => None,
            SpoolMode::WriteBehind | SpoolMode::WriteAhead => {
                Some(Arc::new(DiskFolder::open(&path).map_err(failed)?))
            }
        };
        let log = log::open(folder, limits(settings), counts).map_err(failed)?;
        Ok(Self::over(log, settings.mode))
    }

    fn over(log: Log, mode: SpoolMode) -> Self {
        Self { log: Mutex::new(log), mode, arrived: Notify::new() }
    }

    /// Takes whole lines, all of one kind; blocks on the disk, as long as that takes in the mode. Any number of threads may
    /// do so: what each brings stays together.
    pub(super) fn append(&self, kind: EntryKind, lines: &[u8]) {
        self.log().append(kind, lines, SystemTime::now());
        self.arrived.notify_one();
    }

    /// Told when lines have come.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Records that no batch has held yet.
    pub(super) fn waiting(&self) -> u64 {
        self.log().waiting()
    }

    /// Takes the next batch into hand; `None`: nothing waits. Blocks on the disk.
    pub(super) fn next_batch(&self, most: BatchSize) -> Option<Took> {
        let plan = self.log().plan()?;
        let found = plan.read(most);
        Some(self.log().take(&plan, found))
    }

    /// The batch in hand is done with: so many records were delivered, the others are given up.
    pub(super) fn settle(&self, delivered: u64, dropped: u64) {
        self.log().settle(delivered, dropped);
    }

    /// Whether the batch in hand has been pushed out by newer records, or is too old: it is to be settled as it is.
    pub(super) fn is_given_up(&self) -> bool {
        self.log().is_given_up()
    }

    /// What is to be done every second: the age limit, the way back to a disk that failed, and what write-behind still owes
    /// to the disk. Blocks on that.
    pub(super) fn upkeep(&self) {
        let unsynced = {
            let mut log = self.log();
            log.upkeep(SystemTime::now());
            log.take_unsynced()
        };
        if let Err(error) = unsynced.sync() {
            tracing::error!(%error, mode = self.mode.as_str(), "the spool may not be on the disk yet");
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(settings: &SpoolSettings) -> Limits {
    let (least, most) = SEGMENT_BYTES.into_inner();
    Limits {
        bytes: settings.size,
        memory_bytes: match settings.mode {
            SpoolMode::Memory => settings.size,
            SpoolMode::WriteBehind | SpoolMode::WriteAhead => MEMORY_BYTES.min(settings.size),
        },
        segment_bytes: (settings.size / SEGMENT_SHARE).clamp(least, most),
        age: settings.age,
        durability: match settings.mode {
            SpoolMode::Memory | SpoolMode::WriteBehind => Durability::Written,
            SpoolMode::WriteAhead => Durability::Synced,
        },
    }
}

/// Between two rounds of [`Spool::upkeep`]: the most that write-behind loses in a power cut.
pub(super) const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A spool cannot be opened.
#[derive(Debug)]
pub struct SpoolError {
    path: PathBuf,
    error: io::Error,
}

impl SpoolError {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the folder {} cannot be used: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for SpoolError {}
