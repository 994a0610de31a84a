//! What the configuration says about a service's one auth mode, secrets already read.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use secrecy::SecretString;

/// A service's one auth mode with what it needs.
#[derive(Clone, Debug)]
pub enum AuthSettings {
    /// Everybody may call.
    None,
    /// Two static keys, both valid.
    Key(KeySettings),
    /// Tokens signed by this gateway; the audience is the service's name.
    Token(Arc<TokenSettings>),
    /// Tokens of an outside issuer.
    Oidc(OidcSettings),
}

/// The key pair of a service.
#[derive(Clone, Debug)]
pub struct KeySettings {
    /// `keys.primary`
    pub primary: SecretString,
    /// `keys.secondary`; absent: one key only.
    pub secondary: Option<SecretString>,
}

/// The gateway's own token issuer (`tokens` in the config).
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// `iss` of the tokens.
    pub issuer: String,
    /// PEM of the P-256 private key (PKCS#8 or SEC 1) that signs with ES256.
    pub signing_key: SecretString,
    /// Lifetime of a token.
    pub lifetime: Duration,
    /// Clock difference allowed when `exp` and `nbf` are judged.
    pub leeway: Duration,
}

impl TokenSettings {
    /// Bounds of a token's lifetime, 1 s to 30 days: a token cannot be taken back one by one.
    pub const LIFETIMES: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
}

/// An outside issuer (`oidc` of a service).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcSettings {
    /// Expected `iss`.
    pub issuer: String,
    /// Expected `aud`; the service's name unless set.
    pub audience: String,
    /// Where the issuer's public keys are.
    pub jwks: JwksSource,
    /// Clock difference allowed when `exp` and `nbf` are judged.
    pub leeway: Duration,
}

/// Where a JSON Web Key Set comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// A file, read again when it changes.
    File(PathBuf),
    /// An HTTPS URL, fetched by the control plane (`http` for loopback only).
    Url {
        /// The URL.
        url: url::Url,
        /// Extra trust anchors; empty: the system's.
        ca: Vec<CertificateDer<'static>>,
    },
}
