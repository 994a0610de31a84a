//! The mapping in both directions, with what azureml-core 1.61 sends (captured) and insists on.

mod calling;
mod creating;
mod patching;
mod probing;
mod reading;
mod routing;

use serde_json::{Map, Value, json};
use time::macros::datetime;

use super::document;
use super::kind::Kind;
use crate::catalog::{Origin, Provenance, ServiceEntry, ServiceName, ServiceSpec};
use crate::management::Refusal;

/// `AksWebservice.deploy_configuration(compute_target_name="k")`, as it is sent.
fn smallest_aks() -> Value {
    json!({
        "numReplicas": null, "computeName": "k",
        "containerResourceRequirements":
            { "cpu": null, "cpuLimit": null, "memoryInGB": null, "memoryInGBLimit": null, "gpu": null },
        "maxConcurrentRequestsPerContainer": null, "maxQueueWaitMs": null, "namespace": null,
        "scoringTimeoutMs": null,
        "livenessProbeRequirements": { "initialDelaySeconds": null, "periodSeconds": null,
            "failureThreshold": null, "successThreshold": null, "timeoutSeconds": null },
        "name": "svc-aks", "description": null, "kvTags": null,
        "properties": { "azureml.git.dirty": "False" },
        "keys": { "primaryKey": null, "secondaryKey": null }, "computeType": "AKS",
        "environmentImageRequest": { "modelIds": ["m:1"] }, "location": null
    })
}

/// `AciWebservice.deploy_configuration()`, as it is sent.
fn smallest_aci() -> Value {
    json!({
        "containerResourceRequirements": { "cpu": null, "memoryInGB": null }, "cname": null,
        "dnsNameLabel": null, "name": "svc-aci", "description": null, "kvTags": null, "properties": {},
        "keys": { "primaryKey": null, "secondaryKey": null }, "computeType": "ACI",
        "environmentImageRequest": { "modelIds": ["m:1"] }, "location": null
    })
}

/// `AksEndpoint.deploy_configuration(version_name="first", traffic_percentile=40, primary_key=..)`, as it is sent.
fn endpoint() -> Value {
    let mut version = smallest_aks();
    version["computeType"] = "AKSENDPOINT".into();
    version["name"] = "first".into();
    version["trafficPercentile"] = 40.into();
    version["keys"] = json!({ "primaryKey": "PRIMARY-SECRET", "secondaryKey": "SECONDARY-SECRET" });
    json!({
        "name": "svc-ab", "description": null, "tags": null, "properties": {}, "computeType": "AKSENDPOINT",
        "computeName": "k", "versions": { "first": version },
        "keys": { "primaryKey": "PRIMARY-SECRET", "secondaryKey": "SECONDARY-SECRET" }, "kvTags": { "a": "b" }
    })
}

fn with(mut payload: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("members are wanted") };
    payload.as_object_mut().unwrap().extend(more);
    payload
}

fn kind_of(payload: &Value) -> Kind {
    Kind::named(payload["computeType"].as_str().unwrap()).unwrap()
}

fn created(payload: Value) -> Result<ServiceSpec, Refusal> {
    let kind = kind_of(&payload);
    let Value::Object(payload) = payload else { panic!("an object is wanted") };
    document::create(kind, payload)
}

fn entry(spec: ServiceSpec) -> ServiceEntry {
    let provenance = Provenance {
        created_at: datetime!(2026-01-02 03:04:05 UTC),
        created_by: "maker".into(),
        updated_at: datetime!(2026-01-03 03:04:05 UTC),
        updated_by: "changer".into(),
    };
    let name = ServiceName::parse("svc").unwrap();
    ServiceEntry { name, workspace: "ws".into(), spec, origin: Origin::Managed, provenance }
}

fn patched(spec: &ServiceSpec, patch: impl Into<Value>) -> Result<ServiceSpec, Refusal> {
    super::patch::apply(&entry(spec.clone()), &patch.into())
}

fn replace(path: &str, value: impl Into<Value>) -> Value {
    json!({ "op": "replace", "path": path, "value": value.into() })
}

fn traffic(spec: &ServiceSpec) -> Map<String, Value> {
    spec.deployments.iter().map(|(name, it)| (name.to_string(), it.traffic.into())).collect()
}

fn target(refused: Result<ServiceSpec, Refusal>) -> String {
    refused.unwrap_err().target.unwrap()
}
