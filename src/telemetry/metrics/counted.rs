//! What is counted by the gateway itself, without the `prometheus` crate, and how a scrape gets to see it.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::exemplar::ByBucket;
use super::family::{self, Samples};
use super::open::ExemplarsByService;
use super::service::{ServiceMetrics, ServiceSamples};
use super::services::Services;
use crate::telemetry::sink::RecordCounts;
use crate::telemetry::spool::ExporterCounts;

/// What we count ourselves and show through a collector.
pub(super) struct Counted {
    pub unrouted: Arc<ServiceMetrics>,
    pub services: Mutex<Services>,
    pub records: Arc<RecordCounts>,
    /// By name; few, and none goes.
    pub exporters: Mutex<Vec<(&'static str, Arc<ExporterCounts>)>>,
}

impl Counted {
    /// The counts of all services, and of calls without one.
    fn all_services(&self) -> Vec<Arc<ServiceMetrics>> {
        let mut all = self.services.lock().unwrap_or_else(PoisonError::into_inner).all();
        all.push(Arc::clone(&self.unrouted));
        all
    }

    pub fn exemplars(&self) -> ExemplarsByService {
        let mut exemplars = ExemplarsByService::new();
        for service in self.all_services() {
            let of_service: &mut ByBucket = exemplars.entry(service.label().to_owned()).or_default();
            service.exemplars(of_service);
        }
        exemplars
    }
}

/// The collector of [`Counted`] as the registry wants it.
pub(super) struct CountedCollector {
    counted: Arc<Counted>,
    descs: Vec<Desc>,
}

impl CountedCollector {
    pub fn new(counted: &Arc<Counted>) -> Self {
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
        Self { counted: Arc::clone(counted), descs: families.iter().map(family::Family::desc).collect() }
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
