//! From a configuration to a snapshot: builds the whole, keeps what did not change, swaps it in at once.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;

use crate::auth::{Authenticator, JwksRegistry};
use crate::catalog::ServiceName;
use crate::limit::Admission;
use crate::listener::ListenerSettings;
use crate::proxy::{
    Deployment, DeploymentSettings, ListenerState, PreparedCors, Service, ServiceSettings, Snapshot,
};
use crate::route::{RouteTable, Split};
use crate::telemetry::Metrics;
use crate::tls::{self, TlsError};
use crate::upstream::Replica;

use super::config::Config;

/// Builds snapshots and publishes them to the data plane.
pub struct Publisher {
    metrics: Arc<Metrics>,
    jwks: JwksRegistry,
    published: Arc<ArcSwap<Snapshot>>,
}

impl Publisher {
    /// Publishes the first snapshot.
    ///
    /// # Errors
    /// What of the configuration cannot be built.
    pub fn start(config: &Config, metrics: Arc<Metrics>, jwks: JwksRegistry) -> Result<Self, PublishError> {
        let nothing =
            Snapshot { generation: 0, routes: RouteTable::new([]), services: vec![], listeners: vec![] };
        let first = build(config, &nothing, &metrics, &jwks)?;
        let published = Arc::new(ArcSwap::from_pointee(first));
        Ok(Self { metrics, jwks, published })
    }

    /// Replaces the running snapshot by one of `config`; returns its generation. Requests under way keep the one they
    /// began with. Only one caller at a time.
    ///
    /// # Errors
    /// What of the configuration cannot be built; the running snapshot stays.
    pub fn publish(&self, config: &Config) -> Result<u64, PublishError> {
        let next = build(config, &self.published.load(), &self.metrics, &self.jwks)?;
        let generation = next.generation;
        self.published.store(Arc::new(next));
        // A key set file may be what has changed.
        self.jwks.refresh();
        Ok(generation)
    }

    /// Where the data plane looks.
    #[must_use]
    pub fn published(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.published)
    }
}

/// What of a checked configuration still could not be built: a file changed between the check and the build.
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

fn build(
    config: &Config,
    previous: &Snapshot,
    metrics: &Metrics,
    jwks: &JwksRegistry,
) -> Result<Snapshot, PublishError> {
    let services = config
        .services
        .iter()
        .map(|settings| {
            let before = previous.services.iter().find(|service| *service.name == *settings.name.as_str());
            service(settings, before, metrics, jwks)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let routes = config.services.iter().enumerate();
    let routes = RouteTable::new(routes.map(|(place, s)| (s.name.clone(), s.hosts.clone(), place)));
    let listeners = in_order_of(&previous.listeners, &config.listeners).into_iter().map(|settings| {
        let tls = settings.tls.as_ref().map(tls::server).transpose();
        let tls = tls.map_err(|error| PublishError::Tls(Arc::clone(&settings.name), error))?;
        Ok(ListenerState { settings: settings.clone(), tls })
    });
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    for listener in &listeners {
        let shown = listener.tls.iter().flat_map(|tls| tls.certificates.certificates());
        let named: Vec<_> = shown.map(|certificate| (certificate.name(), certificate.not_after)).collect();
        let named = named.iter().map(|(name, not_after)| (name.as_str(), *not_after));
        metrics.certificates().serves(&listener.settings.name, named);
    }
    Ok(Snapshot { generation: previous.generation + 1, routes, services, listeners })
}

/// Connections know their listener by its place, which the order in the file must not change.
fn in_order_of<'a>(previous: &[ListenerState], new: &'a [ListenerSettings]) -> Vec<&'a ListenerSettings> {
    let place = |settings: &ListenerSettings| {
        previous.iter().position(|before| before.settings.name == settings.name).unwrap_or(usize::MAX)
    };
    let mut ordered: Vec<_> = new.iter().collect();
    ordered.sort_by_key(|settings| place(settings));
    ordered
}

fn service(
    settings: &ServiceSettings,
    before: Option<&Service>,
    metrics: &Metrics,
    jwks: &JwksRegistry,
) -> Result<Service, PublishError> {
    let authenticator = Authenticator::new(&settings.auth, &settings.name, jwks)
        .map_err(|error| PublishError::Auth(settings.name.clone(), error))?;
    let deployments = settings.deployments.iter().map(|deployment| {
        let before = before.and_then(|service| {
            service.deployments.iter().find(|before| *before.name == *deployment.name.as_str())
        });
        self::deployment(deployment, before)
    });
    let percents: Vec<u8> = settings.deployments.iter().map(|deployment| deployment.traffic).collect();
    Ok(Service {
        name: settings.name.shared(),
        compute_type: settings.compute_type,
        authenticator,
        limits: settings.limits.clone(),
        status_mapping: settings.status_mapping,
        cors: settings
            .cors
            .as_ref()
            .map(|cors| PreparedCors::new(cors.origins.clone(), &cors.headers, cors.max_age)),
        deployments: deployments.collect(),
        split: Split::new(&percents),
        metrics: metrics.service(settings.name.as_str(), settings.compute_type),
    })
}

/// A replica and the places of a deployment live on while their settings stay the same, so that a reload neither loses
/// count of the calls in flight nor lets in more than the limit.
fn deployment(settings: &DeploymentSettings, before: Option<&Deployment>) -> Deployment {
    let replicas: Vec<Arc<Replica>> = settings
        .replicas
        .iter()
        .map(|replica| {
            let kept = before.and_then(|before| {
                before.replicas.iter().find(|kept| kept.settings().is_same_endpoint(replica))
            });
            kept.map_or_else(|| Replica::new(replica.clone()), Arc::clone)
        })
        .collect();
    let kept = before.filter(|before| {
        before.admission.settings() == &settings.limits.admission && before.replicas.len() == replicas.len()
    });
    let admission = match kept {
        Some(before) => Arc::clone(&before.admission),
        None => Arc::new(Admission::new(settings.limits.admission, replicas.len())),
    };
    Deployment {
        name: settings.name.shared(),
        header: HeaderValue::from_str(settings.name.as_str()).unwrap_or(HeaderValue::from_static("")),
        replicas,
        admission,
        paths: settings.paths.clone(),
        deadlines: settings.limits.upstream,
    }
}
