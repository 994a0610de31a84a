//! What of a call may be sent again: the settings of a service, and the budget that keeps its replicas from getting more
//! of the same when they are already in trouble.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::catalog::Replay;

/// How a service's calls are tried again. What was not sent at all is always tried again, within `attempts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts of one call at most, the first one included.
    pub attempts: u32,
    /// Which calls may be sent a second time.
    pub replay: Replay,
    /// Largest request body, in bytes, that is kept for being sent again.
    pub body_bytes: usize,
    /// Repeated calls at most, in percent of the service's calls over the last ten seconds.
    pub budget: u32,
    /// Answers of the replica that count as a failed attempt; 5xx only. Empty: every answer is passed on.
    pub statuses: Vec<StatusCode>,
}

impl RetrySettings {
    /// Bounds of `attempts`.
    pub const ATTEMPTS: RangeInclusive<u32> = 1..=10;
    /// Bounds of `body_bytes`.
    pub const BODY_BYTES: RangeInclusive<u64> = 0..=16 << 20;
    /// Bounds of `budget`.
    pub const BUDGET: RangeInclusive<u32> = 1..=100;
    /// Bounds of each of `statuses`.
    pub const STATUSES: RangeInclusive<u16> = 500..=599;

    /// Whether a call with `method` may be sent a second time.
    #[must_use]
    pub fn replays(&self, method: &Method) -> bool {
        match self.replay {
            Replay::Never => false,
            Replay::Idempotent => method.is_idempotent(),
            Replay::Always => true,
        }
    }
}

/// Those of a service that sets none.
impl Default for RetrySettings {
    fn default() -> Self {
        Self { attempts: 3, replay: Replay::Never, body_bytes: 64 << 10, budget: 20, statuses: Vec::new() }
    }
}

/// Over how many seconds calls and repeated calls are weighed against each other. What is counted by the second is known to
/// a second only: of calls the last ten seconds count as far as they have come, of repeated calls the one before them as
/// well. So the percentage is kept over any ten seconds. Were both counted alike, what a second of trouble had left over
/// could be spent once more ten seconds later, a moment before that second's repeated calls are ten seconds old.
const CALLS_WINDOW: u64 = 10;
const AGAIN_WINDOW: u64 = CALLS_WINDOW + 1;

/// Repeated calls within the window that are always allowed: a percentage of next to nothing is nothing.
const FLOOR: u64 = 10;

const SLOTS: usize = AGAIN_WINDOW as usize;

/// How many calls of a service may be sent again, shared by all workers. Counts by the second, without a lock. Workers
/// that ask at the same moment may overdraw it by one call each.
#[derive(Debug)]
pub struct RetryBudget {
    percent: u32,
    begun: Instant,
    slots: [AtomicU64; SLOTS],
}

/// What one second has seen, as one word: so that it changes as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    /// Since the budget began, modulo [`Slot::SECONDS`].
    second: u64,
    calls: u64,
    again: u64,
}

impl Slot {
    const COUNT_BITS: u32 = 20;
    const MOST: u64 = (1 << Self::COUNT_BITS) - 1;
    const SECONDS: u64 = 1 << (64 - 2 * Self::COUNT_BITS);

    const fn unpack(word: u64) -> Self {
        Self {
            second: word >> (2 * Self::COUNT_BITS),
            calls: (word >> Self::COUNT_BITS) & Self::MOST,
            again: word & Self::MOST,
        }
    }

    fn pack(self) -> u64 {
        let (calls, again) = (self.calls.min(Self::MOST), self.again.min(Self::MOST));
        (self.second << (2 * Self::COUNT_BITS)) | (calls << Self::COUNT_BITS) | again
    }
}

impl RetryBudget {
    /// A budget of `percent` of the calls. Nothing is counted yet.
    #[must_use]
    pub fn new(percent: u32) -> Self {
        Self { percent, begun: Instant::now(), slots: Default::default() }
    }

    /// Percent of the calls.
    #[must_use]
    pub const fn percent(&self) -> u32 {
        self.percent
    }

    /// Counts a call that could be sent again.
    pub fn earn(&self, now: Instant) {
        self.count(now, |slot| slot.calls += 1);
    }

    /// Takes the right to send one call again; false: there is none left.
    #[must_use]
    pub fn spend(&self, now: Instant) -> bool {
        let second = self.second(now);
        let (mut calls, mut again) = (0, 0);
        for slot in self.slots.iter().map(|slot| Slot::unpack(slot.load(Relaxed))) {
            let age = (second + Slot::SECONDS - slot.second) % Slot::SECONDS;
            calls += if age < CALLS_WINDOW { slot.calls } else { 0 };
            again += if age < AGAIN_WINDOW { slot.again } else { 0 };
        }
        let allowed = (calls * u64::from(self.percent) / 100).max(FLOOR);
        if again >= allowed {
            return false;
        }
        self.count(now, |slot| slot.again += 1);
        true
    }

