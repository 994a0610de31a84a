//! What every store must do, whatever it keeps its rows in: one set of tests for all of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Batch, Expect, Order, Range, Row, Store, StoreError, Table};

/// Makes each check of this file a test of the store that `$new` makes.
macro_rules! conformance {
    ($new:expr) => {
        #[test]
        fn a_row_is_as_it_was_written() {
            crate::store::conformance::a_row_is_as_it_was_written(&$new);
        }

        #[test]
        fn a_condition_that_does_not_hold_changes_nothing() {
            crate::store::conformance::a_condition_that_does_not_hold_changes_nothing(&$new);
        }

        #[test]
        fn of_many_that_read_the_same_one_writes() {
            crate::store::conformance::of_many_that_read_the_same_one_writes(&$new);
        }

        #[test]
        fn pages_in_both_orders_give_each_row_once() {
            crate::store::conformance::pages_in_both_orders_give_each_row_once(&$new);
        }

        #[test]
        fn any_batches_leave_what_a_map_would_hold() {
            crate::store::conformance::any_batches_leave_what_a_map_would_hold(|| Box::new($new));
        }
    };
}
pub(super) use conformance;

/// All rows of `table`.
pub(super) fn rows(store: &dyn Store, table: Table) -> Vec<Row> {
    let whole = Range { table, prefix: b"", after: None, limit: usize::MAX, order: Order::Forwards };
    store.scan(&whole).unwrap()
}

pub(super) fn put(store: &dyn Store, key: &[u8], value: &[u8]) -> u64 {
    let mut batch = Batch::default();
    batch.put(Table::Services, key, value);
    store.commit(batch).unwrap()
}

pub(super) fn a_row_is_as_it_was_written(store: &dyn Store) {
    assert_eq!(store.get(Table::Services, b"iris").unwrap(), None);
    assert_eq!(rows(store, Table::Meta), [], "a new store shows rows of its own");
    let first = put(store, b"iris", b"one");
    let row = Row { key: b"iris".to_vec(), value: b"one".to_vec(), version: first };
    assert_eq!(store.get(Table::Services, b"iris").unwrap(), Some(row));
    assert_eq!(store.get(Table::Workspaces, b"iris").unwrap(), None, "tables share keys");

    let second = put(store, b"iris", b"");
    assert!(second > first);
    let row = Row { key: b"iris".to_vec(), value: vec![], version: second };
    assert_eq!(store.get(Table::Services, b"iris").unwrap(), Some(row));

    let mut batch = Batch::default();
    batch.remove(Table::Services, "iris").remove(Table::Services, "never was");
    assert!(store.commit(batch).unwrap() > second);
    assert_eq!(store.get(Table::Services, b"iris").unwrap(), None);
    assert!(store.check().unwrap().version > second);
}

pub(super) fn a_condition_that_does_not_hold_changes_nothing(store: &dyn Store) {
    let first = put(store, b"iris", b"one");
    let attempts = [
        ("iris", Expect::Absent),
        ("iris", Expect::Version(first + 1)),
        ("iris", Expect::Version(first - 1)),
        ("wine", Expect::Version(first)),
    ];
    for (key, expect) in attempts {
        let mut batch = Batch::default();
        batch
            .put(Table::Services, "iris", "two")
            .put(Table::Keys, "iris", "key")
            .remove(Table::Services, "iris");
        batch.expect(Table::Services, "iris", Expect::Version(first)).expect(Table::Services, key, expect);
        match store.commit(batch) {
            Err(StoreError::Conflict(Table::Services, about)) => assert_eq!(about, key.as_bytes()),
            other => panic!("{key} {expect:?}: {other:?}"),
        }
        assert_eq!(rows(store, Table::Services)[0].value, b"one");
        assert_eq!(rows(store, Table::Keys), []);
        assert_eq!(store.check().unwrap().version, first);
    }
    let mut batch = Batch::default();
    batch.expect(Table::Services, "iris", Expect::Version(first)).expect(
        Table::Services,
        "wine",
        Expect::Absent,
    );
    batch.put(Table::Services, "wine", "new");
    assert_eq!(store.commit(batch).unwrap(), first + 1);
}

