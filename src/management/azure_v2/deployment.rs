//! An online deployment as ARM's JSON, from and to a deployment of the catalogue.
//!
//! What only Azure knows of (model, environment, probes, scale, instance types) stays as it was sent in the deployment's
//! bag, `azure.onlineDeployment`, and is given back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::place::{self, Place};
use super::target::PROVIDER;
use super::{endpoint, probe};
use crate::catalog::{ComputeType, DeploymentSpec, LimitsSpec, ProbeSpec, ServiceEntry};
use crate::limit::DeploymentLimits;
use crate::management::{Refusal, duration};

/// Name of the bag.
const BAG: &str = "onlineDeployment";
/// Where the bag has the id of the operation that wrote the deployment last.
const OPERATION: &str = "operation";
/// The property that names replicas.
const UPSTREAM: &str = "upstream";

// What Azure gives a deployment that does not say (documentation of `OnlineRequestSettings`).
const REQUEST_TIMEOUT_MS: u64 = 5_000;
const MAX_QUEUE_WAIT_MS: u64 = 500;
const MAX_CONCURRENT_REQUESTS: u32 = 1;

/// A deployment as a client wants it.
#[derive(Debug)]
pub struct DeploymentBody {
    compute_type: Option<String>,
    description: String,
    tags: BTreeMap<String, String>,
    properties: BTreeMap<String, String>,
    request: RequestSettings,
    probe: Option<ProbeSpec>,
    bag: Map<String, Value>,
}

/// `requestSettings`; what is not set stays as it is, or is Azure's default for a new deployment.
#[derive(Debug, Default)]
struct RequestSettings {
    timeout_ms: Option<u64>,
    queue_wait_ms: Option<u64>,
    concurrency: Option<u32>,
}

impl DeploymentBody {
    /// Reads the body of a PUT.
    ///
    /// # Errors
    /// Names the member that is wrong.
    pub fn parse(body: Value) -> Result<Self, Refusal> {
        let mut body = Fields::of_body(body)?;
        let tags = body.labels("tags")?.unwrap_or_default();
        let sku = sku(&mut body)?;
        let mut properties = body.object("properties")?.ok_or_else(|| {
            Refusal::invalid(
                "properties",
                "is missing; it holds endpointComputeType and all that is to be set",
            )
        })?;
        let compute_type = properties.text("endpointComputeType")?;
        let request = RequestSettings::take(&mut properties)?;
        let scale = scale(&mut properties)?;
        let mut own = properties.labels("properties")?.unwrap_or_default();
        own.retain(|name, _| !place::is_system_property(name));
        let description = properties.text("description")?.unwrap_or_default();
        let mut kept = properties.without(&["provisioningState"]).rest();
        kept.extend(scale.map(|scale| ("scaleSettings".to_owned(), scale)));
        let probe = probe::read(&kept)?;
        let mut bag = body.without(&["id", "name", "type", "location", "systemData"]).rest();
        bag.extend(sku.map(|sku| ("sku".to_owned(), sku)));
        bag.insert("properties".into(), Value::Object(kept));
        Ok(Self { compute_type, description, tags, properties: own, request, probe, bag })
    }

    /// The deployment of `endpoint` that `before` becomes, or the new one, which has no traffic yet; `operation` is the id
    /// of the operation that writes it.
    ///
    /// # Errors
    /// Names the member that does not go with what is there.
    pub fn apply(
        &self,
        endpoint: &ServiceEntry,
        before: Option<&DeploymentSpec>,
        operation: &str,
    ) -> Result<DeploymentSpec, Refusal> {
        let compute_type = compute_word(endpoint);
        if self.compute_type.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(compute_type)) {
            let message = format!("must be {compute_type}, as its endpoint is");
            return Err(Refusal::invalid("properties.endpointComputeType", message));
        }
        let mut spec = before.cloned().unwrap_or_else(|| DeploymentSpec {
            limits: LimitsSpec {
                scoring_timeout_ms: Some(REQUEST_TIMEOUT_MS),
                queue_wait_ms: Some(MAX_QUEUE_WAIT_MS),
                concurrent_requests_per_replica: Some(MAX_CONCURRENT_REQUESTS),
                ..LimitsSpec::default()
            },
            ..DeploymentSpec::default()
        });
        self.request.apply(&mut spec.limits);
        let bag = spec.azure.get(BAG).and_then(|bag| bag.get("properties")).and_then(Value::as_object);
        // What is there was accepted once.
        let before = bag.and_then(|bag| probe::read(bag).ok().flatten());
        probe::apply(self.probe.as_ref(), before.as_ref(), &mut spec);
        if self.properties.contains_key(UPSTREAM) {
            // Replicas set through the native API would go before it.
            spec.replicas.clear();
        }
        spec.description.clone_from(&self.description);
        spec.tags.clone_from(&self.tags);
        spec.properties.clone_from(&self.properties);
        let mut bag = self.bag.clone();
        bag.insert(OPERATION.into(), operation.into());
        spec.azure.insert(BAG.into(), Value::Object(bag));
        Ok(spec)
    }
}

impl RequestSettings {
    fn take(properties: &mut Fields) -> Result<Self, Refusal> {
        let Some(mut fields) = properties.object("requestSettings")? else { return Ok(Self::default()) };
        Ok(Self {
            timeout_ms: fields.duration("requestTimeout", &DeploymentLimits::ANSWER)?,
            queue_wait_ms: fields.duration("maxQueueWait", &DeploymentLimits::QUEUE_WAIT)?,
            concurrency: fields.count("maxConcurrentRequestsPerInstance", &DeploymentLimits::PER_REPLICA)?,
        })
    }

