//! Records as spans, logs and durations, read back with the generated messages.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span, status::StatusCode};
use prost::Message as _;

use super::durations::Durations;
use super::settings::{Failed, GenAi, SamplingSettings};
use super::*;
use crate::error::{EndedBy, Reason};
use crate::telemetry::Privacy;
use crate::telemetry::record::{Principal, Record, RequestUrl, Try, TryEnd};

const START: u64 = 1_795_516_132_123_456_000;

fn sampling(share: f64, failed: Failed, slower_than: Option<u64>) -> SamplingSettings {
    let ratio = SampleRatio::new(share).unwrap();
    SamplingSettings { ratio, failed, slower_than: slower_than.map(Duration::from_millis) }
}

fn line(record: &Record, privacy: Privacy) -> Vec<u8> {
    let mut line = Vec::new();
    record.encode(privacy, &mut line);
    line
}

fn spans_of(record: &Record, spans: &Spans) -> Vec<Span> {
    let line = line(record, Privacy::Standard);
    ScopeSpans::decode(&spans.translate(&Call::parse(&line).unwrap())[..]).unwrap().spans
}

fn spans(record: &Record) -> Vec<Span> {
    spans_of(record, &Spans { sampling: sampling(1.0, Failed::Kept, None), gen_ai: GenAi::LeftOut })
}

