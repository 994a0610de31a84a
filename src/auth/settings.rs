//! What is asked of a service's one auth mode; of secrets no more than what judges them.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::key::KeyDigest;
use super::signing::{PublicKey, SigningKey};

/// A service's one auth mode with what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The key pair of a service, as digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySettings {
    /// `keys.primary`
    pub primary: KeyDigest,
    /// `keys.secondary`; absent: one key only.
    pub secondary: Option<KeyDigest>,
}

/// What it takes to verify tokens of this gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// Expected `iss`.
    pub issuer: String,
    /// Keys that may have signed, told apart by `kid`; at least one. Several while keys are rotated.
    pub keys: Vec<PublicKey>,
    /// Clock difference allowed when `exp` and `nbf` are judged.
    pub leeway: Duration,
    /// What was taken back before its time.
    pub revoked: Arc<Revoked>,
}

/// Tokens that were taken back before their time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Single tokens, by `jti`.
    pub tokens: HashSet<Box<str>>,
    /// Principals, by `sub`: their tokens issued in or before this second since the epoch (`iat`) are refused, and those
    /// that do not say when they were issued.
    pub principals: HashMap<Box<str>, u64>,
}

/// The gateway's own token issuer (`tokens` in the config).
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// `iss` of the tokens.
    pub issuer: String,
    /// Signs them with ES256.
    pub signing_key: Arc<SigningKey>,
    /// Lifetime of a token.
    pub lifetime: Duration,
    /// Clock difference allowed when `exp` and `nbf` are judged.
    pub leeway: Duration,
}

impl IssuerSettings {
    /// Bounds of a token's lifetime, 1 s to 30 days.
    pub const LIFETIMES: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);

    /// What verifies this issuer's tokens; nothing is revoked.
    #[must_use]
    pub fn verification(&self) -> TokenSettings {
        TokenSettings {
            issuer: self.issuer.clone(),
            keys: vec![self.signing_key.public().clone()],
            leeway: self.leeway,
            revoked: Arc::default(),
        }
    }
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
