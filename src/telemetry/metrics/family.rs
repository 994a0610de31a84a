//! Every metric by name: the one list that the code registers from and that dashboards and alerts may use.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::histogram::{BOUNDS_SECONDS, Reading};

/// A metric's name, its meaning and its labels.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
}

macro_rules! families {
    ($($constant:ident = $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: Family = Family { name: $name, help: $help, labels: &[$($label),*] };)*

        /// The name of every metric family that [`Metrics::render`](super::Metrics::render) can give out.
        pub const NAMES: &[&str] = &[$($name),*];

        /// The labels of each family by its name, in the order of [`NAMES`].
        pub const LABELS: &[(&str, &[&str])] = &[$(($name, &[$($label),*])),*];
    };
}

families! {
    REQUESTS = "scoregate_requests_total" ["service", "compute_type", "deployment", "code", "reason"]
        "Calls ended, by the status sent to the caller (the class, such as 4xx, where a model made one up) and the reason; service is empty where none was found.";
    DURATION = "scoregate_request_duration_seconds" ["service"]
        "Time from the head of a call to the last byte of its answer.";
    FIRST_BYTE = "scoregate_upstream_first_byte_seconds" ["service"]
        "Time from the start of an attempt to the first byte of the replica's answer.";
    QUEUE_WAIT = "scoregate_queue_wait_seconds" ["service"]
        "Time that calls waited for a replica.";
    REQUEST_BYTES = "scoregate_request_body_bytes_total" ["service"]
        "Body bytes received from callers.";
    RESPONSE_BYTES = "scoregate_response_body_bytes_total" ["service"]
        "Body bytes handed to callers.";
    TOKENS = "scoregate_tokens_total" ["service", "kind"]
        "Tokens that OpenAI-style answers say they used, prompt and completion.";
    USAGE_UNREAD = "scoregate_usage_unread_total" ["service"]
        "OpenAI-style answers whose model or token usage was too long to be read.";
    ATTEMPTS = "scoregate_upstream_attempts_total" ["service"]
        "Attempts made upstream.";
    IN_FLIGHT = "scoregate_requests_in_flight" ["service"]
        "Calls that have begun and not ended.";
    TUNNELS = "scoregate_tunnels" ["service"]
        "WebSockets that are open; each is a call in flight as well.";

    REPLICAS = "scoregate_replicas" ["service", "deployment", "state"]
        "Replicas by what they get: ready, slow_start (part of their share), ejected, starting or not_ready (nothing).";
    REPLICA_EJECTIONS = "scoregate_replica_ejections_total" ["service", "deployment"]
        "Times that a replica was left out since its attempts failed.";
    ADMISSION_SLOTS = "scoregate_admission_slots" ["service"]
        "Calls that the deployments with concurrent_requests_per_replica take at once, by the replicas that serve now; absent without such a limit.";
    ADMISSION_BUSY = "scoregate_admission_busy" ["service"]
        "Of those, taken now.";
    ADMISSION_WAITING = "scoregate_admission_waiting" ["service"]
        "Calls that wait for one of them now.";
    UTILISATION = "scoregate_utilisation_ratio" ["service"]
        "Busy and waiting calls by slots, for an autoscaler; absent while there is no slot.";
    RATE_PRINCIPALS = "scoregate_rate_limit_principals" ["service"]
        "Callers that rate_per_principal tells apart now.";
    RATE_FORGOTTEN = "scoregate_rate_limit_forgotten_total" ["service"]
        "Callers whose count under rate_per_principal made room for others' before it had run out; starts anew when the rate changes.";
    RETRIES = "scoregate_retries_total" ["service", "why"]
        "Attempts made after one that failed.";
    RETRY_BUDGET_EXHAUSTED = "scoregate_retry_budget_exhausted_total" ["service"]
        "Failures that stood because the budget for trying again was used up.";
    MIRRORED = "scoregate_mirrored_total" ["service", "outcome"]
        "Copies of calls to another deployment, made or not.";
    COLLECTED = "scoregate_collected_total" ["service", "outcome"]
        "Calls of the sample of data_collection, by what became of the copy of their input and output: written, behind (no room), failed (the disk).";

    AUTHENTICATIONS = "scoregate_authentications_total" ["service", "outcome"]
        "Calls that had to show a credential, by what let them in (primary_key, secondary_key, token) or why they were refused (missing, invalid, expired, unavailable).";
    KEY_CREATED = "scoregate_key_created_timestamp_seconds" ["service", "key"]
        "When a key of a managed service was made, which is when it was last replaced; of the services past the bound together the oldest.";
    KEY_NOT_AFTER = "scoregate_key_not_after_timestamp_seconds" ["service", "key"]
        "When a key ends; absent for one that does not.";
    KEY_LAST_USED = "scoregate_key_last_used_timestamp_seconds" ["service", "key"]
        "When a key last let a call in; absent while it has not since the process started.";

    MALFORMED = "scoregate_requests_malformed_total" ["reason"]
        "Requests whose head could not be read, by where it is wrong; they are no calls and leave no record.";

    CONNECTIONS_OPEN = "scoregate_connections_open" ["listener"]
        "Connections of callers.";
    CONNECTIONS_LIMIT = "scoregate_connections_limit" ["listener"]
        "Most connections that a listener holds at once; more wait to be accepted.";
    CONNECTIONS_ACCEPTED = "scoregate_connections_accepted_total" ["listener"]
        "Connections accepted from callers.";
    CONNECTIONS_REFUSED = "scoregate_connections_refused_total" ["listener", "reason"]
        "Connections closed before they carried a call, but for failed handshakes.";
    HANDSHAKE_FAILURES = "scoregate_tls_handshake_failures_total" ["listener", "kind"]
        "TLS handshakes that failed.";

    CONFIG_RELOADS = "scoregate_config_reloads_total" ["outcome"]
        "Reloads of the configuration.";
    CONFIG_LAST_SUCCESSFUL = "scoregate_config_last_reload_successful" []
        "1 if the configuration file as it is now runs, 0 if it was refused.";
    CONFIG_LAST_SUCCESS_TIME = "scoregate_config_last_reload_success_timestamp_seconds" []
        "When the running configuration was taken.";
    CONFIG_GENERATION = "scoregate_config_generation" []
        "Number of the snapshot that the running configuration came with.";
    SNAPSHOT_GENERATION = "scoregate_snapshot_generation" []
        "Number of the running snapshot: each change of the configuration or of a managed service makes another one.";
    CONFIG_INFO = "scoregate_config_info" ["hash"]
        "1 for the hash of the running configuration.";

    CERTIFICATE_NOT_AFTER = "scoregate_certificate_not_after_timestamp_seconds" ["listener", "name"]
        "When a served certificate ends; the listener of the management plane is _management.";
    CERTIFICATE_RELOAD_ERRORS = "scoregate_certificate_reload_errors_total" []
        "Certificates or keys that could not be taken; the old ones stayed.";
    JWKS_AGE = "scoregate_jwks_age_seconds" ["source"]
        "Time since a key set of an outside issuer was last read or fetched; absent until that has gone well once.";
    JWKS_KEYS = "scoregate_jwks_keys" ["source"]
        "Keys in a key set of an outside issuer that can verify tokens; 0 until it was read or fetched.";

    PROBES = "scoregate_probes_total" ["service", "deployment", "outcome"]
        "Probes of replicas, and scoring calls that the gateway made before a replica got calls, by how they ended.";
    NAME_LOOK_UPS = "scoregate_names_total" ["outcome"]
        "Look-ups of the names of replicas, by what they brought.";

    STORE_UP = "scoregate_store_up" []
        "1 if the store of the management plane answers, 0 if not; absent without a management plane.";

    RECORDS = "scoregate_records_total" ["outcome"]
        "Records written to all that the configuration names (with nothing named, all are), or dropped.";
    RECORDS_QUEUED = "scoregate_records_queued" []
        "Records on their way to the writer.";
    RECORDS_ACCEPTED = "scoregate_records_accepted_total" []
        "Records made, one per call: written, dropped and queued add up to it.";

    EXPORTER_RECORDS = "scoregate_exporter_records_total" ["exporter", "outcome"]
        "Records that the collector has taken (delivered), or that were given up: no room, too old, refused or damaged (dropped).";
    EXPORTER_SPOOLED = "scoregate_exporter_spooled" ["exporter"]
        "Records that wait in the exporter's spool or are being sent.";
    EXPORTER_ACCEPTED = "scoregate_exporter_accepted_total" ["exporter"]
        "Records given to the exporter, or found in its spool at the start: delivered, dropped and spooled add up to it.";
    EXPORTER_SPOOL_BYTES = "scoregate_exporter_spool_bytes" ["exporter"]
        "Bytes of the exporter's spool.";

    LABEL_OVERFLOW = "scoregate_label_overflow_total" ["label"]
        "Calls counted without a name of their own since there are too many: for a service under _other, for a deployment under none.";
    BUILD_INFO = "scoregate_build_info" ["version"]
        "1 for the version that runs.";
    PROCESS_CPU = "process_cpu_seconds_total" []
        "User and system CPU time of the process.";
    PROCESS_RSS = "process_resident_memory_bytes" []
        "Memory of the process in RAM.";
    PROCESS_FDS = "process_open_fds" []
        "File descriptors open.";
    PROCESS_MAX_FDS = "process_max_fds" []
        "Most file descriptors that the process may open.";
    PROCESS_START = "process_start_time_seconds" []
        "When the process started.";
}