    fn count(&self, now: Instant, add: impl Fn(&mut Slot)) {
        let second = self.second(now);
        // Below SLOTS.
        let slot = &self.slots[usize::try_from(second % AGAIN_WINDOW).unwrap_or_default()];
        slot.update(Relaxed, Relaxed, |word| {
            let mut slot = Slot::unpack(word);
            if slot.second != second {
                slot = Slot { second, ..Slot::default() };
            }
            add(&mut slot);
            slot.pack()
        });
    }

    fn second(&self, now: Instant) -> u64 {
        let since = now.checked_duration_since(self.begun).unwrap_or(Duration::ZERO);
        since.as_secs() % Slot::SECONDS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn spent(budget: &RetryBudget, now: Instant) -> usize {
        (0..1000).take_while(|_| budget.spend(now)).count()
    }

    #[test]
    fn a_percentage_of_the_calls_may_be_sent_again() {
        let budget = RetryBudget::new(20);
        let now = Instant::now();
        (0..200).for_each(|_| budget.earn(now));
        assert_eq!(spent(&budget, now), 40);
        (0..5).for_each(|_| budget.earn(now));
        assert_eq!(spent(&budget, now), 1);
    }

    #[test]
    fn a_few_calls_may_always_be_sent_again() {
        let budget = RetryBudget::new(1);
        let now = Instant::now();
        assert_eq!(spent(&budget, now), 10);
        assert_eq!(spent(&budget, now + 9 * SECOND), 0);
        assert_eq!(spent(&budget, now + 20 * SECOND), 10);
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let budget = RetryBudget::new(50);
        let start = budget.begun;
        for second in 0..10 {
            (0..10).for_each(|_| budget.earn(start + second * SECOND));
        }
        assert_eq!(spent(&budget, start + 9 * SECOND), 50);
        // The first second's calls have left, what was spent has not.
        assert_eq!(spent(&budget, start + 10 * SECOND), 0);
        (0..200).for_each(|_| budget.earn(start + 18 * SECOND));
        // 10 + 200 calls, 50 spent.
        assert_eq!(spent(&budget, start + 18 * SECOND), 55);
    }

    proptest! {
        /// All calls fail from some moment on and are sent again as long as they may be.
        #[test]
        fn the_percentage_is_kept_over_any_ten_seconds(
            percent in 1u32..=100,
            gaps in proptest::collection::vec(0u64..200, 1..400),
            well in 0usize..300,
        ) {
            let budget = RetryBudget::new(percent);
            let window = 10 * SECOND;
            let (mut now, mut calls, mut again) = (budget.begun, Vec::new(), Vec::new());
            for (number, gap) in gaps.into_iter().enumerate() {
                now += Duration::from_millis(gap);
                budget.earn(now);
                calls.push(now);
                if number >= well && budget.spend(now) {
                    again.push(now);
                    let within = |times: &[Instant]| times.iter().filter(|at| now - **at < window).count();
                    let allowed = (within(&calls) * percent as usize / 100).max(10);
                    prop_assert!(within(&again) <= allowed, "{} of {}", within(&again), within(&calls));
                }
            }
        }
    }

    #[test]
    fn trouble_of_half_a_minute_costs_no_more_than_the_percentage() {
        const RATE: u32 = 200;
        for begins in [0, 300, 999] {
            let budget = RetryBudget::new(20);
            let at = |call: u32| budget.begun + Duration::from_millis(begins) + call * SECOND / RATE;
            let well = 20 * RATE;
            (0..well).for_each(|call| budget.earn(at(call)));
            let mut again = 0;
            for call in well..well + 30 * RATE {
                budget.earn(at(call));
                again += (0..2).filter(|_| budget.spend(at(call))).count();
            }
            assert!(again <= 30 * RATE as usize / 5, "{again}");
        }
    }

    #[test]
    fn counts_end_at_their_bounds_and_do_not_run_over() {
        let full = Slot { second: 7, calls: Slot::MOST, again: 3 };
        let over = Slot { calls: Slot::MOST + 1, ..full };
        assert_eq!(Slot::unpack(over.pack()), full);
        let budget = RetryBudget::new(100);
        let wrapped = budget.begun + Duration::from_secs(Slot::SECONDS + 3);
        (0..50).for_each(|_| budget.earn(wrapped));
        assert_eq!(spent(&budget, wrapped), 50);
    }

    #[test]
    fn workers_share_it() {
        let budget = RetryBudget::new(20);
        let now = Instant::now();
        (0..1000).for_each(|_| budget.earn(now));
        let spent: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| spent(&budget, now))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!((200..=203).contains(&spent), "{spent}");
    }

    #[test]
    fn only_what_the_service_allows_is_replayed() {
        let of = |replay| RetrySettings { replay, ..RetrySettings::default() };
        let replays = |replay| [Method::GET, Method::POST].map(|method| of(replay).replays(&method));
        assert_eq!(replays(Replay::Never), [false, false]);
        assert_eq!(replays(Replay::Idempotent), [true, false]);
        assert_eq!(replays(Replay::Always), [true, true]);
    }
}
