//! Samples of inputs and outputs: where they go, and which services leave some.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::{RawDuration, RawSize};
use crate::proxy::CollectSettings;

/// Where inputs and outputs of calls are collected: `PATH/SERVICE/YYYY-MM-DD.jsonl`, one JSON object per call. Without this
/// section no service may have them collected. Not with `privacy: high`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Collection")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawCollection {
    /// Folder; made when the gateway starts. Each gateway needs its own.
    pub path: At<String>,
    /// Most bytes of all files together, 16MiB to 1TiB. To keep it, the service that has most loses its oldest file.
    pub size: At<RawSize>,
    /// How long a file stays after its day (UTC), 1h to 365d.
    pub keep: At<RawDuration>,
}

impl Default for RawCollection {
    fn default() -> Self {
        Self {
            path: At::default_value("collected".to_owned()),
            size: At::default_value(RawSize(1 << 30)),
            keep: At::default_value(RawDuration::secs(7 * 24 * 3600)),
        }
    }
}

/// Samples of the service's scoring calls: copies of their inputs and outputs, with the ids of the calls and without any header
/// but type and coding. Needs `telemetry.data_collection`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Collect")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawCollect {
    /// Share of the calls, 0 to 1.
    pub sample: At<f64>,
    /// Most bytes kept of an input and of an output, each from its beginning, 1 to 1MiB.
    pub body_bytes: At<RawSize>,
    /// Whether inputs are kept.
    pub inputs: At<bool>,
    /// Whether outputs are kept.
    pub outputs: At<bool>,
}

impl Default for RawCollect {
    fn default() -> Self {
        let default = CollectSettings::default();
        Self {
            sample: At::default_value(default.sample),
            body_bytes: At::default_value(RawSize(default.body_bytes as u64)),
            inputs: At::default_value(default.inputs),
            outputs: At::default_value(default.outputs),
        }
    }
}
