//! Records of calls: `/v1/records`

use http::Method;
use serde_json::Value;

use super::call::{CURSOR, Call, LIMIT, ok};
use super::route::{Answer, Parameter, ParameterKind, Route};
use super::view::Listed;
use crate::catalog::Action;
use crate::error::Reason;
use crate::management::Refusal;
use crate::telemetry::metrics::DestinationStats;
use crate::telemetry::reader::{RecordFilter, StatusFilter};

const FILTERS: &[Parameter] = &[
    LIMIT,
    CURSOR,
    Parameter { name: "from", about: "Begun not before.", kind: ParameterKind::Time },
    Parameter { name: "to", about: "Begun before.", kind: ParameterKind::Time },
    Parameter { name: "service", about: "Of this service.", kind: ParameterKind::Text },
    Parameter {
        name: "status",
        about: "With this status, such as `503`, or one of a class, such as `5xx`.",
        kind: ParameterKind::Text,
    },
    Parameter { name: "reason", about: "With this reason, such as `queue_full`.", kind: ParameterKind::Text },
    Parameter { name: "request_id", about: "Of this request.", kind: ParameterKind::Text },
    Parameter {
        name: "workspace",
        about: "Of the services that are in this workspace; absent: of all calls, for which the right is needed on the gateway.",
        kind: ParameterKind::Text,
    },
];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/records", "listRecords", records)
            .summary("Lists the records of calls from this gateway's record file, newest first, as they were written")
            .needs(&[Action::RecordsRead])
            .query(FILTERS)
            .gives::<Listed<Value>>(200),
        Route::new(Method::GET, "/v1/records/stats", "getRecordStats", stats)
            .summary("Shows what became of the records of calls, by where they go")
            .needs(&[Action::RecordsRead])
            .gives::<Listed<DestinationStats>>(200),
    ]
}

async fn records(call: Call) -> Answer {
    let page = call.page()?;
    let filter = RecordFilter {
        service: call.parameter("service"),
        status: call.parameter("status").map(|text| status(&text)).transpose()?,
        reason: call.parameter("reason").map(|text| reason(&text)).transpose()?,
        request_id: call.parameter("request_id"),
        from: call.time("from")?,
        to: call.time("to")?,
    };
    let workspace = call.parameter("workspace");
    let found =
        call.run(move |operations, caller| operations.records(caller, workspace.as_deref(), &filter, &page));
    Ok(ok(Listed::of(found.await?, |record| record)))
}

async fn stats(call: Call) -> Answer {
    let stats = call.run(|operations, caller| operations.record_stats(caller)).await?;
    Ok(ok(Listed::whole(stats)))
}

fn status(text: &str) -> Result<StatusFilter, Refusal> {
    StatusFilter::parse(text).ok_or_else(|| {
        Refusal::invalid(
            "status",
            format!("'{text}' is neither a status such as 503 nor a class such as 5xx"),
        )
    })
}

fn reason(text: &str) -> Result<Reason, Refusal> {
    let known = || Reason::ALL.map(Reason::as_str).join(", ");
    Reason::parse(text)
        .ok_or_else(|| Refusal::invalid("reason", format!("'{text}' is no reason; there are {}", known())))
}
