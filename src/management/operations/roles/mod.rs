//! Who holds which role where: assignments. Nobody can grant what they do not have.

mod custom;
mod index;

use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::resource::Resource;
use super::rows::encode;
use super::{Operations, Page, PageOf, Written};
use crate::catalog::{Action, ActionSet, BuiltInRole, Grantee, Provenance, RoleAssignment, Scope};
use crate::management::{Caller, Cause, Refusal};
use crate::proxy::ServiceChanges;
use crate::store::{Batch, Table};

pub(super) use index::{RoleIndex, Roles};

/// Most assignments of one gateway.
const MAX_ASSIGNMENTS: usize = 10_000;

/// Longest name of a principal or group, in bytes (OpenID Connect Core 1.0, section 2, for subjects).
const MAX_NAME: usize = 255;

impl Operations {
    /// Assignments at `scope` itself, in the order of their ids. Those of the gateway, which count in every workspace,
    /// are not among a workspace's.
    ///
    /// # Errors
    /// Without the right to see them at that scope; an unknown workspace.
    pub fn role_assignments(
        &self,
        caller: &Caller,
        scope: &Scope,
        page: &Page,
    ) -> Result<PageOf<RoleAssignment>, Refusal> {
        caller.check(Action::RoleAssignmentRead, workspace(scope))?;
        self.check_place(scope)?;
        let scope = lower(scope.clone());
        let roles = self.current_roles()?;
        let after = page.after()?.unwrap_or_default();
        let rest = roles
            .assignments()
            .values()
            .filter(|it| it.scope == scope && it.id.as_bytes() > after.as_slice());
        page.fill(rest.map(|it| Ok((it.id.clone().into_bytes(), it))), |it| Ok(Some(it.clone())))
    }

    /// Gives a role; `id` must be a UUID. The caller must hold, at that scope, all that the role allows.
    ///
    /// An assignment does not change: the same again is [`Written::Replaced`], another one under the same id is refused
    /// (Azure REST contract, `RoleAssignmentUpdateNotPermitted`), and so is the same one under another id
    /// (`RoleAssignmentExists`).
    ///
    /// # Errors
    /// [`Cause::Escalation`] as told; a wrong id, grantee or role by its field; an unknown workspace.
    #[expect(clippy::too_many_arguments, reason = "who gives what to whom where, under which id")]
    pub fn put_role_assignment(
        &self,
        caller: &Caller,
        id: &str,
        scope: Scope,
        grantee: Grantee,
        role: &str,
    ) -> Result<(RoleAssignment, Written), Refusal> {
        let resource = self.assignment_resource(&scope, id)?;
        let wanted = RoleAssignment {
            id: id.to_owned(),
            scope: lower(scope),
            grantee,
            role: role.to_owned(),
            provenance: made_by(&caller.principal),
        };
        let written = self.write(caller, Action::RoleAssignmentWrite, &resource, |batch| {
            self.check_place(&wanted.scope)?;
            let id = Uuid::parse_str(&wanted.id)
                .map_err(|_| Refusal::invalid("id", "an assignment's id is a UUID"))?;
            check_grantee(&wanted.grantee)?;
            let roles = self.current_roles()?;
            let role = roles.role(&wanted.role).ok_or_else(|| unknown_role(&wanted.role))?;
            check_escalation(caller.grants.within(workspace(&wanted.scope)), role.actions)?;
            let wanted = RoleAssignment { id: id.to_string(), role: role.name, ..wanted.clone() };
            let written = place(&roles, wanted)?;
            if written.1 == Written::Created {
                insert(&roles, &written.0, batch)?;
            }
            Ok((written, ServiceChanges::default()))
        })?;
        Ok(written.value)
    }

    /// Takes a role away.
    ///
    /// # Errors
    /// There is no such assignment at that scope; [`Cause::Conflict`] if it is the last Owner of the gateway.
    pub fn delete_role_assignment(&self, caller: &Caller, scope: &Scope, id: &str) -> Result<(), Refusal> {
        let resource = self.assignment_resource(scope, id)?;
        self.write(caller, Action::RoleAssignmentDelete, &resource, |batch| {
            let (roles, scope) = (self.current_roles()?, lower(scope.clone()));
            let id = id.to_ascii_lowercase();
            let found = roles.assignments().get(&id).filter(|it| it.scope == scope);
            let found = found.ok_or_else(|| Refusal::not_found(format!("role assignment {id}")))?;
            if roles.has_owner(None) && !roles.has_owner(Some(&found.id)) {
                return Err(Refusal::new(
                    Cause::Conflict,
                    "it is the last assignment of Owner on the gateway; give that role to somebody else first",
                ));
            }
            roles.outdate(batch);
            batch.remove(Table::RoleAssignments, id);
            Ok(((), ServiceChanges::default()))
        })?;
        Ok(())
    }

