//! Static keys: two per service, both valid, known by their digests only.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use super::claims::since_epoch;
use super::grant::{Admitted, Grant, Proof};
use super::settings::KeySettings;
use super::{BuildError, Digest, sha256};
use crate::error::{Error, Kind};
use crate::telemetry::record::Principal;

/// Longest key, in bytes; with its scheme it still fits the longest header that is looked at.
const MAX_LEN: usize = 8 * 1024;

/// The SHA-256 of a key, and how long the key opens. Two are equal if they open the same.
#[derive(Clone, Copy)]
pub struct KeyDigest {
    digest: Digest,
    not_after: Option<SystemTime>,
    made: Option<SystemTime>,
}

/// What is known of a key beside what opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLife {
    /// When it was made; `None`: its source does not say.
    pub made: Option<SystemTime>,
    /// From then on it is refused; `None`: never.
    pub not_after: Option<SystemTime>,
    /// When it last let somebody in, to the second; `None`: not since the process started.
    pub last_use: Option<SystemTime>,
}

impl KeyDigest {
    /// The digest of a key that does not expire.
    ///
    /// # Errors
    /// The key is empty, longer than 8192 bytes, or holds what a header cannot carry.
    pub fn of(key: &SecretString) -> Result<Self, BuildError> {
        let key = key.expose_secret().as_bytes();
        if key.is_empty() || key.len() > MAX_LEN {
            return Err(BuildError::new("keys", "a key has 1 to 8192 bytes"));
        }
        if !key.iter().all(u8::is_ascii_graphic) {
            return Err(BuildError::new(
                "keys",
                "a key holds visible ASCII characters only (no blanks, no line ends), since it travels in a header",
            ));
        }
        Ok(Self { digest: sha256(key), not_after: None, made: None })
    }

    /// A key known by the SHA-256 of its bytes. From `not_after` on it is refused as expired; `None`: never.
    #[must_use]
    pub const fn from_parts(digest: [u8; 32], not_after: Option<SystemTime>) -> Self {
        Self { digest, not_after, made: None }
    }

    /// The same, with the time at which the key was made.
    #[must_use]
    pub const fn made_at(self, made: SystemTime) -> Self {
        Self { made: Some(made), ..self }
    }

    /// The SHA-256 of the key's bytes, as [`Self::from_parts`] takes it.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        (self.digest, self.not_after) == (other.digest, other.not_after)
    }
}

impl Eq for KeyDigest {}

/// Without the digest: those of weak keys are worth guessing at.
impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyDigest").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// When a key last let somebody in, to the second. Goes with the digest from snapshot to snapshot; clones share it.
#[derive(Clone, Debug, Default)]
struct KeyUse(Arc<AtomicU64>);

