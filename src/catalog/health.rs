//! What the owner of a deployment wants its replicas to prove before they get calls.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a replica must prove before it gets calls; at least one of the two. The same as `health` in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthSpec {
    /// A small question, asked at every interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSpec>,
    /// A real scoring call, made before a replica gets its first call and before it gets calls again after it was not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ReadinessSpec>,
}

/// A small question to a replica; unset fields are the gateway's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeSpec {
    /// The container's own path, GET; unset: `paths.health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In place of `path`: the service that `grpc.health.v1.Health/Check` is asked about. Only for replicas that speak
    /// HTTP/2, which the configuration alone can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// Statuses that are good answers, such as `200` or `200-299`; empty: 200.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<String>,
    /// Milliseconds from one answer to the next question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Milliseconds for connecting, asking and the head of the answer together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// So many good answers in a row make a replica ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<u32>,
    /// So many failures in a row make a ready replica not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<u32>,
    /// Milliseconds that a new replica may take to start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_ms: Option<u64>,
}

/// A real scoring call, which must be answered 200.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReadinessSpec {
    /// The container's own path, POST; unset: `paths.score`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The body, at most 1 MiB.
    pub body: String,
    /// `Content-Type` of the body; unset: `application/json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Milliseconds for the whole call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// How replicas that are given by name are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NamesSpec {
    /// Milliseconds from one look-up to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_ms: Option<u64>,
}
