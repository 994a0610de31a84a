//! The store on a real disk, and on one that fails in every way at every moment.

mod disk;

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use self::disk::{Disk, Fault, Lasts};
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
    drop(store);
    let uncached = disk.clone();
    let opener = move || Database::builder().set_cache_size(0).create_with_backend(uncached.clone());
    let store = EmbeddedStore::with_opener(PathBuf::from("memory"), Box::new(opener)).unwrap();
    for order in [Order::Forwards, Order::Backwards] {
        let before = disk.bytes_read();
        let range =
            Range { table: Table::Services, prefix: b"ws/", after: Some(b"ws/010000"), limit: 10, order };
        assert_eq!(store.scan(&range).unwrap().len(), 10);
        let read = disk.bytes_read() - before;
        assert!((1000..200_000).contains(&read), "{read} bytes for ten rows of a hundred bytes each");
    }
}

/// The state of a store by what it has under some keys.
fn state(store: &dyn Store) -> Vec<(Vec<u8>, usize)> {
    rows(store, Table::Services).into_iter().map(|row| (row.key, row.value.len())).collect()
}

/// Changes a row, removes one, adds many: the file has to grow.
fn large_batch() -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Services, "changed", [1; 2]).remove(Table::Services, "removed");
    for number in 0..8 {
        batch.put(Table::Services, format!("new {number:02}"), [2; 6000]);
    }
    batch
}

fn disk_with_rows() -> Disk {
    let disk = new_disk();
    let store = on(&disk);
    put(&store, b"changed", b"1");
    put(&store, b"removed", b"1");
    disk
}

fn old_state() -> Vec<(Vec<u8>, usize)> {
    vec![(b"changed".to_vec(), 1), (b"removed".to_vec(), 1)]
}

fn new_state() -> Vec<(Vec<u8>, usize)> {
    let store = on(&disk_with_rows());
    store.commit(large_batch()).unwrap();
    state(&store)
}

/// What goes wrong, and how much of a write is done all the same.
const FAULTS: [(io::ErrorKind, usize); 3] =
    [(io::ErrorKind::StorageFull, 0), (io::ErrorKind::Other, 0), (io::ErrorKind::Other, 100)];

/// Each of these faults at every call of a batch, until none is met any more. Returns how many were met.
fn at_every_call(
    faults: &[(io::ErrorKind, usize)],
    lasts: Lasts,
    mut with: impl FnMut(&Disk, Fault),
) -> usize {
    let mut met = 0;
    for &(kind, short) in faults {
        for after in 0.. {
            let disk = disk_with_rows();
            with(&disk, Fault { after, kind, short, lasts });
            if !disk.has_failed() {
                break;
            }
            met += 1;
        }
    }
    met
}

#[test]
fn a_batch_that_meets_one_fault_tells_truly_whether_it_happened() {
    let (old, new) = (old_state(), new_state());
    let met = at_every_call(&FAULTS, Lasts::OneCall, |disk, fault| {
        let store = on(disk);
        disk.fail(fault);
        let done = store.commit(large_batch());
        disk.heal();
        match done {
            Ok(version) => {
                assert_eq!(state(&store), new, "{fault:?}");
                assert_eq!(store.check().unwrap().version, version);
            }
            Err(error) => {
                let full = matches!(error, StoreError::Full(_));
                assert_eq!(full, fault.kind == io::ErrorKind::StorageFull, "{fault:?}: {error}");
                assert_eq!(state(&store), old, "{fault:?}: {error}");
                store.commit(large_batch()).unwrap();
                assert_eq!(state(&store), new, "{fault:?}");
            }
        }
        store.check().unwrap();
    });
    assert!(met > 30, "only {met} faults were met");
}

#[test]
fn a_store_on_a_disk_that_stays_broken_is_well_again_with_the_disk() {
    let (old, new) = (old_state(), new_state());
    let met = at_every_call(&FAULTS, Lasts::UntilHealed, |disk, fault| {
        let store = on(disk);
        disk.fail(fault);
        let done = store.commit(large_batch());
        if done.is_err() {
            assert!(
                store.get(Table::Services, b"changed").is_err(),
                "{fault:?}: what was read came from nowhere"
            );
        }
        disk.heal();
        let after = state(&store);
        match done {
            Ok(_) => assert_eq!(after, new, "{fault:?}"),
            Err(error) if after == new => {
                assert!(error.to_string().contains("whether"), "{fault:?}: {error}")
            }
            Err(error) => assert_eq!(after, old, "{fault:?}: {error}"),
        }
        store.commit(large_batch()).unwrap();
        assert_eq!(state(&store), new, "{fault:?}");
        store.check().unwrap();
    });
    assert!(met > 30, "only {met} faults were met");
}

