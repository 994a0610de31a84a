//! The places of one deployment, counted without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

/// How many places there are and how many are taken.
///
/// What changes with every call is one word, so that a call that finds a place costs one atomic operation when it begins
/// and one when it ends: the lowest bit says that somebody waits, the next 31 count places taken, and the upper 32 count
/// calls that have ended, wrapping. While the bit is set nobody passes by the queue: the word is changed only by whoever
/// holds its lock.
#[derive(Debug)]
pub(super) struct Places {
    word: AtomicU64,
    slots: AtomicU32,
}

/// What came of asking for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There is no limit; nothing was counted.
    Unlimited,
    /// A place was taken, to be left again.
    Taken,
    /// None is free, or others have waited for it.
    Refused,
}

const WAITED_FOR: u64 = 1;
const BUSY: u64 = 1 << 1;
const BUSY_MASK: u64 = (u32::MAX as u64) & !WAITED_FOR;
const ENDED: u64 = 1 << 32;

/// As a number of places: as many as there are calls.
const UNLIMITED: u32 = u32::MAX;

/// Most places that can be counted.
pub(super) const MOST: u32 = (1 << 31) - 1;

impl Places {
    /// `None`: no limit.
    pub(super) fn new(slots: Option<u32>) -> Self {
        let places = Self { word: AtomicU64::new(0), slots: AtomicU32::new(UNLIMITED) };
        places.set_slots(slots);
        places
    }

    /// Changes how many places there are. To be followed by [`Self::take_for_waiting`] for those who wait. With fewer
    /// places, calls under way keep theirs.
    pub(super) fn set_slots(&self, slots: Option<u32>) {
        self.slots.store(slots.map_or(UNLIMITED, |slots| slots.min(MOST)), Release);
    }

    /// Places taken.
    pub(super) fn busy(&self) -> u32 {
        busy(self.word.load(Relaxed))
    }

    /// Calls that have given up their place so far, wrapping.
    pub(super) fn ended(&self) -> u32 {
        (self.word.load(Relaxed) >> 32) as u32
    }

    /// Whether [`Self::try_take`] would take a place now.
    pub(super) fn is_free(&self) -> bool {
        let word = self.word.load(Relaxed);
        word & WAITED_FOR == 0 && busy(word) < self.slots.load(Acquire)
    }

    /// A place, unless all are taken or somebody waits.
    pub(super) fn try_take(&self) -> Asked {
        let slots = self.slots.load(Acquire);
        if slots == UNLIMITED {
            return Asked::Unlimited;
        }
        let taken = self.word.try_update(AcqRel, Relaxed, |word| {
            (word & WAITED_FOR == 0 && busy(word) < slots).then_some(word + BUSY)
        });
        if taken.is_ok() { Asked::Taken } else { Asked::Refused }
    }

    /// A place; or else, in the same instant, whoever leaves one from now on is told that somebody waits for it. Under the
    /// queue's lock.
    pub(super) fn take_or_wait(&self) -> Asked {
        let slots = self.slots.load(Acquire);
        if slots == UNLIMITED {
            return Asked::Unlimited;
        }
        let is_free = |word: u64| word & WAITED_FOR == 0 && busy(word) < slots;
        let before = self.word.try_update(AcqRel, Relaxed, |word| {
            Some(if is_free(word) { word + BUSY } else { word | WAITED_FOR })
        });
        match before {
            Ok(word) | Err(word) if is_free(word) => Asked::Taken,
            Ok(_) | Err(_) => Asked::Refused,
        }
    }

    /// A free place for the first of those who wait. Under the queue's lock, while somebody does.
    pub(super) fn take_for_waiting(&self) -> Asked {
        let slots = self.slots.load(Acquire);
        if slots == UNLIMITED {
            return Asked::Unlimited;
        }
        let taken = self.word.try_update(AcqRel, Relaxed, |word| (busy(word) < slots).then_some(word + BUSY));
        if taken.is_ok() { Asked::Taken } else { Asked::Refused }
    }

    /// Nobody waits any more. Under the queue's lock.
    pub(super) fn nobody_waits(&self) {
        self.word.fetch_and(!WAITED_FOR, AcqRel);
    }

    /// Leaves a place, unless somebody waits for it.
    pub(super) fn try_leave(&self) -> bool {
        let left = self.word.try_update(AcqRel, Relaxed, |word| (word & WAITED_FOR == 0).then(|| left(word)));
        left.is_ok()
    }

    /// Leaves a place. Under the queue's lock.
    pub(super) fn leave(&self) {
        let _always = self.word.try_update(AcqRel, Relaxed, |word| Some(left(word)));
    }
}

const fn busy(word: u64) -> u32 {
    ((word & BUSY_MASK) >> 1) as u32
}

/// The upper half wraps off the top.
const fn left(word: u64) -> u64 {
    (word - BUSY).wrapping_add(ENDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_beside_who_waits_and_who_has_ended() {
        let places = Places::new(Some(2));
        assert_eq!(
            [places.try_take(), places.try_take(), places.try_take()],
            [Asked::Taken, Asked::Taken, Asked::Refused]
        );
        assert_eq!(places.take_or_wait(), Asked::Refused);
        assert!(!places.try_leave(), "somebody waits");
        places.leave();
        assert_eq!((places.busy(), places.ended()), (1, 1));
        assert_eq!(places.try_take(), Asked::Refused, "nobody passes by the queue");
        assert_eq!([places.take_for_waiting(), places.take_for_waiting()], [Asked::Taken, Asked::Refused]);
        places.nobody_waits();
        assert!(places.try_leave() && places.try_leave());
        assert_eq!((places.busy(), places.ended()), (0, 3));
        assert_eq!(places.take_or_wait(), Asked::Taken);
    }

    #[test]
    fn the_count_of_ended_calls_wraps_into_nothing_else() {
        let places = Places::new(Some(1));
        places.word.store((u64::from(u32::MAX) << 32) + BUSY + WAITED_FOR, Relaxed);
        places.leave();
        assert_eq!((places.busy(), places.ended(), places.word.load(Relaxed)), (0, 0, WAITED_FOR));
    }

    #[test]
    fn fewer_places_than_are_taken_is_no_error() {
        let places = Places::new(None);
        assert_eq!((places.try_take(), places.busy()), (Asked::Unlimited, 0));
        places.set_slots(Some(u32::MAX));
        assert_eq!(places.slots.load(Relaxed), MOST);
        assert_eq!(places.try_take(), Asked::Taken);
        places.set_slots(Some(0));
        assert_eq!((places.try_take(), places.busy()), (Asked::Refused, 1));
        assert!(places.try_leave());
    }
}
