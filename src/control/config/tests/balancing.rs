//! Tests of `balancing`, `slow_start` and `ejection`.

use http::HeaderName;

use super::*;
use crate::upstream::{Balancing, BalancingSettings, EjectionSettings};

fn with(more: &str) -> String {
    let deployment = format!("{{name: blue, replicas: ['http://h:1']{more}}}");
    format!("{HEAD}services: [{{name: iris, compute_type: ACI, deployments: [{deployment}]}}]\n")
}

fn settings(more: &str) -> BalancingSettings {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    fs::write(&path, with(more)).unwrap();
    let loaded = load(&Source::path(&path)).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config.services[0].deployments[0].balancing.clone()
}

#[test]
fn replicas_share_calls_as_they_are_told() {
    assert_eq!(settings(""), BalancingSettings::default());
    let policy = |more| settings(more).policy;
    assert_eq!(policy(", balancing: least_busy"), Balancing::LeastBusy);
    assert_eq!(policy(", balancing: round_robin"), Balancing::RoundRobin);
    let hash = Balancing::Hash(HeaderName::from_static("x-user"));
    assert_eq!(policy(", balancing: {hash: X-User}"), hash);
    assert_eq!(settings(", slow_start: 30s").slow_start, Duration::from_secs(30));
    for off in ["off", "'off'", "false"] {
        assert_eq!(settings(&format!(", ejection: {off}")).ejection, None, "{off}");
    }
    let on = settings(", ejection: {failures: 3, time: 10m, keep: 0}").ejection;
    let time = Duration::from_secs(600);
    assert_eq!(on, Some(EjectionSettings { failures: 3, time, most_time: time, keep: 0 }));
}

#[test]
fn what_cannot_be_is_told_with_its_place() {
    let cases = [
        (
            ", balancing: leastbusy",
            "balancing: expected least_busy, round_robin or {hash: HEADER}, found 'leastbusy'",
        ),
        (
            ", balancing: {}",
            "balancing: expected least_busy, round_robin or {hash: HEADER}, found an empty section",
        ),
        (", balancing: {hash: 'x user'}", "balancing: 'x user' is no header name; correct it"),
        (", slow_start: 2h", "slow_start: 2h is out of range; allowed are 0s to 1h"),
        (", ejection: {failures: 0}", "ejection.failures: 0 is out of range; allowed are 1 to 1000000"),
        (", ejection: {keep: 101}", "ejection.keep: 101 is out of range; allowed are 0 to 100"),
        (
            ", ejection: {time: 10s, most_time: 5s}",
            "ejection.most_time: 5s is shorter than time (10s); make it at least as long",
        ),
    ];
    for (more, expected) in cases {
        let found = lines(&with(more), &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(&format!("services[0].deployments[0].{expected}")), "{}", found[0]);
    }
    let found = lines(&with(", balancing: {header: x}"), &[]);
    assert!(found[0].contains("balancing.header: unknown field"), "{found:?}");
}
