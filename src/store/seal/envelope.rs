//! Data keys in the store's own table, each wrapped, and secrets sealed with them.
//!
//! Beside the data keys is one row that the wrapping key alone opens. It tells a wrong key from a damaged store, and every
//! new data key rewrites it: so no data key is wrapped by a key that another process has replaced meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use secrecy::SecretBox;
use zeroize::Zeroizing;

use super::Sealer;
use super::cipher::{Cipher, KeyId, Purpose, key_id, random};
use crate::store::wrapping::{KEY_BYTES, WrappingKey};
use crate::store::{Batch, Expect, Order, Range, Row, Store, StoreError, Table};

/// The row that the wrapping key opens.
pub(super) const CHECK_ROW: &[u8] = b"wrapping-key";
/// In front of a workspace's name: the row of its data key.
pub(super) const DATA_KEYS: &str = "data-key/";
/// What the row of the wrapping key says.
const CHECK: &[u8] = b"scoregate";
/// There is one wrapping key at a time.
const NO_ID: [u8; 8] = [0; 8];

/// How often a data key is tried to be made; each time somebody else has made one.
const MOST_ATTEMPTS: usize = 64;

/// Seals with a data key per workspace. Keeps the unwrapped keys in memory.
pub struct EnvelopeSealer {
    store: Arc<dyn Store>,
    wrapping: Wrapping,
    data_keys: RwLock<HashMap<String, Arc<Cipher>>>,
}

impl EnvelopeSealer {
    /// A sealer for `store` under `key`; a store without a wrapping key takes this one.
    ///
    /// # Errors
    /// [`StoreError::Key`] if it is not the key that the store was made with.
    pub fn new(store: Arc<dyn Store>, key: &WrappingKey) -> Result<Self, StoreError> {
        let wrapping = Wrapping::new(key)?;
        if store.get(Table::Meta, CHECK_ROW)?.is_none() {
            introduce(&*store, &wrapping)?;
        }
        wrapping.verify(&*store)?;
        Ok(Self { store, wrapping, data_keys: RwLock::default() })
    }

    /// The data key that the store has for `workspace` now.
    pub(super) fn current(&self, workspace: &str) -> Result<Option<Arc<Cipher>>, StoreError> {
        let row = self.store.get(Table::Meta, data_key_row(workspace).as_bytes())?;
        let mut data_keys = self.data_keys.write().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = row else {
            data_keys.remove(workspace);
            return Ok(None);
        };
        let id = split_row(&row.value).map(|(id, _)| id);
        if let Some(cached) = data_keys.get(workspace).filter(|cached| Some(cached.id()) == id) {
            return Ok(Some(cached.clone()));
        }
        let Some((id, key)) = self.wrapping.unwrap(workspace, &row.value) else {
            self.wrapping.verify(&*self.store)?;
            return Err(StoreError::Corrupt(format!("the data key of workspace {workspace} does not open")));
        };
        let data_key = Arc::new(Cipher::new(id, &key)?);
        data_keys.insert(workspace.to_owned(), data_key.clone());
        Ok(Some(data_key))
    }

