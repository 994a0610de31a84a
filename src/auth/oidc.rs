//! Tokens of an outside issuer, verified with the keys it publishes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::cache::TokenCache;
use super::claims::{Expected, since_epoch};
use super::jwks::{Jwks, JwksRegistry, KeySet, Lookup, NoNewer};
use super::jws::{Jws, invalid};
use super::settings::OidcSettings;
use super::{BuildError, Digest, sha256};
use crate::error::{Error, Kind};
use crate::telemetry::record::Principal;

/// Types of tokens that let somebody call: plain JWTs and access tokens (RFC 9068, section 2.1). Logout tokens, proofs
/// and their like are signed with the same keys and must not.
const TYPES: [Option<&str>; 3] = [None, Some("JWT"), Some("at+jwt")];

/// Verifies tokens of one outside issuer for one audience.
pub struct OidcVerifier {
    jwks: Arc<Jwks>,
    expected: Expected,
    /// Here and not with the key set, which services of other audiences may share; a change of the set still empties
    /// it at once, since each entry counts under its own generation of keys only.
    cache: TokenCache,
}

impl OidcVerifier {
    pub(super) fn new(
        settings: &OidcSettings,
        registry: &JwksRegistry,
    ) -> Result<Self, BuildError> {
        if settings.issuer.is_empty() {
            return Err(BuildError::new("oidc.issuer", "must not be empty"));
        }
        if settings.audience.is_empty() {
            return Err(BuildError::new("oidc.audience", "must not be empty"));
        }
        Ok(Self {
            jwks: registry.get(&settings.jwks)?,
            expected: Expected {
                issuer: settings.issuer.as_str().into(),
                audience: settings.audience.as_str().into(),
                leeway: settings.leeway,
            },
            cache: TokenCache::default(),
        })
    }

    /// The issuer's keys, for status and metrics.
    #[must_use]
    pub fn jwks(&self) -> &Jwks {
        &self.jwks
    }

    pub(super) async fn verify(&self, token: &[u8], now: SystemTime) -> Result<Principal, Error> {
        let now = since_epoch(now);
        let digest = sha256(token);
        if let Some(warm) = self.warm(&digest, now) {
            return warm;
        }
        let jws = Jws::parse(token)?;
        if !jws.is_of_type(&TYPES) {
            return Err(invalid("the token is not an access token (typ)"));
        }
        let mut set = self.jwks.current().clone().ok_or_else(unavailable)?;
        if matches!(set.find(jws.kid()), Lookup::Unknown) {
            // Boxed: the rare wait should not make every request's future larger.
            set = Box::pin(self.newer_than(&set)).await?;
        }
        self.verify_with(&set, jws, &digest, now)
    }

    /// The verdict on a token that the current keys have verified before.
    fn warm(&self, digest: &Digest, now: Duration) -> Option<Result<Principal, Error>> {
        let set = self.jwks.current();
        let verified = self.cache.get(digest, set.as_ref()?.generation())?;
        Some(verified.admit(now))
    }

    async fn newer_than(&self, set: &KeySet) -> Result<Arc<KeySet>, Error> {
        let newer = self.jwks.newer_than(set.generation()).await;
        newer.map_err(|reason| match reason {
            NoNewer::Current => unknown_key(),
            NoNewer::Unavailable => unavailable(),
        })
    }

    fn verify_with(
        &self,
        set: &KeySet,
        jws: Jws<'_>,
        digest: &Digest,
        now: Duration,
    ) -> Result<Principal, Error> {
        let keys = match set.find(jws.kid()) {
            Lookup::Found(keys) => keys,
            Lookup::Unknown => return Err(unknown_key()),
            Lookup::Unnamed => return Err(invalid("the token must name its key (kid)")),
        };
        let claims = jws.verify(&keys)?;
        let verified = self.expected.judge(claims, now)?;
        let principal = verified.admit(now)?;
        self.cache.insert(*digest, verified, set.generation(), now);
        Ok(principal)
    }
}

fn unknown_key() -> Error {
    invalid("the token is signed by an unknown key (kid)")
}

fn unavailable() -> Error {
    Error::new(
        Kind::AuthUnavailable,
        "the issuer's keys are not available just now; try again",
    )
}
