//! A page of a table, read without reading more.

use std::ops::Bound;

use redb::ReadTransaction;

use super::error::Failure;
use super::layout::{data, decode};
use crate::store::{Order, Range, Row};

/// The rows of `range`.
pub(super) fn scan(moment: &ReadTransaction, range: &Range<'_>) -> Result<Vec<Row>, Failure> {
    let Some((from, to)) = bounds(range) else { return Ok(Vec::new()) };
    let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (from, to.as_ref().map(Vec::as_slice));
    let mut rows = moment.open_table(data(range.table))?.range::<&[u8]>(bounds)?;
    let mut found = Vec::new();
    while found.len() < range.limit {
        let next = match range.order {
            Order::Forwards => rows.next(),
            Order::Backwards => rows.next_back(),
        };
        let Some(next) = next else { break };
        let (key, bytes) = next?;
        found.push(decode(range.table, key.value(), bytes.value())?);
    }
    Ok(found)
}

/// From where to where, `None` if nothing can be in between.
fn bounds<'a>(range: &Range<'a>) -> Option<(Bound<&'a [u8]>, Bound<Vec<u8>>)> {
    let end = successor(range.prefix);
    let (from, to) = match (range.order, range.after) {
        (Order::Forwards, Some(after)) if after >= range.prefix => (Bound::Excluded(after), end),
        (Order::Backwards, Some(after)) if end.as_deref().is_none_or(|end| after < end) => {
            (Bound::Included(range.prefix), Some(after.to_vec()))
        }
        _ => (Bound::Included(range.prefix), end),
    };
    let (Bound::Included(first) | Bound::Excluded(first)) = from else { return None };
    match to {
        Some(to) if first >= to.as_slice() => None,
        Some(to) => Some((from, Bound::Excluded(to))),
        None => Some((from, Bound::Unbounded)),
    }
}

/// The first key after all keys that begin with `prefix`, if there is one.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor)
}
