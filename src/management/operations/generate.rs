//! New keys: long enough that nobody guesses them, of a form that scanners for leaked secrets recognise.
//!
//! A generated key is `sgk_`, 43 base62 digits that carry 256 random bits, and 6 base62 digits of the CRC-32 of all before
//! (`^sgk_[0-9A-Za-z]{49}$`). The prefix tells a scanner whose it is, the checksum tells it from look-alikes without asking
//! anybody; the same idea as GitHub's tokens.

use aws_lc_rs::rand;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::hex;
use crate::auth::KeyDigest;
use crate::management::{Cause, Refusal};

const PREFIX: &str = "sgk_";
const RANDOM_BYTES: usize = 32;
/// 62^43 > 2^256.
const RANDOM_DIGITS: usize = 43;
/// 62^6 > 2^32.
const CHECK_DIGITS: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Shortest key that somebody may set. A guess costs one call and keys have no lockout, so that anything shorter falls to a
/// patient caller; longer ones would lock out scripts of the Azure SDKs that set keys of their own making. Those who want
/// a strong key let it be generated.
const SHORTEST_SET: usize = 8;

/// A new key.
///
/// # Errors
/// [`Cause::Internal`]: no randomness to be had.
pub(super) fn key() -> Result<SecretString, Refusal> {
    secret(PREFIX)
}

/// A new secret that begins so: 43 digits of randomness and 6 of the check over all before them follow.
///
/// # Errors
/// As [`key`].
pub(super) fn secret(beginning: &str) -> Result<SecretString, Refusal> {
    let mut random = Zeroizing::new([0_u8; RANDOM_BYTES]);
    fill(&mut *random)?;
    // With all its capacity at once: a buffer that grows leaves parts of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(beginning.len() + RANDOM_DIGITS + CHECK_DIGITS));
    text.push_str(beginning);
    push_base62(&mut text, &mut random[..], RANDOM_DIGITS);
    push_check(&mut text);
    Ok(SecretString::from(text.as_str()))
}

/// Whether `text` is what [`secret`] makes of `beginning`, as far as anybody can tell without having seen it made.
pub(super) fn has_form(text: &str, beginning: &str) -> bool {
    let Some((before, check)) = text.split_at_checked(beginning.len() + RANDOM_DIGITS) else { return false };
    let mut again = String::with_capacity(text.len());
    again.push_str(before);
    push_check(&mut again);
    before.starts_with(beginning) && again[before.len()..] == *check
}

/// So many digits by chance, for names that must not collide.
///
/// # Errors
/// As [`key`].
pub(super) fn name(digits: usize) -> Result<String, Refusal> {
    let mut name = String::with_capacity(digits);
    while name.len() < digits {
        let mut byte = [0];
        fill(&mut byte)?;
        // 248 is the largest multiple of 62 in a byte: every digit is as likely as any other.
        if byte[0] < 248 {
            name.push(char::from(DIGITS[usize::from(byte[0] % 62)]));
        }
    }
    Ok(name)
}

/// A new name of a key: `k` and 12 hexadecimal digits.
///
/// # Errors
/// As [`key`].
pub(super) fn key_id() -> Result<String, Refusal> {
    let mut random = [0_u8; 6];
    fill(&mut random)?;
    Ok(format!("k{}", hex::encode(&random)))
}

/// Checks a key that somebody wants to set; `field` is where it stands. Gives its digest.
///
/// # Errors
/// [`Cause::Invalid`]: too short, too long, or not to be carried in a header.
pub(super) fn check_set(field: &str, key: &SecretString) -> Result<KeyDigest, Refusal> {
    let digest = KeyDigest::of(key).map_err(|error| Refusal::invalid(field, error.problem.into_owned()))?;
    let length = key.expose_secret().len();
    if length < SHORTEST_SET {
        let problem = format!(
            "has {length} characters; a key that is set has at least {SHORTEST_SET}, since shorter ones can be guessed; \
             leave it out to have one generated"
        );
        return Err(Refusal::invalid(field, problem));
    }
    Ok(digest)
}

fn fill(bytes: &mut [u8]) -> Result<(), Refusal> {
    rand::fill(bytes).map_err(|_| Refusal::new(Cause::Internal, "the system gives no randomness"))
}

fn push_check(text: &mut String) {
    let mut check = crc32fast::hash(text.as_bytes()).to_be_bytes();
    push_base62(text, &mut check, CHECK_DIGITS);
}

/// Writes the big-endian `number` in base 62, in so many digits; leaves zero behind.
fn push_base62(text: &mut String, number: &mut [u8], digits: usize) {
    let start = text.len();
    for _ in 0..digits {
        let remainder = number.iter_mut().fold(0_u32, |remainder, byte| {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            value % 62
        });
        text.insert(start, char::from(DIGITS[remainder as usize]));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn base62(number: &[u8], digits: usize) -> String {
        let mut text = String::new();
        push_base62(&mut text, &mut number.to_vec(), digits);
        text
    }

    #[test]
    fn numbers_are_written_in_base_62() {
        assert_eq!(base62(&[0], 3), "000");
        assert_eq!(base62(&[61], 1), "z");
        assert_eq!(base62(&[62], 2), "10");
        assert_eq!(base62(&u32::MAX.to_be_bytes(), 6), "4gfFC3");
        // 2^256 - 1 is the largest and needs all 43 digits.
        assert_eq!(base62(&[0xff; 32], 44), "0yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1");
    }

    #[test]
    fn a_key_has_the_form_that_scanners_look_for() {
        let keys: HashSet<String> = (0..100).map(|_| key().unwrap().expose_secret().to_owned()).collect();
        assert_eq!(keys.len(), 100);
        for key in &keys {
            let random_and_check = key.strip_prefix("sgk_").unwrap();
            assert_eq!(random_and_check.len(), 49);
            assert!(random_and_check.bytes().all(|b| b.is_ascii_alphanumeric()), "{key}");
            let (before, check) = key.split_at(key.len() - 6);
            assert_eq!(base62(&crc32fast::hash(before.as_bytes()).to_be_bytes(), 6), check);
        }
    }

    #[test]
    fn names_of_keys_are_new_each_time_and_tell_nothing() {
        let (first, second) = (key_id().unwrap(), key_id().unwrap());
        assert_ne!(first, second);
        assert!(first.len() == 13 && first.starts_with('k'), "{first}");
    }

    #[test]
    fn a_key_that_is_set_must_be_long_enough_and_fit_a_header() {
        for good in ["12345678", &"a".repeat(8192)] {
            assert!(check_set("value", &good.into()).is_ok(), "{good}");
        }
        for bad in ["", "foo", "1234567", "two words", "1234567\n", "\u{fc}berlang", &"a".repeat(8193)] {
            let refusal = check_set("value", &bad.into()).unwrap_err();
            assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some("value")), "{bad}");
            assert!(bad.is_empty() || !refusal.to_string().contains(bad));
        }
        assert!(check_set("value", &"foo".into()).unwrap_err().message.contains("at least 8"));
    }
}
