//! Compute types and the rules each one brings: auth default, what it refuses, how statuses are rewritten.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where Azure would have run the service; decides defaults, the shape of the URI and the status mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ComputeType {
    /// Azure Container Instances web service (SDK v1).
    #[serde(rename = "ACI")]
    Aci,
    /// Azure Kubernetes Service web service (SDK v1) or Kubernetes online endpoint.
    #[serde(rename = "AKS")]
    Aks,
    /// Managed online endpoint (SDK v2).
    Managed,
}

/// How callers prove who they are; a service has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Everybody may call.
    None,
    /// One of two static keys.
    Key,
    /// An expiring token signed by this gateway.
    Token,
    /// An expiring token of an outside issuer.
    Oidc,
}

/// Whether statuses of the model and the gateway are rewritten as Azure's front end would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusMapping {
    /// As the compute type's own front end does.
    #[default]
    ComputeType,
    /// The container's status as it is.
    Passthrough,
}

impl ComputeType {
    /// The mode of a service that names none (Azure's defaults: ACI key off, AKS and managed key on).
    #[must_use]
    pub const fn default_auth(self) -> AuthMode {
        match self {
            Self::Aci => AuthMode::None,
            Self::Aks | Self::Managed => AuthMode::Key,
        }
    }

    /// Why `mode` cannot be had on this compute type; `None` if it can.
    #[must_use]
    pub const fn refuses(self, mode: AuthMode) -> Option<&'static str> {
        match (self, mode) {
            (Self::Aci, AuthMode::Token) => {
                Some("token authentication is not available on ACI; use key, none, or another compute type")
            }
            (Self::Aci | Self::Aks, AuthMode::Oidc) => {
                Some("oidc is available on Managed services only; ACI and AKS take key, none (AKS: token)")
            }
            (Self::Managed, AuthMode::None) => {
                Some("a Managed service is never open; use key, token or oidc, or another compute type")
            }
            (Self::Aci, AuthMode::None | AuthMode::Key)
            | (Self::Aks, AuthMode::None | AuthMode::Key | AuthMode::Token)
            | (Self::Managed, AuthMode::Key | AuthMode::Token | AuthMode::Oidc) => None,
        }
    }

    /// The word of the config and the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aci => "ACI",
            Self::Aks => "AKS",
            Self::Managed => "Managed",
        }
    }
}

impl AuthMode {
    /// The word of the config and the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key => "key",
            Self::Token => "token",
            Self::Oidc => "oidc",
        }
    }
}

impl fmt::Display for ComputeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for AuthMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the contract, row by row.
    #[test]
    fn each_compute_type_allows_its_own_modes() {
        let allowed = |compute: ComputeType| {
            [AuthMode::None, AuthMode::Key, AuthMode::Token, AuthMode::Oidc]
                .into_iter()
                .filter(|mode| compute.refuses(*mode).is_none())
                .map(AuthMode::as_str)
                .collect::<Vec<_>>()
        };
        assert_eq!(allowed(ComputeType::Aci), ["none", "key"]);
        assert_eq!(allowed(ComputeType::Aks), ["none", "key", "token"]);
        assert_eq!(allowed(ComputeType::Managed), ["key", "token", "oidc"]);
    }

    #[test]
    fn a_default_is_always_allowed() {
        for compute in [ComputeType::Aci, ComputeType::Aks, ComputeType::Managed] {
            assert_eq!(compute.refuses(compute.default_auth()), None);
        }
    }
}
