//! Services as they are read: the declared ones and the stored ones as one list.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::page::{Candidate, merged};
use super::place::{Place, Verb, no_service};
use super::rows::Rows;
use super::{Operations, Page, PageOf, ServiceFilter, Versioned, declared};
use crate::catalog::{ComputeType, ServiceEntry};
use crate::management::{Caller, Refusal};
use crate::proxy::ServiceSettings;
use crate::store::Table;

impl Operations {
    /// The service called `name`.
    ///
    /// # Errors
    /// No right to see services of this workspace; there is none that the caller may see.
    pub fn service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
    ) -> Result<Versioned<ServiceEntry>, Refusal> {
        let place = self.place(workspace)?;
        let target = self.target(caller, &place, name, Verb::Read)?;
        if let Err(refusal) = caller.check(target.action, place.resource.scope()) {
            let sees_others = reads_any(caller, &place);
            return Err(if sees_others { no_service(name) } else { refusal });
        }
        place.existing()?;
        if let Some(settings) = self.published.declared(name) {
            return if place.is_declared() {
                Ok(self.declared_entry(&settings))
            } else {
                Err(no_service(name))
            };
        }
        self.stored_service(&place, name)?.ok_or_else(|| no_service(name))
    }

    /// The services of a workspace that the caller may see and that pass `filter`, in the order of their names.
    ///
    /// # Errors
    /// No right to see services of this workspace; no such workspace; a page that is none.
    pub fn services(
        &self,
        caller: &Caller,
        workspace: &str,
        filter: &ServiceFilter,
        page: &Page,
    ) -> Result<PageOf<Versioned<ServiceEntry>>, Refusal> {
        let place = self.place(workspace)?;
        if !reads_any(caller, &place) {
            caller.check(Verb::Read.on(ComputeType::Aks), place.resource.scope())?;
        }
        place.existing()?;
        let granted = caller.grants.within(place.resource.scope());
        let after = page.after()?;
        let prefix = format!("{}/", place.key);
        let from = after.as_ref().map(|after| [prefix.as_bytes(), after].concat());
        let stored = Rows::new(&*self.store, Table::ServicesByWorkspace, prefix.as_bytes(), from)
            .map(|row| row.map(|row| (row.key[prefix.len()..].to_vec(), row)));
        let candidates = merged(self.declared_in(&place, after.as_deref()), stored).map(|candidate| {
            let (key, candidate) = candidate?;
            Ok((key.clone(), (key, candidate)))
        });
        page.fill(candidates, |(key, candidate)| {
            let service = match candidate {
                Candidate::Declared(settings) => Some(self.declared_entry(&settings)),
                // `None`: it has gone since.
                Candidate::Stored(_) => self.stored_service(&place, &String::from_utf8_lossy(&key))?,
            };
            Ok(service.filter(|service| {
                granted.allows(Verb::Read.on(service.value.spec.compute_type))
                    && filter.accepts(&service.value)
            }))
        })
    }

    /// The declared services of a workspace after the name `after`, in the order of their names.
    fn declared_in(&self, place: &Place, after: Option<&[u8]>) -> Vec<(Vec<u8>, Arc<ServiceSettings>)> {
        if !place.is_declared() {
            return Vec::new();
        }
        let declared = self.published.data_plane().declared();
        let mut of_page: Vec<_> = declared
            .iter()
            .map(|settings| (settings.name.as_str().as_bytes().to_vec(), Arc::clone(settings)))
            .filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after))
            .collect();
        of_page.sort_by(|(one, _), (two, _)| one.cmp(two));
        of_page
    }

    pub(super) fn declared_entry(&self, settings: &ServiceSettings) -> Versioned<ServiceEntry> {
        let (workspace, _) = &self.settings.workspace;
        Versioned { value: declared::entry(settings, workspace, self.declared_provenance()), version: 0 }
    }
}

/// Whether the caller may see services of some compute type there.
fn reads_any(caller: &Caller, place: &Place) -> bool {
    let granted = caller.grants.within(place.resource.scope());
    [ComputeType::Aks, ComputeType::Managed].into_iter().any(|it| granted.allows(Verb::Read.on(it)))
}

impl ServiceFilter {
    fn accepts(&self, service: &ServiceEntry) -> bool {
        let spec = &service.spec;
        self.compute_type.is_none_or(|compute_type| compute_type == spec.compute_type)
            && has_all(&spec.tags, &self.tags)
            && has_all(&spec.properties, &self.properties)
    }
}

fn has_all(entries: &BTreeMap<String, String>, wanted: &[(String, Option<String>)]) -> bool {
    wanted.iter().all(|(name, value)| {
        entries.get(name).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
    })
}

#[cfg(test)]
mod tests;
