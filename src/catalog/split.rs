//! What becomes of calls that name a deployment, and of copies of those that do not.

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
