//! Durations of calls and of attempts by the stable HTTP conventions
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>), which tell calls apart in ways that the gateway's own
//! metrics do not. Recorded from records, off the request path.

use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, MeterProvider as _};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality};

use super::attributes::{attempt_error, method, route, version};
use super::call::{Attempt, Call, host_and_port};

/// The conventions' buckets, in seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The two instruments. Of each the SDK keeps up to 2000 sets of attributes; what is beyond goes to one set with
/// `otel.metric.overflow`.
pub(super) struct Durations {
    server: Histogram<f64>,
    client: Histogram<f64>,
    reader: Reader,
    /// Keeps the instruments going.
    _provider: SdkMeterProvider,
}

/// Read when we ask, instead of by a thread of the SDK's.
#[derive(Clone, Debug)]
struct Reader(Arc<ManualReader>);

impl Durations {
    pub(super) fn new() -> Self {
        let reader = Reader(Arc::new(ManualReader::builder().build()));
        let provider = SdkMeterProvider::builder()
            .with_resource(Resource::builder_empty().build())
            .with_reader(reader.clone())
            .build();
        let meter = provider.meter("scoregate");
        let histogram = |name: &'static str, description: &'static str| {
            let histogram = meter.f64_histogram(name).with_description(description).with_unit("s");
            histogram.with_boundaries(BOUNDS.to_vec()).build()
        };
        Self {
            server: histogram("http.server.request.duration", "Duration of HTTP server requests."),
            client: histogram("http.client.request.duration", "Duration of HTTP client requests."),
            reader,
            _provider: provider,
        }
    }

    pub(super) fn record(&self, call: &Call<'_>) {
        self.server.record(call.line.duration / 1000.0, &of_call(call));
        for attempt in call.attempts() {
            self.client.record(attempt.duration / 1000.0, &of_attempt(call, &attempt));
        }
    }

    /// All that was recorded, since the start.
    pub(super) fn collect(&self) -> Vec<Metric> {
        let mut collected = ResourceMetrics::default();
        if let Err(error) = self.reader.collect(&mut collected) {
            tracing::error!(%error, "durations of calls cannot be read");
        }
        let message = ExportMetricsServiceRequest::from(&collected);
        let scopes = message.resource_metrics.into_iter().flat_map(|group| group.scope_metrics);
        scopes.flat_map(|scope| scope.metrics).collect()
    }
}

fn of_call(call: &Call<'_>) -> Vec<KeyValue> {
    let line = &call.line;
    let mut attributes = vec![
        KeyValue::new("http.request.method", method(call)),
        KeyValue::new("http.response.status_code", i64::from(line.status_code)),
    ];
    let texts = [
        ("url.scheme", call.url().scheme),
        ("network.protocol.version", version(call)),
        ("http.route", route(call).as_deref()),
        ("error.type", call.failure()),
        ("scoregate.service", line.service.as_deref()),
    ]
    .map(|(name, text)| text.map(|text| KeyValue::new(name, text.to_owned())));
    attributes.extend(texts.into_iter().flatten());
    attributes
}

fn of_attempt(call: &Call<'_>, attempt: &Attempt<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("http.request.method", method(call))];
    let (host, port) = attempt.replica.map_or((None, None), host_and_port);
    attributes.extend(host.map(|host| KeyValue::new("server.address", host.to_owned())));
    attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
    let status = attempt.status.map(i64::from);
    attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
    attributes.extend(attempt_error(attempt).map(|error| KeyValue::new("error.type", error)));
    attributes.extend(
        call.line.service.as_deref().map(|service| KeyValue::new("scoregate.service", service.to_owned())),
    );
    attributes
}

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}
