//! One rate: so many calls in a time and so many at once, counted in a single word.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::Quota;

/// A rate and how far it may be run ahead of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSettings {
    /// `requests_per_second`, in millionths.
    millionths_per_second: u64,
    /// `burst`: calls that may come at once after a rest.
    burst: u32,
}

impl RateSettings {
    /// Bounds of `requests_per_second`; six decimals count.
    pub const PER_SECOND: RangeInclusive<f64> = 0.001..=1_000_000.0;
    /// Bounds of `burst`.
    pub const BURST: RangeInclusive<u32> = 1..=1_000_000;

    /// A rate of numbers within bounds; without a `burst`, what comes in a second may come at once.
    #[must_use]
    pub fn new(per_second: f64, burst: Option<u32>) -> Self {
        let per_second = per_second.clamp(*Self::PER_SECOND.start(), *Self::PER_SECOND.end());
        // Within bounds, and so is what is made of it.
        let whole = per_second.ceil() as u32;
        Self {
            millionths_per_second: (per_second * MILLION as f64).round() as u64,
            burst: burst.unwrap_or(whole).clamp(*Self::BURST.start(), *Self::BURST.end()),
        }
    }

    /// Calls per second in the long run.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.millionths_per_second as f64 / MILLION as f64
    }

    /// Calls that may come at once after a rest.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// As many whole calls as are let in within the fewest whole seconds that let one in.
    pub(super) fn quota(self, name: &'static str) -> Quota {
        let seconds = MILLION.div_ceil(self.millionths_per_second);
        let calls = self.millionths_per_second * seconds / MILLION;
        Quota { name, calls, window: Duration::from_secs(seconds) }
    }

    /// Nanoseconds from one call to the next.
    const fn interval(self) -> u64 {
        MILLION * 1_000_000_000 / self.millionths_per_second
    }
}

const MILLION: u64 = 1_000_000;

/// What has been used of one rate: the generic cell rate algorithm (ITU-T I.371), whose whole state is the time at which
/// the next call would be due if calls came evenly. Times are nanoseconds of any clock that does not go back.
#[derive(Debug, Default)]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one call at `now`.
    ///
    /// # Errors
    /// How long until there is another one.
    pub(super) fn take(&self, rate: RateSettings, now: u64) -> Result<(), Duration> {
        let (interval, burst) = (rate.interval(), u64::from(rate.burst));
        // Up to so far ahead of its time may a call come.
        let ahead = interval.saturating_mul(burst - 1);
        let taken = self.0.try_update(Relaxed, Relaxed, |due| {
            let due = due.max(now);
            (due - now <= ahead).then_some(due + interval)
        });
        taken.map(drop).map_err(|due| Duration::from_nanos((due - now) - ahead))
    }

    /// Gives a call back that was taken and then not made.
    pub(super) fn give_back(&self, rate: RateSettings) {
        self.0.fetch_sub(rate.interval(), Relaxed);
    }

    /// Until when anything of it is used: what ends by now is as good as new.
    pub(super) fn used_until(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How many of `asked` calls at `now` are let in.
    fn let_in(bucket: &Bucket, rate: RateSettings, now: u64, asked: usize) -> usize {
        (0..asked).filter(|_| bucket.take(rate, now).is_ok()).count()
    }

    #[test]
    fn a_burst_is_let_in_whole_and_then_one_per_interval() {
        let rate = RateSettings::new(10.0, Some(20));
        let bucket = Bucket::default();
        let start = 5 * SECOND;
        assert_eq!(let_in(&bucket, rate, start, 50), 20);
        assert_eq!(bucket.take(rate, start), Err(Duration::from_millis(100)));
        assert_eq!(let_in(&bucket, rate, start + SECOND / 10 - 1, 5), 0);
        assert_eq!(let_in(&bucket, rate, start + SECOND / 10, 5), 1);
        assert_eq!(let_in(&bucket, rate, start + SECOND, 50), 9, "ten in the first second after the burst");
        assert_eq!(
            let_in(&bucket, rate, start + 100 * SECOND, 50),
            20,
            "a rest fills no more than the burst"
        );
    }

    #[test]
    fn rates_below_one_a_second_count_as_well() {
        let rate = RateSettings::new(0.5, None);
        assert_eq!(rate.burst(), 1);
        let bucket = Bucket::default();
        assert_eq!(bucket.take(rate, 0), Ok(()));
        assert_eq!(bucket.take(rate, SECOND / 2), Err(Duration::from_millis(1500)));
        assert_eq!(bucket.take(rate, 2 * SECOND), Ok(()));
    }

    #[test]
    fn what_is_refused_costs_nothing_and_what_is_given_back_neither() {
        let rate = RateSettings::new(1.0, Some(2));
        let bucket = Bucket::default();
        assert_eq!(let_in(&bucket, rate, 0, 1000), 2);
        assert_eq!(bucket.used_until(), 2 * SECOND);
        bucket.give_back(rate);
        assert_eq!(let_in(&bucket, rate, 0, 1000), 1);
        assert_eq!(let_in(&bucket, rate, SECOND, 1000), 1);
    }

    #[test]
    fn threads_share_a_burst_exactly() {
        let rate = RateSettings::new(1.0, Some(1000));
        let bucket = Bucket::default();
        let all: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| let_in(&bucket, rate, 7, 500))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(all, 1000);
    }

    #[test]
    fn a_quota_never_promises_more_than_the_rate() {
        for (per_second, calls, window) in [
            (100.0, 100, 1),
            (1.0, 1, 1),
            (0.5, 1, 2),
            (1.5, 1, 1),
            (0.3, 1, 4),
            (0.001, 1, 1000),
            (1e6, 1_000_000, 1),
        ] {
            let quota = RateSettings::new(per_second, None).quota("service");
            assert_eq!((quota.calls, quota.window.as_secs()), (calls, window), "{per_second}");
        }
    }

    #[test]
    fn settings_come_back_as_they_were_given() {
        for per_second in [0.001, 0.3, 1.0, 3.0, 99.999_999, 1e6] {
            let rate = RateSettings::new(per_second, Some(7));
            assert!((rate.per_second() - per_second).abs() < 1e-9, "{per_second}");
            assert_eq!(rate.burst(), 7);
        }
        assert_eq!(RateSettings::new(2.5, None).burst(), 3);
    }
}