    /// Lets `batch`, which removes a workspace, remove the assignments in it: another workspace of that name must not
    /// come with them.
    pub(super) fn drop_roles_of(&self, workspace: &str, batch: &mut Batch) -> Result<(), Refusal> {
        let (roles, scope) = (self.current_roles()?, lower(Scope::Workspace(workspace.to_owned())));
        roles.outdate(batch);
        for assignment in roles.assignments().values().filter(|it| it.scope == scope) {
            batch.remove(Table::RoleAssignments, assignment.id.as_str());
        }
        Ok(())
    }

    /// Roles as they are now.
    pub(super) fn current_roles(&self) -> Result<Arc<RoleIndex>, Refusal> {
        self.roles.current(&*self.store)
    }

    fn assignment_resource(&self, scope: &Scope, id: &str) -> Result<Resource, Refusal> {
        let path = format!("Microsoft.Authorization/roleAssignments/{id}");
        Ok(match scope {
            Scope::Gateway => Resource::of_gateway(&path),
            Scope::Workspace(name) => self.place(name)?.resource.within(&format!("providers/{path}")),
        })
    }

    /// Whether there is such a place to hold a role in.
    fn check_place(&self, scope: &Scope) -> Result<(), Refusal> {
        match scope {
            Scope::Gateway => Ok(()),
            Scope::Workspace(name) => self.place(name)?.existing().map(drop),
        }
    }
}

/// Adds an assignment to `batch`. The first Owner of the gateway ends the bootstrap: its secret must not lie about as a
/// second way in.
pub(super) fn insert(roles: &RoleIndex, it: &RoleAssignment, batch: &mut Batch) -> Result<(), Refusal> {
    roles.outdate(batch);
    batch.put(Table::RoleAssignments, it.id.as_str(), encode(it)?);
    if it.scope == Scope::Gateway && it.role == BuiltInRole::Owner.as_str() {
        super::principals::end_bootstrap(batch);
    }
    Ok(())
}

/// Whether `wanted` is new, or there already.
fn place(roles: &RoleIndex, wanted: RoleAssignment) -> Result<(RoleAssignment, Written), Refusal> {
    let same = |it: &RoleAssignment| {
        it.scope == wanted.scope && it.grantee == wanted.grantee && it.role.eq_ignore_ascii_case(&wanted.role)
    };
    if let Some(found) = roles.assignments().get(&wanted.id) {
        if same(found) {
            return Ok((found.clone(), Written::Replaced));
        }
        return Err(Refusal::new(
            Cause::Conflict,
            "an assignment of this id gives something else; assignments do not change: delete it and make a new one",
        ));
    }
    if let Some(found) = roles.assignments().values().find(|it| same(it)) {
        let message =
            format!("the same role is given to the same one at this scope already, by {}", found.id);
        return Err(Refusal::new(Cause::AlreadyExists, message));
    }
    if roles.assignments().len() >= MAX_ASSIGNMENTS {
        let message = format!("there are {MAX_ASSIGNMENTS} role assignments; delete some first");
        return Err(Refusal::new(Cause::Conflict, message));
    }
    Ok((wanted, Written::Created))
}

/// Refuses to grant `wanted` by somebody who holds `held`.
pub(super) fn check_escalation(held: ActionSet, wanted: ActionSet) -> Result<(), Refusal> {
    match wanted.without(held).iter().next() {
        None => Ok(()),
        Some(action) => Err(Refusal::new(
            Cause::Escalation,
            format!("nobody can grant what they do not have, and you do not have {action} there"),
        )),
    }
}

fn check_grantee(grantee: &Grantee) -> Result<(), Refusal> {
    let (field, name) = match grantee {
        Grantee::Principal(name) => ("grantee.principal", name),
        Grantee::Group(name) => ("grantee.group", name),
    };
    check_name(field, name)
}

/// The rule of names of principals and groups: 1 to 255 bytes, no control characters, no blank at either end.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    let fits = (1..=MAX_NAME).contains(&name.len()) && name.trim() == name;
    if fits && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Refusal::invalid(field, "it has 1 to 255 bytes, no control characters and no blank at either end"))
}

fn unknown_role(name: &str) -> Refusal {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Refusal::invalid(
        "role",
        format!("there is no role '{shown}': it is Owner, Contributor, Reader or a custom one"),
    )
}

/// Made just now.
pub(super) fn made_by(principal: &str) -> Provenance {
    let now = OffsetDateTime::now_utc();
    Provenance {
        created_at: now,
        created_by: principal.to_owned(),
        updated_at: now,
        updated_by: principal.to_owned(),
    }
}

fn workspace(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::Gateway => None,
        Scope::Workspace(name) => Some(name),
    }
}

fn lower(scope: Scope) -> Scope {
    match scope {
        Scope::Gateway => Scope::Gateway,
        Scope::Workspace(name) => Scope::Workspace(name.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests;
