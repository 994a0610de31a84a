//! What the control plane tells: reloads, certificates, the keys of outside issuers.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::family::{self, Samples};

/// Reloads of the configuration.
pub struct ConfigMetrics {
    reloads: IntCounterVec,
    last_successful: IntGaugeVec,
    last_success_time: IntGaugeVec,
    generation: IntGaugeVec,
    info: IntGaugeVec,
}

/// The configuration that runs.
#[derive(Clone, Copy, Debug)]
pub struct RunningConfig<'a> {
    /// Number of its snapshot.
    pub generation: u64,
    /// Hash of its file, as `/config/status` shows it.
    pub hash: &'a str,
}

impl ConfigMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            reloads: family::CONFIG_RELOADS.counters(registry),
            last_successful: family::CONFIG_LAST_SUCCESSFUL.gauges(registry),
            last_success_time: family::CONFIG_LAST_SUCCESS_TIME.gauges(registry),
            generation: family::CONFIG_GENERATION.gauges(registry),
            info: family::CONFIG_INFO.gauges(registry),
        };
        for outcome in ["applied", "refused", "unchanged"] {
            let _ = metrics.reloads.with_label_values(&[outcome]);
        }
        metrics
    }

    /// The configuration that the process starts with; not a reload.
    pub fn started(&self, running: RunningConfig<'_>) {
        let generation = i64::try_from(running.generation).unwrap_or(i64::MAX);
        set(&self.generation, generation);
        set(&self.last_successful, 1);
        set(&self.last_success_time, seconds(SystemTime::now()));
        self.info.reset();
        self.info.with_label_values(&[running.hash]).set(1);
    }

    /// A reload that took effect.
    pub fn applied(&self, running: RunningConfig<'_>) {
        self.reloads.with_label_values(&["applied"]).inc();
        self.started(running);
    }

    /// A reload that found the running configuration.
    pub fn unchanged(&self) {
        self.reloads.with_label_values(&["unchanged"]).inc();
        set(&self.last_successful, 1);
    }

    /// A reload that was refused; the running configuration stays.
    pub fn refused(&self) {
        self.reloads.with_label_values(&["refused"]).inc();
        set(&self.last_successful, 0);
    }
}

/// Certificates that listeners serve.
pub struct CertificateMetrics {
    not_after: IntGaugeVec,
    reload_errors: IntCounterVec,
    /// What each listener has shown, to take back what it serves no more.
    shown: Mutex<BTreeMap<String, Vec<String>>>,
}

impl CertificateMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            not_after: family::CERTIFICATE_NOT_AFTER.gauges(registry),
            reload_errors: family::CERTIFICATE_RELOAD_ERRORS.counters(registry),
            shown: Mutex::default(),
        };
        let _ = metrics.reload_errors.with_label_values::<&str>(&[]);
        metrics
    }

    /// The certificates that `listener` serves from now on, each by name with its end; replaces those told before.
    pub fn serves<'a>(&self, listener: &str, certificates: impl IntoIterator<Item = (&'a str, SystemTime)>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for name in shown.remove(listener).unwrap_or_default() {
            // Fails only if it is gone already.
            let _ = self.not_after.remove_label_values(&[listener, &name]);
        }
        let mut names = Vec::new();
        for (name, end) in certificates {
            self.not_after.with_label_values(&[listener, name]).set(seconds(end));
            names.push(name.to_owned());
        }
        shown.insert(listener.to_owned(), names);
    }

    /// A certificate or key that could not be taken.
    pub fn reload_failed(&self) {
        self.reload_errors.with_label_values::<&str>(&[]).inc();
    }
}

/// Whether the store of the management plane answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It does.
    Up,
    /// It does not: changes are refused, scoring goes on.
    Down,
}

/// How the key set of one source stands.
#[derive(Clone, Debug)]
pub struct KeySetReading {
    /// The file, or the URL without what may be secret in it.
    pub source: String,
    /// Keys that can verify tokens.
    pub keys: usize,
    /// Time since it was last read or fetched; `None`: that has not gone well yet.
    pub age: Option<Duration>,
}

/// Asks at each scrape how the key sets stand: whoever holds them knows, and nothing has to be kept in step.
pub(super) struct KeySetCollector<R> {
    read: R,
    descs: [Desc; 2],
}

impl<R: Fn() -> Vec<KeySetReading>> KeySetCollector<R> {
    pub(super) fn new(read: R) -> Self {
        Self { read, descs: [family::JWKS_AGE.desc(), family::JWKS_KEYS.desc()] }
    }
}

impl<R: Fn() -> Vec<KeySetReading> + Send + Sync> Collector for KeySetCollector<R> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut ages = Samples::of_gauge(family::JWKS_AGE);
        let mut keys = Samples::of_gauge(family::JWKS_KEYS);
        let mut sets = (self.read)();
        // Two sets may go by one name (a URL with two queries). A page must name a series once: the older set shows.
        sets.sort_by(|a, b| a.source.cmp(&b.source).then(b.age.cmp(&a.age)));
        sets.dedup_by(|next, first| next.source == first.source);
        for set in sets {
            keys.add(&[&set.source], set.keys as f64);
            if let Some(age) = set.age {
                ages.add(&[&set.source], age.as_secs_f64());
            }
        }
        vec![ages.into_family(), keys.into_family()]
    }
}

/// Sets a gauge that has no labels.
fn set(gauge: &IntGaugeVec, value: i64) {
    gauge.with_label_values::<&str>(&[]).set(value);
}

/// Seconds since 1970; 0 for what was before.
fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
