//! How long a connection to a replica may rest and still be used: what the replica says of it, and what was seen.
//!
//! A replica closes idle connections after some time of its own. A request that is on its way at that moment is lost, and
//! nobody can tell whether it was run. So a connection is used again only well before that moment: after half of the time
//! for which the replica is known to keep one, because it said so (`Keep-Alive: timeout=N`) or because another connection
//! was seen to rest that long unharmed.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// What is supposed of a replica that nothing is known of: no server gives up sooner, since the field and most settings
/// count in whole seconds.
const SUPPOSED: Duration = Duration::from_secs(1);

/// What is left of a broken promise. Within half of this a connection is always used again: a restart closes connections
/// of any age, and must not end the reuse of those that are busy.
const LEAST: Duration = Duration::from_millis(200);

/// How far a connection's rest may be over-estimated, since the pools' clock moves only when they are used or swept.
const CLOCK_STEP: Duration = Duration::from_secs(1);

/// Up to here what the reactor has noticed is enough; after a longer rest the socket itself is asked, which costs a
/// system call.
const FRESH: Duration = Duration::from_millis(100);

/// Longer promises need no exact clock: half of them is far beyond its step.
const LONG: Duration = Duration::from_secs(10);

/// What one worker knows of how long a replica keeps idle connections.
pub(super) struct Rest {
    /// As far as connections were seen open, or closed.
    seen: Cell<Duration>,
    word: Cell<Word>,
    /// Connections that have rested since this moment may be closed without our knowing yet.
    suspect: Cell<Option<Instant>>,
}

/// What the replica says of it.
#[derive(Clone, Copy)]
enum Word {
    Silent,
    Given(Duration),
    /// A connection was closed earlier than that: it is a bound and no promise.
    Broken(Duration),
}

/// What to do with a connection that has rested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Use it, if the reactor has noticed nothing.
    AsItIs,
    /// Ask the socket first.
    AskSocket,
    /// Leave it: the replica may be about to close it.
    Leave,
}

impl Default for Rest {
    fn default() -> Self {
        Self { seen: Cell::new(SUPPOSED), word: Cell::new(Word::Silent), suspect: Cell::default() }
    }
}

impl Rest {
    /// Whether a connection that rests since `since` may be used at `now`.
    pub(super) fn judge(&self, since: Instant, now: Instant) -> Reuse {
        let rested = now.saturating_duration_since(since);
        if rested >= self.kept() / 2 {
            Reuse::Leave
        } else if rested >= FRESH || self.suspect.get().is_some_and(|moment| since <= moment) {
            Reuse::AskSocket
        } else {
            Reuse::AsItIs
        }
    }

    /// Whether it matters that the time since when a connection rests is exact.
    pub(super) fn needs_exact_clock(&self) -> bool {
        self.kept() < LONG
    }

    /// The replica says that it keeps idle connections for so long.
    pub(super) fn told(&self, kept: Duration) {
        self.word.set(match self.word.get() {
            Word::Silent | Word::Given(_) => Word::Given(kept),
            Word::Broken(_) => Word::Broken(kept),
        });
    }

    /// A connection was seen to have rested for so long, as the pools' clock has it, and to be open still.
    pub(super) fn seen_open(&self, rested: Duration) {
        self.seen.set(self.seen.get().max(rested.saturating_sub(CLOCK_STEP)));
    }

    /// The replica has closed a connection that had rested for so long at most.
    pub(super) fn seen_closed(&self, rested: Duration, now: Instant) {
        self.suspect(now);
        let surely = rested.saturating_sub(CLOCK_STEP).max(LEAST);
        self.seen.set(self.seen.get().min(surely));
        if let Word::Given(kept) = self.word.get()
            && rested < kept
        {
            self.word.set(Word::Broken(kept));
        }
    }

    fn kept(&self) -> Duration {
        match self.word.get() {
            Word::Silent => self.seen.get(),
            Word::Given(kept) => kept,
            Word::Broken(kept) => kept.min(self.seen.get()),
        }
    }

