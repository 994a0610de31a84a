//! The store in one file of this machine, on redb: copy-on-write B-trees, every page with a checksum.
//!
//! A batch is one write transaction in two phases: the new pages reach the disk, then the one byte that makes them the
//! current ones. A crash at any point leaves the old state or the new one. redb refuses to go on after a failed read
//! or write; then the file is closed, and opened again (checksums compared, half-made pages forgotten) by the next call,
//! so that the store is well again as soon as the disk is.

mod error;
mod layout;
mod range;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, WriteTransaction};

use self::error::{Failure, State, at};
use self::layout::{data, decode, encode};
use super::file::Draft;
use super::{Batch, CheckReport, Expect, Range, Row, Store, StoreError, Table};

/// Its name in the folder of the store.
pub const FILE_NAME: &str = "scoregate.redb";

/// Pages kept in memory, in bytes; the operating system caches the rest.
const CACHE_BYTES: usize = 64 << 20;

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A store in one file, open in this process and in no other.
pub struct EmbeddedStore {
    file: PathBuf,
    opener: Opener,
    /// Read: somebody works with it. Written: opened, closed or checked.
    slot: RwLock<Slot>,
    /// Held for a batch and for finding out what became of it.
    writing: Mutex<()>,
}

enum Slot {
    Open(Database),
    /// After a failure; the next call opens it.
    Closed,
}

impl EmbeddedStore {
    /// Opens the store in the folder `dir`, or makes a new one there: the folder for its owner alone (0700), the file too.
    ///
    /// Reads the whole file and compares its checksums.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::Corrupt`] if it is damaged or of a format
    /// that this version does not know, [`StoreError::Io`] or [`StoreError::Full`] if it cannot be read or made.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let file = dir.join(FILE_NAME);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| at(dir, error::of_io(&error)))?;
        if fs::symlink_metadata(&file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let made = create(&file, layout::initialize);
            // Somebody else may have been faster.
            if fs::symlink_metadata(&file).is_err() {
                made.map_err(|error| at(&file, error))?;
            }
        }
        Self::open_file(&file)
    }

    /// Opens the store in `file`, which is there: a store's own file or a copy of it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_file(file: &Path) -> Result<Self, StoreError> {
        let path = file.to_owned();
        let opener = move || builder().open(&path);
        Self::with_opener(file.to_owned(), Box::new(opener))
    }

    fn with_opener(file: PathBuf, opener: Opener) -> Result<Self, StoreError> {
        let store = Self { file, opener, slot: RwLock::new(Slot::Closed), writing: Mutex::new(()) };
        store.reopen()?;
        Ok(store)
    }

    /// Opens the file if it is closed.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        self.opened(&mut slot).map(|_| ())
    }

    fn opened<'a>(&self, slot: &'a mut Slot) -> Result<&'a mut Database, StoreError> {
        if let Slot::Closed = slot {
            let opened = guarded(|| {
                let database = (self.opener)()?;
                layout::verify(&database)?;
                Ok(database)
            });
            *slot = Slot::Open(opened.map_err(|failure| at(&self.file, failure.error))?);
        }
        match slot {
            Slot::Open(database) => Ok(database),
            Slot::Closed => Err(StoreError::Io("it is closed".to_owned())),
        }
    }

    /// Closes the file, which is not to be used as it is.
    fn close(&self) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        let closed = std::mem::replace(&mut *slot, Slot::Closed);
        // What it has to say about its end is no news.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(closed)));
    }

    /// Runs `work` on the open file; closes the file if it has failed.
    fn with<T>(&self, mut work: impl FnMut(&Database) -> Result<T, Failure>) -> Result<T, StoreError> {
        let mut stale = false;
        loop {
            let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
            let Slot::Open(database) = &*slot else {
                drop(slot);
                self.reopen()?;
                continue;
            };
            let done = guarded(|| work(database));
            drop(slot);
            match done {
                Ok(done) => return Ok(done),
                Err(failure) if failure.state == State::Stale && !stale => {
                    stale = true;
                    self.close();
                }
                Err(failure) if failure.state == State::Well => return Err(failure.error),
                Err(failure) => {
                    self.close();
                    return Err(at(&self.file, failure.error));
                }
            }
        }
    }

    /// The number of the last batch.
    fn version(&self) -> Result<u64, StoreError> {
        self.with(|database| layout::version(&database.begin_read()?))
    }

    /// Tells whether a batch that was to become number `version` did, after its commit has failed with `error`.
    fn settle(&self, version: u64, error: StoreError) -> Result<u64, StoreError> {
        match self.version() {
            Ok(last) if last == version => Ok(version),
            Ok(_) => Err(error),
            Err(again) => Err(match error {
                StoreError::Full(detail) => StoreError::Full(doubt(&detail, &again)),
                other => StoreError::Io(doubt(&other.to_string(), &again)),
            }),
        }
    }
}

