//! `scoregate records stats`: what became of the records, by where they go: asked of a running gateway, or counted in the
//! spools that one has left.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::super::manage::{Column, Output, Target};
use super::super::top::{self, Scrape};
use crate::telemetry::spool::survey;

/// Whose records.
#[derive(Debug, Args)]
pub(in crate::cli) struct Stats {
    /// Folder of spools on this machine (telemetry.spool.path): count what waits in them [default: ask the running gateway]
    #[arg(long, value_name = "DIR", conflicts_with = "observe")]
    spool: Option<PathBuf>,
    /// Observe address of a gateway, such as http://127.0.0.1:9090: read its metrics, as one without a management plane needs
    #[arg(long, value_name = "URL")]
    observe: Option<String>,
}

const RUNNING: &[Column] = &[
    ("NAME", "/name"),
    ("ACCEPTED", "/accepted"),
    ("DELIVERED", "/delivered"),
    ("SPOOLED", "/spooled"),
    ("DROPPED", "/dropped"),
    ("SPOOL BYTES", "/spool_bytes"),
];

const WAITING: &[Column] = &[
    ("NAME", "/name"),
    ("SPOOLED", "/spooled"),
    ("RECORDS", "/records"),
    ("EVENTS", "/events"),
    ("SPOOL BYTES", "/spool_bytes"),
];

impl Stats {
    /// Shows them.
    ///
    /// # Errors
    /// The gateway cannot be asked, or the spools not be read.
    pub(super) fn run(&self, target: &Target, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let (items, columns) = match (&self.spool, &self.observe) {
            (Some(folder), _) => (waiting(folder)?, WAITING),
            (None, Some(observe)) => (counted(&top::look(observe)?), RUNNING),
            (None, None) => (target.session(&mut *out)?.record_stats()?, RUNNING),
        };
        Output::new(target.format(), out).list(&items, columns)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn waiting(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let spools = survey(folder).with_context(|| folder.display().to_string())?;
    let item = |spool: &crate::telemetry::spool::SpoolSurvey| {
        json!({
            "name": spool.exporter,
            "spooled": spool.records + spool.events,
            "records": spool.records,
            "events": spool.events,
            "spool_bytes": spool.bytes,
        })
    };
    Ok(spools.iter().map(item).collect())
}

/// From a page of metrics, as the management API would tell it.
fn counted(page: &Scrape) -> Vec<Value> {
    let whole = |name, labels: &[_]| page.sum(name, labels).map(|count| count as u64);
    let outcome = |name, outcome| whole(name, &[("outcome", outcome)]);
    let records = json!({
        "name": "records",
        "accepted": whole("scoregate_records_accepted_total", &[]),
        "delivered": outcome("scoregate_records_total", "written"),
        "spooled": whole("scoregate_records_queued", &[]),
        "dropped": outcome("scoregate_records_total", "dropped"),
        "spool_bytes": null,
    });
    let exporters = page.samples("scoregate_exporter_accepted_total").iter().map(|sample| {
        let name = sample.label("exporter");
        let of = |metric| whole(metric, &[("exporter", name)]);
        let outcome =
            |outcome| whole("scoregate_exporter_records_total", &[("exporter", name), ("outcome", outcome)]);
        json!({
            "name": name,
            "accepted": of("scoregate_exporter_accepted_total"),
            "delivered": outcome("delivered"),
            "spooled": of("scoregate_exporter_spooled"),
            "dropped": outcome("dropped"),
            "spool_bytes": of("scoregate_exporter_spool_bytes"),
        })
    });
    std::iter::once(records).chain(exporters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn the_metrics_tell_the_same_as_the_management_api() {
        let metrics = Metrics::new();
        let _ = metrics.exporter("application_insights");
        let _ = metrics.exporter("otlp");
        let told = serde_json::to_value(metrics.record_stats()).unwrap();
        assert_eq!(Value::from(counted(&Scrape::parse(&metrics.render()))), told);
        assert_eq!(told[2]["name"], "otlp");
    }
}
