//! Endpoints and deployments between ARM and the catalogue.

use serde_json::{Value, json};
use time::macros::datetime;

use super::deployment::{self, DeploymentBody};
use super::endpoint::{self, EndpointBody};
use super::place::Place;
use crate::catalog::{
    AuthMode, ComputeType, DeploymentSpec, Origin, Provenance, ServiceEntry, ServiceName, ServiceSpec,
    WorkspaceEntry, WorkspaceSpec,
};
use crate::management::operations::ServiceUris;
use crate::management::{Cause, Refusal};

fn provenance() -> Provenance {
    Provenance {
        created_at: datetime!(2026-11-24 12:00:00.123456789 UTC),
        created_by: "ann".into(),
        updated_at: datetime!(2026-11-24 13:00:00 UTC),
        updated_by: "bob".into(),
    }
}

fn place() -> Place {
    let spec = WorkspaceSpec {
        subscription: "sub".into(),
        resource_group: "rg".into(),
        location: "westeurope".into(),
        ..WorkspaceSpec::default()
    };
    let workspace =
        WorkspaceEntry { name: "ws".into(), spec, origin: Origin::Declared, provenance: provenance() };
    Place { base: "https://gateway:9443".into(), workspace }
}

fn entry(spec: ServiceSpec) -> ServiceEntry {
    ServiceEntry {
        name: ServiceName::parse("iris").unwrap(),
        workspace: "ws".into(),
        spec,
        origin: Origin::Managed,
        provenance: provenance(),
    }
}

/// A service of `compute_type` with the deployments blue, which has all traffic, and green.
fn two_deployments(compute_type: ComputeType) -> ServiceEntry {
    let mut spec = ServiceSpec::new(compute_type);
    for (name, traffic) in [("blue", 100), ("green", 0)] {
        let deployment = DeploymentSpec { traffic, ..DeploymentSpec::default() };
        spec.deployments.insert(ServiceName::parse(name).unwrap(), deployment);
    }
    entry(spec)
}

fn told(entry: &ServiceEntry) -> Value {
    let uris = ServiceUris { scoring: "https://s/score".into(), swagger: "https://s/swagger.json".into() };
    endpoint::render(entry, &uris, &place())
}

fn put(before: Option<&ServiceEntry>, body: Value) -> Result<ServiceEntry, Refusal> {
    EndpointBody::parse(body)?.apply(before, "op-1").map(entry)
}

fn put_deployment(before: Option<&DeploymentSpec>, body: Value) -> Result<DeploymentSpec, Refusal> {
    DeploymentBody::parse(body)?.apply(&two_deployments(ComputeType::Managed), before, "op-2")
}

fn target<T: std::fmt::Debug>(refused: Result<T, Refusal>) -> String {
    refused.unwrap_err().target.unwrap()
}

/// What azure-ai-ml 1.35 sends for `ManagedOnlineEndpoint(name="iris", auth_mode="key", ..)`.
fn sent() -> Value {
    json!({
        "location": "westeurope",
        "tags": { "team": "blue" },
        "identity": { "type": "SystemAssigned" },
        "properties": {
            "authMode": "Key",
            "description": "irises",
            "properties": { "upstream": "http://10.0.0.1:5001" },
            "traffic": {},
            "mirrorTraffic": {},
            "publicNetworkAccess": "Disabled",
        },
    })
}

#[test]
fn an_endpoint_of_the_sdk_becomes_a_service_and_is_told_back() {
    let made = put(None, sent()).unwrap();
    assert_eq!(made.spec.compute_type, ComputeType::Managed);
    assert_eq!(made.spec.auth, Some(AuthMode::Key));
    assert_eq!(made.spec.description, "irises");
    assert_eq!(made.spec.tags["team"], "blue");
    assert_eq!(made.spec.properties["upstream"], "http://10.0.0.1:5001");
    let workspace =
        "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws";
    let operation = "https://gateway:9443/subscriptions/sub/providers/Microsoft.MachineLearningServices/locations\
                     /westeurope/mfeOperationsStatus/op-1";
    let expected = json!({
        "id": format!("{workspace}/onlineEndpoints/iris"),
        "name": "iris",
        "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints",
        "location": "westeurope",
        "tags": { "team": "blue" },
        "identity": { "type": "SystemAssigned" },
        "systemData": {
            "createdBy": "ann",
            "createdByType": "User",
            "createdAt": "2026-11-24T12:00:00.123456Z",
            "lastModifiedBy": "bob",
            "lastModifiedByType": "User",
            "lastModifiedAt": "2026-11-24T13:00:00Z",
        },
        "properties": {
            "authMode": "Key",
            "description": "irises",
            "properties": { "upstream": "http://10.0.0.1:5001", "AzureAsyncOperationUri": operation },
            "scoringUri": "https://s/score",
            "swaggerUri": "https://s/swagger.json",
            "provisioningState": "Succeeded",
            "traffic": {},
            "mirrorTraffic": {},
            "compute": null,
            "keys": null,
            "publicNetworkAccess": "Disabled",
        },
    });
    assert_eq!(told(&made), expected);
}

