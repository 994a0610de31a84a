//! Workspaces: the declared one and those made through the API.

use super::{Operations, Page, PageOf, Precondition, Versioned, Written, unbuilt};
use crate::catalog::{WorkspaceEntry, WorkspaceSpec};
use crate::management::{Caller, Refusal};

#[allow(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
    pub fn put_workspace(
        &self,
        caller: &Caller,
        name: &str,
        spec: WorkspaceSpec,
        precondition: Precondition,
    ) -> Result<(Versioned<WorkspaceEntry>, Written), Refusal> {
        unbuilt()
    }
    pub fn workspace(&self, caller: &Caller, name: &str) -> Result<Versioned<WorkspaceEntry>, Refusal> {
        unbuilt()
    }
    /// The workspace that SDK clients name by subscription, resource group and name, all without regard to case.
    pub fn azure_workspace(
        &self,
        caller: &Caller,
        subscription: &str,
        resource_group: &str,
        name: &str,
    ) -> Result<Versioned<WorkspaceEntry>, Refusal> {
        unbuilt()
    }
    /// Those that the caller may see.
    pub fn workspaces(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<PageOf<Versioned<WorkspaceEntry>>, Refusal> {
        unbuilt()
    }
    /// Refused while it holds services.
    pub fn delete_workspace(
        &self,
        caller: &Caller,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        unbuilt()
    }
}
