//! What management tokens and the bootstrap secret look like: `sgm_ID_SECRETCHECK` and `sgb_SECRETCHECK`, where ID has
//! 12 characters, SECRET is 256 random bits in 43 digits of base 62 and CHECK is the CRC-32 of all before it in 6.
//!
//! The fixed beginning and the check let scanners find leaked ones without asking anybody, and spare the store a look-up
//! for what cannot be one. They protect nothing: the secret does.

use aws_lc_rs::digest;
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use crate::management::Refusal;
use crate::management::operations::{generate, hex};

/// What management tokens begin with.
const TOKEN: &str = "sgm_";

/// What bootstrap secrets begin with.
const BOOTSTRAP: &str = "sgb_";

/// Length of a token's id.
const ID: usize = 12;

/// SHA-256 of a credential, all that is kept of it.
#[derive(Clone, Copy)]
pub(in crate::management::operations) struct Digest([u8; 32]);

/// A credential just made.
pub(super) struct Minted {
    /// Names it; empty for a bootstrap secret.
    pub(super) id: String,
    /// The whole of it.
    pub(super) text: SecretString,
    /// What is kept.
    pub(super) digest: Digest,
}

/// Makes a management token.
pub(super) fn token() -> Result<Minted, Refusal> {
    let id = generate::name(ID)?;
    let text = generate::secret(&format!("{TOKEN}{id}_"))?;
    Ok(Minted { id, digest: Digest::of(&text), text })
}

/// Makes a bootstrap secret.
pub(super) fn bootstrap() -> Result<Minted, Refusal> {
    let text = generate::secret(BOOTSTRAP)?;
    Ok(Minted { id: String::new(), digest: Digest::of(&text), text })
}

/// The id in what has the form of a management token.
pub(super) fn id_of(text: &SecretString) -> Option<&str> {
    let text = text.expose_secret();
    let beginning = text.get(..TOKEN.len() + ID + 1)?;
    let id = beginning.strip_prefix(TOKEN)?.strip_suffix('_')?;
    (id.bytes().all(|byte| byte.is_ascii_alphanumeric()) && generate::has_form(text, beginning)).then_some(id)
}

impl Digest {
    /// The digest of a credential.
    pub(in crate::management::operations) fn of(text: &SecretString) -> Self {
        let mut bytes = [0; 32];
        let digest = digest::digest(&digest::SHA256, text.expose_secret().as_bytes());
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// A digest as it is kept.
    pub(super) fn parse(digits: &str) -> Option<Self> {
        hex::decode(digits).map(Self)
    }

    /// As it is kept: hexadecimal.
    pub(super) fn to_hex(self) -> String {
        hex::encode(&self.0)
    }

    /// Whether both are there and the same. Takes the same time whether they are or not.
    pub(super) fn is(self, kept: Option<Self>) -> bool {
        let there = Choice::from(u8::from(kept.is_some()));
        (self.0.ct_eq(&kept.unwrap_or(Self([0; 32])).0) & there).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_their_form_and_differ() {
        let (one, other) = (token().unwrap(), token().unwrap());
        let text = one.text.expose_secret();
        assert_eq!((text.len(), &text[..4], &text[16..17]), (66, "sgm_", "_"));
        assert_eq!(id_of(&one.text), Some(one.id.as_str()));
        assert_ne!(one.id, other.id);
        assert_ne!(text[17..], other.text.expose_secret()[17..]);
        let secret = bootstrap().unwrap();
        assert!(secret.text.expose_secret().starts_with("sgb_") && secret.text.expose_secret().len() == 53);
        assert_eq!(id_of(&secret.text), None);
    }

    #[test]
    fn one_wrong_character_is_seen_without_a_look_up() {
        let good = token().unwrap();
        let good = good.text.expose_secret();
        for place in 0..good.len() {
            let mut bad = good.as_bytes().to_vec();
            bad[place] = if bad[place] == b'x' { b'y' } else { b'x' };
            assert_eq!(id_of(&String::from_utf8(bad).unwrap().into()), None, "{place}");
        }
        for bad in ["", "sgm_", &good[..65], &format!("{good}0"), "sgm_\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}_"]
        {
            assert_eq!(id_of(&bad.into()), None, "{bad}");
        }
    }

    #[test]
    fn digests_are_kept_as_hex_and_compared_whole() {
        let digest = Digest::of(&"secret".into());
        assert!(digest.is(Digest::parse(&digest.to_hex())));
        assert!(!digest.is(None) && !digest.is(Some(Digest::of(&"Secret".into()))));
        assert!(!Digest([0; 32]).is(None), "nothing kept is no digest of zeros");
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(63), &"\u{e9}".repeat(32)] {
            assert!(Digest::parse(bad).is_none(), "{bad}");
        }
    }
}
