//! What happened between two scrapes, as a table for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::scrape::{Sample, Scrape};

/// Reasons shown per service.
const REASONS: usize = 3;

/// The time between two scrapes.
pub(super) struct Interval<'a> {
    pub before: &'a Scrape,
    pub after: &'a Scrape,
    pub took: Duration,
}

impl fmt::Display for Interval<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} requests/s, {} in flight, {} connections; records: {} dropped, {} queued; {:.0} MiB, CPU {:.0} %\n",
            self.rate("scoregate_requests_total", &[]),
            self.now("scoregate_requests_in_flight", &[]),
            self.now("scoregate_connections_open", &[]),
            self.now("scoregate_records_total", &[("outcome", "dropped")]),
            self.now("scoregate_records_queued", &[]),
            self.now("process_resident_memory_bytes", &[]) / 1024.0 / 1024.0,
            100.0 * self.rate("process_cpu_seconds_total", &[]),
        )?;
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header([
            "SERVICE",
            "REQ/S",
            "ERR/S",
            "P50 MS",
            "P99 MS",
            "IN FLIGHT",
            "WAITING",
            "UTIL",
            "REPLICAS",
            "REASONS/S",
        ]);
        for service in self.services() {
            table.add_row(self.row(service));
        }
        writeln!(f, "{}", table.trim_fmt())
    }
}

impl<'a> Interval<'a> {
    /// Services that have had a call; the empty name stands for calls that found none.
    fn services(&self) -> BTreeSet<&'a str> {
        self.after.samples("scoregate_requests_total").iter().map(|sample| sample.label("service")).collect()
    }

    fn row(&self, service: &str) -> [String; 10] {
        let of = [("service", service)];
        let errors = self.reasons(service);
        let number = |value: f64| format!("{value:.1}");
        let quantile = |q| self.quantile(service, q).map_or_else(|| "-".into(), shown_ms);
        let waiting = self.after.sum("scoregate_admission_waiting", &of);
        let utilisation = self.after.sum("scoregate_utilisation_ratio", &of);
        [
            if service.is_empty() { "(none)".into() } else { service.to_owned() },
            number(self.rate("scoregate_requests_total", &of)),
            number(errors.iter().map(|(_, rate)| rate).sum()),
            quantile(0.5),
            quantile(0.99),
            format!("{:.0}", self.now("scoregate_requests_in_flight", &of)),
            waiting.map_or_else(|| "-".into(), |waiting| format!("{waiting:.0}")),
            utilisation.map_or_else(|| "-".into(), |ratio| format!("{:.0} %", 100.0 * ratio)),
            self.replicas(service),
            errors
                .iter()
                .take(REASONS)
                .map(|(reason, rate)| format!("{reason} {rate:.1}"))
                .collect::<Vec<_>>()
                .join(", "),
        ]
    }

    /// Reasons other than `ok` with their calls per second, the most frequent first.
    fn reasons(&self, service: &str) -> Vec<(&'a str, f64)> {
        let of_service =
            |sample: &&Sample| sample.label("service") == service && sample.label("reason") != "ok";
        let samples = self.after.samples("scoregate_requests_total").iter().filter(of_service);
        let reasons: BTreeSet<_> = samples.map(|sample| sample.label("reason")).collect();
        let rates = reasons.into_iter().map(|reason| {
            (reason, self.rate("scoregate_requests_total", &[("service", service), ("reason", reason)]))
        });
        let mut rates: Vec<_> = rates.filter(|(_, rate)| *rate > 0.0).collect();
        rates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        rates
    }

    /// Replicas that may take calls, of all.
    fn replicas(&self, service: &str) -> String {
        let samples = self.after.samples("scoregate_replicas").iter();
        let mut states = BTreeMap::new();
        for sample in samples.filter(|sample| sample.label("service") == service) {
            *states.entry(sample.label("state")).or_insert(0.0) += sample.value;
        }
        let all: f64 = states.values().sum();
        let serving: f64 = ["ready", "slow_start"].iter().filter_map(|state| states.get(state)).sum();
        if states.is_empty() { "-".into() } else { format!("{serving:.0}/{all:.0}") }
    }

    /// The upper bound of the bucket in which that part of the interval's calls ended, in seconds; `None`: there were none.
    fn quantile(&self, service: &str, part: f64) -> Option<f64> {
        const BUCKETS: &str = "scoregate_request_duration_seconds_bucket";
        let samples = self.after.samples(BUCKETS).iter().filter(|sample| sample.label("service") == service);
        let mut buckets: Vec<(f64, f64)> = samples
            .filter_map(|sample| {
                let bound = sample.label("le");
                let seconds = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
                let before = self.before.sum(BUCKETS, &[("service", service), ("le", bound)]);
                Some((seconds, sample.value - before.unwrap_or_default()))
            })
            .collect();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let (_, all) = buckets.last().copied().filter(|(_, all)| *all > 0.0)?;
        buckets.into_iter().find(|(_, up_to)| *up_to >= part * all).map(|(bound, _)| bound)
    }

    fn now(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.after.sum(name, labels).unwrap_or_default()
    }

    /// How much a counter went up per second; a counter that began anew began at zero.
    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let after = self.now(name, labels);
        let before = self.before.sum(name, labels).unwrap_or_default();
        let more = if after >= before { after - before } else { after };
        more / self.took.as_secs_f64()
    }
}

fn shown_ms(seconds: f64) -> String {
    if seconds.is_finite() { format!("<={}", seconds * 1000.0) } else { "more".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = r#"
scoregate_requests_total{service="iris",code="200",reason="ok"} 100
scoregate_requests_total{service="iris",code="503",reason="queue_full"} 5
"#;

    const AFTER: &str = r#"
scoregate_requests_total{service="iris",code="200",reason="ok"} 300
scoregate_requests_total{service="iris",code="503",reason="queue_full"} 25
scoregate_requests_total{service="iris",code="502",reason="connect_failed"} 2
scoregate_requests_total{service="",code="404",reason="unknown_service"} 4
scoregate_requests_in_flight{service="iris"} 3
scoregate_request_duration_seconds_bucket{service="iris",le="0.01"} 150
scoregate_request_duration_seconds_bucket{service="iris",le="0.05"} 220
scoregate_request_duration_seconds_bucket{service="iris",le="+Inf"} 222
scoregate_utilisation_ratio{service="iris"} 1.25
scoregate_replicas{service="iris",deployment="blue",state="ready"} 2
scoregate_replicas{service="iris",deployment="blue",state="ejected"} 1
"#;

    #[test]
    fn an_interval_is_shown_per_service() {
        let (before, after) = (Scrape::parse(BEFORE), Scrape::parse(AFTER));
        let text = Interval { before: &before, after: &after, took: Duration::from_secs(2) }.to_string();
        let line = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert!(text.starts_with("113.0 requests/s, 3 in flight"), "{text}");
        assert_eq!(
            line("iris"),
            "iris 111.0 11.0 <=10 <=50 3 - 125 % 2/3 queue_full 10.0, connect_failed 1.0"
        );
        assert_eq!(line("(none)"), "(none) 2.0 2.0 - - 0 - - - unknown_service 2.0");
    }

    #[test]
    fn a_gateway_that_was_restarted_is_no_negative_rate() {
        let (before, after) = (Scrape::parse(AFTER), Scrape::parse(BEFORE));
        let interval = Interval { before: &before, after: &after, took: Duration::from_secs(1) };
        assert_eq!(interval.rate("scoregate_requests_total", &[("reason", "ok")]), 100.0);
    }
}
