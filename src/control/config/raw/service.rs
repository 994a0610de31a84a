//! What is served: one service with its auth mode, limits and deployments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::{RawDuration, RawSize};
use super::RawSecret;
use super::balancing::{RawBalancing, RawEjection};
use super::collection::RawCollect;
use super::health::{RawHealth, RawNames};
use super::listener::RawCertificate;
use super::rate::RawRate;
use super::retry::RawRetry;
use super::split::{RawMirror, RawSticky, RawUnknownDeployment};
use crate::catalog::{AuthMode, ComputeType, Profile, StatusMapping};
use crate::limit::{DeploymentLimits, Limits};

/// One service. It is reached by its hosts and, whatever its compute type, by path `/api/v1/service/NAME/score`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Service")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "compute_type", "deployments"]))]
pub(in super::super) struct RawService {
    /// Lower-case letters, digits and `-`, 3 to 32, beginning with a letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// Where Azure would run it: decides the default auth mode and the status mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub compute_type: Option<At<RawComputeType>>,
    /// Host names or addresses that mean this service, lower case, without a port.
    pub hosts: Vec<At<String>>,
    /// How callers prove who they are. Default: `none` for ACI, `key` for AKS and Managed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<At<RawAuthMode>>,
    /// The keys of `auth: key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<At<RawKeys>>,
    /// The outside issuer of `auth: oidc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<At<RawOidc>>,
    /// Cross-origin rules; absent: no CORS headers and no preflight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<At<RawCors>>,
    /// The kind of server in its containers: decides which of its paths are open and the defaults of `paths`.
    pub profile: At<Profile>,
    /// Further paths of the containers that callers may use, each passed on as it is; at most 100.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub score_paths: Vec<At<String>>,
    /// gRPC services that are open, `package.Service`, or single methods of one, `package.Service/Method`; at most 100.
    /// The replicas' `protocol` must be `h2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grpc: Vec<At<String>>,
    /// Whether statuses are rewritten.
    pub status_mapping: At<RawStatusMapping>,
    /// `true` passes WebSocket handshakes (RFC 6455, HTTP/1.1) on to the replicas; without it they are ordinary GETs.
    pub websocket: At<bool>,
    /// Sizes and waits.
    pub limits: At<RawLimits>,
    /// How calls are tried again.
    pub retry: At<RawRetry>,
    /// What becomes of a call that names a deployment which the service does not have.
    pub unknown_deployment: At<RawUnknownDeployment>,
    /// Keeps calls that belong together at one deployment; absent: each call by turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<At<RawSticky>>,
    /// Copies of calls to another deployment; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<At<RawMirror>>,
    /// Samples of inputs and outputs; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_collection: Option<At<RawCollect>>,
    /// Versions of the service, at least one.
    pub deployments: Vec<At<RawDeployment>>,
}

/// Where Azure would run a service.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ComputeType")]
pub(in super::super) enum RawComputeType {
    /// Azure Container Instances (SDK v1).
    #[serde(rename = "ACI")]
    Aci,
    /// Azure Kubernetes Service (SDK v1) or Kubernetes online endpoint.
    #[serde(rename = "AKS")]
    Aks,
    /// Managed online endpoint (SDK v2).
    Managed,
}

/// How callers prove who they are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuthMode")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawAuthMode {
    /// Everybody may call. Not for Managed.
    None,
    /// One of two static keys.
    Key,
    /// An expiring token signed by this gateway (`tokens`). Not for ACI.
    Token,
    /// An expiring token of an outside issuer (`oidc`). Managed only.
    Oidc,
}

/// Whether statuses are rewritten.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StatusMapping")]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawStatusMapping {
    /// As the compute type's own front end does.
    #[default]
    ComputeType,
    /// The container's status as it is.
    Passthrough,
}

/// The two keys of a service, both valid.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Keys")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["primary"]))]
pub(in super::super) struct RawKeys {
    /// First key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub primary: Option<At<RawSecret>>,
    /// Second key, so that the first can be changed without a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secondary: Option<At<RawSecret>>,
}

