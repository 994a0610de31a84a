//! The last 24 hours of each service, minute by minute, in memory: what a metrics query is answered from.
//!
//! [`History::look`] compares what [`Metrics`](super::Metrics) count with what they counted at the look before, and adds the
//! difference to the minute in which that was; it takes the clock. Nothing of it is on the request path. `metric` names
//! what can be asked for, `series` puts minutes together as they are asked for.
//!
//! Bounds: a minute is kept for a service only if it had calls then, so one that rests costs nothing; a service with calls
//! in every minute has [`MINUTES`] of them, some 315 KiB; all services together have at most [`MOST_MINUTES`], which is 62 MiB
//! or 200 such services. Past that the service with the fewest calls loses its past.

mod metric;
mod minute;
mod series;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use metric::{Aggregation, Definition, Dimension, Metric};
pub use series::{DimensionFilter, Point, Series, Span};

use super::metrics::{LoadReading, ServiceReading};
use minute::{Kinds, Minute};

/// How far back it goes, in minutes.
pub const MINUTES: u32 = 24 * 60;

/// Most minutes of all services together.
pub const MOST_MINUTES: usize = 200 * MINUTES as usize;

/// Minutes that a service's memory grows by: to double it would keep a third of it empty.
const GROWTH: usize = 60;

/// Between two looks. A minute is a whole number of them, so that what is seen of one is not counted in the next.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The history of all services of one gateway, since its start.
pub struct History {
    known: Mutex<Known>,
    /// Of all services together.
    most_minutes: usize,
}

#[derive(Default)]
struct Known {
    /// Of the first look: what was before is not known.
    since: Option<u32>,
    /// Of the last look.
    now: u32,
    /// Looks before this one that saw the same minute.
    looks: u32,
    services: HashMap<Arc<str>, Past>,
    /// Minutes of all services.
    minutes: usize,
}

/// Which minute a look sees, and how many looks before saw the same.
#[derive(Clone, Copy)]
struct Look {
    minute: u32,
    earlier: u32,
}

/// What is known of one service.
struct Past {
    /// What it had counted at the last look.
    seen: ServiceReading,
    /// The first minute that is known.
    since: u32,
    kinds: Kinds,
    /// In the order of time; those without calls are not there.
    minutes: VecDeque<Minute>,
}

/// Of at most [`MOST_MINUTES`].
impl Default for History {
    fn default() -> Self {
        Self::of(MOST_MINUTES)
    }
}

impl History {
    fn of(most_minutes: usize) -> Self {
        Self { known: Mutex::default(), most_minutes }
    }

    /// Takes note of what happened since the look before: `readings` of all services and, of those with limits, how busy
    /// they are.
    pub fn look(
        &self,
        now: SystemTime,
        readings: HashMap<Arc<str>, ServiceReading>,
        loads: &HashMap<String, LoadReading>,
    ) {
        let mut known = self.known();
        let now = minute_of(now);
        // What is seen now happened after the last look.
        let minute = if known.since.is_some() { known.now } else { now };
        let since = *known.since.get_or_insert(now);
        let look = Look { minute, earlier: known.looks };
        // Nobody counts for it any more, and its last minute is over a day ago.
        known.services.retain(|name, past| readings.contains_key(name) || !past.minutes.is_empty());
        for (name, reading) in readings {
            let load = loads.get(&*name).copied();
            let past = known.services.entry(name).or_insert_with(|| Past::since(since));
            past.add(look, reading, load);
        }
        known.looks = if now == minute { known.looks + 1 } else { 0 };
        known.now = now;
        known.forget(now, self.most_minutes);
    }

    /// How `metric` of `service` went in `span`: one series of all calls without a filter, else one for each combination of
    /// the filter's dimensions that had any, the largest first.
    #[must_use]
    pub fn series(
        &self,
        service: &str,
        metric: Metric,
        span: &Span,
        filter: &[DimensionFilter],
    ) -> Vec<Series> {
        let known = self.known();
        // Before the first look nothing is known.
        let resting = Past::since(known.since.unwrap_or(u32::MAX));
        let past = known.services.get(service).unwrap_or(&resting);
        let span = span.known(past.since, known.now);
        series::of(metric, &span, past, filter)
    }

    /// A panic under this lock leaves a look that counts for less.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

impl Known {
    /// Lets go of what is too old, and of what is too much.
    fn forget(&mut self, now: u32, most_minutes: usize) {
        let oldest = (now + 1).saturating_sub(MINUTES);
        for past in self.services.values_mut() {
            let before = past.minutes.len();
            while past.minutes.front().is_some_and(|minute| minute.at < oldest) {
                past.minutes.pop_front();
            }
            if past.minutes.len() < before {
                past.kinds.keep_used(&mut past.minutes);
            }
        }
        self.minutes = self.services.values().map(|past| past.minutes.len()).sum();
        while self.minutes > most_minutes {
            let with_past = self.services.values_mut().filter(|past| !past.minutes.is_empty());
            let Some(least) = with_past.min_by_key(|past| past.calls()) else { return };
            self.minutes -= least.minutes.len();
            *least = Past { seen: std::mem::take(&mut least.seen), ..Past::since(now) };
        }
    }
}

impl Past {
    fn since(since: u32) -> Self {
        Self { seen: ServiceReading::default(), since, kinds: Kinds::default(), minutes: VecDeque::new() }
    }

    fn add(&mut self, look: Look, reading: ServiceReading, load: Option<LoadReading>) {
        let busy = reading.in_flight > 0 || load.is_some_and(|load| load.waiting > 0);
        let seen = |kind| self.seen.calls.get(kind).copied().unwrap_or(0);
        let called = reading.calls.iter().any(|(kind, count)| seen(kind) != *count);
        // A clock that was set back does not bring a minute back.
        if (busy || called) && self.minutes.back().is_none_or(|last| last.at < look.minute) {
            let mut minute = Minute::at(look.minute);
            (0..look.earlier).for_each(|_| minute.sample(0, load.map(LoadReading::at_rest)));
            if self.minutes.len() == self.minutes.capacity() {
                self.minutes.reserve_exact(GROWTH);
            }
            self.minutes.push_back(minute);
        }
        if let Some(minute) = self.minutes.back_mut().filter(|last| last.at >= look.minute) {
            minute.add(&mut self.kinds, &self.seen, &reading);
            minute.sample(reading.in_flight, load);
        }
        self.seen = reading;
    }

    fn calls(&self) -> u64 {
        self.minutes.iter().map(Minute::calls).sum()
    }
}

/// The minute of a point in time, counted from 1970.
fn minute_of(at: SystemTime) -> u32 {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(seconds / 60).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
