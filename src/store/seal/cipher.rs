//! AES-256-GCM with random nonces, and what it is bound to.
//!
//! Sealed is `1, id of the key (8 bytes), nonce (12), ciphertext, tag (16)`; the first byte is the layout. NIST SP 800-38D
//! allows 2^32 messages per key with random 96-bit nonces; a data key seals the few secrets of one workspace.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::store::StoreError;
use crate::store::wrapping::KEY_BYTES;

/// The layout described here.
const LAYOUT: u8 = 1;
const TAG_BYTES: usize = 16;

/// Which data key: random, so that a new key of a workspace is not taken for the old one.
pub(super) type KeyId = [u8; 8];

/// What a ciphertext is bound to. Each part is preceded by its length: no two lists look alike.
pub(super) struct Purpose<'a>(pub &'a [&'a [u8]]);

impl Purpose<'_> {
    fn bytes(&self, id: KeyId) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(&id);
        for part in self.0 {
            bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// A key ready for use. AWS-LC clears its memory when it is dropped.
pub(super) struct Cipher {
    key: RandomizedNonceKey,
    id: KeyId,
}

impl Cipher {
    pub fn new(id: KeyId, key: &[u8; KEY_BYTES]) -> Result<Self, StoreError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key)
            .map_err(|_| StoreError::Key("AES-256-GCM cannot be used on this machine".to_owned()))?;
        Ok(Self { key, id })
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// `plain`, readable with this key for this purpose only.
    pub fn seal(&self, purpose: &Purpose<'_>, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_BYTES));
        body.extend_from_slice(plain);
        let nonce = self.key.seal_in_place_append_tag(Aad::from(purpose.bytes(self.id)), &mut *body);
        let nonce = nonce.map_err(|_| StoreError::Key("a secret cannot be sealed".to_owned()))?;
        Ok([[LAYOUT].as_slice(), self.id.as_slice(), nonce.as_ref().as_slice(), body.as_slice()].concat())
    }

    /// What was sealed with this key for this purpose; `None` if it was not, or has been changed.
    pub fn open(&self, purpose: &Purpose<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (id, nonce, body) = split(sealed)?;
        if id != self.id {
            return None;
        }
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self.key.open_in_place(nonce, Aad::from(purpose.bytes(id)), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

/// With which key this was sealed, if it is of this layout.
pub(super) fn key_id(sealed: &[u8]) -> Option<KeyId> {
    split(sealed).map(|(id, _, _)| id)
}

fn split(sealed: &[u8]) -> Option<(KeyId, [u8; NONCE_LEN], &[u8])> {
    let (LAYOUT, rest) = sealed.split_first().map(|(layout, rest)| (*layout, rest))? else { return None };
    let (id, rest) = rest.split_first_chunk()?;
    let (nonce, body) = rest.split_first_chunk()?;
    (body.len() >= TAG_BYTES).then_some((*id, *nonce, body))
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, StoreError> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::fill(bytes.as_mut_slice())
        .map_err(|_| StoreError::Key("the system gives no random bytes".to_owned()))?;
    Ok(bytes)
}