    /// The replica has closed a connection at the moment of its use: others may be closed as well.
    pub(super) fn suspect(&self, now: Instant) {
        self.suspect.set(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn judge(rest: &Rest, rested: Duration) -> Reuse {
        let since = Instant::now();
        rest.judge(since, since + rested)
    }

    #[test]
    fn of_an_unknown_replica_only_short_rests_are_trusted() {
        let rest = Rest::default();
        assert_eq!(judge(&rest, ms(99)), Reuse::AsItIs);
        assert_eq!(judge(&rest, ms(100)), Reuse::AskSocket);
        assert_eq!(judge(&rest, ms(499)), Reuse::AskSocket);
        assert_eq!(judge(&rest, ms(500)), Reuse::Leave);
        assert!(rest.needs_exact_clock());
    }

    #[test]
    fn what_rested_unharmed_lets_others_rest_half_as_long() {
        let rest = Rest::default();
        rest.seen_open(secs(2));
        assert_eq!(judge(&rest, ms(500)), Reuse::Leave, "a second of it may be the clock's");
        rest.seen_open(secs(21));
        assert_eq!(judge(&rest, ms(9_999)), Reuse::AskSocket);
        assert_eq!(judge(&rest, secs(10)), Reuse::Leave);
        assert!(!rest.needs_exact_clock());
        rest.seen_open(secs(5));
        assert_eq!(judge(&rest, secs(9)), Reuse::AskSocket, "a younger one says nothing new");
    }

    #[test]
    fn the_replicas_own_word_counts_until_it_is_broken() {
        let rest = Rest::default();
        rest.told(secs(5));
        assert_eq!(judge(&rest, ms(2_499)), Reuse::AskSocket);
        assert_eq!(judge(&rest, ms(2_500)), Reuse::Leave);
        rest.seen_open(secs(55));
        assert_eq!(judge(&rest, ms(2_500)), Reuse::Leave, "it may keep some longer than it said");
        rest.seen_closed(ms(5_300), Instant::now());
        assert_eq!(judge(&rest, ms(2_499)), Reuse::AskSocket, "closed when it was due");
        rest.seen_closed(ms(2_000), Instant::now());
        rest.told(secs(5));
        assert_eq!(judge(&rest, ms(500)), Reuse::Leave, "closed before");
        rest.seen_open(secs(55));
        assert_eq!(judge(&rest, ms(2_499)), Reuse::AskSocket);
        assert_eq!(judge(&rest, ms(2_500)), Reuse::Leave);
        let rest = Rest::default();
        rest.told(Duration::ZERO);
        assert_eq!(judge(&rest, Duration::ZERO), Reuse::Leave);
    }

    #[test]
    fn a_close_shortens_the_rest_and_later_proof_lengthens_it_again() {
        let rest = Rest::default();
        rest.seen_open(secs(41));
        rest.seen_closed(ms(3_000), Instant::now());
        assert_eq!(judge(&rest, ms(999)), Reuse::AskSocket);
        assert_eq!(judge(&rest, secs(1)), Reuse::Leave);
        // As a restart does to connections of any age.
        rest.seen_closed(ms(5), Instant::now());
        assert_eq!(judge(&rest, ms(99)), Reuse::AsItIs);
        assert_eq!(judge(&rest, ms(100)), Reuse::Leave);
        rest.seen_open(secs(11));
        assert_eq!(judge(&rest, ms(4_999)), Reuse::AskSocket);
    }

    #[test]
    fn a_close_puts_those_that_rest_already_under_suspicion() {
        let rest = Rest::default();
        let (before, moment) = (Instant::now(), Instant::now() + ms(10));
        rest.suspect(moment);
        assert_eq!(rest.judge(before, moment + ms(1)), Reuse::AskSocket);
        assert_eq!(rest.judge(moment + ms(2), moment + ms(3)), Reuse::AsItIs);
    }
}
