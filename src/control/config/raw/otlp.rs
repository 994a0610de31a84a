//! Export to OpenTelemetry collectors.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::RawDuration;
use super::{RawOwnSpool, RawSecret};

/// Records as spans and logs, and metrics, to an OpenTelemetry collector. What is absent comes from the `OTEL_*` variables of the
/// environment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Otlp")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawOtlp {
    /// URL of the collector; over http/protobuf the signals' paths (`/v1/traces` and so on) are put behind it. Default: this
    /// machine, port 4318 or for gRPC 4317.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<At<String>>,
    /// How messages are carried. Default: grpc if the port is 4317, else http/protobuf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<At<RawOtlpProtocol>>,
    /// Header fields sent along, by name; secrets by reference.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, At<RawSecret>>,
    /// PEM bundle of the authorities that the collector's certificate is of, in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<At<String>>,
    /// What is done with messages before they are sent. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<At<RawCompression>>,
    /// Of one request, 100ms to 1m. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<At<RawDuration>>,
    /// A server span for each call and a client span for each attempt; the gateway takes part in traces then. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<At<bool>>,
    /// Each record as a log record. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<At<bool>>,
    /// The gateway's metrics, and durations of calls by the HTTP conventions. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<At<bool>>,
    /// From one export of metrics to the next, 1s to 1h. Default: 1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_interval: Option<At<RawDuration>>,
    /// Attributes `gen_ai.*` of answers that tell model or token usage.
    pub gen_ai: At<bool>,
    /// Which calls' spans are exported. Logs are not sampled.
    pub sampling: At<RawSampling>,
    /// Attributes of the resource, which say who sends; `service.name` is scoregate unless it is set here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resource: BTreeMap<String, At<String>>,
    /// The spools of spans and of logs, where they differ from `telemetry.spool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<At<RawOwnSpool>>,
}

/// How messages are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OtlpProtocol")]
pub(in super::super) enum RawOtlpProtocol {
    /// Unary calls over HTTP/2.
    #[serde(rename = "grpc")]
    Grpc,
    /// Binary Protobuf over HTTP/1.1.
    #[serde(rename = "http/protobuf")]
    Http,
}

/// What is done with messages before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OtlpCompression")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawCompression {
    /// Compressed.
    Gzip,
    /// Sent as they are.
    None,
}

/// Which calls' spans are exported.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Sampling")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawSampling {
    /// Share of the calls whose caller has not decided, 0 to 1. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<At<f64>>,
    /// Calls whose reason is not ok are exported always.
    pub keep_failed: At<bool>,
    /// Calls that took longer are exported always, 1ms to 1h. Default: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower_than: Option<At<RawDuration>>,
}

impl Default for RawSampling {
    fn default() -> Self {
        Self { ratio: None, keep_failed: At::default_value(true), slower_than: None }
    }
}
