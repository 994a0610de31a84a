//! Records and where they go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::{RawDuration, RawSize};
use super::collection::RawCollection;
use super::{RawOtlp, RawSecret};

/// Records of calls and where they go; without this section no records are written.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Telemetry")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawTelemetry {
    /// How much of the caller a record holds.
    pub privacy: At<RawPrivacy>,
    /// Query parameters whose values are masked in records, beside those that are always (such as `code`, `key`, `token`, `sig`,
    /// `api_key`). Compared without regard to case, `-` and `_`, percent-encoded or not. At most 64 names of 64 bytes.
    pub mask_query: Vec<At<String>>,
    /// One JSON object per call. Switching an output on or off, or `write_ahead`, needs a restart.
    pub records: At<RawRecords>,
    /// Whether events of the activity log go to the exporters too (only with a management plane). A change needs a restart.
    pub activity: At<RawActivity>,
    /// Where records wait for exporters; each has a spool of its own. A change needs a restart.
    pub spool: At<RawSpool>,
    /// Azure Application Insights. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_insights: Option<At<RawApplicationInsights>>,
    /// Where inputs and outputs of calls are collected. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_collection: Option<At<RawCollection>>,
    /// OpenTelemetry. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<At<RawOtlp>>,
}

/// Whether events of the activity log go to the exporters too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExportActivity")]
#[serde(transparent)]
pub(in super::super) struct RawActivity(pub bool);

impl Default for RawActivity {
    fn default() -> Self {
        Self(true)
    }
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
    /// Write a record before the last byte of its call's answer is sent, so that a killed process loses none of a call that
    /// is over; a disk that is slow then slows calls. Otherwise within some 20 ms after it.
    pub write_ahead: At<bool>,
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
    /// Of what waits on the disk. The record file is never encrypted.
    pub encryption: At<RawSpoolEncryption>,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self {
            path: At::default_value("spool".to_owned()),
            mode: At::default(),
            size: None,
            age: At::default_value(RawDuration::secs(48 * 3600)),
            encryption: At::default(),
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
    /// Of what waits on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<At<RawSpoolEncryption>>,
}

/// Whether what waits on the disk can be read by whoever has the disk.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SpoolEncryption")]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum RawSpoolEncryption {
    /// Not encrypted.
    #[default]
    None,
    /// AES-256-GCM under a key that the store keeps with its secrets; needs the management plane and its store.
    Store,
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
    /// On the disk, written before the last byte of a call's answer is sent: a killed process loses no record of a call that
    /// is over, a power cut at most those of the last second. A disk that is slow slows calls.
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
    /// PEM bundle of authorities for an `https` endpoint, in place of the system's. Read when the exporter first connects,
    /// and again after a handshake that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<At<String>>,
    /// Sends the gateway's own metrics as well. Absent: records only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<At<RawInsightsMetrics>>,
    /// Its spool, where it differs from `telemetry.spool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<At<RawOwnSpool>>,
}

/// The gateway's own metrics as metric telemetry.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "InsightsMetrics")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawInsightsMetrics {
    /// Time between two sendings, 10s to 1h.
    pub interval: At<RawDuration>,
}

impl Default for RawInsightsMetrics {
    fn default() -> Self {
        Self { interval: At::default_value(RawDuration::secs(60)) }
    }
}
