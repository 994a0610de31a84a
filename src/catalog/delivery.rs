//! How calls reach deployments beside the traffic shares: which may be sent twice, what naming one means, and copies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ServiceName;

/// What becomes of a call that names a deployment which the service does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownDeployment {
    /// It is answered 404.
    #[default]
    Refuse,
    /// It goes where it would have gone without the name.
    Ignore,
}

impl UnknownDeployment {
    /// Whether a service that says nothing has it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which calls may be sent a second time, although the replica may have run them already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// None.
    #[default]
    Never,
    /// Those whose method says that it makes no difference (RFC 9110 9.2.2). Scoring is POST, which does not.
    Idempotent,
    /// All: the owner's word that repeating a call does no harm.
    Always,
}

/// How calls are tried again at another replica; the same names, bounds and defaults as `retry` in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySpec {
    /// Attempts of one call at most, the first one included, 1 to 10. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Which calls may be sent again after the replica has reset the connection or closed it before its answer.
    pub replay: Replay,
    /// Largest request body, in bytes, that is kept for being sent again; at most 16 MiB, default 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Calls sent again at most, in percent of the service's calls over the last ten seconds, 1 to 100. Default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<u32>,
    /// Answers of a replica after which a call is sent again, 500 to 599.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
}

/// Copies of a service's calls to another of its deployments; the callers neither wait for them nor hear of them. Calls that
/// name a deployment are never copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorSpec {
    /// Where the copies go.
    pub deployment: ServiceName,
    /// Percent of the calls that are copied, 1 to 50.
    pub percent: u8,
    /// Largest request body, in bytes, that is copied; calls with larger ones are not. Default 64 KiB, at most 16 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Copies under way at once, 1 to 1000; while there are as many, none is made. Default 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
}
