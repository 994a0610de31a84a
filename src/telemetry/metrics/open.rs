//! The page in the OpenMetrics text format 1.0.0, which can say what the older one cannot: exemplars, units, an end.
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::time::UNIX_EPOCH;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::exemplar::{ByBucket, Exemplar};
use super::family;

/// Exemplars of the durations of calls, by service.
pub(super) type ExemplarsByService = HashMap<String, ByBucket>;

/// Units that names may end with.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

/// The page of `families`.
pub(super) fn render(families: &[MetricFamily], exemplars: &ExemplarsByService) -> String {
    let mut page = Page { text: String::new(), exemplars };
    for family in families {
        // Writing to a string cannot fail.
        let _ = page.family(family);
    }
    page.text.push_str("# EOF\n");
    page.text
}

struct Page<'a> {
    text: String,
    exemplars: &'a ExemplarsByService,
}

impl<'a> Page<'a> {
    fn family(&mut self, family: &MetricFamily) -> fmt::Result {
        let (name, kind) = named(family);
        writeln!(self.text, "# TYPE {name} {kind}")?;
        if let Some(unit) = name.rsplit('_').next().filter(|end| UNITS.contains(end)) {
            writeln!(self.text, "# UNIT {name} {unit}")?;
        }
        writeln!(self.text, "# HELP {name} {}", Escaped(family.help()))?;
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::COUNTER => {
                    self.sample(family.name(), metric, metric.get_counter().get_value())?;
                }
                MetricType::HISTOGRAM => self.histogram(name, metric)?,
                _ => self.sample(family.name(), metric, metric.get_gauge().get_value())?,
            }
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, metric: &Metric) -> fmt::Result {
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket().iter();
        let buckets = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        let above_all = (f64::INFINITY, histogram.get_sample_count());
        let exemplars = self.exemplars_of(name, metric);
        for (place, (bound, count)) in buckets.chain([above_all]).enumerate() {
            self.series(&format!("{name}_bucket"), metric.get_label(), Some(bound))?;
            write!(self.text, " {count}")?;
            if let Some(exemplar) = exemplars.and_then(|all| all[place]) {
                self.exemplar(&exemplar)?;
            }
            self.text.push('\n');
        }
        self.sample(&format!("{name}_sum"), metric, histogram.get_sample_sum())?;
        self.sample(&format!("{name}_count"), metric, histogram.get_sample_count() as f64)
    }

    fn exemplars_of(&self, name: &str, metric: &Metric) -> Option<&'a ByBucket> {
        let service = metric.get_label().first().filter(|_| name == family::DURATION.name)?;
        self.exemplars.get(service.value())
    }

    fn exemplar(&mut self, exemplar: &Exemplar) -> fmt::Result {
        let at = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (id, value) = (exemplar.trace_id(), exemplar.value.as_secs_f64());
        write!(self.text, " # {{trace_id=\"{id}\"}} {value} {}.{:03}", at.as_secs(), at.subsec_millis())
    }

    fn sample(&mut self, name: &str, metric: &Metric, value: f64) -> fmt::Result {
        self.series(name, metric.get_label(), None)?;
        writeln!(self.text, " {}", Number(value))
    }

    /// A series by its name and labels; the bound of a bucket is one more label.
    fn series(&mut self, name: &str, labels: &[LabelPair], bound: Option<f64>) -> fmt::Result {
        self.text.push_str(name);
        let mut separator = '{';
        for label in labels {
            write!(self.text, "{separator}{}=\"{}\"", label.name(), Escaped(label.value()))?;
            separator = ',';
        }
        if let Some(bound) = bound {
            write!(self.text, "{separator}le=\"{}\"", Number(bound))?;
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        Ok(())
    }
}

/// What a family is called and what it is: here the ends that tell a counter and an info are no part of its name.
fn named(family: &MetricFamily) -> (&str, &'static str) {
    let name = family.name();
    let without = |end| name.strip_suffix(end);
    match family.get_field_type() {
        MetricType::COUNTER => (without("_total").unwrap_or(name), "counter"),
        MetricType::HISTOGRAM => (name, "histogram"),
        _ => without("_info").map_or((name, "gauge"), |name| (name, "info")),
    }
}

