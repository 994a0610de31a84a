//! Another wrapping key: all data keys are wrapped anew, in one batch; what they seal stays as it is.

use super::envelope::{CHECK_ROW, DATA_KEYS, Wrapping};
use crate::store::wrapping::WrappingKey;
use crate::store::{Batch, Expect, Order, Range, Store, StoreError, Table};

/// How often it is tried; each time another process has made or destroyed a data key.
const MOST_ATTEMPTS: usize = 16;

/// Makes sure that `key` is the wrapping key of `store`.
///
/// # Errors
/// [`StoreError::Key`] if it is not.
pub fn verify(store: &dyn Store, key: &WrappingKey) -> Result<(), StoreError> {
    Wrapping::new(key)?.verify(store).map(|_| ())
}

/// Makes `new` the wrapping key of `store` in the place of `old`, wholly or not at all. Returns how many data keys were
/// wrapped anew.
///
/// The embedded store is open in one process, so the gateway must be stopped. Over a store that others have open, they go
/// on with the data keys that they have in memory, and are refused new ones until they are restarted with the new key.
///
/// # Errors
/// [`StoreError::Key`] if `old` is not the key of this store; nothing has changed then, nor after any other error.
pub fn rekey(store: &dyn Store, old: &WrappingKey, new: &WrappingKey) -> Result<usize, StoreError> {
    let (old, new) = (Wrapping::new(old)?, Wrapping::new(new)?);
    for _ in 0..MOST_ATTEMPTS {
        let (count, batch) = wrap_anew(store, &old, &new)?;
        match store.commit(batch) {
            Ok(_) => return Ok(count),
            Err(StoreError::Conflict(..)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Io("its data keys are changed by others all the time".to_owned()))
}

fn wrap_anew(store: &dyn Store, old: &Wrapping, new: &Wrapping) -> Result<(usize, Batch), StoreError> {
    // A data key that is made from here on rewrites this row.
    let check = old.verify(store)?;
    let mut batch = Batch::default();
    batch.expect(Table::Meta, CHECK_ROW, Expect::Version(check.version));
    batch.put(Table::Meta, CHECK_ROW, new.check()?);
    let rows = store.scan(&Range {
        table: Table::Meta,
        prefix: DATA_KEYS.as_bytes(),
        after: None,
        limit: usize::MAX,
        order: Order::Forwards,
    })?;
    let count = rows.len();
    for row in rows {
        let workspace = row.key.get(DATA_KEYS.len()..).and_then(|name| std::str::from_utf8(name).ok());
        let wrapped = workspace.and_then(|name| Some((name, old.unwrap(name, &row.value)?)));
        let Some((workspace, (id, key))) = wrapped else {
            return Err(StoreError::Corrupt(format!("row {} of meta does not open", row.key.escape_ascii())));
        };
        batch.expect(Table::Meta, row.key.as_slice(), Expect::Version(row.version));
        let wrapped = new.wrap(workspace, id, &key)?;
        batch.put(Table::Meta, row.key, wrapped);
    }
    Ok((count, batch))
}
