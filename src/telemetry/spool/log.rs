//! The records of one exporter in order: segments on the disk, behind them segments in memory while the disk fails, a place
//! up to which all is done with, and at most one batch in the exporter's hand.
//!
//! Invariants: the sequences of a segment have no gap; segments are in order, those in memory the last ones; `settled <=
//! unread <= next`; the records that count as spooled are those in hand and those of the segments from `unread` on.

mod read;
mod recover;
mod segment;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(super) use recover::open;
pub(super) use segment::{Limits, Unsynced};

use super::counts::ExporterCounts;
use super::entry::{Entry, EntryKind};
use super::folder::{MemoryFile, SegmentFile as _};
use super::frame::{self, Header, MOST_HEADER};
use super::seal::Cipher;
use segment::{Disk, Health, Mark, Place, Segment, Sync};

/// Between two tries of a disk that failed.
const DISK_RETRY: Duration = Duration::from_secs(1);
/// A segment in memory is ended at this share of `memory_bytes`.
const MEMORY_SEGMENTS: u64 = 8;
/// A segment is ended at this share of `age`, so that age is measured finely enough.
const AGE_STEPS: u32 = 16;
/// Reads of one place that may fail before what is there is given up.
const MOST_FAILED_READS: u32 = 3;

/// The state machine; what it does to the disk goes through [`Folder`].
pub(super) struct Log {
    /// `None`: in memory only.
    disk: Option<Disk>,
    limits: Limits,
    counts: Arc<ExporterCounts>,
    segments: VecDeque<Segment>,
    /// Whether the last segment takes more.
    tail: Tail,
    /// Sequence of the next record to come.
    next: u64,
    /// Before it every sequence may have been a nonce already; beyond `next` only while an append is under way.
    given: u64,
    /// Sequence of the first record that no batch has held yet.
    unread: u64,
    /// Before it all is delivered or given up.
    settled: u64,
    in_hand: Option<InHand>,
    /// Where `unread` stands in the segment of that name; in any other it stands at the beginning.
    mark: Mark,
    failed_reads: u32,
    scratch: Vec<u8>,
    /// What comes is encrypted with it.
    cipher: Option<Arc<Cipher>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Open,
    Ended,
}

/// The batch that the exporter has; all of it is of one segment.
#[derive(Clone, Copy)]
struct InHand {
    segment: u64,
    records: u64,
}

/// What a log begins with.
struct Beginning {
    disk: Option<Disk>,
    segments: VecDeque<Segment>,
    next: u64,
    settled: u64,
    mark: Mark,
    cipher: Option<Arc<Cipher>>,
}

impl Log {
    fn new(beginning: Beginning, limits: Limits, counts: Arc<ExporterCounts>) -> Self {
        let Beginning { disk, segments, next, settled, mark, cipher } = beginning;
        let mut log = Self {
            disk,
            limits,
            counts,
            segments,
            tail: Tail::Ended,
            next,
            given: next,
            unread: settled,
            settled,
            in_hand: None,
            mark,
            failed_reads: 0,
            scratch: Vec::new(),
            cipher,
        };
        // The limit may have been lowered, and files that could not be removed are there again.
        log.make_room(0);
        log.tell_bytes();
        log
    }

