//! Admission at the door: so many calls at once at each replica, the rest in a fair queue, and refusals in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use scoregate::control::Outcome;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::harness::{
    Connection, Gateway, KEY, Mortal, OTHER_KEY, Upstream, assert_record, config, in_time, ok, read_request,
    score_request, service, service_of, with_plain_listener,
};

const WAITING: &str = r#"scoregate_admission_waiting{service="iris"}"#;
const BUSY: &str = r#"scoregate_admission_busy{service="iris"}"#;
const SLOTS: &str = r#"scoregate_admission_slots{service="iris"}"#;
const RATIO: &str = r#"scoregate_utilisation_ratio{service="iris"}"#;

/// A gateway before a replica that answers one call for each permit of the gate.
async fn held(limits: &str) -> (Gateway, Upstream, Arc<Semaphore>) {
    let (upstream, gate) = Upstream::held().await;
    let limits = format!("    limits: {{ {limits} }}");
    let gateway = Gateway::start(&config(&service("iris", upstream.address, &limits))).await;
    (gateway, upstream, gate)
}

/// Calls and waits until it is at the replica.
async fn begin(gateway: &Gateway, upstream: &Upstream, body: &str) -> Connection {
    let before = upstream.seen().len();
    let connection = call(gateway, KEY, body).await;
    upstream.until_seen(before + 1).await;
    connection
}

/// Calls and waits until the call is `place`th in the queue.
async fn line_up(gateway: &Gateway, key: &str, body: &str, place: usize) -> Connection {
    let connection = call(gateway, key, body).await;
    gateway.until_metric(WAITING, place as f64).await;
    connection
}

async fn call(gateway: &Gateway, key: &str, body: &str) -> Connection {
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(key), body)).await;
    connection
}

fn bodies(upstream: &Upstream) -> Vec<String> {
    upstream.seen().into_iter().map(|seen| String::from_utf8(seen.body).unwrap()).collect()
}

/// Nothing is taken and nobody waits.
async fn at_rest(gateway: &Gateway) {
    gateway.until_metric(BUSY, 0.0).await;
    gateway.until_metric(WAITING, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_replica_ever_has_more_calls_than_the_limit_and_all_are_answered() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let upstream = Upstream::serving(move |mut tcp, connection, _| {
        let (now, most) = counts.clone();
        async move {
            let mut buffer = Vec::new();
            while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                now.fetch_sub(1, SeqCst);
                tcp.write_all(&ok(&seen.body)).await.unwrap();
            }
        }
    })
    .await;
    let limits = "    limits: { concurrent_requests_per_replica: 3, queue_wait: 60s }";
    let gateway = Gateway::start(&config(&service("iris", upstream.address, limits))).await;
    let clients = (0..24).map(async |number| {
        let mut connection = gateway.connect().await;
        for _ in 0..10 {
            let key = if number % 2 == 0 { KEY } else { OTHER_KEY };
            connection.send(score_request("iris", Some(key), "{}")).await;
            assert_eq!(connection.answer().await.status, 200);
        }
    });
    in_time("all calls are answered", futures_util::future::join_all(clients)).await;
    assert_eq!(most.load(SeqCst), 3, "the limit, and all of it");
    at_rest(&gateway).await;
    assert_eq!(gateway.exactly(240).await.len(), 240);
}