    /// The data key of `workspace`, made if there is none.
    fn current_or_new(&self, workspace: &str) -> Result<Arc<Cipher>, StoreError> {
        for _ in 0..MOST_ATTEMPTS {
            if let Some(data_key) = self.current(workspace)? {
                return Ok(data_key);
            }
            let check = self.wrapping.verify(&*self.store)?;
            let row = data_key_row(workspace);
            let mut batch = Batch::default();
            batch.expect(Table::Meta, CHECK_ROW, Expect::Version(check.version));
            batch.expect(Table::Meta, row.as_str(), Expect::Absent);
            batch.put(Table::Meta, CHECK_ROW, check.value);
            batch.put(Table::Meta, row, self.wrapping.wrap_new(workspace)?);
            match self.store.commit(batch) {
                Ok(_) | Err(StoreError::Conflict(..)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Io(format!(
            "the data key of workspace {workspace} is changed by others all the time"
        )))
    }

    fn cached(&self, workspace: &str) -> Option<Arc<Cipher>> {
        self.data_keys.read().unwrap_or_else(PoisonError::into_inner).get(workspace).cloned()
    }
}

impl Sealer for EnvelopeSealer {
    /// Asks the store which data key is the current one, each time: a key that has been destroyed meanwhile would seal
    /// what nobody can open. Write the result in a batch that expects the workspace as it was read.
    fn seal(&self, workspace: &str, place: &str, secret: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.current_or_new(workspace)?.seal(&Purpose(&secret_in(workspace, place)), secret)
    }

    fn open(&self, workspace: &str, place: &str, sealed: &[u8]) -> Result<SecretBox<Vec<u8>>, StoreError> {
        let corrupt = |why: &str| {
            StoreError::Corrupt(format!(
                "the secret at {place} of workspace {workspace} does not open: {why}"
            ))
        };
        let id = key_id(sealed).ok_or_else(|| corrupt("it is of no known layout"))?;
        let cached = self.cached(workspace).filter(|cached| cached.id() == id);
        let data_key = match cached {
            Some(cached) => cached,
            None => {
                let current = self.current(workspace)?.filter(|current| current.id() == id);
                current.ok_or_else(|| corrupt("the workspace has no such data key"))?
            }
        };
        let mut plain = data_key
            .open(&Purpose(&secret_in(workspace, place)), sealed)
            .ok_or_else(|| corrupt("it was sealed for another place, or has been changed"))?;
        Ok(SecretBox::new(Box::new(std::mem::take(&mut *plain))))
    }

    fn forget(&self, workspace: &str, batch: &mut Batch) {
        self.data_keys.write().unwrap_or_else(PoisonError::into_inner).remove(workspace);
        batch.remove(Table::Meta, data_key_row(workspace));
    }
}

/// Whether `store` has a wrapping key.
pub(in crate::store) fn is_sealed(store: &dyn Store) -> Result<bool, StoreError> {
    let data_keys = Range {
        table: Table::Meta,
        prefix: DATA_KEYS.as_bytes(),
        after: None,
        limit: 1,
        order: Order::Forwards,
    };
    Ok(store.get(Table::Meta, CHECK_ROW)?.is_some() || !store.scan(&data_keys)?.is_empty())
}

/// Gives a store that has no wrapping key this one.
fn introduce(store: &dyn Store, wrapping: &Wrapping) -> Result<(), StoreError> {
    if is_sealed(store)? {
        let found = "it has data keys and does not tell under which wrapping key; restore a backup";
        return Err(StoreError::Corrupt(found.to_owned()));
    }
    let mut batch = Batch::default();
    batch.expect(Table::Meta, CHECK_ROW, Expect::Absent);
    batch.put(Table::Meta, CHECK_ROW, wrapping.check()?);
    match store.commit(batch) {
        // Somebody else has given it one: it is looked at next.
        Ok(_) | Err(StoreError::Conflict(..)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The wrapping key at work.
pub(super) struct Wrapping(Cipher);

impl Wrapping {
    pub fn new(key: &WrappingKey) -> Result<Self, StoreError> {
        Cipher::new(NO_ID, key.expose()).map(Self)
    }

    /// The row that tells this key from others.
    pub fn check(&self) -> Result<Vec<u8>, StoreError> {
        self.0.seal(&Purpose(&[b"wrapping-key"]), CHECK)
    }

    /// Makes sure that the data keys in `store` are wrapped by this key. Returns the row that says so.
    pub fn verify(&self, store: &dyn Store) -> Result<Row, StoreError> {
        let Some(row) = store.get(Table::Meta, CHECK_ROW)? else {
            return Err(StoreError::Corrupt("it does not tell under which wrapping key it is".to_owned()));
        };
        if self.0.open(&Purpose(&[b"wrapping-key"]), &row.value).is_none() {
            let wrong = "this is not the key that the store is sealed with; give the one it was made with, \
                         or last changed to (scoregate store rekey), and restart";
            return Err(StoreError::Key(wrong.to_owned()));
        }
        Ok(row)
    }

    /// A new data key of `workspace`, wrapped.
    fn wrap_new(&self, workspace: &str) -> Result<Vec<u8>, StoreError> {
        self.wrap(workspace, *random()?, &*random()?)
    }

    /// The row of a data key: `1, its id, the key sealed`.
    pub fn wrap(&self, workspace: &str, id: KeyId, key: &[u8; KEY_BYTES]) -> Result<Vec<u8>, StoreError> {
        let sealed = self.0.seal(&Purpose(&[b"data-key", &id, workspace.as_bytes()]), key)?;
        Ok([[ROW_LAYOUT].as_slice(), &id, &sealed].concat())
    }

    /// The data key in a row of `workspace`; `None` if it is not wrapped by this key, or has been changed.
    pub fn unwrap(&self, workspace: &str, row: &[u8]) -> Option<(KeyId, Zeroizing<[u8; KEY_BYTES]>)> {
        let (id, sealed) = split_row(row)?;
        let key = self.0.open(&Purpose(&[b"data-key", &id, workspace.as_bytes()]), sealed)?;
        Some((id, Zeroizing::new(key.as_slice().try_into().ok()?)))
    }
}

/// Layout of the row of a data key.
const ROW_LAYOUT: u8 = 1;

/// Id and sealed key in the row of a data key.
fn split_row(row: &[u8]) -> Option<(KeyId, &[u8])> {
    let (layout, rest) = row.split_first()?;
    let (id, sealed) = rest.split_first_chunk()?;
    (*layout == ROW_LAYOUT).then_some((*id, sealed))
}

fn data_key_row(workspace: &str) -> String {
    format!("{DATA_KEYS}{workspace}")
}

/// What a secret is bound to.
fn secret_in<'a>(workspace: &'a str, place: &'a str) -> [&'a [u8]; 3] {
    [b"secret", workspace.as_bytes(), place.as_bytes()]
}
