//! OpenTelemetry at the door: every record arrives as a log and as spans, whatever the collector does and over both
//! protocols, no call notices, and the counts add up.

mod collector;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use serde_json::Value;

use crate::harness::{
    Authority, Gateway, KEY, Seen, Upstream, config, eventually, ok, score_request, service, soon,
};
use collector::{Collector, Play, Protocol, text};

const LOGS_ONLY: &str = "traces: false, metrics: false";

/// The harness's gateway with `telemetry` (YAML fields) beside its record file.
fn exporting(services: &str, telemetry: &str) -> String {
    config(services).replace("telemetry: { records:", &format!("telemetry: {{ {telemetry}, records:"))
}

/// The section with `more` fields; requests time out soon.
fn otlp(protocol: Protocol, collector: &Upstream, more: &str) -> String {
    let (protocol, address) = (protocol.as_str(), collector.address);
    format!(
        "spool: {{ path: spool }}, otlp: {{ endpoint: \"http://{address}\", protocol: {protocol}, compression: gzip, timeout: 1s, {more} }}"
    )
}

async fn score(gateway: &Gateway, calls: usize) {
    let mut connection = gateway.connect().await;
    for _ in 0..calls {
        connection.send(score_request("iris", Some(KEY), "[1]")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
}

fn recorded(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("records.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(records: &[Value]) -> BTreeSet<String> {
    records.iter().map(|record| record["RequestId"].as_str().unwrap().to_owned()).collect()
}

/// Waits until so many records were accepted and nothing is spooled any more; on every page the counts must add up.
/// Returns those delivered and dropped.
async fn until_settled(gateway: &Gateway, exporter: &str, accepted: usize) -> (f64, f64) {
    eventually("all records settled", async || {
        let page = gateway.observe("/metrics").await.1;
        let value = |series: String| -> f64 {
            let line = page.lines().find_map(|line| line.strip_prefix(&series)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{series} in {page}")).parse().unwrap()
        };
        let outcome = |outcome: &str| {
            value(format!(r#"scoregate_exporter_records_total{{exporter="{exporter}",outcome="{outcome}"}}"#))
        };
        let all = value(format!(r#"scoregate_exporter_accepted_total{{exporter="{exporter}"}}"#));
        let spooled = value(format!(r#"scoregate_exporter_spooled{{exporter="{exporter}"}}"#));
        let (delivered, dropped) = (outcome("delivered"), outcome("dropped"));
        assert_eq!(all, delivered + dropped + spooled);
        (all == accepted as f64 && spooled == 0.0).then_some((delivered, dropped))
    })
    .await
}

/// Each record was taken as a log, and only once.
fn assert_each_once(collector: &Collector, folder: &Path) {
    collector.look(|state| {
        assert_eq!(state.logs.keys().cloned().collect::<BTreeSet<_>>(), ids(&recorded(folder)));
        assert!(state.logs.values().all(|times| *times == 1), "{:?}", state.logs);
    });
}

async fn whatever_the_collector_does(protocol: Protocol) {
    let upstream = Upstream::echo().await;
    let script = [Play::Cut, Play::Unavailable(1), Play::Late, Play::Exhausted(1)];
    let (collector, server) = Collector::start(protocol, &script).await;
    let services = service("iris", upstream.address, "");
    let gateway = Gateway::start(&exporting(&services, &otlp(protocol, &server, LOGS_ONLY))).await;
    score(&gateway, 40).await;
    assert_eq!(until_settled(&gateway, "otlp_logs", 40).await, (40.0, 0.0));
    assert_each_once(&collector, gateway.dir.path());
    collector.look(|state| {
        assert!(state.is_played());
        for (asked, next) in [(1, 2), (3, 4)] {
            let waited = state.times[next] - state.times[asked];
            assert!(waited >= Duration::from_secs(1), "the collector's wish was not obeyed: {waited:?}");
        }
    });
    assert_eq!(gateway.metric("scoregate_records_total{outcome=\"dropped\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_each_record_arrives_once_whatever_the_collector_does() {
    whatever_the_collector_does(Protocol::Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_each_record_arrives_once_whatever_the_collector_does() {
    whatever_the_collector_does(Protocol::Grpc).await;
}

async fn what_is_refused_is_dropped(protocol: Protocol, play: Play) {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(protocol, &[play]).await;
    let services = service("iris", upstream.address, "");
    let gateway = Gateway::start(&exporting(&services, &otlp(protocol, &server, LOGS_ONLY))).await;
    score(&gateway, 5).await;
    eventually("the refusal", async || (collector.requests() > 0).then_some(())).await;
    score(&gateway, 5).await;
    let (delivered, dropped) = until_settled(&gateway, "otlp_logs", 10).await;
    assert!(delivered > 0.0 && dropped > 0.0, "{play:?}: {delivered} {dropped}");
    assert_eq!(collector.look(|state| state.logs.len()) as f64, delivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_collector_refuses_is_dropped_counted_and_not_sent_again() {
    what_is_refused_is_dropped(Protocol::Http, Play::Refuse).await;
    what_is_refused_is_dropped(Protocol::Grpc, Play::Refuse).await;
    what_is_refused_is_dropped(Protocol::Grpc, Play::Exhausted(0)).await;
}

async fn a_part_is_rejected(protocol: Protocol) {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(protocol, &[Play::Partly(1)]).await;
    let services = service("iris", upstream.address, "");
    let gateway = Gateway::start(&exporting(&services, &otlp(protocol, &server, LOGS_ONLY))).await;
    score(&gateway, 9).await;
    assert_eq!(until_settled(&gateway, "otlp_logs", 9).await, (8.0, 1.0));
    collector.look(|state| {
        assert_eq!(state.logs.len(), 8, "what was rejected was not sent again");
        assert!(state.logs.values().all(|times| *times == 1));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_of_a_batch_is_rejected_counts_as_dropped() {
    a_part_is_rejected(Protocol::Http).await;
    a_part_is_rejected(Protocol::Grpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_collector_left_is_sent_by_the_next_process() {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(Protocol::Grpc, &[]).await;
    collector.dies();
    let services = service("iris", upstream.address, "");
    let telemetry = otlp(Protocol::Grpc, &server, "metrics: false");
    let mut gateway = Gateway::start(&exporting(&services, &telemetry)).await;
    score(&gateway, 20).await;
    eventually("a try", async || (collector.requests() > 0).then_some(())).await;
    for exporter in ["otlp_logs", "otlp_traces"] {
        gateway.until_metric(&format!(r#"scoregate_exporter_spooled{{exporter="{exporter}"}}"#), 20.0).await;
    }
    soon("the drain", gateway.drain()).await;
    collector.is_back();
    let gateway = Gateway::start_in(gateway.dir, gateway.certificates).await;
    for exporter in ["otlp_logs", "otlp_traces"] {
        assert_eq!(until_settled(&gateway, exporter, 20).await, (20.0, 0.0), "{exporter}: found, and sent");
    }
    assert_each_once(&collector, gateway.dir.path());
    let spans: BTreeSet<_> =
        collector.look(|state| state.spans.iter().map(|span| span.span_id.clone()).collect());
    assert_eq!(spans.len(), 40, "two of each call");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn spans_of(gateway: &Gateway, collector: &Collector, calls: usize) -> Vec<Span> {
    until_settled(gateway, "otlp_traces", calls).await;
    collector.look(|state| state.spans.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_a_span_between_its_callers_and_the_replicas() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const CALLER: &str = "b7ad6b7169203331";
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let (collector, server) = Collector::start(Protocol::Http, &[]).await;
    let services = service("iris", upstream.address, "");
    let telemetry = otlp(Protocol::Http, &server, "logs: false, metrics: false, resource: { team: red }");
    let gateway = Gateway::start(&exporting(&services, &telemetry)).await;
    let traced = score_request("iris", Some(KEY), "[1]")
        .replace("\r\nHost:", &format!("\r\ntraceparent: 00-{TRACE}-{CALLER}-01\r\nHost:"));
    assert!(traced.contains("traceparent"), "{traced}");
    assert_eq!(gateway.call(traced).await.status, 200);
    let spans = spans_of(&gateway, &collector, 1).await;
    let of_kind = |kind| spans.iter().find(|span| span.kind() == kind).unwrap();
    let (call, attempt) = (of_kind(SpanKind::Server), of_kind(SpanKind::Client));
    assert_eq!((hex(&call.trace_id), hex(&call.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&call.trace_id, &call.span_id));
    let told = traceparent(&upstream.seen()[0]);
    assert_eq!(
        told,
        format!("00-{TRACE}-{}-01", hex(&attempt.span_id)),
        "the replica's parent is the attempt"
    );
    assert!(call.start_time_unix_nano <= attempt.start_time_unix_nano);
    assert!(attempt.end_time_unix_nano <= call.end_time_unix_nano);
    assert_eq!(text(&call.attributes, "url.path").as_deref(), Some("/api/v1/service/iris/score"));
    assert_eq!(text(&attempt.attributes, "server.port").unwrap(), upstream.address.port().to_string());
    let sent = collector.look(|state| state.bytes.clone());
    assert!(
        sent.windows(4).any(|part| part == b"team") && sent.windows(12).any(|part| part == b"service.name")
    );

    // Without a caller's trace it begins here, with the digits of the request id.
    score(&gateway, 1).await;
    let spans = spans_of(&gateway, &collector, 2).await;
    let id = recorded(gateway.dir.path())[1]["RequestId"].as_str().unwrap().replace('-', "");
    let begun: Vec<_> = spans.iter().filter(|span| hex(&span.trace_id) == id).collect();
    assert_eq!(begun.len(), 2);
    let told = traceparent(&upstream.seen()[1]);
    assert!(told.starts_with(&format!("00-{id}-")), "{told}");
    assert!(begun.iter().any(|span| told.contains(&hex(&span.span_id))), "{told}");
}

fn traceparent(seen: &Seen) -> String {
    seen.header("traceparent").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_has_a_span_that_its_replica_was_told() {
    let failing = Upstream::answering(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let (collector, server) = Collector::start(Protocol::Grpc, &[]).await;
    let more = "    retry: { attempts: 3, replay: always, statuses: [503], budget: 100 }\n";
    let services = service("iris", failing.address, more);
    let telemetry = otlp(Protocol::Grpc, &server, "logs: false, metrics: false, sampling: { ratio: 0.0 }");
    let gateway = Gateway::start(&exporting(&services, &telemetry)).await;
    gateway.score("iris", Some(KEY), "[1]").await;
    let spans = spans_of(&gateway, &collector, 1).await;
    let attempts: Vec<_> = spans.iter().filter(|span| span.kind() == SpanKind::Client).collect();
    assert_eq!(attempts.len(), failing.seen().len(), "kept since it failed, whatever the ratio");
    assert!(attempts.len() > 1, "it was tried again");
    let told: Vec<_> = failing.seen().iter().map(|seen| traceparent(seen)[36..52].to_owned()).collect();
    let exported: Vec<_> = attempts.iter().map(|span| hex(&span.span_id)).collect();
    assert_eq!(told, exported);
    for (number, span) in attempts.iter().enumerate() {
        let count = text(&span.attributes, "http.request.resend_count");
        assert_eq!(count, (number > 0).then(|| number.to_string()));
        assert_eq!(text(&span.attributes, "error.type").as_deref(), Some("503"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_is_settled_and_not_sent() {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(Protocol::Http, &[]).await;
    let services = service("iris", upstream.address, "");
    let telemetry = otlp(Protocol::Http, &server, "logs: false, metrics: false, sampling: { ratio: 0.0 }");
    let gateway = Gateway::start(&exporting(&services, &telemetry)).await;
    score(&gateway, 5).await;
    assert_eq!(until_settled(&gateway, "otlp_traces", 5).await, (5.0, 0.0));
    assert_eq!(collector.requests(), 0);
}

async fn metrics_arrive(protocol: Protocol) {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(protocol, &[Play::Cut]).await;
    let services = service("iris", upstream.address, "");
    let telemetry = otlp(protocol, &server, "traces: false, logs: false, metrics_interval: 1s");
    let mut gateway = Gateway::start(&exporting(&services, &telemetry)).await;
    score(&gateway, 7).await;
    let count = || {
        collector.look(|state| match &state.metrics.get("http.server.request.duration")?.data {
            Some(Data::Histogram(histogram)) => {
                Some(histogram.data_points.iter().map(|it| it.count).sum::<u64>())
            }
            other => panic!("{other:?}"),
        })
    };
    eventually("durations of all calls", async || (count() == Some(7)).then_some(())).await;
    score(&gateway, 2).await;
    soon("the drain", gateway.drain()).await;
    assert_eq!(count(), Some(9), "the last ones are sent at the end");
    collector.look(|state| {
        for name in ["http.client.request.duration", "http.server.active_requests", "scoregate_build_info"] {
            assert!(state.metrics.contains_key(name), "{name} in {:?}", state.metrics.keys());
        }
        let Some(Data::Sum(sum)) = &state.metrics["scoregate_requests_total"].data else { panic!("no sum") };
        let requests =
            sum.data_points.iter().find(|point| text(&point.attributes, "service").unwrap() == "iris");
        assert_eq!(text(&requests.unwrap().attributes, "code").as_deref(), Some("200"));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_sent_every_so_often_and_at_the_end() {
    metrics_arrive(Protocol::Http).await;
    metrics_arrive(Protocol::Grpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_is_known_by_its_authority_and_knows_us_by_a_header() {
    let authority = Authority::new();
    let mut tls = (*authority.server("localhost", None)).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let (collector, server) = Collector::start_tls(std::sync::Arc::new(tls)).await;
    let upstream = Upstream::echo().await;
    let services = service("iris", upstream.address, "");
    let telemetry = format!(
        "spool: {{ mode: memory }}, otlp: {{ endpoint: \"https://localhost:{}\", protocol: grpc, compression: gzip, ca: \"{}\", \
         headers: {{ x-tenant: {{ file: tenant }} }}, {LOGS_ONLY} }}",
        server.address.port(),
        authority.ca().display(),
    );
    let files = [("tenant", "Bearer of-the-tenant\n")];
    let gateway = Gateway::start_with(&exporting(&services, &telemetry), &files).await;
    score(&gateway, 3).await;
    assert_eq!(until_settled(&gateway, "otlp_logs", 3).await, (3.0, 0.0));
    collector.look(|state| assert_eq!(state.headers["x-tenant"], "Bearer of-the-tenant"));
}
