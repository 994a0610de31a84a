//! Every step of a write, each with what goes wrong in it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::fixtures::{DECLARED, Gateway, TestStore, caller, holder, holder_in, request, settings};
use super::super::{ActivityStatus, view::Versioned};
use super::*;
use crate::catalog::{ActionSet, BuiltInRole, ServiceName, WorkspaceSpec};
use crate::store::{Expect, Order, Range, Store as _, Table};

use ActivityStatus::{Failed, Started, Succeeded};

fn workspace(name: &str) -> Resource {
    Resource::workspace(name, &WorkspaceSpec::default())
}

fn removal(name: &str) -> ServiceChanges {
    ServiceChanges { remove: vec![ServiceName::parse(name).unwrap()], ..ServiceChanges::default() }
}

/// Writes one row, whatever is there.
fn put(gateway: &Gateway, caller: &Caller, key: &str) -> Result<Versioned<()>, Refusal> {
    gateway.operations.write(caller, Action::AksWrite, &workspace(DECLARED), |batch| {
        batch.put(Table::Services, key, "value");
        Ok(((), removal(key)))
    })
}

fn row(gateway: &Gateway, key: &str) -> Option<u64> {
    gateway.store.get(Table::Services, key.as_bytes()).unwrap().map(|row| row.version)
}

#[test]
fn a_write_changes_the_store_the_log_and_the_data_plane() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let version = put(&gateway, &owner, "iris").unwrap().version;
    assert_eq!(row(&gateway, "iris"), Some(version));
    assert_eq!(gateway.data_plane.applied.lock().unwrap().len(), 1);
    let events = gateway.events();
    let seen: Vec<_> = events.iter().map(|it| (it.sequence, it.status, it.status_code)).collect();
    assert_eq!(seen, [(1, Started, None), (2, Succeeded, Some(200))]);
    for event in &events {
        assert_eq!(event.operation_id, owner.request.operation_id.to_string());
        assert_eq!(event.operation_name, Action::AksWrite.as_str());
        assert_eq!((event.caller.as_str(), event.method.as_str()), ("owner", "PUT"));
        assert_eq!(event.resource_id, workspace(DECLARED).id());
    }
}

#[test]
fn without_the_right_nothing_runs_and_the_attempt_is_logged() {
    let gateway = Gateway::new();
    for caller in [holder(BuiltInRole::Reader), holder_in("other", BuiltInRole::Owner)] {
        let before = gateway.events().len();
        let refusal = put(&gateway, &caller, "iris").unwrap_err();
        assert_eq!(refusal.cause, Cause::Forbidden(Action::AksWrite));
        let events = gateway.events().split_off(before);
        assert_eq!(events.iter().map(|it| it.status).collect::<Vec<_>>(), [Started, Failed]);
        assert_eq!(events[1].status_code, Some(403));
        let error = events[1].error.as_deref().unwrap();
        assert!(error.starts_with("AuthorizationFailed: ") && error.contains(&*caller.principal), "{error}");
    }
    assert_eq!(row(&gateway, "iris"), None);
    assert!(gateway.data_plane.applied.lock().unwrap().is_empty());
}

#[test]
fn both_events_of_a_refused_attempt_are_one_commit() {
    let gateway = Gateway::new();
    gateway.store.sparing.store(1, Ordering::SeqCst);
    gateway.store.failing.store(1, Ordering::SeqCst);
    put(&gateway, &holder(BuiltInRole::Reader), "iris").unwrap_err();
    assert_eq!(gateway.statuses(), [Started, Failed]);
}

#[test]
fn a_body_that_refuses_changes_nothing() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let outcome = gateway.operations.write(&owner, Action::AksWrite, &workspace(DECLARED), |batch| {
        batch.put(Table::Services, "iris", "value");
        Err::<((), ServiceChanges), _>(Refusal::invalid("hosts[0]", "no host"))
    });
    assert_eq!(outcome.unwrap_err(), Refusal::invalid("hosts[0]", "no host"));
    assert_eq!(row(&gateway, "iris"), None);
    let end = &gateway.events()[1];
    assert_eq!((end.status, end.status_code), (Failed, Some(400)));
    assert_eq!(end.error.as_deref(), Some("BadRequest: hosts[0]: no host"));
}

#[test]
fn a_store_that_is_down_at_the_start_lets_nothing_happen() {
    let gateway = Gateway::new();
    gateway.store.failing.store(100, Ordering::SeqCst);
    let mut ran = false;
    let owner = holder(BuiltInRole::Owner);
    let outcome = gateway.operations.write(&owner, Action::AksWrite, &workspace(DECLARED), |_| {
        ran = true;
        Ok(((), ServiceChanges::default()))
    });
    assert_eq!(outcome.unwrap_err().cause, Cause::Unavailable);
    assert!(!ran && gateway.events().is_empty());
}