    fn apply(&self, limits: &mut LimitsSpec) {
        limits.scoring_timeout_ms = self.timeout_ms.or(limits.scoring_timeout_ms);
        limits.queue_wait_ms = self.queue_wait_ms.or(limits.queue_wait_ms);
        limits.concurrent_requests_per_replica = self.concurrency.or(limits.concurrent_requests_per_replica);
    }

    /// What holds for `deployment`: its own, or its endpoint's. The gateway's own defaults are not told.
    fn render(deployment: &LimitsSpec, endpoint: &LimitsSpec) -> Value {
        let mut members = Map::new();
        let wait = |milliseconds: u64| Value::from(duration::format(milliseconds));
        let timeout = deployment.scoring_timeout_ms.or(endpoint.scoring_timeout_ms);
        members.extend(timeout.map(|it| ("requestTimeout".to_owned(), wait(it))));
        let queue = deployment.queue_wait_ms.or(endpoint.queue_wait_ms);
        members.extend(queue.map(|it| ("maxQueueWait".to_owned(), wait(it))));
        let concurrency =
            deployment.concurrent_requests_per_replica.or(endpoint.concurrent_requests_per_replica);
        members.extend(concurrency.map(|it| ("maxConcurrentRequestsPerInstance".to_owned(), it.into())));
        Value::Object(members)
    }
}

/// Takes `sku`, of which SDK v2 insists on the capacity in the answer.
fn sku(body: &mut Fields) -> Result<Option<Value>, Refusal> {
    let Some(mut sku) = body.object("sku")? else { return Ok(None) };
    let capacity = sku.count("capacity", &(0..=i32::MAX.unsigned_abs()))?;
    let mut members = sku.rest();
    members.extend(capacity.map(|capacity| ("capacity".to_owned(), capacity.into())));
    Ok(Some(Value::Object(members)))
}

/// Takes `scaleSettings`, which are kept and have no effect: replicas are scaled by whoever runs them.
fn scale(properties: &mut Fields) -> Result<Option<Value>, Refusal> {
    let Some(mut scale) = properties.object("scaleSettings")? else { return Ok(None) };
    let path = scale.path("scaleType");
    let scale_type = scale.text("scaleType")?.unwrap_or_default();
    let known = ["Default", "TargetUtilization"].into_iter().find(|it| it.eq_ignore_ascii_case(&scale_type));
    // SDK v2 breaks on an answer with any other.
    let known = known.ok_or_else(|| Refusal::invalid(path, "must be Default or TargetUtilization"))?;
    let mut members = scale.rest();
    members.insert("scaleType".into(), known.into());
    Ok(Some(Value::Object(members)))
}

/// `endpointComputeType` of the deployments of `endpoint`.
fn compute_word(endpoint: &ServiceEntry) -> &'static str {
    match endpoint.spec.compute_type {
        ComputeType::Managed => "Managed",
        ComputeType::Aci | ComputeType::Aks => "Kubernetes",
    }
}

/// ARM id of the deployment `name`.
pub fn id(place: &Place, endpoint: &str, name: &str) -> String {
    format!("{}/deployments/{name}", endpoint::id(place, endpoint))
}

/// The deployment `name` of `endpoint` as ARM tells it.
pub fn render(endpoint: &ServiceEntry, name: &str, spec: &DeploymentSpec, place: &Place) -> Value {
    let bag = spec.azure.get(BAG);
    let operation = bag.and_then(|bag| bag.get(OPERATION)).and_then(Value::as_str);
    let properties = json!({
        "endpointComputeType": compute_word(endpoint),
        "description": (!spec.description.is_empty()).then_some(&spec.description),
        "properties": place::properties(&spec.properties, operation.map(|id| Cow::Owned(place.operation_uri(id)))),
        "provisioningState": "Succeeded",
        "requestSettings": RequestSettings::render(&spec.limits, &endpoint.spec.limits),
    });
    let properties = place::with_bag(properties, bag.and_then(|bag| bag.get("properties")));
    // Without scaleSettings and a capacity SDK v2 breaks after a PUT that was done.
    let properties =
        place::with_bag(properties, Some(&json!({ "scaleSettings": { "scaleType": "Default" } })));
    let sku = bag.and_then(|bag| bag.get("sku")).cloned().unwrap_or_else(|| json!({}));
    let resource = json!({
        "id": id(place, endpoint.name.as_str(), name),
        "name": name,
        "type": format!("{PROVIDER}/workspaces/onlineEndpoints/deployments"),
        "location": place.location(),
        "tags": spec.tags,
        "sku": place::with_bag(sku, Some(&json!({ "name": "Default", "capacity": 1 }))),
        "systemData": place::system_data(&endpoint.provenance),
        "properties": properties,
    });
    let mut resource = place::with_bag(resource, bag);
    if let Some(members) = resource.as_object_mut() {
        members.shift_remove(OPERATION);
    }
    resource
}

/// What is told instead of a container's log: the gateway runs no containers.
pub fn logs(endpoint: &ServiceEntry, name: &str, spec: &DeploymentSpec) -> String {
    let named = spec.properties.get(UPSTREAM).or_else(|| endpoint.spec.properties.get(UPSTREAM));
    let replicas = if spec.replicas.is_empty() {
        named.map_or_else(|| "the addresses of the gateway's replica_template".to_owned(), String::clone)
    } else {
        spec.replicas.join(", ")
    };
    format!(
        "The gateway runs no containers and keeps none of their logs: read the log of deployment '{name}' where its \
         replicas run ({replicas}). Each call has one record in the gateway's records, by its x-request-id.\n"
    )
}
