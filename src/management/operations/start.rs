//! Taking over a store: what is in it is served from the first moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;

use super::keyring::KeyPairRow;
use super::project::{auth_mode, project};
use super::rows::{self, Rows};
use super::signing::{TokenState, allow_default_lifetime};
use super::{Operations, Versioned};
use crate::auth::{AuthSettings, TokenSettings};
use crate::catalog::{AuthMode, ServiceEntry};
use crate::management::{Cause, Refusal};
use crate::proxy::ServiceSettings;
use crate::store::Table;

impl Operations {
    /// Hands all stored services to the data plane, which leaves out those whose name or host the configuration has for as
    /// long as it has it. One that cannot be served otherwise is left out with an error in the log.
    ///
    /// # Errors
    /// The store cannot be used.
    pub(super) fn serve_what_is_stored(&self) -> Result<(), Refusal> {
        let now = OffsetDateTime::now_utc();
        allow_default_lifetime(&*self.store, self.settings.token_lifetime)?;
        let mut tokens = HashMap::new();
        let mut services = Vec::new();
        let mut hosts = HashSet::new();
        for row in Rows::new(&*self.store, Table::Services, &[], None) {
            let row = row?;
            match self.stored_settings(&row, now, &mut tokens) {
                Ok(settings) => match taken(&settings, &mut hosts) {
                    None => services.push(Arc::new(settings)),
                    Some(problem) => left_out(&row.key, &problem),
                },
                // Whatever is wrong with the store is wrong with all of them.
                Err(refusal) if refusal.cause == Cause::Unavailable && refusal.target.is_none() => {
                    return Err(refusal);
                }
                Err(refusal) => left_out(&row.key, &refusal),
            }
        }
        self.published.apply_all(&services);
        Ok(())
    }

    fn stored_settings(
        &self,
        row: &crate::store::Row,
        now: OffsetDateTime,
        tokens: &mut HashMap<String, Arc<TokenSettings>>,
    ) -> Result<ServiceSettings, Refusal> {
        let service = rows::decode::<ServiceEntry>(Table::Services, row)?.value;
        let name = &service.name;
        let auth = match auth_mode(&service.spec)? {
            AuthMode::Key => {
                let keys: Versioned<KeyPairRow> = self.stored_keys(name)?;
                AuthSettings::Key(keys.value.settings()?)
            }
            AuthMode::Token => AuthSettings::Token(self.stored_tokens(&service.workspace, now, tokens)?),
            AuthMode::None | AuthMode::Oidc => AuthSettings::None,
        };
        if self.check_collection(&service.spec).is_err() {
            tracing::warn!(service = %name, "its data_collection has no effect: the configuration has no telemetry.data_collection");
        }
        project(name, &service.spec, auth, &self.replicas)
    }

    /// The keys and revocations of a workspace, read once.
    fn stored_tokens(
        &self,
        workspace: &str,
        now: OffsetDateTime,
        read: &mut HashMap<String, Arc<TokenSettings>>,
    ) -> Result<Arc<TokenSettings>, Refusal> {
        let workspace = workspace.to_ascii_lowercase();
        if let Some(settings) = read.get(&workspace) {
            return Ok(Arc::clone(settings));
        }
        let state = TokenState::load(&*self.store, &workspace, now)?;
        let settings = Arc::new(state.settings(self.settings.token_leeway)?);
        read.insert(workspace, Arc::clone(&settings));
        Ok(settings)
    }
}

/// A host that two stored services have cannot come from here; the first one keeps it.
fn taken(settings: &ServiceSettings, hosts: &mut HashSet<Arc<str>>) -> Option<String> {
    if let Some(host) = settings.hosts.iter().find(|host| hosts.contains(*host)) {
        return Some(format!("another stored service has the host {host}"));
    }
    hosts.extend(settings.hosts.iter().cloned());
    None
}

fn left_out(key: &[u8], why: &dyn std::fmt::Display) {
    tracing::error!(service = %key.escape_ascii(), %why, "a stored service cannot be served");
}

#[cfg(test)]
mod tests;
