//! How long to wait before the next try: twice as long each time, up to a bound, and never in step with others.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait of our own: how late a collector's return may be noticed.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest wait that a collector can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// Counts the tries that failed in a row.
#[derive(Default)]
pub(super) struct Backoff {
    failed: u32,
}

impl Backoff {
    /// Something went well.
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }

    /// The wait after one more failure: half of it is chance, so that gateways that lost their collector together do not
    /// come back together; at least as long as the collector `asked` for.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failed.min(16)).min(LONGEST);
        self.failed += 1;
        let own = whole.mul_f64(0.5 + fastrand::f64() / 2.0);
        asked.map_or(own, |asked| own.max(asked.min(LONGEST_ASKED)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_obey_the_collector() {
        let mut backoff = Backoff::default();
        for whole in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let wait = backoff.next(None).as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole}");
        }
        assert_eq!(backoff.next(Some(Duration::from_secs(90))), Duration::from_secs(90));
        assert_eq!(backoff.next(Some(Duration::MAX)), LONGEST_ASKED);
        backoff.reset();
        assert!(backoff.next(Some(Duration::ZERO)) <= FIRST);
    }
}
