//! Who holds which role where, and custom roles.

use super::{Operations, Page, PageOf, Precondition, Versioned, Written, unbuilt};
use crate::catalog::{CustomRole, Grantee, RoleAssignment, Scope};
use crate::management::{Caller, Refusal};

#[allow(clippy::missing_errors_doc, unused_variables, clippy::needless_pass_by_value, reason = "seam")]
impl Operations {
    pub fn role_assignments(
        &self,
        caller: &Caller,
        scope: &Scope,
        page: &Page,
    ) -> Result<PageOf<RoleAssignment>, Refusal> {
        unbuilt()
    }
    /// Gives a role; `id` must be a UUID. The caller must hold all that the role allows.
    pub fn put_role_assignment(
        &self,
        caller: &Caller,
        id: &str,
        scope: Scope,
        grantee: Grantee,
        role: &str,
    ) -> Result<(RoleAssignment, Written), Refusal> {
        unbuilt()
    }
    pub fn delete_role_assignment(&self, caller: &Caller, scope: &Scope, id: &str) -> Result<(), Refusal> {
        unbuilt()
    }
    /// Custom roles; the built-in ones are `catalog::BuiltInRole`.
    pub fn custom_roles(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<PageOf<Versioned<CustomRole>>, Refusal> {
        unbuilt()
    }
    /// Makes or changes a custom role. The caller must hold all that it allows.
    pub fn put_custom_role(
        &self,
        caller: &Caller,
        name: &str,
        description: String,
        actions: Vec<String>,
        not_actions: Vec<String>,
        precondition: Precondition,
    ) -> Result<(Versioned<CustomRole>, Written), Refusal> {
        unbuilt()
    }
    /// Refused while it is assigned.
    pub fn delete_custom_role(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        unbuilt()
    }
}
