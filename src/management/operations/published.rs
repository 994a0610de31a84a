//! What has been handed to the data plane: who has which host, and what a change of the token keys has to be told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::DataPlane;
use crate::auth::{AuthSettings, TokenSettings};
use crate::catalog::ServiceName;
use crate::proxy::{ServiceChanges, ServiceSettings};

/// The managed services as they were last handed over, which is as they were last committed: writes hand over one after
/// the other in the order of their commits.
pub(super) struct Published {
    data_plane: Arc<dyn DataPlane>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    services: HashMap<ServiceName, Arc<ServiceSettings>>,
    hosts: HashMap<Arc<str>, ServiceName>,
    /// The one copy of each issuer's keys and revocations, which all its services share.
    tokens: HashMap<String, Arc<TokenSettings>>,
}

impl Published {
    pub(super) fn new(data_plane: Arc<dyn DataPlane>) -> Self {
        Self { data_plane, known: Mutex::default() }
    }

    /// What the data plane is asked directly: the services of the configuration, the use of keys.
    pub(super) fn data_plane(&self) -> &dyn DataPlane {
        &*self.data_plane
    }

    /// Hands `changes` over.
    ///
    /// # Errors
    /// What cannot be built, in words for the log. It is remembered nevertheless: it is what is stored.
    pub(super) fn apply(&self, changes: ServiceChanges) -> Result<(), String> {
        self.known().note(&changes);
        self.data_plane.apply(changes)
    }

    /// Hands over all services at the start. One that cannot be built is left out, with an error in the log, and the rest
    /// is served.
    pub(super) fn apply_all(&self, services: &[Arc<ServiceSettings>]) {
        if services.is_empty() {
            return;
        }
        let Err(error) = self.apply(ServiceChanges { upsert: services.to_vec(), remove: vec![] }) else {
            return;
        };
        if let [only] = services {
            self.known().forget(&only.name);
            tracing::error!(service = %only.name, error, "a stored service cannot be served");
        } else {
            let (first, second) = services.split_at(services.len() / 2);
            self.apply_all(first);
            self.apply_all(second);
        }
    }

    /// The declared service called `name`.
    pub(super) fn declared(&self, name: &str) -> Option<Arc<ServiceSettings>> {
        self.data_plane.declared().iter().find(|declared| declared.name.as_str() == name).cloned()
    }

    /// The first of `hosts` that another service than `name` has, by its place.
    pub(super) fn taken_host(&self, name: &ServiceName, hosts: &[Arc<str>]) -> Option<usize> {
        if hosts.is_empty() {
            return None;
        }
        let declared = self.data_plane.declared();
        let known = self.known();
        hosts.iter().position(|host| {
            known.hosts.get(host).is_some_and(|owner| owner != name)
                || declared.iter().any(|service| service.name != *name && service.hosts.contains(host))
        })
    }

    /// The managed service called `name`, as it is served.
    pub(super) fn service(&self, name: &str) -> Option<Arc<ServiceSettings>> {
        self.known().services.get(name).cloned()
    }

    /// The names of all managed services.
    pub(super) fn names(&self) -> Vec<ServiceName> {
        self.known().services.keys().cloned().collect()
    }

    /// `settings`, in the copy that is shared already if it says the same.
    pub(super) fn shared(&self, settings: TokenSettings) -> Arc<TokenSettings> {
        match self.known().tokens.get(&settings.issuer) {
            Some(shared) if **shared == settings => Arc::clone(shared),
            _ => Arc::new(settings),
        }
    }

    /// All services that take tokens of the issuer of `settings`, verifying as `settings` says from now on.
    pub(super) fn verifying_by(&self, settings: &Arc<TokenSettings>) -> ServiceChanges {
        let known = self.known();
        let of_issuer = known.services.values().filter(
            |service| matches!(&service.auth, AuthSettings::Token(tokens) if tokens.issuer == settings.issuer),
        );
        let upsert = of_issuer.map(|service| {
            let auth = AuthSettings::Token(Arc::clone(settings));
            Arc::new(ServiceSettings { auth, ..ServiceSettings::clone(service) })
        });
        ServiceChanges { upsert: upsert.collect(), remove: vec![] }
    }

