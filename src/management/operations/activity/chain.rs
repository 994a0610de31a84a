//! The log as it is kept: one row per event, each naming the hash of the row before it, under one head.
//!
//! The head (sequence and hash of the last event) is a condition of every batch that appends, so that two processes of
//! one store never give out the same place. The anchor is the last event that retention has removed: the oldest event
//! still there must name its hash. What nobody can do without leaving a trace is to edit, drop, add or move an event;
//! who can write the store and knows this code can make a whole new chain, which only a copy kept elsewhere shows.

use std::net::IpAddr;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::super::hex;
use super::super::view::{ActivityEvent, ActivityStatus};
use crate::management::{Caller, Refusal, RequestFacts};
use crate::store::{Batch, Expect, Order, Range, Store, StoreError, Table};

/// Row of [`Table::Meta`] that holds the head.
const HEAD: &[u8] = b"activity/head";

/// Row of [`Table::Meta`] that holds the anchor.
const ANCHOR: &[u8] = b"activity/anchor";

/// Most events that one append removes for their age: more than it adds, so that a backlog shrinks, and still few.
const PRUNED_AT_ONCE: usize = 16;

/// Longest text of an event that came from outside, in bytes.
const MAX_TEXT: usize = 512;

/// A place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    /// Sequence of the event; 0: before the first one.
    pub(super) sequence: u64,
    /// Hex SHA-256 of its stored bytes.
    pub(super) hash: String,
}

/// What both events of one operation have in common.
#[derive(Clone, Debug)]
pub(in crate::management::operations) struct Entry {
    operation_id: String,
    correlation_id: String,
    operation_name: String,
    caller: String,
    client: IpAddr,
    method: String,
    resource_id: String,
}

/// The end of the chain, where events are appended to a batch.
pub(in crate::management::operations) struct Tail {
    last: Link,
}

impl Entry {
    /// An operation of `caller`.
    pub(in crate::management::operations) fn new(
        caller: &Caller,
        operation_name: &str,
        resource_id: &str,
    ) -> Self {
        Self::of_request(&caller.request, &caller.principal, operation_name, resource_id)
    }

    /// An operation of whoever sent `request`.
    pub(in crate::management::operations) fn of_request(
        request: &RequestFacts,
        principal: &str,
        operation_name: &str,
        resource_id: &str,
    ) -> Self {
        let operation_id = request.operation_id.to_string();
        Self {
            correlation_id: request.client_request_id.clone().unwrap_or_else(|| operation_id.clone()),
            operation_id,
            operation_name: bounded(operation_name),
            caller: bounded(principal),
            client: request.client,
            method: bounded(&request.method),
            resource_id: bounded(resource_id),
        }
    }

    /// The event of its start.
    pub(in crate::management::operations) fn started(&self) -> ActivityEvent {
        self.event(ActivityStatus::Started, None, None)
    }

    /// The event of its end.
    pub(in crate::management::operations) fn succeeded(&self) -> ActivityEvent {
        self.event(ActivityStatus::Succeeded, Some(200), None)
    }

    /// The event of its end, when it was refused.
    pub(in crate::management::operations) fn failed(&self, why: &Refusal) -> ActivityEvent {
        let error = bounded(&format!("{}: {why}", why.cause.code()));
        self.event(ActivityStatus::Failed, Some(why.cause.status()), Some(error))
    }

    fn event(
        &self,
        status: ActivityStatus,
        status_code: Option<u16>,
        error: Option<String>,
    ) -> ActivityEvent {
        ActivityEvent {
            sequence: 0,
            event_timestamp: OffsetDateTime::now_utc(),
            operation_id: self.operation_id.clone(),
            correlation_id: self.correlation_id.clone(),
            operation_name: self.operation_name.clone(),
            caller: self.caller.clone(),
            client_ip_address: self.client,
            method: self.method.clone(),
            resource_id: self.resource_id.clone(),
            status,
            status_code,
            error,
            previous_hash: String::new(),
        }
    }
}

impl Tail {
    /// The end of the chain now. `batch` can only happen while nobody else appends.
    pub(in crate::management::operations) fn open(
        store: &dyn Store,
        batch: &mut Batch,
    ) -> Result<Self, StoreError> {
        let (last, expect) = match store.get(Table::Meta, HEAD)? {
            Some(row) => (link("head", &row.value)?, Expect::Version(row.version)),
            None => (Link::genesis(), Expect::Absent),
        };
        batch.expect(Table::Meta, HEAD, expect);
        Ok(Self { last })
    }

