//! Claims of a token (RFC 7519, section 4.1): how they are read and which ones let a caller in.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use super::grant::{Admitted, Grant, Proof};
use super::jws::{invalid, present};
use super::settings::Revoked;
use crate::error::{Error, Kind};
use crate::telemetry::record::Principal;

/// Longest subject, in bytes (OpenID Connect Core 1.0, section 2).
const MAX_SUBJECT: usize = 255;

/// The registered claims that are judged; the rest is not read.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "present")]
    sub: Option<String>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<NumericDate>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
}

/// What a verifier wants of claims.
#[derive(Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    pub(super) leeway: Duration,
}

/// Whom a token lets in, and until when.
#[derive(Debug)]
pub(super) struct Verified {
    subject: Arc<str>,
    id: Option<Box<str>>,
    /// Since the epoch.
    issued: Option<Duration>,
    /// Since the epoch; the leeway is in it.
    until: Duration,
    /// `kid` of the gateway's own key that signed it.
    signer: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Seconds since the epoch, whole or not, not negative.
#[derive(Clone, Copy)]
struct NumericDate(Duration);

impl Expected<'_> {
    /// Judges the claims of a token whose signature is good; `now` is counted from the epoch. Time comes last, so
    /// that "expired" is said only of a token that was once good here.
    pub(super) fn judge(&self, claims: Claims, now: Duration) -> Result<Verified, Error> {
        if claims.iss.as_deref() != Some(self.issuer) {
            return Err(invalid("the token is not of this service's issuer (iss)"));
        }
        if !claims.aud.is_some_and(|aud| aud.names(self.audience)) {
            return Err(invalid("the token is not for this service (aud)"));
        }
        let subject = claims.sub.filter(|sub| subject_problem(sub).is_none());
        let Some(subject) = subject else {
            return Err(invalid(
                "the token needs a subject (sub) of 1 to 255 bytes without control characters",
            ));
        };
        let Some(exp) = claims.exp else {
            return Err(invalid("the token needs an expiry (exp)"));
        };
        let latest = now.saturating_add(self.leeway);
        if claims.nbf.is_some_and(|nbf| nbf.0 > latest) {
            return Err(invalid("the token is not valid yet (nbf)"));
        }
        if claims.iat.is_some_and(|iat| iat.0 > latest) {
            return Err(invalid("the token was issued in the future (iat)"));
        }
        Ok(Verified {
            subject: subject.into(),
            id: claims.jti.map(Into::into),
            issued: claims.iat.map(|iat| iat.0),
            until: exp.0.saturating_add(self.leeway),
            signer: None,
        })
    }
}

impl Verified {
    /// Notes which of the gateway's own keys signed it.
    pub(super) fn signed_by(self, kid: &Arc<str>) -> Self {
        Self { signer: Some(Arc::clone(kid)), ..self }
    }

    pub(super) fn signer(&self) -> Option<&Arc<str>> {
        self.signer.as_ref()
    }

    /// The first moment at which it is refused, since the epoch.
    pub(super) const fn until(&self) -> Duration {
        self.until
    }

    /// The caller, while the token lasts: `exp` is the first moment at which it does not (RFC 7519, section 4.1.4).
    pub(super) fn admit(self: Arc<Self>, now: Duration) -> Result<Admitted, Error> {
        if self.is_over(now) {
            return Err(Error::new(Kind::AuthExpired, "the token has expired (exp)"));
        }
        let principal = Principal::Subject(Arc::clone(&self.subject));
        Ok(Admitted { principal, grant: Grant(Proof::Token(self)) })
    }

    pub(super) fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }
}

impl Revoked {
    /// Refuses a token that was taken back.
    pub(super) fn judge(&self, token: &Verified) -> Result<(), Error> {
        let is_listed = token.id.as_ref().is_some_and(|id| self.tokens.contains(id));
        let is_of_old = |until: &u64| token.issued.is_none_or(|issued| issued.as_secs() <= *until);
        if is_listed || self.principals.get(&*token.subject).is_some_and(is_of_old) {
            return Err(invalid("the token has been revoked"));
        }
        Ok(())
    }
}

/// Why `subject` cannot be one; `None` if it can.
pub(super) fn subject_problem(subject: &str) -> Option<&'static str> {
    if subject.is_empty() || subject.len() > MAX_SUBJECT {
        Some("a subject has 1 to 255 bytes")
    } else if subject.chars().any(char::is_control) {
        Some("a subject holds no control characters")
    } else {
        None
    }
}

/// The time on the clock of claims.
pub(super) fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Audience {
    fn names(&self, audience: &str) -> bool {
        match self {
            Self::One(name) => name == audience,
            Self::Many(names) => names.iter().any(|name| name == audience),
        }
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seconds;

        impl Visitor<'_> for Seconds {
            type Value = NumericDate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since the epoch")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<NumericDate, E> {
                Ok(NumericDate(Duration::from_secs(seconds)))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<NumericDate, E> {
                Duration::try_from_secs_f64(seconds).map(NumericDate).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Seconds)
    }
}
