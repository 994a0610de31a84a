//! Which deployment a call goes to beside the weights, and which gets a copy of it.

use std::ops::RangeInclusive;

use http::{HeaderName, header};

use crate::catalog::{ServiceName, UnknownDeployment};
use crate::proxy::headers::DEPLOYMENT;

/// Which deployment a call goes to beside the weights, and which gets a copy of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitSettings {
    /// What becomes of a call that names a deployment which the service does not have.
    pub unknown: UnknownDeployment,
    /// Calls with the same value of this header go to the same deployment while weights stay; `None`: by turn.
    pub sticky: Option<HeaderName>,
    /// `None`: nothing is copied.
    pub mirror: Option<MirrorSettings>,
}

impl SplitSettings {
    /// Reads the name of the header of `sticky`.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn sticky_header(text: &str) -> Result<HeaderName, String> {
        match text.parse::<HeaderName>() {
            Ok(name) if name == header::AUTHORIZATION || name == DEPLOYMENT => {
                Err(format!("'{text}' has a meaning of its own here; choose another header"))
            }
            Ok(name) => Ok(name),
            Err(_) => Err(format!("'{text}' is no header name; write one such as x-session-id")),
        }
    }
}

/// Copies of a service's calls to another of its deployments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Where the copies go; a deployment of the service.
    pub deployment: ServiceName,
    /// Percent of the calls that are copied.
    pub percent: u8,
    /// Largest request body, in bytes, that is copied.
    pub body_bytes: usize,
    /// Copies under way at once, over all workers.
    pub concurrent: u32,
}

impl MirrorSettings {
    /// Bounds of `percent`; the upper one is that of Azure's managed endpoints.
    pub const PERCENT: RangeInclusive<u8> = 1..=50;
    /// Bounds of `body_bytes`.
    pub const BODY_BYTES: RangeInclusive<u64> = 0..=16 << 20;
    /// Bounds of `concurrent`.
    pub const CONCURRENT: RangeInclusive<u32> = 1..=1000;
    /// `body_bytes` where it is not set.
    pub const DEFAULT_BODY_BYTES: u64 = 64 << 10;
    /// `concurrent` where it is not set.
    pub const DEFAULT_CONCURRENT: u32 = 16;
}
