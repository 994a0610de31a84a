//! Exemplars: per bucket of a histogram of calls one call to look at, by its trace id.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::histogram::BUCKETS;
use crate::telemetry::record::Record;
use crate::telemetry::trace::TraceId;

/// A call that counts in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exemplar {
    trace_id: TraceId,
    /// What it has added to the histogram.
    pub(super) value: Duration,
    /// When it ended.
    pub(super) at: SystemTime,
}

/// The last call of each bucket, where there was one.
pub(super) type ByBucket = [Option<Exemplar>; BUCKETS];

/// One thread's exemplars of one histogram. A call costs a look at the clock it has brought along; one per second and bucket
/// is kept, which costs some 30 ns more.
#[derive(Default)]
pub(super) struct Exemplars {
    /// The second in which each bucket's was kept.
    seconds: [AtomicU64; BUCKETS],
    /// Made with the first one: most services of many are idle.
    kept: OnceLock<Box<Mutex<ByBucket>>>,
}

impl Exemplar {
    fn of(record: &Record, at: SystemTime) -> Self {
        // In the histogram's own steps, lest it lie beyond its bucket.
        let micros = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
        Self { trace_id: record.trace_id(), value: Duration::from_micros(micros), at }
    }

    /// 32 lower-case hex digits.
    pub(super) fn trace_id(&self) -> &str {
        self.trace_id.as_str()
    }
}

impl Exemplars {
    /// Keeps the call of `record`, which counts in `bucket`, unless one of the same second is kept there.
    pub(super) fn offer(&self, bucket: usize, record: &Record) {
        let at = record.time.checked_add(record.duration).unwrap_or(record.time);
        let second = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if self.seconds[bucket].load(Relaxed) == second {
            return;
        }
        self.seconds[bucket].store(second, Relaxed);
        // Whoever has the lock reads the page or keeps another call: this one is not worth a wait.
        if let Ok(mut kept) = self.kept.get_or_init(Box::default).try_lock() {
            kept[bucket] = Some(Exemplar::of(record, at));
        }
    }

    /// Puts into `all` what is newer than what is there.
    pub(super) fn add_to(&self, all: &mut ByBucket) {
        let Some(kept) = self.kept.get() else { return };
        let kept = *kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (known, own) in all.iter_mut().zip(kept) {
            if own.map(|own| own.at) > known.map(|known| known.at) {
                *known = own;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: SystemTime, micros: u64) -> Record {
        Record { time, duration: Duration::from_micros(micros), ..Record::sample() }
    }

    fn of(threads: &[&Exemplars]) -> ByBucket {
        let mut all = ByBucket::default();
        threads.iter().for_each(|thread| thread.add_to(&mut all));
        all
    }

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + millis)
    }

    #[test]
    fn one_call_of_each_second_is_kept_and_the_newest_of_all_threads_shows() {
        let (one, other) = (Exemplars::default(), Exemplars::default());
        one.offer(3, &record(at(0), 7_000));
        one.offer(3, &record(at(900), 8_000));
        assert_eq!(of(&[&one])[3].unwrap().value, Duration::from_millis(7), "the first of its second");
        one.offer(3, &record(at(999), 9_000));
        let newest = of(&[&one])[3].unwrap();
        assert_eq!(
            (newest.value, newest.at),
            (Duration::from_millis(9), at(1008)),
            "it ended in the next one"
        );
        other.offer(3, &record(at(3000), 6_000));
        other.offer(0, &record(at(3000), 1_000));
        for threads in [[&one, &other], [&other, &one]] {
            let all = of(&threads);
            assert_eq!(all[3].unwrap().value, Duration::from_millis(6));
            assert_eq!(all.iter().flatten().count(), 2);
        }
    }

    #[test]
    fn a_call_goes_by_its_trace_or_else_by_its_request_id() {
        let exemplars = Exemplars::default();
        exemplars.offer(0, &Record::sample());
        exemplars.offer(1, &Record { parent: None, ..Record::sample() });
        let ids = of(&[&exemplars]).map(|exemplar| exemplar.map(|it| it.trace_id().to_owned()));
        assert_eq!(ids[0].as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(ids[1].as_deref(), Some("11111111222243338444555555555555"));
    }
}
