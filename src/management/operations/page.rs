//! Pages of lists: an opaque cursor, a bounded page, and a bounded search for what fills it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Page, PageOf};
use crate::management::Refusal;
use crate::store::Row;

/// Largest page.
const MAX_LIMIT: usize = 1000;

/// Most candidates that one call looks at. A filter that lets few pass gives short pages with a `next` instead of keeping
/// the store busy.
const MOST_LOOKED_AT: usize = 5000;

impl Page {
    /// The key that the page before ended with.
    ///
    /// # Errors
    /// A limit out of bounds, or a cursor that no page gave.
    pub(super) fn after(&self) -> Result<Option<Vec<u8>>, Refusal> {
        if !(1..=MAX_LIMIT).contains(&self.limit) {
            let limit = self.limit;
            return Err(Refusal::invalid(
                "limit",
                format!("{limit} is out of range; a page has 1 to {MAX_LIMIT} items"),
            ));
        }
        let decoded = self.cursor.as_ref().map(|cursor| URL_SAFE_NO_PAD.decode(cursor)).transpose();
        decoded.map_err(|_| {
            Refusal::invalid("cursor", "is no cursor of this list; pass on what the page before gave as next")
        })
    }

    /// What a caller passes on to go on after `key`.
    pub(super) fn cursor_of(key: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(key)
    }

    /// Fills a page from `candidates`, which come in the order of their keys and begin after the cursor; `accept` says
    /// what becomes of each, `None` leaves it out.
    ///
    /// # Errors
    /// The first one of the two.
    pub(super) fn fill<C, T>(
        &self,
        candidates: impl Iterator<Item = Result<(Vec<u8>, C), Refusal>>,
        mut accept: impl FnMut(C) -> Result<Option<T>, Refusal>,
    ) -> Result<PageOf<T>, Refusal> {
        let mut items = Vec::new();
        let mut last = None;
        for (looked_at, candidate) in candidates.enumerate() {
            let (key, candidate) = candidate?;
            if items.len() == self.limit || looked_at == MOST_LOOKED_AT {
                return Ok(PageOf { items, next: last.map(|key: Vec<u8>| Self::cursor_of(&key)) });
            }
            items.extend(accept(candidate)?);
            last = Some(key);
        }
        Ok(PageOf { items, next: None })
    }
}

/// A candidate of a list that has declared and stored ones.
pub(super) enum Candidate<D> {
    /// Of the configuration.
    Declared(D),
    /// Of the store.
    Stored(Row),
}

/// Declared and stored candidates as one list. Both come in the order of their keys; a declared one hides a stored one of
/// its key, which was made before it was declared.
pub(super) fn merged<D>(
    declared: Vec<(Vec<u8>, D)>,
    stored: impl Iterator<Item = Result<(Vec<u8>, Row), Refusal>>,
) -> impl Iterator<Item = Result<(Vec<u8>, Candidate<D>), Refusal>> {
    let mut declared = declared.into_iter().peekable();
    let mut stored = stored.peekable();
    std::iter::from_fn(move || {
        if let Some((next, _)) = declared.peek() {
            stored.next_if(|row| row.as_ref().is_ok_and(|(key, _)| key == next));
            let is_next = match stored.peek() {
                Some(Ok((key, _))) => next < key,
                Some(Err(_)) => false,
                None => true,
            };
            if is_next {
                return declared.next().map(|(key, it)| Ok((key, Candidate::Declared(it))));
            }
        }
        Some(stored.next()?.map(|(key, row)| (key, Candidate::Stored(row))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::management::Cause;

    fn page(limit: usize, cursor: Option<String>) -> Page {
        Page { limit, cursor }
    }

    /// A list of the numbers up to `length`; those that `accept` lets pass.
    fn list(page: &Page, length: u32, accept: impl Fn(u32) -> bool) -> PageOf<u32> {
        let after = page.after().unwrap();
        let from = after.map_or(0, |key| u32::from_be_bytes(key.try_into().unwrap()) + 1);
        let candidates = (from..length).map(|number| Ok((number.to_be_bytes().to_vec(), number)));
        page.fill(candidates, |number| Ok(accept(number).then_some(number))).unwrap()
    }

    #[test]
    fn pages_follow_each_other_without_gap_and_the_last_has_no_next() {
        let first = list(&page(2, None), 5, |_| true);
        assert_eq!(first.items, [0, 1]);
        let second = list(&page(2, first.next), 5, |_| true);
        assert_eq!(second.items, [2, 3]);
        let third = list(&page(2, second.next), 5, |_| true);
        assert_eq!((third.items, third.next), (vec![4], None));
        assert_eq!(list(&page(5, None), 5, |_| true).next, None, "a page that is just full is the last one");
    }

    #[test]
    fn a_filter_that_lets_few_pass_gives_a_short_page_that_goes_on() {
        let mut cursor = None;
        let mut found = Vec::new();
        let mut pages = 0;
        loop {
            let some = list(&page(10, cursor), 12_000, |number| number % 5000 == 4999);
            found.extend(some.items);
            pages += 1;
            cursor = some.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((found, pages), (vec![4999, 9999], 3));
    }

    #[test]
    fn a_cursor_of_nowhere_and_an_odd_limit_are_refused_by_name() {
        for (page, target) in [
            (page(10, Some("not base64!".into())), "cursor"),
            (page(0, None), "limit"),
            (page(1001, None), "limit"),
        ] {
            let refusal = page.after().unwrap_err();
            assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some(target)));
        }
    }

    #[test]
    fn declared_and_stored_ones_are_one_list_in_which_declared_ones_hide_the_others() {
        let list = |declared: &[&str], stored: &[&str]| -> Vec<String> {
            let declared = declared.iter().map(|key| (key.as_bytes().to_vec(), ())).collect();
            let stored = stored.iter().map(|key| {
                let key = key.as_bytes().to_vec();
                Ok((key.clone(), Row { key, value: vec![], version: 1 }))
            });
            let shown = merged(declared, stored).map(|candidate| match candidate.unwrap() {
                (key, Candidate::Declared(())) => format!("{}!", String::from_utf8(key).unwrap()),
                (key, Candidate::Stored(_)) => String::from_utf8(key).unwrap(),
            });
            shown.collect()
        };
        assert_eq!(list(&["b", "d"], &["a", "b", "c", "e"]), ["a", "b!", "c", "d!", "e"]);
        assert_eq!(list(&["a", "z"], &["m"]), ["a!", "m", "z!"]);
        assert_eq!(list(&[], &["a"]), ["a"]);
        assert_eq!(list(&["a"], &[]), ["a!"]);
    }
}
