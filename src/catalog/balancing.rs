//! How the replicas of a deployment share its calls, as its owner asks for it. Names and bounds are those of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who gets the next call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalancingSpec {
    /// Of two replicas drawn at random the one with fewer calls in flight.
    #[default]
    LeastBusy,
    /// One replica after the other.
    RoundRobin,
    /// Calls with the same value of this header go to the same replica.
    Hash(String),
}

/// When failing replicas are left out; unset values are the gateway's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EjectionSpec {
    /// `false`: never.
    pub enabled: bool,
    /// So many failed attempts in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// Milliseconds of the first ejection; each further one in a row is longer by as much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
    /// Milliseconds of the longest ejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_time_ms: Option<u64>,
    /// Percent of the reachable replicas that are never ejected for their answers; one is always kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
}

impl Default for EjectionSpec {
    fn default() -> Self {
        Self { enabled: true, failures: None, time_ms: None, most_time_ms: None, keep: None }
    }
}
