//! The gateway's own tokens: ES256 JWTs for one service, minted here and verified here.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::cache::TokenCache;
use super::claims::{Expected, since_epoch, subject_problem};
use super::jws::{Jws, VerifyKey, invalid};
use super::settings::TokenSettings;
use super::{BuildError, sha256};
use crate::catalog::ServiceName;
use crate::error::Error;
use crate::telemetry::record::Principal;

/// `typ` of our tokens for services. Tokens for other purposes carry another one and open no service.
const TYPE: &str = "JWT";

/// A verifier has one key for life: its cache never sees a second generation.
const GENERATION: u64 = 0;

/// Verifies the gateway's own tokens for one service.
pub struct TokenVerifier {
    key: VerifyKey,
    expected: Expected,
    cache: TokenCache,
}

impl TokenVerifier {
    pub(super) fn new(settings: &TokenSettings, service: &ServiceName) -> Result<Self, BuildError> {
        if settings.issuer.is_empty() {
            return Err(BuildError::new("tokens.issuer", "must not be empty"));
        }
        let signing_key = SigningKey::parse(&settings.signing_key)?;
        Ok(Self {
            key: VerifyKey {
                kid: Some(signing_key.kid.into()),
                algorithms: vec![Algorithm::ES256],
                key: DecodingKey::from_ec_der(&signing_key.public),
            },
            expected: Expected {
                issuer: settings.issuer.as_str().into(),
                audience: service.as_str().into(),
                leeway: settings.leeway,
            },
            cache: TokenCache::default(),
        })
    }

    pub(super) fn verify(&self, token: &[u8], now: SystemTime) -> Result<Principal, Error> {
        let now = since_epoch(now);
        let digest = sha256(token);
        if let Some(warm) = self.cache.get(&digest, GENERATION) {
            return warm.admit(now);
        }
        let jws = Jws::parse(token)?;
        if jws.kid().is_some_and(|kid| self.key.kid.as_deref() != Some(kid)) {
            return Err(invalid("the token is signed by an unknown key (kid)"));
        }
        if !jws.is_of_type(&[Some(TYPE)]) {
            return Err(invalid("the token is not of the type JWT (typ)"));
        }
        let claims = jws.verify(&[&self.key])?;
        let verified = self.expected.judge(claims, now)?;
        let principal = verified.admit(now)?;
        self.cache.insert(digest, verified, GENERATION, now);
        Ok(principal)
    }
}

/// Signs a token that lets `subject` call `service` from `now` on for `lifetime` (`None`: as configured).
///
/// # Errors
/// The signing key is not a P-256 private key, or the subject is empty, too long or holds control characters.
pub fn mint(
    settings: &TokenSettings,
    service: &ServiceName,
    subject: &str,
    lifetime: Option<Duration>,
    now: SystemTime,
) -> Result<String, MintError> {
    if let Some(problem) = subject_problem(subject) {
        return Err(MintError::Subject(problem));
    }
    let signing_key = SigningKey::parse(&settings.signing_key).map_err(MintError::Key)?;
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some(TYPE.to_owned());
    header.kid = Some(signing_key.kid);
    let issued = since_epoch(now).as_secs();
    let claims = MintedClaims {
        iss: &settings.issuer,
        sub: subject,
        aud: service.as_str(),
        iat: issued,
        nbf: issued,
        exp: issued.saturating_add(lifetime.unwrap_or(settings.lifetime).as_secs()),
        jti: uuid::Uuid::new_v4(),
    };
    jsonwebtoken::encode(&header, &claims, &signing_key.private).map_err(|_| MintError::Signing)
}

/// Why no token was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MintError {
    /// The configured signing key cannot be used.
    Key(BuildError),
    /// The subject cannot be one, and why.
    Subject(&'static str),
    /// The cryptographic library failed.
    Signing,
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Subject(problem) => f.write_str(problem),
            Self::Signing => f.write_str("signing the token failed"),
        }
    }
}

impl std::error::Error for MintError {}

#[derive(Serialize)]
struct MintedClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
    #[serde(serialize_with = "as_text")]
    jti: uuid::Uuid,
}

