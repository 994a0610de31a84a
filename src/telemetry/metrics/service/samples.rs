//! The families of what services have counted, put together at a scrape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus::proto::MetricFamily;

use super::{Block, Deployments, ServiceMetrics};
use crate::catalog::ComputeType;
use crate::telemetry::metrics::access::Access;
use crate::telemetry::metrics::delivery::DeliverySamples;
use crate::telemetry::metrics::family::{self, Samples};
use crate::telemetry::metrics::histogram::{Histogram, Reading};

/// The families of all services.
pub(in crate::telemetry::metrics) struct ServiceSamples {
    requests: Samples,
    duration: Samples,
    first_byte: Samples,
    queue_wait: Samples,
    request_bytes: Samples,
    response_bytes: Samples,
    attempts: Samples,
    tokens: Samples,
    usage_unread: Samples,
    access: Samples,
    in_flight: Samples,
    tunnels: Samples,
    delivery: DeliverySamples,
    overflow: Overflow,
}

/// Calls that are not shown by the name they belong to.
#[derive(Default)]
struct Overflow {
    services: u64,
    deployments: u64,
}

impl ServiceSamples {
    pub(in crate::telemetry::metrics) fn new() -> Self {
        Self {
            requests: Samples::of_counter(family::REQUESTS),
            duration: Samples::of_histogram(family::DURATION),
            first_byte: Samples::of_histogram(family::FIRST_BYTE),
            queue_wait: Samples::of_histogram(family::QUEUE_WAIT),
            request_bytes: Samples::of_counter(family::REQUEST_BYTES),
            response_bytes: Samples::of_counter(family::RESPONSE_BYTES),
            attempts: Samples::of_counter(family::ATTEMPTS),
            tokens: Samples::of_counter(family::TOKENS),
            usage_unread: Samples::of_counter(family::USAGE_UNREAD),
            access: Samples::of_counter(family::AUTHENTICATIONS),
            in_flight: Samples::of_gauge(family::IN_FLIGHT),
            tunnels: Samples::of_gauge(family::TUNNELS),
            delivery: DeliverySamples::new(),
            overflow: Overflow::default(),
        }
    }

    /// Adds what `services` have counted until now.
    pub(in crate::telemetry::metrics) fn add_all<'a>(
        &mut self,
        services: impl IntoIterator<Item = &'a Arc<ServiceMetrics>>,
    ) {
        // A service that was made anew with another compute type counts apart, which only calls by compute type show.
        let mut by_name = BTreeMap::<&str, Vec<&ServiceMetrics>>::new();
        for service in services {
            by_name.entry(&service.service).or_default().push(service);
        }
        for (name, services) in by_name {
            services.iter().for_each(|service| self.add_requests(service));
            self.add_sums(name, &services);
        }
    }

    /// Adds what is shown of all services of one name together.
    fn add_sums(&mut self, name: &str, services: &[&ServiceMetrics]) {
        let labels = [name];
        let blocks = || services.iter().flat_map(|service| service.present_blocks());
        let histogram = |part: fn(&Block) -> &Histogram| {
            let mut reading = Reading::default();
            blocks().for_each(|block| reading.add(part(block)));
            reading
        };
        self.duration.add_histogram(&labels, &histogram(|block| &block.duration));
        self.first_byte.add_histogram(&labels, &histogram(|block| &block.first_byte));
        self.queue_wait.add_histogram(&labels, &histogram(|block| &block.queue_wait));
        let sum = |part: fn(&Block) -> &AtomicU64| {
            let parts = blocks().map(|block| part(block).load(Relaxed));
            parts.fold(0u64, u64::wrapping_add) as f64
        };
        self.request_bytes.add(&labels, sum(|block| &block.request_bytes));
        self.response_bytes.add(&labels, sum(|block| &block.response_bytes));
        self.attempts.add(&labels, sum(|block| &block.attempts));
        self.in_flight.add(&labels, sum(|block| &block.in_flight));
        self.tunnels.add(&labels, sum(|block| &block.tunnels));
        self.delivery.add(name, blocks().map(|block| &block.delivery));
        for access in Access::ALL {
            let count: u64 = blocks().map(|block| block.access[access as usize].load(Relaxed)).sum();
            if count > 0 {
                self.access.add(&[name, access.as_str()], count as f64);
            }
        }
        // Most services have no tokens: they get no series.
        let (prompt, completion) = (sum(|block| &block.prompt_tokens), sum(|block| &block.completion_tokens));
        if prompt + completion > 0.0 {
            self.tokens.add(&[name, "prompt"], prompt);
            self.tokens.add(&[name, "completion"], completion);
        }
        let unread = sum(|block| &block.usage_unread);
        if unread > 0.0 {
            self.usage_unread.add(&labels, unread);
        }
    }

    pub(in crate::telemetry::metrics) fn into_families(self) -> Vec<MetricFamily> {
        let mut overflow = Samples::of_counter(family::LABEL_OVERFLOW);
        overflow.add(&["service"], self.overflow.services as f64);
        overflow.add(&["deployment"], self.overflow.deployments as f64);
        let own = [
            self.requests,
            self.duration,
            self.first_byte,
            self.queue_wait,
            self.request_bytes,
            self.response_bytes,
            self.attempts,
            self.tokens,
            self.usage_unread,
            self.access,
            self.in_flight,
            self.tunnels,
            overflow,
        ];
        own.map(Samples::into_family).into_iter().chain(self.delivery.into_families()).collect()
    }

    fn add_requests(&mut self, service: &ServiceMetrics) {
        if service.deployments == Deployments::Together {
            self.overflow.services += service.calls();
        }
        let unnamed = service.present_blocks().map(|block| block.unnamed.load(Relaxed));
        self.overflow.deployments += unnamed.sum::<u64>();
        // The same series may be in the blocks of several threads.
        let mut counts = BTreeMap::new();
        for series in service.present_blocks().flat_map(Block::all_series) {
            let deployment = series.deployment.as_deref().unwrap_or_default();
            let key = (deployment, series.code.label(), series.reason.as_str());
            *counts.entry(key).or_insert(0) += series.count.load(Relaxed);
        }
        let compute_type = service.compute_type.map_or("", ComputeType::as_str);
        for ((deployment, code, reason), count) in counts {
            let labels = [&*service.service, compute_type, deployment, &code, reason];
            self.requests.add(&labels, count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::Record;

    #[test]
    fn only_a_service_with_tokens_has_series_of_tokens() {
        let service = Arc::new(ServiceMetrics::new("iris".into(), Some(ComputeType::Aks)));
        let of = |service: &Arc<ServiceMetrics>| {
            let mut samples = ServiceSamples::new();
            samples.add_all([service]);
            let families = [samples.tokens, samples.usage_unread].map(Samples::into_family);
            let metrics = families.iter().flat_map(|family| family.get_metric().iter().cloned());
            metrics.map(|metric| metric.get_counter().get_value()).collect::<Vec<_>>()
        };
        service.observe(&Record { usage: None, ..Record::sample() });
        assert_eq!(of(&service), [0.0; 0]);
        service.observe(&Record::sample());
        service.observe(&Record::sample());
        assert_eq!(of(&service), [18.0, 24.0, 2.0], "prompt, completion, unread");
        let others = Arc::new(ServiceMetrics::of_many("_other".into()));
        others.absorb(&service);
        assert_eq!(of(&others), [18.0, 24.0, 2.0]);
    }
}
