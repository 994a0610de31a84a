//! A store for tests: the same rules, nothing on disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Batch, CheckReport, Expect, Order, Range, Row, Store, StoreError, Table};

/// Rows in memory.
#[derive(Default)]
pub struct MemoryStore(Mutex<Inner>);

type Place = (Table, Vec<u8>);
/// With its version.
type Value = (Vec<u8>, u64);

#[derive(Default)]
struct Inner {
    rows: BTreeMap<Place, Value>,
    version: u64,
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = inner.rows.get(&(table, key.to_vec()));
        Ok(found.map(|(value, version)| Row { key: key.to_vec(), value: value.clone(), version: *version }))
    }

    fn scan(&self, range: &Range<'_>) -> Result<Vec<Row>, StoreError> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_range = inner.rows.iter().filter(|((table, key), _)| {
            let beyond = range.after.is_none_or(|after| match range.order {
                Order::Forwards => key.as_slice() > after,
                Order::Backwards => key.as_slice() < after,
            });
            *table == range.table && key.starts_with(range.prefix) && beyond
        });
        let row = |((_, key), (value, version)): (&Place, &Value)| Row {
            key: key.clone(),
            value: value.clone(),
            version: *version,
        };
        Ok(match range.order {
            Order::Forwards => of_range.take(range.limit).map(row).collect(),
            Order::Backwards => of_range.rev().take(range.limit).map(row).collect(),
        })
    }

    fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (table, key, expect) in batch.conditions {
            let found = inner.rows.get(&(table, key.clone())).map(|(_, version)| *version);
            let holds = match expect {
                Expect::Absent => found.is_none(),
                Expect::Version(version) => found == Some(version),
            };
            if !holds {
                return Err(StoreError::Conflict(table, key));
            }
        }
        inner.version += 1;
        let version = inner.version;
        for (table, key, value) in batch.changes {
            match value {
                Some(value) => inner.rows.insert((table, key), (value, version)),
                None => inner.rows.remove(&(table, key)),
            };
        }
        Ok(version)
    }

    fn backup(&self, _: &std::path::Path) -> Result<(), StoreError> {
        Err(StoreError::Io("a store in memory has no copy".into()))
    }

    fn check(&self) -> Result<CheckReport, StoreError> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(CheckReport { rows: vec![], bytes: 0, version: inner.version })
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryStore;
    use crate::store::conformance::conformance;

    conformance!(MemoryStore::default());
}
