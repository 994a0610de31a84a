//! `livenessProbeRequirements` as a probe: only where somebody asked for one, and kept as it was sent.

use super::*;
use crate::catalog::{DeploymentSpec, HealthSpec, ProbeSpec, ReadinessSpec};

const MEMBER: &str = "livenessProbeRequirements";

fn probe(spec: &ServiceSpec, deployment: &str) -> Option<ProbeSpec> {
    spec.deployments[deployment].health.clone().and_then(|health| health.probe)
}

#[test]
fn what_was_left_to_azure_asks_for_no_probe_and_no_other_patch_brings_one() {
    let made = created(smallest_aks()).unwrap();
    assert_eq!(probe(&made, "default"), None);
    let patched =
        patched(&made, json!([replace("/description", "new"), replace("/numReplicas", 3)])).unwrap();
    assert_eq!(probe(&patched, "default"), None);
    assert_eq!(patched.azure[MEMBER], made.azure[MEMBER]);
    let versions = created(endpoint()).unwrap();
    assert_eq!(probe(&versions, "first"), None);
    let patched = super::patched(&versions, json!([replace("/versions/first/description", "new")])).unwrap();
    assert_eq!(probe(&patched, "first"), None);
}

#[test]
fn requirements_that_were_given_are_the_timings_of_a_probe() {
    let given = json!({
        "initialDelaySeconds": 20, "periodSeconds": 5, "failureThreshold": 4, "successThreshold": null,
        "timeoutSeconds": 3,
    });
    let made = created(with(smallest_aks(), json!({ MEMBER: given }))).unwrap();
    let expected = ProbeSpec {
        startup_ms: Some(20_000),
        interval_ms: Some(5_000),
        timeout_ms: Some(3_000),
        unhealthy: Some(4),
        ..ProbeSpec::default()
    };
    assert_eq!(probe(&made, "default"), Some(expected.clone()));
    let told = Value::Object(document::of(Kind::Aks, &made));
    assert_eq!(told[MEMBER]["periodSeconds"], 5);
    assert_eq!(told[MEMBER]["successThreshold"], 1, "Azure's default is told");

    let path = format!("/{MEMBER}/periodSeconds");
    let changed = patched(&made, json!([replace(&path, 6)])).unwrap();
    let expected = ProbeSpec { interval_ms: Some(6_000), healthy: Some(1), ..expected };
    assert_eq!(probe(&changed, "default"), Some(expected));
    let removed = patched(&changed, json!([replace(&format!("/{MEMBER}"), Value::Null)])).unwrap();
    assert_eq!(removed.deployments["default"].health, None);

    let version = with(smallest_aks(), json!({ MEMBER: { "periodSeconds": 7 }, "trafficPercentile": 20 }));
    let add = json!({ "op": "add", "path": "/versions/second", "value": version });
    let versions = patched(&created(endpoint()).unwrap(), json!([add])).unwrap();
    assert_eq!(probe(&versions, "second").unwrap().interval_ms, Some(7_000));
    assert_eq!(probe(&versions, "first"), None);
}

#[test]
fn azures_defaults_are_a_probe_if_they_were_asked_for() {
    let given = Kind::Aks.defaults()[MEMBER].clone();
    let made = created(with(smallest_aks(), json!({ MEMBER: given }))).unwrap();
    assert_eq!(probe(&made, "default").unwrap().startup_ms, Some(310_000));
    let patched = patched(&made, json!([replace("/description", "new")])).unwrap();
    assert_eq!(probe(&patched, "default"), probe(&made, "default"));
}

#[test]
fn what_another_api_has_set_stays() {
    let mut spec = created(smallest_aks()).unwrap();
    let health = HealthSpec {
        probe: Some(ProbeSpec { path: Some("/ping".into()), ..ProbeSpec::default() }),
        readiness: Some(ReadinessSpec { body: "{}".into(), ..ReadinessSpec::default() }),
    };
    let deployment: &mut DeploymentSpec = spec.deployments.get_mut("default").unwrap();
    deployment.health = Some(health.clone());
    let described = patched(&spec, json!([replace("/description", "new")])).unwrap();
    assert_eq!(described.deployments["default"].health, Some(health.clone()));
    let asked = patched(&spec, json!([replace(&format!("/{MEMBER}/periodSeconds"), 5)])).unwrap();
    let asked = asked.deployments["default"].health.clone().unwrap();
    assert_eq!(asked.readiness, health.readiness);
    assert_eq!(asked.probe.unwrap().interval_ms, Some(5_000));
}

#[test]
fn a_requirement_that_cannot_be_met_is_named() {
    for (field, value) in [
        ("periodSeconds", json!(0)),
        ("periodSeconds", json!(3_601)),
        ("timeoutSeconds", json!("2")),
        ("failureThreshold", json!(0)),
        ("successThreshold", json!(101)),
        ("initialDelaySeconds", json!(-1)),
    ] {
        let payload = with(smallest_aks(), json!({ MEMBER: { field: value } }));
        assert_eq!(target(created(payload)), format!("{MEMBER}/{field}"));
    }
    let payload = with(smallest_aks(), json!({ MEMBER: 1 }));
    assert_eq!(target(created(payload)), MEMBER);
}
