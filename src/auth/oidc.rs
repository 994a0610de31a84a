//! Tokens of an outside issuer, verified with the keys it publishes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::cache::TokenCache;
use super::claims::{Expected, since_epoch};
use super::grant::Admitted;
use super::jwks::{Jwks, JwksRegistry, KeySet, Lookup, NoNewer};
use super::jws::{Jws, invalid};
use super::settings::OidcSettings;
use super::{BuildError, Digest, sha256};
use crate::error::{Error, Kind};

/// Types of tokens that let somebody call: plain JWTs and access tokens (RFC 9068, section 2.1). Logout tokens, proofs
/// and their like are signed with the same keys and must not.
const TYPES: [Option<&str>; 3] = [None, Some("JWT"), Some("at+jwt")];

/// Verifies tokens of one outside issuer for one audience.
pub struct OidcVerifier {
    jwks: Arc<Jwks>,
    issuer: Box<str>,
    audience: Box<str>,
    leeway: Duration,
    /// Here and not with the key set, which services of other audiences may share; a change of the set still empties
    /// it at once, since each entry counts under its own generation of keys only.
    cache: TokenCache,
}

impl OidcVerifier {
    pub(super) fn new(settings: &OidcSettings, registry: &JwksRegistry) -> Result<Self, BuildError> {
        if settings.issuer.is_empty() {
            return Err(BuildError::new("oidc.issuer", "must not be empty"));
        }
        if settings.audience.is_empty() {
            return Err(BuildError::new("oidc.audience", "must not be empty"));
        }
        Ok(Self {
            jwks: registry.get(&settings.jwks)?,
            issuer: settings.issuer.as_str().into(),
            audience: settings.audience.as_str().into(),
            leeway: settings.leeway,
            cache: TokenCache::default(),
        })
    }

    /// The issuer's keys, for status and metrics.
    #[must_use]
    pub fn jwks(&self) -> &Jwks {
        &self.jwks
    }

