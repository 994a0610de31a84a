//! `/v1/workspaces/{workspace}/services/{service}/deployments`

use http::Method;

use super::call::{Call, nothing, ok, versioned, written};
use super::route::{Answer, Conditions, Route};
use super::services::{DELETE, READ, WRITE};
use super::view::{DeploymentView, Listed};
use crate::catalog::DeploymentSpec;
use crate::management::operations::Versioned;
use crate::management::{Operations, Refusal};

const ALL: &str = "/v1/workspaces/{workspace}/services/{service}/deployments";
const ONE: &str = "/v1/workspaces/{workspace}/services/{service}/deployments/{deployment}";

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, ALL, "listDeployments", list)
            .summary("Lists all deployments of a service; its version is theirs")
            .needs(READ)
            .gives::<Listed<DeploymentView>>(200),
        Route::new(Method::GET, ONE, "getDeployment", get)
            .summary("Shows a deployment; its version is its service's")
            .needs(READ)
            .gives::<DeploymentView>(200),
        Route::new(Method::PUT, ONE, "putDeployment", put)
            .summary("Makes or replaces a deployment")
            .needs(WRITE)
            .conditions(Conditions::Match)
            .takes::<DeploymentSpec>()
            .gives::<DeploymentView>(200)
            .gives::<DeploymentView>(201),
        Route::new(Method::DELETE, ONE, "deleteDeployment", delete)
            .summary("Deletes a deployment that takes no traffic")
            .needs(DELETE)
            .conditions(Conditions::Match)
            .gives_nothing(204),
    ]
}

async fn list(call: Call) -> Answer {
    let (workspace, service) = (call.path("workspace"), call.path("service"));
    let found = call.run(move |operations, caller| operations.service(caller, &workspace, &service)).await?;
    let deployments = DeploymentView::all(found.value.spec.deployments);
    Ok(versioned(ok(Listed::whole(deployments)), found.version))
}

async fn get(call: Call) -> Answer {
    let (workspace, service, name) = (call.path("workspace"), call.path("service"), call.path("deployment"));
    let found = call.run(move |operations: &Operations, caller| {
        let found = operations.service(caller, &workspace, &service)?;
        pick(found.value.spec.deployments, &name)
            .map(|deployment| Versioned { value: deployment, version: found.version })
    });
    let found = found.await?;
    Ok(versioned(ok(found.value), found.version))
}

fn pick(
    deployments: std::collections::BTreeMap<crate::catalog::ServiceName, DeploymentSpec>,
    name: &str,
) -> Result<DeploymentView, Refusal> {
    let all = DeploymentView::all(deployments);
    let found = all.into_iter().find(|deployment| deployment.name() == name);
    found.ok_or_else(|| Refusal::not_found(format_args!("deployment {name}")))
}

async fn put(mut call: Call) -> Answer {
    let (workspace, service, name) = (call.path("workspace"), call.path("service"), call.path("deployment"));
    let precondition = call.precondition()?;
    let spec: DeploymentSpec = call.body().await?;
    let made = call.run(move |operations, caller| {
        let (made, how) =
            operations.put_deployment(caller, &workspace, &service, &name, spec, precondition)?;
        pick(made.value.spec.deployments, &name).map(|deployment| (deployment, made.version, how))
    });
    let (deployment, version, how) = made.await?;
    Ok(versioned(written(deployment, how), version))
}

async fn delete(call: Call) -> Answer {
    let (workspace, service, name) = (call.path("workspace"), call.path("service"), call.path("deployment"));
    let precondition = call.precondition()?;
    call.run(move |operations, caller| {
        operations.delete_deployment(caller, &workspace, &service, &name, precondition)
    })
    .await?;
    Ok(nothing())
}
