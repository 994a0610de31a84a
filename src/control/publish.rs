//! The publisher: puts the services of the configuration and of the management plane together into one snapshot, and swaps
//! it in at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::auth::{JwksRegistry, KeyPair};
use crate::catalog::ServiceName;
use crate::listener::ListenerSettings;
use crate::proxy::{ListenerState, Service, ServiceChanges, ServiceSettings, Snapshot};
use crate::route::RouteTable;
use crate::telemetry::Metrics;
use crate::tls::{self, ServerTls, TlsError};
use crate::upstream::{Replica, ReplicaSet};

use super::build;
use super::config::Config;
use super::topology::Topology;

/// Builds snapshots and publishes them to the data plane. Reload and management plane share it; one of them publishes at a
/// time.
pub struct Publisher {
    metrics: Arc<Metrics>,
    jwks: JwksRegistry,
    published: Arc<ArcSwap<Snapshot>>,
    sources: Mutex<Sources>,
    topology: Topology,
}

/// What a snapshot is put together from.
struct Sources {
    listeners: Arc<[ListenerState]>,
    /// In the order of the configuration.
    declared: Vec<Arc<Service>>,
    managed: BTreeMap<ServiceName, Arc<Service>>,
    /// Managed services that a declared one has the name or a host of, as far as they were told of.
    shadowed: BTreeSet<ServiceName>,
    /// Snapshots that a worker or a call may still hold. Kept here, so that the last one to let go, who has to free them, is
    /// never a worker.
    retired: Vec<Arc<Snapshot>>,
}

impl Publisher {
    /// Publishes the first snapshot: the services of `config`.
    ///
    /// # Errors
    /// What of the configuration cannot be built.
    pub fn start(config: &Config, metrics: Arc<Metrics>, jwks: JwksRegistry) -> Result<Self, PublishError> {
        let sources = Sources {
            listeners: Arc::default(),
            declared: vec![],
            managed: BTreeMap::new(),
            shadowed: BTreeSet::new(),
            retired: vec![],
        };
        let published = Arc::new(ArcSwap::from_pointee(Snapshot::nothing()));
        let publisher =
            Self { metrics, jwks, published, sources: Mutex::new(sources), topology: Topology::default() };
        publisher.publish(config)?;
        Ok(publisher)
    }

    /// Replaces what the running snapshot has of the configuration by `config`, managed services stay; returns the new
    /// generation. Requests under way keep the snapshot they began with. Reads certificate files.
    ///
    /// # Errors
    /// What of the configuration cannot be built; the running snapshot stays.
    pub fn publish(&self, config: &Config) -> Result<u64, PublishError> {
        let mut sources = self.lock();
        let running = self.published.load();
        let services = config.services.iter();
        let declared = services
            .map(|settings| build::service(settings, running.service(settings.name.as_str()), &self.jwks))
            .collect::<Result<_, _>>()?;
        drop(running);
        let listeners = listeners(&sources.listeners, &config.listeners)?;
        for listener in &*listeners {
            show_certificates(&self.metrics, &listener.settings.name, listener.tls.as_ref());
        }
        sources.declared = declared;
        sources.listeners = listeners;
        let generation = self.swap(&mut sources);
        // A key set file may be what has changed.
        self.jwks.refresh();
        Ok(generation)
    }

    /// Makes `changes` to the managed services, all at once; returns the new generation. Names and hosts of managed services
    /// are distinct; one that has the name or a host of a declared service is left out for as long as that is there.
    /// Requests under way keep the snapshot they began with.
    ///
    /// # Errors
    /// A service that cannot be built; nothing has changed then.
    pub fn apply(&self, changes: ServiceChanges) -> Result<u64, PublishError> {
        let mut sources = self.lock();
        let ServiceChanges { upsert, remove } = changes;
        let built = upsert.into_iter().map(|settings| {
            let service = build::service(&settings, sources.managed.get(&settings.name), &self.jwks)?;
            Ok((settings.name.clone(), service))
        });
        let built = built.collect::<Result<Vec<_>, PublishError>>()?;
        for name in remove {
            sources.managed.remove(&name);
        }
        sources.managed.extend(built);
        Ok(self.swap(&mut sources))
    }

    /// When the keys of a running service last let somebody in, to the second: primary, secondary. `None`: no such service,
    /// or its auth mode is another one.
    #[must_use]
    pub fn key_use(&self, service: &ServiceName) -> Option<[Option<SystemTime>; 2]> {
        let running = self.published.load();
        running.service(service.as_str())?.authenticator.keys().map(KeyPair::last_use)
    }

    /// The services of the configuration that runs, in its order.
    #[must_use]
    pub fn declared(&self) -> Vec<Arc<ServiceSettings>> {
        self.lock().declared.iter().map(|service| Arc::clone(&service.settings)).collect()
    }

