//! How replicas prove that they can take calls, and how those that are given by name are found.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::super::decode::At;
use super::super::units::RawDuration;
use crate::upstream::{NamesSettings, ProbeSettings, ReadinessSettings};

/// What a replica must prove before it gets calls; at least one of the two.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Health")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(in super::super) struct RawHealth {
    /// A small question, asked at every interval. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<At<RawProbe>>,
    /// A real scoring call, made before a replica gets its first call and before it gets calls again after it was not
    /// ready. It must be answered 200. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<At<RawReadiness>>,
}

/// A small question to a replica: a GET, or a check of gRPC health.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Probe")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawProbe {
    /// The container's own path, GET. Default: `paths.health` of the deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<String>>,
    /// In place of `path`: the service that `grpc.health.v1.Health/Check` is asked about, empty for the server as a whole.
    /// For replicas with `protocol: h2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<At<String>>,
    /// Statuses that are good answers to the GET, such as 200 or 200-299.
    pub status: Vec<At<RawStatus>>,
    /// From one answer to the next question, give or take a tenth; 100ms to 1h. While a replica starts, it is asked at
    /// least once a second.
    pub interval: At<RawDuration>,
    /// Longest time for connecting, asking and the head of the answer together, 1ms to 5m.
    pub timeout: At<RawDuration>,
    /// So many good answers in a row make a replica ready, 1 to 100.
    pub healthy: At<u32>,
    /// So many failures in a row make a ready replica not ready, 1 to 100.
    pub unhealthy: At<u32>,
    /// How long a new replica may take to start: failures count for nothing, and it gets no calls until it is ready; 0s to
    /// 24h.
    pub startup: At<RawDuration>,
}

impl Default for RawProbe {
    fn default() -> Self {
        let duration = |duration| At::default_value(RawDuration(duration));
        let settings = ProbeSettings::default();
        Self {
            path: None,
            grpc: None,
            status: vec![At::default_value(RawStatus("200".to_owned()))],
            interval: duration(settings.interval),
            timeout: duration(settings.timeout),
            healthy: At::default_value(settings.healthy),
            unhealthy: At::default_value(settings.unhealthy),
            startup: duration(settings.startup),
        }
    }
}

/// A real scoring call. Exactly one of `body` and `body_file`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Readiness")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawReadiness {
    /// The container's own path, POST. Default: `paths.score` of the deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<String>>,
    /// The body itself, at most 1MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<At<String>>,
    /// File with the body, at most 1MiB; watched, as certificates are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_file: Option<At<String>>,
    /// `Content-Type` of the body.
    pub content_type: At<String>,
    /// Longest time for the whole call, 1ms to 1h.
    pub timeout: At<RawDuration>,
}

impl Default for RawReadiness {
    fn default() -> Self {
        Self {
            path: None,
            body: None,
            body_file: None,
            content_type: At::default_value(ReadinessSettings::DEFAULT_CONTENT_TYPE.to_owned()),
            timeout: At::default_value(RawDuration(ReadinessSettings::DEFAULT_TIMEOUT)),
        }
    }
}

/// How replicas that are given by name are found. Each address of the name is a replica of its own.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Names")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawNames {
    /// From one look-up to the next, 100ms to 24h. If one fails, the last good answer stays.
    pub refresh: At<RawDuration>,
}

impl Default for RawNames {
    fn default() -> Self {
        Self { refresh: At::default_value(RawDuration(NamesSettings::default().refresh)) }
    }
}

/// A status or a range of them, as it is written.
#[derive(Clone, Debug)]
pub(in super::super) struct RawStatus(pub String);

impl Serialize for RawStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.parse::<u16>() {
            Ok(status) => serializer.serialize_u16(status),
            Err(_) => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for RawStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Status;
        impl Visitor<'_> for Status {
            type Value = RawStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 200, or a range such as 200-299")
            }

            fn visit_u64<E: Error>(self, status: u64) -> Result<RawStatus, E> {
                Ok(RawStatus(status.to_string()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawStatus, E> {
                Ok(RawStatus(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Status)
    }
}

impl JsonSchema for RawStatus {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Status".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 200, "maximum": 599 },
            { "type": "string", "pattern": "^[2-5][0-9][0-9]( *- *[2-5][0-9][0-9])?$" },
        ] })
    }
}