pub(super) fn of_many_that_read_the_same_one_writes(store: &dyn Store) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 10;
    put(store, b"counter", b"0");
    let count_up = || {
        let row = store.get(Table::Services, b"counter").unwrap().unwrap();
        let count: usize = std::str::from_utf8(&row.value).unwrap().parse().unwrap();
        let mut batch = Batch::default();
        batch.expect(Table::Services, "counter", Expect::Version(row.version));
        batch.put(Table::Services, "counter", (count + 1).to_string());
        store.commit(batch)
    };
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut done = 0;
                while done < ROUNDS {
                    match count_up() {
                        Ok(_) => done += 1,
                        Err(StoreError::Conflict(..)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let value = store.get(Table::Services, b"counter").unwrap().unwrap().value;
    assert_eq!(value, (WRITERS * ROUNDS).to_string().into_bytes());
}

pub(super) fn pages_in_both_orders_give_each_row_once(store: &dyn Store) {
    let mut batch = Batch::default();
    for number in 0..100 {
        batch.put(Table::Services, format!("a/{number:03}"), format!("{number}"));
    }
    batch.put(Table::Services, "a", "before").put(Table::Services, "a0", "after").put(
        Table::Services,
        [0xff],
        "last",
    );
    store.commit(batch).unwrap();
    for order in [Order::Forwards, Order::Backwards] {
        let mut expected: Vec<_> = (0..100).map(|number| format!("a/{number:03}").into_bytes()).collect();
        if order == Order::Backwards {
            expected.reverse();
        }
        for limit in [1, 7, 50, 100, 101] {
            let mut seen: Vec<Vec<u8>> = Vec::new();
            loop {
                let after = seen.last().cloned();
                let range =
                    Range { table: Table::Services, prefix: b"a/", after: after.as_deref(), limit, order };
                let page = store.scan(&range).unwrap();
                assert!(page.len() <= limit);
                if page.is_empty() {
                    break;
                }
                seen.extend(page.into_iter().map(|row| row.key));
            }
            assert_eq!(seen, expected, "{order:?} {limit}");
        }
    }
}

/// A change to one of few keys, so that they meet.
fn change() -> impl Strategy<Value = (Table, Vec<u8>, Option<Vec<u8>>)> {
    let table = prop::sample::select(vec![Table::Meta, Table::Services, Table::Activity]);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..20));
    (table, key(), value)
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 0xff]), 0..4)
}

type Scan = (Vec<u8>, Option<Vec<u8>>, usize, bool);

fn scan() -> impl Strategy<Value = Scan> {
    (key(), prop::option::of(key()), 0..10_usize, any::<bool>())
}

/// What the rows of all tables should be.
type Model = BTreeMap<(Table, Vec<u8>), (Vec<u8>, u64)>;

pub(super) fn any_batches_leave_what_a_map_would_hold(new: impl Fn() -> Box<dyn Store>) {
    let batches = prop::collection::vec(prop::collection::vec(change(), 0..8), 1..8);
    let scans = prop::collection::vec(scan(), 1..20);
    // What is found is put into the test by hand; no file of seeds is kept.
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(batches in batches, scans in scans)| {
        let store = new();
        let mut model = Model::new();
        for changes in batches {
            let number = store.commit(Batch { conditions: vec![], changes: changes.clone() }).unwrap();
            for (table, key, value) in changes {
                match value {
                    Some(value) => model.insert((table, key), (value, number)),
                    None => model.remove(&(table, key)),
                };
            }
        }
        for table in Table::ALL {
            prop_assert_eq!(rows(&*store, table), of_model(&model, table, |_| true));
        }
        for scan in scans {
            same_page(&*store, &model, &scan)?;
        }
    });
}

fn of_model(model: &Model, table: Table, wanted: impl Fn(&[u8]) -> bool) -> Vec<Row> {
    let of_table = model.iter().filter(|((of, key), _)| *of == table && wanted(key));
    of_table
        .map(|((_, key), (value, version))| Row { key: key.clone(), value: value.clone(), version: *version })
        .collect()
}

fn same_page(store: &dyn Store, model: &Model, scan: &Scan) -> Result<(), TestCaseError> {
    let (prefix, after, limit, backwards) = scan;
    let order = if *backwards { Order::Backwards } else { Order::Forwards };
    let range = Range { table: Table::Services, prefix, after: after.as_deref(), limit: *limit, order };
    let mut expected = of_model(model, Table::Services, |key| {
        let beyond = match (after, backwards) {
            (None, _) => true,
            (Some(after), false) => key > after.as_slice(),
            (Some(after), true) => key < after.as_slice(),
        };
        key.starts_with(prefix) && beyond
    });
    if *backwards {
        expected.reverse();
    }
    expected.truncate(*limit);
    prop_assert_eq!(store.scan(&range).unwrap(), expected, "{:?}", range);
    Ok(())
}
