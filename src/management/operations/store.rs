//! Copies and checks of the store.

use std::path::PathBuf;

use time::OffsetDateTime;
use time::macros::format_description;

use super::Operations;
use super::resource::Resource;
use crate::catalog::Action;
use crate::management::{Caller, Cause, Refusal};
use crate::store::{CheckReport, Table};

impl Operations {
    /// Writes a copy of the store into its own folder, `backup-` and the time in UTC; returns its path. Reads and writes
    /// go on.
    ///
    /// # Errors
    /// Without the right; [`Cause::Conflict`] for a store that is not in a folder; what the store says.
    pub fn backup(&self, caller: &Caller) -> Result<PathBuf, Refusal> {
        self.act(caller, Action::StoreBackup, &Resource::of_gateway("Scoregate/store"), || {
            let folder = self.settings.backup_folder.as_ref().ok_or_else(|| {
                Refusal::new(
                    Cause::Conflict,
                    "this store is copied by its database's own means, not by the gateway",
                )
            })?;
            let path = folder.join(format!("backup-{}.redb", timestamp()?));
            self.store.backup(&path)?;
            Ok(path)
        })
    }

    /// Reads the whole store and compares checksums.
    ///
    /// # Errors
    /// Without the right to back up; what is broken.
    pub fn check_store(&self, caller: &Caller) -> Result<CheckReport, Refusal> {
        caller.check(Action::StoreBackup, None)?;
        Ok(self.store.check()?)
    }

    /// Whether the store answers, for `/readyz`.
    ///
    /// # Errors
    /// It does not.
    pub fn is_ready(&self) -> Result<(), Refusal> {
        self.store.get(Table::Meta, b"ready")?;
        Ok(())
    }
}

/// To the millisecond, so that two copies soon after each other have names of their own.
fn timestamp() -> Result<String, Refusal> {
    let format = format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z");
    OffsetDateTime::now_utc().format(&format).map_err(|error| {
        tracing::error!(%error, "the time cannot be written");
        Refusal::new(Cause::Internal, "the copy could not be named")
    })
}

#[cfg(test)]
mod tests;
