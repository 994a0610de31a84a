//! Sections of the contract that this version reads and checks for shape only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;

/// An OpenTelemetry collector.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Otlp")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["endpoint"]))]
pub(in super::super) struct RawOtlp {
    /// URL such as `http://127.0.0.1:4317`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub endpoint: Option<At<String>>,
}
