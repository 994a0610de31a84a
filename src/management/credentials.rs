//! Callers of the API who come with a token of an outside issuer: Entra ID or any other OpenID Connect provider.
//!
//! A token that names a configured issuer is that issuer's to vouch for, for the API's own audience, and never looked up
//! as a management token; every other credential is looked up and never verified as a JWT. The audience cannot be the
//! name of a service, so that what opens a service does not open the API.

use std::fmt;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use super::{Cause, Refusal};
use crate::auth::{BuildError, JwksRegistry, OutsideIssuer, OutsideSettings};
use crate::catalog::ServiceName;
use crate::error::{Error, Kind};

/// An outside issuer of credentials for the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSettings {
    /// Issuer, audience, keys and claims.
    pub outside: OutsideSettings,
    /// Put before every subject and group of this issuer; empty: none. All names share one space: where two issuers
    /// could give the same name to different people, or one lets people choose theirs, each needs a prefix.
    pub prefix: String,
}

/// The outside issuers whose tokens are taken for callers of the API.
#[derive(Default)]
pub struct Credentials {
    issuers: Vec<(OutsideIssuer, String)>,
}

/// Whom an outside issuer vouches for, prefixed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Vouched {
    pub(super) principal: String,
    pub(super) groups: Vec<String>,
}

impl Credentials {
    /// Takes the issuers' keys from (or announces them to) `jwks`.
    ///
    /// # Errors
    /// Names the setting that cannot be used: an audience that could be a service's name, an issuer named twice.
    pub fn new(settings: Vec<CredentialSettings>, jwks: &JwksRegistry) -> Result<Self, BuildError> {
        let refused = |field, problem: &'static str| Err(BuildError { field, problem: problem.into() });
        let mut issuers: Vec<(OutsideIssuer, String)> = Vec::new();
        for CredentialSettings { outside, prefix } in settings {
            if ServiceName::parse(&outside.oidc.audience).is_ok() {
                return refused(
                    "oidc.audience",
                    "could be the name of a service, whose tokens must not open the API; use a URI or an id",
                );
            }
            if issuers.iter().any(|(known, _)| known.issuer() == outside.oidc.issuer) {
                return refused("oidc.issuer", "is named twice");
            }
            issuers.push((OutsideIssuer::new(outside, jwks)?, prefix));
        }
        Ok(Self { issuers })
    }

    /// Whom `token` stands for; `None` if it names no issuer known here.
    pub(super) async fn vouch(&self, token: &SecretString) -> Option<Result<Vouched, Refusal>> {
        let token = token.expose_secret();
        let (issuer, prefix) = self.issuers.iter().find(|(issuer, _)| issuer.is_named_by(token))?;
        let claims = issuer.verify(token, SystemTime::now()).await;
        Some(claims.map_err(|error| refusal(&error)).map(|claims| Vouched {
            principal: format!("{prefix}{}", claims.subject),
            groups: claims.groups.iter().map(|group| format!("{prefix}{group}")).collect(),
        }))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.issuers.iter().map(|(issuer, _)| issuer.issuer())).finish()
    }
}

fn refusal(error: &Error) -> Refusal {
    let cause = match error.kind {
        Kind::AuthExpired => Cause::AuthExpired,
        Kind::AuthUnavailable => Cause::Unavailable,
        _ => Cause::AuthInvalid,
    };
    Refusal::new(cause, error.message.clone())
}

#[cfg(test)]
mod tests;
