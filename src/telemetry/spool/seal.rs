//! Encryption of what waits in a spool: AES-256-GCM, each entry by itself, under a key of the process that wrote it.
//!
//! The gateway has one key for all its spools ([`SpoolKey`]). Every opening of a spool draws 32 random bytes, its salt, and
//! derives a cipher's key from both by HKDF-SHA-256, bound to the exporter's name. The salt stands in the header of each
//! segment that this process writes, and no process writes to a segment of another one.
//!
//! The nonce is the entry's sequence. It is never used twice under one key: within a process sequences only go up, and an
//! entry is encrypted once, when it comes; what is written again, or moved from memory to the disk, is the same ciphertext,
//! and the sequences of an append that broke off in a panic are passed over.
//! Another process has another salt, whatever became of the sequences of the one before. Kind and length of the entry are
//! bound to it; that an entry was left out shows in the sequences, that the last ones were cut off does not.

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use secrecy::{ExposeSecret as _, SecretBox};

use super::entry::EntryKind;
use crate::telemetry::settings::SpoolEncryption;

/// Bytes that encryption adds to an entry: GCM's tag.
pub(super) const TAG: usize = 16;
/// Bytes of a [`Seal`] in a header.
pub(super) const SEAL: usize = 40;

/// The key that the spools of a gateway are encrypted under: 32 random bytes, kept where the gateway keeps its secrets.
#[derive(Clone)]
pub struct SpoolKey {
    bytes: Arc<SecretBox<[u8; Self::BYTES]>>,
    id: [u8; 8],
}

/// What a header says of the key of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    /// Which [`SpoolKey`]; tells nothing else of it.
    key: [u8; 8],
    salt: [u8; 32],
}

/// Encrypts and decrypts the entries of segments with the same seal.
pub(super) struct Cipher {
    seal: Seal,
    key: LessSafeKey,
}

/// What a spool is opened with.
pub(super) struct Keyring<'a> {
    /// Whose spool it is.
    pub exporter: &'a str,
    /// `None`: the gateway has none.
    pub key: Option<&'a SpoolKey>,
    /// Of what comes.
    pub encryption: SpoolEncryption,
}

impl Keyring<'_> {
    /// Encrypts what comes.
    pub(super) fn writing(&self) -> io::Result<Option<Cipher>> {
        match (self.encryption, self.key) {
            (SpoolEncryption::None, _) => Ok(None),
            (SpoolEncryption::Store, Some(key)) => Cipher::fresh(key, self.exporter).map(Some),
            (SpoolEncryption::Store, None) => Err(io::Error::other("there is no key to encrypt it with")),
        }
    }

    /// Decrypts what was written under `seal`, whatever is done with what comes; `None`: its key is not at hand.
    pub(super) fn reading(&self, seal: Seal) -> Option<Cipher> {
        Cipher::of(self.key?, seal, self.exporter)
    }
}

impl SpoolKey {
    /// Its length.
    pub const BYTES: usize = 32;

    /// The key with these bytes.
    ///
    /// # Errors
    /// The cipher cannot be used on this machine.
    pub fn new(bytes: SecretBox<[u8; Self::BYTES]>) -> io::Result<Self> {
        let mut id = [0; 8];
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(bytes.expose_secret());
        let expanded = prk.expand(&[b"scoregate spool key id"], Length(id.len()));
        expanded.and_then(|okm| okm.fill(&mut id)).map_err(|_| unusable())?;
        Ok(Self { bytes: Arc::new(bytes), id })
    }
}

/// Tells keys apart without showing them.
impl PartialEq for SpoolKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl fmt::Debug for SpoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpoolKey(..)")
    }
}

impl Seal {
    pub(super) fn encode(self) -> [u8; SEAL] {
        let mut bytes = [0; SEAL];
        bytes[..8].copy_from_slice(&self.key);
        bytes[8..].copy_from_slice(&self.salt);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (key, salt) = bytes.split_first_chunk()?;
        Some(Self { key: *key, salt: salt.try_into().ok()? })
    }
}

