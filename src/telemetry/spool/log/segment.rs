//! What a log is made of: segments, the disk, and what is still to be synced.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::cursor::Cursor;
use super::super::folder::{Folder, SegmentFile};
use super::super::seal::Cipher;

/// How much may be kept, and how long.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Limits {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes of the segments in memory.
    pub memory_bytes: u64,
    /// Bytes at which a segment on the disk is ended: what is given up at once when there is no more room.
    pub segment_bytes: u64,
    /// A segment whose last record is older is given up.
    pub age: Duration,
}

/// The disk and how it is.
pub(super) struct Disk {
    pub folder: Arc<dyn Folder>,
    pub cursor: Cursor,
    /// Sequence at which the last segment written to the disk ends.
    pub end: u64,
    pub health: Health,
    /// Whether a file came or went since the last sync.
    pub entries: Sync,
    pub cursor_sync: Sync,
}

/// The log tells changes, not every failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Working,
    Failing { since: SystemTime },
}

/// Whether the disk has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    Done,
    Due,
}

/// A place in a segment.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub segment: u64,
    pub offset: u64,
}

/// Records that follow one another in a file.
pub(super) struct Segment {
    pub first: u64,
    pub records: u64,
    /// Bytes of its header: where the first frame begins.
    pub begin: u64,
    /// Of an encrypted one.
    pub cipher: Option<Arc<Cipher>>,
    /// Of the file, header included; what may stand behind them does not count.
    pub bytes: u64,
    pub file: Arc<dyn SegmentFile>,
    pub place: Place,
    pub sync: Sync,
    pub opened: SystemTime,
    pub written: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Disk,
    Memory,
}

impl Segment {
    pub(super) fn end(&self) -> u64 {
        self.first + self.records
    }
}

/// What is to be synced.
#[derive(Default)]
pub(in super::super) struct Unsynced {
    pub files: Vec<Arc<dyn SegmentFile>>,
    pub folder: Option<Arc<dyn Folder>>,
}

impl Unsynced {
    /// Waits for the disk.
    pub(in super::super) fn sync(self) -> io::Result<()> {
        let files = self.files.iter().map(|file| file.sync());
        let folder = self.folder.iter().map(|folder| folder.sync());
        files.chain(folder).fold(Ok(()), Result::and)
    }
}
