//! Whether the log is whole: every event there, in its place, unchanged, up to the head.

use super::chain::{self, Link};
use crate::management::operations::ActivityVerdict;
use crate::store::{Order, Range, Row, Store, StoreError, Table};

/// Rows read at once.
const ROWS_AT_ONCE: usize = 500;

/// How often reading begins anew because retention removed events meanwhile.
const ROUNDS: u32 = 5;

/// Reads the whole log of a store, one that no process has open as well as one in use.
///
/// # Errors
/// The store cannot be read. What it says of the log, broken or not, is the verdict.
pub fn verify(store: &dyn Store) -> Result<ActivityVerdict, StoreError> {
    let mut round = 1;
    loop {
        let anchor = match chain::anchor(store) {
            Err(StoreError::Corrupt(problem)) => return Ok(broken(0, 1, problem)),
            anchor => anchor?,
        };
        let verdict = verify_from(store, &anchor)?;
        // What looks like a gap is none if the anchor has moved over it.
        if verdict.broken.is_none() || round == ROUNDS || chain::anchor(store)? == anchor {
            return Ok(verdict);
        }
        round += 1;
    }
}

fn verify_from(store: &dyn Store, anchor: &Link) -> Result<ActivityVerdict, StoreError> {
    let (mut last, mut events) = (anchor.clone(), 0);
    let mut after = None;
    loop {
        // Before these rows and after those seen: see `end`.
        let head = match chain::head(store) {
            Err(StoreError::Corrupt(problem)) => return Ok(broken(events, last.sequence + 1, problem)),
            head => head?,
        };
        let rows = rows_after(store, after.as_deref())?;
        for row in &rows {
            match chain::follow(&last, &row.key, &row.value) {
                Ok((_, next)) => last = next,
                Err(problem) => {
                    return Ok(broken(events, chain::sequence_of(&row.key).unwrap_or(0), problem));
                }
            }
            events += 1;
        }
        let Some(row) = rows.last() else {
            return Ok(end(&head, &last, events));
        };
        after = Some(row.key.clone());
    }
}

/// The verdict when no rows come after `last`. The head was read later than all rows that were seen: since a commit
/// moves both, it names the last of them.
fn end(head: &Link, last: &Link, events: u64) -> ActivityVerdict {
    if head == last {
        return ActivityVerdict { events, broken: None };
    }
    if head.sequence > last.sequence {
        let problem = format!("the log ends before event {}, which its head names", head.sequence);
        return broken(events, last.sequence + 1, problem);
    }
    broken(events, last.sequence, "the head of the log does not name it as the last event".into())
}

fn rows_after(store: &dyn Store, after: Option<&[u8]>) -> Result<Vec<Row>, StoreError> {
    store.scan(&Range {
        table: Table::Activity,
        prefix: &[],
        after,
        limit: ROWS_AT_ONCE,
        order: Order::Forwards,
    })
}

fn broken(events: u64, at: u64, problem: String) -> ActivityVerdict {
    ActivityVerdict { events, broken: Some((at, problem)) }
}
