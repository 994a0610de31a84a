//! Reading, polling and verifying the log; whatever is done to a stored one is found.

use std::time::Duration;

use proptest::prelude::*;

use super::super::fixtures::{DECLARED, Gateway, holder, holder_in, request, settings};
use super::super::resource::Resource;
use super::*;
use crate::catalog::{BuiltInRole, ComputeType, WorkspaceSpec};
use crate::management::Cause;
use crate::proxy::ServiceChanges;
use crate::store::{Batch, MemoryStore, Store};

use ActivityStatus::{Failed, Started, Succeeded};

fn service(workspace: &str, name: &str) -> Resource {
    Resource::workspace(workspace, &WorkspaceSpec::default()).service(ComputeType::Aks, name)
}

fn touch(gateway: &Gateway, caller: &Caller, resource: &Resource) -> String {
    let mut caller = caller.clone();
    caller.request = request();
    let nothing = |_: &mut Batch| Ok(((), ServiceChanges::default()));
    let _ = gateway.operations.write(&caller, Action::AksWrite, resource, nothing);
    caller.request.operation_id.to_string()
}

/// All pages of a query, and how many there were.
fn all(
    gateway: &Gateway,
    caller: &Caller,
    filter: &ActivityFilter,
    limit: usize,
) -> (Vec<ActivityEvent>, usize) {
    let (mut found, mut pages) = (vec![], 0);
    let mut page = Page { limit, cursor: None };
    loop {
        let part = gateway.operations.activity(caller, filter, &page).unwrap();
        assert!(part.items.len() <= limit);
        found.extend(part.items);
        pages += 1;
        page.cursor = part.next;
        if page.cursor.is_none() {
            return (found, pages);
        }
    }
}

fn with_events(count: usize) -> Gateway {
    let gateway = Gateway::new();
    for number in 0..count {
        touch(&gateway, &holder(BuiltInRole::Owner), &service(DECLARED, &format!("svc-{number}")));
    }
    gateway
}

#[test]
fn events_come_newest_first_in_pages() {
    let gateway = with_events(5);
    let owner = holder(BuiltInRole::Owner);
    for limit in [1, 3, 9, 10, 11, 1000] {
        let (events, pages) = all(&gateway, &owner, &ActivityFilter::default(), limit);
        let sequences: Vec<_> = events.iter().map(|it| it.sequence).collect();
        assert_eq!(sequences, (1..=10).rev().collect::<Vec<_>>(), "{limit}");
        assert_eq!(pages, 10_usize.div_ceil(limit), "{limit}");
    }
    let bad = Page { limit: 10, cursor: Some("no cursor".into()) };
    let refusal = gateway.operations.activity(&owner, &ActivityFilter::default(), &bad).unwrap_err();
    assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some("cursor")));
}

#[test]
fn filters_select() {
    let gateway = Gateway::new();
    let (owner, contributor) = (holder(BuiltInRole::Owner), holder(BuiltInRole::Contributor));
    touch(&gateway, &owner, &service("first", "iris"));
    touch(&gateway, &contributor, &service("First", "wine"));
    touch(&gateway, &contributor, &service("second", "iris"));
    touch(&gateway, &owner, &service("first-2", "iris"));
    let count = |filter: &ActivityFilter| all(&gateway, &owner, filter, 3).0.len();
    let by = |edit: fn(&mut ActivityFilter)| {
        let mut filter = ActivityFilter::default();
        edit(&mut filter);
        filter
    };
    let cut = gateway.events()[3].event_timestamp;
    for (filter, expected) in [
        (by(|_| {}), 8),
        (by(|it| it.caller = Some("owner".into())), 4),
        (by(|it| it.caller = Some("Owner".into())), 0),
        (by(|it| it.workspace = Some("FIRST".into())), 4),
        (by(|it| it.workspace = Some("second".into())), 2),
        (by(|it| it.operation_name = Some(Action::AksWrite.as_str().to_uppercase())), 8),
        (by(|it| it.operation_name = Some("other".into())), 0),
        (by(|it| it.resource_id = Some(service("FIRST", "iris").id().to_owned())), 2),
        (by(|it| it.resource_id = Some("/subscriptions/".into())), 8),
        (ActivityFilter { from: Some(cut), ..by(|_| {}) }, 5),
        (ActivityFilter { to: Some(cut), ..by(|_| {}) }, 3),
    ] {
        assert_eq!(count(&filter), expected, "{filter:?}");
    }
}