/// An outside issuer of tokens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Oidc")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["issuer", "jwks"]))]
pub(in super::super) struct RawOidc {
    /// Expected `iss`, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub issuer: Option<At<String>>,
    /// Expected `aud`. Default: the service's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<At<String>>,
    /// Where the issuer's public keys are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub jwks: Option<At<RawJwks>>,
    /// Clock difference allowed when `exp` and `nbf` are judged, 0s to 10m.
    pub leeway: At<RawDuration>,
}

impl Default for RawOidc {
    fn default() -> Self {
        Self { issuer: None, audience: None, jwks: None, leeway: At::default_value(RawDuration::secs(60)) }
    }
}

/// A JSON Web Key Set, exactly one of `file` and `url`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Jwks")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawJwks {
    /// A file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<At<String>>,
    /// An `https` URL (`http` for loopback addresses only), fetched in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<At<String>>,
    /// PEM bundle of authorities for `url`, in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<At<String>>,
}

/// Cross-origin rules; the gateway answers the preflight itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Cors")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["origins"]))]
pub(in super::super) struct RawCors {
    /// Allowed origins such as `https://app.example.org`, or `*` alone for any.
    pub origins: Vec<At<String>>,
    /// Request headers that a page may send.
    pub headers: Vec<At<String>>,
    /// How long a browser may remember the preflight, 0s to 24h.
    pub max_age: At<RawDuration>,
}

impl Default for RawCors {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            headers: ["authorization", "content-type"].map(|name| At::default_value(name.to_owned())).into(),
            max_age: At::default_value(RawDuration::secs(600)),
        }
    }
}

/// Sizes and waits of one service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Limits")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawLimits {
    /// Largest request body, 1 byte to 1024GiB.
    pub body_bytes: At<RawSize>,
    /// Largest request head (request line and fields), 1KiB to 1MiB.
    pub header_bytes: At<RawSize>,
    /// Longest connect to a replica (name look-up, TCP and TLS), 1ms to 5m.
    pub connect_timeout: At<RawDuration>,
    /// Longest wait from the last byte of the request to the first byte of the answer, 1ms to 24h.
    pub scoring_timeout: At<RawDuration>,
    /// Longest pause between two pieces of the answer, 1ms to 24h; in WebSockets and gRPC, longest silence of both sides.
    pub idle_timeout: At<RawDuration>,
    /// Longest wait for the next piece of the request body, 1ms to 1h.
    pub request_body_timeout: At<RawDuration>,
    /// Longest wait for the client to take the next piece of the answer, 1ms to 1h.
    pub response_write_timeout: At<RawDuration>,
    /// Longest time from the head of an answer (or from a WebSocket's 101) to its end, 1ms to 7d. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_timeout: Option<At<RawDuration>>,
    /// Calls at once per replica, 1 to 1000000. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests_per_replica: Option<At<u32>>,
    /// Longest wait for a place, 0s to 10m.
    pub queue_wait: At<RawDuration>,
    /// How many calls may wait at once, 0 to 1000000. Default: 1000; for Managed as many as there are places, so that calls
    /// beyond twice the places are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<At<u32>>,
    /// How many calls of all callers together in a time. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<At<RawRate>>,
    /// How many calls of each caller in a time: of each key, of each subject of tokens, or with `auth: none` of each client
    /// address (the /64 network of an IPv6 one). Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_principal: Option<At<RawRate>>,
}

impl Default for RawLimits {
    fn default() -> Self {
        let duration = |duration| At::default_value(RawDuration(duration));
        let (client, replica) = (Limits::default(), DeploymentLimits::default());
        Self {
            body_bytes: At::default_value(RawSize(client.body_bytes)),
            header_bytes: At::default_value(RawSize(client.header_bytes as u64)),
            connect_timeout: duration(replica.upstream.connect),
            scoring_timeout: duration(replica.upstream.first_byte),
            idle_timeout: duration(replica.upstream.idle),
            request_body_timeout: duration(client.request_body),
            response_write_timeout: duration(client.response_write),
            answer_timeout: client.answer.map(duration),
            concurrent_requests_per_replica: replica.admission.per_replica.map(At::default_value),
            queue_wait: duration(replica.admission.queue_wait),
            queue_length: None,
            rate: None,
            rate_per_principal: None,
        }
    }
}

