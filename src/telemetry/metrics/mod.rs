//! Metrics: counted where things happen, given out in the Prometheus text format 0.0.4 or as OpenMetrics.
//!
//! What is counted per call ([`ServiceMetrics`], [`RecordCounts`]) is spread over the worker threads and summed at a scrape;
//! the rest are plain metrics of the `prometheus` crate. Labels come from closed sets or the configuration, never from a
//! caller. What was counted stays for the life of the process, so that `sum(scoregate_requests_total)` and the records always
//! agree; the number of series is bounded all the same ([`MAX_SERVICES`]).

mod access;
mod control;
mod counted;
mod delivery;
mod exemplar;
mod family;
mod format;
mod health;
mod histogram;
mod limits;
mod listener;
mod open;
mod process;
mod replicas;
mod service;
mod services;
mod snapshot;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGaugeVec, Registry, TextEncoder};

pub use control::{CertificateMetrics, ConfigMetrics, KeySetReading, RunningConfig, StoreState};
pub use delivery::{Collected, Mirrored, Retried};
pub use family::{LABELS, NAMES};
pub use format::Format;
pub use health::{HealthMetrics, LookUpOutcome, ProbeOutcome};
pub use limits::{LimitReading, LoadReading, PrincipalReading};
pub use listener::{HandshakeFailure, ListenerMetrics, OpenConnection, Refusal};
pub use replicas::ReplicaReading;
pub use service::{InFlight, InTunnel, ServiceMetrics, ServiceReading};
pub use services::MAX_SERVICES;
pub use snapshot::{KeyReading, SnapshotReading};
pub use stats::DestinationStats;

pub(super) use histogram::{BOUNDS_SECONDS, BUCKETS};
pub(super) use service::{CallKind, Code};

use super::sink::RecordCounts;
use super::spool::ExporterCounts;
use crate::catalog::ComputeType;
use crate::wire::head::Flaw;
use control::KeySetCollector;
use counted::{Counted, CountedCollector};
use limits::LimitCollector;
use listener::ListenerFamilies;
use replicas::ReplicaCollector;
use snapshot::SnapshotCollector;

/// The label `listener` of the management plane's certificates; no listener of the data plane can have this name.
pub const MANAGEMENT_LISTENER: &str = "_management";

/// All metrics of one gateway.
pub struct Metrics {
    registry: Registry,
    counted: Arc<Counted>,
    malformed: [IntCounter; Flaw::ALL.len()],
    listeners: ListenerFamilies,
    config: ConfigMetrics,
    certificates: CertificateMetrics,
    health: HealthMetrics,
    store_up: IntGaugeVec,
}

