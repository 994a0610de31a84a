//! The activity log as it is read.

mod chain;

use super::{
    ActivityEvent, ActivityFilter, ActivityVerdict, OperationStatus, Operations, Page, PageOf, unbuilt,
};
use crate::management::{Caller, Refusal};

pub(super) use chain::{Entry, Tail, is_head, prune};

#[allow(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
    /// Newest first.
    pub fn activity(
        &self,
        caller: &Caller,
        filter: &ActivityFilter,
        page: &Page,
    ) -> Result<PageOf<ActivityEvent>, Refusal> {
        unbuilt()
    }
    /// Reads the whole chain.
    pub fn verify_activity(&self, caller: &Caller) -> Result<ActivityVerdict, Refusal> {
        unbuilt()
    }
    /// The operation of that id, if it was the caller's or the caller may read the log.
    pub fn operation(&self, caller: &Caller, id: &str) -> Result<OperationStatus, Refusal> {
        unbuilt()
    }
}