    /// A panic under this lock leaves a whole entry or none.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn note(&mut self, changes: &ServiceChanges) {
        for name in &changes.remove {
            self.forget(name);
        }
        for service in &changes.upsert {
            self.forget(&service.name);
            self.hosts.extend(service.hosts.iter().map(|host| (host.clone(), service.name.clone())));
            if let AuthSettings::Token(tokens) = &service.auth {
                self.tokens.insert(tokens.issuer.clone(), Arc::clone(tokens));
            }
            self.services.insert(service.name.clone(), Arc::clone(service));
        }
    }

    fn forget(&mut self, name: &ServiceName) {
        if let Some(before) = self.services.remove(name) {
            for host in &before.hosts {
                if self.hosts.get(host) == Some(name) {
                    self.hosts.remove(host);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::auth::SigningKey;
    use crate::catalog::{ComputeType, ServiceSpec};
    use crate::management::operations::project::project;
    use crate::management::operations::replicas::Replicas;

    /// Takes everything but services called `bad-..`.
    #[derive(Default)]
    struct Picky {
        served: Mutex<Vec<ServiceName>>,
        calls: AtomicUsize,
        declared: Vec<Arc<ServiceSettings>>,
    }

    impl DataPlane for Picky {
        fn apply(&self, changes: ServiceChanges) -> Result<(), String> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if changes.upsert.iter().any(|service| service.name.as_str().starts_with("bad")) {
                return Err("no".into());
            }
            self.served.lock().unwrap().extend(changes.upsert.iter().map(|service| service.name.clone()));
            Ok(())
        }

        fn key_use(&self, _: &ServiceName) -> [Option<SystemTime>; 2] {
            [None; 2]
        }

        fn declared(&self) -> Arc<Vec<Arc<ServiceSettings>>> {
            Arc::new(self.declared.clone())
        }

        fn record_stats(&self) -> Vec<crate::telemetry::metrics::DestinationStats> {
            Vec::new()
        }
    }

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).unwrap()
    }

    fn service(text: &str, hosts: &[&str], auth: AuthSettings) -> Arc<ServiceSettings> {
        let mut spec = ServiceSpec::new(ComputeType::Aks);
        spec.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Arc::new(project(&name(text), &spec, auth, &Replicas::new(None, Arc::default())).unwrap())
    }

    fn changes(upsert: Vec<Arc<ServiceSettings>>) -> ServiceChanges {
        ServiceChanges { upsert, remove: vec![] }
    }

    fn tokens(issuer: &str, key: &SigningKey) -> TokenSettings {
        TokenSettings {
            issuer: issuer.into(),
            keys: vec![key.public().clone()],
            leeway: Duration::from_secs(60),
            revoked: Arc::default(),
        }
    }

    #[test]
    fn one_that_cannot_be_built_does_not_keep_the_others_back() {
        let data_plane = Arc::new(Picky::default());
        let published = Published::new(Arc::clone(&data_plane) as Arc<dyn DataPlane>);
        let mut services: Vec<_> =
            (0..64).map(|i| service(&format!("good-{i:02}"), &[], AuthSettings::None)).collect();
        services.insert(40, service("bad-1", &["bad.example"], AuthSettings::None));
        published.apply_all(&services);
        assert_eq!(data_plane.served.lock().unwrap().len(), 64);
        assert!(data_plane.calls.load(Ordering::Relaxed) < 20, "it is searched for by halves");
        assert!(published.service("bad-1").is_none() && published.service("good-63").is_some());
        assert_eq!(published.taken_host(&name("other"), &["bad.example".into()]), None);
    }

    #[test]
    fn a_host_belongs_to_one_service_until_that_gives_it_up() {
        let declared = vec![service("file", &["f.example"], AuthSettings::None)];
        let published = Published::new(Arc::new(Picky { declared, ..Picky::default() }));
        published.apply(changes(vec![service("iris", &["a.example"], AuthSettings::None)])).unwrap();
        let taken = |by: &str, hosts: &[&str]| {
            let hosts: Vec<Arc<str>> = hosts.iter().map(|host| (*host).into()).collect();
            published.taken_host(&name(by), &hosts)
        };
        assert_eq!(taken("iris", &["a.example"]), None, "its own");
        assert_eq!(taken("wine", &["b.example", "a.example"]), Some(1));
        assert_eq!(taken("wine", &["f.example"]), Some(0), "declared");
        published.apply(changes(vec![service("iris", &["b.example"], AuthSettings::None)])).unwrap();
        assert_eq!((taken("wine", &["a.example"]), taken("wine", &["b.example"])), (None, Some(0)));
        published.apply(ServiceChanges { upsert: vec![], remove: vec![name("iris")] }).unwrap();
        assert_eq!(taken("wine", &["b.example"]), None);
        assert!(published.service("iris").is_none());
    }

    #[test]
    fn services_of_one_issuer_share_its_keys_and_change_together() {
        let published = Published::new(Arc::new(Picky::default()));
        let key = SigningKey::generate().unwrap();
        let shared = published.shared(tokens("one", &key));
        published
            .apply(changes(vec![
                service("iris", &[], AuthSettings::Token(Arc::clone(&shared))),
                service("wine", &[], AuthSettings::Token(published.shared(tokens("two", &key)))),
                service("rose", &[], AuthSettings::None),
            ]))
            .unwrap();
        assert!(Arc::ptr_eq(&published.shared(tokens("one", &key)), &shared));
        let next = published.shared(tokens("one", &SigningKey::generate().unwrap()));
        let changes = published.verifying_by(&next);
        let names: Vec<_> = changes.upsert.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["iris"]);
        assert!(matches!(&changes.upsert[0].auth, AuthSettings::Token(tokens) if Arc::ptr_eq(tokens, &next)));
    }
}
