//! What the request path knows of the world: one immutable whole, swapped at once, loaded once per request.

use std::sync::Arc;

use http::HeaderValue;

use crate::auth::Authenticator;
use crate::catalog::{ComputeType, StatusMapping};
use crate::limit::{Admission, Limits};
use crate::listener::ListenerSettings;
use crate::route::{RouteTable, Split};
use crate::telemetry::ServiceMetrics;
use crate::tls::ServerTls;
use crate::upstream::{Deadlines, Replica};

use super::{EndpointPaths, PreparedCors};

/// One generation of the configuration, ready to serve.
pub struct Snapshot {
    /// Counts up with every publication, from 1.
    pub generation: u64,
    /// Leads to a place in `services`.
    pub routes: RouteTable<usize>,
    /// All services.
    pub services: Vec<Service>,
    /// In the order of the configuration, the same in every generation.
    pub listeners: Vec<ListenerState>,
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
    /// What callers name.
    pub name: Arc<str>,
    /// Decides how statuses are rewritten.
    pub compute_type: ComputeType,
    /// The one auth mode.
    pub authenticator: Authenticator,
    /// Sizes and waits.
    pub limits: Limits,
    /// Whether statuses are rewritten.
    pub status_mapping: StatusMapping,
    /// Cross-origin rules.
    pub cors: Option<PreparedCors>,
    /// Versions; without any, every call is answered 404.
    pub deployments: Vec<Deployment>,
    /// Which of them the next call goes to.
    pub split: Split,
    /// Where its calls are counted.
    pub metrics: Arc<ServiceMetrics>,
}

/// One version of a service.
pub struct Deployment {
    /// What `azureml-model-deployment` says.
    pub name: Arc<str>,
    /// The same as a header value.
    pub header: HeaderValue,
    /// At least one; they outlive the snapshot while their settings stay the same.
    pub replicas: Vec<Arc<Replica>>,
    /// Its places; outlive the snapshot while settings and replicas stay the same.
    pub admission: Arc<Admission>,
    /// The container's own paths.
    pub paths: EndpointPaths,
    /// The waits on its replicas.
    pub deadlines: Deadlines,
}