/// A number in the specification's canonical form: `1.0`, `+Inf`.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_infinite() {
            f.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            let plain = part.trim_end_matches(['\\', '"', '\n']);
            f.write_str(plain)?;
            match &part[plain.len()..] {
                "" => {}
                "\n" => f.write_str("\\n")?,
                odd => write!(f, "\\{odd}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::Samples;
    use super::super::histogram::{Histogram, Reading};
    use super::*;
    use crate::telemetry::metrics::exemplar::Exemplars;
    use crate::telemetry::record::Record;
    use std::time::Duration;

    #[test]
    fn counters_infos_gauges_and_units_are_named_as_the_format_wants_them() {
        let mut counter = Samples::of_counter(family::REQUEST_BYTES);
        counter.add(&["a\\\"b\n"], 5.0);
        let mut info = Samples::of_gauge(family::BUILD_INFO);
        info.add(&["1.0"], 1.0);
        let mut gauge = Samples::of_gauge(family::PROCESS_MAX_FDS);
        gauge.add(&[], f64::INFINITY);
        let families = [counter, info, gauge].map(Samples::into_family);
        let page = render(&families, &ExemplarsByService::new());
        let expected = [
            "# TYPE scoregate_request_body_bytes counter",
            "# UNIT scoregate_request_body_bytes bytes",
            "# HELP scoregate_request_body_bytes Body bytes received from callers.",
            r#"scoregate_request_body_bytes_total{service="a\\\"b\n"} 5.0"#,
            "# TYPE scoregate_build info",
            "# HELP scoregate_build 1 for the version that runs.",
            r#"scoregate_build_info{version="1.0"} 1.0"#,
            "# TYPE process_max_fds gauge",
            "# HELP process_max_fds Most file descriptors that the process may open.",
            "process_max_fds +Inf",
            "# EOF",
        ];
        assert_eq!(page.lines().collect::<Vec<_>>(), expected);
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn each_bucket_shows_its_own_exemplar_and_only_those_of_its_service() {
        let (histogram, exemplars) = (Histogram::default(), Exemplars::default());
        for micros in [900, 70_000, 400_000_000] {
            let (time, duration) = (UNIX_EPOCH + Duration::from_secs(1), Duration::from_micros(micros));
            let record = Record { time, duration, ..Record::sample() };
            exemplars.offer(histogram.observe(duration), &record);
        }
        let (mut reading, mut of_iris) = (Reading::default(), ByBucket::default());
        reading.add(&histogram);
        exemplars.add_to(&mut of_iris);
        let mut samples = Samples::of_histogram(family::DURATION);
        samples.add_histogram(&["iris"], &reading);
        samples.add_histogram(&["rose"], &reading);
        let exemplars = ExemplarsByService::from([("iris".to_owned(), of_iris)]);
        let page = render(&[samples.into_family()], &exemplars);
        let id = r#"{trace_id="0af7651916cd43dd8448eb211c80319c"}"#;
        let of = |service: &str| {
            let start = format!("scoregate_request_duration_seconds_bucket{{service=\"{service}\",");
            let lines = page.lines().filter_map(move |line| line.strip_prefix(start.as_str()));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let iris = of("iris");
        assert_eq!(iris.len(), 19);
        assert_eq!(iris[0], format!(r#"le="0.001"}} 1 # {id} 0.0009 1.000"#));
        assert_eq!(iris[6], format!(r#"le="0.1"}} 2 # {id} 0.07 1.070"#));
        assert_eq!(iris[9], r#"le="1.0"} 2"#);
        assert_eq!(iris[18], format!(r#"le="+Inf"}} 3 # {id} 400 401.000"#));
        assert!(of("rose").iter().all(|line| !line.contains('#')));
    }
}
