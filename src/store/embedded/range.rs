//! A page of a table, read without reading more.

use std::ops::Bound;

use redb::ReadTransaction;

use super::error::Failure;
use super::layout::{data, decode};
use crate::store::{Order, Range, Row};

/// The rows of `range`.
pub(super) fn scan(moment: &ReadTransaction, range: &Range<'_>) -> Result<Vec<Row>, Failure> {
    let (from, to) = (first(range), end(range));
    let (Bound::Included(least) | Bound::Excluded(least)) = from else { return Ok(Vec::new()) };
    // redb refuses a range that ends before it begins.
    let to = match to.as_deref() {
        Some(to) if least >= to => return Ok(Vec::new()),
        Some(to) => Bound::Excluded(to),
        None => Bound::Unbounded,
    };
    let mut rows = moment.open_table(data(range.table))?.range::<&[u8]>((from, to))?;
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

/// From which key on, in the order of keys.
fn first<'a>(range: &Range<'a>) -> Bound<&'a [u8]> {
    match (range.order, range.after) {
        (Order::Forwards, Some(after)) if after >= range.prefix => Bound::Excluded(after),
        _ => Bound::Included(range.prefix),
    }
}

/// Up to which key, which is not one of them; `None` if there is no end.
fn end(range: &Range<'_>) -> Option<Vec<u8>> {
    let end = successor(range.prefix);
    match (range.order, range.after) {
        (Order::Backwards, Some(after)) if end.as_deref().is_none_or(|end| after < end) => {
            Some(after.to_vec())
        }
        _ => end,
    }
}

/// The first key after all keys that begin with `prefix`, if there is one.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor)
}
