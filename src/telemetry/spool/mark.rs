//! How far a spool has come in the activity log.

use std::io;

use super::cursor::Cursor;
use super::folder::Folder;

/// The sequence of the last event that came into the spool; it outlives the process where the spool does.
pub(super) struct EventMark {
    /// `None`: in memory only.
    file: Option<Cursor>,
    reached: Option<u64>,
}

impl EventMark {
    pub(super) fn open(folder: Option<&dyn Folder>) -> io::Result<Self> {
        let Some(folder) = folder else { return Ok(Self { file: None, reached: None }) };
        let (file, reached) = Cursor::open(folder.events()?)?;
        Ok(Self { file: Some(file), reached })
    }

    pub(super) fn reached(&self) -> Option<u64> {
        self.reached
    }

    pub(super) fn advance(&mut self, reached: u64) {
        self.reached = Some(reached);
        if let Some(Err(error)) = self.file.as_mut().map(|file| file.write(reached)) {
            // The next process takes some events again; their sequence tells.
            tracing::debug!(%error, "the place in the activity log cannot be written");
        }
    }
}
