//! What a service is built from, whoever asks for it: the configuration or the management plane.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

use crate::auth::AuthSettings;
use crate::catalog::{AtExpiry, ComputeType, Endpoint, ServiceName, StatusMapping};
use crate::limit::{DeploymentLimits, Limits};
use crate::upstream::ReplicaSettings;

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSettings {
    /// What callers name.
    pub name: ServiceName,
    /// Decides defaults, URI and status mapping.
    pub compute_type: ComputeType,
    /// Hosts that mean this service, lower case, without a port.
    pub hosts: Vec<Arc<str>>,
    /// The one auth mode.
    pub auth: AuthSettings,
    /// What becomes of an answer under way when the credential that began it ends.
    pub at_expiry: AtExpiry,
    /// Whether a WebSocket handshake is passed on, and with it a tunnel opened when the replica agrees; else it is an
    /// ordinary GET.
    pub websocket: bool,
    /// Sizes and waits on the client.
    pub limits: Limits,
    /// Whether statuses are rewritten.
    pub status_mapping: StatusMapping,
    /// Cross-origin rules; `None`: no CORS headers, no preflight.
    pub cors: Option<CorsSettings>,
    /// Names distinct; weights as checked by `route::Split`. A service without any answers every call 404.
    pub deployments: Vec<DeploymentSettings>,
}

/// One version of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentSettings {
    /// What `azureml-model-deployment` says.
    pub name: ServiceName,
    /// Percent of the traffic, 0 to 100; the default deployment already holds what nobody else took.
    pub traffic: u8,
    /// Waits on its replicas and how many calls they take.
    pub limits: DeploymentLimits,
    /// At least one.
    pub replicas: Vec<ReplicaSettings>,
    /// The container's own paths.
    pub paths: EndpointPaths,
}

/// The container's own paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPaths {
    /// Where the model is called.
    pub score: PathAndQuery,
    /// Where its description is.
    pub swagger: PathAndQuery,
    /// Where its health is.
    pub health: PathAndQuery,
}

impl EndpointPaths {
    /// Reads one path of a container.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<PathAndQuery, String> {
        let well_begun = text.starts_with('/') && !text.contains(['?', '#']);
        match text.parse::<PathAndQuery>() {
            Ok(path) if well_begun => Ok(path),
            _ => Err(format!("'{text}' is no path; write one that begins with '/' and has no '?'")),
        }
    }

    /// The container's path for `endpoint`.
    #[must_use]
    pub const fn of(&self, endpoint: Endpoint) -> &PathAndQuery {
        match endpoint {
            Endpoint::Score => &self.score,
            Endpoint::Swagger => &self.swagger,
            Endpoint::Health => &self.health,
        }
    }
}

/// `/score`, `/swagger.json` and `/`.
impl Default for EndpointPaths {
    fn default() -> Self {
        Self {
            score: PathAndQuery::from_static("/score"),
            swagger: PathAndQuery::from_static("/swagger.json"),
            health: PathAndQuery::from_static("/"),
        }
    }
}

/// Cross-origin rules of one service; the gateway answers the preflight itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsSettings {
    /// Allowed origins, compared byte for byte; a single `*` means any.
    pub origins: Vec<HeaderValue>,
    /// Request headers a page may send.
    pub headers: Vec<HeaderName>,
    /// How long a browser may remember the preflight.
    pub max_age: Duration,
}

/// Services that come, change and go while the process runs; they take effect together or not at all.
#[derive(Clone, Debug, Default)]
pub struct ServiceChanges {
    /// New services, and new settings of ones that are there.
    pub upsert: Vec<Arc<ServiceSettings>>,
    /// Services to be gone; one that is not there is gone already. Removed before anything is added.
    pub remove: Vec<ServiceName>,
}
