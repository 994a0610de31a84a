//! Deployments of an endpoint: listed, read, made, changed, deleted, and what is told for their logs.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::deployment::{self, DeploymentBody};
use super::super::fields::Fields;
use super::super::reply::Reply;
use super::{InWorkspace, patched, present};
use crate::catalog::{DeploymentSpec, ServiceEntry};
use crate::management::operations::{Precondition, Versioned};
use crate::management::{Cause, Refusal};

/// Largest number of lines or instances: those who read them take them for 32 bits with a sign.
const MOST: u32 = i32::MAX.unsigned_abs();
/// How often a write is tried again that was made for a version which is gone, before somebody else's speed is told.
const ATTEMPTS: u32 = 5;

impl InWorkspace<'_> {
    pub(super) fn list_deployments(&self, endpoint: &str) -> Result<Reply, Refusal> {
        let endpoint = self.endpoint(endpoint)?.value;
        let all = endpoint.spec.deployments.iter();
        let value: Vec<_> =
            all.map(|(name, spec)| deployment::render(&endpoint, name.as_str(), spec, &self.place)).collect();
        Ok(Reply::ok(json!({ "value": value })))
    }

    pub(super) fn get_deployment(&self, endpoint: &str, name: &str) -> Result<Reply, Refusal> {
        self.tell_deployment(&self.endpoint(endpoint)?, name)
    }

    fn tell_deployment(&self, endpoint: &Versioned<ServiceEntry>, name: &str) -> Result<Reply, Refusal> {
        let spec = deployment_of(&endpoint.value, name)?;
        let body = deployment::render(&endpoint.value, name, spec, &self.place);
        Ok(Reply::ok(body).in_version(endpoint.version))
    }

    pub(super) fn put_deployment(&mut self, endpoint: &str, name: &str) -> Result<Reply, Refusal> {
        let body = DeploymentBody::parse(self.take_body())?;
        self.write_deployment(endpoint, name, &|entry| {
            let before = entry.spec.deployments.get(name);
            body.apply(entry, before, &self.operation_id())
        })
    }

    /// Changes tags, and whatever else the patch names, of what is there.
    pub(super) fn patch_deployment(&mut self, endpoint: &str, name: &str) -> Result<Reply, Refusal> {
        let patch = self.take_body();
        self.write_deployment(endpoint, name, &|entry| {
            let before = deployment_of(entry, name)?;
            let changed = patched(deployment::render(entry, name, before, &self.place), patch.clone())?;
            DeploymentBody::parse(changed)?.apply(entry, Some(before), &self.operation_id())
        })
    }

    /// Writes what `change` makes of the endpoint that was read, if it still is as it was read.
    fn write_deployment(
        &self,
        endpoint: &str,
        name: &str,
        change: &dyn Fn(&ServiceEntry) -> Result<DeploymentSpec, Refusal>,
    ) -> Result<Reply, Refusal> {
        let mut attempt = 1;
        loop {
            let read = self.endpoint(endpoint)?;
            let spec = change(&read.value)?;
            let precondition = match self.call.precondition {
                // What is kept of the deployment is what was read.
                Precondition::None if read.value.spec.deployments.contains_key(name) => {
                    Precondition::Version(read.version)
                }
                Precondition::None => Precondition::Absent,
                asked => asked,
            };
            let (caller, workspace) = (self.caller(), self.workspace());
            let put = self.operations.put_deployment(caller, workspace, endpoint, name, spec, precondition);
            match put {
                Ok((entry, written)) => {
                    return Ok(self.tell_deployment(&entry, name)?.written(written, self.operation_uri()));
                }
                Err(refusal) if precondition == self.call.precondition || !lost_a_race(&refusal) => {
                    return Err(refusal);
                }
                Err(refusal) if attempt == ATTEMPTS => {
                    return Err(Refusal::new(Cause::Conflict, refusal.message));
                }
                Err(_) => attempt += 1,
            }
        }
    }

    /// 204 if there is none.
    pub(super) fn delete_deployment(&self, endpoint: &str, name: &str) -> Result<Reply, Refusal> {
        let read = self.endpoint(endpoint)?.value;
        if present(deployment_of(&read, name))?.is_none() {
            return Ok(Reply::empty(StatusCode::NO_CONTENT));
        }
        let (caller, workspace) = (self.caller(), self.workspace());
        self.operations.delete_deployment(caller, workspace, endpoint, name, self.call.precondition)?;
        Ok(Reply::empty(StatusCode::OK))
    }

    pub(super) fn logs(&mut self, endpoint: &str, name: &str) -> Result<Reply, Refusal> {
        match self.take_body() {
            Value::Null => {}
            body => drop(Fields::of_body(body)?.count("tail", &(0..=MOST))?),
        }
        let endpoint = self.endpoint(endpoint)?.value;
        let spec = deployment_of(&endpoint, name)?;
        Ok(Reply::ok(json!({ "content": deployment::logs(&endpoint, name, spec) })))
    }

    /// What a deployment can be scaled to, as far as the gateway is concerned: anything.
    pub(super) fn skus(&self, endpoint: &str, name: &str) -> Result<Reply, Refusal> {
        deployment_of(&self.endpoint(endpoint)?.value, name)?;
        Ok(Reply::ok(json!({ "value": [{
            "resourceType": "Microsoft.MachineLearning.Services/endpoints/deployments",
            "sku": { "name": "Default", "tier": "Standard" },
            "capacity": { "default": 1, "minimum": 0, "maximum": MOST, "scaleType": "Manual" },
        }] })))
    }
}

/// Whether somebody else has made, changed or deleted it since it was read.
const fn lost_a_race(refusal: &Refusal) -> bool {
    matches!(refusal.cause, Cause::PreconditionFailed | Cause::AlreadyExists)
}

fn deployment_of<'a>(endpoint: &'a ServiceEntry, name: &str) -> Result<&'a DeploymentSpec, Refusal> {
    let unknown = || Refusal::not_found(format_args!("deployment '{name}' of endpoint '{}'", endpoint.name));
    endpoint.spec.deployments.get(name).ok_or_else(unknown)
}
