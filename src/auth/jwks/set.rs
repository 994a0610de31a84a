//! One fetched key set (RFC 7517): which of its keys can verify tokens, and the finding of the right one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::time::Instant;

use super::super::jws::{VerifyKey, algorithm};
use super::super::{Digest, sha256};

/// The usable keys of a document, unchanging. A different document makes a new generation.
pub(in crate::auth) struct KeySet {
    generation: u64,
    document: Digest,
    fetched_at: Instant,
    keys: Arc<[VerifyKey]>,
}

/// What a set has for a token.
pub(in crate::auth) enum Lookup<'a> {
    /// Keys that go by the token's `kid`; several if the issuer uses one name for keys of different types.
    Found(Vec<&'a VerifyKey>),
    /// No key of that name: perhaps the set is old.
    Unknown,
    /// The token names no key, and the set does not have just one.
    Unnamed,
}

/// The document is no key set, and why.
#[derive(Debug)]
pub(in crate::auth) struct NotAKeySet(serde_json::Error);

impl KeySet {
    /// Reads a JWK Set. Keys of unknown types, for encryption, or with broken values are passed over (RFC 7517,
    /// section 5), and so are symmetric ones: a public document makes no secret.
    pub(super) fn parse(document: &[u8], generation: u64) -> Result<Self, NotAKeySet> {
        let set: Document = serde_json::from_slice(document).map_err(NotAKeySet)?;
        let keys = set.keys.into_iter().filter_map(|key| {
            let jwk = Jwk::deserialize(key).ok()?;
            jwk.verify_key()
        });
        Ok(Self { generation, document: sha256(document), fetched_at: Instant::now(), keys: keys.collect() })
    }

    /// The same set, found unchanged just now.
    pub(super) fn confirmed(&self) -> Self {
        Self {
            generation: self.generation,
            document: self.document,
            fetched_at: Instant::now(),
            keys: Arc::clone(&self.keys),
        }
    }

    /// Whether the set was read from the document with this digest.
    pub(super) fn is_of(&self, document: &Digest) -> bool {
        self.document == *document
    }

    /// Moves with each change of the document, within one source.
    pub(in crate::auth) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn age(&self) -> Duration {
        self.fetched_at.elapsed()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys for a token whose header has this `kid`.
    pub(in crate::auth) fn find(&self, kid: Option<&str>) -> Lookup<'_> {
        match (kid, &*self.keys) {
            (None, [only]) => Lookup::Found(vec![only]),
            (None, _) => Lookup::Unnamed,
            (Some(kid), keys) => {
                let named = |key: &&VerifyKey| key.kid.as_deref() == Some(kid);
                let found: Vec<_> = keys.iter().filter(named).collect();
                if found.is_empty() { Lookup::Unknown } else { Lookup::Found(found) }
            }
        }
    }
}

impl fmt::Display for NotAKeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a JSON Web Key Set: {}", self.0)
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// The members of a JWK that say what it may verify (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key, if it can verify signatures. Its type decides the algorithms; `alg`, if there, picks one of them.
    fn verify_key(self) -> Option<VerifyKey> {
        let for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let may_verify = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures || !may_verify {
            return None;
        }
        let (key, of_type) = self.key_and_algorithms()?;
        let algorithms = match self.alg.as_deref().map(algorithm) {
            None => of_type.to_vec(),
            Some(Some(named)) if of_type.contains(&named) => vec![named],
            Some(_) => return None,
        };
        Some(VerifyKey { kid: self.kid.map(Into::into), algorithms, key })
    }

    fn key_and_algorithms(&self) -> Option<(DecodingKey, &'static [Algorithm])> {
        /// The moduli that the cryptographic library verifies with, in bytes: 2048 to 8192 bits.
        const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
        let octets = |member: &Option<String>| URL_SAFE_NO_PAD.decode(member.as_ref()?).ok();
        Some(match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (octets(&self.n)?, octets(&self.e)?);
                if !MODULUS.contains(&n.len()) {
                    return None;
                }
                (DecodingKey::from_rsa_raw_components(&n, &e), RSA)
            }
            ("EC", Some("P-256")) => (point(octets(&self.x)?, octets(&self.y)?, 32)?, ES256),
            ("EC", Some("P-384")) => (point(octets(&self.x)?, octets(&self.y)?, 48)?, ES384),
            ("OKP", Some("Ed25519")) => {
                let x = octets(&self.x).filter(|x| x.len() == 32)?;
                (DecodingKey::from_ed_der(&x), EDDSA)
            }
            _ => return None,
        })
    }
}

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const ES256: &[Algorithm] = &[Algorithm::ES256];
const ES384: &[Algorithm] = &[Algorithm::ES384];
const EDDSA: &[Algorithm] = &[Algorithm::EdDSA];