#[test]
fn the_log_of_a_workspace_is_for_those_who_may_read_it() {
    let gateway = with_events(1);
    let of = |workspace: Option<&str>| ActivityFilter {
        workspace: workspace.map(str::to_owned),
        ..ActivityFilter::default()
    };
    let read = |caller: &Caller, workspace| {
        gateway.operations.activity(caller, &of(workspace), &Page::default()).map(|page| page.items.len())
    };
    let reader = holder_in(DECLARED, BuiltInRole::Reader);
    assert_eq!(read(&reader, Some(DECLARED)), Ok(2));
    for place in [None, Some("other")] {
        assert_eq!(read(&reader, place).unwrap_err().cause, Cause::Forbidden(Action::ActivityRead));
    }
    assert_eq!(read(&holder(BuiltInRole::Reader), None), Ok(2));
    assert!(gateway.operations.verify_activity(&reader).is_err());
    let before = gateway.events().len();
    assert!(gateway.operations.verify_activity(&holder(BuiltInRole::Reader)).is_ok());
    assert_eq!(gateway.events().len(), before, "reads leave no event");
}

#[test]
fn a_rare_event_in_a_long_log_is_found_over_several_pages() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    touch(&gateway, &owner, &service("rare", "iris"));
    let mut batch = Batch::default();
    let mut tail = Tail::open(&*gateway.store, &mut batch).unwrap();
    for _ in 0..5_100 {
        tail.push(Entry::new(&owner, "x", "y").started(), &mut batch).unwrap();
    }
    tail.close(&mut batch).unwrap();
    gateway.store.commit(batch).unwrap();
    let filter = ActivityFilter { workspace: Some("rare".into()), ..ActivityFilter::default() };
    let (events, pages) = all(&gateway, &owner, &filter, 10);
    assert_eq!((events.len(), pages), (2, 2));
}

#[test]
fn an_operation_is_known_to_its_caller_and_to_readers_of_the_log() {
    let gateway = Gateway::new();
    let contributor = holder_in(DECLARED, BuiltInRole::Contributor);
    let id = touch(&gateway, &contributor, &service(DECLARED, "iris"));
    let status = |caller: &Caller, id: &str| gateway.operations.operation(caller, id);
    let seen = status(&contributor, &id).unwrap();
    assert_eq!((seen.status, seen.operation_name.as_str()), (Succeeded, Action::AksWrite.as_str()));
    assert!(seen.ended_at.unwrap() >= seen.started_at);
    assert!(status(&holder_in(DECLARED, BuiltInRole::Reader), &id).is_ok());
    let stranger = status(&holder_in("other", BuiltInRole::Owner), &id).unwrap_err();
    assert_eq!(stranger, status(&contributor, "no-such-operation").unwrap_err());
    assert_eq!(stranger.cause, Cause::NotFound);
    assert_eq!(status(&contributor, &id[..8]).unwrap_err().cause, Cause::NotFound, "no part of an id");

    let refused = touch(&gateway, &holder_in("other", BuiltInRole::Owner), &service(DECLARED, "iris"));
    let seen = status(&holder_in("other", BuiltInRole::Owner), &refused).unwrap();
    assert_eq!(seen.status, Failed);
    assert!(seen.error.unwrap().starts_with("AuthorizationFailed"));
}

