//! Where an operation takes place: its workspace, its service, and the right that the service's compute type asks for.

use time::OffsetDateTime;

use super::resource::Resource;
use super::{Operations, Versioned, rows};
use crate::catalog::{
    Action, ComputeType, Origin, Provenance, ServiceEntry, ServiceName, WorkspaceEntry, WorkspaceSpec,
};
use crate::management::{Caller, Cause, Refusal};
use crate::store::{Batch, Expect, Table};

/// Who made what is declared.
const CONFIGURATION: &str = "configuration";
/// Longest part of a name that comes from a caller and is kept in the activity log, in bytes.
const MAX_SHOWN: usize = 100;

/// A workspace as an operation finds it.
pub(super) struct Place {
    /// Its key in the store: the name in lower case.
    pub(super) key: String,
    /// What the activity log calls it.
    pub(super) resource: Resource,
    /// `None`: there is none.
    pub(super) found: Option<Versioned<WorkspaceEntry>>,
}

impl Place {
    /// Whether it is the workspace of the configuration.
    pub(super) fn is_declared(&self) -> bool {
        self.found.as_ref().is_some_and(|found| found.value.origin == Origin::Declared)
    }

    /// The workspace, which must be there.
    ///
    /// # Errors
    /// [`Cause::NotFound`].
    pub(super) fn existing(&self) -> Result<&Versioned<WorkspaceEntry>, Refusal> {
        self.found.as_ref().ok_or_else(|| no_workspace(self.resource.scope().unwrap_or_default()))
    }

    /// Makes `batch` count only while the workspace is as it was found.
    ///
    /// # Errors
    /// [`Cause::NotFound`].
    pub(super) fn hold(&self, batch: &mut Batch) -> Result<(), Refusal> {
        let version = self.existing()?.version;
        if !self.is_declared() {
            batch.expect(Table::Workspaces, self.key.as_str(), Expect::Version(version));
        }
        Ok(())
    }
}

/// What callers do to services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Read,
    Write,
    Delete,
    ListKeys,
    RegenerateKeys,
}

impl Verb {
    /// The right that it takes.
    pub(super) const fn on(self, compute_type: ComputeType) -> Action {
        match (self, compute_type) {
            (Self::Read, ComputeType::Aci | ComputeType::Aks) => Action::ServiceRead,
            (Self::Read, ComputeType::Managed) => Action::EndpointRead,
            (Self::Write, ComputeType::Aci) => Action::AciWrite,
            (Self::Write, ComputeType::Aks) => Action::AksWrite,
            (Self::Write, ComputeType::Managed) => Action::EndpointWrite,
            (Self::Delete, ComputeType::Aci) => Action::AciDelete,
            (Self::Delete, ComputeType::Aks) => Action::AksDelete,
            (Self::Delete, ComputeType::Managed) => Action::EndpointDelete,
            (Self::ListKeys, ComputeType::Aci) => Action::AciListKeys,
            (Self::ListKeys, ComputeType::Aks) => Action::AksListKeys,
            (Self::ListKeys, ComputeType::Managed) => Action::EndpointListKeys,
            (Self::RegenerateKeys, ComputeType::Aci) => Action::AciRegenerateKeys,
            (Self::RegenerateKeys, ComputeType::Aks) => Action::AksRegenerateKeys,
            (Self::RegenerateKeys, ComputeType::Managed) => Action::EndpointRegenerateKeys,
        }
    }
}

/// What an operation is about, as far as it is known before it is authorised.
pub(super) struct Target {
    /// What the activity log calls it.
    pub(super) resource: Resource,
    /// Of the service, or a guess if there is none.
    pub(super) compute_type: ComputeType,
    /// The right that it takes.
    pub(super) action: Action,
}

impl Target {
    /// The same right for a part of the service.
    pub(super) fn deployment(self, name: &str) -> Self {
        Self { resource: self.resource.deployment(shown(name)), ..self }
    }
}

/// A stored service as a write finds it.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) name: ServiceName,
    pub(super) service: Versioned<ServiceEntry>,
}

impl Operations {
    /// The workspace called `name`, without regard to case. Nobody's rights are asked.
    pub(super) fn place(&self, name: &str) -> Result<Place, Refusal> {
        let (declared, spec) = &self.settings.workspace;
        let key = name.to_ascii_lowercase();
        let found = if key == declared.to_ascii_lowercase() {
            Some(Versioned { value: self.declared_workspace(), version: 0 })
        } else {
            rows::get(&*self.store, Table::Workspaces, &key)?
        };
        let resource = match &found {
            Some(Versioned { value, .. }) => Resource::workspace(&value.name, &value.spec),
            None => Resource::workspace(
                shown(name),
                &WorkspaceSpec {
                    subscription: spec.subscription.clone(),
                    resource_group: spec.resource_group.clone(),
                    ..WorkspaceSpec::default()
                },
            ),
        };
        Ok(Place { key, resource, found })
    }

