//! Metrics as a scraper reads them.

use super::*;
use crate::error::Reason;
use crate::telemetry::record::Record;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

fn sample(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.render();
    let line =
        text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn every_name_in_the_list_is_given_out_and_no_other() {
    let metrics = Metrics::new();
    metrics.unrouted().observe(&Record::sample());
    metrics.unrouted().retried(Retried::Reset);
    metrics.unrouted().retry_budget_exhausted();
    metrics.unrouted().mirrored(Mirrored::Sent);
    metrics.unrouted().collected(Collected::Written);
    let _ = metrics.listener("public");
    metrics.config().started(RunningConfig { generation: 1, hash: "abc" });
    metrics.certificates().serves("public", [("a", SystemTime::now())]);
    metrics.store(StoreState::Up);
    let _ = metrics.exporter("application_insights");
    metrics.health().probed("iris", "blue", ProbeOutcome::Passed);
    metrics.show_key_sets(|| {
        vec![KeySetReading { source: "/keys.json".to_owned(), keys: 1, age: Some(Duration::ZERO) }]
    });
    metrics.show_replicas(|| {
        let (service, deployment) = ("iris".into(), "blue".into());
        vec![ReplicaReading { service, deployment, states: vec![("ready", 1)], ejections: 0 }]
    });
    metrics.show_snapshot(|| {
        let now = Some(SystemTime::now());
        let (service, key) = ("iris".to_owned(), "primary");
        let keys = vec![KeyReading { service, key, made: now, not_after: now, last_used: now }];
        SnapshotReading { generation: 1, keys }
    });
    metrics.show_limits(|| {
        let load = Some(LoadReading { slots: 2, busy: 1, waiting: 0 });
        let principals = Some(PrincipalReading::default());
        vec![LimitReading { service: "iris".to_owned(), load, principals }]
    });
    let text = metrics.render();
    let given: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(given, NAMES.iter().copied().collect());
}

#[test]
fn attempts_and_copies_show_by_what_became_of_them_and_not_where_there_were_none() {
    let metrics = Metrics::new();
    let service = metrics.service(&"iris".into(), ComputeType::Aks);
    for _ in 0..2 {
        service.retried(Retried::Unsent);
    }
    service.mirrored(Mirrored::TooLarge);
    let series = |series: &str| sample(&metrics, series);
    assert_eq!(series(r#"scoregate_retries_total{service="iris",why="unsent"}"#), Some(2.0));
    assert_eq!(series(r#"scoregate_retries_total{service="iris",why="reset"}"#), None);
    assert_eq!(series(r#"scoregate_retry_budget_exhausted_total{service="iris"}"#), None);
    assert_eq!(series(r#"scoregate_mirrored_total{service="iris",outcome="too_large"}"#), Some(1.0));
}

#[test]
fn a_call_shows_in_each_of_its_series() {
    let metrics = Metrics::new();
    let service = metrics.service(&"iris".into(), ComputeType::Aks);
    let in_flight = service.start();
    assert_eq!(sample(&metrics, r#"scoregate_requests_in_flight{service="iris"}"#), Some(1.0));
    service.observe(&Record::sample());
    drop(in_flight);
    for (series, value) in [
        (
            r#"scoregate_requests_total{service="iris",compute_type="AKS",deployment="blue",code="200",reason="ok"}"#,
            1.0,
        ),
        (r#"scoregate_request_duration_seconds_bucket{service="iris",le="0.01"}"#, 0.0),
        (r#"scoregate_request_duration_seconds_bucket{service="iris",le="0.025"}"#, 1.0),
        (r#"scoregate_request_duration_seconds_bucket{service="iris",le="+Inf"}"#, 1.0),
        (r#"scoregate_request_duration_seconds_sum{service="iris"}"#, 0.012045),
        (r#"scoregate_request_duration_seconds_count{service="iris"}"#, 1.0),
        (r#"scoregate_upstream_first_byte_seconds_sum{service="iris"}"#, 0.011),
        (r#"scoregate_queue_wait_seconds_count{service="iris"}"#, 1.0),
        (r#"scoregate_request_body_bytes_total{service="iris"}"#, 1024.0),
        (r#"scoregate_response_body_bytes_total{service="iris"}"#, 130.0),
        (r#"scoregate_upstream_attempts_total{service="iris"}"#, 1.0),
        (r#"scoregate_requests_in_flight{service="iris"}"#, 0.0),
        (r#"scoregate_requests_in_flight{service=""}"#, 0.0),
    ] {
        assert_eq!(sample(&metrics, series), Some(value), "{series}");
    }
}

#[test]
fn calls_on_many_threads_add_up() {
    let metrics = Metrics::new();
    let service = metrics.service(&"iris".into(), ComputeType::Aks);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| service.observe(&Record::sample())));
        }
    });
    let series = r#"scoregate_requests_total{service="iris",compute_type="AKS",deployment="blue",code="200",reason="ok"}"#;
    assert_eq!(sample(&metrics, series), Some(1000.0));
}

#[test]
fn statuses_that_a_model_makes_up_add_no_series_each() {
    let metrics = Metrics::new();
    for status in 100..=999 {
        metrics.unrouted().observe(&Record { status, ..Record::sample() });
    }
    let text = metrics.render();
    let series = text.lines().filter(|line| line.starts_with("scoregate_requests_total{"));
    assert!(series.clone().count() < 80, "{}", series.count());
    let made_up =
        r#"scoregate_requests_total{service="",compute_type="",deployment="blue",code="9xx",reason="ok"}"#;
    assert_eq!(sample(&metrics, made_up), Some(100.0));
    let gone =
        r#"scoregate_requests_total{service="",compute_type="",deployment="blue",code="499",reason="ok"}"#;
    assert_eq!(sample(&metrics, gone), Some(1.0));
}

#[test]
fn a_service_keeps_its_counts_over_a_reload() {
    let metrics = Metrics::new();
    let first = metrics.service(&"iris".into(), ComputeType::Aks);
    assert!(Arc::ptr_eq(&first, &metrics.service(&"iris".into(), ComputeType::Aks)));
    assert!(!Arc::ptr_eq(&first, &metrics.service(&"iris".into(), ComputeType::Aci)));
    for reason in Reason::ALL {
        first.observe(&Record { reason, ..Record::sample() });
    }
    assert_eq!(
        metrics.render().matches("scoregate_requests_total{service=\"iris\"").count(),
        Reason::ALL.len()
    );
}

#[test]
fn a_service_that_is_made_anew_with_another_compute_type_has_each_series_once() {
    let metrics = Metrics::new();
    metrics.service(&"iris".into(), ComputeType::Aks).observe(&Record::sample());
    metrics.service(&"iris".into(), ComputeType::Managed).observe(&Record::sample());
    let page = metrics.render();
    let mut series = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, _) = line.rsplit_once(' ').unwrap();
        assert!(series.insert(name), "{name} is there twice");
    }
    assert_eq!(sample(&metrics, r#"scoregate_request_duration_seconds_count{service="iris"}"#), Some(2.0));
    assert_eq!(sample(&metrics, r#"scoregate_tokens_total{service="iris",kind="prompt"}"#), Some(18.0));
    assert_eq!(page.matches("scoregate_requests_total{service=\"iris\"").count(), 2);
}

#[test]
fn the_name_of_each_family_tells_its_kind_and_unit() {
    for (name, labels) in LABELS {
        let valid = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(valid(name) && labels.iter().all(|label| valid(label)), "{name}");
    }
    let metrics = Metrics::new();
    let _ = metrics.listener("public");
    let page = metrics.render();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    }
}

#[test]
fn calls_past_the_bound_of_services_are_told_of() {
    let metrics = Metrics::new();
    let names = (0..=MAX_SERVICES).map(|number| format!("service-{number}").into());
    let services: Vec<_> = names.map(|name| metrics.service(&name, ComputeType::Aks)).collect();
    let overflow = r#"scoregate_label_overflow_total{label="service"}"#;
    assert_eq!(sample(&metrics, overflow), Some(0.0));
    services.iter().for_each(|service| service.observe(&Record::sample()));
    assert_eq!(sample(&metrics, overflow), Some(1.0));
    assert_eq!(sample(&metrics, r#"scoregate_label_overflow_total{label="deployment"}"#), Some(0.0));
}

#[test]
fn an_exemplar_leads_from_a_bucket_to_a_call() {
    let metrics = Metrics::new();
    metrics.service(&"iris".into(), ComputeType::Aks).observe(&Record::sample());
    let page = metrics.render_as(Format::OpenMetrics);
    let bucket = r#"scoregate_request_duration_seconds_bucket{service="iris",le="0.025"} 1 # "#;
    let line = page.lines().find_map(|line| line.strip_prefix(bucket)).unwrap();
    assert_eq!(line, r#"{trace_id="0af7651916cd43dd8448eb211c80319c"} 0.012045 1795516132.135"#);
    assert!(!metrics.render().contains("trace_id"));
}

#[test]
fn connections_are_open_as_long_as_their_guard() {
    let metrics = Metrics::new();
    let listener = metrics.listener("public");
    let open = listener.opened();
    listener.handshake_failed(HandshakeFailure::Timeout);
    listener.refused(Refusal::ProxyHeader);
    let shown = |series| sample(&metrics, series);
    assert_eq!(shown(r#"scoregate_connections_open{listener="public"}"#), Some(1.0));
    drop(open);
    assert_eq!(shown(r#"scoregate_connections_open{listener="public"}"#), Some(0.0));
    assert_eq!(shown(r#"scoregate_connections_accepted_total{listener="public"}"#), Some(1.0));
    assert_eq!(
        shown(r#"scoregate_tls_handshake_failures_total{kind="timeout",listener="public"}"#),
        Some(1.0)
    );
    assert_eq!(
        shown(r#"scoregate_connections_refused_total{listener="public",reason="proxy_header"}"#),
        Some(1.0)
    );
}

#[test]
fn a_key_set_has_an_age_once_it_was_fetched() {
    let metrics = Metrics::new();
    metrics.show_key_sets(|| {
        let set = |source: &str, keys, age| KeySetReading { source: source.to_owned(), keys, age };
        vec![set("/a", 2, Some(Duration::from_millis(1500))), set("/b", 0, None)]
    });
    assert_eq!(sample(&metrics, r#"scoregate_jwks_age_seconds{source="/a"}"#), Some(1.5));
    assert_eq!(sample(&metrics, r#"scoregate_jwks_keys{source="/a"}"#), Some(2.0));
    assert_eq!(sample(&metrics, r#"scoregate_jwks_age_seconds{source="/b"}"#), None);
    assert_eq!(sample(&metrics, r#"scoregate_jwks_keys{source="/b"}"#), Some(0.0));
}

#[test]
fn an_exporters_records_add_up_on_the_page() {
    let metrics = Metrics::new();
    let counts = metrics.exporter("otlp");
    assert!(Arc::ptr_eq(&counts, &metrics.exporter("otlp")));
    counts.accepted(10);
    counts.settled(4, 1);
    counts.dropped(2);
    counts.holds_bytes(77);
    for (series, value) in [
        (r#"scoregate_exporter_accepted_total{exporter="otlp"}"#, 10.0),
        (r#"scoregate_exporter_records_total{exporter="otlp",outcome="delivered"}"#, 4.0),
        (r#"scoregate_exporter_records_total{exporter="otlp",outcome="dropped"}"#, 3.0),
        (r#"scoregate_exporter_spooled{exporter="otlp"}"#, 3.0),
        (r#"scoregate_exporter_spool_bytes{exporter="otlp"}"#, 77.0),
    ] {
        assert_eq!(sample(&metrics, series), Some(value), "{series}");
    }
}

#[test]
fn a_replaced_certificate_and_a_replaced_hash_are_gone() {
    let metrics = Metrics::new();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    metrics.certificates().serves("public", [("old", end), ("kept", end)]);
    metrics.certificates().serves("public", [("kept", end)]);
    metrics.config().started(RunningConfig { generation: 1, hash: "aaa" });
    metrics.config().refused();
    assert_eq!(sample(&metrics, "scoregate_config_last_reload_successful"), Some(0.0));
    metrics.config().applied(RunningConfig { generation: 2, hash: "bbb" });
    let text = metrics.render();
    assert!(!text.contains("\"old\"") && !text.contains("aaa"), "{text}");
    let kept = r#"scoregate_certificate_not_after_timestamp_seconds{listener="public",name="kept"}"#;
    assert_eq!(sample(&metrics, kept), Some(2e9));
    assert_eq!(sample(&metrics, "scoregate_config_generation"), Some(2.0));
    assert_eq!(sample(&metrics, r#"scoregate_config_reloads_total{outcome="refused"}"#), Some(1.0));
}