    /// Takes whole lines of one kind. What does not fit pushes out the oldest; nothing here can fail.
    pub(super) fn append(&mut self, kind: EntryKind, lines: &[u8], now: SystemTime) {
        self.skip_given();
        let mut frames = std::mem::take(&mut self.scratch);
        frames.clear();
        let mut records = 0;
        let mut unusable = 0;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let entry = Entry { kind, line };
            self.given = self.next + records + 1;
            match frame::append(self.next + records, entry, self.cipher.as_deref(), &mut frames) {
                Some(()) => records += 1,
                None => unusable += 1,
            }
        }
        if records > 0 {
            // The frames may need a header.
            self.make_room((MOST_HEADER + frames.len()) as u64);
            if self.on_disk(now, |log| log.append_to_disk(&frames, records, now)).is_none() {
                self.append_to_memory(&frames, records, now);
            }
            self.next += records;
        }
        self.given = self.next;
        self.counts.accepted(records + unusable);
        self.counts.dropped(unusable);
        self.scratch = frames;
        self.tell_bytes();
    }

    /// An append that broke off in a panic may have encrypted entries that nobody has: their sequences are not used again.
    fn skip_given(&mut self) {
        if self.given > self.next {
            self.next = self.given;
            self.tail = Tail::Ended;
        }
    }

    /// Gives up what is too old, and moves what is in memory to the disk if that works again.
    pub(super) fn upkeep(&mut self, now: SystemTime) {
        let age = self.limits.age;
        let is_old = |segment: &Segment| now.duration_since(segment.written).is_ok_and(|past| past > age);
        while self.segments.front().is_some_and(is_old) {
            self.drop_oldest();
        }
        if self.segments.back().is_some_and(|segment| segment.place == Place::Memory) {
            self.on_disk(now, |log| log.move_to_disk(now));
        }
        self.tell_bytes();
    }

    /// Whether something waits in memory.
    pub(super) fn is_in_memory(&self) -> bool {
        self.segments.iter().any(|segment| segment.place == Place::Memory)
    }

    /// Records that no batch has held yet.
    pub(super) fn waiting(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end().saturating_sub(segment.first.max(self.unread))).sum()
    }

    /// The batch in hand is done with: so many of its records were taken, so many given up.
    pub(super) fn settle(&mut self, delivered: u64, dropped: u64) {
        let held = self.in_hand.take().map_or(0, |batch| batch.records);
        debug_assert_eq!(held, delivered + dropped);
        self.counts.settled(delivered.min(held), held - delivered.min(held));
        self.advance();
        self.tell_bytes();
    }

    /// Whether the batch in hand was pushed out or became too old meanwhile: it is not worth another try.
    pub(super) fn is_given_up(&self) -> bool {
        let is_there = |batch: InHand| self.segments.iter().any(|segment| segment.first == batch.segment);
        self.in_hand.is_some_and(|batch| !is_there(batch))
    }

    /// What is not on the disk for good yet, to be synced without holding the log.
    pub(super) fn take_unsynced(&mut self) -> Unsynced {
        let mut unsynced = Unsynced::default();
        let Some(disk) = &mut self.disk else { return unsynced };
        for segment in &mut self.segments {
            if segment.place == Place::Disk && std::mem::replace(&mut segment.sync, Sync::Done) == Sync::Due {
                unsynced.files.push(Arc::clone(&segment.file));
            }
        }
        if std::mem::replace(&mut disk.cursor_sync, Sync::Done) == Sync::Due {
            unsynced.files.push(disk.cursor.file());
        }
        if std::mem::replace(&mut disk.entries, Sync::Done) == Sync::Due {
            unsynced.folder = Some(Arc::clone(&disk.folder));
        }
        unsynced
    }

    /// Does `step` on the disk if there is one and it is not known to fail just now; `None`: it was not done. A full disk
    /// gets room by giving up the oldest segments on it.
    fn on_disk(&mut self, now: SystemTime, step: impl Fn(&mut Self) -> io::Result<()>) -> Option<()> {
        let due = match self.disk.as_ref()?.health {
            Health::Working => true,
            Health::Failing { since } => now.duration_since(since).map_or(true, |past| past >= DISK_RETRY),
        };
        if !due {
            return None;
        }
        loop {
            match step(self) {
                Ok(()) => {
                    self.disk_works();
                    return Some(());
                }
                Err(error) if is_full(&error) && self.oldest_makes_room() => self.drop_oldest(),
                Err(error) => {
                    self.disk_fails(&error, now);
                    return None;
                }
            }
        }
    }

    fn append_to_disk(&mut self, frames: &[u8], records: u64, now: SystemTime) -> io::Result<()> {
        self.move_to_disk(now)?;
        if self.ends_before(frames.len() as u64, Place::Disk, self.limits.segment_bytes, now) {
            self.tail = Tail::Ended;
        }
        let appended = match self.tail {
            Tail::Open => self.extend(frames, records, now),
            Tail::Ended => {
                let segment = self.write_segment(self.next, frames, now)?;
                self.segments.push_back(Segment { records, ..segment });
                self.tail = Tail::Open;
                Ok(())
            }
        };
        match (&appended, &mut self.disk) {
            (Ok(()), Some(disk)) => disk.end = self.next + records,
            // What it holds for certain stays; what the failed write left behind that is never read.
            _ => self.tail = Tail::Ended,
        }
        appended
    }

    fn append_to_memory(&mut self, frames: &[u8], records: u64, now: SystemTime) {
        let length = frames.len() as u64;
        while self.memory_bytes() + MOST_HEADER as u64 + length > self.limits.memory_bytes
            && self.drop_oldest_in_memory()
        {}
        let most = self.limits.memory_bytes / MEMORY_SEGMENTS;
        if self.ends_before(length, Place::Memory, most, now) {
            self.tail = Tail::Ended;
        }
        if self.tail == Tail::Open && self.extend(frames, records, now).is_ok() {
            return;
        }
        let file = Arc::new(MemoryFile::default());
        let header = self.header(self.next);
        let bytes = [&header.encode()[..], frames].concat();
        // Memory takes all.
        let _ = file.write_at(0, &bytes);
        self.segments.push_back(Segment {
            first: self.next,
            records,
            begin: header.length() as u64,
            cipher: self.cipher.clone(),
            bytes: bytes.len() as u64,
            file,
            place: Place::Memory,
            sync: Sync::Done,
            opened: now,
            written: now,
        });
        self.tail = Tail::Open;
    }

    /// Writes the segments in memory to the disk, the oldest first.
    fn move_to_disk(&mut self, now: SystemTime) -> io::Result<()> {
        while let Some(at) = self.segments.iter().position(|segment| segment.place == Place::Memory) {
            let segment = &self.segments[at];
            let (first, records, written) = (segment.first, segment.records, segment.written);
            let mut frames = vec![0; usize::try_from(segment.bytes - segment.begin).unwrap_or(0)];
            segment.file.read_at(segment.begin, &mut frames)?;
            self.tail = Tail::Ended;
            let moved = self.write_segment(first, &frames, now)?;
            self.segments[at] = Segment { records, written, ..moved };
            if let Some(disk) = &mut self.disk {
                disk.end = first + records;
            }
        }
        Ok(())
    }

    /// A new file with these frames; the caller says how many records they are.
    fn write_segment(&mut self, first: u64, frames: &[u8], now: SystemTime) -> io::Result<Segment> {
        let header = self.header(first);
        let bytes = [&header.encode()[..], frames].concat();
        let disk = self.disk.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        let file = disk.folder.create(first)?;
        disk.entries = Sync::Due;
        if let Err(error) = file.write_at(0, &bytes) {
            // A file that stays in spite of this is overwritten by the next try, or skipped at the next start.
            let _ = disk.folder.remove(first);
            return Err(error);
        }
        let (begin, bytes, place) = (header.length() as u64, bytes.len() as u64, Place::Disk);
        let cipher = self.cipher.clone();
        let sync = Sync::Due;
        Ok(Segment { first, records: 0, begin, cipher, bytes, file, place, sync, opened: now, written: now })
    }

    /// Appends to the last segment.
    fn extend(&mut self, frames: &[u8], records: u64, now: SystemTime) -> io::Result<()> {
        let segment = self.segments.back_mut().ok_or(io::ErrorKind::NotFound)?;
        segment.file.write_at(segment.bytes, frames)?;
        segment.sync = Sync::Due;
        segment.bytes += frames.len() as u64;
        segment.records += records;
        segment.written = now;
        Ok(())
    }

    fn header(&self, first: u64) -> Header {
        let follows = self.disk.as_ref().map_or(first, |disk| disk.end);
        Header { first, follows, seal: self.cipher.as_ref().map(|cipher| cipher.seal()) }
    }

    /// Whether the last segment is to be ended before `more` bytes come.
    fn ends_before(&self, more: u64, place: Place, most: u64, now: SystemTime) -> bool {
        self.segments.back().is_none_or(|segment| {
            let open_for = now.duration_since(segment.opened).unwrap_or(Duration::ZERO);
            segment.place != place || segment.bytes + more > most || open_for > self.limits.age / AGE_STEPS
        })
    }

    /// Pushes out the oldest until `more` bytes fit.
    fn make_room(&mut self, more: u64) {
        while self.bytes() + more > self.limits.bytes && !self.segments.is_empty() {
            self.drop_oldest();
        }
    }

    /// Whether the oldest segment is a file that nothing is being added to.
    fn oldest_makes_room(&self) -> bool {
        let is_ended = self.segments.len() > 1 || self.tail == Tail::Ended;
        is_ended && self.segments.front().is_some_and(|segment| segment.place == Place::Disk)
    }

    fn drop_oldest(&mut self) {
        self.give_up(0);
    }

    fn drop_oldest_in_memory(&mut self) -> bool {
        let found = self.segments.iter().position(|segment| segment.place == Place::Memory);
        found.inspect(|at| self.give_up(*at)).is_some()
    }

    /// Gives a segment up. What is in hand of it is settled by whoever has it.
    fn give_up(&mut self, at: usize) {
        let Some(segment) = self.segments.remove(at) else { return };
        if at == self.segments.len() {
            self.tail = Tail::Ended;
        }
        let lost = segment.end().saturating_sub(segment.first.max(self.unread));
        self.counts.dropped(lost);
        if at == 0 {
            self.unread = self.unread.max(segment.end());
        }
        self.remove(&segment);
        self.advance();
    }

    /// All before `unread` is done with unless a batch is in hand: notes it and takes away what nobody needs any more.
    fn advance(&mut self) {
        if self.in_hand.is_some() || self.settled == self.unread {
            return;
        }
        self.settled = self.unread;
        if let Some(disk) = &mut self.disk {
            match disk.cursor.write(self.settled) {
                Ok(()) => disk.cursor_sync = Sync::Due,
                // After a crash more than one batch would be sent again; their ids make that harmless.
                Err(error) => tracing::debug!(%error, "the cursor of the spool cannot be written"),
            }
        }
        while let Some(segment) = self.segments.front() {
            let is_ended = self.segments.len() > 1 || self.tail == Tail::Ended;
            if segment.end() > self.settled || !is_ended {
                break;
            }
            if let Some(segment) = self.segments.pop_front() {
                self.remove(&segment);
            }
        }
    }

    fn remove(&mut self, segment: &Segment) {
        let (Place::Disk, Some(disk)) = (segment.place, &mut self.disk) else { return };
        disk.entries = Sync::Due;
        if let Err(error) = disk.folder.remove(segment.first) {
            tracing::error!(%error, segment = segment.first, "a segment of the spool cannot be removed");
        }
    }

    fn disk_works(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        if disk.health != Health::Working {
            disk.health = Health::Working;
            tracing::info!("the spool is written to the disk again");
        }
    }

    fn disk_fails(&mut self, error: &io::Error, now: SystemTime) {
        self.tail = Tail::Ended;
        let Some(disk) = &mut self.disk else { return };
        if disk.health == Health::Working {
            tracing::error!(%error, "the spool cannot be written to the disk; a little is kept in memory, older records are dropped and counted");
        }
        disk.health = Health::Failing { since: now };
    }

    fn memory_bytes(&self) -> u64 {
        let in_memory = self.segments.iter().filter(|segment| segment.place == Place::Memory);
        in_memory.map(|segment| segment.bytes).sum()
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn tell_bytes(&self) {
        self.counts.holds_bytes(self.bytes());
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
