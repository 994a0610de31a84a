//! A count that many threads add to without passing its cache line around: each adds in a place of its own, a reader sums up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Places per count. More threads than that share places, which is slower but as right.
pub(super) const PLACES: usize = 64;

/// A sum that can go up and down. Exact once the adding threads rest; while they run, a reader may see a part of the additions.
pub(super) struct Spread([Place; PLACES]);

/// Two cache lines, since processors fetch lines in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Place(AtomicU64);

impl Spread {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| Place::default()))
    }

    pub(super) fn add(&self, more: u64) {
        self.0[place()].0.fetch_add(more, Relaxed);
    }

    /// Takes away what any thread has added: one place may go below zero, the sum does not.
    pub(super) fn sub(&self, less: u64) {
        self.0[place()].0.fetch_sub(less, Relaxed);
    }

    pub(super) fn sum(&self) -> u64 {
        let wrapped = self.0.iter().fold(0u64, |sum, place| sum.wrapping_add(place.0.load(Relaxed)));
        // A reader that meets a subtraction before its addition sees less than nothing.
        u64::try_from(wrapped as i64).unwrap_or(0)
    }
}

/// This thread's place, below [`PLACES`], the same for its whole life.
pub(super) fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: usize = NEXT.fetch_add(1, Relaxed) % PLACES;
    }
    PLACE.with(|place| *place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_of_more_threads_than_places_all_count() {
        let sum = Spread::new();
        std::thread::scope(|scope| {
            for _ in 0..PLACES + 8 {
                scope.spawn(|| (0..100).for_each(|_| sum.add(3)));
            }
        });
        sum.sub(100);
        assert_eq!(sum.sum(), (PLACES as u64 + 8) * 300 - 100);
        sum.sub(sum.sum() + 1);
        assert_eq!(sum.sum(), 0);
    }
}