#[test]
fn a_store_that_goes_down_in_between_leaves_a_start_without_an_end() {
    let gateway = Gateway::new();
    gateway.store.sparing.store(1, Ordering::SeqCst);
    gateway.store.failing.store(100, Ordering::SeqCst);
    let refusal = put(&gateway, &holder(BuiltInRole::Owner), "iris").unwrap_err();
    assert_eq!(refusal.cause, Cause::Unavailable);
    assert_eq!(gateway.statuses(), [Started]);
    assert_eq!(row(&gateway, "iris"), None);
    assert!(gateway.data_plane.applied.lock().unwrap().is_empty());
}

#[test]
fn a_commit_that_failed_once_is_told_as_failed() {
    let gateway = Gateway::new();
    gateway.store.sparing.store(1, Ordering::SeqCst);
    gateway.store.failing.store(1, Ordering::SeqCst);
    put(&gateway, &holder(BuiltInRole::Owner), "iris").unwrap_err();
    assert_eq!(gateway.statuses(), [Started, Failed]);
    assert_eq!(row(&gateway, "iris"), None);
}

#[test]
fn what_the_data_plane_cannot_build_stays_stored_and_is_said() {
    let gateway = Gateway::new();
    gateway.data_plane.fails.store(true, Ordering::Relaxed);
    let refusal = put(&gateway, &holder(BuiltInRole::Owner), "iris").unwrap_err();
    assert_eq!(refusal.cause, Cause::Internal);
    assert!(row(&gateway, "iris").is_some());
    assert_eq!(gateway.statuses(), [Started, Succeeded, Failed]);
}

/// Another process that appends to the log.
fn appends(rows: &crate::store::MemoryStore) {
    let mut batch = Batch::default();
    let mut tail = Tail::open(rows, &mut batch).unwrap();
    let elsewhere = caller("elsewhere", ActionSet::NONE);
    tail.push(Entry::new(&elsewhere, "x", "y").started(), &mut batch).unwrap();
    tail.close(&mut batch).unwrap();
    rows.commit(batch).unwrap();
}

#[test]
fn another_process_in_the_log_costs_a_round_and_no_event() {
    let gateway = Gateway::new();
    for _ in 0..10 {
        gateway.store.rivals.lock().unwrap().push(Box::new(appends));
    }
    put(&gateway, &holder(BuiltInRole::Owner), "iris").unwrap();
    let events = gateway.events();
    assert_eq!(events.iter().map(|it| it.sequence).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    assert_eq!(events.iter().filter(|it| it.caller == "owner").count(), 2);
    assert!(row(&gateway, "iris").is_some());
}

#[test]
fn a_log_that_is_never_at_rest_is_unavailable() {
    let gateway = Gateway::new();
    for _ in 0..HEAD_ROUNDS {
        gateway.store.rivals.lock().unwrap().push(Box::new(appends));
    }
    let refusal = put(&gateway, &holder(BuiltInRole::Owner), "iris").unwrap_err();
    assert_eq!(refusal.cause, Cause::Unavailable);
    assert_eq!(row(&gateway, "iris"), None);
}

/// Adds a letter to a row, on the condition that it is as it was read.
fn grow(gateway: &Gateway, seen: Option<u64>) -> Result<Versioned<()>, Refusal> {
    let owner = holder(BuiltInRole::Owner);
    gateway.operations.write(&owner, Action::AksWrite, &workspace(DECLARED), |batch| {
        let row = gateway.store.get(Table::Services, b"iris")?;
        let (mut value, expect) =
            row.map_or((vec![], Expect::Absent), |row| (row.value, Expect::Version(row.version)));
        if let Some(seen) = seen
            && expect != Expect::Version(seen)
        {
            return Err(Refusal::new(Cause::PreconditionFailed, "changed"));
        }
        value.push(b'a');
        batch.expect(Table::Services, "iris", expect).put(Table::Services, "iris", value);
        Ok(((), ServiceChanges::default()))
    })
}

#[test]
fn a_row_changed_meanwhile_is_read_again() {
    let gateway = Gateway::new();
    let touch = |rows: &crate::store::MemoryStore| {
        let value = rows.get(Table::Services, b"iris").unwrap().map_or(vec![], |row| row.value);
        let mut batch = Batch::default();
        batch.put(Table::Services, "iris", [value.as_slice(), b"b"].concat());
        rows.commit(batch).unwrap();
    };
    let read = |gateway: &Gateway| gateway.store.get(Table::Services, b"iris").unwrap().unwrap();
    // The last ones of the list come first; the first commit is the start event's.
    for _ in 0..3 {
        gateway.store.rivals.lock().unwrap().push(Box::new(touch));
    }
    grow(&gateway, None).unwrap();
    assert_eq!(read(&gateway).value, b"bbba");

    let seen = read(&gateway).version;
    gateway.store.rivals.lock().unwrap().extend([Box::new(touch) as _, Box::new(touch) as _]);
    assert_eq!(grow(&gateway, Some(seen)).unwrap_err().cause, Cause::PreconditionFailed);
    assert_eq!(read(&gateway).value, b"bbbabb");

    for _ in 0..=ROW_ROUNDS {
        gateway.store.rivals.lock().unwrap().push(Box::new(touch));
    }
    assert_eq!(grow(&gateway, None).unwrap_err().cause, Cause::PreconditionFailed);
}

#[test]
fn writes_of_many_threads_reach_the_data_plane_in_the_order_of_their_commits() {
    let gateway = Gateway::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let gateway = &gateway;
            scope.spawn(move || {
                for number in 0..10 {
                    put(gateway, &holder(BuiltInRole::Owner), &format!("svc-{thread}-{number}")).unwrap();
                }
            });
        }
    });
    let applied = gateway.data_plane.applied.lock().unwrap();
    let versions: Vec<_> =
        applied.iter().map(|changes| row(&gateway, changes.remove[0].as_str()).unwrap()).collect();
    assert_eq!(versions.len(), 40);
    assert!(versions.is_sorted(), "{versions:?}");
    assert_eq!(gateway.events().len(), 80);
}

