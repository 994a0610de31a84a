//! What a request to create a service becomes.

use super::*;
use crate::catalog::{AuthMode, ComputeType};

#[test]
fn what_a_client_leaves_out_gets_azures_defaults() {
    let spec = created(smallest_aks()).unwrap();
    assert_eq!((spec.compute_type, spec.auth), (ComputeType::Aks, Some(AuthMode::Key)));
    assert_eq!(spec.limits.concurrent_requests_per_replica, Some(1));
    assert_eq!(spec.limits.queue_wait_ms, Some(500));
    assert_eq!(spec.limits.scoring_timeout_ms, Some(60_000));
    assert_eq!(Value::from(traffic(&spec)), json!({ "default": 100 }));

    let spec = created(smallest_aci()).unwrap();
    assert_eq!((spec.compute_type, spec.auth), (ComputeType::Aci, Some(AuthMode::None)));
    assert_eq!(spec.limits, crate::catalog::LimitsSpec::default());
    assert_eq!(Value::from(traffic(&spec)), json!({ "default": 100 }));
}

#[test]
fn what_a_client_says_is_taken() {
    let said = json!({
        "authEnabled": false, "aadAuthEnabled": true, "maxConcurrentRequestsPerContainer": 4,
        "maxQueueWaitMs": 700, "scoringTimeoutMs": 90_000, "kvTags": { "a": "b", "n": 1 },
        "properties": { "upstream": "http://127.0.0.1:1" }, "description": "d", "namespace": "ns",
    });
    let spec = created(with(smallest_aks(), said)).unwrap();
    assert_eq!(spec.auth, Some(AuthMode::Token));
    assert_eq!(spec.limits.concurrent_requests_per_replica, Some(4));
    assert_eq!(spec.limits.queue_wait_ms, Some(700));
    assert_eq!(spec.limits.scoring_timeout_ms, Some(90_000));
    assert_eq!((spec.tags["a"].as_str(), spec.tags["n"].as_str()), ("b", "1"));
    assert_eq!(spec.properties["upstream"], "http://127.0.0.1:1");
    assert_eq!(spec.description, "d");
    assert_eq!(spec.azure["namespace"], "ns");
    assert_eq!(spec.azure["environmentImageRequest"], json!({ "modelIds": ["m:1"] }));
}

#[test]
fn a_service_has_exactly_one_auth_mode() {
    let modes =
        |payload: fn() -> Value, flags| created(with(payload(), flags)).map(|spec| spec.auth.unwrap());
    let both = json!({ "authEnabled": true, "aadAuthEnabled": true });
    assert_eq!(modes(smallest_aks, both.clone()).unwrap_err().target.as_deref(), Some("aadAuthEnabled"));
    assert_eq!(modes(endpoint, both).unwrap_err().target.as_deref(), Some("aadAuthEnabled"));
    assert_eq!(modes(smallest_aks, json!({ "aadAuthEnabled": true })), Ok(AuthMode::Token));
    assert_eq!(modes(smallest_aks, json!({ "authEnabled": false })), Ok(AuthMode::None));
    assert_eq!(modes(smallest_aci, json!({ "authEnabled": true })), Ok(AuthMode::Key));
    let refused = modes(smallest_aci, json!({ "aadAuthEnabled": true })).unwrap_err();
    assert!(refused.message.contains("not available on ACI"), "{refused}");
}

#[test]
fn what_is_wrong_is_named() {
    let aks = |said| target(created(with(smallest_aks(), said)));
    assert_eq!(aks(json!({ "scoringTimeoutMs": 300_001 })), "scoringTimeoutMs");
    assert_eq!(aks(json!({ "maxQueueWaitMs": -1 })), "maxQueueWaitMs");
    assert_eq!(aks(json!({ "maxConcurrentRequestsPerContainer": 0 })), "maxConcurrentRequestsPerContainer");
    assert_eq!(aks(json!({ "authEnabled": "yes" })), "authEnabled");
    assert_eq!(aks(json!({ "kvTags": ["a"] })), "kvTags");
    assert_eq!(aks(json!({ "properties": { "a": {} } })), "properties/a");
    let version = |said| {
        let mut payload = endpoint();
        payload["versions"]["first"] = with(payload["versions"]["first"].clone(), said);
        target(created(payload))
    };
    assert_eq!(version(json!({ "trafficPercentile": 101 })), "versions/first/trafficPercentile");
    assert_eq!(version(json!({ "trafficPercentile": 1.5 })), "versions/first/trafficPercentile");
    assert_eq!(version(json!({ "type": "Placebo" })), "versions/first/type");
}

#[test]
fn the_first_version_is_the_default_and_gets_what_is_left() {
    let mut payload = endpoint();
    let spec = created(payload.clone()).unwrap();
    assert_eq!(Value::from(traffic(&spec)), json!({ "first": 100 }));
    assert_eq!(spec.deployments["first"].limits.concurrent_requests_per_replica, Some(1));

    payload["versions"]["another"] = with(smallest_aks(), json!({ "trafficPercentile": 20.0 }));
    let spec = created(payload.clone()).unwrap();
    assert_eq!(Value::from(traffic(&spec)), json!({ "another": 20, "first": 80 }));

    payload["versions"]["another"]["isDefault"] = true.into();
    let spec = created(payload).unwrap();
    assert_eq!(Value::from(traffic(&spec)), json!({ "another": 60, "first": 40 }));
}

#[test]
fn no_credential_is_kept_among_what_only_clients_know_of() {
    let mut payload =
        with(smallest_aci(), json!({ "sslEnabled": true, "sslKey": "KEY-SECRET", "sslCertificate": "PEM" }));
    payload["environmentImageRequest"] = json!({ "environment": {
        "docker": { "baseImageRegistry": { "address": "r", "username": "u", "password": "REGISTRY-SECRET" } },
        "environmentVariables": { "DB": "VARIABLE-SECRET" },
        "list": [{ "Password": "LISTED-SECRET" }],
    } });
    let spec = created(payload).unwrap();
    let kept = serde_json::to_string(&spec).unwrap();
    assert!(!kept.contains("SECRET"), "{kept}");
    assert_eq!(spec.azure["sslCertificate"], "PEM");
    assert_eq!(
        spec.azure["environmentImageRequest"]["environment"]["docker"]["baseImageRegistry"]["username"],
        "u"
    );

    let kept = serde_json::to_string(&created(endpoint()).unwrap()).unwrap();
    assert!(!kept.contains("SECRET"), "{kept}");
}

#[test]
fn a_cname_is_a_host_of_the_service() {
    let spec = created(with(smallest_aci(), json!({ "cname": "Iris.Example.org" }))).unwrap();
    assert_eq!(spec.hosts, ["iris.example.org"]);
    let renamed = patched(&spec, json!([replace("/cname", "other.example.org")])).unwrap();
    assert_eq!(renamed.hosts, ["other.example.org"]);
    let without = patched(&renamed, json!([replace("/cname", Value::Null)])).unwrap();
    assert!(without.hosts.is_empty());
}