/// One version of a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Deployment")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "replicas"]))]
pub(in super::super) struct RawDeployment {
    /// Lower-case letters, digits and `-`, 3 to 32, beginning with a letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// Percent of the service's calls, 0 to 100. The default deployment also gets what is left of 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<At<u32>>,
    /// `true` on at most one: gets what the others leave of 100 percent. Without it, the first one does.
    pub default: At<bool>,
    /// URLs such as `http://127.0.0.1:5001`: scheme, host and port; at least one.
    pub replicas: Vec<At<String>>,
    /// Who gets the next call: `least_busy` (the less busy of two replicas drawn at random), `round_robin`, or
    /// `{hash: HEADER}`: calls with the same value of the header go to the same replica as long as it can take them.
    pub balancing: At<RawBalancing>,
    /// How long a replica that comes (back) beside others takes to get its full share of the calls, 0s to 1h. Default: 0s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<At<RawDuration>>,
    /// When failing replicas are left out for a while; `off`: never.
    pub ejection: At<RawEjection>,
    /// The container's own paths.
    pub paths: At<RawPaths>,
    /// HTTP version spoken to the replicas.
    pub protocol: At<RawProtocol>,
    /// TLS towards `https` replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<At<RawReplicaTls>>,
    /// What a replica must prove before it gets calls. Absent: nothing, it gets them at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<At<RawHealth>>,
    /// How replicas that are given by name are found.
    pub names: At<RawNames>,
}

/// The container's own paths, each beginning with `/`. Default: those of the service's `profile`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Paths")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawPaths {
    /// The model itself. Default: `/score`, `/invocations` (mlflow), `/v1/chat/completions` (openai); no default for
    /// kserve-v2, triton and torchserve, where it depends on the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<At<String>>,
    /// Its description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swagger: Option<At<String>>,
    /// Whether the container is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<At<String>>,
}

/// HTTP version spoken to replicas.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Protocol")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawProtocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 with prior knowledge (by ALPN over TLS).
    H2,
}

/// TLS towards replicas.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReplicaTls")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawReplicaTls {
    /// PEM bundle of trusted authorities, in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<At<String>>,
    /// Shown to replicas that ask for a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<At<RawCertificate>>,
    /// Name that the replicas' certificates must bear. Default: the host of the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<At<String>>,
}

impl From<RawComputeType> for ComputeType {
    fn from(raw: RawComputeType) -> Self {
        match raw {
            RawComputeType::Aci => Self::Aci,
            RawComputeType::Aks => Self::Aks,
            RawComputeType::Managed => Self::Managed,
        }
    }
}

impl From<RawAuthMode> for AuthMode {
    fn from(raw: RawAuthMode) -> Self {
        match raw {
            RawAuthMode::None => Self::None,
            RawAuthMode::Key => Self::Key,
            RawAuthMode::Token => Self::Token,
            RawAuthMode::Oidc => Self::Oidc,
        }
    }
}

impl From<AuthMode> for RawAuthMode {
    fn from(mode: AuthMode) -> Self {
        match mode {
            AuthMode::None => Self::None,
            AuthMode::Key => Self::Key,
            AuthMode::Token => Self::Token,
            AuthMode::Oidc => Self::Oidc,
        }
    }
}

impl From<RawStatusMapping> for StatusMapping {
    fn from(raw: RawStatusMapping) -> Self {
        match raw {
            RawStatusMapping::ComputeType => Self::ComputeType,
            RawStatusMapping::Passthrough => Self::Passthrough,
        }
    }
}
