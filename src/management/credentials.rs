//! Callers of the API who come with a token of an outside issuer: Entra ID or any other OpenID Connect provider.
//!
//! A token that names a configured issuer is that issuer's to vouch for, for the API's own audience, and never looked up
//! as a management token; every other credential is looked up and never verified as a JWT. The audience cannot be the
//! name of a service, so that what opens a service does not open the API.

use std::fmt;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};

use super::{Cause, Refusal};
use crate::auth::{BuildError, JwksRegistry, OutsideClaims, OutsideIssuer, OutsideSettings};
use crate::error::{Error, Kind};

/// The outside issuers whose tokens are taken for callers of the API.
#[derive(Default)]
pub struct Credentials {
    issuers: Vec<OutsideIssuer>,
}

impl Credentials {
    /// Takes the issuers' keys from (or announces them to) `jwks`.
    ///
    /// # Errors
    /// Names the setting that cannot be used: an audience that could be a service's name, an issuer named twice.
    pub fn new(settings: Vec<OutsideSettings>, jwks: &JwksRegistry) -> Result<Self, BuildError> {
        let mut issuers: Vec<OutsideIssuer> = Vec::with_capacity(settings.len());
        for outside in settings {
            if issuers.iter().any(|known| known.issuer() == outside.oidc.issuer) {
                return Err(BuildError { field: "oidc.issuer", problem: "is named twice".into() });
            }
            issuers.push(OutsideIssuer::new(outside, jwks)?);
        }
        Ok(Self { issuers })
    }

    /// Whom `token` stands for; `None` if it names no issuer known here.
    pub(super) async fn vouch(&self, token: &SecretString) -> Option<Result<OutsideClaims, Refusal>> {
        let token = token.expose_secret();
        let issuer = self.issuers.iter().find(|issuer| issuer.is_named_by(token))?;
        let claims = issuer.verify(token, SystemTime::now()).await;
        Some(claims.map_err(|error| refusal(&error)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.issuers.iter().map(OutsideIssuer::issuer)).finish()
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
