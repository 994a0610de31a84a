//! What runs: the number of the snapshot and the lives of its keys, asked for at each scrape.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::family::{self, Samples};
use super::services::{MAX_SERVICES, OTHERS};

/// What is known of the running snapshot.
#[derive(Clone, Debug, Default)]
pub struct SnapshotReading {
    /// Its number.
    pub generation: u64,
    /// The keys of all its services.
    pub keys: Vec<KeyReading>,
}

/// The life of one key; none of its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReading {
    /// Whose it is.
    pub service: String,
    /// Its id: `primary` or `secondary`.
    pub key: &'static str,
    /// When it was made; `None`: not known.
    pub made: Option<SystemTime>,
    /// When it ends; `None`: never.
    pub not_after: Option<SystemTime>,
    /// When it last let a call in; `None`: not since the process started.
    pub last_used: Option<SystemTime>,
}

/// Most keys with series of their own: both of each service.
const MAX_KEYS: usize = 2 * MAX_SERVICES;

/// Asks whoever holds the snapshot.
pub(super) struct SnapshotCollector<R> {
    read: R,
    descs: [Desc; 4],
}

impl<R: Fn() -> SnapshotReading> SnapshotCollector<R> {
    pub(super) fn new(read: R) -> Self {
        let families =
            [family::SNAPSHOT_GENERATION, family::KEY_CREATED, family::KEY_NOT_AFTER, family::KEY_LAST_USED];
        Self { read, descs: families.map(|family| family.desc()) }
    }
}

impl<R: Fn() -> SnapshotReading + Send + Sync> Collector for SnapshotCollector<R> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let [mut generation, mut made, mut not_after, mut last_used] =
            [family::SNAPSHOT_GENERATION, family::KEY_CREATED, family::KEY_NOT_AFTER, family::KEY_LAST_USED]
                .map(Samples::of_gauge);
        let reading = (self.read)();
        generation.add(&[], reading.generation as f64);
        for key in bounded(reading.keys) {
            let labels = [&*key.service, key.key];
            for (samples, time) in
                [(&mut made, key.made), (&mut not_after, key.not_after), (&mut last_used, key.last_used)]
            {
                if let Some(time) = time {
                    samples.add(&labels, seconds(time));
                }
            }
        }
        [generation, made, not_after, last_used].map(Samples::into_family).into()
    }
}

/// As many keys as there may be series for. What is more goes together: what shows is the oldest, the first to end and the
/// last use.
fn bounded(mut keys: Vec<KeyReading>) -> Vec<KeyReading> {
    if keys.len() > MAX_KEYS {
        let rest = keys.split_off(MAX_KEYS).into_iter();
        let earlier = |one: Option<SystemTime>, other: Option<SystemTime>| one.into_iter().chain(other).min();
        let together = rest.reduce(|all, next| KeyReading {
            made: earlier(all.made, next.made),
            not_after: earlier(all.not_after, next.not_after),
            last_used: all.last_used.max(next.last_used),
            ..all
        });
        keys.extend(together.map(|rest| KeyReading { service: OTHERS.to_owned(), key: "", ..rest }));
    }
    keys
}

/// Since 1970, whole, as keys are stored.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn past_the_bound_keys_show_together_and_none_that_ends_is_hidden() {
        let key = |number: usize| KeyReading {
            service: format!("service-{number}"),
            key: "primary",
            made: at(number as u64),
            not_after: (number.is_multiple_of(2)).then(|| at(9000 + number as u64)).flatten(),
            last_used: None,
        };
        let keys = bounded((0..MAX_KEYS + 3).map(key).collect());
        assert_eq!(keys.len(), MAX_KEYS + 1);
        let last = keys.last().unwrap();
        let (made, not_after) = (at(MAX_KEYS as u64), at(9000 + MAX_KEYS as u64));
        let expected = KeyReading { service: OTHERS.to_owned(), key: "", made, not_after, last_used: None };
        assert_eq!(*last, expected);
    }

    #[test]
    fn what_is_not_known_of_a_key_has_no_series() {
        let key = KeyReading {
            service: "iris".to_owned(),
            key: "primary",
            made: at(5),
            not_after: None,
            last_used: None,
        };
        let reading = SnapshotReading { generation: 7, keys: vec![key] };
        let families = SnapshotCollector::new(move || reading.clone()).collect();
        let counts = families.iter().map(|family| (family.name(), family.get_metric().len()));
        let expected = [
            ("scoregate_snapshot_generation", 1),
            ("scoregate_key_created_timestamp_seconds", 1),
            ("scoregate_key_not_after_timestamp_seconds", 0),
            ("scoregate_key_last_used_timestamp_seconds", 0),
        ];
        assert_eq!(counts.collect::<Vec<_>>(), expected);
    }
}
