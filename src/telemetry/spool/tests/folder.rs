//! A folder in memory whose disk fills up, fails, and forgets what was not synced, when told so.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use super::super::folder::{Folder, Found, SegmentFile};
use super::super::frame::{self, Header, Next};

/// Shared by all who have it open, and there after they have closed it.
#[derive(Clone)]
pub(super) struct SimFolder(Arc<Mutex<Inner>>);

struct Inner {
    files: BTreeMap<u64, Arc<Mutex<Content>>>,
    cursor: Arc<Mutex<Content>>,
    /// The names that are there after the power has failed.
    durable: Vec<u64>,
    room: Option<usize>,
    fault: Option<Fault>,
    failing_reads: u32,
    now: SystemTime,
    /// Goes up with each process: what an earlier one still has open does nothing any more.
    process: u32,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    written: Option<SystemTime>,
}

/// What goes wrong until it is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Writes fail after half of their bytes.
    Write,
    /// No file can be made.
    Create,
    /// Nothing can be synced.
    Sync,
    /// Nothing can be removed.
    Remove,
    /// Writes panic.
    Panic,
}

struct SimFile {
    folder: SimFolder,
    content: Arc<Mutex<Content>>,
}

impl Default for SimFolder {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            files: BTreeMap::new(),
            cursor: Arc::default(),
            durable: Vec::new(),
            room: None,
            fault: None,
            failing_reads: 0,
            now: SystemTime::UNIX_EPOCH,
            process: 0,
        })))
    }
}

impl SimFolder {
    pub(super) fn fail(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// The next so many reads of segments fail.
    pub(super) fn fail_reads(&self, reads: u32) {
        self.lock().failing_reads = reads;
    }

    pub(super) fn heal(&self) {
        let mut inner = self.lock();
        inner.fault = None;
        inner.failing_reads = 0;
        inner.room = None;
    }

    /// Most bytes of all segments.
    pub(super) fn set_room(&self, room: Option<usize>) {
        self.lock().room = room;
    }

    pub(super) fn set_time(&self, now: SystemTime) {
        self.lock().now = now;
    }

    pub(super) fn close(&self) {
        self.lock().process += 1;
    }

    pub(super) fn segments(&self) -> usize {
        self.lock().files.len()
    }

    pub(super) fn used(&self) -> usize {
        self.lock().used()
    }

    /// Records that a new process would find, settled ones among them.
    pub(super) fn records(&self) -> u64 {
        let files = self.lock().files.values().cloned().collect::<Vec<_>>();
        let count = |content: &Arc<Mutex<Content>>| {
            let bytes = content.lock().unwrap().bytes.clone();
            let Some(header) = Header::decode(&bytes) else { return 0 };
            let (first, mut at, mut records) = (header.first, header.length(), 0);
            while let Next::Entry { length, .. } = frame::next(&bytes[at..], first + records) {
                at += length;
                records += 1;
            }
            records
        };
        files.iter().map(count).sum()
    }

    /// Whether any segment has these bytes.
    pub(super) fn holds(&self, text: &[u8]) -> bool {
        let files = self.lock().files.values().cloned().collect::<Vec<_>>();
        files.iter().any(|content| content.lock().unwrap().bytes.windows(text.len()).any(|part| part == text))
    }

    /// Cuts bytes off the end of a segment, by its place in order.
    pub(super) fn tear(&self, place: usize, bytes: usize) {
        let file = self.nth(place);
        let mut content = file.lock().unwrap();
        let length = content.bytes.len().saturating_sub(bytes);
        content.bytes.truncate(length);
    }

    /// Damages one byte of a segment.
    pub(super) fn flip(&self, place: usize, offset: usize) {
        self.nth(place).lock().unwrap().bytes[offset] ^= 0x40;
    }

    pub(super) fn put(&self, name: u64, bytes: Vec<u8>) {
        let content = Content { bytes, ..Content::default() };
        self.lock().files.insert(name, Arc::new(Mutex::new(content)));
    }

    /// The power fails: what was not synced is gone.
    pub(super) fn cut_power(&self) {
        let mut inner = self.lock();
        let durable = inner.durable.clone();
        inner.files.retain(|name, _| durable.contains(name));
        let forget = |content: &Arc<Mutex<Content>>| {
            let mut content = content.lock().unwrap();
            content.bytes = content.durable.clone();
        };
        inner.files.values().for_each(forget);
        forget(&inner.cursor);
    }

    fn nth(&self, place: usize) -> Arc<Mutex<Content>> {
        Arc::clone(self.lock().files.values().nth(place).unwrap())
    }

    fn file(&self, content: &Arc<Mutex<Content>>) -> Arc<dyn SegmentFile> {
        Arc::new(SimFile { folder: self.clone(), content: Arc::clone(content) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Inner {
    fn used(&self) -> usize {
        self.files.values().map(|content| content.lock().unwrap().bytes.len()).sum()
    }

    fn fails(&self, fault: Fault) -> io::Result<()> {
        if self.fault == Some(fault) { Err(io::Error::other(format!("{fault:?}"))) } else { Ok(()) }
    }
}

impl Folder for SimFolder {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.lock().files.keys().rev().copied().collect())
    }

    fn create(&self, segment: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let mut inner = self.lock();
        inner.fails(Fault::Create)?;
        let content = Arc::new(Mutex::new(Content::default()));
        inner.files.insert(segment, Arc::clone(&content));
        drop(inner);
        Ok(self.file(&content))
    }

    fn open(&self, segment: u64) -> io::Result<Found> {
        let content = self.lock().files.get(&segment).cloned().ok_or(io::ErrorKind::NotFound)?;
        let (length, written) = {
            let content = content.lock().unwrap();
            (content.bytes.len() as u64, content.written.unwrap_or(SystemTime::UNIX_EPOCH))
        };
        Ok(Found { file: self.file(&content), length, written })
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.fails(Fault::Remove)?;
        inner.files.remove(&segment).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn cursor(&self) -> io::Result<Arc<dyn SegmentFile>> {
        let cursor = Arc::clone(&self.lock().cursor);
        Ok(self.file(&cursor))
    }

    fn events(&self) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(self.file(&Arc::default()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.fails(Fault::Sync)?;
        inner.durable = inner.files.keys().copied().collect();
        Ok(())
    }
}

impl SegmentFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.folder.lock().fault;
        assert_ne!(fault, Some(Fault::Panic), "as the test wants it");
        let offset = usize::try_from(offset).unwrap();
        let (room, fault, now) = {
            let inner = self.folder.lock();
            let left = inner.room.map(|room| room.saturating_sub(inner.used()));
            (left, inner.fails(Fault::Write), inner.now)
        };
        let mut content = self.content.lock().unwrap();
        let growth = (offset + bytes.len()).saturating_sub(content.bytes.len());
        let full = room.is_some_and(|room| growth > room);
        let whole = if full || fault.is_err() { bytes.len() / 2 } else { bytes.len() };
        // A full disk takes what fits.
        let kept = if full { whole.min(room.unwrap_or(0)) } else { whole };
        let end = offset + kept;
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[offset..end].copy_from_slice(&bytes[..kept]);
        content.written = Some(now);
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        fault
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        {
            let mut inner = self.folder.lock();
            if inner.failing_reads > 0 {
                inner.failing_reads -= 1;
                return Err(io::Error::other("Read"));
            }
        }
        let content = self.content.lock().unwrap();
        let rest = content.bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.folder.lock().fails(Fault::Sync)?;
        let mut content = self.content.lock().unwrap();
        content.durable = content.bytes.clone();
        Ok(())
    }
}
