//! The management plane, its store, and what it gives out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::RawDuration;
use super::RawSecret;
use super::listener::RawServerTls;
use super::service::RawJwks;

/// Scoring URIs given out, per compute type; `{service}` stands for the service's name. A change needs a restart.
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

/// The management plane: services made, secured and operated through an API. Needs `store.kind: embedded`. A change needs
/// a restart, but for the certificates, which a reload follows.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Management")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["tls"]))]
pub(in super::super) struct RawManagement {
    /// IP address and port; port 0 lets the system choose.
    pub address: At<String>,
    /// Its certificates; there is no management plane without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub tls: Option<At<RawServerTls>>,
    /// A management token with the role Owner, for unattended installs: 20 to 512 visible characters. Absent: the first
    /// owner logs in with the secret in the file `bootstrap-token` of the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_token: Option<At<RawSecret>>,
    /// Outside issuers whose tokens are taken beside management tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<At<RawIssuer>>,
    /// Where the replicas of services made through the API may be.
    pub address_policy: At<RawAddressPolicy>,
    /// How long events stay in the activity log, 24h to 3650d.
    pub activity_retention: At<RawDuration>,
    /// Lifetime of scoring tokens of services that set none, 1s to 720h.
    pub token_lifetime: At<RawDuration>,
}

impl Default for RawManagement {
    fn default() -> Self {
        Self {
            address: At::default_value("127.0.0.1:9443".to_owned()),
            tls: None,
            bootstrap_token: None,
            issuers: Vec::new(),
            address_policy: At::default(),
            activity_retention: At::default_value(RawDuration::secs(90 * 24 * 60 * 60)),
            token_lifetime: At::default_value(RawDuration::secs(24 * 60 * 60)),
        }
    }
}

/// An outside issuer of tokens for the management plane (OpenID Connect).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ManagementIssuer")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["issuer", "audience", "jwks"]))]
pub(in super::super) struct RawIssuer {
    /// Expected `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub issuer: Option<At<String>>,
    /// Expected `aud`; one that scoring services do not use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub audience: Option<At<String>>,
    /// Public keys of the issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub jwks: Option<At<RawJwks>>,
    /// Claim that names the principal.
    pub subject_claim: At<String>,
    /// Claim that lists the principal's groups.
    pub groups_claim: At<String>,
    /// Put before each principal and group of this issuer, so that its names are none of another's.
    pub prefix: At<String>,
    /// Clock difference allowed when `exp` and `nbf` are judged, 0s to 10m.
    pub leeway: At<RawDuration>,
}

impl Default for RawIssuer {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            jwks: None,
            subject_claim: At::default_value("sub".to_owned()),
            groups_claim: At::default_value("groups".to_owned()),
            prefix: At::default_value(String::new()),
            leeway: At::default_value(RawDuration::secs(60)),
        }
    }
}

/// Networks of replicas. Link-local addresses, metadata services of clouds, multicast and the gateway's own sockets are
/// refused whatever stands here.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AddressPolicy")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawAddressPolicy {
    /// The only networks where replicas may be, such as `10.0.0.0/8`; absent: everywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<At<String>>,
    /// Networks where replicas must not be, whatever `allow` says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<At<String>>,
}

/// Where services made through the management plane are kept. A change needs a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Store")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawStore {
    /// Which kind.
    pub kind: At<RawStoreKind>,
    /// Folder of the embedded store, made if it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<At<String>>,
    /// Key that wraps the keys of the secrets in the store: 32 bytes in base64 or hexadecimal. Absent: a file beside the
    /// store, made at the first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<At<RawWrappingKey>>,
    /// Connection URL of PostgreSQL, a secret. No effect in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<At<RawSecret>>,
}

/// Where the wrapping key is, exactly one of `file`, `env` and `exec`; never the key itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "WrappingKey")]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a reference, {file: PATH}, {env: NAME} or {exec: [PROGRAM, ARGUMENT]}: keys are never written into the configuration"
)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(in super::super) struct RawWrappingKey {
    /// File that holds the key; made if neither it nor anything sealed is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<At<String>>,
    /// Environment variable that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<At<String>>,
    /// Program and arguments that print the key, such as a vault's client; it has ten seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<At<Vec<String>>>,
}

/// Kind of store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StoreKind")]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum RawStoreKind {
    /// Nothing is kept: the configuration file is all there is.
    #[default]
    None,
    /// One file of this process.
    Embedded,
    /// PostgreSQL, shared by replicas. Refused: not in this version.
    Postgres,
}
