//! How calls are tried again.

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::RawSize;
use crate::catalog::Replay;
use crate::upstream::RetrySettings;

/// How calls are tried again at another replica. What was not sent at all (no connection; a kept one was closed at the moment
/// of use) is always tried again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Retry")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawRetry {
    /// Attempts of one call at most, the first one included, 1 to 10. All of them together last no longer than
    /// `limits.scoring_timeout`.
    pub attempts: At<u32>,
    /// Which calls may be sent again after the replica has reset the connection or closed it before its answer, and so may
    /// have run them already.
    pub replay: At<RawReplay>,
    /// Largest request body that is kept for being sent again, 0 to 16MiB.
    pub body_bytes: At<RawSize>,
    /// Calls sent again at most, in percent of the service's calls over the last ten seconds (ten calls are always allowed),
    /// 1 to 100. When it is used up, the error stands.
    pub budget: At<u32>,
    /// Answers of a replica after which a call is sent again, 500 to 599. Default: none, every answer is passed on.
    pub statuses: Vec<At<u16>>,
}

/// Which calls may be sent again although they may have been run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Replay")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawReplay {
    /// None.
    #[default]
    Never,
    /// Those whose method says that it makes no difference, such as GET. Scoring is POST, which does not.
    Idempotent,
    /// All: running a call of this service twice does no harm.
    Always,
}

impl Default for RawRetry {
    fn default() -> Self {
        let default = RetrySettings::default();
        Self {
            attempts: At::default_value(default.attempts),
            replay: At::default(),
            body_bytes: At::default_value(RawSize(default.body_bytes as u64)),
            budget: At::default_value(default.budget),
            statuses: default.statuses.iter().map(StatusCode::as_u16).map(At::default_value).collect(),
        }
    }
}

impl From<RawReplay> for Replay {
    fn from(raw: RawReplay) -> Self {
        match raw {
            RawReplay::Never => Self::Never,
            RawReplay::Idempotent => Self::Idempotent,
            RawReplay::Always => Self::Always,
        }
    }
}
