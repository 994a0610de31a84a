//! Calls that only look something up: addresses, workspace, compute target, operation, logs.

use serde_json::{Value, json};

use crate::catalog::WorkspaceEntry;
use crate::management::operations::{ActivityStatus, OperationStatus};
use crate::management::{Operations, Refusal};

use super::answer::Answer;
use super::route::{Place, ProviderCall};
use super::services::Services;
use super::view::timestamp;

/// Services of Azure ML that the SDK looks up; all of them are the gateway.
const DISCOVERED: [&str; 6] =
    ["api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio"];

/// Where the SDK finds what: everything at `base`.
pub fn discovery(base: &str) -> Value {
    DISCOVERED
        .into_iter()
        .map(|name| (name.to_owned(), Value::from(base)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The resource provider's answer about a workspace.
pub fn provider(place: &Place, call: &ProviderCall, workspace: &WorkspaceEntry, base: &str) -> Value {
    match call {
        ProviderCall::Workspace => workspace_resource(place, workspace, base),
        ProviderCall::Compute(name) => compute_resource(place, name, workspace),
    }
}

fn workspace_resource(place: &Place, workspace: &WorkspaceEntry, base: &str) -> Value {
    json!({
        "id": place.resource_id(),
        "name": workspace.name,
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": workspace.spec.location,
        "tags": workspace.spec.tags,
        "properties": {
            "friendlyName": workspace.name,
            "description": workspace.spec.description,
            "workspaceId": workspace.name,
            "discoveryUrl": format!("{base}/discovery"),
            "creationTime": timestamp(workspace.provenance.created_at),
            "provisioningState": "Succeeded",
        },
    })
}

/// A compute target is a label to the gateway, which knows replicas by their URLs: every name is an attached cluster.
/// `AksEndpoint.create_version` looks its own up before it sends anything.
fn compute_resource(place: &Place, name: &str, workspace: &WorkspaceEntry) -> Value {
    json!({
        "id": format!("{}/computes/{name}", place.resource_id()),
        "name": name,
        "type": "Microsoft.MachineLearningServices/workspaces/computes",
        "location": workspace.spec.location,
        "tags": {},
        "properties": {
            "computeType": "AKS",
            "computeLocation": workspace.spec.location,
            "description": null,
            "isAttachedCompute": true,
            "createdOn": timestamp(workspace.provenance.created_at),
            "modifiedOn": timestamp(workspace.provenance.updated_at),
            "provisioningState": "Succeeded",
            "provisioningErrors": null,
            "resourceId": null,
            "properties": null,
        },
    })
}

/// An operation as the SDK polls it.
pub fn operation(id: &str, status: &OperationStatus) -> Value {
    let state = match status.status {
        ActivityStatus::Started => "Running",
        ActivityStatus::Succeeded => "Succeeded",
        ActivityStatus::Failed => "Failed",
    };
    let error = status.error.as_ref().map(|error| {
        let code = error.split([':', ' ']).next().unwrap_or_default();
        json!({ "code": code, "message": error, "statusCode": null, "details": [] })
    });
    json!({
        "id": id,
        "operationType": status.operation_name,
        "state": state,
        "createdTime": timestamp(status.started_at),
        "endTime": status.ended_at.map(timestamp),
        "error": error,
        "resourceLocation": status.resource_id,
    })
}

impl Services<'_> {
    /// Where logs are. The gateway is in front of the containers and has none of theirs.
    pub fn logs(&self, name: &str) -> Result<Answer, Refusal> {
        self.find(name)?;
        let content = format!(
            "The gateway keeps no container logs: they are where the replicas of '{name}' run, for example in \
             'kubectl logs' or 'docker logs'.\n\
             It writes one record per call (status, reason, times, replica) to the destinations under \
             telemetry.records of its configuration; the records of this service have \"Service\":\"{name}\".\n\
             TLS is that of the gateway's listeners; a certificate or key sent with the service is not used.\n"
        );
        Ok(Answer::Found(json!({ "content": content })))
    }
}

/// The operation `id`, if the caller may see it.
pub fn find_operation(
    operations: &Operations,
    caller: &crate::management::Caller,
    id: &str,
) -> Result<Answer, Refusal> {
    Ok(Answer::Found(operation(id, &operations.operation(caller, id)?)))
}
