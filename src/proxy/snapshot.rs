//! What the request path knows of the world: one immutable whole, swapped at once, loaded once per request.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;

use crate::auth::Authenticator;
use crate::limit::{Admission, Rates};
use crate::listener::ListenerSettings;
use crate::route::{RouteTable, Split};
use crate::telemetry::{Metrics, ServiceMetrics};
use crate::tls::ServerTls;
use crate::upstream::{Deadlines, ReplicaSet, RetryBudget};

use super::{EndpointPaths, Mirror, PreparedCors, ServiceSettings};

/// One generation of the configuration, ready to serve.
pub struct Snapshot {
    /// Counts up with every publication, from 1.
    pub generation: u64,
    /// Leads to a place in `services`.
    pub routes: RouteTable<usize>,
    /// All services; one that has not changed is the same in the next generation.
    pub services: Vec<Arc<Service>>,
    /// In the order of the configuration, the same in every generation.
    pub listeners: Arc<[ListenerState]>,
}

impl Snapshot {
    /// What is there before the first publication: no service and no listener.
    #[must_use]
    pub fn nothing() -> Self {
        Self { generation: 0, routes: RouteTable::new([]), services: vec![], listeners: Arc::default() }
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.routes.named(name).map(|place| &self.services[place])
    }
}

/// What may change about a listener while it listens.
pub struct ListenerState {
    /// Waits and limits.
    pub settings: ListenerSettings,
    /// Certificates and rules for new connections; `None`: plaintext.
    pub tls: Option<ServerTls>,
}

/// One service, ready to serve.
pub struct Service {
    /// What it was built from.
    pub settings: Arc<ServiceSettings>,
    /// The one auth mode; outlives the snapshot while its settings stay the same.
    pub authenticator: Arc<Authenticator>,
    /// Cross-origin rules.
    pub cors: Option<PreparedCors>,
    /// How many calls in a time, and how many there were; `None`: as many as come. What was used of a rate is carried over
    /// while the rate stays the same.
    pub rates: Option<Rates>,
    /// Versions, in the order of the settings; without any, every call is answered 404.
    pub deployments: Box<[Deployment]>,
    /// Which of them the next call goes to; outlives the snapshot while the weights stay.
    pub split: Arc<Split>,
    /// How many calls may be sent again; `None`: none may. Outlives the snapshot while its setting stays.
    pub retry_budget: Option<Arc<RetryBudget>>,
    /// Where copies of calls go, if anywhere; outlives the snapshot while its settings stay.
    pub mirror: Option<Arc<Mirror>>,
    /// Where its calls are counted; there from the first call on.
    pub metrics: OnceLock<Arc<ServiceMetrics>>,
}

impl Service {
    /// Where its calls are counted, among `all` of the gateway.
    pub(super) fn metrics(&self, all: &Metrics) -> &Arc<ServiceMetrics> {
        let settings = &self.settings;
        self.metrics.get_or_init(|| all.service(&settings.name.shared(), settings.compute_type))
    }
}

/// One version of a service.
pub struct Deployment {
    /// What `azureml-model-deployment` says.
    pub name: Arc<str>,
    /// The same as a header value.
    pub header: HeaderValue,
    /// At least one member; outlives the snapshot while its settings stay the same.
    pub replicas: Arc<ReplicaSet>,
    /// Its places; outlive the snapshot while there is a deployment of the name.
    pub admission: Arc<Admission>,
    /// The container's own paths.
    pub paths: EndpointPaths,
    /// The waits on its replicas.
    pub deadlines: Deadlines,
}
