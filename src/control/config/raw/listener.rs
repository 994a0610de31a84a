//! Where clients connect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::decode::At;
use super::super::units::RawDuration;

/// One address where clients connect, with exactly one of `tls` and `plaintext: true`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Listener")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "address"]))]
pub(in super::super) struct RawListener {
    /// Name in logs, metrics and the ready line: lower-case letters, digits and `-`, 3 to 32. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// IP address and port, such as `0.0.0.0:8443` or `[::]:8443`; port 0 lets the system choose. A change needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub address: Option<At<String>>,
    /// Certificates and client certificates. Followed by a reload; switching TLS on or off needs a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<At<RawServerTls>>,
    /// `true` instead of `tls`: no encryption, for loopback and sidecars.
    pub plaintext: At<bool>,
    /// Longest TLS handshake (and PROXY header) after the accept, 100ms to 5m.
    pub handshake_timeout: At<RawDuration>,
    /// Longest wait for a whole request head from its first byte, 100ms to 10m.
    pub header_timeout: At<RawDuration>,
    /// Longest rest of a connection between two requests, 1s to 1h.
    pub idle_timeout: At<RawDuration>,
    /// Connections at once, 1 to 1000000; further ones wait. A change needs a restart.
    pub max_connections: At<u32>,
    /// PROXY protocol (version 1 and 2) in front of each connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<At<RawProxyProtocol>>,
}

impl Default for RawListener {
    fn default() -> Self {
        Self {
            name: None,
            address: None,
            tls: None,
            plaintext: At::default(),
            handshake_timeout: At::default_value(RawDuration::secs(10)),
            header_timeout: At::default_value(RawDuration::secs(30)),
            idle_timeout: At::default_value(RawDuration::secs(75)),
            max_connections: At::default_value(10_000),
            proxy_protocol: None,
        }
    }
}

/// TLS towards clients.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ServerTls")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificates"]))]
pub(in super::super) struct RawServerTls {
    /// At least one; picked by the name that the client asks for (SNI), the first one serves all other clients.
    pub certificates: Vec<At<RawCertificate>>,
    /// PEM bundle of authorities; set: clients must show a certificate of one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<At<String>>,
    /// Oldest version of TLS that is offered.
    pub min_version: At<RawTlsVersion>,
}

/// A certificate chain with its key, as PEM files.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Certificate")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(in super::super) struct RawCertificate {
    /// Full chain, the server's own certificate first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub cert: Option<At<String>>,
    /// Private key (PKCS#8, PKCS#1 or SEC 1) without a passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub key: Option<At<String>>,
}

/// Oldest version of TLS.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "TlsVersion")]
pub(in super::super) enum RawTlsVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 only.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Whose connections begin with a PROXY header.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ProxyProtocol")]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["from"]))]
pub(in super::super) struct RawProxyProtocol {
    /// Networks (`10.0.0.0/8`) or addresses of the load balancers; they always send the header, all others never do.
    pub from: Vec<At<String>>,
}
