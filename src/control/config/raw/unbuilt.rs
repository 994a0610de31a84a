//! Sections of the contract that this version reads and checks for shape only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::RawSecret;
use super::listener::RawServerTls;

/// Scoring URIs given out, per compute type; `{service}` stands for the service's name.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "UriTemplates")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawUriTemplates {
    /// Of ACI services.
    #[serde(rename = "ACI", skip_serializing_if = "Option::is_none")]
    pub aci: Option<At<String>>,
    /// Of AKS services.
    #[serde(rename = "AKS", skip_serializing_if = "Option::is_none")]
    pub aks: Option<At<String>>,
    /// Of Managed services.
    #[serde(rename = "Managed", skip_serializing_if = "Option::is_none")]
    pub managed: Option<At<String>>,
}

/// The management plane.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Management")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["tls"]))]
pub(in super::super) struct RawManagement {
    /// IP address and port.
    pub address: At<String>,
    /// Its certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub tls: Option<At<RawServerTls>>,
    /// An Owner token, for unattended installs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_token: Option<At<RawSecret>>,
}

impl Default for RawManagement {
    fn default() -> Self {
        Self { address: At::default_value("127.0.0.1:9443".to_owned()), tls: None, bootstrap_token: None }
    }
}

/// Where services made through the management plane are kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Store")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawStore {
    /// Which kind.
    pub kind: At<RawStoreKind>,
    /// Folder of the embedded store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<String>>,
    /// Connection URL of PostgreSQL, a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<At<RawSecret>>,
}

/// Kind of store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StoreKind")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawStoreKind {
    /// Nothing is kept: the configuration file is all there is.
    #[default]
    None,
    /// Files of this process.
    Embedded,
    /// PostgreSQL, shared by replicas.
    Postgres,
}

/// Azure Application Insights.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ApplicationInsights")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["connection_string"]))]
pub(in super::super) struct RawApplicationInsights {
    /// Connection string, a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub connection_string: Option<At<RawSecret>>,
}

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