#[test]
fn work_outside_the_store_leaves_both_events_too() {
    let gateway = Gateway::new();
    let store = Resource::of_gateway("Scoregate/store");
    let act = |caller: &Caller, outcome: Result<u8, Refusal>| {
        gateway.operations.act(caller, Action::StoreBackup, &store, || outcome)
    };
    let owner = holder(BuiltInRole::Owner);
    assert_eq!(act(&owner, Ok(7)), Ok(7));
    assert!(act(&owner, Err(Refusal::new(Cause::Full, "full"))).is_err());
    assert!(act(&holder(BuiltInRole::Contributor), Ok(7)).is_err());
    assert!(act(&holder_in(DECLARED, BuiltInRole::Owner), Ok(7)).is_err(), "it is not the workspace's");
    assert_eq!(gateway.statuses(), [Started, Succeeded, Started, Failed, Started, Failed, Started, Failed]);
}

#[test]
fn strangers_are_logged_up_to_a_bound() {
    let gateway = Gateway::new();
    let why = Refusal::new(Cause::AuthInvalid, "unknown");
    for _ in 0..STRANGERS_LOGGED + 5 {
        let path = format!("/v1/{}", "x".repeat(5000));
        gateway.operations.log_stranger("Scoregate/unauthenticated/write", &path, &request(), &why);
    }
    let events = gateway.events();
    assert_eq!(events.len(), 2 * STRANGERS_LOGGED as usize);
    assert!(events.iter().all(|it| it.caller.is_empty() && it.resource_id.len() == 512));

    let (mut strangers, start) = (Strangers::default(), Instant::now());
    let logged = (0..100).filter(|_| strangers.knock(start).log).count();
    assert_eq!(logged, STRANGERS_LOGGED as usize);
    let later = strangers.knock(start + STRANGERS_WINDOW);
    assert!(later.log);
    assert_eq!(later.unlogged, Some(40));
}

#[test]
fn old_events_go_as_new_ones_come() {
    let mut short = settings();
    short.activity_retention = Duration::ZERO;
    let gateway = Gateway::with(short);
    for number in 0..20 {
        put(&gateway, &holder(BuiltInRole::Owner), &format!("svc-{number}")).unwrap();
        assert!(gateway.events().len() <= 4, "{:?}", gateway.statuses());
    }
    let operations = Range {
        table: Table::ActivityByOperation,
        prefix: &[],
        after: None,
        limit: 100,
        order: Order::Forwards,
    };
    assert_eq!(gateway.store.scan(&operations).unwrap().len(), gateway.events().len());
    assert!(gateway.events().last().unwrap().sequence == 40);
}

#[test]
fn the_log_goes_on_after_a_restart() {
    let store = std::sync::Arc::<TestStore>::default();
    for round in 1..=3 {
        let gateway = Gateway::on(std::sync::Arc::clone(&store), settings());
        put(&gateway, &holder(BuiltInRole::Owner), "iris").unwrap();
        assert_eq!(gateway.events().len(), 2 * round);
    }
}