#[test]
fn what_was_told_can_be_sent_back_and_changes_nothing() {
    let made = put(None, sent()).unwrap();
    let again = put(Some(&made), told(&made)).unwrap();
    assert_eq!(again.spec, made.spec);
    // SDK v2 mixes systemData into the properties.
    let mut mixed = told(&made);
    mixed["properties"]["properties"]["createdBy"] = "ann".into();
    mixed["properties"]["properties"]["lastModifiedAt"] = "2020-01-01T00:00:00Z".into();
    assert_eq!(put(Some(&made), mixed).unwrap().spec, made.spec);
}

#[test]
fn replacing_an_endpoint_keeps_its_deployments_and_only_a_traffic_map_changes_their_shares() {
    let before = two_deployments(ComputeType::Managed);
    let shares = |body: Value| {
        let after = put(Some(&before), body).unwrap();
        after.spec.deployments.values().map(|deployment| deployment.traffic).collect::<Vec<_>>()
    };
    assert_eq!(shares(json!({ "properties": { "authMode": "Key" } })), [100, 0]);
    assert_eq!(shares(json!({ "properties": { "traffic": null } })), [100, 0]);
    assert_eq!(shares(json!({ "properties": { "traffic": { "green": 100 } } })), [0, 100]);
    assert_eq!(shares(json!({ "properties": { "traffic": { "green": 90, "blue": 10 } } })), [10, 90]);
    assert_eq!(shares(json!({ "properties": { "traffic": {} } })), [0, 0]);
    let split = |traffic: Value| put(Some(&before), json!({ "properties": { "traffic": traffic } }));
    assert_eq!(target(split(json!({ "red": 100 }))), "properties.traffic.red");
    assert_eq!(target(split(json!({ "blue": 60, "green": 50 }))), "properties.traffic");
    assert_eq!(target(split(json!({ "blue": 50.5, "green": 49.5 }))), "properties.traffic.blue");
    assert_eq!(
        target(put(None, json!({ "properties": { "traffic": { "blue": 100 } } }))),
        "properties.traffic.blue"
    );
}

#[test]
fn auth_modes_are_azures_words_and_one_without_an_issuer_is_refused() {
    let mode =
        |word: &str| put(None, json!({ "properties": { "authMode": word } })).map(|made| made.spec.auth);
    assert_eq!(mode("amltoken"), Ok(Some(AuthMode::Token)));
    assert_eq!(mode(""), Ok(None));
    let refused = mode("AADToken").unwrap_err();
    assert_eq!(refused.target.as_deref(), Some("properties.authMode"));
    assert!(refused.message.contains("configuration"), "{refused}");
    assert_eq!(target(mode("None")), "properties.authMode");
    assert_eq!(target(mode("Kerberos")), "properties.authMode");
    // What is there already, and cannot be said anew, may be sent back.
    let mut open = ServiceSpec::new(ComputeType::Aks);
    open.auth = Some(AuthMode::None);
    let open = entry(open);
    assert_eq!(told(&open)["properties"]["authMode"], "None");
    assert_eq!(put(Some(&open), told(&open)).unwrap().spec.auth, Some(AuthMode::None));
}

#[test]
fn compute_makes_a_kubernetes_endpoint_and_stays() {
    let body = json!({ "properties": { "authMode": "Key", "compute": "/subscriptions/s/computes/k8s" } });
    let made = put(None, body).unwrap();
    assert_eq!(made.spec.compute_type, ComputeType::Aks);
    assert_eq!(told(&made)["properties"]["compute"], "/subscriptions/s/computes/k8s");
    assert_eq!(target(put(Some(&made), sent())), "properties.compute");
    let managed = put(None, sent()).unwrap();
    let body = json!({ "properties": { "compute": "/subscriptions/s/computes/k8s" } });
    assert_eq!(target(put(Some(&managed), body)), "properties.compute");
}

#[test]
fn services_of_sdk_v1_are_kubernetes_endpoints_unless_on_aci() {
    let mut spec = ServiceSpec::new(ComputeType::Aks);
    spec.azure.insert("computeName".into(), "cluster".into());
    let aks = entry(spec);
    let compute = told(&aks)["properties"]["compute"].clone();
    assert!(compute.as_str().unwrap().ends_with("/workspaces/ws/computes/cluster"), "{compute}");
    assert!(endpoint::is_endpoint(&aks));
    assert_eq!(put(Some(&aks), told(&aks)).unwrap().spec.azure["computeName"], "cluster");
    let aci = entry(ServiceSpec::new(ComputeType::Aci));
    assert!(!endpoint::is_endpoint(&aci));
    assert_eq!(put(Some(&aci), sent()).unwrap_err().cause, Cause::Conflict);
}

