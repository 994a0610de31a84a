//! Where segments are kept: the few calls that the spool makes of a disk, so that tests can put faults into each.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Records name callers: only the gateway's own user reads them here.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// End of a segment's name; before it stands its first sequence in [`DIGITS`] digits.
const SUFFIX: &str = ".seg";
const DIGITS: usize = 20;
pub(super) const CURSOR: &str = "cursor";
const EVENTS: &str = "events";
const LOCK: &str = "lock";

/// A folder of segments. A segment is named by the sequence of its first record.
pub(super) trait Folder: Send + Sync {
    /// The segments that are there, in any order.
    fn list(&self) -> io::Result<Vec<u64>>;
    /// An empty segment; one that is there already is emptied.
    fn create(&self, segment: u64) -> io::Result<Arc<dyn SegmentFile>>;
    /// A segment that is there.
    fn open(&self, segment: u64) -> io::Result<Found>;
    /// Takes a segment away. Whoever has it open can go on reading it.
    fn remove(&self, segment: u64) -> io::Result<()>;
    /// The file of the cursor, made if it is not there.
    fn cursor(&self) -> io::Result<Arc<dyn SegmentFile>>;
    /// The file of the place in the activity log, made if it is not there.
    fn events(&self) -> io::Result<Arc<dyn SegmentFile>>;
    /// Makes what was created outlast a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A segment that was there when the spool was opened.
pub(super) struct Found {
    pub file: Arc<dyn SegmentFile>,
    pub length: u64,
    /// When it was last written to.
    pub written: SystemTime,
}

/// A file that is written at known places, so that a write that failed half way is simply written again.
pub(super) trait SegmentFile: Send + Sync {
    /// Writes all of `bytes`; after an error some of them may be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads until `into` is full or the file ends; returns the number of bytes.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Makes what was written outlast a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A folder on a disk, for this process alone.
pub(super) struct DiskFolder {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl DiskFolder {
    /// Makes the folder if it is not there and locks it.
    ///
    /// # Errors
    /// It cannot be made or written to, or another process has it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
        let lock = options().open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let kind = io::ErrorKind::ResourceBusy;
                Err(io::Error::new(kind, "another process has it; each gateway needs a folder of its own"))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn segment(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:0DIGITS$}{SUFFIX}"))
    }
}

/// The segment that a file of that name is.
pub(super) fn segment_of(name: &OsStr) -> Option<u64> {
    name.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    options
}

impl Folder for DiskFolder {
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            found.extend(segment_of(&entry?.file_name()));
        }
        Ok(found)
    }

    fn create(&self, segment: u64) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(options().truncate(true).open(self.segment(segment))?))
    }

    fn open(&self, segment: u64) -> io::Result<Found> {
        let file = OpenOptions::new().read(true).write(true).open(self.segment(segment))?;
        let facts = file.metadata()?;
        Ok(Found { file: Arc::new(file), length: facts.len(), written: facts.modified()? })
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        std::fs::remove_file(self.segment(segment))
    }

    fn cursor(&self) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(options().open(self.path.join(CURSOR))?))
    }

    fn events(&self) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(Arc::new(options().open(self.path.join(EVENTS))?))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl SegmentFile for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        read_full(into, |done, rest| std::os::unix::fs::FileExt::read_at(self, rest, offset + done as u64))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

fn read_full(
    into: &mut [u8],
    mut read: impl FnMut(usize, &mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match read(done, &mut into[done..]) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A segment in memory: all of them in the mode `memory`, and what comes while the disk fails.
#[derive(Default)]
pub(super) struct MemoryFile(Mutex<Vec<u8>>);

impl SegmentFile for MemoryFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        content.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        content.extend_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn segments_are_made_listed_read_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let folder = DiskFolder::open(&path).unwrap();
        let file = folder.create(7).unwrap();
        file.write_at(0, b"abc").unwrap();
        file.sync().unwrap();
        folder.sync().unwrap();
        std::fs::write(path.join("stray.txt"), "x").unwrap();
        assert_eq!(folder.list().unwrap(), [7]);
        let found = folder.open(7).unwrap();
        let mut bytes = [0; 8];
        assert_eq!((found.length, found.file.read_at(1, &mut bytes).unwrap()), (3, 2));
        assert_eq!(&bytes[..2], b"bc");
        folder.remove(7).unwrap();
        assert_eq!(folder.list().unwrap(), Vec::<u64>::new());
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 3, "whoever has it open reads on");
        let others = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o077;
        assert_eq!((others(&path), others(&path.join(LOCK))), (0, 0));
    }

    #[test]
    fn a_folder_is_for_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = DiskFolder::open(dir.path()).unwrap();
        let refused = DiskFolder::open(dir.path()).err().unwrap();
        assert!(refused.to_string().starts_with("another process has it"), "{refused}");
        drop(first);
        assert!(DiskFolder::open(dir.path()).is_ok());
    }
}
