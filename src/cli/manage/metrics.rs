//! `scoregate services metrics`: how a service went, one line per metric, series and point.

use clap::Args;
use serde_json::{Map, Value, json};

use super::Session;
use super::output::Column;

const COLUMNS: &[Column] = &[
    ("METRIC", "/metric"),
    ("OF", "/of"),
    ("FROM", "/point/timeStamp"),
    ("VALUES", "/values"),
    ("UNIT", "/unit"),
];

/// What is asked for; absent: as the API's document says.
#[derive(Debug, Args)]
pub(in super::super) struct Question {
    name: String,
    /// With commas between them: Requests, Errors, RequestLatency_P99, .. [default: all]
    #[arg(long, short = 'm', value_name = "METRICS")]
    metrics: Option<String>,
    /// START/END, or a duration that ends now; nothing is older than 24 hours
    #[arg(long, value_name = "TIMESPAN", default_value = "PT1H")]
    timespan: String,
    /// Minutes per point, such as PT5M; FULL: one point
    #[arg(long, value_name = "INTERVAL", default_value = "FULL")]
    interval: String,
    /// Of average, minimum, maximum, total, count, with commas between them [default: each metric's own]
    #[arg(long, value_name = "AGGREGATIONS")]
    aggregation: Option<String>,
    /// Which calls, and what they are told apart by: "statusCodeClass eq '5xx' and reason eq '*'"; of Requests and Errors
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
}

impl Session<'_> {
    /// Asks and shows.
    ///
    /// # Errors
    /// The API's refusal.
    pub(super) fn metrics(&mut self, question: &Question) -> anyhow::Result<()> {
        let path = self.in_workspace(&["services", &question.name, "metrics"])?;
        let answer = self.api.get(&format!("{path}?{}", question.query()))?;
        self.out.rows(&answer, &rows(&answer), COLUMNS)
    }
}

impl Question {
    fn query(&self) -> String {
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        pairs.append_pair("timespan", &self.timespan).append_pair("interval", &self.interval);
        let optional =
            [("metricnames", &self.metrics), ("aggregation", &self.aggregation), ("$filter", &self.filter)];
        for (name, value) in optional {
            if let Some(value) = value {
                pairs.append_pair(name, value);
            }
        }
        pairs.finish()
    }
}

/// A row per point of which something is known.
fn rows(answer: &Value) -> Vec<Value> {
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for metric in list(answer, "value") {
        for series in list(&metric, "timeseries") {
            let labels: Map<_, _> = list(&series, "metadatavalues")
                .iter()
                .map(|label| {
                    (label["name"]["value"].as_str().unwrap_or_default().to_owned(), label["value"].clone())
                })
                .collect();
            for point in list(&series, "data") {
                let known = point.as_object().into_iter().flatten();
                let values: Vec<_> = known
                    .filter_map(|(name, value)| Some(format!("{name}={}", rounded(value.as_f64()?))))
                    .collect();
                if !values.is_empty() {
                    rows.push(json!({
                        "metric": metric["name"]["value"],
                        "unit": metric["unit"],
                        "of": labels,
                        "point": point,
                        "values": values,
                    }));
                }
            }
        }
    }
    rows
}

/// For people: three digits after the point are enough.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
