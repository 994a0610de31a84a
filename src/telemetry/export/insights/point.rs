//! The gateway's metrics as `MetricData`, each as it has changed since the last one that was taken.
//!
//! That kind of data knows a sum of so many measurements, and no buckets: a counter becomes what it has grown by, a histogram
//! the sum and the number of its new observations, a gauge its value. Counters and histograms that have not grown are
//! passed over. Labels are custom properties.

use std::collections::{BTreeMap, HashMap};

use prometheus::proto::{Metric, MetricFamily, MetricType};
use serde::Serialize;

use super::envelope::{Data, PROPERTY_CAP, cut};

/// `MetricData`; storage takes one metric per item.
#[derive(Debug, Serialize)]
pub(super) struct MetricData<'a> {
    ver: u8,
    metrics: [DataPoint<'a>; 1],
    properties: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Serialize)]
struct DataPoint<'a> {
    name: &'a str,
    /// Of several measurements their sum.
    value: f64,
    count: u64,
}

impl Data for MetricData<'_> {
    const NAME: &'static str = "Microsoft.ApplicationInsights.Metric";
    const TYPE: &'static str = "MetricData";
}

/// A series with what is to be sent of it.
pub(super) struct Point<'a> {
    pub reached: Reached,
    pub data: MetricData<'a>,
}

/// How far a series had come.
pub(super) struct Reached {
    /// Its name and labels.
    series: String,
    total: Total,
}

/// What a series has summed up: of a counter its value, of a histogram its observations. A gauge has nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Total {
    sum: f64,
    count: u64,
}

/// How far each series was taken; as many as the gateway has.
#[derive(Default)]
pub(super) struct Taken(HashMap<String, Total>);

impl Taken {
    /// What there is to send of these families.
    pub(super) fn points<'a>(&self, families: &'a [MetricFamily]) -> Vec<Point<'a>> {
        let series = families.iter().flat_map(|family| {
            let (name, kind) = (family.name(), family.get_field_type());
            family.get_metric().iter().filter_map(move |metric| self.point(name, kind, metric))
        });
        series.collect()
    }

    /// From now on that is the past.
    pub(super) fn took(&mut self, reached: Reached) {
        self.0.insert(reached.series, reached.total);
    }

    fn point<'a>(&self, name: &'a str, kind: MetricType, metric: &'a Metric) -> Option<Point<'a>> {
        let series = series(name, metric);
        let before = self.0.get(&series).copied().unwrap_or_default();
        let (total, value, count) = match kind {
            MetricType::COUNTER => {
                let total = Total { sum: metric.get_counter().get_value(), count: 0 };
                let grown = total.since(before).sum;
                (total, grown, u64::from(grown > 0.0))
            }
            MetricType::HISTOGRAM => {
                let histogram = metric.get_histogram();
                let total = Total { sum: histogram.get_sample_sum(), count: histogram.get_sample_count() };
                let grown = total.since(before);
                (total, grown.sum, grown.count)
            }
            MetricType::GAUGE => (Total::default(), metric.get_gauge().get_value(), 1),
            MetricType::SUMMARY | MetricType::UNTYPED => return None,
        };
        if count == 0 || !value.is_finite() {
            return None;
        }
        let labels = metric.get_label().iter();
        let properties = labels.map(|label| (label.name(), cut(label.value(), PROPERTY_CAP)));
        let metrics = [DataPoint { name, value, count }];
        let data = MetricData { ver: 2, metrics, properties: properties.collect() };
        Some(Point { reached: Reached { series, total }, data })
    }
}

impl Total {
    /// What came since then; all of it, if it began anew.
    fn since(self, before: Self) -> Self {
        if self.sum < before.sum || self.count < before.count {
            return self;
        }
        Self { sum: self.sum - before.sum, count: self.count - before.count }
    }
}

fn series(name: &str, metric: &Metric) -> String {
    let mut series = name.to_owned();
    for label in metric.get_label() {
        // No label has this character: names and values come from closed sets and the configuration's names.
        series.push('\u{1f}');
        series.push_str(label.value());
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ComputeType;
    use crate::telemetry::Metrics;
    use crate::telemetry::record::Record;
    use serde_json::{Value, json};

    /// What there is to send of `iris` under a name, all of which counts as taken.
    fn taken(taken: &mut Taken, metrics: &Metrics, name: &str) -> Vec<Value> {
        let families = metrics.families();
        let mut found = Vec::new();
        for Point { reached, data } in taken.points(&families) {
            let value = serde_json::to_value(&data).unwrap();
            taken.took(reached);
            if value["metrics"][0]["name"] == name && value["properties"]["service"] == "iris" {
                found.push(value);
            }
        }
        found
    }

    #[test]
    fn each_kind_becomes_what_metric_data_can_say() {
        let metrics = Metrics::new();
        let service = metrics.service(&"iris".into(), ComputeType::Aks);
        let mut past = Taken::default();
        let _in_flight = service.start();
        service.observe(&Record::sample());
        service.observe(&Record::sample());
        assert_eq!(
            taken(&mut past, &metrics, "scoregate_requests_total"),
            [json!({
                "ver": 2,
                "metrics": [{ "name": "scoregate_requests_total", "value": 2.0, "count": 1 }],
                "properties": {
                    "service": "iris", "compute_type": "AKS", "deployment": "blue", "code": "200", "reason": "ok",
                },
            })]
        );
        service.observe(&Record::sample());
        let histogram = &taken(&mut past, &metrics, "scoregate_request_duration_seconds")[0]["metrics"][0];
        assert_eq!(histogram["count"], 1, "the other two were taken before");
        assert!((histogram["value"].as_f64().unwrap() - 0.012045).abs() < 1e-9, "{histogram}");
        for _ in 0..2 {
            let gauge = &taken(&mut past, &metrics, "scoregate_requests_in_flight")[0]["metrics"][0];
            assert_eq!(gauge, &json!({ "name": "scoregate_requests_in_flight", "value": 1.0, "count": 1 }));
        }
        assert_eq!(taken(&mut past, &metrics, "scoregate_requests_total"), [Value::Null; 0]);
    }

    #[test]
    fn what_was_not_taken_comes_again_with_what_came_since() {
        let metrics = Metrics::new();
        let service = metrics.service(&"iris".into(), ComputeType::Aks);
        let mut past = Taken::default();
        service.observe(&Record::sample());
        assert!(!past.points(&metrics.families()).is_empty());
        service.observe(&Record::sample());
        let [requests] = &taken(&mut past, &metrics, "scoregate_requests_total")[..] else { panic!("one") };
        assert_eq!(requests["metrics"][0]["value"], 2.0);
    }

    #[test]
    fn a_counter_that_began_anew_counts_from_nothing() {
        let (old, new) = (Total { sum: 9.0, count: 3 }, Total { sum: 2.0, count: 1 });
        assert_eq!((new.since(old), old.since(new)), (new, Total { sum: 7.0, count: 2 }));
    }
}
