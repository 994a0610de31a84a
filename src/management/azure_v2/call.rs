//! One call: what its path names becomes operations, their outcome an answer. Runs where it may wait for the store.

use http::{Method, Uri};
use serde_json::{Value, json};

use super::place::{self, Place};
use super::reply::Reply;
use super::target::{EndpointAction, Resource, Target};
use super::workspace;
use crate::management::http::merge_patch;
use crate::management::operations::{ActivityStatus, OperationStatus, Page, PageOf, Precondition};
use crate::management::{Caller, Cause, Operations, Refusal};

mod deployments;
mod endpoints;

/// Most workspaces that are read at once, which is the most that a page may have.
const PAGE: usize = 1_000;

/// A call as it came.
pub struct Call {
    /// Who calls.
    pub caller: Caller,
    /// HTTP method; `HEAD` counts as `GET`.
    pub method: Method,
    /// Path and query as they came.
    pub uri: Uri,
    /// The gateway as the client addressed it.
    pub base: String,
    /// What must be true for a write to happen.
    pub precondition: Precondition,
    /// Null if there was none.
    pub body: Value,
}

impl Call {
    /// Does what the call asks for.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn answer(self, target: Target, operations: &Operations) -> Result<Reply, Refusal> {
        match target {
            Target::InWorkspace(path, resource) => {
                let workspace = operations
                    .azure_workspace(&self.caller, &path.subscription, &path.resource_group, &path.name)?
                    .value;
                let place = Place { base: self.base.clone(), workspace };
                InWorkspace { call: self, operations, place }.answer(resource)
            }
            _ if self.method != Method::GET => Err(wrong_method(&self.method)),
            Target::Subscriptions => {
                let all = self.subscriptions(operations)?;
                let count = json!({ "type": "Total", "value": all.len() });
                let value: Vec<_> = all.iter().map(|id| workspace::subscription(id)).collect();
                Ok(Reply::ok(json!({ "value": value, "count": count })))
            }
            Target::Subscription(wanted) => {
                let all = self.subscriptions(operations)?;
                let id = all.iter().find(|id| id.eq_ignore_ascii_case(&wanted));
                let unknown = || Refusal::not_found(format_args!("subscription '{wanted}'"));
                Ok(Reply::ok(workspace::subscription(id.ok_or_else(unknown)?)))
            }
            Target::Workspaces { subscription, resource_group } => {
                self.workspaces(operations, &subscription, resource_group.as_deref())
            }
            Target::Operation(id) => {
                let status = operations.operation(&self.caller, &id)?;
                Ok(Reply::ok(operation(&id, &status)))
            }
        }
    }

    /// Subscriptions of the workspaces that the caller may see.
    fn subscriptions(&self, operations: &Operations) -> Result<Vec<String>, Refusal> {
        let mut all: Vec<String> = gather(|page| operations.workspaces(&self.caller, page))?
            .into_iter()
            .map(|workspace| workspace.value.spec.subscription)
            .filter(|id| !id.is_empty())
            .collect();
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    fn workspaces(
        &self,
        operations: &Operations,
        subscription: &str,
        resource_group: Option<&str>,
    ) -> Result<Reply, Refusal> {
        let mut value = Vec::new();
        for workspace in gather(|page| operations.workspaces(&self.caller, page))? {
            let spec = &workspace.value.spec;
            let in_group = resource_group.is_none_or(|group| spec.resource_group.eq_ignore_ascii_case(group));
            if spec.subscription.eq_ignore_ascii_case(subscription) && in_group {
                let place = Place { base: self.base.clone(), workspace: workspace.value };
                value.push(workspace::render(&place));
            }
        }
        Ok(Reply::ok(json!({ "value": value })))
    }
}

/// A call that is about something in a workspace.
struct InWorkspace<'a> {
    call: Call,
    operations: &'a Operations,
    place: Place,
}

