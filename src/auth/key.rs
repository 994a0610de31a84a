//! Static keys: two per service, both valid, kept as digests only.

use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use super::settings::KeySettings;
use super::{BuildError, Digest, sha256};
use crate::error::{Error, Kind};
use crate::telemetry::record::Principal;

/// Longest key, in bytes; with its scheme it still fits the longest header that is looked at.
const MAX_LEN: usize = 8 * 1024;

/// The SHA-256 digests of a service's keys. Which key was wrong, or how nearly it was right, shows in neither answer nor time.
pub struct KeyPair {
    primary: Digest,
    secondary: Option<Digest>,
}

impl KeyPair {
    pub(super) fn new(settings: &KeySettings) -> Result<Self, BuildError> {
        let secondary = settings.secondary.as_ref();
        Ok(Self {
            primary: digest_of("keys.primary", &settings.primary)?,
            secondary: secondary.map(|key| digest_of("keys.secondary", key)).transpose()?,
        })
    }

    pub(super) fn verify(&self, key: &[u8]) -> Result<Principal, Error> {
        let digest = sha256(key);
        let has_secondary = Choice::from(u8::from(self.secondary.is_some()));
        // Both comparisons always, so that the time does not tell which key was used.
        let primary = digest.ct_eq(&self.primary);
        let secondary = digest.ct_eq(&self.secondary.unwrap_or_default()) & has_secondary;
        if primary.into() {
            Ok(Principal::Key("primary"))
        } else if secondary.into() {
            Ok(Principal::Key("secondary"))
        } else {
            Err(Error::new(Kind::AuthInvalid, "the key is not one of this service's keys"))
        }
    }
}

fn digest_of(field: &'static str, key: &SecretString) -> Result<Digest, BuildError> {
    let key = key.expose_secret().as_bytes();
    if key.is_empty() || key.len() > MAX_LEN {
        return Err(BuildError::new(field, "a key has 1 to 8192 bytes"));
    }
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err(BuildError::new(
            field,
            "a key holds visible ASCII characters only (no blanks, no line ends), since it travels in a header",
        ));
    }
    Ok(sha256(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(primary: &str, secondary: Option<&str>) -> Result<KeyPair, BuildError> {
        KeyPair::new(&KeySettings { primary: primary.into(), secondary: secondary.map(Into::into) })
    }

    #[test]
    fn both_keys_open_and_are_told_apart() {
        let keys = pair("first", Some("second")).unwrap();
        assert_eq!(keys.verify(b"first").unwrap(), Principal::Key("primary"));
        assert_eq!(keys.verify(b"second").unwrap(), Principal::Key("secondary"));
    }

    #[test]
    fn every_wrong_key_gets_the_same_answer() {
        let keys = pair("first", None).unwrap();
        let huge = [b'a'; 16 * 1024];
        for wrong in [
            &b""[..],
            b"firs",
            b"first ",
            b"First",
            b"first\0",
            b"second",
            b"' OR '1'='1",
            b"*",
            b"%00",
            b"\x80",
            b"*1\r\n$4\r\nPING\r\n",
            "f\u{131}rst".as_bytes(),
            &[0; 32],
            &huge,
        ] {
            let error = keys.verify(wrong).unwrap_err();
            assert_eq!(error.kind, Kind::AuthInvalid);
            assert_eq!(error.message, "the key is not one of this service's keys");
            assert_eq!(error.detail, None);
        }
    }

    #[test]
    fn a_key_that_no_header_carries_is_refused_by_name() {
        for bad in ["", "two words", "line\n", "\u{e9}", &"a".repeat(8193)] {
            assert_eq!(pair(bad, None).err().unwrap().field, "keys.primary");
            let error = pair("good", Some(bad)).err().unwrap();
            assert_eq!(error.field, "keys.secondary");
            assert!(!error.to_string().contains("two words"));
        }
    }
}
