//! Keys of services: listed, regenerated, set; and when they were last used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;

use super::answers::Request;
use super::keyring::{KeyPairRow, KeyRow, NewKey, Owner};
use super::place::{Found, Place, Target, Verb, no_service};
use super::{KeyChange, KeyPairView, KeyView, Operations, Versioned, hex, rows};
use crate::auth::AuthSettings;
use crate::catalog::{KeySlot, ServiceEntry, ServiceName};
use crate::management::{Caller, Cause, Refusal};
use crate::proxy::{ServiceChanges, ServiceSettings};
use crate::store::{Batch, Expect, Table};

/// How many services' keys are brought up to date by one commit.
const CHUNK: usize = 200;

/// When the primary and the secondary key last let a call in.
type LastUse = [Option<SystemTime>; 2];

/// What the store already knows of the use of keys.
#[derive(Default)]
pub(super) struct PersistedUse(Mutex<HashMap<ServiceName, LastUse>>);

/// A key that is to be replaced.
#[derive(Clone, Copy)]
struct Replacement<'a> {
    /// Who asks for it.
    principal: &'a str,
    slot: KeySlot,
    change: &'a KeyChange,
}

impl Operations {
    /// Both keys of a service. Whoever sees keys can use them: each look is in the activity log, as in Azure's.
    ///
    /// # Errors
    /// No right to list keys; no such service; [`Cause::ReadOnly`] for a declared one.
    pub fn keys(&self, caller: &Caller, workspace: &str, service: &str) -> Result<KeyPairView, Refusal> {
        let place = self.place(workspace)?;
        let target = self.target(caller, &place, service, Verb::ListKeys)?;
        self.act(caller, target.action, &target.resource, || {
            place.existing()?;
            self.refuse_declared_keys(&place, service)?;
            let entry = self.stored_service(&place, service)?.ok_or_else(|| no_service(service))?;
            same_type(&entry.value, &target)?;
            let name = entry.value.name;
            let mut pair = self.stored_keys(&name)?.value;
            pair.note_use(self.last_use(&name));
            let owner = self.owner(&place, &name);
            let view = |slot| pair.key(slot).view(&owner, slot);
            Ok(KeyPairView { primary: view(KeySlot::Primary)?, secondary: view(KeySlot::Secondary)? })
        })
    }

    /// Replaces a key, by a generated one unless one is given. When this returns, the old key opens nothing any more.
    ///
    /// # Errors
    /// No right to it; no such service; a key that cannot be one or that is the other one already; an end that has passed;
    /// [`Cause::Conflict`] for a request id that stands for another change; [`Cause::ReadOnly`] for a declared service.
    #[expect(clippy::too_many_arguments, reason = "which key, and what of it")]
    #[expect(clippy::needless_pass_by_value, reason = "holds a secret that the caller should be rid of")]
    pub fn regenerate_key(
        &self,
        caller: &Caller,
        workspace: &str,
        service: &str,
        slot: KeySlot,
        change: KeyChange,
    ) -> Result<KeyView, Refusal> {
        let target = self.target(caller, &self.place(workspace)?, service, Verb::RegenerateKeys)?;
        let done = self.write(caller, target.action, &target.resource, |batch| {
            self.refuse_declared_keys(&self.place(workspace)?, service)?;
            let found = self.find_to_change(workspace, service, &target, batch)?;
            let replacement = Replacement { principal: &caller.principal, slot, change: &change };
            self.replace_key(&found, &replacement, batch)
        })?;
        Ok(done.value)
    }