#[test]
fn keys_are_taken_out_of_the_body_and_never_kept_in_the_bag() {
    use secrecy::ExposeSecret as _;

    let mut body = sent();
    body["properties"]["keys"] = json!({ "primaryKey": "mine-mine-mine", "secondaryKey": null });
    let mut parsed = EndpointBody::parse(body).unwrap();
    let keys = parsed.take_keys();
    assert_eq!(keys.primary.unwrap().expose_secret(), "mine-mine-mine");
    assert!(keys.secondary.is_none());
    let spec = parsed.apply(None, "op-1").unwrap();
    assert!(!serde_json::to_string(&spec).unwrap().contains("mine-mine-mine"));
}

/// What azure-ai-ml 1.35 sends for a `ManagedOnlineDeployment`.
fn deployment_sent() -> Value {
    json!({
        "location": "westeurope",
        "tags": {},
        "sku": { "name": "Default", "capacity": 2 },
        "properties": {
            "endpointComputeType": "Managed",
            "model": "azureml:m:1",
            "environmentId": "azureml:e:1",
            "instanceType": "Standard_DS3_v2",
            "properties": { "upstream": "http://10.0.0.1:5001,http://10.0.0.2:5001" },
            "requestSettings": {
                "requestTimeout": "PT3S",
                "maxQueueWait": "PT0.7S",
                "maxConcurrentRequestsPerInstance": 4,
            },
        },
    })
}

#[test]
fn the_probes_of_the_sdk_are_a_probe_and_are_told_back() {
    let with = |member: &str, probe: Value| {
        let mut body = deployment_sent();
        body["properties"][member] = probe;
        body
    };
    assert_eq!(put_deployment(None, deployment_sent()).unwrap().health, None);
    let liveness = json!({
        "failureThreshold": 3, "initialDelay": "PT1M", "period": "PT5S", "successThreshold": 2, "timeout": "PT1S",
    });
    let made = put_deployment(None, with("livenessProbe", liveness.clone())).unwrap();
    let probe = made.health.clone().unwrap().probe.unwrap();
    assert_eq!(
        (probe.startup_ms, probe.interval_ms, probe.timeout_ms),
        (Some(60_000), Some(5_000), Some(1_000))
    );
    assert_eq!((probe.healthy, probe.unhealthy), (Some(2), Some(3)));
    let endpoint = two_deployments(ComputeType::Managed);
    let told = deployment::render(&endpoint, "blue", &made, &place());
    assert_eq!(told["properties"]["livenessProbe"], liveness);
    let again = put_deployment(Some(&made), told).unwrap();
    assert_eq!(again.health, made.health);
    // Readiness says it better, where it is said, and Azure's defaults are another container's than the gateway's.
    let mut both = with("livenessProbe", liveness);
    both["properties"]["readinessProbe"] = json!({ "period": "PT7S" });
    let probe = put_deployment(Some(&made), both).unwrap().health.unwrap().probe.unwrap();
    assert_eq!((probe.interval_ms, probe.unhealthy, probe.startup_ms), (Some(7_000), Some(30), Some(10_000)));
    assert_eq!(put_deployment(Some(&made), deployment_sent()).unwrap().health, None);
    let mut own = put_deployment(None, deployment_sent()).unwrap();
    own.health.clone_from(&made.health);
    assert_eq!(
        put_deployment(Some(&own), deployment_sent()).unwrap().health,
        made.health,
        "set by another API"
    );
    let refused = put_deployment(None, with("readinessProbe", json!({ "period": "PT0S" })));
    assert_eq!(target(refused), "properties.readinessProbe.period");
}

#[test]
fn a_deployment_of_the_sdk_becomes_one_of_the_service_and_is_told_back() {
    let made = put_deployment(None, deployment_sent()).unwrap();
    assert_eq!(made.traffic, 0);
    assert_eq!(made.limits.scoring_timeout_ms, Some(3_000));
    assert_eq!(made.limits.queue_wait_ms, Some(700));
    assert_eq!(made.limits.concurrent_requests_per_replica, Some(4));
    let endpoint = two_deployments(ComputeType::Managed);
    let told = deployment::render(&endpoint, "blue", &made, &place());
    assert!(told["id"].as_str().unwrap().ends_with("/onlineEndpoints/iris/deployments/blue"));
    assert_eq!(told["sku"], json!({ "name": "Default", "capacity": 2 }));
    let properties = &told["properties"];
    assert_eq!(properties["endpointComputeType"], "Managed");
    assert_eq!(properties["requestSettings"], deployment_sent()["properties"]["requestSettings"]);
    assert_eq!(properties["scaleSettings"], json!({ "scaleType": "Default" }));
    for kept in ["model", "environmentId", "instanceType"] {
        assert_eq!(properties[kept], deployment_sent()["properties"][kept]);
    }
    assert!(properties["properties"]["AzureAsyncOperationUri"].as_str().unwrap().ends_with("/op-2"));
    let again = put_deployment(Some(&made), told).unwrap();
    assert_eq!(again.azure["onlineDeployment"]["properties"]["scaleSettings"]["scaleType"], "Default");
    assert_eq!(DeploymentSpec { azure: made.azure.clone(), ..again }, made);
}

