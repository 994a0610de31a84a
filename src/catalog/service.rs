//! Services and deployments as the management plane keeps them: what their owner asked for, nothing that runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::workspace::{Origin, Provenance};
use super::{
    AuthMode, BalancingSpec, ComputeType, DataCollectionSpec, EjectionSpec, HealthSpec, MirrorSpec,
    NamesSpec, Profile, RetrySpec, ServiceName, StatusMapping, UnknownDeployment,
};

/// A service of the catalogue. Its name is unique on one gateway, since the path form of its URI has no workspace in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceEntry {
    /// What callers name.
    pub name: ServiceName,
    /// Name of the workspace that holds it.
    pub workspace: String,
    /// What its owner asked for.
    pub spec: ServiceSpec,
    /// Declared services are read-only.
    pub origin: Origin,
    /// Who and when.
    pub provenance: Provenance,
}

/// What the owner of a service asks for. Unset fields take the default of the compute type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Decides defaults, URI, status mapping, and which actions its operations need.
    pub compute_type: ComputeType,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Free labels, searchable.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Free facts; `upstream` is where replicas are, URLs with commas between them, if a deployment names none.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Hosts that mean this service, lower case, without a port.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The one auth mode; unset: the default of the compute type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthMode>,
    /// Seconds that a scoring token lasts; unset: the gateway's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_lifetime_s: Option<u32>,
    /// What becomes of an answer under way when the caller's token expires or its key goes.
    #[serde(default)]
    pub at_expiry: AtExpiry,
    /// Whether statuses are rewritten.
    #[serde(default)]
    pub status_mapping: StatusMapping,
    /// Whether WebSocket handshakes are passed on to the replicas; without it they are ordinary GETs.
    #[serde(default)]
    pub websocket: bool,
    /// The kind of server in its containers: decides which paths are open and what the paths of deployments are.
    #[serde(default)]
    pub profile: Profile,
    /// Further paths of the containers that callers may use, each passed on as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score_paths: Vec<String>,
    /// gRPC services that are open, `package.Service`, or single methods of one, `package.Service/Method`. The protocol of
    /// all deployments must be `h2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc: Vec<String>,
    /// Sizes and waits of all deployments.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// How calls are tried again; unset: only what was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// What becomes of a call that names a deployment which the service does not have.
    #[serde(default, skip_serializing_if = "UnknownDeployment::is_default")]
    pub unknown_deployment: UnknownDeployment,
    /// Request header; calls with the same value of it go to the same deployment for as long as the traffic shares stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_header: Option<String>,
    /// Copies of calls to another deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorSpec>,
    /// Samples of inputs and outputs, kept in files; unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_collection: Option<DataCollectionSpec>,
    /// Versions by name. A service without any answers every call 404.
    #[serde(default)]
    pub deployments: BTreeMap<ServiceName, DeploymentSpec>,
    /// What only Azure's clients know of, kept as it was sent and given back to them.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub azure: serde_json::Map<String, serde_json::Value>,
}

impl ServiceSpec {
    /// A service of `compute_type` with every default.
    #[must_use]
    pub fn new(compute_type: ComputeType) -> Self {
        Self {
            compute_type,
            description: String::new(),
            tags: BTreeMap::new(),
            properties: BTreeMap::new(),
            hosts: Vec::new(),
            auth: None,
            token_lifetime_s: None,
            at_expiry: AtExpiry::default(),
            status_mapping: StatusMapping::default(),
            websocket: false,
            profile: Profile::default(),
            score_paths: Vec::new(),
            grpc: Vec::new(),
            limits: LimitsSpec::default(),
            retry: None,
            unknown_deployment: UnknownDeployment::default(),
            sticky_header: None,
            mirror: None,
            data_collection: None,
            deployments: BTreeMap::new(),
            azure: serde_json::Map::new(),
        }
    }

    /// The auth mode in force.
    #[must_use]
    pub fn auth_mode(&self) -> AuthMode {
        self.auth.unwrap_or(self.compute_type.default_auth())
    }
}

/// One version of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeploymentSpec {
    /// Percent of the traffic, 0 to 100. Over all deployments they add up to 100, or to 0: then only calls that name
    /// the deployment reach it.
    pub traffic: u8,
    /// URLs of its replicas, `http` or `https`. Empty: the service's property `upstream`, or else the gateway's
    /// `replica_template`.
    pub replicas: Vec<String>,
    /// HTTP version spoken to the replicas.
    pub protocol: Protocol,
    /// How the replicas share the calls.
    #[serde(skip_serializing_if = "is_default")]
    pub balancing: BalancingSpec,
    /// Milliseconds that a replica which comes (back) beside others takes to get its full share; unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start_ms: Option<u64>,
    /// When failing replicas are left out.
    #[serde(skip_serializing_if = "is_default")]
    pub ejection: EjectionSpec,
    /// The container's own paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathsSpec>,
    /// What a replica must prove before it gets calls; unset: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// How replicas that are given by name are found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<NamesSpec>,
    /// Where they are set, these go before the service's.
    pub limits: LimitsSpec,
    /// For people.
    pub description: String,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Free facts; `upstream` as for the service, and before it.
    pub properties: BTreeMap<String, String>,
    /// What only Azure's clients know of, kept as it was sent and given back to them.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub azure: serde_json::Map<String, serde_json::Value>,
}

/// HTTP version spoken to replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 with prior knowledge (by ALPN over TLS); what gRPC needs.
    H2,
}

/// The container's own paths, each beginning with `/`; unset ones are the profile's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathsSpec {
    /// Where the model is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// Where its description is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swagger: Option<String>,
    /// Where its health is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
}

/// Sizes and waits; unset ones are the gateway's defaults. The same names and bounds as `limits` in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSpec {
    /// Largest request body, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Milliseconds from the last byte of the request to the first byte of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scoring_timeout_ms: Option<u64>,
    /// Milliseconds between two pieces of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Milliseconds from the head of an answer to its end; of the service only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_timeout_ms: Option<u64>,
    /// Calls at once per replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests_per_replica: Option<u32>,
    /// Milliseconds that a call may wait for a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_wait_ms: Option<u64>,
    /// How many calls may wait at once; unset: 1000, for Managed as many as there are places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<u32>,
    /// How many calls of all callers together in a time. Of the service alone, not of a deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,
    /// How many calls of each caller in a time. Of the service alone, not of a deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_principal: Option<RateSpec>,
}

/// So many calls in a second, and how many of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSpec {
    /// Calls per second in the long run, 0.001 to 1000000.
    pub requests_per_second: f64,
    /// Calls that may come at once after a rest, 1 to 1000000; unset: what comes in a second, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What becomes of an answer under way when the credential that began it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AtExpiry {
    /// It goes on to its end.
    #[default]
    Finish,
    /// It is cut; the record says so.
    Cut,
}

/// Which of a service's two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeySlot {
    /// `primaryKey`
    Primary,
    /// `secondaryKey`
    Secondary,
}

impl KeySlot {
    /// The word of records and of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}
