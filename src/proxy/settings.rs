//! What a service is built from, whoever asks for it: the configuration or the management plane.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, header};

use crate::auth::AuthSettings;
use crate::catalog::{AtExpiry, ComputeType, Endpoint, ServiceName, StatusMapping, UnknownDeployment};
use crate::limit::{DeploymentLimits, Limits};
use crate::upstream::{ReplicaSettings, RetrySettings};

use super::headers::DEPLOYMENT;

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
    /// Sizes and waits on the client.
    pub limits: Limits,
    /// Whether statuses are rewritten.
    pub status_mapping: StatusMapping,
    /// Cross-origin rules; `None`: no CORS headers, no preflight.
    pub cors: Option<CorsSettings>,
    /// How its calls are tried again.
    pub retry: RetrySettings,
    /// Which deployment a call goes to beside the weights, and which gets a copy of it.
    pub split: SplitSettings,
    /// Names distinct; weights as checked by `route::Split`. A service without any answers every call 404.
    pub deployments: Vec<DeploymentSettings>,
}

/// Which deployment a call goes to beside the weights, and which gets a copy of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitSettings {
    /// What becomes of a call that names a deployment which the service does not have.
    pub unknown: UnknownDeployment,
    /// Calls with the same value of this header go to the same deployment while weights stay; `None`: by turn.
    pub sticky: Option<HeaderName>,
    /// `None`: nothing is copied.
    pub mirror: Option<MirrorSettings>,
}

impl SplitSettings {
    /// Reads the name of the header of `sticky`.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn sticky_header(text: &str) -> Result<HeaderName, String> {
        match text.parse::<HeaderName>() {
            Ok(name) if name == header::AUTHORIZATION || name == DEPLOYMENT => {
                Err(format!("'{text}' has a meaning of its own here; choose another header"))
            }
            Ok(name) => Ok(name),
            Err(_) => Err(format!("'{text}' is no header name; write one such as x-session-id")),
        }
    }
}

/// Copies of a service's calls to another of its deployments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Where the copies go; a deployment of the service.
    pub deployment: ServiceName,
    /// Percent of the calls that are copied.
    pub percent: u8,
    /// Largest request body, in bytes, that is copied.
    pub body_bytes: usize,
    /// Copies under way at once, over all workers.
    pub concurrent: u32,
}

impl MirrorSettings {
    /// Bounds of `percent`; the upper one is that of Azure's managed endpoints.
    pub const PERCENT: RangeInclusive<u8> = 1..=50;
    /// Bounds of `body_bytes`.
    pub const BODY_BYTES: RangeInclusive<u64> = 0..=16 << 20;
    /// Bounds of `concurrent`.
    pub const CONCURRENT: RangeInclusive<u32> = 1..=1000;
    /// `body_bytes` where it is not set.
    pub const DEFAULT_BODY_BYTES: u64 = 64 << 10;
    /// `concurrent` where it is not set.
    pub const DEFAULT_CONCURRENT: u32 = 16;
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
