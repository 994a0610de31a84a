//! Sections about the gateway as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::RawDuration;
use super::{RawSecret, RawWorkers};

/// Azure-style identity; stands in the URIs of the management APIs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Workspace")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawWorkspace {
    /// Subscription id.
    pub subscription: At<String>,
    /// Resource group.
    pub resource_group: At<String>,
    /// Workspace name.
    pub name: At<String>,
    /// Azure location, such as `westeurope`.
    pub location: At<String>,
}

impl Default for RawWorkspace {
    fn default() -> Self {
        let local = || At::default_value("local".to_owned());
        Self {
            subscription: local(),
            resource_group: local(),
            name: At::default_value("scoregate".to_owned()),
            location: local(),
        }
    }
}

/// Threads of the data plane.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Runtime")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawRuntime {
    /// Worker threads; `auto` is the number of CPUs that the process may use.
    pub workers: At<RawWorkers>,
}

/// Metrics and health, plain HTTP: `/metrics`, `/livez`, `/readyz`, `/healthz`, `/config/status`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Observe")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawObserve {
    /// IP address and port; port 0 lets the system choose. A change needs a restart.
    pub address: At<String>,
}

impl Default for RawObserve {
    fn default() -> Self {
        Self { address: At::default_value("127.0.0.1:9090".to_owned()) }
    }
}

/// The gateway's own token issuer (ES256).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Tokens")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["issuer", "signing_key"]))]
pub(in super::super) struct RawTokens {
    /// `iss` of the tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub issuer: Option<At<String>>,
    /// P-256 private key as PEM (PKCS#8 or SEC 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub signing_key: Option<At<RawSecret>>,
    /// Lifetime of a token, 1s to 720h.
    pub lifetime: At<RawDuration>,
    /// Clock difference allowed when `exp` and `nbf` are judged, 0s to 10m.
    pub leeway: At<RawDuration>,
}

impl Default for RawTokens {
    fn default() -> Self {
        Self {
            issuer: None,
            signing_key: None,
            lifetime: At::default_value(RawDuration::secs(12 * 60 * 60)),
            leeway: At::default_value(RawDuration::secs(60)),
        }
    }
}

/// How the process ends: readiness goes first, then new calls are refused, then what is left is cut.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Drain")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawDrain {
    /// How long calls are still taken after readiness is gone, 0s to 10m.
    pub delay: At<RawDuration>,
    /// How long calls in flight may go on after that, 0s to 1h.
    pub timeout: At<RawDuration>,
}

impl Default for RawDrain {
    fn default() -> Self {
        Self {
            delay: At::default_value(RawDuration::secs(5)),
            timeout: At::default_value(RawDuration::secs(25)),
        }
    }
}

/// The process's own log, on standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Log")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawLog {
    /// Shape of a line.
    pub format: At<RawLogFormat>,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`) or a filter such as `info,scoregate::tls=debug`.
    pub level: At<String>,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { format: At::default(), level: At::default_value("info".to_owned()) }
    }
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "LogFormat")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawLogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}
