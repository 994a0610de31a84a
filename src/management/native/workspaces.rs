//! `/v1/workspaces`

use http::Method;

use super::call::{CURSOR, Call, LIMIT, judged, nothing, ok, versioned, written};
use super::route::{Answer, Conditions, Route};
use super::view::{Listed, WorkspaceView};
use crate::catalog::{Action, WorkspaceSpec};

const ONE: &str = "/v1/workspaces/{workspace}";

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/workspaces", "listWorkspaces", list)
            .summary("Lists the workspaces that the caller may see")
            .query(&[LIMIT, CURSOR])
            .gives::<Listed<WorkspaceView>>(200),
        Route::new(Method::GET, ONE, "getWorkspace", get)
            .summary("Shows a workspace")
            .needs(&[Action::WorkspaceRead])
            .gives::<WorkspaceView>(200),
        Route::new(Method::PUT, ONE, "putWorkspace", put)
            .summary("Makes or changes a workspace")
            .needs(&[Action::WorkspaceWrite])
            .conditions(Conditions::MatchOrAbsent)
            .takes::<WorkspaceSpec>()
            .gives::<WorkspaceView>(200)
            .gives::<WorkspaceView>(201),
        Route::new(Method::DELETE, ONE, "deleteWorkspace", delete)
            .summary("Deletes a workspace that holds no services")
            .needs(&[Action::WorkspaceDelete])
            .conditions(Conditions::Match)
            .gives_nothing(204),
    ]
}

async fn list(call: Call) -> Answer {
    let page = call.page()?;
    let found = call.run(move |operations, caller| operations.workspaces(caller, &page)).await?;
    Ok(ok(Listed::of(found, |found| WorkspaceView::from(found.value))))
}

async fn get(call: Call) -> Answer {
    let name = call.path("workspace");
    let found = call.run(move |operations, caller| operations.workspace(caller, &name)).await?;
    Ok(versioned(ok(WorkspaceView::from(found.value)), found.version))
}

async fn put(mut call: Call) -> Answer {
    let (name, precondition) = (call.path("workspace"), call.precondition()?);
    let spec: WorkspaceSpec = call.body().await?;
    let made =
        call.run(move |operations, caller| operations.put_workspace(caller, &name, spec, precondition)).await;
    let (made, how) = made.map_err(judged(precondition))?;
    Ok(versioned(written(WorkspaceView::from(made.value), how), made.version))
}

async fn delete(call: Call) -> Answer {
    let (name, precondition) = (call.path("workspace"), call.precondition()?);
    call.run(move |operations, caller| operations.delete_workspace(caller, &name, precondition)).await?;
    Ok(nothing())
}