impl KeyUse {
    /// `None`: not since the process started.
    fn last(&self) -> Option<SystemTime> {
        match self.0.load(Relaxed) {
            0 => None,
            seconds => Some(UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    /// All workers share the place: it is written once a second and only read in between.
    fn note(&self, now: SystemTime) {
        let second = since_epoch(now).as_secs();
        if self.0.load(Relaxed) != second {
            self.0.store(second, Relaxed);
        }
    }
}

/// A service's keys. Which key was wrong, or how nearly it was right, shows in neither answer nor time.
pub struct KeyPair {
    primary: Slot,
    secondary: Option<Slot>,
}

struct Slot {
    key: KeyDigest,
    used: KeyUse,
}

impl KeyPair {
    /// The last use of a key that was in `before` goes on.
    pub(super) fn new(settings: &KeySettings, before: Option<&Self>) -> Self {
        let slot = |key: KeyDigest| {
            let known = before.and_then(|before| before.slots().find(|slot| slot.key.digest == key.digest));
            Slot { key, used: known.map(|slot| slot.used.clone()).unwrap_or_default() }
        };
        Self { primary: slot(settings.primary), secondary: settings.secondary.map(slot) }
    }

    /// When each key last let somebody in: primary, secondary.
    #[must_use]
    pub fn last_use(&self) -> [Option<SystemTime>; 2] {
        [self.primary.used.last(), self.secondary.as_ref().and_then(|slot| slot.used.last())]
    }

    /// The lives of the keys by their ids: primary, then secondary if there is one.
    pub fn lives(&self) -> impl Iterator<Item = (&'static str, KeyLife)> {
        ["primary", "secondary"].into_iter().zip(self.slots()).map(|(id, slot)| {
            let KeyDigest { made, not_after, .. } = slot.key;
            (id, KeyLife { made, not_after, last_use: slot.used.last() })
        })
    }

    pub(super) fn verify(&self, key: &[u8], now: SystemTime) -> Result<Admitted, Error> {
        let digest = sha256(key);
        let secondary = self.secondary.as_ref();
        let has_secondary = Choice::from(u8::from(secondary.is_some()));
        let secondary_digest = secondary.map(|slot| slot.key.digest).unwrap_or_default();
        // Both comparisons always, so that the time does not tell which key was used.
        let is_primary = digest.ct_eq(&self.primary.key.digest);
        let is_secondary = digest.ct_eq(&secondary_digest) & has_secondary;
        let principal = match (bool::from(is_primary), bool::from(is_secondary), secondary) {
            (true, _, _) => self.primary.admit("primary", now)?,
            (false, true, Some(slot)) => slot.admit("secondary", now)?,
            _ => {
                return Err(Error::new(Kind::AuthInvalid, "the key is not one of this service's keys"));
            }
        };
        Ok(Admitted { principal, grant: Grant(Proof::Key(digest)) })
    }

    /// Whether the key with this digest opens, at the time `now`.
    pub(super) fn holds(&self, digest: &Digest, now: SystemTime) -> bool {
        self.slots().any(|slot| slot.key.digest == *digest && !slot.is_over(now))
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        std::iter::once(&self.primary).chain(&self.secondary)
    }
}

impl Slot {
    fn admit(&self, id: &'static str, now: SystemTime) -> Result<Principal, Error> {
        if self.is_over(now) {
            return Err(Error::new(Kind::AuthExpired, "the key has expired"));
        }
        self.used.note(now);
        Ok(Principal::Key(id))
    }

    fn is_over(&self, now: SystemTime) -> bool {
        self.key.not_after.is_some_and(|not_after| now >= not_after)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{NOW, at};
    use super::*;

    fn digest(key: &str) -> KeyDigest {
        KeyDigest::of(&key.into()).unwrap()
    }

    fn settings(primary: &str, secondary: Option<&str>) -> KeySettings {
        KeySettings { primary: digest(primary), secondary: secondary.map(digest) }
    }

    fn pair(primary: &str, secondary: Option<&str>) -> KeyPair {
        KeyPair::new(&settings(primary, secondary), None)
    }

    #[test]
    fn both_keys_open_and_are_told_apart() {
        let keys = pair("first", Some("second"));
        assert_eq!(keys.verify(b"first", at(NOW)).unwrap().principal, Principal::Key("primary"));
        assert_eq!(keys.verify(b"second", at(NOW)).unwrap().principal, Principal::Key("secondary"));
    }

    #[test]
    fn every_wrong_key_gets_the_same_answer() {
        let keys = pair("first", None);
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
            let error = keys.verify(wrong, at(NOW)).err().unwrap();
            assert_eq!(error.kind, Kind::AuthInvalid);
            assert_eq!(error.message, "the key is not one of this service's keys");
            assert_eq!(error.detail, None);
        }
        assert_eq!(keys.last_use(), [None, None], "a wrong key is no use of a right one");
    }

    #[test]
    fn a_key_that_no_header_carries_is_refused() {
        for bad in ["", "two words", "line\n", "\u{e9}", &"a".repeat(8193)] {
            let error = KeyDigest::of(&bad.into()).unwrap_err();
            assert!(!error.to_string().contains("two words"));
        }
    }

    #[test]
    fn a_key_expires_by_itself_and_the_other_one_stays() {
        let secondary = KeyDigest::from_parts(sha256(b"second"), Some(at(NOW)));
        let settings = KeySettings { primary: digest("first"), secondary: Some(secondary) };
        let keys = KeyPair::new(&settings, None);
        assert!(keys.verify(b"second", at(NOW - 1)).is_ok());
        let error = keys.verify(b"second", at(NOW)).err().unwrap();
        assert_eq!(error.kind, Kind::AuthExpired);
        assert!(keys.verify(b"first", at(NOW)).is_ok());
        assert_eq!(keys.last_use(), [Some(at(NOW)), Some(at(NOW - 1))], "a refusal is no use");
    }

    #[test]
    fn the_life_of_a_key_is_told_and_changes_nothing_about_what_it_opens() {
        let dated = digest("one").made_at(at(NOW - 9));
        assert_eq!(dated, digest("one"));
        let ending = KeyDigest::from_parts(sha256(b"two"), Some(at(NOW + 9)));
        let keys = KeyPair::new(&KeySettings { primary: dated, secondary: Some(ending) }, None);
        keys.verify(b"two", at(NOW)).unwrap();
        let first = KeyLife { made: Some(at(NOW - 9)), not_after: None, last_use: None };
        let second = KeyLife { made: None, not_after: Some(at(NOW + 9)), last_use: Some(at(NOW)) };
        assert_eq!(keys.lives().collect::<Vec<_>>(), [("primary", first), ("secondary", second)]);
        assert_eq!(pair("one", None).lives().count(), 1);
    }

    #[test]
    fn the_last_use_goes_with_the_key_and_not_with_the_place() {
        let first = pair("one", Some("two"));
        first.verify(b"one", at(NOW)).unwrap();
        first.verify(b"two", at(NOW + 5)).unwrap();
        let next = KeyPair::new(&settings("two", Some("three")), Some(&first));
        assert_eq!(next.last_use(), [Some(at(NOW + 5)), None]);
        // A call that began under the old snapshot still counts.
        first.verify(b"two", at(NOW + 6)).unwrap();
        assert_eq!(next.last_use(), [Some(at(NOW + 6)), None]);
    }

    #[test]
    fn debug_output_does_not_show_the_digest() {
        assert_eq!(format!("{:?}", digest("first")), "KeyDigest { not_after: None, .. }");
    }
}
