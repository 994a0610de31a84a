//! Keys of the gateway itself, for what it keeps outside the store: random bytes, sealed and kept like any other secret, so
//! that another wrapping key changes nothing about them and a copy of the store has them.

use secrecy::{ExposeSecret as _, SecretBox};

use super::Sealer;
use super::cipher::random;
use crate::store::wrapping::KEY_BYTES;
use crate::store::{Batch, Expect, Store, StoreError, Table};

/// Stands where secrets of workspaces have the workspace's name; no workspace can be called so.
const GATEWAY: &str = "(gateway)";

/// The key called `name`, which is its row in [`Table::Meta`]; `None`: there is none.
///
/// # Errors
/// The store cannot be read, or what is there does not open.
pub fn own_key(
    store: &dyn Store,
    sealer: &dyn Sealer,
    name: &str,
) -> Result<Option<SecretBox<[u8; KEY_BYTES]>>, StoreError> {
    let Some(row) = store.get(Table::Meta, name.as_bytes())? else { return Ok(None) };
    let opened = sealer.open(GATEWAY, name, &row.value)?;
    let mut key = Box::new([0; KEY_BYTES]);
    if opened.expose_secret().len() != KEY_BYTES {
        return Err(StoreError::Corrupt(format!("{name} is no key")));
    }
    key.copy_from_slice(opened.expose_secret());
    Ok(Some(SecretBox::new(key)))
}

/// The key called `name`, made if there is none.
///
/// # Errors
/// As of [`own_key`]; it cannot be made or kept.
pub fn own_key_or_new(
    store: &dyn Store,
    sealer: &dyn Sealer,
    name: &str,
) -> Result<SecretBox<[u8; KEY_BYTES]>, StoreError> {
    if own_key(store, sealer, name)?.is_none() {
        let sealed = sealer.seal(GATEWAY, name, random::<KEY_BYTES>()?.as_slice())?;
        let mut batch = Batch::default();
        batch.expect(Table::Meta, name, Expect::Absent);
        batch.put(Table::Meta, name, sealed);
        match store.commit(batch) {
            // Somebody else was faster: theirs counts.
            Ok(_) | Err(StoreError::Conflict(..)) => {}
            Err(error) => return Err(error),
        }
    }
    own_key(store, sealer, name)?
        .ok_or_else(|| StoreError::Io(format!("{name} is gone as soon as it is made")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{EnvelopeSealer, rekey};
    use super::*;
    use crate::store::MemoryStore;
    use crate::store::wrapping::WrappingKey;

    #[test]
    fn a_key_is_made_once_found_again_and_outlives_another_wrapping_key() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let (old, new) = (WrappingKey::generate().unwrap(), WrappingKey::generate().unwrap());
        let sealer = EnvelopeSealer::new(Arc::clone(&store), &old).unwrap();
        assert!(own_key(&*store, &sealer, "spools").unwrap().is_none());
        let made = own_key_or_new(&*store, &sealer, "spools").unwrap();
        assert_ne!(made.expose_secret(), &[0; KEY_BYTES]);
        assert_eq!(own_key_or_new(&*store, &sealer, "spools").unwrap().expose_secret(), made.expose_secret());
        rekey(&*store, &old, &new).unwrap();
        let sealer = EnvelopeSealer::new(Arc::clone(&store), &new).unwrap();
        let found = own_key(&*store, &sealer, "spools").unwrap().unwrap();
        assert_eq!(found.expose_secret(), made.expose_secret());
        assert_ne!(own_key_or_new(&*store, &sealer, "others").unwrap().expose_secret(), made.expose_secret());
        let row = store.get(Table::Meta, b"spools").unwrap().unwrap().value;
        assert!(!row.windows(KEY_BYTES).any(|bytes| bytes == made.expose_secret()), "sealed");
    }
}
