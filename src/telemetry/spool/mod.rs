//! The spool of one exporter: records wait here, bounded in bytes and age, until the collector has them.
//!
//! The writer thread appends, or the workers when written ahead; the exporter takes one batch at a time and settles it. What each mode promises:
//!
//! | mode | kill -9 | power cut |
//! | --- | --- | --- |
//! | `memory` | all that waits is lost | the same |
//! | `write_behind` | what the system took is kept; lost is what was on its way to the writer thread: some 20 ms, more only if that falls behind | at most the last second more |
//! | `write_ahead` | no record of an answer that its caller has whole | at most the last second |
//!
//! Entries are records and, from `Spool::append_events`, events of the activity log. With `encryption: store` they are
//! encrypted (`seal`), also in the segments that a failing disk leaves in memory; nothing is in the mode `memory`.
//!
//! A disk that fails slows no call and loses nothing at first: what comes is kept in memory within [`MEMORY_BYTES`] and goes
//! to the disk when that works again.

mod counts;
mod cursor;
mod entry;
mod folder;
mod frame;
mod log;
mod mark;
mod seal;
mod survey;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use tokio::sync::Notify;

pub use counts::{ExporterCounts, Reading};
pub(super) use entry::{Entries, Entry, EntryKind};
pub use seal::SpoolKey;
pub use survey::{SpoolSurvey, survey};

use super::settings::{SpoolMode, SpoolSettings};
use folder::{DiskFolder, Folder};
use log::{Limits, Log};
use mark::EventMark;
use seal::Keyring;

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
    /// So many waiting records wake the exporter: to be woken by each would cost those who write ahead dear. Changed only
    /// under the lock of the log.
    wanted: AtomicU64,
    enough: Notify,
    events: Mutex<EventMark>,
}

/// Nobody waits for records.
const NONE_WANTED: u64 = u64::MAX;

impl Spool {
    /// Opens the spool of the exporter `name`, with all that a former process left in it; blocks on the disk. `key` is there
    /// if the gateway has one, whether it is used for what comes or not.
    ///
    /// # Errors
    /// Its folder cannot be made, locked or read, or the key of what is in it is not at hand.
    pub(super) fn open(
        name: &str,
        settings: &SpoolSettings,
        key: Option<&SpoolKey>,
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
        let mark = EventMark::open(folder.as_deref()).map_err(failed)?;
        let keyring = Keyring { exporter: name, key, encryption: settings.encryption };
        let log = log::open(folder, limits(settings), counts, &keyring).map_err(failed)?;
        Ok(Self::over(log, settings.mode, mark))
    }

    fn over(log: Log, mode: SpoolMode, mark: EventMark) -> Self {
        let (log, events) = (Mutex::new(log), Mutex::new(mark));
        Self { log, mode, wanted: AtomicU64::new(NONE_WANTED), enough: Notify::new(), events }
    }

    pub(super) fn mode(&self) -> SpoolMode {
        self.mode
    }

    /// Takes whole lines, all of one kind; blocks until the system has them, not on the disk's sync. Any number of threads
    /// may do so: what each brings stays together.
    pub(super) fn append(&self, kind: EntryKind, lines: &[u8]) {
        let now = SystemTime::now();
        let is_enough = {
            let mut log = self.log();
            log.append(kind, lines, now);
            let is_enough = log.waiting() >= self.wanted.load(Relaxed);
            if is_enough {
                self.wanted.store(NONE_WANTED, Relaxed);
            }
            is_enough
        };
        if is_enough {
            self.enough.notify_one();
        }
    }

    /// The sequence, in the activity log, of the last event that came here; `None`: none ever did.
    pub(super) fn events_reached(&self) -> Option<u64> {
        self.events().reached()
    }

    /// Takes lines of events, up to the one with the sequence `reached` in the activity log; blocks on the disk. Without
    /// lines that is where this spool begins, which is written down at once.
    pub(super) fn append_events(&self, lines: &[u8], reached: u64) {
        let mut events = self.events();
        self.append(EntryKind::Event, lines);
        events.advance(reached);
        if lines.is_empty() {
            events.keep(reached);
        }
    }

    /// Waits until so many records wait. For one waiter at a time.
    pub(super) async fn holds(&self, records: u64) {
        while !self.holds_or_wants(records) {
            self.enough.notified().await;
        }
    }

    fn holds_or_wants(&self, records: u64) -> bool {
        let log = self.log();
        let is_enough = log.waiting() >= records;
        self.wanted.store(if is_enough { NONE_WANTED } else { records }, Relaxed);
        is_enough
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

    /// What is to be done every second: the age limit, the way back to a disk that failed, and what is still owed to the disk,
    /// which is waited for while others append.
    pub(super) fn upkeep(&self) {
        // Before the rest: what has come by now is in what is synced.
        let events_reached = self.events_reached();
        let (unsynced, in_memory) = {
            let mut log = self.log();
            log.upkeep(SystemTime::now());
            (log.take_unsynced(), log.is_in_memory())
        };
        match unsynced.sync() {
            Ok(()) if !in_memory => self.keep_events_reached(events_reached),
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, mode = self.mode.as_str(), "the spool may not be on the disk yet");
            }
        }
    }

    /// The disk has all events up to there. After a kill or a power cut the next process takes those again that came later:
    /// rather twice than never.
    fn keep_events_reached(&self, reached: Option<u64>) {
        if let Some(reached) = reached {
            self.events().keep(reached);
        }
    }

    fn events(&self) -> MutexGuard<'_, EventMark> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
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
    }
}

/// Between two rounds of [`Spool::upkeep`]: the most that a power cut takes beyond what a kill does.
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
