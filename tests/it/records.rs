//! The record at the door: all fields, one per call however it ends, nothing that must not be in it, and no record lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::harness::{
    Connection, Gateway, H2, KEY, Mortal, OTHER_KEY, TlsClient, Upstream, config, eventually, ok,
    read_request, score_request, service, soon,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// An AKS service whose requests are of no other kind than the harness's, without the port of the listener.
fn one_worker(services: &str) -> String {
    config(services).replace("workers: 2", "workers: 1")
}

fn keys(record: &Value) -> BTreeSet<&str> {
    record.as_object().unwrap().keys().map(String::as_str).collect()
}

fn ms(record: &Value, field: &str) -> f64 {
    record[field].as_f64().unwrap_or_else(|| panic!("{field} in {record}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scored_call_leaves_every_field_over_both_protocols() {
    let upstream = Upstream::answering(|_| ok(b"[0, 2]")).await;
    let gateway = Gateway::start(&one_worker(&service("iris", upstream.address, ""))).await;
    let path = "/api/v1/service/iris/score?verbose=1&code=s3cret";
    let mut answers = Vec::new();
    let mut h1 = gateway.connect().await;
    for _ in 0..2 {
        h1.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost:8443\r\nAuthorization: Bearer {KEY}\r\nUser-Agent: it/1\r\n\
             X-Ms-Client-Request-Id: mine-1\r\nTraceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n\
             Content-Length: 4\r\n\r\n[[]]"
        ))
        .await;
        answers.push(h1.answer().await);
    }
    let client = TlsClient::trusting(&[gateway.ca()]).alpn("h2");
    let stream = client.connect(gateway.address, "localhost").await.unwrap();
    let mut h2 = H2::over(stream, "localhost:8443").await;
    let request = h2
        .request("POST", path)
        .header("authorization", format!("Bearer {OTHER_KEY}"))
        .header("user-agent", "it/1")
        .header("x-ms-client-request-id", "mine-1")
        .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
        .body(Bytes::from_static(b"[[]]").into())
        .unwrap();
    answers.push(h2.call(request).await);

    let records = gateway.records(3).await;
    for (number, (record, answer)) in records.iter().zip(&answers).enumerate() {
        assert_eq!(answer.status, 200);
        let (protocol, key) = if number < 2 { ("HTTP/1.1", "primary") } else { ("HTTP/2", "secondary") };
        for (field, expected) in [
            ("HTTPMethod", Value::from("POST")),
            ("UserAgent", "it/1".into()),
            ("ComputeType", "AKS".into()),
            ("RequestUrl", "https://localhost:8443/api/v1/service/iris/score?verbose=1&code=***".into()),
            ("StatusCode", 200.into()),
            ("RequestId", answer.header("x-ms-request-id").into()),
            ("Service", "iris".into()),
            ("Deployment", "blue".into()),
            ("Replica", upstream.address.to_string().into()),
            ("AuthType", "key".into()),
            ("KeyId", key.into()),
            ("ModelStatusCode", 200.into()),
            ("Reason", "ok".into()),
            ("EndedBy", "upstream".into()),
            ("Attempts", 1.into()),
            ("RequestBytes", 4.into()),
            ("ResponseBytes", 6.into()),
            ("ClientRequestId", "mine-1".into()),
            ("TraceId", TRACE.into()),
            ("ParentSpanId", "b7ad6b7169203331".into()),
            ("TraceFlags", "01".into()),
            ("ClientAddress", "127.0.0.1".into()),
            ("Protocol", protocol.into()),
        ] {
            assert_eq!(record[field], expected, "{field} in {record}");
        }
        let time = record["Time"].as_str().unwrap();
        let format = &time::format_description::well_known::Rfc3339;
        let age = time::OffsetDateTime::now_utc() - time::OffsetDateTime::parse(time, format).unwrap();
        assert!((0.0..120.0).contains(&age.as_seconds_f64()), "{time}");
        assert!(time.ends_with('Z') && time.len() == "2026-11-24T10:28:52.123456Z".len(), "{time}");
        // Only the first call had to connect; the others found its connection in the pool.
        let connect = (number == 0).then(|| ms(record, "ConnectMs"));
        assert_eq!(record.get("ConnectMs").is_some(), number == 0, "{record}");
        let parts = [ms(record, "QueueMs"), ms(record, "FirstByteMs"), ms(record, "StreamMs")];
        assert!(parts.iter().all(|part| *part >= 0.0), "{record}");
        assert!(connect.unwrap_or(0.0) <= parts[1], "the attempt begins with the connection: {record}");
        assert!(ms(record, "Duration") > 0.0 && parts[1] > 0.0, "{record}");
        // Each is cut off at a microsecond.
        assert!(parts.iter().sum::<f64>() <= ms(record, "Duration") + 0.01, "{record}");
    }
    let times = ["QueueMs", "ConnectMs", "FirstByteMs", "StreamMs"];
    assert_eq!(keys(&records[0]).len(), 25 + times.len(), "{}", records[0]);
}