    /// The workspace of the configuration.
    pub(super) fn declared_workspace(&self) -> WorkspaceEntry {
        let (name, spec) = &self.settings.workspace;
        WorkspaceEntry {
            name: name.clone(),
            spec: spec.clone(),
            origin: Origin::Declared,
            provenance: self.declared_provenance(),
        }
    }

    /// What is declared is as old as this process.
    pub(super) fn declared_provenance(&self) -> Provenance {
        Provenance {
            created_at: self.started_at,
            created_by: CONFIGURATION.into(),
            updated_at: self.started_at,
            updated_by: CONFIGURATION.into(),
        }
    }

    /// What doing `verb` to service `name` is about. Without such a service, it is taken for one of a compute type for which
    /// the caller has the right, if there is one, so that only those learn of its absence who might have known it.
    pub(super) fn target(
        &self,
        caller: &Caller,
        place: &Place,
        name: &str,
        verb: Verb,
    ) -> Result<Target, Refusal> {
        let granted = caller.grants.within(place.resource.scope());
        let guess = || {
            [ComputeType::Aks, ComputeType::Aci, ComputeType::Managed]
                .into_iter()
                .find(|compute_type| granted.allows(verb.on(*compute_type)))
                .unwrap_or(ComputeType::Aks)
        };
        let compute_type = self.compute_type(place, name)?.unwrap_or_else(guess);
        Ok(Target {
            resource: place.resource.service(compute_type, shown(name)),
            compute_type,
            action: verb.on(compute_type),
        })
    }

    /// The compute type of service `name`, declared or stored, of this workspace.
    pub(super) fn compute_type(&self, place: &Place, name: &str) -> Result<Option<ComputeType>, Refusal> {
        if let Some(declared) = self.published.declared(name) {
            return Ok(place.is_declared().then_some(declared.compute_type));
        }
        Ok(self.stored_service(place, name)?.map(|service| service.value.spec.compute_type))
    }

    /// The stored service called `name`, if it is of this workspace.
    pub(super) fn stored_service(
        &self,
        place: &Place,
        name: &str,
    ) -> Result<Option<Versioned<ServiceEntry>>, Refusal> {
        if ServiceName::parse(name).is_err() {
            return Ok(None);
        }
        let service: Option<Versioned<ServiceEntry>> = rows::get(&*self.store, Table::Services, name)?;
        Ok(service.filter(|service| service.value.workspace.eq_ignore_ascii_case(&place.key)))
    }

    /// The stored service that a write was authorised for as `target`, to be changed by `batch`.
    ///
    /// # Errors
    /// [`Cause::NotFound`]; [`Cause::ReadOnly`] for a declared one; [`Cause::PreconditionFailed`] if another service has
    /// taken its place, which may need other rights.
    pub(super) fn find_to_change(
        &self,
        workspace: &str,
        name: &str,
        target: &Target,
        batch: &mut Batch,
    ) -> Result<Found, Refusal> {
        let place = self.place(workspace)?;
        place.hold(batch)?;
        if place.is_declared() && self.published.declared(name).is_some() {
            return Err(declared_service(name));
        }
        let service = self.stored_service(&place, name)?.ok_or_else(|| no_service(name))?;
        if service.value.spec.compute_type != target.compute_type {
            let message = format!("service {name} was replaced meanwhile; read it again");
            return Err(Refusal::new(Cause::PreconditionFailed, message));
        }
        Ok(Found { place, name: service.value.name.clone(), service })
    }
}

/// A name as the activity log may keep it, whatever a caller sends.
pub(super) fn shown(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_SHOWN)]
}

/// Who changes what, and when.
pub(super) fn provenance(caller: &Caller, before: Option<&Provenance>, now: OffsetDateTime) -> Provenance {
    let by = caller.principal.to_string();
    Provenance {
        created_at: before.map_or(now, |before| before.created_at),
        created_by: before.map_or_else(|| by.clone(), |before| before.created_by.clone()),
        updated_at: now,
        updated_by: by,
    }
}

pub(super) fn no_workspace(name: &str) -> Refusal {
    Refusal::not_found(format_args!("workspace '{}'", shown(name)))
}

pub(super) fn no_service(name: &str) -> Refusal {
    Refusal::not_found(format_args!("service '{}'", shown(name)))
}

pub(super) fn declared_service(name: &str) -> Refusal {
    let message = format!("service {name} is declared in the configuration file; change it there");
    Refusal::new(Cause::ReadOnly, message)
}
