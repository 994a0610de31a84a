//! Copies and checks of the store.

use super::{Operations, unbuilt};
use crate::management::{Caller, Refusal};
use crate::store::CheckReport;

#[allow(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
    /// Writes a copy of the store into its own folder; returns its path.
    pub fn backup(&self, caller: &Caller) -> Result<std::path::PathBuf, Refusal> {
        unbuilt()
    }
    pub fn check_store(&self, caller: &Caller) -> Result<CheckReport, Refusal> {
        unbuilt()
    }
    /// Whether the store answers, for `/readyz`.
    pub fn is_ready(&self) -> Result<(), Refusal> {
        unbuilt()
    }
}