impl Metrics {
    /// Metrics in a registry of their own: two gateways in one process do not meet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let counted = Arc::new(Counted {
            unrouted: Arc::new(ServiceMetrics::new("".into(), None)),
            services: Mutex::default(),
            records: Arc::new(RecordCounts::new()),
            exporters: Mutex::default(),
        });
        register(&registry, CountedCollector::new(&counted));
        family::BUILD_INFO.gauges(&registry).with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let malformed = family::MALFORMED.counters(&registry);
        Arc::new(Self {
            counted,
            malformed: Flaw::ALL.map(|flaw| malformed.with_label_values(&[flaw.as_str()])),
            listeners: ListenerFamilies::new(&registry),
            config: ConfigMetrics::new(&registry),
            certificates: CertificateMetrics::new(&registry),
            health: HealthMetrics::new(&registry),
            store_up: family::STORE_UP.gauges(&registry),
            registry,
        })
    }

    /// The counts of a service: the same ones for the same name and compute type, also after a reload. Takes a lock: for the
    /// first call of a service, not for each.
    #[must_use]
    pub fn service(&self, name: &Arc<str>, compute_type: ComputeType) -> Arc<ServiceMetrics> {
        self.counted.services.lock().unwrap_or_else(PoisonError::into_inner).get(name, compute_type)
    }

    /// The counts of calls for which no service was found.
    #[must_use]
    pub fn unrouted(&self) -> &Arc<ServiceMetrics> {
        &self.counted.unrouted
    }

    /// What each service has counted until now, by name, whatever its compute types were. Those past [`MAX_SERVICES`], which
    /// are counted together, are left out.
    #[must_use]
    pub fn read_services(&self) -> HashMap<Arc<str>, ServiceReading> {
        let services = self.counted.services.lock().unwrap_or_else(PoisonError::into_inner).all();
        let mut readings: HashMap<_, ServiceReading> = HashMap::new();
        for service in &services {
            if let Some(name) = service.name() {
                service.read(readings.entry(Arc::clone(name)).or_default());
            }
        }
        readings
    }

    /// Counts a request whose head could not be read.
    pub fn malformed(&self, flaw: Flaw) {
        self.malformed[flaw as usize].inc();
    }

    /// The counts of a listener, by its name in the configuration.
    #[must_use]
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        self.listeners.listener(name)
    }

    /// Reloads of the configuration.
    #[must_use]
    pub fn config(&self) -> &ConfigMetrics {
        &self.config
    }

    /// Certificates that listeners serve.
    #[must_use]
    pub fn certificates(&self) -> &CertificateMetrics {
        &self.certificates
    }

    /// What the control plane asks about replicas.
    #[must_use]
    pub fn health(&self) -> &HealthMetrics {
        &self.health
    }

    /// How the store of the management plane is.
    pub fn store(&self, state: StoreState) {
        self.store_up.with_label_values::<&str>(&[]).set(i64::from(state == StoreState::Up));
    }

    /// From now on shows the key sets of outside issuers as `read` finds them at each scrape. To be called once.
    pub fn show_key_sets(&self, read: impl Fn() -> Vec<KeySetReading> + Send + Sync + 'static) {
        register(&self.registry, KeySetCollector::new(read));
    }

    /// From now on shows the running snapshot as `read` finds it at each scrape. To be called once.
    pub fn show_snapshot(&self, read: impl Fn() -> SnapshotReading + Send + Sync + 'static) {
        register(&self.registry, SnapshotCollector::new(read));
    }

    /// From now on shows replicas as `read` finds them at each scrape. To be called once.
    pub fn show_replicas(&self, read: impl Fn() -> Vec<ReplicaReading> + Send + Sync + 'static) {
        register(&self.registry, ReplicaCollector::new(read));
    }

    /// From now on shows the limits of services as `read` finds them at each scrape. To be called once.
    pub fn show_limits(&self, read: impl Fn() -> Vec<LimitReading> + Send + Sync + 'static) {
        register(&self.registry, LimitCollector::new(read));
    }

    /// What became of the records.
    #[must_use]
    pub fn records(&self) -> Arc<RecordCounts> {
        Arc::clone(&self.counted.records)
    }

    /// What becomes of the records of an exporter, by its name in the configuration.
    #[must_use]
    pub fn exporter(&self, name: &'static str) -> Arc<ExporterCounts> {
        let mut exporters = self.counted.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counts)) = exporters.iter().find(|(found, _)| *found == name) {
            return Arc::clone(counts);
        }
        let counts = Arc::new(ExporterCounts::default());
        exporters.push((name, Arc::clone(&counts)));
        counts
    }

    /// What became of the records, by where they go: `records`, then each exporter.
    #[must_use]
    pub fn record_stats(&self) -> Vec<DestinationStats> {
        let exporters = self.counted.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        let exporters = exporters.iter().map(|(name, counts)| DestinationStats::of_exporter(name, counts));
        std::iter::once(DestinationStats::of_records(&self.counted.records)).chain(exporters).collect()
    }

    /// All metrics in `format`.
    #[must_use]
    pub fn render_as(&self, format: Format) -> String {
        match format {
            Format::Text => self.render(),
            Format::OpenMetrics => open::render(&self.families(), &self.counted.exemplars()),
        }
    }

    /// All metrics in the Prometheus text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let families = self.families();
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            // Only a family without a name or samples can do that, and there is none.
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }

    /// All metrics as they are now.
    pub(in crate::telemetry) fn families(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.extend(process::families());
        families
    }
}

#[expect(clippy::expect_used, reason = "the names are constants, all of which a test registers")]
fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry.register(Box::new(collector)).expect("metric names are registered once");
}
