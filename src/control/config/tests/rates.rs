//! Tests of rates and of the queue's length.

use super::*;
use crate::limit::{QueueLength, RateSettings};

fn loaded(compute_type: &str, limits: &str, overrides: &[(&str, &str)]) -> crate::proxy::ServiceSettings {
    let service = format!(
        "services: [{{name: iris, compute_type: {compute_type}, auth: none, limits: {limits}, deployments: [{{name: blue, replicas: [\"http://h:1\"]}}]}}]\n"
    );
    let source = Source::text("c.yaml", Path::new("/"), format!("{HEAD}{service}"));
    let source = source.with_variables(variables(overrides));
    let loaded = load(&source).unwrap_or_else(|problems| panic!("{problems}"));
    (*loaded.config.services[0]).clone()
}

#[test]
fn rates_are_read_with_fractions_and_from_the_environment() {
    let limits =
        "{rate: {requests_per_second: 0.5}, rate_per_principal: {requests_per_second: 10, burst: 20}}";
    let rates = loaded("ACI", limits, &[]).limits.rates;
    assert_eq!(rates.service, Some(RateSettings::new(0.5, Some(1))));
    assert_eq!(rates.per_principal, Some(RateSettings::new(10.0, Some(20))));
    let variable = ("SCOREGATE__SERVICES__0__LIMITS__RATE__REQUESTS_PER_SECOND", "2.5");
    let rates = loaded("ACI", limits, &[variable]).limits.rates;
    assert_eq!(rates.service, Some(RateSettings::new(2.5, Some(3))));
}

#[test]
fn the_queue_is_as_long_as_the_compute_type_has_it_or_as_asked() {
    let length =
        |compute_type, limits| loaded(compute_type, limits, &[]).deployments[0].limits.admission.queue_length;
    assert_eq!(length("ACI", "{}"), QueueLength::Fixed(1000));
    assert_eq!(length("ACI", "{queue_length: 0}"), QueueLength::Fixed(0));
}

#[test]
fn a_rate_needs_a_number_within_bounds() {
    let service = |limits: &str| {
        format!(
            "services:\n- {{name: iris, compute_type: ACI, deployments: [{{name: blue, replicas: [\"http://h:1\"]}}],\n   limits: {{{limits}}}}}\n"
        )
    };
    let all = service("rate: {burst: 0}, rate_per_principal: {requests_per_second: 0, burst: 1000001}");
    let lines = lines(&format!("{HEAD}{all}"), &[]);
    for (place, problem) in [
        ("services[0].limits.rate.requests_per_second", "is missing"),
        (
            "services[0].limits.rate_per_principal.requests_per_second",
            "0 is out of range; allowed are 0.001 to 1000000",
        ),
        ("services[0].limits.rate_per_principal.burst", "1000001 is out of range; allowed are 1 to 1000000"),
    ] {
        assert!(
            lines.iter().any(|line| line.contains(place) && line.contains(problem)),
            "{place}: {lines:#?}"
        );
    }
}
