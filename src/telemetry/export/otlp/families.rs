//! The gateway's own metrics as OTLP has them, under the names of `/metrics`: all of them of one reading, which observable
//! instruments, asked one by one, would not be.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};
use prometheus::proto::{LabelPair, Metric as Sample, MetricFamily, MetricType};

/// The time of a reading, and the time that sums are counted from, in nanoseconds of Unix time.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub start: u64,
    pub now: u64,
}

/// The family of calls in flight, which the conventions have a name for.
const IN_FLIGHT: &str = "scoregate_requests_in_flight";
const ACTIVE_REQUESTS: &str = "http.server.active_requests";

/// Units by the ends of names (UCUM).
const UNITS: [(&str, &str); 3] = [("_seconds", "s"), ("_bytes", "By"), ("_ratio", "1")];

/// The metrics of all families.
pub(super) fn metrics(families: &[MetricFamily], times: Times) -> Vec<Metric> {
    let active = families.iter().filter(|family| family.name() == IN_FLIGHT);
    let active = active.map(|family| active_requests(family, times));
    families.iter().filter_map(|family| metric(family, times)).chain(active).collect()
}

/// `None`: of a kind that the gateway does not have.
fn metric(family: &MetricFamily, times: Times) -> Option<Metric> {
    let samples = family.get_metric();
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: samples.iter().map(|it| number(it, it.get_counter().get_value(), times)).collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::GAUGE => Data::Gauge(Gauge {
            data_points: samples.iter().map(|it| number(it, it.get_gauge().get_value(), times)).collect(),
        }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: samples.iter().map(|it| histogram(it, times)).collect(),
            aggregation_temporality: cumulative,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    let name = family.name();
    let unit = UNITS.iter().find(|(end, _)| name.trim_end_matches("_total").ends_with(end));
    Some(Metric {
        name: name.to_owned(),
        description: family.help().to_owned(),
        unit: unit.map_or_else(String::new, |(_, unit)| (*unit).to_owned()),
        data: Some(data),
        ..Metric::default()
    })
}

/// Calls of all methods and schemes together: which they are is not counted.
fn active_requests(family: &MetricFamily, times: Times) -> Metric {
    let points = family.get_metric().iter().map(|sample| {
        let mut point = number(sample, sample.get_gauge().get_value(), times);
        point.attributes.iter_mut().for_each(|pair| pair.key = format!("scoregate.{}", pair.key));
        point
    });
    let sum = Sum {
        data_points: points.collect(),
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
        is_monotonic: false,
    };
    Metric {
        name: ACTIVE_REQUESTS.to_owned(),
        description: "Number of active HTTP server requests.".to_owned(),
        unit: "{request}".to_owned(),
        data: Some(Data::Sum(sum)),
        ..Metric::default()
    }
}

fn number(sample: &Sample, value: f64, times: Times) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(sample.get_label()),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// Buckets count what is below their bound there, and what is between two bounds here.
fn histogram(sample: &Sample, times: Times) -> HistogramDataPoint {
    let histogram = sample.get_histogram();
    let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let mut below = 0;
    let (bounds, mut counts): (Vec<_>, Vec<_>) = finite
        .map(|bucket| {
            let count = bucket.cumulative_count().saturating_sub(below);
            below = bucket.cumulative_count();
            (bucket.upper_bound(), count)
        })
        .unzip();
    counts.push(histogram.get_sample_count().saturating_sub(below));
    HistogramDataPoint {
        attributes: attributes(sample.get_label()),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: histogram.get_sample_count(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(labels: &[LabelPair]) -> Vec<KeyValue> {
    let pair = |label: &LabelPair| KeyValue {
        key: label.name().to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(label.value().to_owned())) }),
        ..KeyValue::default()
    };
    labels.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::telemetry::record::Record;

    const TIMES: Times = Times { start: 1, now: 2 };

    fn points(metric: &Metric) -> usize {
        match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => sum.data_points.len(),
            Data::Gauge(gauge) => gauge.data_points.len(),
            Data::Histogram(histogram) => histogram.data_points.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_family_of_the_page_is_there_by_its_name_and_with_all_its_series() {
        let gateway = Metrics::new();
        gateway.unrouted().observe(&Record::sample());
        let families = gateway.families();
        let found = metrics(&families, TIMES);
        for family in &families {
            let metric = found.iter().find(|metric| metric.name == family.name()).unwrap();
            assert_eq!(points(metric), family.get_metric().len(), "{}", metric.name);
        }
        let unit = |name: &str| found.iter().find(|metric| metric.name == name).unwrap().unit.clone();
        assert_eq!(unit("scoregate_request_duration_seconds"), "s");
        assert_eq!(unit("scoregate_request_body_bytes_total"), "By");
        let active = found.iter().find(|metric| metric.name == ACTIVE_REQUESTS).unwrap();
        let Some(Data::Sum(sum)) = &active.data else { panic!("{active:?}") };
        assert!(!sum.is_monotonic);
        assert_eq!(sum.data_points[0].attributes[0].key, "scoregate.service");
    }

    #[test]
    fn a_histograms_counts_are_those_between_its_bounds() {
        let gateway = Metrics::new();
        gateway.unrouted().observe(&Record::sample());
        let found = metrics(&gateway.families(), TIMES);
        let duration =
            found.iter().find(|metric| metric.name == "scoregate_request_duration_seconds").unwrap();
        let Some(Data::Histogram(histogram)) = &duration.data else { panic!("{duration:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.bucket_counts.iter().sum::<u64>()), (1, 1));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        let place = point.bucket_counts.iter().position(|count| *count == 1).unwrap();
        assert!(point.explicit_bounds[place] >= 0.012045 && point.explicit_bounds[place - 1] < 0.012045);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
    }
}
