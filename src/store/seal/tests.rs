//! Sealed secrets: opened where they belong, and nowhere else.

use std::path::Path;
use std::sync::{Arc, Mutex};

use secrecy::ExposeSecret as _;

use super::*;
use crate::store::conformance::rows;
use crate::store::wrapping::WrappingKey;
use crate::store::{Batch, CheckReport, Expect, MemoryStore, Range, Row, Store, Table};

fn key() -> WrappingKey {
    WrappingKey::generate().unwrap()
}

fn sealer(store: &Arc<MemoryStore>, key: &WrappingKey) -> Result<EnvelopeSealer, StoreError> {
    EnvelopeSealer::new(store.clone(), key)
}

fn opened(sealer: &EnvelopeSealer, workspace: &str, place: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
    let secret = sealer.open(workspace, place, sealed).map_err(|error| error.to_string())?;
    Ok(secret.expose_secret().clone())
}

#[test]
fn a_secret_opens_in_its_place_only() {
    let (store, key) = (Arc::new(MemoryStore::default()), key());
    let sealer = sealer(&store, &key).unwrap();
    let secret = b"the primary key of iris";
    let sealed = sealer.seal("ws", "keys/iris", secret).unwrap();
    assert_eq!(opened(&sealer, "ws", "keys/iris", &sealed).unwrap(), secret);
    assert!(!sealed.windows(7).any(|window| secret.windows(7).any(|part| part == window)));

    sealer.seal("other", "keys/iris", secret).unwrap();
    for (workspace, place) in
        [("ws", "keys/iris2"), ("ws", ""), ("wsk", "eys/iris"), ("other", "keys/iris"), ("none", "")]
    {
        let refused = opened(&sealer, workspace, place, &sealed).unwrap_err();
        assert!(refused.contains("does not open"), "{workspace} {place}: {refused}");
    }
    assert_ne!(sealer.seal("ws", "keys/iris", secret).unwrap(), sealed, "a nonce was used twice");
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (store, key) = (Arc::new(MemoryStore::default()), key());
    let sealer = sealer(&store, &key).unwrap();
    let sealed = sealer.seal("ws", "place", b"secret").unwrap();
    for position in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[position] ^= 1 << bit;
            assert!(sealer.open("ws", "place", &changed).is_err(), "byte {position}, bit {bit}");
        }
        assert!(sealer.open("ws", "place", &sealed[..position]).is_err(), "{position} bytes");
    }
    assert!(opened(&sealer, "ws", "place", &sealed).is_ok());
}

