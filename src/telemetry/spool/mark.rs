//! How far a spool has come in the activity log.

use std::io;

use super::cursor::Cursor;
use super::folder::Folder;

/// The sequence of the last event that came into the spool, and of the last one that the disk has for certain, which is
/// where the next process goes on.
pub(super) struct EventMark {
    /// `None`: in memory only.
    file: Option<Cursor>,
    reached: Option<u64>,
    kept: Option<u64>,
}

impl EventMark {
    pub(super) fn open(folder: Option<&dyn Folder>) -> io::Result<Self> {
        let Some(folder) = folder else { return Ok(Self { file: None, reached: None, kept: None }) };
        let (file, reached) = Cursor::open(folder.events()?)?;
        Ok(Self { file: Some(file), reached, kept: reached })
    }

    pub(super) fn reached(&self) -> Option<u64> {
        self.reached
    }

    pub(super) fn advance(&mut self, reached: u64) {
        self.reached = Some(reached);
    }

    /// Writes the place down.
    pub(super) fn keep(&mut self, reached: u64) {
        let Some(file) = self.file.as_mut().filter(|_| self.kept != Some(reached)) else { return };
        match file.write(reached) {
            Ok(()) => self.kept = Some(reached),
            // The next process takes some events again; their sequence tells.
            Err(error) => tracing::debug!(%error, "the place in the activity log cannot be written"),
        }
    }
}
