//! Keys, claims and tokens for the tests of this module, right and wrong ones.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::grant::Admitted;
use super::settings::{Revoked, TokenSettings};
use super::signing::{MintRequest, SigningKey, mint};
use crate::catalog::ServiceName;
use crate::error::{Error, Kind};
use crate::telemetry::record::Principal;

pub(super) const ISSUER: &str = "https://issuer.example";
pub(super) const SERVICE: &str = "iris";
pub(super) const LEEWAY: u64 = 60;

/// The present of all tests.
pub(super) const NOW: u64 = 1_700_000_000;

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A private key of some type.
pub(super) struct Signer {
    pub(super) alg: &'static str,
    /// The public half; `kid` is up to the test.
    pub(super) jwk: Value,
    sign: Sign,
}

/// A P-256 key as the configuration has it, and the same key to sign odd tokens with.
pub(super) struct OwnKey {
    pub(super) settings: TokenSettings,
    pub(super) signing: SigningKey,
    pub(super) public: Vec<u8>,
    pub(super) signer: Signer,
}

pub(super) fn service() -> ServiceName {
    ServiceName::parse(SERVICE).unwrap()
}

pub(super) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and payload, ready to be signed.
pub(super) fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", b64(header), b64(claims))
}

/// Good claims as JSON text, with `edits` made: a raw value replaces or adds a claim, an empty one removes it.
pub(super) fn claims(edits: &[(&str, &str)]) -> String {
    let issuer = json!(ISSUER).to_string();
    let (iat, exp) = (NOW.to_string(), (NOW + 3600).to_string());
    let mut claims =
        vec![("iss", &*issuer), ("sub", "\"ann\""), ("aud", "\"iris\""), ("iat", &iat), ("exp", &exp)];
    for (name, value) in edits {
        claims.retain(|(known, _)| known != name);
        if !value.is_empty() {
            claims.push((name, value));
        }
    }
    let members: Vec<_> = claims.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Compares an outcome with what a table expects: `None` is a call let in as `ann`.
pub(super) fn assert_verdict(outcome: &Result<Admitted, Error>, refused: Option<Kind>, what: &str) {
    match (outcome, refused) {
        (Ok(admitted), None) => assert_eq!(admitted.principal, Principal::Subject("ann".into()), "{what}"),
        (Err(error), Some(kind)) => assert_eq!(error.kind, kind, "{what}: {error}"),
        (Ok(_), Some(kind)) => panic!("{what}: let in, expected {kind:?}"),
        (Err(error), None) => panic!("{what}: {error}"),
    }
}

impl OwnKey {
    pub(super) fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let signing = SigningKey::from_pkcs8(pair.to_pkcs8v1().unwrap().as_ref()).unwrap();
        Self {
            settings: TokenSettings {
                issuer: ISSUER.to_owned(),
                keys: vec![signing.public().clone()],
                leeway: Duration::from_secs(LEEWAY),
                revoked: Arc::new(Revoked::default()),
            },
            public: pair.public_key().as_ref().to_vec(),
            signing,
            signer: Signer::ecdsa("ES256", "P-256", pair),
        }
    }

    /// Asks for a token of an hour for [`SERVICE`].
    pub(super) fn request<'a>(&self, subject: &'a str, now: u64) -> MintRequest<'a> {
        let lifetime = Duration::from_secs(3600);
        MintRequest { issuer: ISSUER, audience: SERVICE, subject, lifetime, now: at(now) }
    }

    pub(super) fn mint(&self, subject: &str, now: u64) -> String {
        mint(&self.signing, &self.request(subject, now)).unwrap().token.expose_secret().to_owned()
    }
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl Signer {
    pub(super) fn es256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::ecdsa("ES256", "P-256", pair)
    }

    pub(super) fn es384() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self::ecdsa("ES384", "P-384", pair)
    }

    pub(super) fn eddsa() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        Self {
            alg: "EdDSA",
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())}),
            sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
        }
    }

    /// One RSA key, once with each padding.
    pub(super) fn rs256_and_ps256() -> [Self; 2] {
        let pair = Arc::new(RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap());
        let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let jwk = json!({"kty": "RSA", "n": b64(public.n), "e": b64(public.e)});
        let signer = |alg, padding| {
            let pair = Arc::clone(&pair);
            let sign = move |message: &[u8]| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            };
            Self { alg, jwk: jwk.clone(), sign: Box::new(sign) }
        };
        [signer("RS256", &RSA_PKCS1_SHA256), signer("PS256", &RSA_PSS_SHA256)]
    }

    fn ecdsa(alg: &'static str, curve: &str, pair: EcdsaKeyPair) -> Self {
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        Self {
            alg,
            jwk: json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)}),
            sign: Box::new(move |message| {
                let signature = pair.sign(&SystemRandom::new(), message).unwrap();
                signature.as_ref().to_vec()
            }),
        }
    }

    /// The public half under a name, with `members` added.
    pub(super) fn jwk_named(&self, kid: &str, members: &[(&str, Value)]) -> Value {
        let mut jwk = self.jwk.clone();
        jwk["kid"] = kid.into();
        for (name, value) in members {
            jwk[*name] = value.clone();
        }
        jwk
    }

    /// Signs whatever stands there.
    pub(super) fn sign(&self, header: &str, claims: &str) -> String {
        let message = message(header, claims);
        let signature = b64((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A token with an ordinary header.
    pub(super) fn token(&self, kid: Option<&str>, claims: &str) -> String {
        let header = json!({"alg": self.alg, "typ": "JWT", "kid": kid});
        let mut header = header.as_object().unwrap().clone();
        header.retain(|_, value| !value.is_null());
        self.sign(&Value::from(header).to_string(), claims)
    }
}

/// A key set document.
pub(super) fn key_set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}