#[test]
fn another_process_with_the_key_reads_and_one_without_is_refused() {
    let (store, key) = (Arc::new(MemoryStore::default()), key());
    let sealed = sealer(&store, &key).unwrap().seal("ws", "place", b"secret").unwrap();
    assert_eq!(opened(&sealer(&store, &key).unwrap(), "ws", "place", &sealed).unwrap(), b"secret");

    let refused = sealer(&store, &self::key()).err();
    match refused {
        Some(StoreError::Key(detail)) => assert!(detail.contains("not the key"), "{detail}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_data_key_is_told_from_a_wrong_wrapping_key() {
    let (store, key) = (Arc::new(MemoryStore::default()), key());
    let sealed = sealer(&store, &key).unwrap().seal("ws", "place", b"secret").unwrap();
    let row = store.get(Table::Meta, b"data-key/ws").unwrap().unwrap();
    for position in 0..row.value.len() {
        let mut batch = Batch::default();
        let mut changed = row.value.clone();
        changed[position] ^= 1;
        batch.put(Table::Meta, "data-key/ws", changed);
        store.commit(batch).unwrap();
        let refused = sealer(&store, &key).unwrap().open("ws", "place", &sealed).err();
        assert!(matches!(refused, Some(StoreError::Corrupt(_))), "byte {position}: {refused:?}");
    }
    // The data key of one workspace is none for another.
    let mut batch = Batch::default();
    batch.put(Table::Meta, "data-key/other", row.value.clone());
    store.commit(batch).unwrap();
    let refused = sealer(&store, &key).unwrap().seal("other", "place", b"secret").err();
    assert!(matches!(refused, Some(StoreError::Corrupt(_))), "{refused:?}");
}

#[test]
fn data_keys_without_the_row_of_the_wrapping_key_are_damage_and_no_new_store() {
    let (store, key) = (Arc::new(MemoryStore::default()), key());
    sealer(&store, &key).unwrap().seal("ws", "place", b"secret").unwrap();
    let mut batch = Batch::default();
    batch.remove(Table::Meta, "wrapping-key");
    store.commit(batch).unwrap();
    let before = rows(&*store, Table::Meta);
    assert!(matches!(sealer(&store, &key), Err(StoreError::Corrupt(_))));
    assert_eq!(rows(&*store, Table::Meta), before);
}

#[test]
fn many_at_once_make_one_data_key() {
    let (store, key) = (Arc::new(MemoryStore::default()), key());
    // Each as a process of its own.
    let sealers: Vec<_> = (0..8).map(|_| sealer(&store, &key).unwrap()).collect();
    let sealed: Vec<_> = std::thread::scope(|scope| {
        let sealing: Vec<_> = sealers
            .iter()
            .map(|sealer| scope.spawn(|| sealer.seal("ws", "place", b"secret").unwrap()))
            .collect();
        sealing.into_iter().map(|sealing| sealing.join().unwrap()).collect()
    });
    let fresh = sealer(&store, &key).unwrap();
    for sealed in &sealed {
        assert_eq!(opened(&fresh, "ws", "place", sealed).unwrap(), b"secret");
    }
}

#[test]
fn a_forgotten_workspace_is_gone_and_its_name_gets_a_new_key() {
    let (store, key) = (Arc::new(MemoryStore::default()), key());
    let (here, elsewhere) = (sealer(&store, &key).unwrap(), sealer(&store, &key).unwrap());
    let old = here.seal("ws", "place", b"old").unwrap();
    let kept = here.seal("other", "place", b"kept").unwrap();
    assert!(elsewhere.open("ws", "place", &old).is_ok());

    let mut batch = Batch::default();
    here.forget("ws", &mut batch);
    // Somebody reads it in between, which brings the key back into memory.
    here.open("ws", "place", &old).unwrap();
    store.commit(batch).unwrap();

    // Both have the old key in memory; neither may seal with it.
    for sealer in [&here, &elsewhere] {
        let new = sealer.seal("ws", "place", b"new").unwrap();
        let fresh = self::sealer(&store, &key).unwrap();
        assert_eq!(opened(&fresh, "ws", "place", &new).unwrap(), b"new");
        assert!(opened(&fresh, "ws", "place", &old).is_err());
        assert!(opened(sealer, "ws", "place", &old).is_err());
    }
    assert_eq!(opened(&here, "other", "place", &kept).unwrap(), b"kept");
}

#[test]
fn another_wrapping_key_takes_over_wholly() {
    let (store, old, new) = (Arc::new(MemoryStore::default()), key(), key());
    let running = sealer(&store, &old).unwrap();
    let sealed: Vec<_> = (0..50)
        .map(|number| {
            running.seal(&format!("ws{number}"), "place", format!("secret {number}").as_bytes()).unwrap()
        })
        .collect();
    assert!(matches!(rekey(&*store, &new, &old), Err(StoreError::Key(_))));
    assert_eq!(rekey(&*store, &old, &new).unwrap(), 50);

    assert!(matches!(sealer(&store, &old), Err(StoreError::Key(_))));
    let restarted = sealer(&store, &new).unwrap();
    for (number, sealed) in sealed.iter().enumerate() {
        let secret = opened(&restarted, &format!("ws{number}"), "place", sealed).unwrap();
        assert_eq!(secret, format!("secret {number}").into_bytes());
        // Who has the data keys in memory goes on with them.
        assert!(opened(&running, &format!("ws{number}"), "place", sealed).is_ok());
    }
    let again = running.seal("ws0", "place", b"later").unwrap();
    assert_eq!(opened(&restarted, "ws0", "place", &again).unwrap(), b"later");
    // A new data key under the old wrapping key would be lost.
    let before = rows(&*store, Table::Meta);
    assert!(matches!(running.seal("new", "place", b"lost"), Err(StoreError::Key(_))));
    assert_eq!(rows(&*store, Table::Meta), before);
}

/// A store in which somebody else is busy whenever a table is read.
struct Busy {
    store: Arc<MemoryStore>,
    others: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Store for Busy {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(&self, range: &Range<'_>) -> Result<Vec<Row>, StoreError> {
        let found = self.store.scan(range);
        if let Some(other) = self.others.lock().unwrap().pop() {
            other();
        }
        found
    }

    fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        self.store.commit(batch)
    }

    fn backup(&self, path: &Path) -> Result<(), StoreError> {
        self.store.backup(path)
    }

    fn check(&self) -> Result<CheckReport, StoreError> {
        self.store.check()
    }
}

#[test]
fn data_keys_made_and_destroyed_while_the_wrapping_key_changes_are_not_left_behind() {
    let (store, old, new) = (Arc::new(MemoryStore::default()), key(), key());
    let other = Arc::new(sealer(&store, &old).unwrap());
    other.seal("first", "place", b"secret").unwrap();
    other.seal("gone", "place", b"secret").unwrap();
    let (makes, destroys, shared) = (other.clone(), other, store.clone());
    let others: Vec<Box<dyn FnOnce() + Send>> = vec![
        Box::new(move || {
            makes.seal("second", "place", b"secret").unwrap();
        }),
        Box::new(move || {
            let mut batch = Batch::default();
            destroys.forget("gone", &mut batch);
            shared.commit(batch).unwrap();
        }),
    ];
    let busy = Busy { store: store.clone(), others: Mutex::new(others) };
    assert_eq!(rekey(&busy, &old, &new).unwrap(), 2, "first and second");
    let restarted = sealer(&store, &new).unwrap();
    for workspace in ["first", "second"] {
        assert!(restarted.current(workspace).unwrap().is_some(), "{workspace}");
    }
    assert!(restarted.current("gone").unwrap().is_none());
}

#[test]
fn a_store_takes_one_of_two_wrapping_keys_that_come_at_once() {
    let (store, keys) = (Arc::new(MemoryStore::default()), [key(), key()]);
    let taken = std::thread::scope(|scope| {
        let both = keys.each_ref().map(|key| scope.spawn(|| sealer(&store, key).is_ok()));
        both.map(|one| one.join().unwrap())
    });
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
    assert_eq!(keys.each_ref().map(|key| sealer(&store, key).is_ok()), taken);
    let mut batch = Batch::default();
    batch.expect(Table::Meta, "wrapping-key", Expect::Absent);
    assert!(store.commit(batch).is_err());
}
