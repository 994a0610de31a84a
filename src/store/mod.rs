//! What the management plane must not forget: rows in tables, changed by batches that happen wholly or not at all.
//!
//! A store knows nothing of what rows mean. It is blocking: call it from a thread that may wait, never from the data
//! plane, which works from snapshots and does not know that there is a store.

mod embedded;
mod file;
pub mod seal;
pub mod wrapping;

use std::fmt;

pub use self::embedded::{EmbeddedStore, FILE_NAME};

/// A set of rows with keys of its own.
///
/// Keys are ordered as bytes; a page is a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Facts about the store itself: format, wrapped data keys, head of the activity chain.
    Meta,
    /// Workspaces by lower-case name.
    Workspaces,
    /// Services by name.
    Services,
    /// Which services a workspace holds: `workspace/service`.
    ServicesByWorkspace,
    /// Key pairs by service.
    Keys,
    /// Token signing keys: `workspace/kid`.
    SigningKeys,
    /// Revoked scoring tokens and principals.
    Revocations,
    /// Role assignments by id.
    RoleAssignments,
    /// Custom roles by lower-case name.
    CustomRoles,
    /// Management tokens by id.
    ManagementTokens,
    /// The activity log by sequence number, big-endian.
    Activity,
    /// Sequence numbers of the activity log by operation id.
    ActivityByOperation,
    /// Answers kept for a caller that repeats a request id: `principal/request id`.
    Answers,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 13] = [
        Self::Meta,
        Self::Workspaces,
        Self::Services,
        Self::ServicesByWorkspace,
        Self::Keys,
        Self::SigningKeys,
        Self::Revocations,
        Self::RoleAssignments,
        Self::CustomRoles,
        Self::ManagementTokens,
        Self::Activity,
        Self::ActivityByOperation,
        Self::Answers,
    ];

    /// Its name in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Workspaces => "workspaces",
            Self::Services => "services",
            Self::ServicesByWorkspace => "services_by_workspace",
            Self::Keys => "keys",
            Self::SigningKeys => "signing_keys",
            Self::Revocations => "revocations",
            Self::RoleAssignments => "role_assignments",
            Self::CustomRoles => "custom_roles",
            Self::ManagementTokens => "management_tokens",
            Self::Activity => "activity",
            Self::ActivityByOperation => "activity_by_operation",
            Self::Answers => "answers",
        }
    }
}

/// One row with the version that it was last written by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Vec<u8>,
    /// What it holds.
    pub value: Vec<u8>,
    /// The number of the batch that wrote it; grows with every batch of the store.
    pub version: u64,
}

/// What must be true of a row for a batch to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No such row.
    Absent,
    /// The row as it was read.
    Version(u64),
}

/// Changes that happen wholly or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// What must be true; looked at before anything is changed.
    pub conditions: Vec<(Table, Vec<u8>, Expect)>,
    /// Rows to write, `None` to remove. Each row at most once.
    pub changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Adds a condition.
    pub fn expect(&mut self, table: Table, key: impl Into<Vec<u8>>, expect: Expect) -> &mut Self {
        self.conditions.push((table, key.into(), expect));
        self
    }

    /// Writes a row.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.push((table, key.into(), Some(value.into())));
        self
    }

    /// Removes a row, if it is there.
    pub fn remove(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.push((table, key.into(), None));
        self
    }
}

/// Part of a table, in the order of its keys.
#[derive(Clone, Debug)]
pub struct Range<'a> {
    /// The table.
    pub table: Table,
    /// Only keys that begin so.
    pub prefix: &'a [u8],
    /// Only keys after this one (before it, if `backwards`).
    pub after: Option<&'a [u8]>,
    /// At most so many rows.
    pub limit: usize,
    /// From the last key to the first.
    pub order: Order,
}

/// Order of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the first key to the last.
    #[default]
    Forwards,
    /// From the last key to the first.
    Backwards,
}

/// Rows in tables, kept safely.
pub trait Store: Send + Sync {
    /// The row of `key`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError>;

    /// The rows of `range`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(&self, range: &Range<'_>) -> Result<Vec<Row>, StoreError>;

    /// Makes `batch` happen. When this returns, it outlives a crash of the machine. Returns its number.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a condition does not hold; nothing has changed then, nor after any other error, but for
    /// one case, which the message tells: the disk failed at the last step and is still failing, so that it cannot be
    /// seen whether the batch, as a whole, is there. It shows when the store works again.
    fn commit(&self, batch: Batch) -> Result<u64, StoreError>;

    /// Writes a copy of one moment of the store to `path`, which must not exist; reads and writes go on.
    ///
    /// # Errors
    /// The copy cannot be written; nothing is left at `path`.
    fn backup(&self, path: &std::path::Path) -> Result<(), StoreError>;

    /// Reads everything and compares checksums.
    ///
    /// # Errors
    /// What is broken.
    fn check(&self) -> Result<CheckReport, StoreError>;
}

/// What a check of the store has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Rows per table.
    pub rows: Vec<(&'static str, u64)>,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// Number of the last batch.
    pub version: u64,
}

/// Why the store did not do it.
#[derive(Debug)]
pub enum StoreError {
    /// A condition of the batch does not hold: somebody was faster. The table and key that it was about.
    Conflict(Table, Vec<u8>),
    /// Another process has the store open.
    Locked(String),
    /// The disk is full.
    Full(String),
    /// It is not a store, of an unknown format, or damaged.
    Corrupt(String),
    /// A wrapping key that does not open this store, or cannot be had.
    Key(String),
    /// Reading or writing failed otherwise.
    Io(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(table, key) => {
                write!(f, "{} {} was changed meanwhile", table.as_str(), key.escape_ascii())
            }
            Self::Locked(detail) => write!(f, "the store is open in another process: {detail}"),
            Self::Full(detail) => write!(f, "the disk is full: {detail}"),
            Self::Corrupt(detail) => write!(f, "the store is damaged: {detail}"),
            Self::Key(detail) => write!(f, "the store's wrapping key: {detail}"),
            Self::Io(detail) => write!(f, "the store cannot be used: {detail}"),
        }
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod memory;
#[cfg(test)]
pub use memory::MemoryStore;