impl Family {
    /// Registers it as counters by label.
    pub(super) fn counters(&self, registry: &Registry) -> IntCounterVec {
        registered(registry, IntCounterVec::new(self.opts(), self.labels))
    }

    /// Registers it as gauges by label.
    pub(super) fn gauges(&self, registry: &Registry) -> IntGaugeVec {
        registered(registry, IntGaugeVec::new(self.opts(), self.labels))
    }

    /// Its description, for a collector of our own.
    #[expect(clippy::expect_used, reason = "the names are constants, all of which a test describes")]
    pub(super) fn desc(&self) -> Desc {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        Desc::new(self.name.to_owned(), self.help.to_owned(), labels, HashMap::new())
            .expect("metric names are valid")
    }

    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }
}

#[expect(clippy::expect_used, reason = "the names are constants, all of which a test registers")]
fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("metric names and labels are valid");
    registry.register(Box::new(metric.clone())).expect("metric names are registered once");
    metric
}

/// A family being read by a collector of our own.
pub(super) struct Samples {
    family: Family,
    kind: MetricType,
    metrics: Vec<Metric>,
}

impl Samples {
    pub(super) fn of_counter(family: Family) -> Self {
        Self::new(family, MetricType::COUNTER)
    }

    pub(super) fn of_gauge(family: Family) -> Self {
        Self::new(family, MetricType::GAUGE)
    }

    pub(super) fn of_histogram(family: Family) -> Self {
        Self::new(family, MetricType::HISTOGRAM)
    }

    fn new(family: Family, kind: MetricType) -> Self {
        let metrics = Vec::new();
        Self { family, kind, metrics }
    }

    /// Adds a counter's or gauge's value; the label values in the order of the family's labels.
    pub(super) fn add(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.labelled(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds a histogram.
    pub(super) fn add_histogram(&mut self, labels: &[&str], reading: &Reading) {
        let mut metric = self.labelled(labels);
        let mut below = 0;
        let buckets = BOUNDS_SECONDS.iter().zip(reading.counts).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(reading.count());
        histogram.set_sample_sum(reading.sum.as_secs_f64());
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    pub(super) fn into_family(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.metrics);
        family
    }

    fn labelled(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(values.len(), self.family.labels.len(), "{}", self.family.name);
        let pairs = self.family.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        Metric::from_label(pairs.collect())
    }
}
