//! What management tokens and the bootstrap secret look like: `sgm_ID_SECRETCHECK` and `sgb_SECRETCHECK`, where ID has
//! 12 characters, SECRET is 256 random bits in 43 digits of base 62 and CHECK is the CRC-32 of all before it in 6.
//!
//! The fixed beginning and the check let scanners find leaked ones without asking anybody, and spare the store a look-up
//! for what cannot be one. They protect nothing: the secret does.

use std::fmt;

use aws_lc_rs::{digest, rand};
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::management::{Cause, Refusal};

/// What management tokens begin with.
const TOKEN: &str = "sgm_";

/// What bootstrap secrets begin with.
const BOOTSTRAP: &str = "sgb_";

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const ID: usize = 12;
const SECRET: usize = 43;
const CHECK: usize = 6;

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
    let id = id()?;
    mint(&format!("{TOKEN}{id}_"), id)
}

/// Makes a bootstrap secret.
pub(super) fn bootstrap() -> Result<Minted, Refusal> {
    mint(BOOTSTRAP, String::new())
}

/// The id in what has the form of a management token.
pub(super) fn id_of(text: &SecretString) -> Option<&str> {
    let (id, rest) = text.expose_secret().strip_prefix(TOKEN)?.split_at_checked(ID)?;
    rest.strip_prefix('_').filter(|rest| rest.len() == SECRET + CHECK)?;
    let (checked, check) = text.expose_secret().split_at_checked(TOKEN.len() + ID + 1 + SECRET)?;
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric();
    (id.bytes().all(is_digit) && check == check_of(checked)).then_some(id)
}

impl Digest {
    /// The digest of a credential.
    pub(in crate::management::operations) fn of(text: &SecretString) -> Self {
        let mut bytes = [0; 32];
        let digest = digest::digest(&digest::SHA256, text.expose_secret().as_bytes());
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// A digest as it is kept; hexadecimal.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 64 || !hex.is_ascii() {
            return None;
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Whether both are there and the same. Takes the same time whether they are or not.
    pub(super) fn is(self, kept: Option<Self>) -> bool {
        let there = Choice::from(u8::from(kept.is_some()));
        (self.0.ct_eq(&kept.unwrap_or(Self([0; 32])).0) & there).into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn mint(beginning: &str, id: String) -> Result<Minted, Refusal> {
    let mut random = Zeroizing::new([0; 32]);
    fill(&mut *random)?;
    // With all its capacity at once: a buffer that grows leaves parts of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(beginning.len() + SECRET + CHECK));
    text.push_str(beginning);
    push_base62(&mut text, &mut *random, SECRET);
    let check = check_of(&text);
    text.push_str(&check);
    let text = SecretString::from(text.as_str());
    Ok(Minted { id, digest: Digest::of(&text), text })
}

fn id() -> Result<String, Refusal> {
    let mut id = String::with_capacity(ID);
    while id.len() < ID {
        let mut byte = [0];
        fill(&mut byte)?;
        // The largest multiple of 62 in a byte: every digit is as likely as any other.
        if byte[0] < 248 {
            id.push(char::from(DIGITS[usize::from(byte[0] % 62)]));
        }
    }
    Ok(id)
}

fn fill(bytes: &mut [u8]) -> Result<(), Refusal> {
    rand::fill(bytes).map_err(|_| {
        tracing::error!("the system gives no random numbers");
        Refusal::new(Cause::Internal, "no secret could be made; nothing was changed")
    })
}

/// Appends the big-endian `number` in `width` digits; leaves nothing of it.
fn push_base62(text: &mut String, number: &mut [u8], width: usize) {
    let at = text.len();
    let mut digits = Zeroizing::new(Vec::with_capacity(width));
    for _ in 0..width {
        let mut rest = 0_u32;
        for byte in number.iter_mut() {
            let part = rest << 8 | u32::from(*byte);
            // The quotient of a number under 62 * 256 by 62 fits in a byte.
            *byte = (part / 62).to_le_bytes()[0];
            rest = part % 62;
        }
        digits.push(DIGITS[rest as usize]);
    }
    text.extend(digits.iter().rev().map(|digit| char::from(*digit)));
    debug_assert_eq!(text.len() - at, width);
}

/// The check of all before it.
pub(super) fn check_of(text: &str) -> String {
    let mut check = String::with_capacity(CHECK);
    push_base62(&mut check, &mut crc32fast::hash(text.as_bytes()).to_be_bytes(), CHECK);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_base_62() {
        let written = |number: u64, width| {
            let mut text = String::new();
            push_base62(&mut text, &mut number.to_be_bytes(), width);
            text
        };
        assert_eq!(written(0, 3), "000");
        assert_eq!(written(61, 3), "00z");
        assert_eq!(written(62 * 62 + 10, 3), "10A");
        let mut largest = String::new();
        push_base62(&mut largest, &mut [255; 32], SECRET);
        // 2^256 - 1, worked out elsewhere.
        assert_eq!(largest, "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1");
    }

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
        assert!(digest.is(Digest::parse(&digest.to_string())));
        assert!(!digest.is(None) && !digest.is(Some(Digest::of(&"Secret".into()))));
        assert!(!Digest([0; 32]).is(None), "nothing kept is no digest of zeros");
        for bad in ["", "00", &"g".repeat(64), &"0".repeat(63), &"\u{e9}".repeat(32)] {
            assert!(Digest::parse(bad).is_none(), "{bad}");
        }
    }
}
