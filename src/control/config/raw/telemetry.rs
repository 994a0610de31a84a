//! Records and where they go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::{RawDuration, RawSize};
use super::RawSecret;
use super::collection::RawCollector;
use super::unbuilt::RawOtlp;

/// Records of calls and where they go; without this section no records are written.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Telemetry")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawTelemetry {
    /// How much of the caller a record holds.
    pub privacy: At<RawPrivacy>,
    /// One JSON object per call. Switching an output on or off needs a restart.
    pub records: At<RawRecords>,
    /// Where records wait for exporters; each has a spool of its own. A change needs a restart.
    pub spool: At<RawSpool>,
    /// Azure Application Insights. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_insights: Option<At<RawApplicationInsights>>,
    /// Where inputs and outputs of calls are collected. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_collection: Option<At<RawCollector>>,
    /// An OpenTelemetry collector. No effect in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<At<RawOtlp>>,
}

/// How much of the caller a record holds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Privacy")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawPrivacy {
    /// All fields; known secrets in the query are masked.
    #[default]
    Standard,
    /// No query, user agent, client address or subject.
    High,
}

/// Where records go.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Records")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawRecords {
    /// Appended to a file, which is opened anew on SIGUSR1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<At<RawFile>>,
    /// Written to standard output.
    pub stdout: At<bool>,
}

/// A file to append to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "File")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub(in super::super) struct RawFile {
    /// Its path; the folder must exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub path: Option<At<String>>,
}

/// The spools of exporters: records wait here until the collector has them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Spool")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawSpool {
    /// Folder; each exporter has one of its own in it, made when the gateway starts. Not used in memory.
    pub path: At<String>,
    /// Where records wait, and how safe they are there.
    pub mode: At<RawSpoolMode>,
    /// Most that waits, per exporter, 1MiB to 1TiB; the oldest records are dropped to keep it. Default: 256MiB on the disk,
    /// 32MiB in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<At<RawSize>>,
    /// Records that wait longer are dropped, 1m to 30d.
    pub age: At<RawDuration>,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self {
            path: At::default_value("spool".to_owned()),
            mode: At::default(),
            size: None,
            age: At::default_value(RawDuration::secs(48 * 3600)),
        }
    }
}

/// The spool of one exporter, where it differs from `telemetry.spool`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "OwnSpool")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawOwnSpool {
    /// Folder; the exporter has one of its own in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<String>>,
    /// Where records wait, and how safe they are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<At<RawSpoolMode>>,
    /// Most that waits, 1MiB to 1TiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<At<RawSize>>,
    /// Records that wait longer are dropped, 1m to 30d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<At<RawDuration>>,
}

/// Where records wait, and how safe they are there.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SpoolMode")]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawSpoolMode {
    /// In memory: what waits ends with the process.
    Memory,
    /// On the disk: a killed process loses what was on its way there (some 20 ms), a power cut at most a second more.
    #[default]
    WriteBehind,
    /// On the disk, and synced before a record counts as spooled.
    WriteAhead,
}

/// Azure Application Insights.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ApplicationInsights")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawApplicationInsights {
    /// Connection string, a secret. What it does not say, or all if it is absent, comes from the variables
    /// `APPLICATIONINSIGHTS_CONNECTION_STRING` and `APPINSIGHTS_INSTRUMENTATIONKEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_string: Option<At<RawSecret>>,
    /// Its spool, where it differs from `telemetry.spool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<At<RawOwnSpool>>,
}
