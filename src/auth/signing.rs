//! The gateway's own signing keys and the tokens that are signed with them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::claims::{since_epoch, subject_problem};
use super::jws::VerifyKey;
use super::{BuildError, sha256};

/// `typ` of our tokens for services. Tokens for other purposes carry another one and open no service.
pub(super) const TYPE: &str = "JWT";

/// A P-256 private key that signs with ES256.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn generate() -> Result<Self, BuildError> {
        let failed = || BuildError::new("signing_key", "the cryptographic library made no key");
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| failed())?;
        Self::new(pair).ok_or_else(failed)
    }

    /// Reads the PEM of a P-256 private key, PKCS#8 or SEC 1.
    ///
    /// # Errors
    /// It is not one.
    pub fn from_pem(pem: &SecretString) -> Result<Self, BuildError> {
        let refused = || {
            BuildError::new(
                "signing_key",
                "needs the PEM of a P-256 private key (PKCS#8 or SEC 1); \
                 'openssl ecparam -name prime256v1 -genkey -noout' makes one",
            )
        };
        let der = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes()).map_err(|_| refused())?;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_der(algorithm, der.secret_der()).map_err(|_| refused())?;
        Self::new(pair).ok_or_else(refused)
    }

    /// Reads a P-256 private key in PKCS#8 (RFC 5208), as [`Self::to_pkcs8`] gives it.
    ///
    /// # Errors
    /// It is not one.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, BuildError> {
        let refused = || BuildError::new("signing_key", "is no P-256 private key in PKCS#8");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| refused())?;
        Self::new(pair).ok_or_else(refused)
    }

    fn new(pair: EcdsaKeyPair) -> Option<Self> {
        let pkcs8 = Zeroizing::new(pair.to_pkcs8v1().ok()?.as_ref().to_vec());
        let public = PublicKey::from_point(pair.public_key().as_ref()).ok()?;
        Some(Self { pair, pkcs8, public })
    }

    /// The private key in PKCS#8 (RFC 5208), to be kept sealed.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.clone()
    }

    /// What verifies its signatures.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The compact JWS of `header` and `claims` (RFC 7515, section 3.1).
    fn sign(&self, header: &Value, claims: &impl Serialize) -> Option<String> {
        let claims = serde_json::to_vec(claims).ok()?;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let message = format!("{}.{}", encode(header.to_string().as_bytes()), encode(&claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).ok()?;
        Some(format!("{message}.{}", encode(signature.as_ref())))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.kid())
    }
}

/// The public half of a [`SigningKey`]. Clones share it.
#[derive(Clone)]
pub struct PublicKey(Arc<Public>);

struct Public {
    kid: Arc<str>,
    /// The uncompressed point (SEC 1, section 2.3.3): 4, x, y.
    point: [u8; POINT],
    verify: VerifyKey,
}

/// Bytes of an uncompressed point of P-256.
const POINT: usize = 65;

impl PublicKey {
    /// A key given as an uncompressed point (SEC 1, section 2.3.3): 4, x, y, 65 bytes in all.
    ///
    /// # Errors
    /// It is no point of P-256.
    pub fn from_point(point: &[u8]) -> Result<Self, BuildError> {
        let refused = || BuildError::new("public_key", "is no uncompressed point of P-256 (65 bytes)");
        let fixed: [u8; POINT] = point.try_into().map_err(|_| refused())?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).parse().map_err(|_| refused())?;
        let kid = thumbprint(&fixed);
        let verify = VerifyKey {
            kid: Some(kid.as_str().into()),
            algorithms: vec![Algorithm::ES256],
            key: DecodingKey::from_ec_der(&fixed),
        };
        Ok(Self(Arc::new(Public { kid: kid.into(), point: fixed, verify })))
    }

    /// Its name in the headers of tokens: the thumbprint of RFC 7638.
    #[must_use]
    pub fn kid(&self) -> &Arc<str> {
        &self.0.kid
    }

    /// The uncompressed point, as [`Self::from_point`] takes it.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.0.point
    }

    /// The key as a member of a JSON Web Key Set (RFC 7517, section 4; RFC 7518, section 6.2.1).
    #[must_use]
    pub fn jwk(&self) -> Value {
        let [x, y] = coordinates(&self.0.point);
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": &*self.0.kid, "use": "sig", "alg": "ES256" })
    }

    pub(super) fn verify_key(&self) -> &VerifyKey {
        &self.0.verify
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.point == other.0.point
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.0.kid)
    }
}

/// What a token is to say.
#[derive(Clone, Copy, Debug)]
pub struct MintRequest<'a> {
    /// `iss`
    pub issuer: &'a str,
    /// `aud`: the name of the one service that the token opens.
    pub audience: &'a str,
    /// `sub`: whom the token stands for; 1 to 255 bytes without control characters.
    pub subject: &'a str,
    /// From `now` to `exp`, in whole seconds.
    pub lifetime: Duration,
    /// `iat` and `nbf`, in whole seconds.
    pub now: SystemTime,
}