    /// Number of the running snapshot.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.published.load().generation
    }

    /// Where the data plane looks.
    #[must_use]
    pub fn published(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.published)
    }

    /// Gives `set` its new members, if it is still the set of a deployment in the running snapshot; `false`: it is not, or
    /// somebody publishes just now, of which [`topology`](Self::topology) tells. A set that another one has taken the place
    /// of must not decide over replicas any more.
    pub(super) fn replace_members(&self, set: &Arc<ReplicaSet>, members: Vec<Arc<Replica>>) -> bool {
        let _sources = match self.sources.try_lock() {
            Ok(sources) => sources,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let running = self.published.load();
        let mut deployments = running.services.iter().flat_map(|service| &service.deployments);
        let is_running = deployments.any(|deployment| Arc::ptr_eq(&deployment.replicas, set));
        if is_running {
            set.replace_members(members);
        }
        is_running
    }

    /// Tells of each publication.
    pub(super) const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Frees snapshots that nobody holds any more; returns how many are still held. Publishing does it as well; to be called
    /// now and then, so that the last one retired does not wait for the next change.
    pub fn reap(&self) -> usize {
        match self.sources.try_lock() {
            Ok(mut sources) => sources.reap(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().reap(),
            // Whoever holds the lock publishes.
            Err(TryLockError::WouldBlock) => 0,
        }
    }

    fn swap(&self, sources: &mut Sources) -> u64 {
        let generation = self.generation() + 1;
        let snapshot = Arc::new(sources.snapshot(generation));
        let retired = self.published.swap(Arc::clone(&snapshot));
        // Now that nothing can fail any more: what lives on has belonged to the old snapshot till here.
        snapshot.services.iter().for_each(|service| build::enact(service));
        sources.retired.push(retired);
        sources.reap();
        self.topology.changed();
        generation
    }

    fn lock(&self) -> MutexGuard<'_, Sources> {
        // What a panic leaves behind is what runs or what was asked for last: each is whole.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    fn snapshot(&mut self, generation: u64) -> Snapshot {
        let mut services = Vec::with_capacity(self.declared.len() + self.managed.len());
        services.extend(self.declared.iter().cloned());
        let names: HashSet<_> = self.declared.iter().map(|service| &service.settings.name).collect();
        let hosts: HashSet<_> = self.declared.iter().flat_map(|service| &service.settings.hosts).collect();
        let mut shadowed = BTreeSet::new();
        for (name, service) in &self.managed {
            if names.contains(name) || service.settings.hosts.iter().any(|host| hosts.contains(host)) {
                shadowed.insert(name.clone());
            } else {
                services.push(Arc::clone(service));
            }
        }
        for service in shadowed.difference(&self.shadowed) {
            tracing::warn!(%service, "a managed service is left out: the configuration has its name or one of its hosts");
        }
        self.shadowed = shadowed;
        let routes = services.iter().enumerate();
        let routes = RouteTable::new(routes.map(|(place, service)| service.settings.route(place)));
        Snapshot { generation, routes, services, listeners: Arc::clone(&self.listeners) }
    }

    /// A count of one is this list's own: nobody can get at the snapshot any more.
    fn reap(&mut self) -> usize {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.retired.len()
    }
}

/// Has `metrics` show the certificates that `listener` serves from now on.
pub fn show_certificates(metrics: &Metrics, listener: &str, tls: Option<&ServerTls>) {
    let shown = tls.into_iter().flat_map(|tls| tls.certificates.certificates());
    let named: Vec<_> = shown.map(|certificate| (certificate.name(), certificate.not_after)).collect();
    let named = named.iter().map(|(name, not_after)| (name.as_str(), *not_after));
    metrics.certificates().serves(listener, named);
}

/// The listeners of `new`, with their certificates read again. Connections know their listener by its place, which the order
/// in the file must not change.
fn listeners(
    before: &[ListenerState],
    new: &[ListenerSettings],
) -> Result<Arc<[ListenerState]>, PublishError> {
    let place = |settings: &ListenerSettings| {
        before.iter().position(|before| before.settings.name == settings.name).unwrap_or(usize::MAX)
    };
    let mut ordered: Vec<_> = new.iter().collect();
    ordered.sort_by_key(|settings| place(settings));
    let states = ordered.into_iter().map(|settings| {
        let tls = settings.tls.as_ref().map(tls::server).transpose();
        let tls = tls.map_err(|error| PublishError::Tls(Arc::clone(&settings.name), error))?;
        Ok(ListenerState { settings: settings.clone(), tls })
    });
    states.collect()
}

/// What of checked settings still could not be built: a file changed between the check and the build, or a managed service
/// has an auth mode that nothing can be built from.
#[derive(Debug)]
pub enum PublishError {
    /// A listener's certificates.
    Tls(Arc<str>, TlsError),
    /// A service's auth mode.
    Auth(ServiceName, crate::auth::BuildError),
}

impl PublishError {
    /// Whether a certificate or key is to blame.
    #[must_use]
    pub const fn is_certificate(&self) -> bool {
        matches!(self, Self::Tls(..))
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(listener, error) => write!(f, "listener {listener}: {error}"),
            Self::Auth(service, error) => write!(f, "service {service}: {error}"),
        }
    }
}

impl std::error::Error for PublishError {}

#[cfg(test)]
mod tests;