fn log(record: &Record, privacy: Privacy, gen_ai: GenAi) -> LogRecord {
    let line = line(record, privacy);
    let logs = Logs { gen_ai, ratio: SampleRatio::ALL };
    let item = logs.translate(&Call::parse(&line).unwrap());
    ScopeLogs::decode(&item[..]).unwrap().log_records.remove(0)
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => format!("{number:?}"),
        other => panic!("{other:?}"),
    }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<&str, String> {
    let read: BTreeMap<_, _> =
        pairs.iter().map(|pair| (pair.key.as_str(), text(pair.value.as_ref()))).collect();
    assert_eq!(read.len(), pairs.len(), "each key is there once");
    read
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

fn retried() -> Record {
    let attempt = |replica: &str, start, duration, end| Try {
        replica: replica.into(),
        start: Duration::from_millis(start),
        duration: Duration::from_millis(duration),
        end,
    };
    let reset = TryEnd { status: None, error: Some(Reason::UpstreamReset) };
    let refused = TryEnd { status: Some(503), error: None };
    let answered = TryEnd { status: Some(200), error: None };
    let tries = vec![
        attempt("127.0.0.1:5001", 1, 2, reset),
        attempt("[::1]:5002", 4, 1, refused),
        attempt("iris-2:5003", 6, 5, answered),
    ];
    Record { attempts: 3, tries, ..Record::sample() }
}

#[test]
fn a_call_is_a_server_span_under_its_callers_and_a_client_span_for_its_attempt() {
    let spans = spans(&Record::sample());
    let [server, client] = &spans[..] else { panic!("{spans:?}") };
    let trace_id = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
    assert_eq!((&server.trace_id[..], &client.trace_id[..]), (&trace_id[..], &trace_id[..]));
    assert_eq!(server.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(server.span_id, 0x8444_5555_5555_5555_u64.to_be_bytes());
    assert_ne!(client.span_id, server.span_id);
    assert_eq!((server.kind(), client.kind()), (SpanKind::Server, SpanKind::Client));
    assert_eq!((server.name.as_str(), client.name.as_str()), ("POST /api/v1/service/iris/score", "POST"));
    assert_eq!((server.flags, client.flags), (0x301, 0x101));
    let end = START + 12_045_000;
    assert_eq!((server.start_time_unix_nano, server.end_time_unix_nano), (START, end));
    assert_eq!((client.start_time_unix_nano, client.end_time_unix_nano), (START + 45_000, end));
    assert!(!is_error(server) && !is_error(client));
    let expected: BTreeMap<_, _> = [
        ("http.request.method", "POST"),
        ("url.scheme", "https"),
        ("url.path", "/api/v1/service/iris/score"),
        ("url.query", "code=***"),
        ("server.address", "score.example.org"),
        ("server.port", "8443"),
        ("http.route", "/api/v1/service/iris/score"),
        ("client.address", "192.0.2.7"),
        ("user_agent.original", "curl/8.0"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("http.request.body.size", "1024"),
        ("http.response.body.size", "130"),
        ("scoregate.request.id", "11111111-2222-4333-8444-555555555555"),
        ("scoregate.client_request.id", "abc"),
        ("scoregate.service", "iris"),
        ("scoregate.deployment", "blue"),
        ("scoregate.replica", "127.0.0.1:5001"),
        ("scoregate.compute_type", "AKS"),
        ("scoregate.auth.type", "key"),
        ("scoregate.key.id", "primary"),
        ("scoregate.model.status_code", "200"),
        ("scoregate.reason", "ok"),
        ("scoregate.ended_by", "upstream"),
        ("scoregate.attempts", "1"),
        ("scoregate.duration_ms", "12.045"),
        ("scoregate.queue_ms", "0.0"),
        ("scoregate.connect_ms", "0.25"),
        ("scoregate.first_byte_ms", "11.0"),
        ("scoregate.stream_ms", "1.0"),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .into();
    assert_eq!(attributes(&server.attributes), expected);
    let client = attributes(&client.attributes);
    assert_eq!((&*client["server.address"], &*client["server.port"]), ("127.0.0.1", "5001"));
    assert_eq!(client["http.response.status_code"], "200");
    assert!(!client.contains_key("http.request.resend_count") && !client.contains_key("error.type"));
}

#[test]
fn each_of_several_attempts_has_a_span_with_its_own_end() {
    let spans = spans(&retried());
    let [server, attempts @ ..] = &spans[..] else { panic!("{spans:?}") };
    let read: Vec<_> = attempts
        .iter()
        .map(|span| {
            assert_eq!(span.parent_span_id, server.span_id);
            let found = attributes(&span.attributes);
            let get = |key: &str| found.get(key).cloned().unwrap_or_default();
            let milliseconds = |time: u64| (time - START) / 1_000_000;
            let times = (milliseconds(span.start_time_unix_nano), milliseconds(span.end_time_unix_nano));
            (
                get("server.address"),
                get("http.request.resend_count"),
                get("error.type"),
                is_error(span),
                times,
            )
        })
        .collect();
    let expected = [
        ("127.0.0.1", "", "upstream_reset", true, (1, 3)),
        ("::1", "1", "503", true, (4, 5)),
        ("iris-2", "2", "", false, (6, 11)),
    ];
    let expected = expected.map(|(address, count, error, is_error, times)| {
        (address.to_owned(), count.to_owned(), error.to_owned(), is_error, times)
    });
    assert_eq!(read, expected);
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids.len(), 4);
    assert!(!is_error(server), "the call went well in the end");
}

#[test]
fn a_call_that_reached_no_replica_has_one_span_and_begins_a_trace_if_it_has_none() {
    let refused = Record {
        parent: None,
        service: None,
        replica: None,
        model_status: None,
        attempts: 0,
        first_byte: None,
        stream: None,
        status: 404,
        reason: Reason::UnknownService,
        ..Record::sample()
    };
    let spans = spans(&refused);
    let [server] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(server.trace_id, 0x1111_1111_2222_4333_8444_5555_5555_5555_u128.to_be_bytes());
    assert_eq!((server.parent_span_id.len(), server.flags), (0, 0x103));
    assert_eq!(server.name, "POST");
    let found = attributes(&server.attributes);
    assert_eq!((found["error.type"].as_str(), found.get("http.route")), ("unknown_service", None));
    assert!(!is_error(server), "the caller's mistake");
}

#[test]
fn an_error_is_a_5xx_or_an_answer_that_was_broken_off() {
    let server = |status, reason, ended_by| {
        let record = Record { status, reason, ended_by, ..Record::sample() };
        is_error(&spans(&record)[0])
    };
    assert!(server(502, Reason::ConnectFailed, EndedBy::Gateway));
    assert!(server(200, Reason::UpstreamReset, EndedBy::Upstream));
    assert!(!server(200, Reason::ClientGone, EndedBy::Client));
    assert!(!server(499, Reason::ClientGone, EndedBy::Client));
    assert!(!server(401, Reason::AuthMissing, EndedBy::Gateway));
}

#[test]
fn sampling_follows_the_caller_but_keeps_what_failed_or_was_slow() {
    let taken =
        |sampling, record: &Record| !spans_of(record, &Spans { sampling, gen_ai: GenAi::LeftOut }).is_empty();
    let none = sampling(0.0, Failed::Sampled, None);
    let own = Record { parent: None, ..Record::sample() };
    assert!(taken(none, &Record::sample()), "the caller samples");
    assert!(!taken(none, &own) && taken(sampling(1.0, Failed::Sampled, None), &own));
    let unsampled = crate::telemetry::trace::TraceParent::parse(
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    );
    let unsampled = Record { parent: unsampled, ..Record::sample() };
    assert!(!taken(sampling(1.0, Failed::Kept, None), &unsampled), "the caller does not");
    let failed = Record { reason: Reason::QueueFull, status: 503, ..own.clone() };
    assert!(!taken(none, &failed) && taken(sampling(0.0, Failed::Kept, None), &failed));
    assert!(taken(sampling(0.0, Failed::Sampled, Some(12)), &own));
    assert!(!taken(sampling(0.0, Failed::Sampled, Some(13)), &own));
}

#[test]
fn routes_and_methods_are_as_many_as_services_make() {
    let name = |method: &str, url: &'static str, service: Option<&str>| {
        let record = Record {
            method: Some(method.parse().unwrap()),
            url: RequestUrl {
                path_and_query: bytes::Bytes::from_static(url.as_bytes()),
                ..Record::sample().url
            },
            service: service.map(Into::into),
            ..Record::sample()
        };
        spans(&record)[0].name.clone()
    };
    let iris = Some("iris");
    assert_eq!(name("GET", "/score?a=b", iris), "GET /score");
    assert_eq!(name("POST", "/v1/chat/completions", iris), "POST /v1/chat/completions");
    assert_eq!(name("POST", "/v2/models/m/infer", iris), "POST /{path}");
    assert_eq!(name("GET", "/api/v1/service/iris", iris), "GET /api/v1/service/iris");
    assert_eq!(name("GET", "/api/v1/service/iris/x/y", iris), "GET /api/v1/service/iris/{path}");
    assert_eq!(name("GET", "/api/v1/service/iris2/score", iris), "GET /{path}");
    assert_eq!(name("GET", "/wp-admin", None), "GET");
    assert_eq!(name("BREW", "/score", iris), "HTTP /score");
    let record = Record { method: Some("BREW".parse().unwrap()), ..Record::sample() };
    let spans = spans(&record);
    let found = attributes(&spans[0].attributes);
    assert_eq!((&*found["http.request.method"], &*found["http.request.method_original"]), ("_OTHER", "BREW"));
}

#[test]
fn a_log_record_has_all_of_the_record_and_its_span() {
    let log = log(&Record::sample(), Privacy::Standard, GenAi::LeftOut);
    let end = START + 12_045_000;
    assert_eq!((log.time_unix_nano, log.observed_time_unix_nano), (end, end));
    assert_eq!(text(log.body.as_ref()), "POST /api/v1/service/iris/score 200");
    assert_eq!((log.severity_number, log.severity_text.as_str()), (9, "INFO"));
    assert_eq!((log.event_name.as_str(), log.flags), ("scoregate.record", 1));
    let spans = spans(&Record::sample());
    assert_eq!((&log.trace_id, &log.span_id), (&spans[0].trace_id, &spans[0].span_id));
    assert_eq!(attributes(&log.attributes), attributes(&spans[0].attributes));
}

#[test]
fn the_severity_is_by_whose_fault_it_was() {
    let severity = |status, reason| {
        let record = Record { status, reason, ended_by: EndedBy::Gateway, ..Record::sample() };
        self::log(&record, Privacy::Standard, GenAi::LeftOut).severity_text
    };
    assert_eq!(severity(200, Reason::Ok), "INFO");
    assert_eq!(severity(401, Reason::AuthMissing), "WARN");
    assert_eq!(severity(503, Reason::QueueFull), "ERROR");
    assert_eq!(severity(200, Reason::UpstreamReset), "ERROR");
}

#[test]
fn what_an_answer_says_of_its_making_is_told_only_on_request() {
    let record = Record {
        url: RequestUrl {
            path_and_query: bytes::Bytes::from_static(b"/v1/chat/completions"),
            ..Record::sample().url
        },
        ..Record::sample()
    };
    let of = |gen_ai| {
        let log = log(&record, Privacy::High, gen_ai);
        let found = attributes(&log.attributes);
        let gen_ai = found.iter().filter(|(key, _)| key.starts_with("gen_ai."));
        gen_ai.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(of(GenAi::LeftOut), [""; 0]);
    let expected = [
        "gen_ai.operation.name=chat",
        "gen_ai.response.model=org/name",
        "gen_ai.usage.input_tokens=9",
        "gen_ai.usage.output_tokens=12",
    ];
    assert_eq!(of(GenAi::Shown), expected);
}

#[test]
fn what_privacy_leaves_out_is_in_no_item() {
    let record = Record {
        principal: Principal::Subject("alice-the-caller".into()),
        user_agent: Some(http::HeaderValue::from_static("agent-of-alice")),
        url: RequestUrl {
            path_and_query: bytes::Bytes::from_static(b"/score?patient=4711"),
            ..Record::sample().url
        },
        ..Record::sample()
    };
    let items = |privacy| {
        let line = line(&record, privacy);
        let call = Call::parse(&line).unwrap();
        let spans = Spans { sampling: sampling(1.0, Failed::Kept, None), gen_ai: GenAi::Shown };
        let logs = Logs { gen_ai: GenAi::Shown, ratio: SampleRatio::ALL };
        let items = [spans.translate(&call), logs.translate(&call)].concat();
        String::from_utf8_lossy(&items).into_owned()
    };
    let shown = ["alice-the-caller", "agent-of-alice", "patient", "4711", "192.0.2.7", "abc"];
    let (standard, private) = (items(Privacy::Standard), items(Privacy::High));
    assert!(shown.iter().all(|part| standard.contains(part)), "{standard}");
    assert!(!shown.iter().any(|part| private.contains(part)), "{private}");
}

#[test]
fn a_request_is_of_one_resource_and_one_scope() {
    let resource = vec![("service.name".to_owned(), "scores".to_owned())];
    let (traces, logs, metrics) = (None, None, None);
    let settings = OtlpSettings { resource, gen_ai: GenAi::LeftOut, traces, logs, metrics };
    let line = line(&Record::sample(), Privacy::Standard);
    let spans = Spans { sampling: sampling(1.0, Failed::Kept, None), gen_ai: GenAi::LeftOut };
    let item = spans.translate(&Call::parse(&line).unwrap());
    let items = vec![item.as_slice(); 300];
    let message = Requests::new(&settings).message(items.into_iter());
    let read = ExportTraceServiceRequest::decode(&message[..]).unwrap();
    let [group] = &read.resource_spans[..] else { panic!("{read:?}") };
    let resource = attributes(&group.resource.as_ref().unwrap().attributes);
    assert_eq!(resource["service.name"], "scores");
    assert!(resource.contains_key("service.instance.id") && resource.contains_key("service.version"));
    let [scope] = &group.scope_spans[..] else { panic!("{group:?}") };
    assert_eq!((scope.scope.as_ref().unwrap().name.as_str(), scope.spans.len()), ("scoregate", 600));
    assert_eq!((scope.schema_url.as_str(), group.schema_url.as_str()), (request::SCHEMA, request::SCHEMA));
}

#[test]
fn rejected_parts_count_against_as_many_records_and_never_against_those_sampled_out() {
    let items = [vec![1], vec![], vec![1], vec![1]];
    let Outcome::Each { fates, .. } = partly(&items, 2, "") else { panic!("one outcome for all") };
    assert_eq!(fates, [Fate::Dropped, Fate::Delivered, Fate::Dropped, Fate::Delivered]);
    let Outcome::Each { fates, .. } = partly(&items, 99, "") else { panic!("one outcome for all") };
    assert_eq!(fates.iter().filter(|fate| **fate == Fate::Dropped).count(), 3);
}

#[test]
fn a_line_that_is_no_record_makes_no_item() {
    for bad in ["", "{}", "7", r#"{"Time":"t","RequestId":"r"}"#] {
        assert!(Call::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn an_activity_event_is_a_log_record_with_a_name_of_its_own() {
    let line = br#"{"eventTimestamp":"2026-11-24T10:28:52.5Z","operationName":"services/write","status":"Failed","n":7}"#;
    let item = super::log::event(line).unwrap();
    let log = ScopeLogs::decode(&item[..]).unwrap().log_records.remove(0);
    assert_eq!((log.event_name.as_str(), log.severity_text.as_str()), ("scoregate.activity", "WARN"));
    assert_eq!(
        (log.time_unix_nano, text(log.body.as_ref())),
        (1_795_516_132_500_000_000, "services/write".to_owned())
    );
    let found = attributes(&log.attributes);
    assert_eq!((&*found["scoregate.activity.status"], &*found["scoregate.activity.n"]), ("Failed", "7"));
    assert_eq!(found["scoregate.activity.operation_name"], "services/write");
    assert!(super::log::event(b"{}").is_err());
}

#[test]
fn durations_are_by_the_conventions_in_seconds() {
    let durations = Durations::new();
    for record in [Record::sample(), Record::sample(), retried()] {
        let line = line(&record, Privacy::Standard);
        durations.record(&Call::parse(&line).unwrap());
    }
    let metrics = durations.collect();
    let points = |name: &str| {
        let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
        assert_eq!(metric.unit, "s");
        let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
        histogram.data_points.clone()
    };
    let server = points("http.server.request.duration");
    let [server] = &server[..] else { panic!("{server:?}") };
    assert_eq!((server.count, server.explicit_bounds[0]), (3, 0.005));
    assert!((server.sum.unwrap() - 3.0 * 0.012_045).abs() < 1e-9);
    let found = attributes(&server.attributes);
    assert_eq!(found["http.route"], "/api/v1/service/iris/score");
    assert_eq!((&*found["url.scheme"], &*found["network.protocol.version"]), ("https", "1.1"));
    let client = points("http.client.request.duration");
    let failed = |point: &&_| -> bool {
        let point: &opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint = point;
        attributes(&point.attributes).contains_key("error.type")
    };
    assert_eq!(client.iter().filter(failed).count(), 2);
    assert_eq!(client.iter().map(|point| point.count).sum::<u64>(), 5);
}

#[test]
fn beyond_two_thousand_kinds_of_calls_they_are_counted_together() {
    let durations = Durations::new();
    for number in 0..2_100 {
        let record = Record { service: Some(format!("s{number}").into()), attempts: 0, ..Record::sample() };
        let line = line(&record, Privacy::Standard);
        durations.record(&Call::parse(&line).unwrap());
    }
    let metrics = durations.collect();
    let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!("{metrics:?}") };
    assert!(histogram.data_points.len() <= 2_001, "{}", histogram.data_points.len());
    assert_eq!(histogram.data_points.iter().map(|point| point.count).sum::<u64>(), 2_100);
}
