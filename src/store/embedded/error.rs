//! What redb reports, in the words of the store.

use std::io;
use std::path::Path;

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

use crate::store::StoreError;

/// Why a piece of work was not done.
pub(super) struct Failure {
    pub error: StoreError,
    pub state: State,
}

/// What a failure leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The store itself is well.
    Well,
    /// The file is not to be used before it has been opened again.
    Broken,
    /// Likewise, after a failure of somebody else; this work has not been tried.
    Stale,
}

impl Failure {
    /// The store itself is well.
    pub fn elsewhere(error: StoreError) -> Self {
        Self { error, state: State::Well }
    }

    /// The file is not to be used before it has been opened again.
    pub fn broken(error: StoreError) -> Self {
        Self { error, state: State::Broken }
    }
}

/// Names the file or folder that `error` is about.
pub(super) fn at(path: &Path, error: StoreError) -> StoreError {
    let place = |detail: String| format!("{}: {detail}", path.display());
    match error {
        StoreError::Locked(detail) => StoreError::Locked(place(detail)),
        StoreError::Full(detail) => StoreError::Full(place(detail)),
        StoreError::Corrupt(detail) => StoreError::Corrupt(place(detail)),
        StoreError::Io(detail) => StoreError::Io(place(detail)),
        StoreError::Key(_) | StoreError::Conflict(..) => error,
    }
}

/// An error of the file system.
pub(super) fn of_io(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full(error.to_string())
        }
        // redb's own, for a file that is none of its; and a file that ends too early.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Io(error.to_string()),
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => Self::broken(of_io(&error)),
            StorageError::Corrupted(detail) => {
                Self::broken(StoreError::Corrupt(format!("{detail}; restore a backup")))
            }
            StorageError::PreviousIo | StorageError::DatabaseClosed => {
                Self { error: StoreError::Io(error.to_string()), state: State::Stale }
            }
            other => Self::broken(StoreError::Io(other.to_string())),
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        let error = match error {
            DatabaseError::Storage(error) => return error.into(),
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                StoreError::Locked("a running gateway or another command holds it".to_owned())
            }
            DatabaseError::UpgradeRequired(format) => {
                StoreError::Corrupt(format!("its file format {format} is not of this version of scoregate"))
            }
            other => StoreError::Io(other.to_string()),
        };
        Self::broken(error)
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => Self::broken(StoreError::Corrupt(other.to_string())),
        }
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::broken(StoreError::Io(other.to_string())),
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            // Never stale: it has been tried, and may have been done.
            CommitError::Storage(error) => Self { state: State::Broken, ..error.into() },
            other => Self::broken(StoreError::Io(other.to_string())),
        }
    }
}
