//! Compact JWS (RFC 7515): its three parts, strictly read, and the signature under a key that fixes the algorithm.
//!
//! The signatures are jsonwebtoken's work. Header and claims are read here, since that library takes the time from the
//! system's clock, passes over `crit`, and lets `iss` be a list and `aud` be absent.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::claims::Claims;
use crate::error::{Error, Kind};

/// A public key with the algorithms that it, not the token, allows.
pub(super) struct VerifyKey {
    pub(super) kid: Option<Box<str>>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// A token whose form is right; nothing in it is trusted yet.
pub(super) struct Jws<'a> {
    header: Header,
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// What counts of a JOSE header. Embedded keys and their URLs (`jwk`, `jku`, `x5u`, `x5c`) are not even read.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    b64: Option<IgnoredAny>,
}

impl<'a> Jws<'a> {
    /// Takes `token` apart. Base64url is canonical (no padding, no stray bits), so that a signature covers one spelling only.
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, Error> {
        let malformed = || invalid("the token is not a signed JWT (three base64url parts)");
        let token = std::str::from_utf8(token).map_err(|_| malformed())?;
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
        if payload.contains('.') {
            return Err(malformed());
        }
        let header: Header = part(header).ok_or_else(malformed)?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(invalid("the token asks for JWS extensions (crit or b64); none is supported"));
        }
        Ok(Self { header, message, payload, signature })
    }

    /// `kid` of the header.
    pub(super) fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Whether `typ` is one of `allowed`, or absent where `None` is. A media type is compared without case and without
    /// its `application/` (RFC 7515, section 4.1.9).
    pub(super) fn is_of_type(&self, allowed: &[Option<&str>]) -> bool {
        let typ = self.header.typ.as_deref().map(|typ| match typ.split_at_checked("application/".len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
            _ => typ,
        });
        allowed.iter().any(|allowed| match (allowed, typ) {
            (Some(allowed), Some(typ)) => allowed.eq_ignore_ascii_case(typ),
            (allowed, typ) => allowed.is_none() && typ.is_none(),
        })
    }

    /// The claims, once one of `keys` is found to have signed them.
    pub(super) fn verify(self, keys: &[&VerifyKey]) -> Result<Claims, Error> {
        let wrong_algorithm = || invalid("the token's algorithm (alg) is not the one of the signing key");
        let algorithm = algorithm(&self.header.alg).ok_or_else(wrong_algorithm)?;
        let mut keys = keys.iter().filter(|key| key.algorithms.contains(&algorithm)).peekable();
        keys.peek().ok_or_else(wrong_algorithm)?;
        let signed = keys.any(|key| {
            let message = self.message.as_bytes();
            crypto::verify(self.signature, message, &key.key, algorithm).unwrap_or(false)
        });
        if !signed {
            return Err(invalid("the token's signature does not verify"));
        }
        part(self.payload)
            .ok_or_else(|| invalid("the token's claims are not as RFC 7519, section 4.1 has them"))
    }
}

/// A refusal that tells the caller `reason`.
pub(super) fn invalid(reason: &'static str) -> Error {
    Error::new(Kind::AuthInvalid, reason)
}

/// The algorithm that a header or a JWK names; `None` for all that take no public key.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        // RFC 8037 and its successor's name, RFC 9864.
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// For members that may be absent but not `null`, which serde's `Option` alone would take for absent.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// The JSON object in one part of a token. Serde refuses members named twice; the brace keeps it from reading a list as a struct.
fn part<T: DeserializeOwned>(encoded: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    if json.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(&json).ok()
}
