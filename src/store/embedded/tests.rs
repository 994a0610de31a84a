//! The store on a real disk, and on one that fails in every way at every moment.

mod disk;

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use self::disk::{Disk, Fault};
use super::*;
use crate::store::Order;
use crate::store::conformance::{conformance, put, rows};

/// A store on a disk of memory: the code of the one on files, without waiting for a disk.
fn on(disk: &Disk) -> EmbeddedStore {
    try_on(disk).unwrap()
}

fn try_on(disk: &Disk) -> Result<EmbeddedStore, StoreError> {
    let disk = disk.clone();
    EmbeddedStore::with_opener(
        PathBuf::from("memory"),
        Box::new(move || builder().create_with_backend(disk.clone())),
    )
}

fn new_disk() -> Disk {
    let disk = Disk::default();
    let database = builder().create_with_backend(disk.clone()).unwrap();
    layout::initialize(&database).map_err(|failure| failure.error).unwrap();
    disk
}

conformance!(on(&new_disk()));

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_new_store_is_for_its_owner_alone_and_there_after_it_was_closed() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("new/data");
    let store = EmbeddedStore::open(&data).unwrap();
    assert_eq!((mode(&data), mode(&data.join(FILE_NAME))), (0o700, 0o600));
    assert_eq!(names(&data), [FILE_NAME]);
    let version = put(&store, b"iris", b"one");
    drop(store);

    let store = EmbeddedStore::open(&data).unwrap();
    let row = Row { key: b"iris".to_vec(), value: b"one".to_vec(), version };
    assert_eq!(rows(&store, Table::Services), [row]);
    assert_eq!(put(&store, b"wine", b"two"), version + 1);
    let report = store.check().unwrap();
    assert_eq!(report.version, version + 1);
    assert_eq!(report.bytes, fs::metadata(data.join(FILE_NAME)).unwrap().len());
    assert_eq!(report.rows.iter().find(|(table, _)| *table == "services"), Some(&("services", 2)));
}

#[test]
fn a_store_that_is_open_is_locked() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    match EmbeddedStore::open(dir.path()) {
        Err(StoreError::Locked(detail)) => assert!(detail.contains(FILE_NAME), "{detail}"),
        other => panic!("{:?}", other.err()),
    }
    put(&store, b"iris", b"one");
    drop(store);
    assert_eq!(rows(&EmbeddedStore::open(dir.path()).unwrap(), Table::Services).len(), 1);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join(FILE_NAME);
    for content in
        [b"".as_slice(), b"not a database, but more than a head of one".repeat(100).as_slice(), &[0; 100_000]]
    {
        fs::write(&file, content).unwrap();
        let refused = EmbeddedStore::open(dir.path());
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{:?}", refused.err());
        assert_eq!(fs::read(&file).unwrap(), content);
    }
    fs::remove_file(&file).unwrap();
    builder().create(&file).unwrap().close().unwrap();
    match EmbeddedStore::open(dir.path()) {
        Err(StoreError::Corrupt(detail)) => assert!(detail.contains("no store of scoregate"), "{detail}"),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_store_of_a_later_format_is_refused_with_both_numbers() {
    let dir = TempDir::new().unwrap();
    drop(EmbeddedStore::open(dir.path()).unwrap());
    let database = builder().open(dir.path().join(FILE_NAME)).unwrap();
    let transaction = database.begin_write().unwrap();
    let facts: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("store");
    transaction.open_table(facts).unwrap().insert("format", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    match EmbeddedStore::open(dir.path()) {
        Err(StoreError::Corrupt(detail)) => {
            assert!(detail.contains("format number is 7") && detail.contains("knows 1"), "{detail}");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_page_of_a_large_table_does_not_read_the_table() {
    let disk = new_disk();
    let store = on(&disk);
    let mut batch = Batch::default();
    for number in 0..20_000 {
        batch.put(Table::Services, format!("ws/{number:06}"), [0; 100]);
    }
    store.commit(batch).unwrap();
    for order in [Order::Forwards, Order::Backwards] {
        // Everything is read from the disk again.
        store.close();
        store.reopen().unwrap();
        store.with(|_| Ok(())).unwrap();
        let uncached = disk.clone();
        let plain = move || Database::builder().set_cache_size(0).create_with_backend(uncached.clone());
        store.close();
        let store = EmbeddedStore::with_opener(PathBuf::from("memory"), Box::new(plain)).unwrap();
        let before = disk.bytes_read();
        let range =
            Range { table: Table::Services, prefix: b"ws/", after: Some(b"ws/010000"), limit: 10, order };
        assert_eq!(store.scan(&range).unwrap().len(), 10);
        let read = disk.bytes_read() - before;
        assert!(read < 200_000, "{read} bytes for ten rows of a hundred bytes each");
    }
}
