//! The memory that all collecting together may take: one bound over calls under way and what waits to be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What is there to be shared out.
pub(super) struct Rooms {
    most: usize,
    taken: AtomicUsize,
}

/// A part of it, in bytes; given back on drop.
pub(super) struct Room {
    of: Arc<Rooms>,
    bytes: usize,
}

/// There is no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl Rooms {
    /// `most` bytes.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: AtomicUsize::new(0) })
    }

    /// A part without a byte.
    pub(super) fn room(self: &Arc<Self>) -> Room {
        Room { of: Arc::clone(self), bytes: 0 }
    }
}

impl Room {
    /// Makes it one of at least `bytes`.
    ///
    /// # Errors
    /// Others have the rest; it stays as it is.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let within = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= self.of.most);
        self.of.taken.try_update(Relaxed, Relaxed, within).map_err(|_full| NoRoom)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Gives all of it back.
    pub(super) fn clear(&mut self) {
        self.of.taken.fetch_sub(std::mem::take(&mut self.bytes), Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_never_more_than_there_is_and_comes_back() {
        let rooms = Rooms::new(10);
        let (mut one, mut other) = (rooms.room(), rooms.room());
        assert_eq!(one.grow_to(6), Ok(()));
        assert_eq!(one.grow_to(3), Ok(()), "it has that already");
        assert_eq!(other.grow_to(5), Err(NoRoom));
        assert_eq!(other.grow_to(4), Ok(()));
        assert_eq!(one.grow_to(usize::MAX), Err(NoRoom));
        drop(one);
        assert_eq!(other.grow_to(10), Ok(()));
        other.clear();
        assert_eq!(rooms.taken.load(Relaxed), 0);
    }
}
