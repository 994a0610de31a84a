//! How many calls in a time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;

/// A rate: so many calls in a second, and how many of them may come at once.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Rate")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["requests_per_second"]))]
pub(in super::super) struct RawRate {
    /// Calls per second in the long run, 0.001 to 1000000; below 1 is less than one a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub requests_per_second: Option<At<f64>>,
    /// Calls that may come at once after a rest, 1 to 1000000. Default: what comes in a second, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<At<u32>>,
}