#[test]
fn a_deployment_that_says_nothing_gets_azures_limits_and_one_that_is_there_keeps_its_own() {
    let silent = || json!({ "properties": {} });
    let made = put_deployment(None, silent()).unwrap();
    assert_eq!(made.limits.scoring_timeout_ms, Some(5_000));
    assert_eq!(made.limits.queue_wait_ms, Some(500));
    assert_eq!(made.limits.concurrent_requests_per_replica, Some(1));
    let mut native = DeploymentSpec { traffic: 40, ..DeploymentSpec::default() };
    native.replicas = vec!["http://10.0.0.9:5001".into()];
    native.limits.body_bytes = Some(7);
    native.limits.queue_wait_ms = Some(9);
    let after = put_deployment(Some(&native), silent()).unwrap();
    assert_eq!((after.traffic, &after.limits, &after.replicas), (40, &native.limits, &native.replicas));
    let moved = put_deployment(Some(&native), deployment_sent()).unwrap();
    assert_eq!(moved.replicas, Vec::<String>::new(), "they would go before the upstream that was asked for");
}

#[test]
fn a_wrong_deployment_is_refused_by_the_member() {
    let wrong = |member: &str, value: Value| {
        let mut body = deployment_sent();
        body["properties"][member] = value;
        target(put_deployment(None, body))
    };
    assert_eq!(wrong("endpointComputeType", json!("Kubernetes")), "properties.endpointComputeType");
    assert_eq!(
        wrong("requestSettings", json!({ "requestTimeout": 3000 })),
        "properties.requestSettings.requestTimeout"
    );
    assert_eq!(
        wrong("requestSettings", json!({ "maxConcurrentRequestsPerInstance": 0 })),
        "properties.requestSettings.maxConcurrentRequestsPerInstance"
    );
    assert_eq!(wrong("scaleSettings", json!({ "scaleType": "Auto" })), "properties.scaleSettings.scaleType");
    assert_eq!(wrong("properties", json!({ "upstream": 1 })), "properties.properties.upstream");
    assert_eq!(target(put_deployment(None, json!({ "sku": { "capacity": -1 } }))), "sku.capacity");
    assert_eq!(target(put_deployment(None, json!({}))), "properties");
}

#[test]
fn logs_say_where_they_are() {
    let endpoint = two_deployments(ComputeType::Managed);
    let made = put_deployment(None, deployment_sent()).unwrap();
    assert!(deployment::logs(&endpoint, "blue", &made).contains("http://10.0.0.2:5001"));
}

#[test]
fn mirror_traffic_is_what_is_copied_and_is_told_back() {
    let before = two_deployments(ComputeType::Managed);
    let with = |mirror: Value| {
        let mut body = sent();
        body["properties"]["mirrorTraffic"] = mirror;
        body["properties"]["traffic"] = json!({ "blue": 100 });
        body
    };
    let mirrored = put(Some(&before), with(json!({ "green": 10 }))).unwrap();
    let mirror = mirrored.spec.mirror.as_ref().unwrap();
    assert_eq!((mirror.deployment.as_str(), mirror.percent), ("green", 10));
    assert_eq!(told(&mirrored)["properties"]["mirrorTraffic"], json!({ "green": 10 }));
    assert_eq!(put(Some(&mirrored), told(&mirrored)).unwrap().spec, mirrored.spec);

    // Not named: as it is; nothing for anybody: none.
    let mut silent = sent();
    silent["properties"].as_object_mut().unwrap().remove("mirrorTraffic");
    assert_eq!(put(Some(&mirrored), silent).unwrap().spec.mirror, mirrored.spec.mirror);
    for none in [json!({}), json!({ "green": 0 })] {
        assert_eq!(put(Some(&mirrored), with(none)).unwrap().spec.mirror, None);
    }
    let wrong = |mirror: Value| target(put(Some(&before), with(mirror)));
    assert_eq!(wrong(json!({ "green": 51 })), "properties.mirrorTraffic.green");
    assert_eq!(wrong(json!({ "gray": 5 })), "properties.mirrorTraffic.gray");
    assert_eq!(wrong(json!({ "blue": 5, "green": 5 })), "properties.mirrorTraffic");
}
