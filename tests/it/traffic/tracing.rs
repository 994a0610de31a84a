//! Trace context at the door of a gateway that takes part in traces: each attempt names a span of its own, with ids that
//! follow from the request id, and the record tells of each.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use scoregate::telemetry::record::RequestId;
use scoregate::telemetry::trace::{SampleRatio, Tracing};
use serde_json::{Value, json};

use crate::harness::{
    Answer, Gateway, KEY, Mortal, Seen, Upstream, assert_record, config, eventually, prepare, score_request,
    service, soon, websocket_handshake,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A gateway that takes part in traces, of which it samples `share` of those that begin with it.
async fn tracing(services: &str, share: f64) -> Gateway {
    let (dir, certificates) = prepare(&config(services).replace("workers: 2", "workers: 1"));
    let ratio = SampleRatio::new(share).unwrap();
    Gateway::start_changed(dir, certificates, |config| config.telemetry.tracing = Some(Tracing { ratio }))
        .await
}

/// A score request with these further fields, each with its line end.
fn with(fields: &str) -> String {
    score_request("iris", Some(KEY), "[1]").replace("Content-Type", &format!("{fields}Content-Type"))
}

fn id(answer: &Answer) -> RequestId {
    RequestId::parse(answer.header("x-request-id")).unwrap()
}

/// What a replica is to be told by the span of that number of the call that got `answer`.
fn span(answer: &Answer, trace: &str, number: u32, flags: &str) -> String {
    format!("00-{trace}-{}-{flags}", id(answer).span_id(number).as_str())
}

fn values<'a>(seen: &'a Seen, name: &str) -> Vec<&'a str> {
    let fields = seen.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_trace_goes_on_with_the_attempt_as_the_calling_span() {
    let replica = Upstream::echo().await;
    let gateway = tracing(&service("iris", replica.address, ""), 0.0).await;
    for (flags, passed) in [("00", "00"), ("01", "01"), ("03", "03"), ("fd", "01")] {
        let parent = format!("{}{flags}", &PARENT[..53]);
        let fields =
            format!("Traceparent: {parent}\r\ntracestate: a=1\r\ntracestate: b=2\r\nbaggage: k=v\r\n");
        let answer = gateway.call(with(&fields)).await;
        let record = gateway.passed(&answer, 200).await;
        let expected = json!({
            "TraceId": TRACE, "ParentSpanId": "b7ad6b7169203331", "TraceFlags": passed, "Attempts": 1, "Tries": null,
        });
        assert_record(&record, &expected);
        let seen = replica.seen().pop().unwrap();
        assert_eq!(values(&seen, "traceparent"), [span(&answer, TRACE, 1, passed)]);
        assert_eq!(values(&seen, "tracestate"), ["a=1", "b=2"]);
        assert_eq!(values(&seen, "baggage"), ["k=v"]);
    }
    let mut h2 = gateway.h2().await;
    let mut request = h2.score_request("iris", KEY, "[1]");
    request.headers_mut().insert("traceparent", PARENT.parse().unwrap());
    let answer = h2.call(request).await;
    gateway.passed(&answer, 200).await;
    let seen = replica.seen().pop().unwrap();
    assert_eq!(values(&seen, "traceparent"), [span(&answer, TRACE, 1, "01")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_valid_parent_a_trace_begins_and_what_came_with_a_bad_one_ends() {
    let replica = Upstream::echo().await;
    for (share, flags) in [(1.0, "03"), (0.0, "02")] {
        let gateway = tracing(&service("iris", replica.address, ""), share).await;
        for parents in [
            String::new(),
            format!("traceparent: {}\r\n", PARENT.to_uppercase()),
            format!("traceparent: {PARENT}-more\r\n"),
            format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n"),
        ] {
            let answer = gateway.call(with(&format!("{parents}tracestate: a=1\r\nbaggage: k=v\r\n"))).await;
            let record = gateway.passed(&answer, 200).await;
            assert_record(&record, &json!({"TraceId": null, "ParentSpanId": null, "TraceFlags": null}));
            let trace = answer.header("x-request-id").replace('-', "");
            let seen = replica.seen().pop().unwrap();
            assert_eq!(values(&seen, "traceparent"), [span(&answer, &trace, 1, flags)], "{parents}");
            assert_eq!(values(&seen, "tracestate"), [""; 0], "{parents}");
            assert_eq!(values(&seen, "baggage"), ["k=v"]);
        }
    }
}

/// A service with these replicas and this `retry`.
fn retrying(replicas: &[SocketAddr], retry: &str) -> String {
    let urls: Vec<_> = replicas.iter().map(|replica| format!("http://{replica}")).collect();
    service("iris", replicas[0], &format!("    retry: {{ {retry} }}"))
        .replace(&format!("\"{}\"", urls[0]), &format!("\"{}\"", urls.join("\", \"")))
}

/// Calls until one has needed two attempts; its answer and its record.
async fn until_two_attempts(gateway: &Gateway) -> (Answer, Value) {
    for _ in 0..100 {
        let answer = gateway.call(with(&format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n"))).await;
        let record = gateway.record(&answer).await;
        if record["Attempts"] == 2 {
            return (answer, record);
        }
        assert_eq!(record.get("Tries"), None, "{record}");
    }
    panic!("no call had two attempts");
}

fn ms(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Checks when the two attempts of `record` began and how long they took; each time is cut off at a microsecond.
fn check_times(record: &Value) {
    let (first, second) = (&record["Tries"][0], &record["Tries"][1]);
    let ends = |attempt: &Value| ms(&attempt["StartMs"]) + ms(&attempt["Duration"]);
    assert!(ms(&first["StartMs"]) >= 0.0 && ends(first) <= ms(&second["StartMs"]) + 0.002, "{record}");
    assert!((ends(second) - ms(&record["Duration"])).abs() < 0.005, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attempt_has_a_span_and_a_place_in_the_record() {
    let busy = Upstream::answering(|_| b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let well = Upstream::echo().await;
    let services = retrying(&[busy.address, well.address], "replay: always, statuses: [503], budget: 100");
    let gateway = tracing(&services, 1.0).await;
    let (answer, record) = until_two_attempts(&gateway).await;
    assert_eq!(answer.status, 200);
    let [failed, answered] = [&record["Tries"][0], &record["Tries"][1]];
    assert_record(failed, &json!({"Replica": busy.address.to_string(), "StatusCode": 503, "Error": null}));
    assert_record(answered, &json!({"Replica": well.address.to_string(), "StatusCode": 200, "Error": null}));
    assert_eq!(record["Tries"].as_array().map(Vec::len), Some(2));
    check_times(&record);
    let of_call = |replica: &Upstream| {
        let mut seen = replica.seen().into_iter();
        seen.find(|seen| seen.header("x-request-id") == answer.header("x-request-id")).unwrap()
    };
    for (number, replica) in [(1, &busy), (2, &well)] {
        let seen = of_call(replica);
        assert_eq!(values(&seen, "traceparent"), [span(&answer, TRACE, number, "01")]);
        assert_eq!(values(&seen, "tracestate"), ["a=1"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_without_an_answer_says_why() {
    let (dead, closing) = (Mortal::dead(|_| async { Vec::new() }), Upstream::once("").await);
    let gateway = tracing(&retrying(&[dead.address, closing.address], "replay: never"), 1.0).await;
    let (answer, record) = until_two_attempts(&gateway).await;
    assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"));
    let [refused, cut] = [&record["Tries"][0], &record["Tries"][1]];
    let replica = |address: SocketAddr| address.to_string();
    assert_record(
        refused,
        &json!({"Replica": replica(dead.address), "StatusCode": null, "Error": "connect_failed"}),
    );
    assert_record(
        cut,
        &json!({"Replica": replica(closing.address), "StatusCode": null, "Error": "upstream_reset"}),
    );
    check_times(&record);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_called_by_the_span_of_the_call() {
    let (blue, green) = (Upstream::echo().await, Upstream::echo().await);
    let services = format!(
        "  - name: iris
    compute_type: AKS
    keys: {{ primary: {{ file: primary.key }} }}
    mirror: {{ deployment: green, percent: 50 }}
    deployments:
      - {{ name: blue, traffic: 100, replicas: [\"http://{}\"] }}
      - {{ name: green, traffic: 0, replicas: [\"http://{}\"] }}
",
        blue.address, green.address
    );
    let gateway = tracing(&services, 1.0).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(gateway.call(with(&format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n"))).await);
    }
    let copy = eventually("the copy", async || green.seen().pop()).await;
    let of_call = |answer: &&Answer| answer.header("x-request-id") == copy.header("x-request-id");
    let answer = answers.iter().find(of_call).unwrap();
    assert_eq!(values(&copy, "traceparent"), [span(answer, TRACE, 0, "01")]);
    assert_eq!(values(&copy, "tracestate"), ["a=1"]);
    let original =
        blue.seen().into_iter().find(|seen| seen.header("x-request-id") == copy.header("x-request-id"));
    assert_eq!(values(&original.unwrap(), "traceparent"), [span(answer, TRACE, 1, "01")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websockets_handshake_and_a_grpc_call_go_on_with_a_trace_as_well() {
    let replica = Upstream::echo().await;
    let gateway = tracing(&service("iris", replica.address, "    websocket: true"), 1.0).await;
    let line = format!("\r\ntraceparent: {PARENT}\r\n\r\n");
    let answer = gateway.call(websocket_handshake("iris", KEY).replace("\r\n\r\n", &line)).await;
    let seen = replica.seen().pop().unwrap();
    assert!(!seen.header("sec-websocket-key").is_empty(), "{}", seen.head);
    assert_eq!(values(&seen, "traceparent"), [span(&answer, TRACE, 1, "01")]);

    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let replica = Upstream::h2(None, move |request, mut respond| {
        tell.send(request.into_parts().0.headers).unwrap();
        let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        let ended = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        stream.send_trailers(ended).unwrap();
        std::future::ready(())
    })
    .await;
    let services = service("iris", replica.address, "    grpc: [echo.Echo]\n    hosts: [localhost]")
        .replace("name: blue", "name: blue, protocol: h2");
    let gateway = tracing(&services, 1.0).await;
    let request = Request::post("https://localhost/echo.Echo/Talk")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("traceparent", PARENT)
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
        .unwrap();
    let answer = gateway.h2().await.call(request).await;
    let seen = soon("the call", told.recv()).await.unwrap();
    assert_eq!(seen["traceparent"], span(&answer, TRACE, 1, "01"));
}
