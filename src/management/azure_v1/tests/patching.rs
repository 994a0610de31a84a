//! What a JSON Patch may change, and that it changes all or nothing.

use super::*;
use crate::catalog::{AuthMode, DeploymentSpec};
use crate::management::Cause;

fn aks() -> ServiceSpec {
    created(smallest_aks()).unwrap()
}

fn two_versions() -> ServiceSpec {
    let version = with(smallest_aks(), json!({ "trafficPercentile": 20 }));
    let add = json!({ "op": "add", "path": "/versions/second", "value": version });
    patched(&created(endpoint()).unwrap(), json!([add])).unwrap()
}

#[test]
fn every_path_of_the_sdk_changes_its_member() {
    let changes = [
        ("/appInsightsEnabled", json!(true)),
        ("/autoScaler/autoscaleEnabled", json!(false)),
        ("/autoScaler/maxReplicas", json!(7)),
        ("/autoScaler/minReplicas", json!(3)),
        ("/autoScaler/refreshPeriodInSeconds", json!(9)),
        ("/autoScaler/targetUtilization", json!(50)),
        ("/containerResourceRequirements/cpu", json!(2)),
        ("/containerResourceRequirements/cpuLimit", json!(4)),
        ("/containerResourceRequirements/gpu", json!(1)),
        ("/containerResourceRequirements/memoryInGB", json!(2)),
        ("/containerResourceRequirements/memoryInGBLimit", json!(3)),
        ("/dataCollection/storageEnabled", json!(true)),
        ("/description", json!("new")),
        ("/environmentImageRequest", json!({ "modelIds": ["m:2"] })),
        ("/imageId", json!("i:1")),
        ("/kvTags", json!({ "x": "y" })),
        ("/livenessProbeRequirements/failureThreshold", json!(4)),
        ("/livenessProbeRequirements/initialDelaySeconds", json!(4)),
        ("/livenessProbeRequirements/periodSeconds", json!(4)),
        ("/livenessProbeRequirements/successThreshold", json!(4)),
        ("/livenessProbeRequirements/timeoutSeconds", json!(4)),
        ("/maxConcurrentRequestsPerContainer", json!(8)),
        ("/maxQueueWaitMs", json!(800)),
        ("/namespace", json!("other")),
        ("/numReplicas", json!(3)),
        ("/scoringTimeoutMs", json!(1_000)),
    ];
    for (path, value) in changes {
        let spec = patched(&aks(), json!([replace(path, value.clone())])).unwrap();
        let document = Value::Object(document::of(Kind::Aks, &spec));
        assert_eq!(document.pointer(path), Some(&value), "{path}");
        // The same in a version of an endpoint.
        let path = format!("/versions/first{path}");
        let spec = patched(&two_versions(), json!([replace(&path, value.clone())])).unwrap();
        let document = Value::Object(document::of(Kind::AksEndpoint, &spec));
        assert_eq!(document.pointer(&path), Some(&value), "{path}");
    }
    let patch = json!([{ "op": "add", "path": "/properties/a~1b", "value": "c" }]);
    assert_eq!(patched(&aks(), patch).unwrap().properties["a/b"], "c");
    let tags = json!([replace("/versions/first/tags", json!({ "x": "y" }))]);
    assert_eq!(patched(&two_versions(), tags).unwrap().deployments["first"].tags["x"], "y");
}

#[test]
fn a_patch_happens_wholly_or_not_at_all_and_the_wrong_path_is_named() {
    let refusals = [
        ("/name", json!("x")),
        ("/nonsense", json!(1)),
        ("/sslEnabled", json!(true)),
        ("/versions/first/description", json!("x")),
        ("/autoScaler/nonsense", json!(1)),
        ("/scoringUri", json!("http://elsewhere")),
        ("/keys/primaryKey", json!("mine")),
        ("/operationId", json!("x")),
        ("/", json!("x")),
    ];
    for (path, value) in refusals {
        let patch = json!([replace("/description", "changed"), replace(path, value)]);
        assert_eq!(target(patched(&aks(), patch)), path);
    }
    for operation in [
        json!({ "op": "move", "from": "/description", "path": "/namespace" }),
        json!({ "op": "copy", "from": "/properties", "path": "/properties/x" }),
        json!({ "op": "replace", "path": "/description" }),
        json!({ "op": "replace", "path": "description", "value": 1 }),
        json!({ "op": "replace", "path": "", "value": {} }),
        json!({ "op": "replace", "value": 1 }),
        json!(1),
    ] {
        assert!(target(patched(&aks(), json!([operation]))).starts_with("body[0]"), "{operation}");
    }
    assert!(patched(&aks(), json!({ "description": "x" })).is_err());
    let many = vec![replace("/description", "x"); 1_001];
    assert!(patched(&aks(), many).is_err());
}

#[test]
fn a_switch_of_mode_is_judged_after_the_whole_patch() {
    let to_token = json!([replace("/authEnabled", false), replace("/aadAuthEnabled", true)]);
    assert_eq!(patched(&aks(), to_token).unwrap().auth, Some(AuthMode::Token));
    let token_first = json!([replace("/aadAuthEnabled", true), replace("/authEnabled", false)]);
    assert_eq!(patched(&aks(), token_first).unwrap().auth, Some(AuthMode::Token));
    assert_eq!(target(patched(&aks(), json!([replace("/aadAuthEnabled", true)]))), "aadAuthEnabled");
    let aci = created(smallest_aci()).unwrap();
    assert!(patched(&aci, json!([replace("/aadAuthEnabled", true)])).is_err());
    assert_eq!(patched(&aci, json!([replace("/authEnabled", true)])).unwrap().auth, Some(AuthMode::Key));
}

