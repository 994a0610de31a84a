//! The serde and schema shape of `scoregate/v1`: names, docs and defaults, one struct per section.
//!
//! Every field is optional here, so that one load finds all that is missing; what must be there is said by `required` of
//! the schema and by `resolve`. The docs are the descriptions of the published JSON Schema.

mod balancing;
mod collection;
mod gateway;
mod health;
mod listener;
mod management;
mod otlp;
mod rate;
mod retry;
mod service;
mod split;
mod telemetry;

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::decode::At;
pub(super) use balancing::{RawBalancing, RawEjection, RawEjections};
pub(super) use collection::RawCollect;
pub(super) use gateway::{RawDrain, RawLog, RawLogFormat, RawObserve, RawRuntime, RawTokens, RawWorkspace};
pub(super) use health::{RawHealth, RawNames, RawProbe, RawReadiness};
pub(super) use listener::{RawCertificate, RawListener, RawServerTls, RawTlsVersion};
pub(super) use management::{
    RawAddressPolicy, RawIssuer, RawManagement, RawStore, RawStoreKind, RawUriTemplates, RawWrappingKey,
};
pub(super) use otlp::{RawCompression, RawOtlp, RawOtlpProtocol, RawSampling};
pub(super) use rate::RawRate;
pub(super) use retry::RawRetry;
pub(super) use service::{
    RawCors, RawDeployment, RawJwks, RawKeys, RawLimits, RawOidc, RawPaths, RawProtocol, RawReplicaTls,
    RawService,
};
pub(super) use split::{RawMirror, RawSticky};

pub(super) use telemetry::{
    RawApplicationInsights, RawFile, RawOwnSpool, RawPrivacy, RawSpool, RawSpoolEncryption, RawSpoolMode,
    RawTelemetry,
};

/// Configuration of scoregate, a gateway in front of model containers. Relative paths are relative to the folder of the
/// configuration file. A single value can be overridden by an environment variable `SCOREGATE__SECTION__KEY`, an item of
/// a list by its index.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Config", title = "scoregate/v1", extend("required" = ["version", "listeners"]))]
pub(super) struct Raw {
    /// Version of this format.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub version: Option<At<RawVersion>>,
    /// Azure-style identity of what is served here.
    pub workspace: At<RawWorkspace>,
    /// Base of the scoring URIs given out, such as `https://score.example.org:8443`. Default: the first listener's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<At<String>>,
    /// Scoring URIs given out per compute type; `{service}` stands for the name. A change needs a
    /// restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri_templates: Option<At<RawUriTemplates>>,
    /// Replica URL of services made through an Azure SDK, with `{service}` and `{namespace}`. A change needs
    /// a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_template: Option<At<String>>,
    /// Threads of the data plane. A change needs a restart.
    pub runtime: At<RawRuntime>,
    /// Where clients connect, at least one.
    pub listeners: Vec<At<RawListener>>,
    /// The management plane; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management: Option<At<RawManagement>>,
    /// Metrics and health, plain HTTP.
    pub observe: At<RawObserve>,
    /// Where services made through the management plane are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<At<RawStore>>,
    /// The gateway's own token issuer; needed by services with `auth: token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<At<RawTokens>>,
    /// What is served.
    pub services: Vec<At<RawService>>,
    /// Records and their privacy.
    pub telemetry: At<RawTelemetry>,
    /// How the process ends.
    pub drain: At<RawDrain>,
    /// The process's own log, on standard error. A change needs a restart.
    pub log: At<RawLog>,
}

/// Version of the format.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Version")]
#[schemars(inline)]
pub(super) enum RawVersion {
    /// The first version.
    #[serde(rename = "scoregate/v1")]
    V1,
}

/// A secret by reference, exactly one of `file` and `env`; never the secret itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Secret")]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a reference, {file: PATH} or {env: NAME}: secrets are never written into the configuration"
)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct RawSecret {
    /// File that holds the secret; line ends after it are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<At<String>>,
    /// Environment variable that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<At<String>>,
}

/// A number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RawWorkers {
    /// As many as the process may use CPUs.
    #[default]
    Auto,
    /// So many.
    Count(u64),
}

const WORKERS_FORM: &str = "auto or a whole number from 1 to 1024";

impl Serialize for RawWorkers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(count) => serializer.serialize_u64(*count),
        }
    }
}

impl<'de> Deserialize<'de> for RawWorkers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Workers;
        impl Visitor<'_> for Workers {
            type Value = RawWorkers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WORKERS_FORM)
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<RawWorkers, E> {
                Ok(RawWorkers::Count(count))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawWorkers, E> {
                match text.parse() {
                    Ok(count) => Ok(RawWorkers::Count(count)),
                    Err(_) if text == "auto" => Ok(RawWorkers::Auto),
                    Err(_) => Err(E::custom(format_args!("expected {WORKERS_FORM}"))),
                }
            }
        }
        deserializer.deserialize_any(Workers)
    }
}

impl JsonSchema for RawWorkers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "const": "auto" },
            { "type": "integer", "minimum": 1, "maximum": 1024 },
        ] })
    }
}
