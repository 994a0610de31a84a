//! Tokens of an outside issuer that let people and programs into the management API: the same verdict as for a service,
//! and beside it who it is by a claim of choice, and which groups they are in.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::subject_problem;
use super::jws::invalid;
use super::oidc::OidcVerifier;
use super::settings::OidcSettings;
use super::{BuildError, JwksRegistry};
use crate::catalog::ServiceName;
use crate::error::Error;

/// Most groups of one token that are read; issuers name fewer, and leave the claim out when there are more (Entra ID: 200).
const MAX_GROUPS: usize = 1_000;

/// An outside issuer with the claims to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideSettings {
    /// Issuer, audience and keys.
    pub oidc: OidcSettings,
    /// Claim that names the caller: `sub`, or `oid` for Entra ID.
    pub subject_claim: String,
    /// Claim that names the caller's groups: `groups`.
    pub groups_claim: String,
    /// Put before every subject and group of this issuer; empty: none. All names share one space: where two issuers
    /// could give one name to different people, or people choose theirs, each issuer needs a prefix.
    pub prefix: String,
}

impl OutsideSettings {
    /// Why `audience` cannot be that of the API; `None` if it can. What opens a service must not open the API.
    #[must_use]
    pub fn audience_problem(audience: &str) -> Option<&'static str> {
        ServiceName::parse(audience).is_ok().then_some(
            "could be the name of a service, whose tokens must not open the API; use a URI or an application's id",
        )
    }
}

/// Verifies tokens of one outside issuer and reads them.
pub struct OutsideIssuer {
    verifier: OidcVerifier,
    settings: OutsideSettings,
}

/// Whom an outside issuer vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideClaims {
    /// The subject, prefixed.
    pub subject: String,
    /// Its groups, prefixed; none if the token does not say.
    pub groups: Vec<String>,
}

impl OutsideIssuer {
    /// Takes the issuer's keys from (or announces them to) `jwks`.
    ///
    /// # Errors
    /// Names the setting that cannot be used.
    pub fn new(settings: OutsideSettings, jwks: &JwksRegistry) -> Result<Self, BuildError> {
        if let Some(problem) = OutsideSettings::audience_problem(&settings.oidc.audience) {
            return Err(BuildError::new("oidc.audience", problem));
        }
        Ok(Self { verifier: OidcVerifier::new(&settings.oidc, jwks)?, settings })
    }

    /// Expected `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.settings.oidc.issuer
    }

    /// Whether `token` says that it is this issuer's; nothing in it is trusted yet.
    #[must_use]
    pub fn is_named_by(&self, token: &str) -> bool {
        let claims = claims(token);
        claims.as_ref().and_then(|claims| claims.get("iss")?.as_str()) == Some(self.issuer())
    }

    /// Whom the token stands for at the time `now`. Waits at most two seconds for a key that is not at hand.
    ///
    /// # Errors
    /// `AuthInvalid`, `AuthExpired`, or `AuthUnavailable` when the issuer's keys cannot be had.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<OutsideClaims, Error> {
        self.verifier.verify(token.as_bytes(), now).await?;
        // The signature is over these very bytes.
        let claims = claims(token).ok_or_else(|| invalid("the token's claims are no JSON object"))?;
        let subject = claims.get(&self.settings.subject_claim).and_then(Value::as_str);
        let subject = subject.filter(|subject| subject_problem(subject).is_none()).ok_or_else(|| {
            invalid("the token does not name its subject in the claim that this API is set to read")
        })?;
        let groups = groups(claims.get(&self.settings.groups_claim))?;
        let prefixed = |name: &str| format!("{}{name}", self.settings.prefix);
        Ok(OutsideClaims { subject: prefixed(subject), groups: groups.into_iter().map(prefixed).collect() })
    }
}

/// A list of names, or one.
fn groups(claim: Option<&Value>) -> Result<Vec<&str>, Error> {
    let names = match claim {
        None => Some(Vec::new()),
        Some(Value::Array(names)) if names.len() <= MAX_GROUPS => names.iter().map(Value::as_str).collect(),
        Some(one) => one.as_str().map(|name| vec![name]),
    };
    names.ok_or_else(|| invalid("the token's groups are not a list of at most 1000 names"))
}

