//! What is said of probes, readiness and names, and what of it is refused.

use super::*;
use crate::upstream::{Check, NamesSettings, ProbeSettings};

/// A service whose only deployment has these further fields.
fn service(fields: &str) -> String {
    format!(
        "services:\n- name: iris\n  compute_type: ACI\n  deployments:\n  - {{name: blue, replicas: ['http://h:1'], {fields}}}\n"
    )
}

fn deployment(fields: &str) -> crate::proxy::DeploymentSettings {
    let source = Source::text("c.yaml", Path::new("/"), format!("{HEAD}{}", service(fields)));
    let loaded = load(&source).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config.services[0].deployments[0].clone()
}

#[test]
fn nothing_is_asked_unless_it_is_said_and_names_are_looked_up_all_the_same() {
    let bare = deployment("traffic: 100");
    assert_eq!((bare.health, bare.names), (None, NamesSettings::default()));
    let health = deployment("paths: {health: /ping}, health: {probe: {}}").health.unwrap();
    let Check::Http { path, expected } = &health.probe.as_ref().unwrap().check else { panic!("a GET") };
    assert_eq!((path.as_str(), expected.to_string().as_str()), ("/ping", "200"));
    assert_eq!(health.readiness, None);
}

#[test]
fn everything_that_can_be_said_is_taken() {
    let fields = "protocol: h1, names: {refresh: 1s}, health: {probe: {path: /up, status: [200-299, 401], interval: 1s, \
                  timeout: 100ms, healthy: 2, unhealthy: 5, startup: 0s}, readiness: {path: /invocations, body: '1,2', \
                  content_type: text/csv, timeout: 3s}}";
    let deployment = deployment(fields);
    assert_eq!(deployment.names.refresh, Duration::from_secs(1));
    let health = deployment.health.unwrap();
    let probe = health.probe.clone().unwrap();
    let Check::Http { path, expected } = &probe.check else { panic!("a GET") };
    assert_eq!((path.as_str(), expected.to_string().as_str()), ("/up", "200-299, 401"));
    let expected = ProbeSettings {
        check: probe.check.clone(),
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(100),
        healthy: 2,
        unhealthy: 5,
        startup: Duration::ZERO,
    };
    assert_eq!(probe, expected);
    let readiness = health.readiness.clone().unwrap();
    assert_eq!((readiness.path.as_str(), &*readiness.body), ("/invocations", &b"1,2"[..]));
    assert_eq!((readiness.content_type.to_str().unwrap(), readiness.timeout.as_secs()), ("text/csv", 3));
    let grpc = super::health::deployment("protocol: h2, health: {probe: {grpc: inference}}").health.unwrap();
    assert_eq!(grpc.probe.as_ref().unwrap().check, Check::Grpc { service: "inference".into() });
}

#[test]
fn the_file_of_a_body_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("body.json"), "{}").unwrap();
    let text = format!("{HEAD}{}", service("health: {readiness: {body_file: body.json}}"));
    let loaded = load(&Source::text("c.yaml", dir.path(), text.as_str())).unwrap();
    assert_eq!(loaded.config.files, [dir.path().join("body.json")]);
    std::fs::write(dir.path().join("body.json"), "[]").unwrap();
    assert_ne!(load(&Source::text("c.yaml", dir.path(), text)).unwrap().hash, loaded.hash);
}

#[test]
fn what_cannot_be_asked_is_refused_by_its_field() {
    let place = "services[0].deployments[0]";
    for (fields, expected) in [
        ("health: {}", ".health: asks nothing of the replicas; add probe or readiness, or remove it"),
        (
            "health: {probe: {path: up}}",
            ".health.probe.path: 'up' is no path; write one that begins with '/' and has no '?'",
        ),
        (
            "health: {probe: {status: [2xx]}}",
            ".health.probe.status[0]: '2xx' is no status from 200 to 599 and no range of them such as 200-299",
        ),
        (
            "health: {probe: {status: []}}",
            ".health.probe.status: lists no status; write one such as 200, or remove it",
        ),
        (
            "health: {probe: {interval: 1ms}}",
            ".health.probe.interval: 1ms is out of range; allowed are 100ms to 1h",
        ),
        (
            "health: {probe: {timeout: 1h}}",
            ".health.probe.timeout: 1h is out of range; allowed are 1ms to 5m",
        ),
        ("health: {probe: {healthy: 0}}", ".health.probe.healthy: 0 is out of range; allowed are 1 to 100"),
        (
            "health: {probe: {unhealthy: 101}}",
            ".health.probe.unhealthy: 101 is out of range; allowed are 1 to 100",
        ),
        (
            "health: {probe: {startup: 25h}}",
            ".health.probe.startup: 25h is out of range; allowed are 0s to 24h",
        ),
        (
            "health: {probe: {grpc: ''}}",
            ".health.probe.grpc: gRPC is HTTP/2; set protocol: h2 of the deployment",
        ),
        (
            "protocol: h2, health: {probe: {grpc: '', path: /}}",
            ".health.probe.grpc: stands beside path; keep one of them",
        ),
        ("health: {readiness: {}}", ".health.readiness.body: is missing; write body or body_file"),
        (
            "health: {readiness: {body: ''}}",
            ".health.readiness.body: is empty; write a body that the model can score",
        ),
        (
            "health: {readiness: {body: '1', body_file: x}}",
            ".health.readiness.body_file: stands beside body; keep one of them",
        ),
        (
            "health: {readiness: {body_file: nowhere}}",
            ".health.readiness.body_file: /nowhere/nowhere cannot be read (No such file or directory (os error 2)); check the path",
        ),
        (
            "health: {readiness: {body: '1', timeout: 0s}}",
            ".health.readiness.timeout: 0s is out of range; allowed are 1ms to 1h",
        ),
        (
            "health: {readiness: {body: '1', content_type: \"a\\nb\"}}",
            ".health.readiness.content_type: is no content type; write one such as application/json",
        ),
        ("names: {refresh: 1ms}", ".names.refresh: 1ms is out of range; allowed are 100ms to 24h"),
    ] {
        let told = lines(&format!("{HEAD}{}", service(fields)), &[]);
        let told: Vec<_> = told.iter().map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(told, [format!("{place}{expected}")], "{fields}");
    }
}

#[test]
fn a_server_whose_score_path_depends_on_the_model_needs_one_for_readiness() {
    let text = |readiness: &str| {
        service(&format!("health: {{readiness: {{{readiness}}}}}"))
            .replace("compute_type", "profile: kserve-v2\n  compute_type")
    };
    let told = lines(&format!("{HEAD}{}", text("body: '1'")), &[]);
    assert!(told[0].contains("health.readiness.path: is missing"), "{told:?}");
    assert_eq!(lines(&format!("{HEAD}{}", text("body: '1', path: /v2/models/m/infer")), &[]), [""; 0]);
}
