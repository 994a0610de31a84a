//! Tests of `retry`, `sticky`, `unknown_deployment` and `mirror`.

use super::*;
use crate::catalog::{Replay, UnknownDeployment};
use crate::proxy::{ServiceSettings, SplitSettings};
use crate::upstream::RetrySettings;

fn service(more: &str) -> String {
    format!(
        "{{name: iris, compute_type: ACI, deployments: [{{name: blue, replicas: ['http://h']}}, {{name: green, traffic: 0, replicas: ['http://g']}}]{more}}}"
    )
}

fn loaded(more: &str) -> ServiceSettings {
    let text = format!("{HEAD}services:\n- {}\n", service(more)).replace("'http://h'", "'http://h'");
    let text = text.replace("name: blue, ", "name: blue, default: true, ");
    let source = Source::text("c.yaml", std::path::Path::new("/"), text);
    let loaded = load(&source).unwrap_or_else(|problems| panic!("{problems}"));
    ServiceSettings::clone(&loaded.config.services[0])
}

#[test]
fn without_a_word_only_what_was_not_sent_is_tried_again_and_nothing_is_copied() {
    let service = loaded("");
    assert_eq!(service.retry, RetrySettings::default());
    assert_eq!((service.retry.attempts, service.retry.replay), (3, Replay::Never));
    assert_eq!(service.split, SplitSettings::default());
    assert_eq!(service.split.unknown, UnknownDeployment::Refuse);
}

#[test]
fn what_is_said_is_taken() {
    let service = loaded(
        ", retry: {attempts: 5, replay: always, body_bytes: 1MiB, budget: 50, statuses: [502, 503]}, \
         unknown_deployment: ignore, sticky: {header: X-Session-Id}, mirror: {deployment: green, percent: 10}",
    );
    let retry = &service.retry;
    assert_eq!(
        (retry.attempts, retry.replay, retry.body_bytes, retry.budget),
        (5, Replay::Always, 1 << 20, 50)
    );
    assert_eq!(retry.statuses, [502, 503]);
    assert_eq!(service.split.unknown, UnknownDeployment::Ignore);
    assert_eq!(service.split.sticky.unwrap(), "x-session-id");
    let mirror = service.split.mirror.unwrap();
    assert_eq!((mirror.deployment.as_str(), mirror.percent), ("green", 10));
    assert_eq!((mirror.body_bytes, mirror.concurrent), (64 << 10, 16));
}

#[test]
fn what_is_out_of_bounds_is_told_with_its_place() {
    let default = ", default: true";
    let with = |more: &str| service(more).replace("name: blue", &format!("name: blue{default}"));
    let problems = |more: &str| {
        let text = format!("{HEAD}services:\n- {}\n", with(more));
        lines(&text, &[])
            .into_iter()
            .map(|line| line.split_once(": ").unwrap().1.to_owned())
            .collect::<Vec<_>>()
    };
    for (more, expected) in [
        (
            ", retry: {attempts: 0, budget: 101, body_bytes: 17MiB}",
            &[
                "services[0].retry.attempts: 0 is out of range; allowed are 1 to 10",
                "services[0].retry.budget: 101 is out of range; allowed are 1 to 100",
                "services[0].retry.body_bytes: 17MiB is out of range; allowed are 0 to 16MiB",
            ][..],
        ),
        (
            ", retry: {replay: always, statuses: [503, 429]}",
            &["services[0].retry.statuses[1]: 429 is out of range; allowed are 500 to 599"],
        ),
        (
            ", retry: {statuses: [503]}",
            &[
                "services[0].retry.statuses[0]: a call that was answered has been run, and retry.replay says never; set replay, or remove statuses",
            ],
        ),
        (
            ", sticky: {header: 'a b'}",
            &["services[0].sticky.header: 'a b' is no header name; write one such as x-session-id"],
        ),
        (
            ", sticky: {header: Authorization}",
            &[
                "services[0].sticky.header: 'Authorization' has a meaning of its own here; choose another header",
            ],
        ),
        (", sticky: {}", &["services[0].sticky.header: is missing; add it"]),
        (
            ", mirror: {deployment: gray, percent: 51}",
            &[
                "services[0].mirror.percent: 51 is out of range; allowed are 1 to 50",
                "services[0].mirror.deployment: the service has no deployment 'gray'; name one that it has",
            ],
        ),
        (
            ", mirror: {concurrent: 0}",
            &[
                "services[0].mirror.concurrent: 0 is out of range; allowed are 1 to 1000",
                "services[0].mirror.deployment: is missing; add it",
                "services[0].mirror.percent: is missing; add it",
            ],
        ),
    ] {
        let mut told = problems(more);
        let mut expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
        told.sort_unstable();
        expected.sort_unstable();
        assert_eq!(told, expected, "{more}");
    }
}