    pub(super) async fn verify(&self, token: &[u8], now: SystemTime) -> Result<Admitted, Error> {
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

    /// Whether it takes the tokens that `before` took. That a key was withdrawn by its issuer is not seen here: no token
    /// is verified a second time.
    pub(super) fn has_issuer_of(&self, before: &Self) -> bool {
        Arc::ptr_eq(&self.jwks, &before.jwks)
            && self.issuer == before.issuer
            && self.audience == before.audience
    }

    /// The verdict on a token that the current keys have verified before.
    fn warm(&self, digest: &Digest, now: Duration) -> Option<Result<Admitted, Error>> {
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
    ) -> Result<Admitted, Error> {
        let keys = match set.find(jws.kid()) {
            Lookup::Found(keys) => keys,
            Lookup::Unknown => return Err(unknown_key()),
            Lookup::Unnamed => return Err(invalid("the token must name its key (kid)")),
        };
        let claims = jws.verify(&keys)?;
        let expected = Expected { issuer: &self.issuer, audience: &self.audience, leeway: self.leeway };
        let verified = Arc::new(expected.judge(claims, now)?);
        let admitted = Arc::clone(&verified).admit(now)?;
        self.cache.insert(*digest, verified, set.generation(), now);
        Ok(admitted)
    }
}

fn unknown_key() -> Error {
    invalid("the token is signed by an unknown key (kid)")
}

fn unavailable() -> Error {
    Error::new(Kind::AuthUnavailable, "the issuer's keys are not available just now; try again")
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use serde_json::json;
    use tokio::task::JoinHandle;

    use super::super::fixtures::*;
    use super::super::jwks::issuer::{Answer, Issuer};
    use super::super::run_key_sets;
    use super::super::settings::JwksSource;
    use super::*;

    const INVALID: Option<Kind> = Some(Kind::AuthInvalid);
    const UNAVAILABLE: Option<Kind> = Some(Kind::AuthUnavailable);

    /// The control plane's part, ended with the test.
    struct ControlPlane(JoinHandle<()>);

    impl ControlPlane {
        fn start(registry: &JwksRegistry) -> Self {
            let registry = registry.clone();
            Self(tokio::spawn(run_key_sets(registry, std::future::pending())))
        }
    }

    impl Drop for ControlPlane {
        fn drop(&mut self) {
            self.0.abort();
        }
    }

    fn verifier(registry: &JwksRegistry, jwks: JwksSource, audience: &str) -> OidcVerifier {
        let settings = OidcSettings {
            issuer: ISSUER.to_owned(),
            audience: audience.to_owned(),
            jwks,
            leeway: Duration::from_secs(LEEWAY),
        };
        OidcVerifier::new(&settings, registry).unwrap()
    }

    /// A verifier whose keys are there already, fetched by nobody.
    fn with_keys(keys: &[serde_json::Value]) -> OidcVerifier {
        let source = JwksSource::File("/does/not/matter".into());
        let verifier = verifier(&JwksRegistry::default(), source, SERVICE);
        verifier.jwks.accept(&key_set(keys)).unwrap();
        verifier
    }

    async fn check(verifier: &OidcVerifier, token: &str, refused: Option<Kind>, what: &str) {
        let outcome = verifier.verify(token.as_bytes(), at(NOW)).await;
        assert_verdict(&outcome, refused, what);
    }

    async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
        let poll = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(10), poll).await;
        outcome.unwrap_or_else(|_| panic!("not within 10 s: {what}"));
    }

    async fn loaded(verifier: &OidcVerifier) {
        eventually("the key set is there", async || verifier.jwks.age().is_some()).await;
    }

    #[tokio::test]
    async fn each_type_of_key_verifies_its_own_tokens_only() {
        let [rs256, ps256] = Signer::rs256_and_ps256();
        let signers = [rs256, ps256, Signer::es256(), Signer::es384(), Signer::eddsa()];
        let names = ["rsa", "rsa-again", "p256", "p384", "ed"];
        let keys: Vec<_> =
            signers.iter().zip(names).map(|(signer, kid)| signer.jwk_named(kid, &[])).collect();
        let verifier = with_keys(&keys);
        for (signer, kid) in signers.iter().zip(names) {
            let good = signer.token(Some(kid), &claims(&[]));
            check(&verifier, &good, None, kid).await;
            check(&verifier, &signer.token(None, &claims(&[])), INVALID, "no kid").await;
            for other in names.iter().filter(|other| other[..2] != kid[..2]) {
                let misnamed = signer.token(Some(other), &claims(&[]));
                check(&verifier, &misnamed, INVALID, &format!("{kid} as {other}")).await;
            }
        }
        let pinned = with_keys(&[signers[0].jwk_named("rsa", &[("alg", json!("RS256"))])]);
        let ps256 = signers[1].token(Some("rsa"), &claims(&[]));
        check(&pinned, &ps256, INVALID, "another padding than the key's").await;
        let only = with_keys(&[signers[2].jwk.clone()]);
        let unnamed = signers[2].token(None, &claims(&[]));
        check(&only, &unnamed, None, "the only key needs no name").await;
    }

    #[tokio::test]
    async fn only_access_tokens_are_taken() {
        let signer = Signer::es256();
        let verifier = with_keys(std::slice::from_ref(&signer.jwk));
        for (typ, refused) in [
            (r#","typ":"JWT""#, None),
            (r#","typ":"at+jwt""#, None),
            (r#","typ":"application/AT+JWT""#, None),
            ("", None),
            (r#","typ":"logout+jwt""#, INVALID),
            (r#","typ":"dpop+jwt""#, INVALID),
            (r#","typ":null"#, INVALID),
            (r#","typ":"""#, INVALID),
        ] {
            let token = signer.sign(&format!(r#"{{"alg":"ES256"{typ}}}"#), &claims(&[]));
            check(&verifier, &token, refused, typ).await;
        }
    }

    #[tokio::test]
    async fn services_that_share_keys_share_no_verdicts() {
        let (registry, signer) = (JwksRegistry::default(), Signer::es256());
        let source = JwksSource::File("/does/not/matter".into());
        let iris = verifier(&registry, source.clone(), "iris");
        let wine = verifier(&registry, source, "wine");
        iris.jwks.accept(&key_set(std::slice::from_ref(&signer.jwk))).unwrap();
        assert!(Arc::ptr_eq(&iris.jwks, &wine.jwks));
        let token = signer.token(None, &claims(&[]));
        check(&iris, &token, None, "its audience").await;
        check(&iris, &token, None, "its audience, warm").await;
        check(&wine, &token, INVALID, "another audience").await;
    }

    #[tokio::test]
    async fn never_loaded_is_unavailable_and_not_open() {
        let registry = JwksRegistry::default();
        let issuer = Issuer::start(b"<html>").await;
        let verifier = verifier(&registry, issuer.source(), SERVICE);
        let signer = Signer::es256();
        let token = signer.token(Some("a"), &claims(&[]));
        check(&verifier, &token, UNAVAILABLE, "nothing was fetched").await;
        let _control = ControlPlane::start(&registry);
        eventually("it fails", async || verifier.jwks.last_error().is_some()).await;
        check(&verifier, &token, UNAVAILABLE, "what was fetched is no key set").await;
        issuer.answer(Answer::Document(key_set(&[signer.jwk_named("a", &[])])));
        registry.refresh();
        loaded(&verifier).await;
        check(&verifier, &token, None, "the issuer is well again").await;
        assert_eq!(verifier.jwks.last_error(), None);
    }

    #[tokio::test]
    async fn a_rotated_key_counts_at_once_and_ends_warm_tokens() {
        let (registry, old, new) = (JwksRegistry::default(), Signer::es256(), Signer::es256());
        let issuer = Issuer::start(&key_set(&[old.jwk_named("old", &[])])).await;
        let _control = ControlPlane::start(&registry);
        let verifier = verifier(&registry, issuer.source(), SERVICE);
        loaded(&verifier).await;
        let old_token = old.token(Some("old"), &claims(&[]));
        check(&verifier, &old_token, None, "cold").await;
        check(&verifier, &old_token, None, "warm").await;

        issuer.answer(Answer::Document(key_set(&[new.jwk_named("new", &[])])));
        check(&verifier, &old_token, None, "the new set is not known yet").await;
        assert_eq!(issuer.fetches(), 1);
        let new_token = new.token(Some("new"), &claims(&[]));
        check(&verifier, &new_token, None, "fetched for the unknown key").await;
        assert_eq!(issuer.fetches(), 2);
        check(&verifier, &old_token, INVALID, "withdrawn, though it was warm").await;
        assert_eq!(issuer.fetches(), 2);
    }

    #[tokio::test]
    async fn a_key_withdrawn_under_its_old_name_ends_warm_tokens() {
        let (old, new) = (Signer::es256(), Signer::es256());
        let verifier = with_keys(&[old.jwk_named("a", &[])]);
        let token = old.token(Some("a"), &claims(&[]));
        check(&verifier, &token, None, "cold").await;
        check(&verifier, &token, None, "warm").await;
        verifier.jwks.accept(&key_set(&[new.jwk_named("a", &[])])).unwrap();
        check(&verifier, &token, INVALID, "another key of that name").await;
    }

    #[tokio::test]
    async fn a_flood_of_unknown_keys_costs_one_fetch() {
        let (registry, signer) = (JwksRegistry::default(), Signer::es256());
        let issuer = Issuer::start(&key_set(&[signer.jwk_named("a", &[])])).await;
        let _control = ControlPlane::start(&registry);
        let verifier = verifier(&registry, issuer.source(), SERVICE);
        loaded(&verifier).await;
        let tokens: Vec<_> =
            (0..100).map(|number| signer.token(Some(&format!("unknown-{number}")), &claims(&[]))).collect();
        for chunk in tokens.chunks(10) {
            let calls = chunk.iter().map(|token| check(&verifier, token, INVALID, "unknown key"));
            futures_util::future::join_all(calls).await;
        }
        assert_eq!(issuer.fetches(), 2, "the first load and one for all of them");
    }

    #[tokio::test]
    async fn a_down_issuer_takes_no_known_key_away() {
        let (registry, signer) = (JwksRegistry::default(), Signer::es256());
        let issuer = Issuer::start(&key_set(&[signer.jwk_named("a", &[])])).await;
        let _control = ControlPlane::start(&registry);
        let verifier = verifier(&registry, issuer.source(), SERVICE);
        loaded(&verifier).await;
        issuer.answer(Answer::Status(503));
        registry.refresh();
        eventually("it fails", async || verifier.jwks.last_error().is_some()).await;
        let known = signer.token(Some("a"), &claims(&[]));
        check(&verifier, &known, None, "stale keys still verify").await;
        let unknown = signer.token(Some("b"), &claims(&[]));
        check(&verifier, &unknown, UNAVAILABLE, "nobody can tell").await;
        check(&verifier, &unknown, UNAVAILABLE, "nor when damped").await;
        let status = &registry.status()[0];
        assert!(status.age.is_some() && status.keys == Some(1));
        assert!(status.last_error.as_ref().unwrap().contains("status 503"));
    }

    #[tokio::test]
    async fn the_loop_of_a_set_ends_with_its_last_user() {
        let registry = JwksRegistry::default();
        let issuer = Issuer::start(&key_set(&[])).await;
        let _control = ControlPlane::start(&registry);
        for round in 1..=3 {
            let verifier = verifier(&registry, issuer.source(), SERVICE);
            loaded(&verifier).await;
            assert_eq!(issuer.fetches(), round);
        }
        assert!(registry.status().is_empty());
    }

    #[tokio::test]
    async fn key_sets_stop_with_the_process() {
        let registry = JwksRegistry::default();
        let issuer = Issuer::start(&key_set(&[])).await;
        issuer.answer(Answer::Never);
        let verifier = verifier(&registry, issuer.source(), SERVICE);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(run_key_sets(registry, async {
            let _ = stopped.await;
        }));
        eventually("a fetch is under way", async || issuer.fetches() == 1).await;
        stop.send(()).unwrap();
        running.await.unwrap();
        assert_eq!(verifier.jwks.age(), None);
    }
}
