//! Roles made by owners: patterns of Azure's action strings.

use super::super::rows::encode;
use super::super::{Operations, Page, PageOf, Precondition, Versioned, Written};
use super::{MAX_NAME, RoleIndex, check_escalation, made_by};
use crate::catalog::{Action, ActionSet, BuiltInRole, CustomRole, Provenance};
use crate::management::operations::resource::Resource;
use crate::management::{Caller, Cause, Refusal};
use crate::proxy::ServiceChanges;
use crate::store::Table;

/// Most custom roles of one gateway.
const MAX_ROLES: usize = 1_000;

/// Most patterns of one list.
const MAX_PATTERNS: usize = 100;

/// Length of a role's name, in characters.
const NAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=64;

/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 2_048;

impl Operations {
    /// Custom roles in the order of their names; the built-in ones are `catalog::BuiltInRole`. Whoever may see role
    /// definitions anywhere sees all of them, since all can be assigned there.
    ///
    /// # Errors
    /// Without that right.
    pub fn custom_roles(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<PageOf<Versioned<CustomRole>>, Refusal> {
        if !caller.grants.anywhere().allows(Action::RoleDefinitionRead) {
            caller.check(Action::RoleDefinitionRead, None)?;
        }
        let (roles, after) = (self.current_roles()?, page.after()?.unwrap_or_default());
        let rest = roles.custom_roles().iter().filter(|(key, _)| key.as_bytes() > after.as_slice());
        page.fill(rest.map(|(key, role)| Ok((key.clone().into_bytes(), role))), |role| Ok(Some(role.clone())))
    }

    /// Makes or changes a custom role, at once for everybody who has it. The caller must hold, on the gateway, all that
    /// it allows: the role can be, and may already be, assigned anywhere.
    ///
    /// # Errors
    /// [`Cause::Escalation`] as told; a wrong name or pattern by its field; the precondition.
    #[expect(
        clippy::too_many_arguments,
        reason = "a role's own fields, who wants it, and on which condition"
    )]
    pub fn put_custom_role(
        &self,
        caller: &Caller,
        name: &str,
        description: String,
        actions: Vec<String>,
        not_actions: Vec<String>,
        precondition: Precondition,
    ) -> Result<(Versioned<CustomRole>, Written), Refusal> {
        let wanted = CustomRole {
            name: name.to_owned(),
            description,
            actions,
            not_actions,
            provenance: made_by(&caller.principal),
        };
        let done = self.write(caller, Action::RoleDefinitionWrite, &definition(name), |batch| {
            let allowed = check(&wanted)?;
            check_escalation(caller.grants.within(None), allowed)?;
            let roles = self.current_roles()?;
            let found = roles.custom(name);
            precondition.judge(found.map(|role| role.version), "custom role")?;
            let (role, written) = match found {
                Some(found) => (changed(found.value.provenance.clone(), wanted.clone()), Written::Replaced),
                None => (wanted.clone(), Written::Created),
            };
            if written == Written::Created && roles.custom_roles().len() >= MAX_ROLES {
                let message = format!("there are {MAX_ROLES} custom roles; delete some first");
                return Err(Refusal::new(Cause::Conflict, message));
            }
            roles.outdate(batch);
            batch.put(Table::CustomRoles, name.to_ascii_lowercase(), encode(&role)?);
            Ok(((role, written), ServiceChanges::default()))
        })?;
        let (value, written) = done.value;
        Ok((Versioned { value, version: done.version }, written))
    }

    /// Deletes a custom role.
    ///
    /// # Errors
    /// There is none; [`Cause::Conflict`] while it is assigned.
    pub fn delete_custom_role(&self, caller: &Caller, name: &str) -> Result<(), Refusal> {
        self.write(caller, Action::RoleDefinitionDelete, &definition(name), |batch| {
            let roles = self.current_roles()?;
            roles.custom(name).ok_or_else(|| Refusal::not_found(format!("custom role {name}")))?;
            let assigned = times_assigned(&roles, name);
            if assigned > 0 {
                let message = format!("it is assigned {assigned} times; take it away from everybody first");
                return Err(Refusal::new(Cause::Conflict, message));
            }
            roles.outdate(batch);
            batch.remove(Table::CustomRoles, name.to_ascii_lowercase());
            Ok(((), ServiceChanges::default()))
        })?;
        Ok(())
    }
}

fn definition(name: &str) -> Resource {
    Resource::of_gateway(&format!("Microsoft.Authorization/roleDefinitions/{name}"))
}

fn times_assigned(roles: &RoleIndex, name: &str) -> usize {
    roles.assignments().values().filter(|it| it.role.eq_ignore_ascii_case(name)).count()
}

fn changed(old: Provenance, new: CustomRole) -> CustomRole {
    let provenance = Provenance { created_at: old.created_at, created_by: old.created_by, ..new.provenance };
    CustomRole { provenance, ..new }
}

/// What the role allows, if it can be one.
fn check(role: &CustomRole) -> Result<ActionSet, Refusal> {
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let name = &role.name;
    if !NAME_LENGTH.contains(&name.len()) || !name.chars().all(letters) || name.trim() != name {
        return Err(Refusal::invalid(
            "name",
            "a role's name has 3 to 64 letters, digits, blanks, '-' and '_', and no blank at either end",
        ));
    }
    if BuiltInRole::named(name).is_some() {
        return Err(Refusal::invalid("name", format!("{name} is a built-in role")));
    }
    if role.description.len() > MAX_DESCRIPTION {
        return Err(Refusal::invalid("description", format!("it is over {MAX_DESCRIPTION} bytes")));
    }
    let allowed = covered("actions", &role.actions)?.without(covered("not_actions", &role.not_actions)?);
    if allowed == ActionSet::NONE {
        return Err(Refusal::invalid("actions", "the role allows nothing"));
    }
    Ok(allowed)
}

fn covered(field: &str, patterns: &[String]) -> Result<ActionSet, Refusal> {
    if patterns.len() > MAX_PATTERNS {
        return Err(Refusal::invalid(field, format!("there are more than {MAX_PATTERNS} patterns")));
    }
    let mut set = ActionSet::NONE;
    for (place, pattern) in patterns.iter().enumerate() {
        let field = || format!("{field}[{place}]");
        if pattern.len() > MAX_NAME {
            return Err(Refusal::invalid(field(), format!("a pattern has at most {MAX_NAME} bytes")));
        }
        let covers = ActionSet::of_patterns(std::slice::from_ref(pattern), &[]);
        set = set.and(covers.map_err(|_| {
            Refusal::invalid(
                field(),
                format!("'{}' covers no action of this gateway", pattern.escape_debug()),
            )
        })?);
    }
    Ok(set)
}
