//! Verifies the gateway's own tokens: ES256 JWTs for one service, signed by one of the gateway's keys.

use std::sync::Arc;
use std::time::SystemTime;

use super::cache::TokenCache;
use super::claims::{Expected, Verified, since_epoch};
use super::grant::Admitted;
use super::jws::{Jws, invalid};
use super::settings::TokenSettings;
use super::signing::{PublicKey, TYPE};
use super::{BuildError, sha256};
use crate::catalog::ServiceName;
use crate::error::Error;

/// A verifier has its keys and revocations for life: its cache never sees a second generation of them.
const GENERATION: u64 = 0;

/// Verifies the gateway's own tokens for one service.
pub struct TokenVerifier {
    settings: Arc<TokenSettings>,
    audience: Arc<str>,
    cache: TokenCache,
}

impl TokenVerifier {
    pub(super) fn new(settings: &Arc<TokenSettings>, service: &ServiceName) -> Result<Self, BuildError> {
        if settings.issuer.is_empty() {
            return Err(BuildError::new("tokens.issuer", "must not be empty"));
        }
        if settings.keys.is_empty() {
            return Err(BuildError::new("tokens.signing_key", "there is no key to verify tokens with"));
        }
        let settings = Arc::clone(settings);
        Ok(Self { settings, audience: service.shared(), cache: TokenCache::default() })
    }