/// A signed token and what it says.
#[derive(Debug)]
pub struct Minted {
    /// The token: a credential.
    pub token: SecretString,
    /// `jti`: what the token is revoked by.
    pub id: Box<str>,
    /// `iat`, in seconds since the epoch.
    pub issued: u64,
    /// `exp`, in seconds since the epoch: the first second at which it is refused, leeway apart.
    pub expires: u64,
}

/// Signs a token that lets its subject call one service.
///
/// # Errors
/// The subject is empty, too long or holds control characters, or the cryptographic library failed.
pub fn mint(key: &SigningKey, request: &MintRequest<'_>) -> Result<Minted, MintError> {
    if let Some(problem) = subject_problem(request.subject) {
        return Err(MintError::Subject(problem));
    }
    let header = json!({ "typ": TYPE, "alg": "ES256", "kid": &*key.public.0.kid });
    let issued = since_epoch(request.now).as_secs();
    let expires = issued.saturating_add(request.lifetime.as_secs());
    let id = uuid::Uuid::new_v4().to_string();
    let claims = MintedClaims {
        iss: request.issuer,
        sub: request.subject,
        aud: request.audience,
        iat: issued,
        nbf: issued,
        exp: expires,
        jti: &id,
    };
    let token = key.sign(&header, &claims).ok_or(MintError::Signing)?;
    Ok(Minted { token: token.into(), id: id.into(), issued, expires })
}

/// Why no token was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MintError {
    /// The subject cannot be one, and why.
    Subject(&'static str),
    /// The cryptographic library failed.
    Signing,
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject(problem) => problem,
            Self::Signing => "signing the token failed",
        })
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
    jti: &'a str,
}

/// The RFC 7638 thumbprint of a P-256 public key in its uncompressed form.
fn thumbprint(point: &[u8; POINT]) -> String {
    let [x, y] = coordinates(point);
    let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(sha256(jwk.as_bytes()))
}

fn coordinates(point: &[u8; POINT]) -> [String; 2] {
    let (x, y) = point[1..].split_at(POINT / 2);
    [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};

    use super::super::fixtures::*;
    use super::*;

    /// RFC 7638's rule for EC keys, on the key of RFC 7515, appendix A.3; the expected value was computed apart.
    #[test]
    fn the_kid_is_the_jwk_thumbprint() {
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
        let octets = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
        let key = PublicKey::from_point(&[vec![4], octets(x), octets(y)].concat()).unwrap();
        let kid = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U";
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256"});
        assert_eq!(key.jwk(), jwk);
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
            let key = SigningKey::from_pem(&good.as_str().into()).unwrap();
            assert_eq!(key.public().point(), pair.public_key().as_ref());
        }
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let public = pem("PUBLIC KEY", &OwnKey::new().public);
        for bad in ["", "secret", &p384.serialize_pem(), &ed25519.serialize_pem(), &public] {
            let error = SigningKey::from_pem(&bad.into()).unwrap_err();
            assert!(!error.to_string().contains("secret"));
        }
        assert!(SigningKey::from_pkcs8(&p384.serialize_der()).is_err());
        assert!(SigningKey::from_pkcs8(sec1.as_bytes()).is_err());
    }

    #[test]
    fn a_key_comes_back_from_its_pkcs8_form_and_does_not_show() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(key.public(), again.public());
        assert_ne!(key.public(), SigningKey::generate().unwrap().public());
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.public().kid()));
    }

    #[test]
    fn only_points_of_the_curve_are_public_keys() {
        let point = SigningKey::generate().unwrap().public().point().to_vec();
        let mut off_curve = point.clone();
        off_curve[64] ^= 1;
        let mut compressed = point[..33].to_vec();
        compressed[0] = 2 + (point[64] & 1);
        for bad in [&off_curve[..], &compressed, &point[..64], &[0; 65], &[]] {
            assert!(PublicKey::from_point(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_minted_token_says_what_was_asked_for() {
        let key = OwnKey::new();
        let minted = mint(&key.signing, &key.request("ann", NOW)).unwrap();
        let again = mint(&key.signing, &key.request("ann", NOW)).unwrap();
        assert_ne!(minted.id, again.id);
        assert_eq!((minted.issued, minted.expires), (NOW, NOW + 3600));
        let token = minted.token.expose_secret();
        let parts: Vec<Value> = token
            .split('.')
            .take(2)
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        let kid = &**key.signing.public().kid();
        assert_eq!(parts[0], json!({"typ": "JWT", "alg": "ES256", "kid": kid}));
        let claims = json!({
            "iss": ISSUER, "sub": "ann", "aud": SERVICE, "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "jti": &*minted.id,
        });
        assert_eq!(parts[1], claims);
        assert!(!format!("{minted:?}").contains(token));
    }

    #[test]
    fn only_subjects_that_a_verifier_takes_are_minted() {
        let key = OwnKey::new();
        for bad in ["", "a\u{7}b", &"x".repeat(256)] {
            let error = mint(&key.signing, &key.request(bad, NOW)).unwrap_err();
            assert!(matches!(error, MintError::Subject(_)), "{bad}");
        }
    }
}