fn as_text<S: serde::Serializer>(id: &uuid::Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// `tokens.signing_key`, read.
struct SigningKey {
    private: EncodingKey,
    /// The uncompressed point: 4, x, y.
    public: Vec<u8>,
    kid: String,
}

impl SigningKey {
    fn parse(pem: &SecretString) -> Result<Self, BuildError> {
        let refused = || {
            BuildError::new(
                "tokens.signing_key",
                "needs the PEM of a P-256 private key (PKCS#8 or SEC 1); \
                 'openssl ecparam -name prime256v1 -genkey -noout' makes one",
            )
        };
        let der = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| refused())?;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_der(algorithm, der.secret_der()).map_err(|_| refused())?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| refused())?;
        let public = pair.public_key().as_ref();
        Ok(Self {
            private: EncodingKey::from_ec_der(pkcs8.as_ref()),
            public: public.into(),
            kid: thumbprint(public),
        })
    }
}

/// The RFC 7638 thumbprint of a P-256 public key in its uncompressed form.
fn thumbprint(public: &[u8]) -> String {
    let (x, y) = public[1..].split_at((public.len() - 1) / 2);
    let jwk = format!(
        r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(x),
        URL_SAFE_NO_PAD.encode(y)
    );
    URL_SAFE_NO_PAD.encode(sha256(jwk.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
    use aws_lc_rs::hmac;
    use serde_json::json;

    use super::super::fixtures::*;
    use super::*;
    use crate::error::Kind;

    const INVALID: Option<Kind> = Some(Kind::AuthInvalid);
    const EXPIRED: Option<Kind> = Some(Kind::AuthExpired);

    fn verifier(key: &OwnKey) -> TokenVerifier {
        TokenVerifier::new(&key.settings, &service()).unwrap()
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
        let token = mint(&key.settings, &service(), "ann", None, at(NOW)).unwrap();
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
        let other = TokenVerifier::new(&key.settings, &other).unwrap();
        check(&other, &token, INVALID, "another service");

        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("JWT"));
        assert_eq!(header.kid.as_deref(), verifier.key.kid.as_deref());
        let again = mint(&key.settings, &service(), "ann", None, at(NOW)).unwrap();
        assert_ne!(token, again, "each has its own jti");
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
        let kid = verifier.key.kid.as_deref().unwrap();
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
        let token = mint(&old.settings, &service(), "ann", None, at(NOW)).unwrap();
        check(&verifier(&old), &token, None, "under its own key");
        check(&verifier(&OwnKey::new()), &token, INVALID, "under the next key");
    }

    #[test]
    fn signing_keys_are_p256_in_pkcs8_or_sec1() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let sec1 = pem("EC PRIVATE KEY", sec1.as_ref());
        // What 'openssl ecparam -genkey' writes without '-noout'.
        let with_parameters =
            format!("{}{sec1}", pem("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7]));
        for good in [&sec1, &with_parameters] {
            let settings = settings(good);
            let token = mint(&settings, &service(), "ann", None, at(NOW)).unwrap();
            let verifier = TokenVerifier::new(&settings, &service()).unwrap();
            check(&verifier, &token, None, "SEC 1");
        }
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let public = pem("PUBLIC KEY", &OwnKey::new().public);
        for bad in ["", "secret", &p384.serialize_pem(), &ed25519.serialize_pem(), &public] {
            let error = TokenVerifier::new(&settings(bad), &service()).err().unwrap();
            assert_eq!(error.field, "tokens.signing_key");
            assert!(!error.to_string().contains("secret"));
            let error = mint(&settings(bad), &service(), "ann", None, at(NOW)).unwrap_err();
            assert!(matches!(error, MintError::Key(_)));
        }
    }

    #[test]
    fn only_subjects_that_a_verifier_takes_are_minted() {
        let key = OwnKey::new();
        for bad in ["", "a\u{7}b", &"x".repeat(256)] {
            let error = mint(&key.settings, &service(), bad, None, at(NOW)).unwrap_err();
            assert!(matches!(error, MintError::Subject(_)), "{bad}");
        }
        let short = Some(Duration::from_secs(5));
        let token = mint(&key.settings, &service(), "ann", short, at(NOW - LEEWAY - 5)).unwrap();
        check(&verifier(&key), &token, EXPIRED, "minted for the past");
    }

    /// RFC 7638's rule for EC keys, on the key of RFC 7515, appendix A.3; the expected value was computed apart.
    #[test]
    fn the_kid_is_the_jwk_thumbprint() {
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
        let octets = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
        let public = [vec![4], octets(x), octets(y)].concat();
        assert_eq!(thumbprint(&public), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
    }
}
