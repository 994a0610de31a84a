//! Envelope encryption: secrets are sealed under a data key per workspace, data keys under one wrapping key.
//!
//! The face that the management plane uses; where the wrapping key comes from and how data keys are kept is behind it.

mod cipher;
mod envelope;
mod own;
mod rekey;

use secrecy::SecretBox;

use super::{Batch, StoreError};

pub use self::envelope::EnvelopeSealer;
pub(super) use self::envelope::is_sealed;
pub use self::own::{own_key, own_key_or_new};
pub use self::rekey::{rekey, verify};

/// Seals and opens secrets of workspaces.
pub trait Sealer: Send + Sync {
    /// Encrypts `secret` for `workspace`; `place` (table and key of the row) is bound to it, so that a sealed secret is
    /// worth nothing in another row. Makes the workspace's data key at first use.
    ///
    /// # Errors
    /// The data key cannot be made, kept or unwrapped.
    fn seal(&self, workspace: &str, place: &str, secret: &[u8]) -> Result<Vec<u8>, StoreError>;

    /// The secret that was sealed for the same workspace and place.
    ///
    /// # Errors
    /// It was sealed for another place or by another key, or has been changed.
    fn open(&self, workspace: &str, place: &str, sealed: &[u8]) -> Result<SecretBox<Vec<u8>>, StoreError>;

    /// Puts into `batch` that the data key of `workspace` is destroyed: what was sealed with it cannot be read again,
    /// here or in any copy of the store made later. Copies made before still hold the wrapped key.
    fn forget(&self, workspace: &str, batch: &mut Batch);
}

#[cfg(test)]
mod tests;
