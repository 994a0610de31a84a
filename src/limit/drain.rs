//! How fast calls end while others wait: what a refused caller is told of when to come back.

use std::time::Duration;

use tokio::time::Instant;

/// What happened this long ago counts a third of what happens now.
const MEMORY: Duration = Duration::from_secs(5);

/// What is looked at at once is at least this long.
const SHORTEST: Duration = Duration::from_millis(100);

/// Calls that end per second, as a moving average over the times in which somebody waited. When nobody waits, calls end
/// as rarely as they come, which says nothing of how fast they could.
#[derive(Debug, Default)]
pub(super) struct DrainRate {
    per_second: Option<f64>,
    /// Since when, and from which count on, calls were not yet added.
    since: Option<(Instant, u32)>,
}

impl DrainRate {
    /// Bounds of what a caller is told, in seconds.
    const TOLD: (f64, f64) = (1.0, 60.0);

    /// Somebody waits again, and so many calls (a count that wraps) have ended so far.
    pub(super) const fn resume(&mut self, at: (Instant, u32)) {
        self.since = Some(at);
    }

    /// Nobody waits any more.
    pub(super) fn pause(&mut self, at: (Instant, u32)) {
        self.read(at);
        self.since = None;
    }

    /// In how many whole seconds `waiting` calls and one more will have got one of the `slots` places each. Before
    /// anything was seen, a call is taken to last a second.
    pub(super) fn wait_for(&mut self, waiting: usize, slots: u32, at: (Instant, u32)) -> Duration {
        let per_second = self.read(at).unwrap_or_else(|| f64::from(slots.max(1)));
        let seconds = (waiting as f64 + 1.0) / per_second;
        // What a division by next to nothing gives is over the upper bound.
        Duration::from_secs_f64(seconds.ceil().clamp(Self::TOLD.0, Self::TOLD.1))
    }

    fn read(&mut self, (now, ended): (Instant, u32)) -> Option<f64> {
        let Some((since, count)) = self.since else { return self.per_second };
        let elapsed = now.saturating_duration_since(since).as_secs_f64();
        // Calls that ended within a moment are added with the next ones: of a moment there is no rate.
        if elapsed > SHORTEST.as_secs_f64() {
            let fresh = f64::from(ended.wrapping_sub(count)) / elapsed;
            let kept = (-elapsed / MEMORY.as_secs_f64()).exp();
            self.per_second =
                Some(self.per_second.map_or(fresh, |before| before * kept + fresh * (1.0 - kept)));
            self.since = Some((now, ended));
        }
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits told to a caller behind `waiting` others, asked every `step` while `per_second` calls end.
    fn told(drain: &mut DrainRate, start: Instant, per_second: f64, waiting: usize) -> u64 {
        let mut told = 0;
        for step in 1..=100_u32 {
            let elapsed = Duration::from_millis(500) * step;
            let ended = (elapsed.as_secs_f64() * per_second) as u32;
            told = drain.wait_for(waiting, 4, (start + elapsed, ended)).as_secs();
        }
        told
    }

    #[test]
    fn the_wait_is_what_the_queue_takes_at_the_rate_seen() {
        let start = Instant::now();
        for (per_second, waiting, seconds) in
            [(10.0, 99, 10), (10.0, 0, 1), (2.0, 9, 5), (1000.0, 1000, 2), (0.0, 5, 60)]
        {
            let mut drain = DrainRate::default();
            drain.resume((start, 0));
            let told = told(&mut drain, start, per_second, waiting);
            assert!(told.abs_diff(seconds) <= 1, "{per_second}/s, {waiting} waiting: {told}");
        }
    }

    #[test]
    fn before_anything_ended_a_call_is_taken_to_last_a_second() {
        let now = Instant::now();
        let mut drain = DrainRate::default();
        drain.resume((now, 0));
        assert_eq!(drain.wait_for(7, 4, (now, 0)).as_secs(), 2);
        assert_eq!(drain.wait_for(0, 4, (now, 0)).as_secs(), 1);
        assert_eq!(drain.wait_for(1000, 0, (now, 0)).as_secs(), 60);
    }

    #[test]
    fn times_without_waiting_calls_do_not_count() {
        let start = Instant::now();
        let mut drain = DrainRate::default();
        drain.resume((start, 0));
        let busy = told(&mut drain, start, 10.0, 99);
        drain.pause((start + Duration::from_secs(50), 500));
        // An hour of one call, then a burst.
        let later = start + Duration::from_secs(3600);
        drain.resume((later, 501));
        assert_eq!(drain.wait_for(99, 4, (later, 501)).as_secs(), busy);
    }

    #[test]
    fn the_count_may_wrap() {
        let start = Instant::now();
        let mut drain = DrainRate::default();
        drain.resume((start, u32::MAX - 4));
        let wait = drain.wait_for(9, 10, (start + Duration::from_secs(1), 5));
        assert_eq!(wait.as_secs(), 1, "ten in a second");
    }
}