fn doubt(detail: &str, again: &StoreError) -> String {
    format!("{detail}; the store does not open now ({again}): whether the change was kept shows when it does")
}

impl Store for EmbeddedStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.with(|database| {
            let rows = database.begin_read()?.open_table(data(table))?;
            let Some(found) = rows.get(key)? else { return Ok(None) };
            Ok(Some(decode(table, key, found.value())?))
        })
    }

    fn scan(&self, range: &Range<'_>) -> Result<Vec<Row>, StoreError> {
        self.with(|database| range::scan(&database.begin_read()?, range))
    }

    fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempted = None;
        let done = self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_two_phase_commit(true);
            let version = apply(&transaction, &batch)?;
            attempted = Some(version);
            transaction.commit()?;
            Ok(version)
        });
        match (done, attempted) {
            (Err(error), Some(version)) => self.settle(version, error),
            (done, _) => done,
        }
    }

    fn backup(&self, path: &Path) -> Result<(), StoreError> {
        self.with(|database| {
            let moment = database.begin_read()?;
            let copied = create(path, |copy| layout::copy(&moment, copy));
            copied.map_err(|error| Failure::elsewhere(at(path, error)))
        })
    }

    /// Reads every row while others work, then has redb compare all checksums and its list of free pages, during which
    /// others wait.
    fn check(&self) -> Result<CheckReport, StoreError> {
        let report = self.with(|database| {
            let moment = database.begin_read()?;
            let bytes = fs::metadata(&self.file).map_or(0, |metadata| metadata.len());
            Ok(CheckReport { rows: layout::count(&moment)?, bytes, version: layout::version(&moment)? })
        })?;
        self.check_pages()?;
        Ok(report)
    }
}

impl EmbeddedStore {
    fn check_pages(&self) -> Result<(), StoreError> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        let database = self.opened(&mut slot)?;
        let checked = guarded(|| Ok(database.check_integrity()?));
        drop(slot);
        match checked {
            Ok(true) => Ok(()),
            Ok(false) => {
                let found =
                    "its pages were not as they should be and have been repaired; check again".to_owned();
                Err(at(&self.file, StoreError::Corrupt(found)))
            }
            Err(failure) => {
                self.close();
                Err(at(&self.file, failure.error))
            }
        }
    }
}

/// Puts `batch` into the transaction, conditions first. Returns its number.
fn apply(transaction: &WriteTransaction, batch: &Batch) -> Result<u64, Failure> {
    for (table, key, expect) in &batch.conditions {
        let rows = transaction.open_table(data(*table))?;
        let found = rows.get(key.as_slice())?;
        let found = found.map(|found| decode(*table, key, found.value())).transpose()?.map(|row| row.version);
        let holds = match expect {
            Expect::Absent => found.is_none(),
            Expect::Version(version) => found == Some(*version),
        };
        if !holds {
            return Err(Failure::elsewhere(StoreError::Conflict(*table, key.clone())));
        }
    }
    let version = layout::next_version(transaction)?;
    for (table, key, value) in &batch.changes {
        let mut rows = transaction.open_table(data(*table))?;
        match value {
            Some(value) => rows.insert(key.as_slice(), encode(version, value).as_slice())?,
            None => rows.remove(key.as_slice())?,
        };
    }
    Ok(version)
}

/// Makes the store file `path`, which must not be there, wholly or not at all.
fn create(path: &Path, fill: impl FnOnce(&Database) -> Result<(), Failure>) -> Result<(), StoreError> {
    let (draft, file) = Draft::beside(path).map_err(|error| error::of_io(&error))?;
    let filled = guarded(|| {
        let database = builder().create_with_backend(FileBackend::new(file)?)?;
        fill(&database)?;
        Ok(database.close()?)
    });
    filled.map_err(|failure| failure.error)?;
    draft.publish().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Io(
            "there is something of that name, which has not been touched; name another file".to_owned(),
        ),
        _ => error::of_io(&error),
    })
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Runs `work`; redb may panic on a file that was damaged while it was open.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let found = "it cannot be read on: it was changed by somebody else or the disk is failing";
        Err(Failure::broken(StoreError::Corrupt(found.to_owned())))
    })
}

#[cfg(test)]
mod tests;