#[test]
fn an_operation_that_was_cut_off_is_failed_after_a_while() {
    let owner = holder(BuiltInRole::Owner);
    let started = Entry::new(&owner, "x", "y").started();
    let begun = started.event_timestamp;
    let at = |now| status_of(std::slice::from_ref(&started), now).unwrap();
    assert_eq!((at(begun).status, at(begun).ended_at), (Started, None));
    assert_eq!(at(begun + LONGEST_OPERATION).status, Started);
    let late = at(begun + LONGEST_OPERATION + time::Duration::SECOND);
    assert_eq!((late.status, late.error.is_some()), (Failed, true));
}

#[test]
fn an_untouched_log_verifies_whatever_its_length_and_age() {
    assert_eq!(verify(&MemoryStore::default()).unwrap(), ActivityVerdict { events: 0, broken: None });
    for count in [1, 2, 300] {
        let gateway = with_events(count);
        let verdict = verify(&*gateway.store).unwrap();
        assert_eq!(verdict, ActivityVerdict { events: 2 * count as u64, broken: None });
    }
    let mut short = settings();
    short.activity_retention = Duration::ZERO;
    let gateway = Gateway::with(short);
    for _ in 0..30 {
        touch(&gateway, &holder(BuiltInRole::Owner), &service(DECLARED, "iris"));
    }
    let verdict = verify(&*gateway.store).unwrap();
    assert!(verdict.broken.is_none() && verdict.events < 5, "{verdict:?}");
}

#[test]
fn retention_leaves_what_was_tampered_with_to_be_seen() {
    let store = std::sync::Arc::default();
    let gateway = Gateway::on(std::sync::Arc::clone(&store), settings());
    for _ in 0..3 {
        touch(&gateway, &holder(BuiltInRole::Owner), &service(DECLARED, "iris"));
    }
    edit(&store.rows, 2, |event| event.caller = "somebody else".into());
    let mut short = settings();
    short.activity_retention = Duration::ZERO;
    let gateway = Gateway::on(store, short);
    for _ in 0..10 {
        touch(&gateway, &holder(BuiltInRole::Owner), &service(DECLARED, "iris"));
    }
    let verdict = verify(&*gateway.store).unwrap();
    assert_eq!(verdict.broken.map(|(at, _)| at), Some(3), "the event after it does not name it");
    assert_eq!(gateway.events()[0].sequence, 3);
}

#[test]
fn a_log_in_use_verifies() {
    let mut short = settings();
    short.activity_retention = Duration::ZERO;
    let gateway = Gateway::with(short);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200 {
                touch(&gateway, &holder(BuiltInRole::Owner), &service(DECLARED, "iris"));
            }
            over.store(true, std::sync::atomic::Ordering::Release);
        });
        while !over.load(std::sync::atomic::Ordering::Acquire) {
            let verdict = verify(&*gateway.store).unwrap();
            // With a retention of nothing the anchor may move in each of the rounds.
            if let Some((_, problem)) = verdict.broken {
                assert!(problem.contains("is missing"), "{problem}");
            }
        }
    });
    assert_eq!(verify(&*gateway.store).unwrap().broken, None);
}

// --- tampering

const LENGTH: u64 = 12;

fn key(sequence: u64) -> [u8; 8] {
    sequence.to_be_bytes()
}

fn value(store: &MemoryStore, sequence: u64) -> Vec<u8> {
    store.get(Table::Activity, &key(sequence)).unwrap().unwrap().value
}

fn put(store: &MemoryStore, sequence: u64, value: Option<Vec<u8>>) {
    let mut batch = Batch::default();
    batch.changes.push((Table::Activity, key(sequence).to_vec(), value));
    store.commit(batch).unwrap();
}

fn edit(store: &MemoryStore, sequence: u64, change: impl Fn(&mut ActivityEvent)) {
    let mut event = chain::decode(&value(store, sequence)).unwrap();
    change(&mut event);
    put(store, sequence, Some(serde_json::to_vec(&event).unwrap()));
}