/// With Azure's default of one call per replica, a place may be that of a replica which has just died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_place_was_a_dead_replicas_waits_for_another_and_is_answered() {
    let upstream = Upstream::serving(|mut tcp, connection, _| async move {
        let mut buffer = Vec::new();
        while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
            tcp.write_all(&ok(&seen.body)).await.unwrap();
        }
    })
    .await;
    let dead = Mortal::dead(|_| async { Vec::new() });
    let alive = format!("\"http://{}\"", upstream.address);
    // Not ejected, so that its place stays: the worst of the time before anybody knows.
    let both = format!("{alive}, \"http://{}\"", dead.address);
    let limits = "    limits: { concurrent_requests_per_replica: 1, queue_wait: 60s }";
    let services = service("iris", upstream.address, limits).replace(&alive, &both);
    let services = services.replace("replicas:", "ejection: off, replicas:");
    assert!(services.contains(&both) && services.contains("ejection: off"), "{services}");
    let gateway = Gateway::start(&config(&services)).await;
    let clients = (0..12).map(async |_| {
        let mut connection = gateway.connect().await;
        for _ in 0..5 {
            connection.send(score_request("iris", Some(KEY), "{}")).await;
            assert_eq!(connection.answer().await.status, 200);
        }
    });
    in_time("all calls are answered", futures_util::future::join_all(clients)).await;
    let records = gateway.exactly(60).await;
    assert!(records.iter().any(|record| record["Attempts"] == 2), "the dead one was tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_callers_calls_are_served_in_their_order_and_callers_take_turns() {
    let (gateway, upstream, gate) = held("concurrent_requests_per_replica: 1, queue_wait: 60s").await;
    let mut calls = vec![begin(&gateway, &upstream, "first").await];
    for number in 1..=5 {
        calls.push(line_up(&gateway, KEY, &format!("k{number}"), number).await);
    }
    for number in 1..=2 {
        calls.push(line_up(&gateway, OTHER_KEY, &format!("o{number}"), 5 + number).await);
    }
    gate.add_permits(calls.len());
    for call in &mut calls {
        assert_eq!(call.answer().await.status, 200);
    }
    assert_eq!(bodies(&upstream), ["first", "k1", "o1", "k2", "o2", "k3", "k4", "k5"]);
    let records = gateway.exactly(8).await;
    for record in records.iter().filter(|record| record["RequestBytes"] == 2) {
        assert!(record["QueueMs"].as_f64() > Some(0.0), "{record}");
    }
    at_rest(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_full_of_one_caller_still_has_room_for_another() {
    let limits = "concurrent_requests_per_replica: 1, queue_wait: 60s, queue_length: 3";
    let (gateway, upstream, gate) = held(limits).await;
    let mut first = begin(&gateway, &upstream, "first").await;
    let mut greedy = vec![];
    for number in 1..=3 {
        greedy.push(line_up(&gateway, KEY, &format!("k{number}"), number).await);
    }
    let more = gateway.score("iris", Some(KEY), "k4").await;
    let record = gateway.refused(&more, 503, "queue_full").await;
    assert_record(&record, &json!({"KeyId": "primary", "Attempts": 0}));
    assert!(record["QueueMs"].is_number(), "{record}");

    let mut modest = call(&gateway, OTHER_KEY, "o1").await;
    let displaced = greedy[2].answer().await;
    let record = gateway.refused(&displaced, 503, "queue_full").await;
    assert!(record["QueueMs"].as_f64() > Some(0.0), "{record}");
    gate.add_permits(4);
    greedy.truncate(2);
    for call in greedy.iter_mut().chain([&mut first, &mut modest]) {
        assert_eq!(call.answer().await.status, 200);
    }
    assert_eq!(bodies(&upstream), ["first", "k1", "o1", "k2"]);
    at_rest(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_managed_service_takes_in_twice_its_places_and_says_what_was_too_much() {
    let (upstream, gate) = Upstream::held().await;
    let limits = "    limits: { concurrent_requests_per_replica: 2, queue_wait: 60s }";
    let gateway = Gateway::start(&config(&service_of("Managed key", "iris", upstream.address, limits))).await;
    let mut calls = vec![];
    for number in 0..2 {
        calls.push(begin(&gateway, &upstream, &format!("at the model {number}")).await);
    }
    for place in 1..=2 {
        calls.push(line_up(&gateway, KEY, "waits", place).await);
    }
    let refused = gateway.score("iris", Some(KEY), "one more").await;
    gateway.refused(&refused, 429, "queue_full").await;
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let body: Value = serde_json::from_slice(&refused.body).unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("2 at once each (limits.concurrent_requests_per_replica)"), "{message}");
    gate.add_permits(4);
    for call in &mut calls {
        assert_eq!(call.answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_the_queue_leaves_nothing_but_its_record() {
    let (gateway, upstream, gate) = held("concurrent_requests_per_replica: 1, queue_wait: 60s").await;
    let mut first = begin(&gateway, &upstream, "first").await;
    let gone = line_up(&gateway, KEY, "gone", 1).await;
    let mut h2 = gateway.h2_streams().await;
    let request = Request::post("https://localhost/api/v1/service/iris/score")
        .header("authorization", format!("Bearer {KEY}"))
        .body(())
        .unwrap();
    let (_, mut stream) = h2.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(b"reset"), true).unwrap();
    gateway.until_metric(WAITING, 2.0).await;
    let mut last = line_up(&gateway, KEY, "last", 3).await;
    drop(gone);
    stream.send_reset(h2::Reason::CANCEL);
    gateway.until_metric(WAITING, 1.0).await;
    for record in gateway.records(2).await {
        assert_record(
            &record,
            &json!({"Reason": "client_gone", "EndedBy": "client", "StatusCode": 499, "Attempts": 0}),
        );
        assert!(record["QueueMs"].as_f64() > Some(0.0), "{record}");
    }
    gate.add_permits(2);
    assert_eq!(first.answer().await.status, 200);
    assert_eq!(last.answer().await.status, 200);
    assert_eq!(bodies(&upstream), ["first", "last"]);
    at_rest(&gateway).await;
    gateway.exactly(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_lets_in_who_waits_and_cuts_nobody_off() {
    let (upstream, gate) = Upstream::held().await;
    let (second, other_gate) = Upstream::held().await;
    let with = |limit: u32, replicas: &str| {
        config(&format!(
            "  - name: iris\n    compute_type: AKS\n    keys: {{ primary: {{ file: primary.key }} }}\n    \
             limits: {{ concurrent_requests_per_replica: {limit}, queue_wait: 60s }}\n    \
             deployments: [ {{ name: blue, replicas: [{replicas}] }} ]\n"
        ))
    };
    let one = format!("\"http://{}\"", upstream.address);
    let both = format!("{one}, \"http://{}\"", second.address);
    let gateway = Gateway::start(&with(1, &one)).await;
    let mut calls = vec![begin(&gateway, &upstream, "first").await];
    for place in 1..=4 {
        calls.push(line_up(&gateway, KEY, "waits", place).await);
    }

    let reload = async |config: String| {
        gateway.replace("scoregate.yaml", &config);
        assert!(!matches!(gateway.reload().await, Outcome::Refused(_)));
    };
    reload(with(3, &one)).await;
    upstream.until_seen(3).await;
    gateway.until_metric(WAITING, 2.0).await;
    assert_eq!(gateway.metric(BUSY).await, 3.0);

    reload(with(1, &one)).await;
    gateway.until_metric(SLOTS, 1.0).await;
    assert_eq!((gateway.metric(BUSY).await, gateway.metric(WAITING).await), (3.0, 2.0));

    // Two of the three over the limit of now end: their places are gone.
    gate.add_permits(2);
    gateway.until_metric(BUSY, 1.0).await;
    assert_eq!((upstream.seen().len(), gateway.metric(WAITING).await), (3, 2.0));

    reload(with(1, &both)).await;
    second.until_seen(1).await;
    gateway.until_metric(WAITING, 1.0).await;
    gate.add_permits(10);
    other_gate.add_permits(10);
    for call in &mut calls {
        assert_eq!(call.answer().await.status, 200);
    }
    at_rest(&gateway).await;
    gateway.exactly(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn utilisation_is_shown_where_there_is_a_limit() {
    let (upstream, gate) = Upstream::held().await;
    let limits = "    limits: { concurrent_requests_per_replica: 2, queue_wait: 60s }";
    let services = service("iris", upstream.address, limits) + &service("rose", upstream.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    assert_eq!(gateway.metric(SLOTS).await, 2.0);
    assert_eq!(gateway.metric(RATIO).await, 0.0);
    let mut calls = vec![begin(&gateway, &upstream, "1").await, begin(&gateway, &upstream, "2").await];
    calls.push(line_up(&gateway, KEY, "3", 1).await);
    assert_eq!(gateway.metric(RATIO).await, 1.5, "busy and waiting by slots");
    let (_, page) = gateway.observe("/metrics").await;
    assert!(!page.contains(r#"scoregate_utilisation_ratio{service="rose"}"#), "it has no limit");
    gate.add_permits(3);
    for call in &mut calls {
        assert_eq!(call.answer().await.status, 200);
    }
    at_rest(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_has_not_begun_holds_no_place() {
    let upstream = Upstream::echo().await;
    let limits = "    limits: { concurrent_requests_per_replica: 1, queue_wait: 60s }";
    let gateway = Gateway::start(&config(&service("iris", upstream.address, limits))).await;
    let whole = score_request("iris", Some(KEY), "a slow body");
    let (head, body) = whole.split_at(whole.len() - "a slow body".len());
    let mut slow = gateway.connect().await;
    slow.send(head).await;
    let mut h2 = gateway.h2_streams().await;
    let request = Request::post("https://localhost/api/v1/service/iris/score")
        .header("authorization", format!("Bearer {KEY}"))
        .body(())
        .unwrap();
    let (answer, mut stream) = h2.send_request(request, false).unwrap();
    gateway.until_metric(r#"scoregate_requests_in_flight{service="iris"}"#, 2.0).await;
    for _ in 0..3 {
        assert_eq!(gateway.score("iris", Some(KEY), "quick").await.status, 200);
    }
    at_rest(&gateway).await;
    // Nothing of them is lost, however it is cut.
    slow.send(&body[..1]).await;
    slow.send(&body[1..]).await;
    let slow = slow.answer().await;
    assert_eq!((slow.status, slow.text().as_str()), (200, "a slow body"));
    stream.send_data(Bytes::from_static(b"in two "), false).unwrap();
    stream.send_data(Bytes::from_static(b"pieces"), true).unwrap();
    let answer = in_time("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(piece) = in_time("a piece", body.data()).await {
        text.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(text, b"in two pieces");
    let records = gateway.exactly(5).await;
    let sizes: Vec<_> = records.iter().map(|record| record["RequestBytes"].as_u64().unwrap()).collect();
    assert!(sizes.contains(&11) && sizes.contains(&13), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_never_begins_is_given_up() {
    let upstream = Upstream::echo().await;
    let limits = "    limits: { concurrent_requests_per_replica: 1, request_body_timeout: 100ms }";
    let gateway = Gateway::start(&config(&service("iris", upstream.address, limits))).await;
    let whole = score_request("iris", Some(KEY), "never");
    let answer = gateway.call(&whole[..whole.len() - 5]).await;
    let record = gateway.refused(&answer, 408, "client_stalled").await;
    assert_record(&record, &json!({"Attempts": 0, "QueueMs": null, "RequestBytes": 0}));
    at_rest(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_before_sending_is_told_to_go_on_before_he_takes_a_place_and_not_if_there_is_no_room() {
    let limits = "concurrent_requests_per_replica: 1, queue_wait: 60s, queue_length: 1";
    let (gateway, upstream, gate) = held(limits).await;
    let asking = score_request("iris", Some(KEY), "12345").replace("Host:", "Expect: 100-continue\r\nHost:");
    let (head, body) = asking.split_at(asking.len() - 5);
    let mut asks = gateway.connect().await;
    asks.send(head).await;
    assert!(asks.head().await.unwrap().starts_with("HTTP/1.1 100"));
    // He has been asked and has not begun: the place is there for others.
    let mut first = begin(&gateway, &upstream, "first").await;
    asks.send(body).await;
    gateway.until_metric(WAITING, 1.0).await;

    let mut late = gateway.connect().await;
    late.send(head).await;
    assert!(late.head().await.unwrap().starts_with("HTTP/1.1 503"), "no body is asked for in vain");
    gate.add_permits(2);
    assert_eq!(first.answer().await.status, 200);
    let answer = asks.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "12345"));
    at_rest(&gateway).await;
}

/// What a call that waits has the gateway take in of its body: what the first read brings, and no more.
const FIRST_READ: u64 = 16 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_a_call_that_waits_is_not_read() {
    const BODY: usize = 64 << 20;
    // What the two sockets buffer, generously.
    const BOUND: usize = 24 << 20;
    let (upstream, gate) = Upstream::held().await;
    let limits = "    limits: { concurrent_requests_per_replica: 1, queue_wait: 3s }";
    let config = config(&service("iris", upstream.address, limits));
    let gateway = Gateway::start(&with_plain_listener(&config)).await;
    let mut first = begin(&gateway, &upstream, "first").await;

    let mut tcp = TcpStream::connect(gateway.listener("plain")).await.unwrap();
    let head =
        score_request("iris", Some(KEY), "").replace("Content-Length: 0", &format!("Content-Length: {BODY}"));
    tcp.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < BODY {
        // A gateway that reads on takes all of it without a pause.
        match tokio::time::timeout(Duration::from_millis(300), tcp.write(&piece)).await {
            Ok(written) => sent += written.unwrap(),
            Err(_stalled) => break,
        }
    }
    assert!(sent < BOUND, "{sent} bytes went into a call that only waits");
    let record = gateway.records(1).await.remove(0);
    assert_record(&record, &json!({"Reason": "queue_timeout", "Attempts": 0}));
    assert!(record["QueueMs"].as_f64() >= Some(3000.0), "{record}");
    let taken = record["RequestBytes"].as_u64().unwrap();
    assert!((1..=FIRST_READ).contains(&taken), "{taken}");
    gate.add_permits(1);
    assert_eq!(first.answer().await.status, 200);
    at_rest(&gateway).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_connection_with_large_bodies_all_end() {
    const BODY: usize = 512 * 1024;
    let upstream = Upstream::answering(|seen| ok(seen.body.len().to_string().as_bytes())).await;
    let limits = "    limits: { concurrent_requests_per_replica: 1, queue_wait: 500ms }";
    let gateway = Gateway::start(&config(&service("iris", upstream.address, limits))).await;
    let h2 = gateway.h2_streams().await;
    // More of them than the connection's window holds: those that wait fill it, and one more has the place.
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let mut h2 = h2.clone();
            tokio::spawn(async move {
                let request = Request::post("https://localhost/api/v1/service/iris/score")
                    .header("authorization", format!("Bearer {KEY}"))
                    .body(())
                    .unwrap();
                let (answer, mut stream) = h2.send_request(request, false).unwrap();
                // Who is refused may have his stream reset while he sends.
                let _ = stream.send_data(Bytes::from(vec![b'x'; BODY]), true);
                let answer = answer.await.unwrap();
                let status = answer.status().as_u16();
                assert!([200, 503].contains(&status), "{status}");
                status
            })
        })
        .collect();
    let mut served = 0;
    for call in calls {
        served += usize::from(in_time("the call ends", call).await.unwrap() == 200);
    }
    assert!(served > 0);
    at_rest(&gateway).await;
    gateway.exactly(12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_retry_is_not_told_when() {
    let (upstream, _gate) = Upstream::held().await;
    let limits =
        "    limits: { concurrent_requests_per_replica: 1, scoring_timeout: 100ms, queue_length: 0 }";
    let gateway = Gateway::start(&config(&service("iris", upstream.address, limits))).await;
    let answer = gateway.score("iris", Some(KEY), "1").await;
    gateway.refused(&answer, 504, "upstream_timeout").await;
    assert!(!answer.headers.contains_key("retry-after"), "the model may be at it still");
    at_rest(&gateway).await;
}
