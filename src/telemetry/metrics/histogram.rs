//! A histogram of times from 1 ms to 300 s: two additions per time, no floating point on the request path.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds.
const BOUNDS_MICROS: [u64; 18] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    180_000_000,
    300_000_000,
];

/// Upper bounds of the buckets as they are given out.
pub(in crate::telemetry) const BOUNDS_SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0,
    300.0,
];

/// Buckets: one more than bounds, since the last one is for what is above them all.
pub(in crate::telemetry) const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// One thread's part of a histogram; any number of threads may use it.
#[derive(Default)]
pub(super) struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

/// What histograms hold, added up.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Reading {
    /// Times per bucket, not cumulative; the last one: above all bounds.
    pub(in crate::telemetry) counts: [u64; BUCKETS],
    pub(in crate::telemetry) sum: Duration,
}

impl Histogram {
    /// Counts a time; returns the place of its bucket.
    pub(super) fn observe(&self, time: Duration) -> usize {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Most calls are quick, so counting up from the lowest bound beats a binary search.
        let bucket = BOUNDS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS_MICROS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
        bucket
    }

    /// Adds what `other` holds.
    pub(super) fn absorb(&self, other: &Self) {
        for (ours, theirs) in self.counts.iter().zip(&other.counts) {
            ours.fetch_add(theirs.load(Relaxed), Relaxed);
        }
        self.sum_micros.fetch_add(other.sum_micros.load(Relaxed), Relaxed);
    }
}

impl Reading {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum += count.load(Relaxed);
        }
        self.sum += Duration::from_micros(histogram.sum_micros.load(Relaxed));
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_of_bounds_are_the_same_and_rise() {
        for (micros, seconds) in BOUNDS_MICROS.iter().zip(BOUNDS_SECONDS) {
            assert_eq!(Duration::from_micros(*micros), Duration::from_secs_f64(seconds));
        }
        assert!(BOUNDS_MICROS.is_sorted());
    }

    #[test]
    fn a_time_counts_in_the_first_bucket_that_is_not_below_it() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 300_000_000, 300_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut reading = Reading::default();
        reading.add(&histogram);
        assert_eq!(reading.counts[..2], [2, 1]);
        assert_eq!(reading.counts[17..], [1, 1]);
        assert_eq!(reading.count(), 5);
        assert_eq!(reading.sum, Duration::from_micros(600_002_002));
    }
}