/// One thing that somebody with the store in hand may do to the log.
#[derive(Clone, Debug)]
enum Tampering {
    FlipBit { sequence: u64, byte: prop::sample::Index, bit: u8 },
    Recall { sequence: u64, caller: String },
    Space { sequence: u64 },
    Remove { sequence: u64 },
    Cut { from: u64 },
    Behead { to: u64 },
    Insert { at: u64, like: u64 },
    Swap { one: u64, other: u64 },
    DropHead,
    MoveHead { to: u64 },
    MoveAnchor { to: u64 },
}

fn tampering() -> impl Strategy<Value = Tampering> {
    use Tampering::*;
    let sequence = || 1..=LENGTH;
    prop_oneof![
        (sequence(), any::<prop::sample::Index>(), 0..8_u8).prop_map(|(sequence, byte, bit)| FlipBit {
            sequence,
            byte,
            bit
        }),
        (sequence(), "[a-z]{1,8}").prop_map(|(sequence, caller)| Recall { sequence, caller }),
        sequence().prop_map(|sequence| Space { sequence }),
        sequence().prop_map(|sequence| Remove { sequence }),
        sequence().prop_map(|from| Cut { from }),
        sequence().prop_map(|to| Behead { to }),
        (prop_oneof![Just(0), LENGTH + 1..LENGTH + 5, Just(u64::MAX)], sequence())
            .prop_map(|(at, like)| Insert { at, like }),
        (sequence(), sequence())
            .prop_filter("two of them", |(one, other)| one != other)
            .prop_map(|(one, other)| Swap { one, other }),
        Just(DropHead),
        (0..LENGTH).prop_map(|to| MoveHead { to }),
        sequence().prop_map(|to| MoveAnchor { to }),
    ]
}

impl Tampering {
    fn happen(self, store: &MemoryStore) {
        let row = |sequence| value(store, sequence);
        match self {
            Self::FlipBit { sequence, byte, bit } => {
                let mut bytes = row(sequence);
                let at = byte.index(bytes.len());
                bytes[at] ^= 1 << bit;
                put(store, sequence, Some(bytes));
            }
            Self::Recall { sequence, caller } => {
                edit(store, sequence, |event| event.caller.clone_from(&caller))
            }
            Self::Space { sequence } => put(store, sequence, Some([b" ", row(sequence).as_slice()].concat())),
            Self::Remove { sequence } => put(store, sequence, None),
            Self::Cut { from } => (from..=LENGTH).for_each(|sequence| put(store, sequence, None)),
            Self::Behead { to } => (1..=to).for_each(|sequence| put(store, sequence, None)),
            Self::Insert { at, like } => put(store, at, Some(row(like))),
            Self::Swap { one, other } => {
                let (first, second) = (row(one), row(other));
                put(store, one, Some(second));
                put(store, other, Some(first));
            }
            Self::DropHead => meta(store, b"activity/head", None),
            Self::MoveHead { to } => meta(store, b"activity/head", Some(link_to(store, to))),
            Self::MoveAnchor { to } => meta(store, b"activity/anchor", Some(link_to(store, to))),
        }
    }
}

fn meta(store: &MemoryStore, key: &[u8], value: Option<Vec<u8>>) {
    let mut batch = Batch::default();
    batch.changes.push((Table::Meta, key.to_vec(), value));
    store.commit(batch).unwrap();
}

/// The row that names event `sequence`, as an honest head or anchor would.
fn link_to(store: &MemoryStore, sequence: u64) -> Vec<u8> {
    let mut last = chain::anchor(&MemoryStore::default()).unwrap();
    for sequence in 1..=sequence {
        last = chain::follow(&last, &key(sequence), &value(store, sequence)).unwrap().1;
    }
    serde_json::to_vec(&last).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_is_done_to_a_stored_log_is_found(tampering in tampering()) {
        let gateway = with_events(LENGTH as usize / 2);
        prop_assert_eq!(verify(&*gateway.store).unwrap().broken, None);
        tampering.happen(&gateway.store.rows);
        prop_assert!(verify(&*gateway.store).unwrap().broken.is_some());
    }
}
