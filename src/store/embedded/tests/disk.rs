//! A disk of memory that fails, and that forgets what was not synced, when told so.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

/// Shared by all who have it open, and there after they have closed it.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What a reader sees.
    bytes: Vec<u8>,
    /// What is there after the power has failed.
    durable: Vec<u8>,
    /// Done since the last sync.
    unsynced: Vec<Change>,
    bytes_read: usize,
    fault: Option<Fault>,
    has_failed: bool,
    /// Blocks that have been written once and so have a place.
    blocks: BTreeSet<usize>,
    /// How many blocks there is a place for, if there is an end to it.
    room: Option<usize>,
}

/// Bytes that are given a place at once.
const BLOCK: usize = 4096;

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// So many calls go well before.
    pub after: usize,
    pub kind: io::ErrorKind,
    /// Bytes of a failing write that reach the disk all the same.
    pub short: usize,
    pub lasts: Lasts,
}

/// How long it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasts {
    OneCall,
    UntilHealed,
}

impl Disk {
    pub fn fail(&self, fault: Fault) {
        self.0.lock().unwrap().fault = Some(fault);
    }

    /// Makes it well.
    pub fn heal(&self) {
        self.0.lock().unwrap().fault = None;
    }

    /// Whether anything has ever failed.
    pub fn has_failed(&self) -> bool {
        self.0.lock().unwrap().has_failed
    }

    /// Leaves no room for more than what has been written. As on a file system with holes in files: a longer file takes
    /// no room until it is written to.
    pub fn fill(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.room = Some(inner.blocks.len());
    }

    /// Makes room.
    pub fn clear(&self) {
        self.0.lock().unwrap().room = None;
    }

    pub fn bytes_read(&self) -> usize {
        self.0.lock().unwrap().bytes_read
    }

    /// Another disk: what this one could hold after a failure of the power now. `choose` decides, for a change that
    /// was not synced, how many of its bytes are there.
    pub fn after_power_failure(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let inner = self.0.lock().unwrap();
        let mut bytes = inner.durable.clone();
        for change in &inner.unsynced {
            match change {
                Change::Write(offset, data) => {
                    let kept = choose(data.len()).min(data.len());
                    let end = offset + kept;
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    bytes[*offset..end].copy_from_slice(&data[..kept]);
                }
                Change::Length(length) => {
                    if choose(1) == 1 {
                        bytes.resize(*length, 0);
                    }
                }
            }
        }
        Self(Arc::new(Mutex::new(Inner { durable: bytes.clone(), bytes, ..Inner::default() })))
    }

    /// Damages one byte.
    pub fn flip(&self, offset: usize, mask: u8) {
        let mut inner = self.0.lock().unwrap();
        inner.bytes[offset] ^= mask;
        inner.durable = inner.bytes.clone();
    }

    pub fn length(&self) -> usize {
        self.0.lock().unwrap().bytes.len()
    }
}

impl Inner {
    /// Fails if it is to; else counts the call.
    fn step(&mut self) -> Result<(), (io::Error, usize)> {
        let Some(fault) = &mut self.fault else { return Ok(()) };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let failed = (fault.kind.into(), fault.short);
        self.has_failed = true;
        if fault.lasts == Lasts::OneCall {
            self.fault = None;
        }
        Err(failed)
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        self.unsynced.push(Change::Write(offset, data.to_vec()));
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.step().map_err(|(error, _)| error)?;
        inner.bytes_read += out.len();
        let found = inner.bytes.get(place(offset)..place(offset) + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.step().map_err(|(error, _)| error)?;
        inner.bytes.resize(place(length), 0);
        inner.unsynced.push(Change::Length(place(length)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.step().map_err(|(error, _)| error)?;
        inner.durable = inner.bytes.clone();
        inner.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if let Err((error, short)) = inner.step() {
            inner.write(place(offset), &data[..short.min(data.len())]);
            return Err(error);
        }
        let blocks = place(offset) / BLOCK..(place(offset) + data.len()).div_ceil(BLOCK);
        let new = blocks.clone().filter(|block| !inner.blocks.contains(block)).count();
        if inner.room.is_some_and(|room| inner.blocks.len() + new > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.blocks.extend(blocks);
        inner.write(place(offset), data);
        Ok(())
    }
}
