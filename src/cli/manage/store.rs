//! The store of a running gateway, for `scoregate store` without `--path`.

use std::process::ExitCode;

use super::Session;
use super::output::Column;

impl Session<'_> {
    /// Has the gateway write a copy of its store into the store's own folder.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn back_up_store(mut self) -> anyhow::Result<ExitCode> {
        let made = self.api.post("/v1/store/backup")?;
        self.out.item(&made, &[("path", "/path")])?;
        Ok(ExitCode::SUCCESS)
    }

    /// Has the gateway read all of its store.
    ///
    /// # Errors
    /// The API's refusal; a damaged store.
    pub(in super::super) fn check_store(mut self) -> anyhow::Result<ExitCode> {
        const COLUMNS: &[Column] = &[("bytes", "/bytes"), ("version", "/version"), ("rows", "/rows")];
        let report = self.api.post("/v1/store/check")?;
        self.out.item(&report, COLUMNS)?;
        Ok(ExitCode::SUCCESS)
    }
}