#[test]
fn a_full_disk_refuses_what_is_new_and_is_read_from() {
    let disk = disk_with_rows();
    let store = on(&disk);
    disk.fill();
    for _ in 0..3 {
        let refused = store.commit(large_batch());
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        assert_eq!(state(&store), old_state());
    }
    // Started anew while it is still full.
    drop(store);
    let store = on(&disk);
    assert_eq!(state(&store), old_state());
    disk.clear();
    store.commit(large_batch()).unwrap();
    assert_eq!(state(&store), new_state());
    store.check().unwrap();
}

#[test]
fn a_power_failure_at_any_call_leaves_the_old_state_or_the_new_one() {
    let (old, new) = (old_state(), new_state());
    let mut random = fastrand::Rng::with_seed(7);
    let (mut olds, mut news) = (0, 0);
    let mut seen = |disk: &Disk, answered: bool, fault: Fault| {
        for choice in 0..6 {
            let after = disk.after_power_failure(|length| match choice {
                0 => 0,
                1 => length,
                _ => *random.choice([0, length, random.clone().usize(..=length)].iter()).unwrap(),
            });
            let store = try_on(&after).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            let state = state(&store);
            if state == new {
                news += 1;
            } else {
                assert!(state == old && !answered, "{fault:?} {choice} {answered}: {} rows", state.len());
                olds += 1;
            }
            store.check().unwrap();
        }
    };
    at_every_call(&FAULTS[2..], Lasts::UntilHealed, |disk, fault| {
        let store = on(disk);
        disk.fail(fault);
        let answered = store.commit(large_batch()).is_ok();
        seen(disk, answered, fault);
    });
    assert!(olds > 30 && news > 30, "{olds} {news}");
}

#[test]
fn a_flipped_bit_in_the_file_is_found_or_harms_nothing() {
    let disk = disk_with_rows();
    on(&disk).commit(large_batch()).unwrap();
    let expected = new_state();
    let mut found = 0;
    let head = (0..320).chain((320..disk.length()).step_by(1021));
    for position in head {
        let damaged = disk.after_power_failure(|length| length);
        damaged.flip(position, 0x10);
        match try_on(&damaged) {
            Ok(store) => assert_eq!(state(&store), expected, "byte {position}"),
            Err(StoreError::Corrupt(_)) => found += 1,
            Err(other) => panic!("byte {position}: {other}"),
        }
    }
    assert!(found > 50, "{found} found");
}

#[test]
fn a_copy_holds_one_moment_and_replaces_nothing() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("data")).unwrap();
    store.commit(large_batch()).unwrap();
    put(&store, b"later", b"x");
    let copy = dir.path().join("copy.redb");
    store.backup(&copy).unwrap();
    let expected: Vec<_> = Table::ALL.iter().map(|table| rows(&store, *table)).collect();
    let version = put(&store, b"later", b"changed after the copy");

    assert_eq!(mode(&copy), 0o600);
    let copied = EmbeddedStore::open_file(&copy).unwrap();
    assert_eq!(Table::ALL.iter().map(|table| rows(&copied, *table)).collect::<Vec<_>>(), expected);
    assert_eq!(copied.check().unwrap().version, version - 1);
    drop(copied);

    let before = fs::read(&copy).unwrap();
    for target in [copy.clone(), dir.path().join("missing/copy.redb"), dir.path().join("data")] {
        let refused = store.backup(&target).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains(&target.display().to_string()) && !refused.contains(FILE_NAME), "{refused}");
    }
    assert_eq!(fs::read(&copy).unwrap(), before);
    assert_eq!(names(dir.path()), ["copy.redb", "data"]);
    assert_eq!(put(&store, b"later", b"goes on"), version + 1);
}

#[test]
fn others_work_on_while_it_is_copied_and_checked() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("data")).unwrap();
    store.commit(large_batch()).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut written = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // Both or neither are in a copy.
                let mut batch = Batch::default();
                batch.put(Table::Keys, "one", [written]).put(Table::Services, "other", [written]);
                store.commit(batch).unwrap();
                written = written.wrapping_add(1);
            }
        });
        for number in 0..5 {
            let copy = dir.path().join(number.to_string());
            store.backup(&copy).unwrap();
            store.check().unwrap();
            let copied = EmbeddedStore::open_file(&copy).unwrap();
            let value = |table, key: &[u8]| copied.get(table, key).unwrap().map(|row| row.value);
            assert_eq!(value(Table::Keys, b"one"), value(Table::Services, b"other"));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        writing.join().unwrap();
    });
}

#[test]
fn a_check_finds_rows_that_no_batch_wrote() {
    for bytes in [[0; 3].as_slice(), &encode(99, b"of the future")] {
        let disk = disk_with_rows();
        let store = on(&disk);
        store.check().unwrap();
        let written = store.with(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(data(Table::Keys))?.insert(b"strange".as_slice(), bytes)?;
            Ok(transaction.commit()?)
        });
        written.unwrap();
        match store.check() {
            Err(StoreError::Corrupt(detail)) => assert!(detail.contains("row strange of keys"), "{detail}"),
            other => panic!("{other:?}"),
        }
    }
}
