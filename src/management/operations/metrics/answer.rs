//! The answer to a metrics query in Azure Monitor's words, names of its members included.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::query::MetricsQuery;
use crate::management::operations::resource::Resource;
use crate::telemetry::history::{Aggregation, Definition, Point, Series};

/// The namespace of all metrics: Azure's name for those of online endpoints.
const NAMESPACE: &str = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints";

/// How a service went.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MetricsAnswer {
    /// Minutes that were asked for, times metrics.
    cost: u64,
    /// What was asked for, to whole minutes: `START/END`.
    timespan: String,
    /// Between two points, as an ISO 8601 duration.
    interval: String,
    /// The metrics, in the order in which they were asked for.
    value: Vec<MetricView>,
    namespace: &'static str,
    /// Location of the workspace.
    resourceregion: String,
}

/// One metric.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct MetricView {
    id: String,
    r#type: &'static str,
    name: Localizable,
    display_description: &'static str,
    unit: &'static str,
    /// One without a filter; with one, those that had any calls, the largest first.
    timeseries: Vec<SeriesView>,
    error_code: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Localizable {
    value: &'static str,
    localized_value: &'static str,
}

/// One series.
#[derive(Debug, Serialize, JsonSchema)]
struct SeriesView {
    /// The values of the filter's dimensions.
    metadatavalues: Vec<LabelView>,
    data: Vec<PointView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LabelView {
    name: Localizable,
    value: String,
}

/// One point: of the aggregations asked for those of which something is known.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PointView {
    /// When it begins.
    time_stamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    average: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<f64>,
}

impl MetricsAnswer {
    /// What `told` says of the metrics of `resource`.
    pub(super) fn new(
        query: &MetricsQuery,
        resource: &Resource,
        location: String,
        told: impl Iterator<Item = (&'static Definition, Vec<Series>)>,
    ) -> Self {
        let view = |(definition, series): (&'static Definition, Vec<Series>)| {
            let of_metric = |series| SeriesView::new(query, definition, series);
            MetricView {
                id: resource
                    .within(&format!("providers/Microsoft.Insights/metrics/{}", definition.name))
                    .id()
                    .to_owned(),
                r#type: "Microsoft.Insights/metrics",
                name: Localizable { value: definition.name, localized_value: definition.title },
                display_description: definition.about,
                unit: definition.unit,
                timeseries: series.into_iter().map(of_metric).collect(),
                error_code: "Success",
            }
        };
        Self {
            cost: u64::from(query.to - query.from) * query.metrics.len() as u64,
            timespan: format!("{}/{}", written(query.from), written(query.to)),
            interval: duration(query.step),
            value: told.map(view).collect(),
            namespace: NAMESPACE,
            resourceregion: location,
        }
    }
}

impl SeriesView {
    fn new(query: &MetricsQuery, definition: &Definition, series: Series) -> Self {
        let own = [definition.primary];
        let wanted = if query.aggregations.is_empty() { &own } else { query.aggregations.as_slice() };
        let names = query.filter.iter().map(|filter| filter.dimension.as_str());
        let labels = names.zip(series.labels).map(|(name, value)| {
            let name = Localizable { value: name, localized_value: name };
            LabelView { name, value }
        });
        let points = series.points.iter().map(|(minute, point)| PointView::new(*minute, point, wanted));
        Self { metadatavalues: labels.collect(), data: points.collect() }
    }
}

impl PointView {
    fn new(minute: u32, point: &Point, wanted: &[Aggregation]) -> Self {
        let told = |aggregation, value: Option<f64>| value.filter(|_| wanted.contains(&aggregation));
        Self {
            time_stamp: written(minute),
            average: told(Aggregation::Average, point.average),
            minimum: told(Aggregation::Minimum, point.minimum),
            maximum: told(Aggregation::Maximum, point.maximum),
            total: told(Aggregation::Total, point.total),
            count: told(Aggregation::Count, point.count),
        }
    }
}

/// A minute as RFC 3339 writes it.
fn written(minute: u32) -> String {
    let at = OffsetDateTime::from_unix_timestamp(i64::from(minute) * 60);
    at.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(&Rfc3339).unwrap_or_default()
}

/// `PT1M`, `PT1H`, `P1D`: the largest unit of which there is a whole number, as Azure writes intervals.
fn duration(minutes: u32) -> String {
    match minutes {
        days if days.is_multiple_of(24 * 60) => format!("P{}D", days / (24 * 60)),
        hours if hours.is_multiple_of(60) => format!("PT{}H", hours / 60),
        minutes => format!("PT{minutes}M"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_azure_writes_them() {
        assert_eq!(written(29_331_360), "2025-10-08T00:00:00Z");
        assert_eq!([1, 5, 60, 90, 1440].map(duration), ["PT1M", "PT5M", "PT1H", "PT90M", "P1D"]);
    }
}
