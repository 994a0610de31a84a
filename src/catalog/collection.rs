//! What is kept of a service's calls themselves: samples of their inputs and outputs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Samples of a service's inputs and outputs, kept in files on the gateway's disk; the same names, bounds and defaults as
/// `data_collection` in the configuration. Only on a gateway whose configuration allows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataCollectionSpec {
    /// Share of the scoring calls that are kept, 0 to 1. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<f64>,
    /// Most bytes that are kept of an input and of an output, each from its beginning; at most 1 MiB, default 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Whether inputs are kept. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<bool>,
    /// Whether outputs are kept. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<bool>,
}
