//! What a service is built from, whoever asks for it: the configuration or the management plane.

mod collect;
mod split;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};

use crate::auth::AuthSettings;
use crate::catalog::{AtExpiry, ComputeType, Endpoint, Profile, ServiceName, StatusMapping};
use crate::error::{Error, Kind};
use crate::limit::{DeploymentLimits, Limits};
use crate::route::{OpenPaths, Route, Target};
use crate::upstream::{
    BalancingSettings, HealthSettings, NamesSettings, ReplicaProtocol, ReplicaSettings, RetrySettings,
};

pub use collect::CollectSettings;
pub use split::{MirrorSettings, SplitSettings};

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSettings {
    /// What callers name.
    pub name: ServiceName,
    /// Decides defaults, URI and status mapping.
    pub compute_type: ComputeType,
    /// Hosts that mean this service, lower case, without a port.
    pub hosts: Vec<Arc<str>>,
    /// The paths that it opens, and the kind of server in its containers.
    pub opens: Arc<OpenPaths>,
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
    /// How its calls are tried again.
    pub retry: RetrySettings,
    /// Which deployment a call goes to beside the weights, and which gets a copy of it.
    pub split: SplitSettings,
    /// Which of its calls leave a copy of their input and output; `None`: none. Without effect where the
    /// configuration does not say where they go.
    pub collect: Option<CollectSettings>,
    /// Names distinct; weights as checked by `route::Split`. A service without any answers every call 404.
    pub deployments: Vec<DeploymentSettings>,
}

impl ServiceSettings {
    /// The way to this service, which is at `place`.
    #[must_use]
    pub fn route<S>(&self, place: S) -> Route<'_, S> {
        Route { name: &self.name, hosts: &self.hosts, opens: &self.opens, service: place }
    }
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
    /// How they share the calls.
    pub balancing: BalancingSettings,
    /// The container's own paths.
    pub paths: EndpointPaths,
    /// What its replicas must prove before they get calls; `None`: nothing.
    pub health: Option<Arc<HealthSettings>>,
    /// How those that are given by name are found.
    pub names: NamesSettings,
}

/// The container's own paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPaths {
    /// Where the model is called; `None`: nowhere, so that callers need a path that the profile opens.
    pub score: Option<PathAndQuery>,
    /// Where its description is; `None`: there is none.
    pub swagger: Option<PathAndQuery>,
    /// Where its health is.
    pub health: PathAndQuery,
}

impl EndpointPaths {
    /// The paths of the servers of `profile`.
    #[must_use]
    pub fn of_profile(profile: Profile) -> Self {
        Self {
            score: profile.score_path().map(PathAndQuery::from_static),
            swagger: profile.swagger_path().map(PathAndQuery::from_static),
            health: PathAndQuery::from_static(profile.health_path()),
        }
    }

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

    /// Path and query that the container is asked for: its own path for `endpoint` with the caller's query, or just what the
    /// caller asked for.
    ///
    /// # Errors
    /// [`Kind::UnknownPath`] if the container has no path for `endpoint`; [`Kind::Malformed`] if the target is not
    /// acceptable.
    pub fn upstream(&self, endpoint: Endpoint, target: &Target) -> Result<PathAndQuery, Error> {
        let own = match endpoint {
            Endpoint::Score => self.score.as_ref().ok_or_else(no_score_path)?,
            Endpoint::Swagger => self.swagger.as_ref().ok_or_else(no_swagger_path)?,
            Endpoint::Health => &self.health,
            Endpoint::Open(_) | Endpoint::Grpc => return path_and_query(target.whole().clone()),
        };
        let query = target.query_with_mark();
        if query.is_empty() {
            return Ok(own.clone());
        }
        let mut whole = Vec::with_capacity(own.as_str().len() + query.len());
        whole.extend_from_slice(own.as_str().as_bytes());
        whole.extend_from_slice(query);
        path_and_query(Bytes::from(whole))
    }
}

fn path_and_query(whole: Bytes) -> Result<PathAndQuery, Error> {
    PathAndQuery::from_maybe_shared(whole)
        .map_err(|e| Error::new(Kind::Malformed, "the request target is not acceptable").with_detail(e))
}

fn no_score_path() -> Error {
    Error::new(
        Kind::UnknownPath,
        "which path scores depends on the model here; call the model's own path, or set paths.score of the deployment",
    )
}

fn no_swagger_path() -> Error {
    Error::new(Kind::UnknownPath, "the server of this service has no description of itself")
}

/// `/score`, `/swagger.json` and `/`.
impl Default for EndpointPaths {
    fn default() -> Self {
        Self::of_profile(Profile::AzureMl)
    }
}

/// Whether all replicas of `deployments` speak HTTP/2, which gRPC needs; without any there is none that does.
#[must_use]
pub fn all_speak_h2(deployments: &[DeploymentSettings]) -> bool {
    let mut replicas = deployments.iter().flat_map(|deployment| &deployment.replicas).peekable();
    replicas.peek().is_some() && replicas.all(|replica| replica.protocol == ReplicaProtocol::H2)
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
