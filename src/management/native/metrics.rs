//! How a service went: `/v1/workspaces/{workspace}/services/{service}/metrics`

use http::Method;
use time::OffsetDateTime;

use super::call::{Call, ok};
use super::route::{Answer, Parameter, ParameterKind, Route};
use crate::catalog::Action;
use crate::management::operations::{MetricsAnswer, MetricsQuery};

const PARAMETERS: &[Parameter] = &[
    text(
        "metricnames",
        "Metrics with commas between them, such as `Requests,RequestLatency_P99`; absent: all.",
    ),
    text(
        "timespan",
        "`START/END` or a duration that ends now, such as `PT6H`; absent: the last hour. Nothing is older than 24 hours.",
    ),
    text("interval", "Minutes per point, such as `PT5M`, or `FULL`; absent: `PT1M`."),
    text(
        "aggregation",
        "Of `average`, `minimum`, `maximum`, `total`, `count`, with commas between them; absent: each metric's own.",
    ),
    text(
        "$filter",
        "Which calls, and what they are told apart by, such as `statusCodeClass eq '5xx' and reason eq '*'`.",
    ),
    text("top", "Most series of each metric with a filter, 1 to 50; absent: 10."),
];

const fn text(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind: ParameterKind::Text }
}

pub(super) fn routes() -> Vec<Route> {
    const PATH: &str = "/v1/workspaces/{workspace}/services/{service}/metrics";
    vec![
        Route::new(Method::GET, PATH, "getServiceMetrics", metrics)
            .summary("Shows how a service went in the last 24 hours, in the words of Azure Monitor")
            .needs(&[Action::MetricsRead])
            .query(PARAMETERS)
            .gives::<MetricsAnswer>(200),
    ]
}

async fn metrics(call: Call) -> Answer {
    let (workspace, service) = (call.path("workspace"), call.path("service"));
    let query = MetricsQuery::parse(|name| call.parameter(name), OffsetDateTime::now_utc())?;
    let told =
        call.run(move |operations, caller| operations.metrics(caller, &workspace, &service, &query)).await?;
    Ok(ok(told))
}