impl InWorkspace<'_> {
    fn answer(mut self, resource: Resource) -> Result<Reply, Refusal> {
        let method = self.call.method.clone();
        match (method.as_str(), resource) {
            ("GET", Resource::Workspace) => Ok(Reply::ok(workspace::render(&self.place))),
            ("GET", Resource::Endpoints) => self.list_endpoints(),
            ("GET", Resource::Endpoint(name)) => self.get_endpoint(&name),
            ("PUT", Resource::Endpoint(name)) => self.put_endpoint(&name),
            ("PATCH", Resource::Endpoint(name)) => self.patch_endpoint(&name),
            ("DELETE", Resource::Endpoint(name)) => self.delete_endpoint(&name),
            ("POST", Resource::EndpointAction(name, action)) => match action {
                EndpointAction::ListKeys => self.list_keys(&name),
                EndpointAction::RegenerateKeys => self.regenerate_key(&name),
                EndpointAction::Token => self.token(&name),
            },
            ("GET", Resource::Metrics(name)) => self.metrics(&name),
            ("GET", Resource::Deployments(endpoint)) => self.list_deployments(&endpoint),
            ("GET", Resource::Deployment(endpoint, name)) => self.get_deployment(&endpoint, &name),
            ("PUT", Resource::Deployment(endpoint, name)) => self.put_deployment(&endpoint, &name),
            ("PATCH", Resource::Deployment(endpoint, name)) => self.patch_deployment(&endpoint, &name),
            ("DELETE", Resource::Deployment(endpoint, name)) => self.delete_deployment(&endpoint, &name),
            ("POST", Resource::Logs(endpoint, name)) => self.logs(&endpoint, &name),
            ("GET", Resource::Skus(endpoint, name)) => self.skus(&endpoint, &name),
            _ => Err(wrong_method(&method)),
        }
    }

    fn caller(&self) -> &Caller {
        &self.call.caller
    }

    fn workspace(&self) -> &str {
        &self.place.workspace.name
    }

    /// Names this call's operation to those who poll it.
    fn operation_id(&self) -> String {
        self.call.caller.request.operation_id.to_string()
    }

    fn operation_uri(&self) -> String {
        self.place.operation_uri(&self.operation_id())
    }

    fn take_body(&mut self) -> Value {
        std::mem::take(&mut self.call.body)
    }
}

/// All that `list` has, page by page.
fn gather<T>(list: impl Fn(&Page) -> Result<PageOf<T>, Refusal>) -> Result<Vec<T>, Refusal> {
    let mut all = Vec::new();
    let mut page = Page { limit: PAGE, cursor: None };
    loop {
        let PageOf { items, next } = list(&page)?;
        all.extend(items);
        match next {
            Some(_) => page.cursor = next,
            None => return Ok(all),
        }
    }
}

/// `found`, if it was; whatever else is wrong stays so.
fn present<T>(found: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(refusal) if refusal.cause == Cause::NotFound => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// What `resource`, as it is told, becomes by the merge patch `patch`.
fn patched(mut resource: Value, patch: Value) -> Result<Value, Refusal> {
    if !patch.is_object() {
        return Err(Refusal::invalid("body", "must be a JSON object: a merge patch (RFC 7396)"));
    }
    merge_patch(&mut resource, patch);
    Ok(resource)
}

/// An operation as Azure's pollers read it.
fn operation(id: &str, operation: &OperationStatus) -> Value {
    let (status, percent) = match operation.status {
        ActivityStatus::Started => ("InProgress", 0),
        ActivityStatus::Succeeded => ("Succeeded", 100),
        ActivityStatus::Failed => ("Failed", 100),
    };
    let mut body = json!({
        "id": id,
        "name": id,
        "status": status,
        "percentComplete": percent,
        "startTime": place::timestamp(operation.started_at),
        "resourceId": operation.resource_id,
    });
    if let Some(members) = body.as_object_mut() {
        members.extend(operation.ended_at.map(|at| ("endTime".to_owned(), place::timestamp(at).into())));
        // Pollers take any `error`, null included, for a failure.
        let error = |message: &String| json!({ "code": "OperationFailed", "message": message });
        members.extend(operation.error.as_ref().map(|message| ("error".to_owned(), error(message))));
    }
    body
}

fn wrong_method(method: &Method) -> Refusal {
    Refusal::new(Cause::WrongMethod, format!("the resource does not know {method}"))
}

#[cfg(test)]
mod tests;