    /// Adds the next event; its place in the chain is given here.
    pub(in crate::management::operations) fn push(
        &mut self,
        mut event: ActivityEvent,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        event.sequence = self.last.sequence + 1;
        event.previous_hash = std::mem::take(&mut self.last.hash);
        let bytes = encode(&event)?;
        self.last = Link { sequence: event.sequence, hash: hash(&bytes) };
        batch.put(Table::Activity, event.sequence.to_be_bytes(), bytes);
        batch.put(Table::ActivityByOperation, operation_key(&event.operation_id, event.sequence), Vec::new());
        Ok(())
    }

    /// Moves the head to the last event added.
    pub(in crate::management::operations) fn close(self, batch: &mut Batch) -> Result<(), StoreError> {
        batch.put(Table::Meta, HEAD, encode(&self.last)?);
        Ok(())
    }
}

/// Whether a conflict is about the end of the chain: another process has appended.
pub(in crate::management::operations) fn is_head(table: Table, key: &[u8]) -> bool {
    table == Table::Meta && key == HEAD
}

/// Lets `batch` remove some of the events from before `oldest`, if there are any, and move the anchor along.
///
/// Stops at an event that does not fit the chain: what was tampered with stays to be seen.
pub(in crate::management::operations) fn prune(
    store: &dyn Store,
    oldest: OffsetDateTime,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    let (mut anchor, expect) = match store.get(Table::Meta, ANCHOR)? {
        Some(row) => (link("anchor", &row.value)?, Expect::Version(row.version)),
        None => (Link::genesis(), Expect::Absent),
    };
    let from = anchor.sequence;
    let first = Range {
        table: Table::Activity,
        prefix: &[],
        after: None,
        limit: PRUNED_AT_ONCE,
        order: Order::Forwards,
    };
    for row in store.scan(&first)? {
        let next = match follow(&anchor, &row.key, &row.value) {
            Ok((event, next)) if event.event_timestamp < oldest => {
                batch.remove(Table::Activity, row.key);
                batch.remove(Table::ActivityByOperation, operation_key(&event.operation_id, event.sequence));
                next
            }
            Ok(_) => break,
            Err(broken) => {
                tracing::error!(broken, after = anchor.sequence, "the activity log does not hold together");
                break;
            }
        };
        anchor = next;
    }
    if anchor.sequence > from {
        batch.expect(Table::Meta, ANCHOR, expect);
        batch.put(Table::Meta, ANCHOR, encode(&anchor)?);
    }
    Ok(())
}

/// The event of a row, if it is the one after `before`, and its own place.
pub(super) fn follow(before: &Link, key: &[u8], value: &[u8]) -> Result<(ActivityEvent, Link), String> {
    let sequence = sequence_of(key).ok_or("its key is no sequence number")?;
    if sequence != before.sequence + 1 {
        return Err(format!("event {} is missing", before.sequence + 1));
    }
    let event = decode(value).map_err(|error| format!("it cannot be read: {error}"))?;
    if event.sequence != sequence {
        return Err(format!("it says that it is event {}", event.sequence));
    }
    if event.previous_hash != before.hash {
        return Err("it does not name the hash of the event before it".into());
    }
    Ok((event, Link { sequence, hash: hash(value) }))
}

/// The head; the genesis if there is none.
pub(super) fn head(store: &dyn Store) -> Result<Link, StoreError> {
    store.get(Table::Meta, HEAD)?.map_or_else(|| Ok(Link::genesis()), |row| link("head", &row.value))
}

/// The anchor; the genesis if there is none.
pub(super) fn anchor(store: &dyn Store) -> Result<Link, StoreError> {
    store.get(Table::Meta, ANCHOR)?.map_or_else(|| Ok(Link::genesis()), |row| link("anchor", &row.value))
}

impl Link {
    fn genesis() -> Self {
        Self { sequence: 0, hash: "0".repeat(64) }
    }
}

/// The sequence number of a row's key.
pub(super) fn sequence_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// The event in a row.
pub(super) fn decode(value: &[u8]) -> Result<ActivityEvent, serde_json::Error> {
    serde_json::from_slice(value)
}

/// Key of an event among those of its operation: `operation id/`, then the sequence number.
fn operation_key(operation_id: &str, sequence: u64) -> Vec<u8> {
    [operation_prefix(operation_id).as_slice(), &sequence.to_be_bytes()].concat()
}

/// What the keys of an operation's events begin with.
pub(super) fn operation_prefix(operation_id: &str) -> Vec<u8> {
    format!("{operation_id}/").into_bytes()
}

fn link(what: &str, value: &[u8]) -> Result<Link, StoreError> {
    serde_json::from_slice(value)
        .map_err(|error| StoreError::Corrupt(format!("{what} of the activity log: {error}")))
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Io(format!("activity log: {error}")))
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}