impl Cipher {
    /// For what is written from now on to the spool of `exporter`.
    pub(super) fn fresh(key: &SpoolKey, exporter: &str) -> io::Result<Self> {
        let mut salt = [0; 32];
        rand::fill(&mut salt).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Self::derive(key, Seal { key: key.id, salt }, exporter)
    }

    /// For what was written there under `seal`; `None`: under another key.
    pub(super) fn of(key: &SpoolKey, seal: Seal, exporter: &str) -> Option<Self> {
        Self::derive(key, seal, exporter).ok().filter(|_| seal.key == key.id)
    }

    fn derive(key: &SpoolKey, seal: Seal, exporter: &str) -> io::Result<Self> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &seal.salt);
        let prk = salt.extract(key.bytes.expose_secret());
        let info = [b"scoregate spool\0".as_slice(), exporter.as_bytes()];
        let okm = prk.expand(&info, &AES_256_GCM).map_err(|_| unusable())?;
        Ok(Self { seal, key: LessSafeKey::new(UnboundKey::from(okm)) })
    }

    pub(super) fn seal(&self) -> Seal {
        self.seal
    }

    /// Encrypts `line` in place; returns the tag that goes behind it. `None`: it cannot be done, and `line` is worthless.
    pub(super) fn encrypt(&self, sequence: u64, kind: EntryKind, line: &mut [u8]) -> Option<[u8; TAG]> {
        let aad = Aad::from([kind.code()]);
        let tag = self.key.seal_in_place_separate_tag(nonce(sequence), aad, line).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts a payload, line and tag, in place; returns the length of the line, which is its beginning. `None`: it was
    /// encrypted under another key, for another place, or has been changed.
    pub(super) fn decrypt(&self, sequence: u64, kind: EntryKind, payload: &mut [u8]) -> Option<usize> {
        let aad = Aad::from([kind.code()]);
        self.key.open_in_place(nonce(sequence), aad, payload).ok().map(|line| line.len())
    }
}

fn nonce(sequence: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&sequence.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn unusable() -> io::Error {
    io::Error::other("AES-256-GCM and HKDF cannot be used on this machine")
}

/// How much HKDF is asked for.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn key(byte: u8) -> SpoolKey {
        SpoolKey::new(SecretBox::new(Box::new([byte; SpoolKey::BYTES]))).unwrap()
    }

    #[test]
    fn an_entry_opens_under_its_own_key_in_its_own_place_and_unchanged() {
        let cipher = Cipher::fresh(&key(1), "sink").unwrap();
        let mut payload = b"a line".to_vec();
        let tag = cipher.encrypt(7, EntryKind::Event, &mut payload).unwrap();
        payload.extend_from_slice(&tag);
        assert!(!payload.starts_with(b"a line"));
        let opened = |cipher: &Cipher, sequence, kind, payload: &[u8]| {
            let mut payload = payload.to_vec();
            let length = cipher.decrypt(sequence, kind, &mut payload)?;
            Some(payload[..length].to_vec())
        };
        let again = Cipher::of(&key(1), cipher.seal(), "sink").unwrap();
        assert_eq!(opened(&again, 7, EntryKind::Event, &payload).unwrap(), b"a line");
        assert_eq!(opened(&again, 8, EntryKind::Event, &payload), None, "another place");
        assert_eq!(opened(&again, 7, EntryKind::Record, &payload), None, "another kind");
        let other = Cipher::of(&key(1), cipher.seal(), "other").unwrap();
        assert_eq!(opened(&other, 7, EntryKind::Event, &payload), None, "another exporter");
        let later = Cipher::fresh(&key(1), "sink").unwrap();
        assert_eq!(opened(&later, 7, EntryKind::Event, &payload), None, "another process");
        assert!(Cipher::of(&key(2), cipher.seal(), "sink").is_none());
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_eq!(opened(&again, 7, EntryKind::Event, &changed), None, "byte {at}");
        }
    }

    #[test]
    fn a_key_shows_itself_to_nobody() {
        assert_eq!(format!("{:?}", key(65)), "SpoolKey(..)");
        assert!(key(1) == key(1) && key(1) != key(2));
        assert!(!key(65).id.contains(&65));
    }
}
