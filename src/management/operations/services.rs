//! Services and their deployments, written: each write is checked whole, stored in one batch and then served.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::keyring::KeyPairRow;
use super::place::{Found, Place, Target, Verb, declared_service, provenance, shown};
use super::project::{auth_mode, project, within};
use super::{Operations, Precondition, SuppliedKeys, Versioned, Written, metadata, rows};
use crate::auth::{AuthSettings, IssuerSettings};
use crate::catalog::{AuthMode, DeploymentSpec, Origin, ServiceEntry, ServiceName, ServiceSpec};
use crate::management::{Caller, Cause, Refusal};
use crate::proxy::{ServiceChanges, ServiceSettings};
use crate::store::{Batch, Expect, Table};

/// What is to become of a service.
struct Wanted<'a> {
    caller: &'a Caller,
    place: &'a Place,
    name: ServiceName,
    /// What is there.
    before: Option<&'a ServiceEntry>,
    /// What must still be true of its row.
    expect: Expect,
    spec: ServiceSpec,
    keys: SuppliedKeys,
}

impl Operations {
    /// Makes or replaces a service, whole. A change of the auth mode is one atomic switch. Keys are made for every new
    /// service whatever its mode, so that a switch to `key` has some. Keys that come with the replacement of a service
    /// replace its keys, for which the right to regenerate them is needed too.
    ///
    /// # Errors
    /// The first field that is wrong; [`Cause::AlreadyExists`] for a name or host that another service has;
    /// [`Cause::Conflict`] for another compute type; [`Cause::ReadOnly`]; the precondition.
    #[expect(clippy::too_many_arguments, reason = "where, what and on which condition")]
    #[expect(clippy::needless_pass_by_value, reason = "what is asked for is handed over")]
    pub fn put_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        spec: ServiceSpec,
        keys: SuppliedKeys,
        precondition: Precondition,
    ) -> Result<(Versioned<ServiceEntry>, Written), Refusal> {
        let resource = self.place(workspace)?.resource.service(spec.compute_type, shown(name));
        let done = self.write(caller, Verb::Write.on(spec.compute_type), &resource, |batch| {
            let place = self.place(workspace)?;
            place.hold(batch)?;
            let name = ServiceName::parse(name)
                .map_err(|error| Refusal::invalid("name", format!("{error}; choose another name")))?;
            let before = self.service_to_replace(&place, &name)?;
            let version = before.as_ref().map(|before| before.version);
            let expect = precondition.judge(version, format_args!("service '{name}'"))?;
            let written = if before.is_some() { Written::Replaced } else { Written::Created };
            let (entry, changes) = self.save(
                &Wanted {
                    caller,
                    place: &place,
                    name,
                    before: before.as_ref().map(|before| &before.value),
                    expect,
                    spec: spec.clone(),
                    keys: keys.clone(),
                },
                batch,
            )?;
            Ok(((entry, written), changes))
        })?;
        let Versioned { value: (value, written), version } = done;
        Ok((Versioned { value, version }, written))
    }

    /// Reads, lets `change` make a new spec of what was read, and writes it, atomically. `change` may run several times.
    ///
    /// # Errors
    /// [`Cause::NotFound`]; what `change` refuses; as [`Self::put_service`].
    #[expect(clippy::too_many_arguments, reason = "where, what and on which condition")]
    pub fn change_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        precondition: Precondition,
        change: &dyn Fn(&ServiceEntry) -> Result<ServiceSpec, Refusal>,
    ) -> Result<Versioned<ServiceEntry>, Refusal> {
        let target = self.target(caller, &self.place(workspace)?, name, Verb::Write)?;
        let done = self.alter(caller, (workspace, name), &target, |service| {
            precondition.judge(Some(service.version), format_args!("service '{name}'"))?;
            Ok((change(&service.value)?, ()))
        })?;
        Ok(Versioned { value: done.value.0, version: done.version })
    }

    /// Deletes a service with its keys.
    ///
    /// # Errors
    /// [`Cause::NotFound`], [`Cause::ReadOnly`], the precondition.
    pub fn delete_service(
        &self,
        caller: &Caller,
        workspace: &str,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        let target = self.target(caller, &self.place(workspace)?, name, Verb::Delete)?;
        self.write(caller, target.action, &target.resource, |batch| {
            let Found { place, name, service } = self.find_to_change(workspace, name, &target, batch)?;
            let expect = precondition.judge(Some(service.version), format_args!("service '{name}'"))?;
            batch.expect(Table::Services, name.as_str(), expect);
            batch.remove(Table::Services, name.as_str());
            batch.remove(Table::ServicesByWorkspace, format!("{}/{name}", place.key));
            batch.remove(Table::Keys, name.as_str());
            Ok(((), ServiceChanges { upsert: vec![], remove: vec![name] }))
        })?;
        Ok(())
    }

    /// Makes or replaces one deployment of a service. A version in the precondition is the service's.
    ///
    /// # Errors
    /// As [`Self::put_service`].
    #[expect(clippy::too_many_arguments, reason = "where, what and on which condition")]
    #[expect(clippy::needless_pass_by_value, reason = "what is asked for is handed over")]
    pub fn put_deployment(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        name: &str,
        spec: DeploymentSpec,
        precondition: Precondition,
    ) -> Result<(Versioned<ServiceEntry>, Written), Refusal> {
        let target = self.target(caller, &self.place(workspace)?, service, Verb::Write)?.deployment(name);
        let done = self.alter(caller, (workspace, service), &target, |service| {
            let name = ServiceName::parse(name)
                .map_err(|error| Refusal::invalid("name", format!("{error}; choose another name")))?;
            let is_there = service.value.spec.deployments.contains_key(&name);
            let judged_by = is_there || matches!(precondition, Precondition::Version(_));
            precondition.judge(judged_by.then_some(service.version), format_args!("deployment '{name}'"))?;
            let mut whole = service.value.spec.clone();
            whole.deployments.insert(name, spec.clone());
            Ok((whole, if is_there { Written::Replaced } else { Written::Created }))
        })?;
        let Versioned { value: (value, written), version } = done;
        Ok((Versioned { value, version }, written))
    }

    /// Deletes one deployment of a service. A version in the precondition is the service's.
    ///
    /// # Errors
    /// [`Cause::NotFound`]; [`Cause::Conflict`] while it takes traffic that others would have to take; the precondition.
    #[expect(clippy::too_many_arguments, reason = "where, what and on which condition")]
    pub fn delete_deployment(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        name: &str,
        precondition: Precondition,
    ) -> Result<(), Refusal> {
        let target = self.target(caller, &self.place(workspace)?, service, Verb::Delete)?.deployment(name);
        self.alter(caller, (workspace, service), &target, |service| {
            let mut whole = service.value.spec.clone();
            let gone = whole
                .deployments
                .remove(name)
                .ok_or_else(|| Refusal::not_found(format_args!("deployment '{}'", shown(name))))?;
            precondition.judge(Some(service.version), format_args!("deployment '{name}'"))?;
            if gone.traffic > 0 && !whole.deployments.is_empty() {
                let traffic = gone.traffic;
                let message = format!(
                    "deployment {name} takes {traffic} percent of the traffic; give it to others first"
                );
                return Err(Refusal::new(Cause::Conflict, message));
            }
            Ok((whole, ()))
        })?;
        Ok(())
    }

    /// Writes what `change` makes of a stored service.
    fn alter<T>(
        &self,
        caller: &Caller,
        (workspace, name): (&str, &str),
        target: &Target,
        change: impl Fn(&Versioned<ServiceEntry>) -> Result<(ServiceSpec, T), Refusal>,
    ) -> Result<Versioned<(ServiceEntry, T)>, Refusal> {
        self.write(caller, target.action, &target.resource, |batch| {
            let Found { place, name, service } = self.find_to_change(workspace, name, target, batch)?;
            let (spec, more) = change(&service)?;
            let (entry, changes) = self.save(
                &Wanted {
                    caller,
                    place: &place,
                    name,
                    before: Some(&service.value),
                    expect: Expect::Version(service.version),
                    spec,
                    keys: SuppliedKeys::default(),
                },
                batch,
            )?;
            Ok(((entry, more), changes))
        })
    }

    /// The service that one called `name` would replace.
    ///
    /// # Errors
    /// The name is taken by a declared service or in another workspace.
    fn service_to_replace(
        &self,
        place: &Place,
        name: &ServiceName,
    ) -> Result<Option<Versioned<ServiceEntry>>, Refusal> {
        let taken = || {
            let message =
                format!("another workspace of this gateway has a service called {name}; choose another name");
            Refusal { target: Some("name".into()), ..Refusal::new(Cause::AlreadyExists, message) }
        };
        if self.published.declared(name.as_str()).is_some() {
            return Err(if place.is_declared() { declared_service(name.as_str()) } else { taken() });
        }
        let found: Option<Versioned<ServiceEntry>> = rows::get(&*self.store, Table::Services, name.as_str())?;
        let Some(before) = found else { return Ok(None) };
        if !before.value.workspace.eq_ignore_ascii_case(&place.key) {
            return Err(taken());
        }
        Ok(Some(before))
    }

    /// Checks what is wanted, puts it into `batch`, and tells what the data plane is to serve.
    fn save(
        &self,
        wanted: &Wanted<'_>,
        batch: &mut Batch,
    ) -> Result<(ServiceEntry, ServiceChanges), Refusal> {
        let Wanted { caller, place, name, before, spec, .. } = wanted;
        let now = OffsetDateTime::now_utc();
        if let Some(before) = before {
            same_compute_type(before, spec)?;
        }
        metadata::check_service(spec)?;
        self.check_collection(spec)?;
        let lifetime = self.token_lifetime(spec)?;
        let mode = auth_mode(spec)?;
        let keys = self.save_keys(wanted, now, batch)?;
        let auth = match mode {
            AuthMode::Key => AuthSettings::Key(keys.settings()?),
            AuthMode::Token => AuthSettings::Token(self.verification(&place.key, lifetime, now, batch)?),
            AuthMode::None | AuthMode::Oidc => AuthSettings::None,
        };
        let settings = project(name, spec, auth, &self.replicas)?;
        self.check_hosts(&settings)?;
        let entry = ServiceEntry {
            name: name.clone(),
            workspace: place.existing()?.value.name.clone(),
            spec: spec.clone(),
            origin: Origin::Managed,
            provenance: provenance(caller, before.map(|before| &before.provenance), now),
        };
        batch.expect(Table::Services, name.as_str(), wanted.expect);
        batch.put(Table::Services, name.as_str(), rows::encode(&entry)?);
        if before.is_none() {
            batch.put(Table::ServicesByWorkspace, format!("{}/{name}", place.key), []);
        }
        Ok((entry, ServiceChanges { upsert: vec![Arc::new(settings)], remove: vec![] }))
    }

    /// The keys that the service is saved with.
    fn save_keys(
        &self,
        wanted: &Wanted<'_>,
        now: OffsetDateTime,
        batch: &mut Batch,
    ) -> Result<KeyPairRow, Refusal> {
        let Wanted { caller, place, name, before, spec, keys, .. } = wanted;
        let owner = self.owner(place, name);
        if before.is_none() {
            let pair = KeyPairRow::new(&owner, keys.clone(), now)?;
            batch.put(Table::Keys, name.as_str(), rows::encode(&pair)?);
            return Ok(pair);
        }
        let Versioned { value: mut pair, version } = self.stored_keys(name)?;
        batch.expect(Table::Keys, name.as_str(), Expect::Version(version));
        if pair.supply(&owner, keys.clone(), now)? {
            caller.check(Verb::RegenerateKeys.on(spec.compute_type), place.resource.scope())?;
            batch.put(Table::Keys, name.as_str(), rows::encode(&pair)?);
        }
        Ok(pair)
    }

    fn check_hosts(&self, settings: &ServiceSettings) -> Result<(), Refusal> {
        let Some(position) = self.published.taken_host(&settings.name, &settings.hosts) else {
            return Ok(());
        };
        let message = format!("another service of this gateway has the host {}", settings.hosts[position]);
        let target = Some(format!("hosts[{position}]"));
        Err(Refusal { target, ..Refusal::new(Cause::AlreadyExists, message) })
    }

    /// How long tokens of a service of `spec` last.
    ///
    /// # Errors
    /// Out of bounds.
    pub(super) fn token_lifetime(&self, spec: &ServiceSpec) -> Result<Duration, Refusal> {
        let Some(seconds) = spec.token_lifetime_s else { return Ok(self.settings.token_lifetime) };
        let bounds = IssuerSettings::LIFETIMES.start().as_secs()..=IssuerSettings::LIFETIMES.end().as_secs();
        within("token_lifetime_s", u64::from(seconds), &bounds).map(Duration::from_secs)
    }
}

fn same_compute_type(before: &ServiceEntry, spec: &ServiceSpec) -> Result<(), Refusal> {
    if before.spec.compute_type == spec.compute_type {
        return Ok(());
    }
    let message = format!(
        "service {} is of compute type {}, which cannot change; delete it first, or use another name",
        before.name, before.spec.compute_type
    );
    Err(Refusal { target: Some("compute_type".into()), ..Refusal::new(Cause::Conflict, message) })
}

#[cfg(test)]
mod tests;
