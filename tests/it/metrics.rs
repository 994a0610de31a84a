//! Metrics at the door: names, labels and buckets as the contract has them, bounded whatever callers do.

use std::collections::{BTreeMap, BTreeSet};

use scoregate::error::Reason;
use scoregate::telemetry::metrics::NAMES;

use crate::harness::{Gateway, KEY, Upstream, config, eventually, ok, score_request, service};

/// One line of the page.
#[derive(Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The page, read as Prometheus reads it; also checks what Prometheus would refuse.
fn parse(page: &str) -> Vec<Series> {
    let mut seen = BTreeSet::new();
    let series = page.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series), "{series} is there twice");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap();
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        Series { name: name.to_owned(), labels: labels.collect(), value: value.parse().unwrap() }
    });
    series.collect()
}

async fn page(gateway: &Gateway) -> Vec<Series> {
    let (status, text) = gateway.observe("/metrics").await;
    assert_eq!(status, 200);
    parse(&text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scoring_run_shows_under_the_names_labels_and_buckets_of_the_contract() {
    let upstream = Upstream::answering(|_| ok(b"[0, 2]")).await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    for _ in 0..5 {
        assert_eq!(gateway.score("iris", Some(KEY), "1234").await.status, 200);
    }
    gateway.records(5).await;
    let page = page(&gateway).await;
    let labels: BTreeMap<_, _> = page
        .iter()
        .map(|series| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.name.strip_suffix(end));
            let base = base.filter(|base| NAMES.contains(base)).unwrap_or(&series.name);
            assert!(NAMES.contains(&base), "{} is in no list", series.name);
            (
                base,
                series.labels.keys().map(String::as_str).filter(|label| *label != "le").collect::<Vec<_>>(),
            )
        })
        .collect();
    for (name, expected) in [
        ("scoregate_requests_total", &["code", "compute_type", "deployment", "reason", "service"][..]),
        ("scoregate_request_duration_seconds", &["service"]),
        ("scoregate_upstream_first_byte_seconds", &["service"]),
        ("scoregate_queue_wait_seconds", &["service"]),
        ("scoregate_requests_in_flight", &["service"]),
        ("scoregate_connections_open", &["listener"]),
        ("scoregate_tls_handshake_failures_total", &["kind", "listener"]),
        ("scoregate_config_generation", &[]),
        ("scoregate_records_total", &["outcome"]),
        ("scoregate_build_info", &["version"]),
        ("process_resident_memory_bytes", &[]),
    ] {
        assert_eq!(labels.get(name).map(Vec::as_slice), Some(expected), "{name}");
    }

    let of_iris = |name: &str| {
        let series = page.iter().filter(|series| {
            series.name == name && series.labels.get("service").is_some_and(|service| service == "iris")
        });
        series.collect::<Vec<_>>()
    };
    for (name, value) in [
        ("scoregate_requests_total", 5.0),
        ("scoregate_request_duration_seconds_count", 5.0),
        ("scoregate_upstream_first_byte_seconds_count", 5.0),
        ("scoregate_queue_wait_seconds_count", 5.0),
        ("scoregate_request_body_bytes_total", 20.0),
        ("scoregate_response_body_bytes_total", 30.0),
        ("scoregate_upstream_attempts_total", 5.0),
        ("scoregate_requests_in_flight", 0.0),
    ] {
        let series = of_iris(name);
        assert_eq!(series.len(), 1, "{name}");
        assert_eq!(series[0].value, value, "{name}");
    }
    let buckets = of_iris("scoregate_request_duration_seconds_bucket");
    let bounds: Vec<_> = buckets.iter().map(|bucket| bucket.labels["le"].as_str()).collect();
    let expected = "0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 120 180 300 +Inf";
    assert_eq!(bounds.join(" "), expected);
    assert!(buckets.is_sorted_by(|one, next| one.value <= next.value), "{buckets:?}");
    assert_eq!(buckets.last().unwrap().value, 5.0);
    // The histogram holds what the records say.
    let records = gateway.records(5).await;
    let recorded: f64 = records.iter().map(|record| record["Duration"].as_f64().unwrap() / 1000.0).sum();
    let counted = of_iris("scoregate_request_duration_seconds_sum")[0].value;
    assert!((counted - recorded).abs() < 1e-4, "{counted} against {recorded}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_open_metrics_gets_exemplars_that_lead_to_traces_and_records() {
    let upstream = Upstream::answering(|_| ok(b"[0, 2]")).await;
    let services = service("iris", upstream.address, "") + &service("rose", upstream.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traced = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\nHost:");
    let call = score_request("iris", Some(KEY), "1").replace("Host:", &traced);
    assert_eq!(gateway.call(call).await.status, 200);
    assert_eq!(gateway.score("rose", Some(KEY), "1").await.status, 200);
    let records = gateway.exactly(2).await;

    let accept =
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
    let (head, page) = gateway.observe_with("/metrics", accept).await;
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.to_lowercase().contains(kind), "{head}");
    assert!(page.ends_with("\n# EOF\n"), "{page}");
    assert!(page.contains("\n# TYPE scoregate_requests counter\n"), "{page}");
    let exemplar_of = |service: &str| {
        let start = format!("scoregate_request_duration_seconds_bucket{{service=\"{service}\",");
        let shown = page.lines().filter_map(|line| line.strip_prefix(start.as_str())?.split_once(" # "));
        let shown: Vec<_> = shown.collect();
        assert_eq!(shown.len(), 1, "{service}: {shown:?}");
        let (id, rest) = shown[0].1.strip_prefix("{trace_id=\"").unwrap().split_once("\"} ").unwrap();
        let (value, at) = rest.split_once(' ').unwrap();
        (id.to_owned(), value.parse::<f64>().unwrap(), at.parse::<f64>().unwrap())
    };
    let record_of = |service: &str| records.iter().find(|record| record["Service"] == service).unwrap();
    let (id, value, at) = exemplar_of("iris");
    assert_eq!((id.as_str(), record_of("iris")["TraceId"].as_str()), (trace, Some(trace)));
    let recorded = record_of("iris")["Duration"].as_f64().unwrap() / 1000.0;
    assert!((value - recorded).abs() < 1e-5, "{value} against {recorded}");
    assert!(at > 1.7e9, "{at}");
    let request_id = record_of("rose")["RequestId"].as_str().unwrap().replace('-', "");
    assert_eq!(exemplar_of("rose").0, request_id);

    for accept in ["", "Accept: */*\r\n", "Accept: text/plain;version=0.0.4\r\n"] {
        let (head, page) = gateway.observe_with("/metrics", accept).await;
        assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(!page.contains("# EOF") && !page.contains("trace_id"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lets_callers_in_and_why_others_are_refused_is_counted() {
    let upstream = Upstream::answering(|_| ok(b"[0, 2]")).await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    for key in [Some(KEY), Some(KEY), Some("wrong"), None] {
        gateway.score("iris", key, "1").await;
    }
    gateway.exactly(4).await;
    for (outcome, count) in [("primary_key", 2.0), ("invalid", 1.0), ("missing", 1.0), ("token", 0.0)] {
        let series = format!(r#"scoregate_authentications_total{{service="iris",outcome="{outcome}"}}"#);
        assert_eq!(gateway.metric(&series).await, count, "{outcome}");
    }
    assert!(gateway.metric(r#"scoregate_connections_limit{listener="public"}"#).await > 0.0);
    // A key of the configuration has an age that nobody knows.
    let page = gateway.observe("/metrics").await.1;
    assert!(!page.contains("scoregate_key_created_timestamp_seconds{"), "{page}");
    let used =
        gateway.metric(r#"scoregate_key_last_used_timestamp_seconds{service="iris",key="primary"}"#).await;
    assert!(used > 1.7e9, "{used}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_a_reload_makes_another_type_has_each_series_once() {
    let upstream = Upstream::answering(|_| ok(b"[0, 2]")).await;
    let text = config(&service("iris", upstream.address, "    hosts: [ iris.test ]"));
    let gateway = Gateway::start(&text).await;
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
    let other = text.replace("compute_type: AKS", "compute_type: Managed");
    assert_ne!(other, text);
    gateway.replace("scoregate.yaml", &other);
    gateway.reload().await;
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
    gateway.exactly(2).await;
    // `parse` refuses a series that is there twice.
    let page = page(&gateway).await;
    let count = page.iter().find(|series| series.name == "scoregate_request_duration_seconds_count");
    assert!(count.is_some());
    let types = page.iter().filter(|series| series.name == "scoregate_requests_total");
    assert_eq!(types.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_make_up_adds_no_series() {
    let upstream = Upstream::answering(|seen| {
        // A model that makes up statuses.
        let status = 200 + seen.header("x-status").parse().unwrap_or(0_usize);
        format!("HTTP/1.1 {status} Made up\r\nContent-Length: 0\r\n\r\n").into_bytes()
    })
    .await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let mut connection = gateway.connect().await;
    for number in 0..40 {
        connection.send(score_request(&format!("made-up-{number}"), Some(KEY), "1")).await;
        assert_eq!(connection.answer().await.status, 404);
        let made_up = format!("X-Status: {}\r\nHost:", 110 + number);
        connection.send(score_request("iris", Some(KEY), "1").replace("Host:", &made_up)).await;
        assert_eq!(connection.answer().await.status, 310 + number);
        let deployment = format!("azureml-model-deployment: made-up-{number}\r\nHost:");
        connection.send(score_request("iris", Some(KEY), "1").replace("Host:", &deployment)).await;
        assert_eq!(connection.answer().await.reason(), "unknown_service");
    }
    gateway.records(120).await;
    let page = page(&gateway).await;
    let values = |label: &str| -> BTreeSet<&str> {
        page.iter().filter_map(|series| series.labels.get(label)).map(String::as_str).collect()
    };
    assert_eq!(values("service"), BTreeSet::from(["", "iris"]));
    assert_eq!(values("deployment"), BTreeSet::from(["", "blue"]));
    assert_eq!(values("compute_type"), BTreeSet::from(["", "AKS"]));
    assert_eq!(values("code"), BTreeSet::from(["3xx", "404"]));
    let unknown = page
        .iter()
        .find(|series| series.name == "scoregate_requests_total" && series.labels["service"].is_empty());
    assert_eq!(unknown.unwrap().value, 40.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reasons_in_metrics_records_and_headers_are_of_the_one_closed_list() {
    let error = Upstream::answering(|_| b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let noise = Upstream::once("noise\r\n\r\n").await;
    let services = service("error", error.address, "") + &service("noise", noise.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    let mut told = BTreeSet::new();
    for (service, key) in
        [("error", Some(KEY)), ("error", None), ("error", Some("x")), ("noise", Some(KEY)), ("rose", None)]
    {
        let answer = gateway.score(service, key, "1").await;
        told.insert(answer.reason().to_owned());
    }
    let put = score_request("error", Some(KEY), "1").replace("POST", "PUT");
    told.insert(gateway.call(put).await.reason().to_owned());
    // A model's own error has no reason of the gateway's.
    assert!(told.remove(""));
    told.insert("model_error".to_owned());

    let records = gateway.records(6).await;
    let recorded: BTreeSet<_> =
        records.iter().map(|record| record["Reason"].as_str().unwrap().to_owned()).collect();
    let page = page(&gateway).await;
    let counted: BTreeSet<_> = page
        .iter()
        .filter(|series| series.name == "scoregate_requests_total")
        .map(|series| series.labels["reason"].clone())
        .collect();
    assert_eq!(told.len(), 6);
    assert_eq!(told, recorded);
    assert_eq!(told, counted);
    let closed: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert!(counted.is_subset(&closed), "{counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gauges_of_calls_and_connections_go_up_and_come_down() {
    let (upstream, gate) = Upstream::held().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let in_flight = r#"scoregate_requests_in_flight{service="iris"}"#;
    let open = r#"scoregate_connections_open{listener="public"}"#;
    let accepted = r#"scoregate_connections_accepted_total{listener="public"}"#;
    assert_eq!(gateway.metric(in_flight).await, 0.0);
    let mut h1 = gateway.connect().await;
    let h2 = gateway.h2().await;
    h1.send(score_request("iris", Some(KEY), "1")).await;
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let mut h2 = h2.clone();
            tokio::spawn(async move { h2.score("iris", KEY, "1").await.status })
        })
        .collect();
    upstream.until_seen(3).await;
    for (series, value) in [(in_flight, 3.0), (open, 2.0), (accepted, 2.0)] {
        assert_eq!(gateway.metric(series).await, value, "{series}");
    }
    gate.add_permits(3);
    assert_eq!(h1.answer().await.status, 200);
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    gateway.until_metric(in_flight, 0.0).await;
    assert_eq!(gateway.metric(open).await, 2.0);
    drop((h1, h2));
    gateway.until_metric(open, 0.0).await;
    assert_eq!(gateway.metric(accepted).await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_set_shows_its_age_and_keys_from_its_first_reading_on() {
    let upstream = Upstream::echo().await;
    let oidc = format!(
        "  - name: iris\n    compute_type: Managed\n    hosts: [ iris.test ]\n    auth: oidc\n    \
         oidc: {{ issuer: \"https://issuer.test\", jwks: {{ file: keys.json }} }}\n    \
         deployments: [ {{ name: blue, replicas: [\"http://{}\"] }} ]\n",
        upstream.address
    );
    let gateway = Gateway::start_with(&config(&oidc), &[("keys.json", r#"{"keys":[]}"#)]).await;
    let source = gateway.path("keys.json").display().to_string();
    let keys = format!(r#"scoregate_jwks_keys{{source="{source}"}}"#);
    let age = format!(r#"scoregate_jwks_age_seconds{{source="{source}"}}"#);
    let shown =
        async |series: &str| gateway.observe("/metrics").await.1.lines().any(|line| line.starts_with(series));
    eventually("an age", async || shown(&age).await.then_some(())).await;
    assert!(shown(&keys).await);
    assert_eq!(gateway.metric(&keys).await, 0.0);

    // The public key of RFC 8037, appendix A.2.
    let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    gateway.replace("keys.json", set);
    gateway.until_metric(&keys, 1.0).await;
    assert!((0.0..120.0).contains(&gateway.metric(&age).await));
    // It grows older by itself.
    let before = gateway.metric(&age).await;
    eventually("an older key set", async || (gateway.metric(&age).await > before).then_some(())).await;
}
