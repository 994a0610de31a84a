//! Workspaces: the declared one and those made through the API.

use time::OffsetDateTime;

use super::page::{Candidate, merged};
use super::place::{no_workspace, provenance, shown};
use super::resource::Resource;
use super::rows::{self, Rows};
use super::{Operations, Page, PageOf, Precondition, Versioned, Written, metadata};
use crate::catalog::{Action, Origin, WorkspaceEntry, WorkspaceSpec};
use crate::management::{Caller, Cause, Refusal};
use crate::proxy::ServiceChanges;
use crate::store::{Order, Range, Table};

/// Bounds of a workspace's name, in characters.
const NAME_LENGTHS: std::ops::RangeInclusive<usize> = 3..=33;

impl Operations {
    /// Makes or changes a workspace. Parts of its Azure identity that are left empty are those of the configuration's
    /// workspace.
    ///
    /// # Errors
    /// [`Cause::ReadOnly`] for the one of the configuration; a name, an identity or tags out of bounds; the precondition.
    pub fn put_workspace(
        &self,
        caller: &Caller,
        name: &str,
        spec: WorkspaceSpec,
        precondition: Precondition,
    ) -> Result<(Versioned<WorkspaceEntry>, Written), Refusal> {
        let spec = self.with_identity(spec);
        let place = self.place(name)?;
        let resource =
            if place.found.is_some() { place.resource } else { Resource::workspace(shown(name), &spec) };
        let done = self.write(caller, Action::WorkspaceWrite, &resource, |batch| {
            let place = self.place(name)?;
            if place.is_declared() {
                return Err(declared(name));
            }
            check_name(name)?;
            metadata::check_workspace(&spec)?;
            let before = place.found;
            let expect = precondition.judge(before.as_ref().map(|before| before.version), "workspace")?;
            let before = before.map(|before| before.value);
            let entry = WorkspaceEntry {
                name: before.as_ref().map_or_else(|| name.to_owned(), |before| before.name.clone()),
                spec: spec.clone(),
                origin: Origin::Managed,
                provenance: provenance(
                    caller,
                    before.as_ref().map(|before| &before.provenance),
                    OffsetDateTime::now_utc(),
                ),
            };
            batch.expect(Table::Workspaces, place.key.as_str(), expect);
            batch.put(Table::Workspaces, place.key, rows::encode(&entry)?);
            let written = if before.is_some() { Written::Replaced } else { Written::Created };
            Ok(((entry, written), ServiceChanges::default()))
        })?;
        let Versioned { value: (value, written), version } = done;
        Ok((Versioned { value, version }, written))
    }

    /// The workspace called `name`, without regard to case.
    ///
    /// # Errors
    /// No right to see it, or there is none.
    pub fn workspace(&self, caller: &Caller, name: &str) -> Result<Versioned<WorkspaceEntry>, Refusal> {
        caller.check(Action::WorkspaceRead, Some(name))?;
        self.place(name)?.found.ok_or_else(|| no_workspace(name))
    }

    /// The workspace that SDK clients name by subscription, resource group and name, all without regard to case.
    ///
    /// # Errors
    /// As [`Self::workspace`].
    pub fn azure_workspace(
        &self,
        caller: &Caller,
        subscription: &str,
        resource_group: &str,
        name: &str,
    ) -> Result<Versioned<WorkspaceEntry>, Refusal> {
        let found = self.workspace(caller, name)?;
        let spec = &found.value.spec;
        let is_it = spec.subscription.eq_ignore_ascii_case(subscription)
            && spec.resource_group.eq_ignore_ascii_case(resource_group);
        if is_it { Ok(found) } else { Err(no_workspace(name)) }
    }

    /// Those that the caller may see, in the order of their lower-case names.
    ///
    /// # Errors
    /// A page that is none.
    pub fn workspaces(
        &self,
        caller: &Caller,
        page: &Page,
    ) -> Result<PageOf<Versioned<WorkspaceEntry>>, Refusal> {
        let after = page.after()?;
        let declared = self.declared_workspace();
        let declared = (declared.name.to_ascii_lowercase().into_bytes(), declared);
        let is_of_page = after.as_ref().is_none_or(|after| declared.0 > *after);
        let declared = is_of_page.then_some(declared).into_iter().collect();
        let stored = Rows::new(&*self.store, Table::Workspaces, &[], after)
            .map(|row| row.map(|row| (row.key.clone(), row)));
        page.fill(merged(declared, stored), |candidate| {
            let workspace = match candidate {
                Candidate::Declared(value) => Versioned { value, version: 0 },
                Candidate::Stored(row) => rows::decode::<WorkspaceEntry>(Table::Workspaces, &row)?,
            };
            let granted = caller.grants.within(Some(&workspace.value.name));
            Ok(granted.allows(Action::WorkspaceRead).then_some(workspace))
        })
    }

    /// Deletes a workspace that holds no service, with its signing keys, revocations and role assignments: who had a right
    /// in it has none in one that is made by the same name later. What was sealed for it can be opened no more.
    ///
    /// # Errors
    /// [`Cause::Conflict`] while it holds services; [`Cause::ReadOnly`] for the one of the configuration; the precondition.
    pub fn delete_workspace(
        &self,
        caller: &Caller,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        let resource = self.place(name)?.resource;
        self.write(caller, Action::WorkspaceDelete, &resource, |batch| {
            let place = self.place(name)?;
            if place.is_declared() {
                return Err(declared(name));
            }
            let expect = precondition.judge(Some(place.existing()?.version), "workspace")?;
            let prefix = format!("{}/", place.key);
            if self.holds_services(&prefix)? {
                return Err(Refusal::new(
                    Cause::Conflict,
                    format!("workspace {name} holds services; delete them first"),
                ));
            }
            batch.expect(Table::Workspaces, place.key.as_str(), expect);
            batch.remove(Table::Workspaces, place.key.as_str());
            for table in [Table::SigningKeys, Table::Revocations] {
                for row in Rows::new(&*self.store, table, prefix.as_bytes(), None) {
                    batch.remove(table, row?.key);
                }
            }
            self.drop_roles_of(&place.key, batch)?;
            self.sealer.forget(&place.key, batch);
            Ok(((), ServiceChanges::default()))
        })?;
        Ok(())
    }

    fn holds_services(&self, prefix: &str) -> Result<bool, Refusal> {
        let first = self.store.scan(&Range {
            table: Table::ServicesByWorkspace,
            prefix: prefix.as_bytes(),
            after: None,
            limit: 1,
            order: Order::Forwards,
        })?;
        Ok(!first.is_empty())
    }

    fn with_identity(&self, spec: WorkspaceSpec) -> WorkspaceSpec {
        let (_, declared) = &self.settings.workspace;
        let or = |own: String, other: &String| if own.is_empty() { other.clone() } else { own };
        WorkspaceSpec {
            subscription: or(spec.subscription, &declared.subscription),
            resource_group: or(spec.resource_group, &declared.resource_group),
            location: or(spec.location, &declared.location),
            ..spec
        }
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let good = NAME_LENGTHS.contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if good {
        return Ok(());
    }
    Err(Refusal::invalid(
        "name",
        "a workspace's name has 3 to 33 letters, digits, '-' and '_'; choose such a name",
    ))
}

fn declared(name: &str) -> Refusal {
    let message = format!("workspace {name} is declared in the configuration file; change it there");
    Refusal::new(Cause::ReadOnly, message)
}

#[cfg(test)]
mod tests;