    fn replace_key(
        &self,
        found: &Found,
        replacement: &Replacement<'_>,
        batch: &mut Batch,
    ) -> Result<(KeyView, ServiceChanges), Refusal> {
        let Replacement { principal, slot, change } = *replacement;
        let Found { place, name, service: Versioned { value: service, version } } = found;
        let now = OffsetDateTime::now_utc();
        let owner = self.owner(place, name);
        let asked = asked(change)?;
        let request = change.request_id.as_ref().map(|id| Request {
            principal,
            id,
            service,
            slot,
            asked: asked.as_ref().map(|key| hex::encode(key.digest.digest())),
            at: now,
        });
        if let Some(request) = &request
            && let Some(answer) = request.answer(&*self.store, &owner)?
        {
            return Ok((answer, ServiceChanges::default()));
        }
        if change.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::invalid("expires_at", "has passed already; name a time to come, or none"));
        }
        let Versioned { value: mut pair, version: of_keys } = self.stored_keys(name)?;
        let key = match asked {
            Some(key) if !pair.key(slot).is(&key.digest)? => key,
            _ => NewKey::generated(change.expires_at)?,
        };
        pair.replace(&owner, slot, &key, now)?;
        batch.expect(Table::Services, name.as_str(), Expect::Version(*version));
        batch.expect(Table::Keys, name.as_str(), Expect::Version(of_keys));
        batch.put(Table::Keys, name.as_str(), rows::encode(&pair)?);
        let row: &KeyRow = pair.key(slot);
        if let Some(request) = &request {
            request.keep(&*self.store, &self.answers, row, batch)?;
        }
        let view = row.view(&owner, slot)?;
        Ok((view, self.judged_by(name, &pair)?))
    }

    /// What the data plane is told of the keys of a service; nothing if they are not what lets callers in.
    fn judged_by(&self, name: &ServiceName, pair: &KeyPairRow) -> Result<ServiceChanges, Refusal> {
        let mut changes = ServiceChanges::default();
        if let Some(served) = self.published.service(name.as_str())
            && matches!(served.auth, AuthSettings::Key(_))
        {
            let auth = AuthSettings::Key(pair.settings()?);
            changes.upsert.push(Arc::new(ServiceSettings { auth, ..ServiceSettings::clone(&served) }));
        }
        Ok(changes)
    }

    /// Writes down when keys were last used, for those that were used since the last time. To be called once a minute or so
    /// and before the process ends.
    ///
    /// # Errors
    /// The store cannot be used; what was not written down will be with the next call.
    pub fn persist_key_use(&self) -> Result<(), Refusal> {
        let data_plane = self.published.data_plane();
        let used: HashMap<_, _> = self
            .published
            .names()
            .into_iter()
            .map(|name| (data_plane.key_use(&name), name))
            .filter(|(last, _)| last.iter().any(Option::is_some))
            .map(|(last, name)| (name, last))
            .collect();
        let news: Vec<_> = used.iter().filter(|(name, last)| !self.persisted.has(name, **last)).collect();
        for some in news.chunks(CHUNK) {
            self.upkeep(|batch| {
                for (name, last) in some {
                    self.note_use(name, **last, batch)?;
                }
                Ok(ServiceChanges::default())
            })?;
        }
        self.persisted.replace(used);
        Ok(())
    }

    fn note_use(&self, name: &ServiceName, last: LastUse, batch: &mut Batch) -> Result<(), Refusal> {
        // Deleted meanwhile: there is nothing to be written down.
        let found: Option<Versioned<KeyPairRow>> = rows::get(&*self.store, Table::Keys, name.as_str())?;
        let Some(Versioned { value: mut pair, version }) = found else { return Ok(()) };
        if pair.note_use(last.map(|last| last.map(Into::into))) {
            batch.expect(Table::Keys, name.as_str(), Expect::Version(version));
            batch.put(Table::Keys, name.as_str(), rows::encode(&pair)?);
        }
        Ok(())
    }

    /// The stored keys of a service, which every service has.
    pub(super) fn stored_keys(&self, name: &ServiceName) -> Result<Versioned<KeyPairRow>, Refusal> {
        rows::get(&*self.store, Table::Keys, name.as_str())?.ok_or_else(|| {
            tracing::error!(service = %name, "the keys of a stored service are missing");
            Refusal::new(Cause::Internal, "the keys of this service are missing in the store")
        })
    }

    /// Whose keys `name`'s are.
    pub(super) fn owner<'a>(&'a self, place: &'a Place, name: &'a ServiceName) -> Owner<'a> {
        Owner { sealer: &*self.sealer, workspace: &place.key, service: name }
    }

    fn last_use(&self, name: &ServiceName) -> [Option<OffsetDateTime>; 2] {
        self.published.data_plane().key_use(name).map(|last| last.map(Into::into))
    }

    fn refuse_declared_keys(&self, place: &Place, service: &str) -> Result<(), Refusal> {
        if !place.is_declared() || self.published.declared(service).is_none() {
            return Ok(());
        }
        let message = format!(
            "service {service} is declared in the configuration file; its keys are in the files or variables that 'keys' \
             names there, which is where to read and change them"
        );
        Err(Refusal::new(Cause::ReadOnly, message))
    }
}

impl PersistedUse {
    fn has(&self, name: &ServiceName, last: LastUse) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name) == Some(&last)
    }

    fn replace(&self, used: HashMap<ServiceName, LastUse>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = used;
    }
}

/// The key that is asked for; an empty one is none.
fn asked(change: &KeyChange) -> Result<Option<NewKey>, Refusal> {
    let value: Option<&SecretString> =
        change.value.as_ref().filter(|value| !value.expose_secret().is_empty());
    value.map(|value| NewKey::set("value", value.clone(), change.expires_at)).transpose()
}

fn same_type(service: &ServiceEntry, target: &Target) -> Result<(), Refusal> {
    if service.spec.compute_type == target.compute_type {
        return Ok(());
    }
    let message = format!("service {} was replaced meanwhile; read it again", service.name);
    Err(Refusal::new(Cause::PreconditionFailed, message))
}

#[cfg(test)]
mod tests;