#[test]
fn what_a_document_cannot_say_survives_a_patch() {
    let mut spec = aks();
    spec.hosts = vec!["iris.example.org".into()];
    spec.limits.body_bytes = Some(5);
    spec.limits.concurrent_requests_per_replica = None;
    let name = ServiceName::parse("blue").unwrap();
    let blue = DeploymentSpec { replicas: vec!["http://r".into()], ..DeploymentSpec::default() };
    spec.deployments.insert(name, blue);
    let changed = patched(&spec, json!([replace("/description", "d")])).unwrap();
    assert_eq!(changed.hosts, spec.hosts);
    assert_eq!(changed.limits, spec.limits);
    assert_eq!(changed.deployments, spec.deployments);

    let mut spec = two_versions();
    spec.deployments.get_mut("first").unwrap().replicas = vec!["http://r".into()];
    let changed = patched(&spec, json!([replace("/versions/first/description", "d")])).unwrap();
    assert_eq!(changed.deployments["first"].replicas, ["http://r"]);
}

#[test]
fn versions_come_go_and_share_the_traffic() {
    let spec = two_versions();
    assert_eq!(Value::from(traffic(&spec)), json!({ "first": 80, "second": 20 }));
    assert_eq!(spec.deployments["second"].limits.concurrent_requests_per_replica, Some(1));

    let more = patched(&spec, json!([replace("/versions/second/trafficPercentile", 30.0)])).unwrap();
    assert_eq!(Value::from(traffic(&more)), json!({ "first": 70, "second": 30 }));

    let switch =
        json!([replace("/versions/first/isDefault", false), replace("/versions/second/isDefault", true)]);
    let switched = patched(&spec, switch).unwrap();
    assert_eq!(Value::from(traffic(&switched)), json!({ "first": 80, "second": 20 }));
    let less = patched(&switched, json!([replace("/versions/first/trafficPercentile", 10)])).unwrap();
    assert_eq!(Value::from(traffic(&less)), json!({ "first": 10, "second": 90 }));

    let gone = patched(&spec, json!([{ "op": "remove", "path": "/versions/second" }])).unwrap();
    assert_eq!(Value::from(traffic(&gone)), json!({ "first": 100 }));
    let gone = patched(&spec, json!([{ "op": "remove", "path": "/versions/first" }])).unwrap();
    assert_eq!(Value::from(traffic(&gone)), json!({ "second": 100 }));

    let third = json!({ "op": "add", "path": "/versions/third", "value": { "trafficPercentile": 90 } });
    assert_eq!(target(patched(&spec, json!([third]))), "versions");
    let third = json!({ "op": "add", "path": "/versions/third", "value": {} });
    let three = patched(&spec, json!([third])).unwrap();
    let leaderless = json!([{ "op": "remove", "path": "/versions/first" }]);
    assert_eq!(target(patched(&three, leaderless)), "versions");
    assert_eq!(target(patched(&spec, json!([replace("/versions/second/isDefault", true)]))), "versions");
    assert_eq!(
        target(patched(&spec, json!([{ "op": "add", "path": "/versions/X", "value": {} }]))),
        "versions/X"
    );
    let gone = json!([{ "op": "remove", "path": "/versions/third" }]);
    assert_eq!(target(patched(&spec, gone)), "/versions/third");
    assert_eq!(target(patched(&spec, json!([replace("/versions", json!({}))]))), "/versions");
    assert_eq!(
        target(patched(&spec, json!([replace("/versions/first/authEnabled", false)]))),
        "/versions/first/authEnabled"
    );
}

#[test]
fn a_failed_test_is_a_conflict() {
    let patch = json!([{ "op": "test", "path": "/description", "value": "x" }, replace("/description", "y")]);
    assert_eq!(patched(&aks(), patch).unwrap_err().cause, Cause::Conflict);
    let patch =
        json!([{ "op": "test", "path": "/authEnabled", "value": true }, replace("/description", "y")]);
    assert_eq!(patched(&aks(), patch).unwrap().description, "y");
}

#[test]
fn arrays_are_patched_by_index() {
    let at = |path: &str, op: &str| json!([{ "op": op, "path": path, "value": "m:2" }]);
    let models =
        |patch| patched(&aks(), patch).map(|spec| spec.azure["environmentImageRequest"]["modelIds"].clone());
    assert_eq!(models(at("/environmentImageRequest/modelIds/-", "add")), Ok(json!(["m:1", "m:2"])));
    assert_eq!(models(at("/environmentImageRequest/modelIds/0", "add")), Ok(json!(["m:2", "m:1"])));
    assert_eq!(models(at("/environmentImageRequest/modelIds/0", "replace")), Ok(json!(["m:2"])));
    for wrong in ["2", "01", "-1", "x", ""] {
        assert!(models(at(&format!("/environmentImageRequest/modelIds/{wrong}"), "add")).is_err(), "{wrong}");
    }
}