/// An EC public key in the uncompressed form of SEC 1, section 2.3.3; each coordinate has just `octets` octets.
fn point(x: Vec<u8>, y: Vec<u8>, octets: usize) -> Option<DecodingKey> {
    let fits = x.len() == octets && y.len() == octets;
    fits.then(|| DecodingKey::from_ec_der(&[vec![4], x, y].concat()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::fixtures::{Signer, b64, key_set};
    use super::*;

    fn algorithms(jwk: &Value) -> Option<Vec<Algorithm>> {
        let set = KeySet::parse(&key_set(std::slice::from_ref(jwk)), 1).unwrap();
        set.keys.first().map(|key| key.algorithms.clone())
    }

    #[test]
    fn the_type_of_a_key_decides_its_algorithms() {
        let [rsa, _] = Signer::rs256_and_ps256();
        for (jwk, expected) in [
            (rsa.jwk_named("k", &[]), RSA),
            (rsa.jwk_named("k", &[("alg", json!("RS256"))]), &[Algorithm::RS256]),
            (Signer::es256().jwk, ES256),
            (Signer::es384().jwk, ES384),
            (Signer::eddsa().jwk, EDDSA),
            (Signer::eddsa().jwk_named("k", &[("alg", json!("Ed25519"))]), EDDSA),
            (Signer::es256().jwk_named("k", &[("use", json!("sig")), ("key_ops", json!(["verify"]))]), ES256),
        ] {
            assert_eq!(algorithms(&jwk).as_deref(), Some(expected), "{jwk}");
        }
    }

    #[test]
    fn what_cannot_verify_is_passed_over() {
        let ec = |members: &[(&str, Value)]| Signer::es256().jwk_named("k", members);
        let [rsa, _] = Signer::rs256_and_ps256();
        for jwk in [
            json!({"kty": "oct", "k": b64("secret"), "alg": "HS256"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}),
            json!({"kty": "OKP", "crv": "X25519", "x": b64([1; 32])}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": b64([1; 31])}),
            json!({"kid": "no type"}),
            json!("no object"),
            json!(null),
            ec(&[("alg", json!("RS256"))]),
            ec(&[("alg", json!("HS256"))]),
            ec(&[("alg", json!("ES384"))]),
            ec(&[("alg", json!("ECDH-ES"))]),
            ec(&[("use", json!("enc"))]),
            ec(&[("key_ops", json!(["sign"]))]),
            ec(&[("crv", json!("P-521"))]),
            ec(&[("crv", json!("secp256k1"))]),
            ec(&[("x", json!(b64([1; 31])))]),
            ec(&[("x", json!("not base64!"))]),
            ec(&[("kid", json!(7))]),
            rsa.jwk_named("k", &[("n", json!(b64([0xff; 128])))]),
            rsa.jwk_named("k", &[("n", json!(b64(vec![0xff; 1025])))]),
        ] {
            assert_eq!(algorithms(&jwk), None, "{jwk}");
        }
        let set = key_set(&[json!({"kty": "oct", "k": "AAAA"}), ec(&[])]);
        assert_eq!(KeySet::parse(&set, 1).unwrap().len(), 1, "the rest counts");
    }

    #[test]
    fn a_key_is_found_by_name_or_by_being_the_only_one() {
        let key = |kid| Signer::es256().jwk_named(kid, &[]);
        let set = |keys: &[Value]| KeySet::parse(&key_set(keys), 1).unwrap();
        let found = |set: &KeySet, kid| match set.find(kid) {
            Lookup::Found(keys) => Some(keys.len()),
            Lookup::Unknown => Some(0),
            Lookup::Unnamed => None,
        };
        let one = set(&[key("a")]);
        assert_eq!(found(&one, None), Some(1));
        assert_eq!(found(&one, Some("a")), Some(1));
        assert_eq!(found(&one, Some("A")), Some(0));
        let three = set(&[key("a"), key("b"), key("a")]);
        assert_eq!(found(&three, None), None);
        assert_eq!(found(&three, Some("a")), Some(2));
        assert_eq!(found(&three, Some("")), Some(0));
        assert_eq!(found(&set(&[]), None), None);
        let nameless = set(&[Signer::es256().jwk]);
        assert_eq!(found(&nameless, None), Some(1));
        assert_eq!(found(&nameless, Some("a")), Some(0));
    }
}