fn claims(token: &str) -> Option<Map<String, Value>> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixtures::{self, *};
    use super::super::settings::JwksSource;
    use super::*;
    use crate::error::Kind;

    const AUDIENCE: &str = "api://scoregate";

    fn issuer(signer: &Signer, subject_claim: &str) -> OutsideIssuer {
        prefixed(signer, subject_claim, "")
    }

    fn prefixed(signer: &Signer, subject_claim: &str, prefix: &str) -> OutsideIssuer {
        let settings = OutsideSettings {
            oidc: OidcSettings {
                issuer: ISSUER.to_owned(),
                audience: AUDIENCE.to_owned(),
                jwks: JwksSource::File("/does/not/matter".into()),
                leeway: Duration::from_secs(LEEWAY),
            },
            subject_claim: subject_claim.to_owned(),
            groups_claim: "groups".to_owned(),
            prefix: prefix.to_owned(),
        };
        let issuer = OutsideIssuer::new(settings, &JwksRegistry::default()).unwrap();
        issuer.verifier.jwks().accept(&key_set(std::slice::from_ref(&signer.jwk))).unwrap();
        issuer
    }

    fn token(signer: &Signer, edits: &[(&str, &str)]) -> String {
        let audience = format!("{AUDIENCE:?}");
        signer.token(None, &fixtures::claims(&[&[("aud", audience.as_str())], edits].concat()))
    }

    async fn read(issuer: &OutsideIssuer, token: &str) -> Result<(String, Vec<String>), Kind> {
        let vouched = issuer.verify(token, at(NOW)).await;
        vouched.map(|it| (it.subject, it.groups)).map_err(|error| error.kind)
    }

    #[tokio::test]
    async fn subject_and_groups_come_from_the_claims_of_choice() {
        let signer = Signer::es256();
        let (by_sub, by_oid) = (issuer(&signer, "sub"), issuer(&signer, "oid"));
        let edits = [("oid", "\"3f25\""), ("groups", r#"["a","b"]"#)];
        let groups = vec!["a".to_owned(), "b".to_owned()];
        let full = token(&signer, &edits);
        assert_eq!(read(&by_sub, &full).await, Ok(("ann".into(), groups.clone())));
        assert_eq!(read(&by_oid, &full).await, Ok(("3f25".into(), groups)));
        assert_eq!(read(&by_oid, &token(&signer, &[])).await, Err(Kind::AuthInvalid));
        assert_eq!(read(&by_sub, &token(&signer, &[])).await, Ok(("ann".into(), vec![])));
        assert_eq!(
            read(&by_sub, &token(&signer, &[("groups", "\"one\"")])).await,
            Ok(("ann".into(), vec!["one".into()]))
        );
        let apart = prefixed(&signer, "sub", "corp:");
        let named = vec!["corp:a".to_owned(), "corp:b".to_owned()];
        assert_eq!(read(&apart, &full).await, Ok(("corp:ann".into(), named)));
        let many = format!("[{}]", vec!["\"g\""; MAX_GROUPS + 1].join(","));
        for (claim, value) in [
            ("groups", "7"),
            ("groups", "[7]"),
            ("groups", r#"{"a":1}"#),
            ("groups", "null"),
            ("groups", many.as_str()),
            ("oid", "7"),
            ("oid", "\"\""),
            ("oid", "\"a\\n\""),
        ] {
            let token = token(&signer, &[("oid", "\"3f25\""), (claim, value)]);
            assert_eq!(read(&by_oid, &token).await, Err(Kind::AuthInvalid), "{claim} {value}");
        }
    }

    #[tokio::test]
    async fn nothing_is_read_from_a_token_that_does_not_hold() {
        let (signer, other) = (Signer::es256(), Signer::es256());
        let issuer = issuer(&signer, "sub");
        let exp = (NOW - LEEWAY).to_string();
        for (token, kind) in [
            (token(&other, &[]), Kind::AuthInvalid),
            (token(&signer, &[("aud", "\"iris\"")]), Kind::AuthInvalid),
            (token(&signer, &[("iss", "\"https://other.example\"")]), Kind::AuthInvalid),
            (token(&signer, &[("exp", "")]), Kind::AuthInvalid),
            (token(&signer, &[("exp", &exp)]), Kind::AuthExpired),
        ] {
            assert_eq!(read(&issuer, &token).await, Err(kind), "{token}");
            assert_eq!(read(&issuer, &token).await, Err(kind), "asked again: {token}");
        }
        let good = token(&signer, &[]);
        let (head, rest) = good.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let forged = format!("{head}.{}.{signature}", b64(fixtures::claims(&[("sub", "\"eve\"")])));
        assert_eq!(read(&issuer, &forged).await, Err(Kind::AuthInvalid));
    }

    #[test]
    fn what_could_be_a_service_is_no_audience_of_the_api() {
        for (audience, fits) in [
            ("api://scoregate", true),
            ("https://gate.example/", true),
            ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", true),
            ("iris", false),
            ("scoregate", false),
        ] {
            assert_eq!(OutsideSettings::audience_problem(audience).is_none(), fits, "{audience}");
        }
    }

    #[test]
    fn a_token_names_its_issuer_or_is_none_of_its_own() {
        let signer = Signer::es256();
        let issuer = issuer(&signer, "sub");
        assert!(issuer.is_named_by(&token(&signer, &[])));
        let foreign = token(&signer, &[("iss", "\"https://other.example\"")]);
        for text in [foreign.as_str(), "", "sgm_abc", "a.b.c", "a.e30.c", "..", "\u{e9}.\u{e9}"] {
            assert!(!issuer.is_named_by(text), "{text}");
        }
    }
}
