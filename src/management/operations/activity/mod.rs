//! The activity log: who did what to which resource and how it ended; append-only, each event chained to the one before.

mod chain;
mod outlet;
mod verify;

use time::OffsetDateTime;

use super::resource::workspace_of;
use super::{
    ActivityEvent, ActivityFilter, ActivityStatus, ActivityVerdict, OperationStatus, Operations, Page, PageOf,
};
use crate::catalog::Action;
use crate::management::{Caller, Refusal};
use crate::store::{Order, Range, Row, StoreError, Table};

pub(super) use chain::{Entry, Tail, is_head, prune};
pub use outlet::EventOutlet;
pub use verify::verify;

/// Rows read at once.
const ROWS_AT_ONCE: usize = 200;

/// Most events of one operation that are read.
const EVENTS_OF_OPERATION: usize = 16;

/// An operation that has not ended after this time never will: its process was stopped. Its end would have been
/// committed with its change, so nothing was changed.
const LONGEST_OPERATION: time::Duration = time::Duration::minutes(10);

impl Operations {
    /// Events, newest first.
    ///
    /// # Errors
    /// Without the right to read the log of the filter's workspace (`None`: of the gateway); an unknown cursor.
    pub fn activity(
        &self,
        caller: &Caller,
        filter: &ActivityFilter,
        page: &Page,
    ) -> Result<PageOf<ActivityEvent>, Refusal> {
        caller.check(Action::ActivityRead, filter.workspace.as_deref())?;
        page.fill(self.newest_first(page.after()?), |row| {
            let event = event(&row)?;
            Ok(filter.fits(&event).then_some(event))
        })
    }

    /// Reads the whole chain.
    ///
    /// # Errors
    /// Without the right to read the log of the gateway; the store cannot be read.
    pub fn verify_activity(&self, caller: &Caller) -> Result<ActivityVerdict, Refusal> {
        caller.check(Action::ActivityRead, None)?;
        Ok(verify(&*self.store)?)
    }

    /// The operation of that id, if it was the caller's or the caller may read the log of what it was about.
    ///
    /// # Errors
    /// There is none, or none that the caller may know of: the same answer.
    pub fn operation(&self, caller: &Caller, id: &str) -> Result<OperationStatus, Refusal> {
        let unknown = || Refusal::not_found("such operation");
        let events = self.events_of(id)?;
        let first = events.first().ok_or_else(unknown)?;
        let own = first.caller == *caller.principal && !first.caller.is_empty();
        if !own && caller.check(Action::ActivityRead, workspace_of(&first.resource_id)).is_err() {
            return Err(unknown());
        }
        status_of(&events, OffsetDateTime::now_utc()).ok_or_else(unknown)
    }

    fn events_of(&self, operation_id: &str) -> Result<Vec<ActivityEvent>, Refusal> {
        let prefix = chain::operation_prefix(operation_id);
        let keys = self.store.scan(&Range {
            table: Table::ActivityByOperation,
            prefix: &prefix,
            after: None,
            limit: EVENTS_OF_OPERATION,
            order: Order::Forwards,
        })?;
        let mut events = Vec::new();
        for key in keys {
            // Retention may take an event between the two reads.
            if let Some(row) = self.store.get(Table::Activity, &key.key[prefix.len()..])? {
                events.push(event(&row)?);
            }
        }
        Ok(events)
    }

    /// Rows of events before the one with the key `before`, fetched as they are asked for.
    fn newest_first(
        &self,
        mut before: Option<Vec<u8>>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Row), Refusal>> {
        let chunks = std::iter::from_fn(move || {
            let rows = self.store.scan(&Range {
                table: Table::Activity,
                prefix: &[],
                after: before.as_deref(),
                limit: ROWS_AT_ONCE,
                order: Order::Backwards,
            });
            match rows {
                Ok(rows) => {
                    before = Some(rows.last()?.key.clone());
                    Some(rows.into_iter().map(|row| Ok((row.key.clone(), row))).collect::<Vec<_>>())
                }
                // The page ends at the first error: this is the last chunk that is asked for.
                Err(error) => Some(vec![Err(error.into())]),
            }
        });
        chunks.flatten()
    }
}

impl ActivityFilter {
    fn fits(&self, event: &ActivityEvent) -> bool {
        let begins = |prefix: &String| {
            event.resource_id.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let is_in = |workspace: &String| {
            workspace_of(&event.resource_id).is_some_and(|name| name.eq_ignore_ascii_case(workspace))
        };
        self.from.is_none_or(|from| event.event_timestamp >= from)
            && self.to.is_none_or(|to| event.event_timestamp < to)
            && self.caller.as_ref().is_none_or(|caller| event.caller == *caller)
            && self.operation_name.as_ref().is_none_or(|name| event.operation_name.eq_ignore_ascii_case(name))
            && self.resource_id.as_ref().is_none_or(begins)
            && self.workspace.as_ref().is_none_or(is_in)
    }
}

/// What the events of one operation, in their order, say of it.
fn status_of(events: &[ActivityEvent], now: OffsetDateTime) -> Option<OperationStatus> {
    let (first, last) = (events.first()?, events.last()?);
    let over = last.status != ActivityStatus::Started;
    let cut_off = !over && now - last.event_timestamp > LONGEST_OPERATION;
    Some(OperationStatus {
        status: if cut_off { ActivityStatus::Failed } else { last.status },
        operation_name: first.operation_name.clone(),
        resource_id: first.resource_id.clone(),
        started_at: first.event_timestamp,
        ended_at: (over || cut_off).then_some(last.event_timestamp),
        error: if cut_off {
            Some(
                "InternalError: the gateway was stopped before it came to an end; nothing was changed".into(),
            )
        } else {
            last.error.clone()
        },
    })
}

fn event(row: &Row) -> Result<ActivityEvent, Refusal> {
    let read = chain::decode(&row.value);
    Ok(read.map_err(|error| {
        let sequence = chain::sequence_of(&row.key).unwrap_or_default();
        StoreError::Corrupt(format!("event {sequence} of the activity log: {error}"))
    })?)
}

#[cfg(test)]
mod tests;