/// Service, key, body bytes; status, reason, who ended it.
type Answered = (&'static str, Option<&'static str>, usize, u16, &'static str, &'static str);

/// Services for every way in which a call can end.
struct Ways {
    gateway: Gateway,
    held: Upstream,
    /// A permit lets `short` break off.
    cuts: Arc<Semaphore>,
    _upstreams: Vec<Upstream>,
    _nobody: Mortal,
}

impl Ways {
    async fn start() -> Self {
        let echo = Upstream::echo().await;
        let (held, _) = Upstream::held().await;
        let error = Upstream::answering(|_| {
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops".to_vec()
        })
        .await;
        let (short, cuts) =
            Upstream::cut("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nnot a thousand").await;
        let noise = Upstream::once("this is no HTTP\r\n\r\n").await;
        let endless = Upstream::serving(|mut tcp, connection, _log| async move {
            let _ = read_request(&mut tcp, &mut Vec::new(), connection).await;
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome").await;
            let _ = read_request(&mut tcp, &mut Vec::new(), connection).await;
        })
        .await;
        // Its port stays taken: another test's server must not answer there.
        let nobody = Mortal::dead(|_| async { Vec::new() });
        let services = [
            service("echo", echo.address, "    limits: { body_bytes: 1000 }"),
            service("held", held.address, ""),
            service("slow", held.address, "    limits: { scoring_timeout: 100ms }"),
            service("error", error.address, ""),
            service("short", short.address, ""),
            service("noise", noise.address, ""),
            service("endless", endless.address, ""),
            service("nobody", nobody.address, ""),
        ];
        let gateway = Gateway::start(&config(&services.concat())).await;
        Self { gateway, held, cuts, _upstreams: vec![echo, error, short, noise, endless], _nobody: nobody }
    }

    /// Every way that ends with an answer.
    const ANSWERED: [Answered; 9] = [
        ("echo", Some(KEY), 10, 200, "ok", "upstream"),
        ("echo", None, 10, 401, "auth_missing", "gateway"),
        ("echo", Some("wrong"), 10, 401, "auth_invalid", "gateway"),
        ("echo", Some(KEY), 1001, 413, "body_too_large", "gateway"),
        ("unknown", Some(KEY), 10, 404, "unknown_service", "gateway"),
        ("error", Some(KEY), 10, 502, "model_error", "upstream"),
        ("slow", Some(KEY), 10, 504, "upstream_timeout", "gateway"),
        ("noise", Some(KEY), 10, 502, "upstream_protocol", "upstream"),
        ("nobody", Some(KEY), 10, 502, "connect_failed", "upstream"),
    ];
}

/// The one record beyond the `before` that were there.
async fn next(gateway: &Gateway, before: usize) -> Value {
    let mut records = gateway.records(before + 1).await;
    assert_eq!(records.len(), before + 1, "{records:?}");
    records.pop().unwrap()
}

