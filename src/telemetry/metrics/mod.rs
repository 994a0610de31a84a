//! Metrics: counted where things happen, given out in the Prometheus text format 0.0.4 or as OpenMetrics.
//!
//! What is counted per call ([`ServiceMetrics`], [`RecordCounts`]) is spread over the worker threads and summed at a scrape;
//! the rest are plain metrics of the `prometheus` crate. Labels come from closed sets or the configuration, never from a
//! caller. What was counted stays for the life of the process, so that `sum(scoregate_requests_total)` and the records always
//! agree; the number of series is bounded all the same ([`MAX_SERVICES`]).

mod access;
mod control;
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

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
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
use exemplar::ByBucket;
use family::Samples;
use limits::LimitCollector;
use listener::ListenerFamilies;
use open::ExemplarsByService;
use replicas::ReplicaCollector;
use service::ServiceSamples;
use services::Services;
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

/// What we count ourselves and show through a collector.
struct Counted {
    unrouted: Arc<ServiceMetrics>,
    services: Mutex<Services>,
    records: Arc<RecordCounts>,
    /// By name; few, and none goes.
    exporters: Mutex<Vec<(&'static str, Arc<ExporterCounts>)>>,
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
        CountedCollector::register(&registry, &counted);
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
    #[expect(clippy::expect_used, reason = "the names are constants, all of which a test registers")]
    pub fn show_key_sets(&self, read: impl Fn() -> Vec<KeySetReading> + Send + Sync + 'static) {
        let collector = KeySetCollector::new(read);
        self.registry.register(Box::new(collector)).expect("metric names are registered once");
    }

    /// From now on shows the running snapshot as `read` finds it at each scrape. To be called once.
    #[expect(clippy::expect_used, reason = "the names are constants, all of which a test registers")]
    pub fn show_snapshot(&self, read: impl Fn() -> SnapshotReading + Send + Sync + 'static) {
        let collector = SnapshotCollector::new(read);
        self.registry.register(Box::new(collector)).expect("metric names are registered once");
    }

    /// From now on shows replicas as `read` finds them at each scrape. To be called once.
    #[expect(clippy::expect_used, reason = "the names are constants, all of which a test registers")]
    pub fn show_replicas(&self, read: impl Fn() -> Vec<ReplicaReading> + Send + Sync + 'static) {
        let collector = ReplicaCollector::new(read);
        self.registry.register(Box::new(collector)).expect("metric names are registered once");
    }

    /// From now on shows the limits of services as `read` finds them at each scrape. To be called once.
    #[expect(clippy::expect_used, reason = "the names are constants, all of which a test registers")]
    pub fn show_limits(&self, read: impl Fn() -> Vec<LimitReading> + Send + Sync + 'static) {
        self.registry
            .register(Box::new(LimitCollector::new(read)))
            .expect("metric names are registered once");
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

impl Counted {
    /// The counts of all services, and of calls without one.
    fn all_services(&self) -> Vec<Arc<ServiceMetrics>> {
        let mut all = self.services.lock().unwrap_or_else(PoisonError::into_inner).all();
        all.push(Arc::clone(&self.unrouted));
        all
    }

    fn exemplars(&self) -> ExemplarsByService {
        let mut exemplars = ExemplarsByService::new();
        for service in self.all_services() {
            let of_service: &mut ByBucket = exemplars.entry(service.label().to_owned()).or_default();
            service.exemplars(of_service);
        }
        exemplars
    }
}

/// The collector of [`Counted`] as the registry wants it.
struct CountedCollector {
    counted: Arc<Counted>,
    descs: Vec<Desc>,
}

impl CountedCollector {
    #[expect(clippy::expect_used, reason = "the names are constants, all of which a test registers")]
    fn register(registry: &Registry, counted: &Arc<Counted>) {
        let families = [
            family::REQUESTS,
            family::DURATION,
            family::FIRST_BYTE,
            family::QUEUE_WAIT,
            family::REQUEST_BYTES,
            family::RESPONSE_BYTES,
            family::ATTEMPTS,
            family::TOKENS,
            family::USAGE_UNREAD,
            family::AUTHENTICATIONS,
            family::IN_FLIGHT,
            family::TUNNELS,
            family::RETRIES,
            family::RETRY_BUDGET_EXHAUSTED,
            family::MIRRORED,
            family::LABEL_OVERFLOW,
            family::COLLECTED,
            family::RECORDS,
            family::RECORDS_QUEUED,
            family::RECORDS_ACCEPTED,
            family::EXPORTER_RECORDS,
            family::EXPORTER_SPOOLED,
            family::EXPORTER_ACCEPTED,
            family::EXPORTER_SPOOL_BYTES,
        ];
        let collector =
            Self { counted: Arc::clone(counted), descs: families.iter().map(family::Family::desc).collect() };
        registry.register(Box::new(collector)).expect("metric names are registered once");
    }
}

impl Collector for CountedCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = ServiceSamples::new();
        samples.add_all(&self.counted.all_services());
        let mut families = samples.into_families();
        families.extend(record_families(&self.counted.records));
        let exporters = self.counted.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        families.extend(exporter_families(&exporters));
        families
    }
}

fn record_families(counts: &RecordCounts) -> [MetricFamily; 3] {
    let mut outcomes = Samples::of_counter(family::RECORDS);
    outcomes.add(&["written"], counts.written_total() as f64);
    outcomes.add(&["dropped"], counts.dropped_total() as f64);
    let mut queued = Samples::of_gauge(family::RECORDS_QUEUED);
    queued.add(&[], counts.queued_now() as f64);
    let mut accepted = Samples::of_counter(family::RECORDS_ACCEPTED);
    accepted.add(&[], counts.accepted_total() as f64);
    [outcomes, queued, accepted].map(Samples::into_family)
}

fn exporter_families(exporters: &[(&'static str, Arc<ExporterCounts>)]) -> [MetricFamily; 4] {
    let mut outcomes = Samples::of_counter(family::EXPORTER_RECORDS);
    let mut spooled = Samples::of_gauge(family::EXPORTER_SPOOLED);
    let mut accepted = Samples::of_counter(family::EXPORTER_ACCEPTED);
    let mut bytes = Samples::of_gauge(family::EXPORTER_SPOOL_BYTES);
    for (name, counts) in exporters {
        // All of one moment, so that they add up.
        let counts = counts.reading();
        outcomes.add(&[name, "delivered"], counts.delivered as f64);
        outcomes.add(&[name, "dropped"], counts.dropped as f64);
        spooled.add(&[name], counts.spooled as f64);
        accepted.add(&[name], counts.accepted as f64);
        bytes.add(&[name], counts.bytes as f64);
    }
    [outcomes, spooled, accepted, bytes].map(Samples::into_family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use crate::telemetry::record::Record;
    use std::collections::BTreeSet;
    use std::time::{Duration, SystemTime};

    fn sample(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = metrics.render();
        let line =
            text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[test]
    fn every_name_in_the_list_is_given_out_and_no_other() {
        let metrics = Metrics::new();
        metrics.unrouted().observe(&Record::sample());
        metrics.unrouted().retried(Retried::Reset);
        metrics.unrouted().retry_budget_exhausted();
        metrics.unrouted().mirrored(Mirrored::Sent);
        metrics.unrouted().collected(Collected::Written);
        let _ = metrics.listener("public");
        metrics.config().started(RunningConfig { generation: 1, hash: "abc" });
        metrics.certificates().serves("public", [("a", SystemTime::now())]);
        metrics.store(StoreState::Up);
        let _ = metrics.exporter("application_insights");
        metrics.health().probed("iris", "blue", ProbeOutcome::Passed);
        metrics.show_key_sets(|| {
            vec![KeySetReading { source: "/keys.json".to_owned(), keys: 1, age: Some(Duration::ZERO) }]
        });
        metrics.show_replicas(|| {
            let (service, deployment) = ("iris".into(), "blue".into());
            vec![ReplicaReading { service, deployment, states: vec![("ready", 1)], ejections: 0 }]
        });
        metrics.show_snapshot(|| {
            let now = Some(SystemTime::now());
            let (service, key) = ("iris".to_owned(), "primary");
            let keys = vec![KeyReading { service, key, made: now, not_after: now, last_used: now }];
            SnapshotReading { generation: 1, keys }
        });
        metrics.show_limits(|| {
            let load = Some(LoadReading { slots: 2, busy: 1, waiting: 0 });
            let principals = Some(PrincipalReading::default());
            vec![LimitReading { service: "iris".to_owned(), load, principals }]
        });
        let text = metrics.render();
        let given: BTreeSet<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(given, NAMES.iter().copied().collect());
    }

    #[test]
    fn attempts_and_copies_show_by_what_became_of_them_and_not_where_there_were_none() {
        let metrics = Metrics::new();
        let service = metrics.service(&"iris".into(), ComputeType::Aks);
        for _ in 0..2 {
            service.retried(Retried::Unsent);
        }
        service.mirrored(Mirrored::TooLarge);
        let series = |series: &str| sample(&metrics, series);
        assert_eq!(series(r#"scoregate_retries_total{service="iris",why="unsent"}"#), Some(2.0));
        assert_eq!(series(r#"scoregate_retries_total{service="iris",why="reset"}"#), None);
        assert_eq!(series(r#"scoregate_retry_budget_exhausted_total{service="iris"}"#), None);
        assert_eq!(series(r#"scoregate_mirrored_total{service="iris",outcome="too_large"}"#), Some(1.0));
    }

    #[test]
    fn a_call_shows_in_each_of_its_series() {
        let metrics = Metrics::new();
        let service = metrics.service(&"iris".into(), ComputeType::Aks);
        let in_flight = service.start();
        assert_eq!(sample(&metrics, r#"scoregate_requests_in_flight{service="iris"}"#), Some(1.0));
        service.observe(&Record::sample());
        drop(in_flight);
        for (series, value) in [
            (
                r#"scoregate_requests_total{service="iris",compute_type="AKS",deployment="blue",code="200",reason="ok"}"#,
                1.0,
            ),
            (r#"scoregate_request_duration_seconds_bucket{service="iris",le="0.01"}"#, 0.0),
            (r#"scoregate_request_duration_seconds_bucket{service="iris",le="0.025"}"#, 1.0),
            (r#"scoregate_request_duration_seconds_bucket{service="iris",le="+Inf"}"#, 1.0),
            (r#"scoregate_request_duration_seconds_sum{service="iris"}"#, 0.012045),
            (r#"scoregate_request_duration_seconds_count{service="iris"}"#, 1.0),
            (r#"scoregate_upstream_first_byte_seconds_sum{service="iris"}"#, 0.011),
            (r#"scoregate_queue_wait_seconds_count{service="iris"}"#, 1.0),
            (r#"scoregate_request_body_bytes_total{service="iris"}"#, 1024.0),
            (r#"scoregate_response_body_bytes_total{service="iris"}"#, 130.0),
            (r#"scoregate_upstream_attempts_total{service="iris"}"#, 1.0),
            (r#"scoregate_requests_in_flight{service="iris"}"#, 0.0),
            (r#"scoregate_requests_in_flight{service=""}"#, 0.0),
        ] {
            assert_eq!(sample(&metrics, series), Some(value), "{series}");
        }
    }

    #[test]
    fn calls_on_many_threads_add_up() {
        let metrics = Metrics::new();
        let service = metrics.service(&"iris".into(), ComputeType::Aks);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|_| service.observe(&Record::sample())));
            }
        });
        let series = r#"scoregate_requests_total{service="iris",compute_type="AKS",deployment="blue",code="200",reason="ok"}"#;
        assert_eq!(sample(&metrics, series), Some(1000.0));
    }

    #[test]
    fn statuses_that_a_model_makes_up_add_no_series_each() {
        let metrics = Metrics::new();
        for status in 100..=999 {
            metrics.unrouted().observe(&Record { status, ..Record::sample() });
        }
        let text = metrics.render();
        let series = text.lines().filter(|line| line.starts_with("scoregate_requests_total{"));
        assert!(series.clone().count() < 80, "{}", series.count());
        let made_up = r#"scoregate_requests_total{service="",compute_type="",deployment="blue",code="9xx",reason="ok"}"#;
        assert_eq!(sample(&metrics, made_up), Some(100.0));
        let gone = r#"scoregate_requests_total{service="",compute_type="",deployment="blue",code="499",reason="ok"}"#;
        assert_eq!(sample(&metrics, gone), Some(1.0));
    }

    #[test]
    fn a_service_keeps_its_counts_over_a_reload() {
        let metrics = Metrics::new();
        let first = metrics.service(&"iris".into(), ComputeType::Aks);
        assert!(Arc::ptr_eq(&first, &metrics.service(&"iris".into(), ComputeType::Aks)));
        assert!(!Arc::ptr_eq(&first, &metrics.service(&"iris".into(), ComputeType::Aci)));
        for reason in Reason::ALL {
            first.observe(&Record { reason, ..Record::sample() });
        }
        assert_eq!(
            metrics.render().matches("scoregate_requests_total{service=\"iris\"").count(),
            Reason::ALL.len()
        );
    }

    #[test]
    fn a_service_that_is_made_anew_with_another_compute_type_has_each_series_once() {
        let metrics = Metrics::new();
        metrics.service(&"iris".into(), ComputeType::Aks).observe(&Record::sample());
        metrics.service(&"iris".into(), ComputeType::Managed).observe(&Record::sample());
        let page = metrics.render();
        let mut series = BTreeSet::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (name, _) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name), "{name} is there twice");
        }
        assert_eq!(
            sample(&metrics, r#"scoregate_request_duration_seconds_count{service="iris"}"#),
            Some(2.0)
        );
        assert_eq!(sample(&metrics, r#"scoregate_tokens_total{service="iris",kind="prompt"}"#), Some(18.0));
        assert_eq!(page.matches("scoregate_requests_total{service=\"iris\"").count(), 2);
    }

    #[test]
    fn the_name_of_each_family_tells_its_kind_and_unit() {
        for (name, labels) in LABELS {
            let valid = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(valid(name) && labels.iter().all(|label| valid(label)), "{name}");
        }
        let metrics = Metrics::new();
        let _ = metrics.listener("public");
        let page = metrics.render();
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        }
    }

    #[test]
    fn calls_past_the_bound_of_services_are_told_of() {
        let metrics = Metrics::new();
        let names = (0..=MAX_SERVICES).map(|number| format!("service-{number}").into());
        let services: Vec<_> = names.map(|name| metrics.service(&name, ComputeType::Aks)).collect();
        let overflow = r#"scoregate_label_overflow_total{label="service"}"#;
        assert_eq!(sample(&metrics, overflow), Some(0.0));
        services.iter().for_each(|service| service.observe(&Record::sample()));
        assert_eq!(sample(&metrics, overflow), Some(1.0));
        assert_eq!(sample(&metrics, r#"scoregate_label_overflow_total{label="deployment"}"#), Some(0.0));
    }

    #[test]
    fn an_exemplar_leads_from_a_bucket_to_a_call() {
        let metrics = Metrics::new();
        metrics.service(&"iris".into(), ComputeType::Aks).observe(&Record::sample());
        let page = metrics.render_as(Format::OpenMetrics);
        let bucket = r#"scoregate_request_duration_seconds_bucket{service="iris",le="0.025"} 1 # "#;
        let line = page.lines().find_map(|line| line.strip_prefix(bucket)).unwrap();
        assert_eq!(line, r#"{trace_id="0af7651916cd43dd8448eb211c80319c"} 0.012045 1795516132.135"#);
        assert!(!metrics.render().contains("trace_id"));
    }

    #[test]
    fn connections_are_open_as_long_as_their_guard() {
        let metrics = Metrics::new();
        let listener = metrics.listener("public");
        let open = listener.opened();
        listener.handshake_failed(HandshakeFailure::Timeout);
        listener.refused(Refusal::ProxyHeader);
        let shown = |series| sample(&metrics, series);
        assert_eq!(shown(r#"scoregate_connections_open{listener="public"}"#), Some(1.0));
        drop(open);
        assert_eq!(shown(r#"scoregate_connections_open{listener="public"}"#), Some(0.0));
        assert_eq!(shown(r#"scoregate_connections_accepted_total{listener="public"}"#), Some(1.0));
        assert_eq!(
            shown(r#"scoregate_tls_handshake_failures_total{kind="timeout",listener="public"}"#),
            Some(1.0)
        );
        assert_eq!(
            shown(r#"scoregate_connections_refused_total{listener="public",reason="proxy_header"}"#),
            Some(1.0)
        );
    }

    #[test]
    fn a_key_set_has_an_age_once_it_was_fetched() {
        let metrics = Metrics::new();
        metrics.show_key_sets(|| {
            let set = |source: &str, keys, age| KeySetReading { source: source.to_owned(), keys, age };
            vec![set("/a", 2, Some(Duration::from_millis(1500))), set("/b", 0, None)]
        });
        assert_eq!(sample(&metrics, r#"scoregate_jwks_age_seconds{source="/a"}"#), Some(1.5));
        assert_eq!(sample(&metrics, r#"scoregate_jwks_keys{source="/a"}"#), Some(2.0));
        assert_eq!(sample(&metrics, r#"scoregate_jwks_age_seconds{source="/b"}"#), None);
        assert_eq!(sample(&metrics, r#"scoregate_jwks_keys{source="/b"}"#), Some(0.0));
    }

    #[test]
    fn an_exporters_records_add_up_on_the_page() {
        let metrics = Metrics::new();
        let counts = metrics.exporter("otlp");
        assert!(Arc::ptr_eq(&counts, &metrics.exporter("otlp")));
        counts.accepted(10);
        counts.settled(4, 1);
        counts.dropped(2);
        counts.holds_bytes(77);
        for (series, value) in [
            (r#"scoregate_exporter_accepted_total{exporter="otlp"}"#, 10.0),
            (r#"scoregate_exporter_records_total{exporter="otlp",outcome="delivered"}"#, 4.0),
            (r#"scoregate_exporter_records_total{exporter="otlp",outcome="dropped"}"#, 3.0),
            (r#"scoregate_exporter_spooled{exporter="otlp"}"#, 3.0),
            (r#"scoregate_exporter_spool_bytes{exporter="otlp"}"#, 77.0),
        ] {
            assert_eq!(sample(&metrics, series), Some(value), "{series}");
        }
    }

    #[test]
    fn a_replaced_certificate_and_a_replaced_hash_are_gone() {
        let metrics = Metrics::new();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        metrics.certificates().serves("public", [("old", end), ("kept", end)]);
        metrics.certificates().serves("public", [("kept", end)]);
        metrics.config().started(RunningConfig { generation: 1, hash: "aaa" });
        metrics.config().refused();
        assert_eq!(sample(&metrics, "scoregate_config_last_reload_successful"), Some(0.0));
        metrics.config().applied(RunningConfig { generation: 2, hash: "bbb" });
        let text = metrics.render();
        assert!(!text.contains("\"old\"") && !text.contains("aaa"), "{text}");
        let kept = r#"scoregate_certificate_not_after_timestamp_seconds{listener="public",name="kept"}"#;
        assert_eq!(sample(&metrics, kept), Some(2e9));
        assert_eq!(sample(&metrics, "scoregate_config_generation"), Some(2.0));
        assert_eq!(sample(&metrics, r#"scoregate_config_reloads_total{outcome="refused"}"#), Some(1.0));
    }
}
