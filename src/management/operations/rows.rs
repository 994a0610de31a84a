//! Rows of the store as JSON, and reading them one after the other.

use std::collections::VecDeque;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Versioned;
use crate::management::{Cause, Refusal};
use crate::store::{Order, Range, Row, Store, Table};

/// Rows read from the store at once.
const CHUNK: usize = 256;

/// The bytes of a row.
///
/// # Errors
/// [`Cause::Internal`]: a defect, since all rows can be written.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "a row cannot be written");
        Refusal::new(Cause::Internal, "what was to be stored cannot be written; nothing was changed")
    })
}

/// What a row holds.
///
/// # Errors
/// [`Cause::Internal`] if it is not readable: the store was changed by something else, or by a newer version.
pub(super) fn decode<T: DeserializeOwned>(table: Table, row: &Row) -> Result<Versioned<T>, Refusal> {
    match serde_json::from_slice(&row.value) {
        Ok(value) => Ok(Versioned { value, version: row.version }),
        Err(error) => {
            let key = row.key.escape_ascii();
            tracing::error!(table = table.as_str(), %key, %error, "a row of the store cannot be read");
            Err(Refusal::new(Cause::Internal, "what is stored there cannot be read; see the gateway's log"))
        }
    }
}

/// The row of `key`, read.
///
/// # Errors
/// The store's, and those of [`decode`].
pub(super) fn get<T: DeserializeOwned>(
    store: &dyn Store,
    table: Table,
    key: &str,
) -> Result<Option<Versioned<T>>, Refusal> {
    store.get(table, key.as_bytes())?.map(|row| decode(table, &row)).transpose()
}

/// The rows of a table in the order of their keys, fetched as they are asked for.
pub(super) struct Rows<'a> {
    store: &'a dyn Store,
    table: Table,
    prefix: &'a [u8],
    after: Option<Vec<u8>>,
    fetched: VecDeque<Row>,
    at_end: bool,
}

impl<'a> Rows<'a> {
    /// Those whose keys begin with `prefix` and come after `after`.
    pub(super) const fn new(
        store: &'a dyn Store,
        table: Table,
        prefix: &'a [u8],
        after: Option<Vec<u8>>,
    ) -> Self {
        Self { store, table, prefix, after, fetched: VecDeque::new(), at_end: false }
    }

    fn fetch(&mut self) -> Result<(), Refusal> {
        let rows = self.store.scan(&Range {
            table: self.table,
            prefix: self.prefix,
            after: self.after.as_deref(),
            limit: CHUNK,
            order: Order::Forwards,
        })?;
        self.at_end = rows.len() < CHUNK;
        if let Some(last) = rows.last() {
            self.after = Some(last.key.clone());
        }
        self.fetched = rows.into();
        Ok(())
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.fetched.is_empty()
            && !self.at_end
            && let Err(refusal) = self.fetch()
        {
            self.at_end = true;
            return Some(Err(refusal));
        }
        self.fetched.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, MemoryStore};

    #[test]
    fn all_rows_of_a_prefix_come_once_and_in_order() {
        let store = MemoryStore::default();
        let mut batch = Batch::default();
        for number in 0..2 * CHUNK {
            batch.put(Table::Services, format!("a/{number:04}"), "x");
        }
        batch.put(Table::Services, "b/0000", "x");
        store.commit(batch).unwrap();
        let keys = |after: Option<&str>| -> Vec<String> {
            let rows = Rows::new(&store, Table::Services, b"a/", after.map(|key| key.as_bytes().to_vec()));
            rows.map(|row| String::from_utf8(row.unwrap().key).unwrap()).collect()
        };
        let expected: Vec<_> = (0..2 * CHUNK).map(|number| format!("a/{number:04}")).collect();
        assert_eq!(keys(None), expected);
        assert_eq!(keys(Some("a/0499")), expected[500..]);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_internal_fault_that_shows_nothing() {
        let row = Row { key: b"k".to_vec(), value: b"secret".to_vec(), version: 1 };
        let refusal = decode::<u64>(Table::Keys, &row).unwrap_err();
        assert_eq!(refusal.cause, Cause::Internal);
        assert!(!refusal.to_string().contains("secret"));
    }
}