fn assert_ended(record: &Value, status: u16, reason: &str, by: &str) {
    let ended = (&record["StatusCode"], &record["Reason"], &record["EndedBy"]);
    assert_eq!(ended, (&status.into(), &reason.into(), &by.into()), "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_leaves_one_record_over_both_protocols() {
    let ways = Ways::start().await;
    let gateway = &ways.gateway;
    let mut count = 0;
    for (service, key, bytes, status, reason, by) in Ways::ANSWERED {
        let body = "x".repeat(bytes);
        let h1 = gateway.score(service, key, &body).await;
        let record = next(gateway, count).await;
        assert_eq!(h1.status, status, "{service}: {}", h1.text());
        assert_ended(&record, status, reason, by);
        let own = !["ok", "model_error"].contains(&reason);
        assert_eq!(h1.reason(), if own { reason } else { "" }, "{service}");
        assert_eq!(record["RequestId"], h1.header("x-ms-request-id"));

        let mut h2 = gateway.h2().await;
        let mut request = h2.score_request(service, key.unwrap_or("-"), "");
        if key.is_none() {
            request.headers_mut().clear();
        }
        *request.body_mut() = Bytes::from(body).into();
        assert_eq!(h2.call(request).await.status, status, "{service} over h2");
        assert_ended(&next(gateway, count + 1).await, status, reason, by);
        count += 2;
    }
    // A head that is none.
    let answer = gateway.call("GET /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 400);
    // It never became a call: the next record is that of the next call.
    let served = gateway.score("echo", Some(KEY), "1").await;
    assert_eq!(next(gateway, count).await["RequestId"], served.header("x-request-id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_or_within_its_answer_leaves_one_record() {
    let ways = Ways::start().await;
    let gateway = &ways.gateway;
    let mut h1 = gateway.connect().await;
    h1.send(score_request("held", Some(KEY), "1")).await;
    ways.held.until_seen(1).await;
    drop(h1);
    assert_ended(&next(gateway, 0).await, 499, "client_gone", "client");

    let mut h2 = gateway.h2().await;
    let request = h2.score_request("held", KEY, "1");
    let mut leaving = h2.clone();
    let call = tokio::spawn(async move { leaving.start(request).await.map(drop) });
    ways.held.until_seen(2).await;
    call.abort();
    assert_ended(&next(gateway, 1).await, 499, "client_gone", "client");

    let mut h1 = gateway.connect().await;
    h1.send(score_request("endless", Some(KEY), "1")).await;
    assert!(h1.head().await.unwrap().starts_with("HTTP/1.1 200"));
    drop(h1);
    let record = next(gateway, 2).await;
    assert_ended(&record, 200, "client_gone", "client");
    assert_eq!(record["ModelStatusCode"], 200);

    // The h2 connection goes on when one of its streams is given up.
    let answer = h2.start(h2.score_request("endless", KEY, "1")).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    assert_ended(&next(gateway, 3).await, 200, "client_gone", "client");
    assert_eq!(h2.score("echo", KEY, "1").await.status, 200);
    assert_ended(&next(gateway, 4).await, 200, "ok", "upstream");
    gateway.until_metric(r#"scoregate_requests_in_flight{service="held"}"#, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_the_replica_breaks_off_leaves_one_record() {
    let ways = Ways::start().await;
    let gateway = &ways.gateway;
    let mut h1 = gateway.connect().await;
    h1.send(score_request("short", Some(KEY), "1")).await;
    assert_eq!(h1.answer_to_head().await.status, 200);
    ways.cuts.add_permits(1);
    assert!(h1.rest().await.len() < 1000, "a cut answer looks whole");
    let record = next(gateway, 0).await;
    assert_ended(&record, 200, "upstream_reset", "upstream");

    let mut h2 = gateway.h2().await;
    let answer = h2.start(h2.score_request("short", KEY, "1")).await.unwrap();
    ways.cuts.add_permits(1);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await;
    assert!(body.is_err(), "a cut answer looks whole");
    assert_ended(&next(gateway, 1).await, 200, "upstream_reset", "upstream");
}

/// Requests whose client takes less of the answer than there is, beside others on the same connection.
async fn h2_with_window(gateway: &Gateway, window: u32) -> h2::client::SendRequest<Bytes> {
    let client = TlsClient::trusting(&[gateway.ca()]).alpn("h2");
    let stream = client.connect(gateway.address, "localhost").await.unwrap();
    let mut builder = h2::client::Builder::new();
    let handshake = builder.initial_window_size(window).handshake(stream);
    let (requests, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    requests
}

fn h2_request(service: &str) -> Request<()> {
    Request::post(format!("https://localhost/api/v1/service/{service}/score"))
        .header("authorization", format!("Bearer {KEY}"))
        .body(())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_h2_stream_without_window_ends_as_stalled_and_its_neighbours_go_on() {
    let large = Upstream::answering(|_| ok(&vec![b'x'; 300_000])).await;
    let small = Upstream::answering(|_| ok(b"small")).await;
    let patience = "    limits: { response_write_timeout: 1s }";
    let services = service("large", large.address, patience) + &service("small", small.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    let mut requests = h2_with_window(&gateway, 1000).await;
    let send = |requests: &mut h2::client::SendRequest<Bytes>, service: &str| {
        requests.send_request(h2_request(service), true).unwrap().0
    };
    let (stalled, read) = (send(&mut requests, "large"), send(&mut requests, "large"));
    let mut stalled = stalled.await.unwrap().into_body();
    let mut read = read.await.unwrap().into_body();
    // One of the two is read as it comes, though slower than the other one's patience.
    let mut taken = 0;
    while let Some(data) = read.data().await {
        let data = data.unwrap();
        taken += data.len();
        read.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(taken, 300_000);
    assert_ended(&next(&gateway, 0).await, 200, "ok", "upstream");

    // The other one is reset after what its window held.
    let mut taken = 0;
    let error = loop {
        match soon("the reset", stalled.data()).await {
            Some(Ok(data)) => taken += data.len(),
            Some(Err(error)) => break error,
            None => panic!("the answer ended well"),
        }
    };
    assert!(error.is_reset() && error.is_remote(), "{error}");
    assert!(taken <= 1000);
    assert_ended(&next(&gateway, 1).await, 200, "client_stalled", "gateway");
    gateway.until_metric(r#"scoregate_requests_in_flight{service="large"}"#, 0.0).await;

    let mut answer = send(&mut requests, "small").await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "small");
    assert_ended(&next(&gateway, 2).await, 200, "ok", "upstream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_h2_client_that_opens_no_window_at_all_stalls_the_smallest_answer() {
    let small = Upstream::answering(|_| ok(b"small")).await;
    let patience = "    limits: { response_write_timeout: 200ms }";
    let gateway = Gateway::start(&config(&service("small", small.address, patience))).await;
    let mut requests = h2_with_window(&gateway, 0).await;
    let answer = requests.send_request(h2_request("small"), true).unwrap().0.await.unwrap();
    let mut body = answer.into_body();
    assert!(soon("the reset", body.data()).await.unwrap().is_err());
    assert_ended(&next(&gateway, 0).await, 200, "client_stalled", "gateway");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_h2_answer_of_which_only_a_part_has_room_is_no_whole_one() {
    let small = Upstream::answering(|_| ok(b"small")).await;
    let patience = "    limits: { response_write_timeout: 200ms }";
    let gateway = Gateway::start(&config(&service("small", small.address, patience))).await;
    let mut requests = h2_with_window(&gateway, 4).await;
    let answer = requests.send_request(h2_request("small"), true).unwrap().0.await.unwrap();
    let mut body = answer.into_body();
    assert_eq!(soon("the part", body.data()).await.unwrap().unwrap(), "smal");
    assert!(soon("the reset", body.data()).await.unwrap().is_err());
    assert_ended(&next(&gateway, 0).await, 200, "client_stalled", "gateway");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "waits for listener::h2's GOODBYE of 30 s"]
async fn an_h2_connection_with_answers_that_nobody_takes_ends_after_its_rest() {
    const CALLS: u32 = 100;
    // All within the window of its stream, and together more than the sockets hold.
    let large = Upstream::answering(|_| ok(&[b'x'; 60_000])).await;
    let config = config(&service("large", large.address, ""))
        .replace("name: public", "name: public\n    idle_timeout: 1s");
    let gateway = Gateway::start(&config).await;
    let mut frames = gateway.frames().await;
    frames.widen().await;
    for call in 0..CALLS {
        frames.score(2 * call + 1, "large", KEY).await;
    }
    for record in gateway.exactly(CALLS as usize).await {
        assert_ended(&record, 200, "ok", "upstream");
    }
    let open = r#"scoregate_connections_open{listener="public"}"#;
    assert_eq!(gateway.metric(open).await, 1.0);
    for _ in 0..4 {
        if gateway.metric(open).await > 0.0 {
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        }
    }
    assert_eq!(gateway.metric(open).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "waits twice for listener::h2's PING of 20 s"]
async fn an_h2_client_that_answers_no_ping_is_gone_and_one_that_waits_is_not() {
    let (upstream, gate) = Upstream::held().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let mut waiting = gateway.h2().await;
    let waiting = tokio::spawn(async move { waiting.score("iris", KEY, "waits").await });
    upstream.until_seen(1).await;
    let mut vanished = gateway.frames().await;
    vanished.score(1, "iris", KEY).await;
    upstream.until_seen(2).await;
    for _ in 0..6 {
        if gateway.metric(r#"scoregate_requests_in_flight{service="iris"}"#).await > 1.0 {
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        }
    }
    assert_ended(&next(&gateway, 0).await, 499, "client_gone", "client");
    // The other one's pings have been answered.
    gate.add_permits(2);
    assert_eq!(waiting.await.unwrap().text(), "waits");
    assert_ended(&next(&gateway, 1).await, 200, "ok", "upstream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn high_privacy_leaves_out_all_that_tells_the_caller() {
    let upstream = Upstream::echo().await;
    let config =
        config(&service("iris", upstream.address, "")).replace("telemetry: {", "telemetry: { privacy: high,");
    let gateway = Gateway::start(&config).await;
    let request = score_request("iris", Some(KEY), "1")
        .replace("/score ", "/score?patient=4711 ")
        .replace("Host:", "User-Agent: telling/1\r\nX-Ms-Client-Request-Id: telling-2\r\nHost:");
    assert_eq!(gateway.call(request).await.status, 200);
    let record = next(&gateway, 0).await;
    assert_ended(&record, 200, "ok", "upstream");
    assert_eq!((&record["UserAgent"], &record["ClientAddress"]), (&Value::Null, &Value::Null));
    assert_eq!(record["RequestUrl"], "https://localhost/api/v1/service/iris/score");
    let text = record.to_string();
    for telling in ["4711", "telling", "127.0.0.1\""] {
        assert!(!text.contains(telling), "{telling} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_write_stays_within_one_line_of_json() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let agents: [&[u8]; 6] = [
        b"a\tb\"c\\n{\"Reason\":\"ok\"}",
        "line\u{2028}separator\u{0085}next".as_bytes(),
        b"\xff\xfe not UTF-8 \xc3",
        b"esc \x1b[31mred",
        b"nul \x00 end",
        &[b'A'; 30_000],
    ];
    let targets = ["?a=%0d%0a{\"Reason\":\"ok\"}", "?a=\"}", "?a=%1b[31m", "?q=%00"];
    let mut served = Vec::new();
    for agent in agents {
        for target in targets {
            let head = format!(
                "GET /api/v1/service/iris/score{target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nUser-Agent: "
            );
            let mut connection = gateway.connect().await;
            connection.send([head.as_bytes(), agent, b"\r\n\r\n"].concat()).await;
            let answer = connection.answer().await;
            assert!([200, 400].contains(&answer.status), "{}", answer.status);
            // What is refused as malformed may have been no call at all.
            if answer.status == 200 {
                served.push(answer.header("x-request-id").to_owned());
            }
        }
    }
    // Read once: what was refused leaves records too, which may still be on their way.
    let raw = eventually("the records of what was served", async || {
        let raw = std::fs::read(gateway.path("records.jsonl")).unwrap_or_default();
        let text = String::from_utf8_lossy(&raw);
        (raw.ends_with(b"\n") && served.iter().all(|id| text.contains(id))).then_some(raw)
    })
    .await;
    let lines = raw.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    for id in &served {
        assert_eq!(records.iter().filter(|record| record["RequestId"] == **id).count(), 1, "{id}");
    }
    let controls = raw.iter().filter(|byte| byte.is_ascii_control() && **byte != b'\n');
    assert_eq!(controls.count(), 0);
    let text = String::from_utf8(raw).expect("records are UTF-8");
    assert!(!text.contains(['\u{2028}', '\u{0085}']), "a line end for some readers");
    assert!(text.lines().all(|line| line.len() < 20_000), "a length without a cap");
    let served = records.iter().filter(|record| record["StatusCode"] == 200);
    assert!(served.clone().count() > 0);
    assert!(served.clone().any(|record| record["UserAgent"] == "a\tb\"c\\n{\"Reason\":\"ok\"}"));
}

/// The values of all series of a family, added up.
fn sum(page: &str, family: &str) -> f64 {
    let series = page.lines().filter(|line| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_and_metrics_agree_after_two_hundred_mixed_calls_at_once() {
    let ways = Ways::start().await;
    let gateway = &ways.gateway;
    let clients: Vec<_> = (0..10)
        .map(|number| {
            let (address, ca) = (gateway.address, gateway.ca().to_owned());
            tokio::spawn(async move { Caller { address, ca }.mixed_calls(number).await })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let page = eventually("rest", async || {
        let (_, page) = gateway.observe("/metrics").await;
        let at_rest = sum(&page, "scoregate_requests_in_flight") == 0.0
            && sum(&page, "scoregate_records_queued") == 0.0
            && sum(&page, "scoregate_records_accepted_total") == 200.0;
        at_rest.then_some(page)
    })
    .await;
    assert_eq!(sum(&page, "scoregate_requests_total"), 200.0);
    assert_eq!(sum(&page, "scoregate_request_duration_seconds_count"), 200.0);
    let outcome = |outcome| sum(&page, &format!("scoregate_records_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((outcome("written"), outcome("dropped")), (200.0, 0.0));
    let records = gateway.records(200).await;
    assert_eq!(records.len(), 200);
    let ids: BTreeSet<_> = records.iter().map(|record| record["RequestId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 200);
    for reason in ["ok", "auth_invalid", "unknown_service", "model_error", "client_gone"] {
        let counted: f64 = page
            .lines()
            .filter(|line| line.starts_with("scoregate_requests_total{"))
            .filter(|line| line.contains(&format!("reason=\"{reason}\"")))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum();
        let recorded = records.iter().filter(|record| record["Reason"] == reason).count();
        assert!(recorded > 0, "no call ended by {reason}");
        assert_eq!(counted, recorded as f64, "{reason}");
    }
}

/// One of several clients at once.
struct Caller {
    address: SocketAddr,
    ca: PathBuf,
}

impl Caller {
    /// Twenty calls over changing connections.
    async fn mixed_calls(&self, client: usize) {
        let mut h2 = H2::connect(self.address, "localhost", &self.ca).await;
        for number in 0..20 {
            match (client + number) % 5 {
                0 => assert_eq!(h2.score("echo", KEY, "1").await.status, 200),
                1 => assert_eq!(self.status("echo", "wrong").await, 401),
                2 => assert_eq!(self.status("unknown", KEY).await, 404),
                3 => assert_eq!(h2.score("error", KEY, "1").await.status, 502),
                // Leaves with the head of its answer.
                _ => drop(self.begin("endless", KEY).await.head().await.unwrap()),
            }
        }
    }

    async fn begin(&self, service: &str, key: &str) -> Connection {
        let mut connection = Connection::tls(self.address, "localhost", &self.ca).await;
        connection.send(score_request(service, Some(key), "1")).await;
        connection
    }

    async fn status(&self, service: &str, key: &str) -> u16 {
        self.begin(service, key).await.answer().await.status
    }
}
