//! Who is calling: credentials in, a principal or a refusal out.
//!
//! A service has one [`Authenticator`]; it is immutable and lives in the snapshot, so that a change of keys or of the
//! mode takes effect with the swap, and everything remembered under the old keys goes with them. The data plane does
//! no I/O here: key sets of outside issuers are fetched by [`run_key_sets`] on the control plane.

mod bearer;
mod cache;
mod claims;
#[cfg(test)]
mod fixtures;
mod grant;
mod jwks;
mod jws;
mod key;
mod oidc;
mod outside;
mod settings;
mod signing;
mod token;

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use http::HeaderMap;

use crate::catalog::{AuthMode, ServiceName};
use crate::error::Error;
use crate::telemetry::record::Principal;
use grant::Proof;

pub use grant::{Admitted, Grant, ended};
pub use jwks::{Jwks, JwksRegistry, JwksStatus, run as run_key_sets};
pub use key::{KeyDigest, KeyLife, KeyPair};
pub use oidc::OidcVerifier;
pub use outside::{OutsideClaims, OutsideIssuer, OutsideSettings};
pub use settings::{
    AuthSettings, IssuerSettings, JwksSource, KeySettings, OidcSettings, Revoked, TokenSettings,
};
pub use signing::{MintError, MintRequest, Minted, PublicKey, SigningKey, mint};
pub use token::TokenVerifier;

/// The one way in which callers of a service prove who they are.
pub enum Authenticator {
    /// Everybody may call.
    None,
    /// One of two static keys.
    Key(KeyPair),
    /// A token signed by this gateway.
    Token(TokenVerifier),
    /// A token of an outside issuer.
    Oidc(OidcVerifier),
}

impl Authenticator {
    /// Builds the authenticator of `service`. Key sets are taken from (or announced to) `jwks`; of the one that was there
    /// `before`, nothing goes on but when its keys were last used.
    ///
    /// # Errors
    /// Names the setting that cannot be used: no key to verify with, a URL that is neither `https` nor loopback.
    pub fn new(
        settings: &AuthSettings,
        service: &ServiceName,
        jwks: &JwksRegistry,
        before: Option<&Self>,
    ) -> Result<Self, BuildError> {
        Ok(match settings {
            AuthSettings::None => Self::None,
            AuthSettings::Key(keys) => Self::Key(KeyPair::new(keys, before.and_then(Self::keys))),
            AuthSettings::Token(tokens) => Self::Token(TokenVerifier::new(tokens, service)?),
            AuthSettings::Oidc(oidc) => Self::Oidc(OidcVerifier::new(oidc, jwks)?),
        })
    }

    /// The mode, as records and `explain` name it.
    #[must_use]
    pub const fn mode(&self) -> AuthMode {
        match self {
            Self::None => AuthMode::None,
            Self::Key(_) => AuthMode::Key,
            Self::Token(_) => AuthMode::Token,
            Self::Oidc(_) => AuthMode::Oidc,
        }
    }

    /// The key pair, if that is the mode.
    #[must_use]
    pub const fn keys(&self) -> Option<&KeyPair> {
        match self {
            Self::Key(keys) => Some(keys),
            _ => None,
        }
    }

    /// Who sent `headers` at the time `now`. Only the `Authorization` header counts (RFC 6750, section 2.1); a key in the query never does.
    ///
    /// Waits in one case alone: an outside token signed by a key that the set at hand does not hold may wait up to two
    /// seconds for the set to be fetched again.
    ///
    /// # Errors
    /// `AuthMissing`, `AuthInvalid` or `AuthExpired` when the caller is to blame, `AuthUnavailable` when the issuer's
    /// keys cannot be had.
    pub async fn authenticate(&self, headers: &HeaderMap, now: SystemTime) -> Result<Admitted, Error> {
        match self {
            Self::None => Ok(Admitted { principal: Principal::Anonymous, grant: Grant(Proof::Nothing) }),
            Self::Key(keys) => keys.verify(bearer::credential(headers)?, now),
            Self::Token(tokens) => tokens.verify(bearer::credential(headers)?, now),
            Self::Oidc(oidc) => oidc.verify(bearer::credential(headers)?, now).await,
        }
    }
}

/// Shows the mode only: digests of weak keys are worth guessing at.
impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticator({})", self.mode())
    }
}

/// A setting that no authenticator can be built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    /// The setting, as the configuration spells it (`keys.primary`).
    pub field: &'static str,
    /// What is wrong and what would be right; never the value of a secret.
    pub problem: Cow<'static, str>,
}

impl BuildError {
    fn new(field: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { field, problem: problem.into() }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for BuildError {}

/// A SHA-256 digest.
type Digest = [u8; 32];

fn sha256(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use http::header::AUTHORIZATION;

    use super::fixtures::{NOW, OwnKey, at, service};
    use super::*;
    use crate::error::Kind;

    fn build(settings: &AuthSettings) -> Authenticator {
        Authenticator::new(settings, &service(), &JwksRegistry::default(), None).unwrap()
    }

    /// The outcome, which none of these modes may have to wait for.
    fn authenticate(authenticator: &Authenticator, value: Option<&str>) -> Result<Principal, Kind> {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        headers.insert("x-api-key", "first".parse().unwrap());
        let outcome = authenticator.authenticate(&headers, at(NOW)).now_or_never();
        outcome.unwrap().map(|admitted| admitted.principal).map_err(|error| error.kind)
    }

    fn keys() -> AuthSettings {
        let digest = |key: &str| KeyDigest::of(&key.into()).unwrap();
        AuthSettings::Key(KeySettings { primary: digest("first"), secondary: Some(digest("second")) })
    }

    #[test]
    fn each_mode_asks_for_its_own_credential_and_no_other() {
        let own = OwnKey::new();
        let token = format!("Bearer {}", own.mint("ann", NOW));
        let ann = Ok(Principal::Subject("ann".into()));
        let (none, key) = (build(&AuthSettings::None), build(&keys()));
        let tokens = build(&AuthSettings::Token(Arc::new(own.settings)));
        for (authenticator, value, expected) in [
            (&none, None, Ok(Principal::Anonymous)),
            (&none, Some("Bearer whatever"), Ok(Principal::Anonymous)),
            (&key, Some("Bearer first"), Ok(Principal::Key("primary"))),
            (&key, Some("bearer  second"), Ok(Principal::Key("secondary"))),
            (&key, None, Err(Kind::AuthMissing)),
            (&key, Some("Basic first"), Err(Kind::AuthMissing)),
            (&key, Some("Bearer third"), Err(Kind::AuthInvalid)),
            (&key, Some(&token), Err(Kind::AuthInvalid)),
            (&tokens, Some(&token), ann.clone()),
            (&tokens, Some(&token), ann),
            (&tokens, None, Err(Kind::AuthMissing)),
            (&tokens, Some("Bearer first"), Err(Kind::AuthInvalid)),
        ] {
            let outcome = authenticate(authenticator, value);
            assert_eq!(outcome, expected, "{authenticator:?} {value:?}");
        }
    }

    #[test]
    fn debug_output_tells_the_mode_and_no_more() {
        assert_eq!(format!("{:?}", build(&keys())), "Authenticator(key)");
    }

    #[test]
    fn workers_share_an_authenticator_and_its_future_is_small() {
        fn shared<T: Send + Sync>(_: &T) {}
        let (none, headers) = (build(&AuthSettings::None), HeaderMap::new());
        shared(&none);
        let future = none.authenticate(&headers, at(NOW));
        assert!(size_of_val(&future) <= 768, "{} bytes", size_of_val(&future));
    }
}
