//! The store of the management plane, opened before anything that needs a key of it.

use std::sync::Arc;

use anyhow::Context as _;

use crate::control::config::{Config, KeyReference, StoreSettings};
use crate::store::seal::{EnvelopeSealer, own_key, own_key_or_new};
use crate::store::wrapping::{KeyOrigin, WrappingKeySource};
use crate::store::{EmbeddedStore, Store};
use crate::telemetry::SpoolEncryption;
use crate::telemetry::spool::SpoolKey;

/// Row of the key that spools are encrypted with.
const SPOOL_KEY: &str = "telemetry/spool-key";

/// A store that is open, and what opens its secrets.
pub(super) struct OpenStore {
    pub store: Arc<dyn Store>,
    pub sealer: Arc<EnvelopeSealer>,
}

impl OpenStore {
    /// Opens what the configuration names; `None`: it has no management plane, and so no store.
    ///
    /// # Errors
    /// The store or its wrapping key cannot be had. Without it there is no management plane, and the process does not
    /// start: what it would serve could not be told from what it should.
    pub async fn of(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(management) = &config.management else { return Ok(None) };
        let settings = management.store.clone();
        // Reads the whole file.
        let opened = tokio::task::spawn_blocking(move || open(&settings));
        opened.await.context("the store could not be opened")?.map(Some)
    }

    /// The key that spools are encrypted with; it is made if the configuration wants a spool encrypted. One that is there is
    /// given out in any case: a spool may hold what was encrypted before.
    ///
    /// # Errors
    /// What the store says.
    pub fn spool_key(&self, config: &Config) -> anyhow::Result<Option<SpoolKey>> {
        let spools = config.telemetry.spools();
        let (store, sealer) = (&*self.store, &*self.sealer);
        let bytes = if spools.iter().any(|spool| spool.encryption == SpoolEncryption::Store) {
            own_key_or_new(store, sealer, SPOOL_KEY).map(Some)
        } else {
            own_key(store, sealer, SPOOL_KEY)
        };
        let bytes = bytes.context("the key of the spools")?;
        Ok(bytes.map(SpoolKey::new).transpose()?)
    }
}

fn open(settings: &StoreSettings) -> anyhow::Result<OpenStore> {
    let folder = &settings.path;
    let at = || format!("store.path: {}", folder.display());
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(folder).with_context(at)?);
    let loaded = key_source(settings).load(&*store).context("store.key")?;
    if let KeyOrigin::Generated(file) = &loaded.origin {
        tracing::warn!(
            file = %file.display(),
            "a wrapping key has been made; keep a copy of it elsewhere: without it the secrets in the store are lost"
        );
    }
    if let Some(warning) = &loaded.warning {
        tracing::warn!("store.key: {warning}");
    }
    let sealer = EnvelopeSealer::new(Arc::clone(&store), &loaded.key).context("store.key")?;
    Ok(OpenStore { store, sealer: Arc::new(sealer) })
}

fn key_source(settings: &StoreSettings) -> WrappingKeySource {
    match settings.key.clone() {
        None => WrappingKeySource::beside(&settings.path),
        Some(KeyReference::File(path)) => WrappingKeySource::File(path),
        Some(KeyReference::Env(name)) => WrappingKeySource::Env(name),
        Some(KeyReference::Exec(command)) => WrappingKeySource::Exec(command),
    }
}
