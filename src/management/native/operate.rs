//! What operators need: `/v1/activity`, `/v1/operations` and `/v1/store`

use http::Method;
use schemars::JsonSchema;
use serde::Serialize;

use super::call::{CURSOR, Call, LIMIT, ok};
use super::route::{Answer, Parameter, ParameterKind, Route};
use super::view::{Listed, OperationView};
use crate::catalog::Action;
use crate::management::operations::{ActivityEvent, ActivityFilter};

const FILTERS: &[Parameter] = &[
    LIMIT,
    CURSOR,
    Parameter { name: "from", about: "Not before.", kind: ParameterKind::Time },
    Parameter { name: "to", about: "Before.", kind: ParameterKind::Time },
    Parameter { name: "caller", about: "By this principal.", kind: ParameterKind::Text },
    Parameter { name: "operation", about: "Of this operation name.", kind: ParameterKind::Text },
    Parameter { name: "resource", about: "About resources whose id begins so.", kind: ParameterKind::Text },
    Parameter {
        name: "workspace",
        about: "In this workspace; absent: the whole log, for which the right is needed on the gateway.",
        kind: ParameterKind::Text,
    },
];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/activity", "listActivity", activity)
            .summary("Lists what has been done and tried, newest first")
            .needs(&[Action::ActivityRead])
            .query(FILTERS)
            .gives::<Listed<ActivityEvent>>(200),
        Route::new(Method::POST, "/v1/activity/verify", "verifyActivity", verify)
            .summary("Reads the whole log and compares its chain of hashes")
            .needs(&[Action::ActivityRead])
            .gives::<Verdict>(200),
        Route::new(Method::GET, "/v1/operations/{id}", "getOperation", operation)
            .summary("Shows how far an operation is; the id is the x-request-id of its answer")
            .gives::<OperationView>(200),
        Route::new(Method::POST, "/v1/store/backup", "backupStore", backup)
            .summary("Writes a copy of the store on the gateway's own disk")
            .needs(&[Action::StoreBackup])
            .gives::<Backup>(200),
        Route::new(Method::POST, "/v1/store/check", "checkStore", check)
            .summary("Reads the whole store and compares its checksums")
            .needs(&[Action::StoreBackup])
            .gives::<Check>(200),
    ]
}

/// What the activity log looks like after reading all of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Verdict {
    /// How many events there are.
    events: u64,
    /// Where the chain is broken; absent: it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<Break>,
}

/// The first event whose chain is broken.
#[derive(Debug, Serialize, JsonSchema)]
struct Break {
    sequence: u64,
    problem: String,
}

/// A copy of the store.
#[derive(Debug, Serialize, JsonSchema)]
struct Backup {
    /// Where it is, on the gateway's machine.
    path: String,
}

/// What a check of the store has seen.
#[derive(Debug, Serialize, JsonSchema)]
struct Check {
    /// Size of the file, in bytes.
    bytes: u64,
    /// Number of the last change.
    version: u64,
    /// Rows per table.
    rows: std::collections::BTreeMap<&'static str, u64>,
}

async fn activity(call: Call) -> Answer {
    let page = call.page()?;
    let filter = ActivityFilter {
        from: call.time("from")?,
        to: call.time("to")?,
        caller: call.parameter("caller"),
        operation_name: call.parameter("operation"),
        resource_id: call.parameter("resource"),
        workspace: call.parameter("workspace"),
    };
    let found = call.run(move |operations, caller| operations.activity(caller, &filter, &page)).await?;
    Ok(ok(Listed::of(found, |event| event)))
}

async fn verify(call: Call) -> Answer {
    let verdict = call.run(|operations, caller| operations.verify_activity(caller)).await?;
    let broken = verdict.broken.map(|(sequence, problem)| Break { sequence, problem });
    Ok(ok(Verdict { events: verdict.events, broken }))
}

async fn operation(call: Call) -> Answer {
    let id = call.path("id");
    let shown = call.run(move |operations, caller| {
        operations.operation(caller, &id).map(|status| OperationView::new(id, status))
    });
    Ok(ok(shown.await?))
}

async fn backup(call: Call) -> Answer {
    let path = call.run(|operations, caller| operations.backup(caller)).await?;
    Ok(ok(Backup { path: path.display().to_string() }))
}

async fn check(call: Call) -> Answer {
    let report = call.run(|operations, caller| operations.check_store(caller)).await?;
    Ok(ok(Check { bytes: report.bytes, version: report.version, rows: report.rows.into_iter().collect() }))
}
