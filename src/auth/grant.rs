//! What let a caller in, kept for a later look whether it still would.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::claims::{Verified, since_epoch};
use super::{Authenticator, Digest};
use crate::error::{Error, Kind};
use crate::telemetry::record::Principal;

/// A caller who was let in.
pub struct Admitted {
    /// Who.
    pub principal: Principal,
    /// By what.
    pub grant: Grant,
}

/// What a caller was let in by: no secret, but enough to tell when it is taken back.
pub struct Grant(pub(super) Proof);

pub(super) enum Proof {
    Nothing,
    Key(Digest),
    Token(Arc<Verified>),
}

impl Grant {
    /// From when on it is worth nothing, as far as it says so itself: the expiry of a token, leeway included.
    #[must_use]
    pub fn until(&self) -> Option<SystemTime> {
        match &self.0 {
            // A time past the end of the system's clock never comes.
            Proof::Token(token) => UNIX_EPOCH.checked_add(token.until()),
            Proof::Nothing | Proof::Key(_) => None,
        }
    }
}

impl Authenticator {
    /// Whether the same service still lets in at the time `now` who was let in by `before`. Not a use of the key.
    ///
    /// # Errors
    /// [`Kind::AuthExpired`]: the credential has expired, was replaced or revoked, or the service's auth mode is another one.
    pub fn still_admits(&self, before: &Self, grant: &Grant, now: SystemTime) -> Result<(), Error> {
        let holds = match (self, before, &grant.0) {
            (Self::None, _, _) => true,
            (Self::Key(keys), _, Proof::Key(digest)) => keys.holds(digest, now),
            (Self::Token(tokens), Self::Token(before), Proof::Token(token)) => {
                !token.is_over(since_epoch(now)) && tokens.still_takes(before, token)
            }
            (Self::Oidc(oidc), Self::Oidc(before), Proof::Token(token)) => {
                !token.is_over(since_epoch(now)) && oidc.has_issuer_of(before)
            }
            _ => false,
        };
        if holds { Ok(()) } else { Err(ended()) }
    }
}

/// The refusal of a call whose credential has come to its end on the way.
#[must_use]
pub fn ended() -> Error {
    Error::new(Kind::AuthExpired, "the credential that began this call is no longer valid")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::HeaderMap;
    use http::header::AUTHORIZATION;

    use super::super::fixtures::*;
    use super::super::{AuthSettings, JwksRegistry, KeyDigest, KeySettings, Revoked, TokenSettings, sha256};
    use super::*;

    fn build(settings: &AuthSettings) -> Authenticator {
        Authenticator::new(settings, &service(), &JwksRegistry::default(), None).unwrap()
    }

    fn grant(authenticator: &Authenticator, credential: &str) -> Grant {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {credential}").parse().unwrap());
        let admitted = authenticator.authenticate(&headers, at(NOW)).now_or_never();
        admitted.unwrap().unwrap().grant
    }

    fn keys(primary: &str, secondary: KeyDigest) -> AuthSettings {
        let primary = KeyDigest::of(&primary.into()).unwrap();
        AuthSettings::Key(KeySettings { primary, secondary: Some(secondary) })
    }

    fn tokens(settings: TokenSettings) -> AuthSettings {
        AuthSettings::Token(Arc::new(settings))
    }

    /// What a call that began so hears now.
    fn refusal(now: &Authenticator, before: &Authenticator, grant: &Grant, seconds: u64) -> Option<Kind> {
        now.still_admits(before, grant, at(seconds)).err().map(|error| error.kind)
    }

    #[test]
    fn a_key_holds_as_long_as_it_is_one_of_the_two() {
        let digest = |key: &str| KeyDigest::of(&key.into()).unwrap();
        let before = build(&keys("first", digest("second")));
        let grant = grant(&before, "second");
        let ending = KeyDigest::from_parts(sha256(b"second"), Some(at(NOW + 5)));
        for (settings, holds, what) in [
            (keys("first", digest("second")), true, "unchanged"),
            (keys("second", digest("third")), true, "in the other place"),
            (keys("first", digest("third")), false, "regenerated"),
            (keys("first", ending), true, "about to expire"),
            (AuthSettings::None, true, "everybody may call"),
            (tokens(OwnKey::new().settings), false, "another mode"),
        ] {
            let now = build(&settings);
            let expected = (!holds).then_some(Kind::AuthExpired);
            assert_eq!(refusal(&now, &before, &grant, NOW), expected, "{what}");
            if let Some(keys) = now.keys() {
                assert_eq!(keys.last_use(), [None, None], "looking is no use");
            }
        }
        let ended = refusal(&build(&keys("first", ending)), &before, &grant, NOW + 5);
        assert_eq!(ended, Some(Kind::AuthExpired));
        assert_eq!(grant.until(), None);
    }

    #[test]
    fn a_token_holds_until_it_expires_or_is_taken_back() {
        let (own, other) = (OwnKey::new(), OwnKey::new());
        let before = build(&tokens(own.settings.clone()));
        let grant = grant(&before, &own.mint("ann", NOW));
        assert_eq!(grant.until(), Some(at(NOW + 3600 + LEEWAY)));
        let [mine, theirs] = [&own, &other].map(|key| key.signing.public().clone());
        let with_keys = |keys| tokens(TokenSettings { keys, ..own.settings.clone() });
        let revoked = Revoked { principals: [("ann".into(), NOW)].into(), ..Revoked::default() };
        for (settings, holds, what) in [
            (tokens(own.settings.clone()), true, "unchanged"),
            (with_keys(vec![theirs.clone(), mine]), true, "a key more"),
            (with_keys(vec![theirs]), false, "its key is gone"),
            (
                tokens(TokenSettings { revoked: Arc::new(revoked), ..own.settings.clone() }),
                false,
                "its principal is revoked",
            ),
            (tokens(TokenSettings { issuer: "other".into(), ..own.settings.clone() }), false, "issuer"),
            (AuthSettings::None, true, "everybody may call"),
            (keys("first", KeyDigest::from_parts([0; 32], None)), false, "another mode"),
        ] {
            let expected = (!holds).then_some(Kind::AuthExpired);
            assert_eq!(refusal(&build(&settings), &before, &grant, NOW), expected, "{what}");
        }
        let end = NOW + 3600 + LEEWAY;
        assert_eq!(refusal(&before, &before, &grant, end - 1), None);
        assert_eq!(refusal(&before, &before, &grant, end), Some(Kind::AuthExpired));
    }
}
