//! Which deployment a call goes to beside the weights, and which gets a copy of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::RawSize;
use crate::catalog::UnknownDeployment;
use crate::proxy::MirrorSettings;

/// What becomes of a call that names, in `azureml-model-deployment`, a deployment which the service does not have.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "UnknownDeployment")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawUnknownDeployment {
    /// It is answered 404.
    #[default]
    Refuse,
    /// It goes where it would have gone without the name.
    Ignore,
}

/// Calls that belong together go to the same deployment for as long as the traffic shares stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Sticky")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["header"]))]
pub(in super::super) struct RawSticky {
    /// Request header whose value they have in common. Calls without it are shared out by turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub header: Option<At<String>>,
}

/// Copies of scoring calls to another deployment; callers neither wait for them nor hear of them. Calls that name a
/// deployment are never copied, nor are those that go to the copies' deployment anyway.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Mirror")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["deployment", "percent"]))]
pub(in super::super) struct RawMirror {
    /// Where the copies go.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub deployment: Option<At<String>>,
    /// Percent of the calls that are copied, 1 to 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub percent: Option<At<u32>>,
    /// Largest request body that is copied, 0 to 16MiB; calls with larger ones are not.
    pub body_bytes: At<RawSize>,
    /// Copies under way at once, 1 to 1000; while there are as many, none is made.
    pub concurrent: At<u32>,
}

impl Default for RawMirror {
    fn default() -> Self {
        Self {
            deployment: None,
            percent: None,
            body_bytes: At::default_value(RawSize(MirrorSettings::DEFAULT_BODY_BYTES)),
            concurrent: At::default_value(MirrorSettings::DEFAULT_CONCURRENT),
        }
    }
}

impl From<RawUnknownDeployment> for UnknownDeployment {
    fn from(raw: RawUnknownDeployment) -> Self {
        match raw {
            RawUnknownDeployment::Refuse => Self::Refuse,
            RawUnknownDeployment::Ignore => Self::Ignore,
        }
    }
}