    pub(super) fn verify(&self, token: &[u8], now: SystemTime) -> Result<Admitted, Error> {
        let now = since_epoch(now);
        let digest = sha256(token);
        if let Some(warm) = self.cache.get(&digest, GENERATION) {
            return warm.admit(now);
        }
        let jws = Jws::parse(token)?;
        let key = self.key(jws.kid())?;
        if !jws.is_of_type(&[Some(TYPE)]) {
            return Err(invalid("the token is not of the type JWT (typ)"));
        }
        let claims = jws.verify(&[key.verify_key()])?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            audience: &self.audience,
            leeway: self.settings.leeway,
        };
        let verified = Arc::new(expected.judge(claims, now)?.signed_by(key.kid()));
        self.settings.revoked.judge(&verified)?;
        let admitted = Arc::clone(&verified).admit(now)?;
        self.cache.insert(digest, verified, GENERATION, now);
        Ok(admitted)
    }

    /// Whether a token that `before` took for the same service would be taken here, its time apart.
    pub(super) fn still_takes(&self, before: &Self, token: &Verified) -> bool {
        let (now, before) = (&self.settings, &before.settings);
        let is_known = |kid| now.keys.iter().any(|key| key.kid() == kid);
        now.issuer == before.issuer
            && token.signer().is_some_and(is_known)
            && now.revoked.judge(token).is_ok()
    }

    /// The key that a token names; a lone one need not be named.
    fn key(&self, kid: Option<&str>) -> Result<&PublicKey, Error> {
        match (kid, &*self.settings.keys) {
            (None, [only]) => Ok(only),
            (None, _) => Err(invalid("the token must name its key (kid)")),
            (Some(kid), keys) => {
                let mut keys = keys.iter();
                keys.find(|key| **key.kid() == *kid)
                    .ok_or_else(|| invalid("the token is signed by an unknown key (kid)"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use aws_lc_rs::hmac;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::super::fixtures::*;
    use super::super::{MintRequest, Revoked, mint};
    use super::*;
    use crate::error::Kind;

    const INVALID: Option<Kind> = Some(Kind::AuthInvalid);
    const EXPIRED: Option<Kind> = Some(Kind::AuthExpired);

    fn verifier(key: &OwnKey) -> TokenVerifier {
        TokenVerifier::new(&Arc::new(key.settings.clone()), &service()).unwrap()
    }

    #[track_caller]
    fn check(verifier: &TokenVerifier, token: &str, refused: Option<Kind>, what: &str) {
        let outcome = verifier.verify(token.as_bytes(), at(NOW));
        assert_verdict(&outcome, refused, what);
        if let Err(error) = outcome {
            // Neither the caller nor the log sees any part of the token again.
            let shown = format!("{error} {error:?}");
            let parts = token.split('.').filter(|part| part.len() > 8);
            assert!(parts.into_iter().all(|part| !shown.contains(part)), "{shown}");
        }
    }

    #[test]
    fn a_minted_token_opens_its_service_until_it_expires() {
        let key = OwnKey::new();
        let verifier = verifier(&key);
        let token = key.mint("ann", NOW);
        for (time, refused) in [
            (NOW - LEEWAY - 1, INVALID),
            (NOW - LEEWAY, None),
            (NOW, None),
            (NOW + 3600 + LEEWAY - 1, None),
            (NOW + 3600 + LEEWAY, EXPIRED),
        ] {
            let outcome = verifier.verify(token.as_bytes(), at(time));
            assert_verdict(&outcome, refused, &format!("at {time}"));
        }
        let other = ServiceName::parse("iris-2").unwrap();
        let other = TokenVerifier::new(&Arc::new(key.settings.clone()), &other).unwrap();
        check(&other, &token, INVALID, "another service");
    }

    #[test]
    fn claims_are_judged_strictly() {
        let key = OwnKey::new();
        let now = |offset: i64| (NOW as i64 + offset).to_string();
        let leeway = LEEWAY as i64;
        let long = format!("\"{}\"", "x".repeat(256));
        let table: &[(&str, &str, Option<Kind>)] = &[
            ("exp", &now(3600), None),
            ("exp", &now(-leeway + 1), None),
            ("exp", &now(-leeway), EXPIRED),
            ("exp", &now(-leeway - 1), EXPIRED),
            ("exp", &format!("{}.5", now(-leeway)), None),
            ("exp", "1.7e9", None),
            ("exp", "18446744073709551615", None),
            ("exp", "0", EXPIRED),
            ("exp", "", INVALID),
            ("exp", "null", INVALID),
            ("exp", &format!("\"{}\"", now(3600)), INVALID),
            ("exp", "-1", INVALID),
            ("exp", "-0.5", INVALID),
            ("exp", "1e400", INVALID),
            ("exp", "1e300", INVALID),
            ("exp", "true", INVALID),
            ("exp", &format!("[{}]", now(3600)), INVALID),
            ("exp", "{}", INVALID),
            ("nbf", &now(leeway), None),
            ("nbf", &now(leeway + 1), INVALID),
            ("nbf", &format!("{}.5", now(leeway)), INVALID),
            ("nbf", "\"0\"", INVALID),
            ("nbf", "null", INVALID),
            ("iat", &now(leeway), None),
            ("iat", &now(leeway + 1), INVALID),
            ("iat", "", None),
            ("iat", "\"yesterday\"", INVALID),
            ("aud", "[\"iris\"]", None),
            ("aud", "[\"wine\",\"iris\"]", None),
            ("aud", "", INVALID),
            ("aud", "null", INVALID),
            ("aud", "[]", INVALID),
            ("aud", "\"wine\"", INVALID),
            ("aud", "\"Iris\"", INVALID),
            ("aud", "\"iris \"", INVALID),
            ("aud", "[\"iris\",1]", INVALID),
            ("aud", "{\"iris\":1}", INVALID),
            ("iss", "", INVALID),
            ("iss", "null", INVALID),
            ("iss", "\"https://issuer.example/\"", INVALID),
            ("iss", "[\"https://issuer.example\"]", INVALID),
            ("sub", "", INVALID),
            ("sub", "null", INVALID),
            ("sub", "\"\"", INVALID),
            ("sub", "7", INVALID),
            ("sub", "\"a\\nb\"", INVALID),
            ("sub", &long, INVALID),
            ("unknown", "{\"a\":[1]}", None),
        ];
        let verifier = verifier(&key);
        for (name, value, refused) in table {
            let token = key.signer.token(None, &claims(&[(name, value)]));
            check(&verifier, &token, *refused, &format!("{name} = {value}"));
        }
        let good = claims(&[]);
        let twice = good.replace('}', ",\"exp\":9999999999}");
        let list = format!(r#"["{ISSUER}","ann","iris",{}]"#, NOW + 3600);
        let escaped = good.replace('}', ",\"\\u0065xp\":9999999999}");
        for broken in [&twice, &escaped, &list, "[]", "null", "\"x\"", "", "{", &format!("{good}x")] {
            check(&verifier, &key.signer.token(None, broken), INVALID, broken);
        }
        let expired_elsewhere = claims(&[("exp", "0"), ("aud", "\"wine\"")]);
        let token = key.signer.token(None, &expired_elsewhere);
        check(&verifier, &token, INVALID, "expired, and never good here");
    }

    #[test]
    fn the_header_decides_nothing() {
        let key = OwnKey::new();
        let verifier = verifier(&key);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let attacker = OwnKey::new();
        let kid = &**key.signing.public().kid();
        let header = |more: &str| format!(r#"{{"alg":"ES256","typ":"JWT"{more}}}"#);
        let jwk = format!(r#","jwk":{}"#, attacker.signer.jwk);
        let urls = format!(r#","jku":"{url}","x5u":"{url}","x5c":["AAAA"]"#);
        let table: &[(String, Option<Kind>)] = &[
            (header(""), None),
            (header(&format!(r#","kid":"{kid}""#)), None),
            (header(&jwk), None),
            (header(&urls), None),
            (header(r#","jwk":7,"x5c":null"#), None),
            (header(r#","kid":"other""#), INVALID),
            (header(r#","kid":"""#), INVALID),
            (header(r#","kid":null"#), INVALID),
            (header(r#","kid":"../../etc/passwd""#), INVALID),
            (header(r#","kid":"' OR '1'='1""#), INVALID),
            (header(r#","crit":["bork"],"bork":1"#), INVALID),
            (header(r#","crit":[]"#), INVALID),
            (header(r#","crit":["exp"]"#), INVALID),
            (header(r#","crit":null"#), INVALID),
            (header(r#","crit":["b64"],"b64":false"#), INVALID),
            (header(r#","b64":false"#), INVALID),
            (header(r#","alg":"ES256""#), INVALID),
            (r#"{"alg":"ES256","typ":"jwt"}"#.into(), None),
            (r#"{"alg":"ES256","typ":"application/jwt"}"#.into(), None),
            (r#"{"alg":"ES256"}"#.into(), INVALID),
            (r#"{"alg":"ES256","typ":"management+jwt"}"#.into(), INVALID),
            (r#"{"typ":"JWT"}"#.into(), INVALID),
            (r#"{"alg":null,"typ":"JWT"}"#.into(), INVALID),
            (format!(r#"["ES256","{kid}","JWT"]"#), INVALID),
            (format!(r#" {{"alg":"ES256","typ":"JWT","kid":"{kid}"}}"#), None),
            (header("").replace('}', "} x"), INVALID),
        ];
        for (header, refused) in table {
            check(&verifier, &key.signer.sign(header, &claims(&[])), *refused, header);
        }
        for header in [header(&jwk), header(&urls)] {
            let token = attacker.signer.sign(&header, &claims(&[]));
            check(&verifier, &token, INVALID, "a key that the token brought along");
        }
        assert!(listener.accept().is_err(), "nobody may follow a token's URLs");
    }

    #[test]
    fn the_algorithm_is_the_keys_own() {
        let key = OwnKey::new();
        let verifier = verifier(&key);
        let good = key.signer.token(None, &claims(&[]));
        let signature = good.rsplit('.').next().unwrap();
        for alg in ["none", "None", "NONE", "nOnE", "", "es256", "ES384", "RS256", "EdDSA", "HS256"] {
            let header = json!({"alg": alg, "typ": "JWT"}).to_string();
            let message = message(&header, &claims(&[]));
            check(&verifier, &format!("{message}."), INVALID, alg);
            check(&verifier, &format!("{message}.{signature}"), INVALID, alg);
            check(&verifier, &key.signer.sign(&header, &claims(&[])), INVALID, alg);
        }
        // The public key, in each form that a confused verifier could take for a secret.
        let header = r#"{"alg":"HS256","typ":"JWT"}"#;
        let spki_prefix = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
            0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let spki = [&spki_prefix[..], &key.public].concat();
        let public_pem = pem("PUBLIC KEY", &spki);
        for secret in [&key.public[..], &spki, public_pem.as_bytes(), public_pem.trim().as_bytes(), b""] {
            let message = message(header, &claims(&[]));
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            check(&verifier, &format!("{message}.{}", b64(mac)), INVALID, "HS256");
        }
    }

    #[test]
    fn a_signature_is_whole_and_of_our_key() {
        let key = OwnKey::new();
        let verifier = verifier(&key);
        let good = key.signer.token(None, &claims(&[]));
        let (message, signature) = good.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let (r, s) = signature.split_at(32);
        let order = [
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
            0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
        ];
        let mut past_order = order;
        past_order[31] += 1;
        let zero = [0; 32];
        let der = [&[0x30, 0x44, 0x02, 0x20][..], r, &[0x02, 0x20], s].concat();
        for bad in [
            [zero, zero].concat(),
            [r, &zero].concat(),
            [&zero, s].concat(),
            [order, order].concat(),
            [r, &order].concat(),
            [&order, s].concat(),
            [past_order, past_order].concat(),
            [r, &past_order].concat(),
            signature[..63].to_vec(),
            r.to_vec(),
            vec![],
            [&signature[..], &[0]].concat(),
            der,
        ] {
            let token = format!("{message}.{}", b64(&bad));
            check(&verifier, &token, INVALID, &format!("{bad:?}"));
        }
        let foreign = OwnKey::new().signer.token(None, &claims(&[]));
        check(&verifier, &foreign, INVALID, "another key");
        check(&verifier, &good, None, "the good one still opens");
    }

    #[test]
    fn a_token_has_one_spelling() {
        let key = OwnKey::new();
        let verifier = verifier(&key);
        let good = key.signer.token(None, &claims(&[]));
        check(&verifier, &good, None, "good");
        let parts: Vec<_> = good.split('.').collect();
        let [header, payload, signature] = parts[..] else { panic!("three parts") };
        // 64 octets leave four bits of the last letter unused; the next letter of the alphabet decodes to the same octets.
        let mut stray_bits = good.clone().into_bytes();
        let last = stray_bits.last_mut().unwrap();
        *last += 1;
        let stray_bits = String::from_utf8(stray_bits).unwrap();
        for bad in [
            format!("{good}."),
            format!(".{good}"),
            format!("{good}="),
            format!("{good}=="),
            format!("{good} "),
            format!("{good}\0"),
            format!("{header}=.{payload}.{signature}"),
            format!("{header}..{signature}"),
            format!("{header}.{payload}"),
            format!("{header}.{payload}..{signature}"),
            format!("{header}.{payload}.{signature}.{payload}.{signature}"),
            format!("{header}....{signature}"),
            format!("{header}.{payload}.{}", signature.replace('-', "+").replace('_', "/") + "+"),
            format!("{header}.{payload}.{}%0A", signature),
            stray_bits,
            "....".into(),
            "..".into(),
            ".".into(),
            "x".into(),
            "\u{131}".into(),
        ] {
            check(&verifier, &bad, INVALID, &bad);
        }
        let outcome = verifier.verify(b"\xff\xfe.\x80.\x80", at(NOW));
        assert_verdict(&outcome, INVALID, "not UTF-8");
    }

    #[test]
    fn a_twin_of_a_warm_token_is_not_let_in() {
        let key = OwnKey::new();
        let verifier = verifier(&key);
        let good = key.signer.token(None, &claims(&[]));
        check(&verifier, &good, None, "cold");
        check(&verifier, &good, None, "warm");
        assert_eq!(verifier.cache.len(), 1);
        for shared in [20, 32, 64, good.len() - 1] {
            let mut twin = good.clone().into_bytes();
            for letter in &mut twin[shared..] {
                *letter = if *letter == b'A' { b'Q' } else { b'A' };
            }
            let twin = String::from_utf8(twin).unwrap();
            check(&verifier, &twin, INVALID, &format!("equal in {shared}"));
        }
        check(&verifier, &good[..good.len() - 1], INVALID, "a prefix");
        assert_eq!(verifier.cache.len(), 1, "only what is verified is remembered");
    }

    #[test]
    fn a_new_signing_key_ends_warm_tokens() {
        let old = OwnKey::new();
        let token = old.mint("ann", NOW);
        check(&verifier(&old), &token, None, "under its own key");
        check(&verifier(&OwnKey::new()), &token, INVALID, "under the next key");
    }

    #[test]
    fn keys_overlap_while_they_are_rotated() {
        let (old, new) = (OwnKey::new(), OwnKey::new());
        let both = vec![new.signing.public().clone(), old.signing.public().clone()];
        let both = TokenSettings { keys: both, ..old.settings.clone() };
        let both = TokenVerifier::new(&Arc::new(both), &service()).unwrap();
        for key in [&old, &new] {
            check(&both, &key.mint("ann", NOW), None, "a key of the two");
            check(&both, &key.signer.token(None, &claims(&[])), INVALID, "which of the two?");
        }
        let misnamed = old.signer.token(Some(new.signing.public().kid()), &claims(&[]));
        check(&both, &misnamed, INVALID, "the other key's name");
        check(&both, &OwnKey::new().mint("ann", NOW), INVALID, "neither");
        let none = TokenSettings { keys: vec![], ..old.settings };
        assert!(TokenVerifier::new(&Arc::new(none), &service()).is_err());
    }

    #[test]
    fn a_revoked_token_and_a_revoked_principal_are_refused_and_told_why() {
        let key = OwnKey::new();
        let revoked = Revoked {
            tokens: ["lost".into()].into(),
            principals: [("ann".into(), NOW - 10), ("bob".into(), NOW)].into(),
        };
        let settings = TokenSettings { revoked: Arc::new(revoked), ..key.settings.clone() };
        let verifier = TokenVerifier::new(&Arc::new(settings), &service()).unwrap();
        let after = (NOW - 9).to_string();
        let (at_it, within) = ((NOW - 10).to_string(), format!("{}.9", NOW - 10));
        for (edits, refused) in [
            (&[("jti", "\"lost\"")][..], true),
            (&[("jti", "\"Lost\"")], false),
            (&[("jti", "")], false),
            (&[("iat", &*after)], false),
            (&[("iat", &*at_it)], true),
            (&[("iat", &*within)], true),
            (&[("iat", "")], true),
            (&[("sub", "\"bob\"")], true),
        ] {
            let token = key.signer.token(None, &claims(edits));
            let outcome = verifier.verify(token.as_bytes(), at(NOW));
            let message = outcome.err().map(|error| (error.kind, error.message));
            let expected = refused.then_some((Kind::AuthInvalid, "the token has been revoked".into()));
            assert_eq!(message, expected, "{edits:?}");
        }
        let expired = key.signer.token(None, &claims(&[("jti", "\"lost\""), ("exp", "0")]));
        check(&verifier, &expired, INVALID, "revoked goes before expired");
        for odd in ["7", "null", "[]"] {
            let token = key.signer.token(None, &claims(&[("jti", odd)]));
            check(&verifier, &token, INVALID, "an id is a string");
        }
    }

    #[test]
    fn a_token_minted_for_the_past_is_over() {
        let key = OwnKey::new();
        let request =
            MintRequest { lifetime: Duration::from_secs(5), ..key.request("ann", NOW - LEEWAY - 5) };
        let token = mint(&key.signing, &request).unwrap().token;
        check(&verifier(&key), token.expose_secret(), EXPIRED, "minted for the past");
    }
}
