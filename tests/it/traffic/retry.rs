//! What is tried again at another replica, and what never is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::harness::{
    Answer, End, Gateway, KEY, Load, Mortal, Replica, Upstream, config, eventually, ok, read_request,
    score_request,
};

/// A service with these replicas and this `retry`, on one worker, and with nothing that takes replicas out.
fn with(replicas: &[SocketAddr], more: &str) -> String {
    let replicas: Vec<_> = replicas.iter().map(|replica| format!("\"http://{replica}\"")).collect();
    let service = format!(
        "  - name: iris
    compute_type: AKS
    keys: {{ primary: {{ file: primary.key }} }}
    deployments: [ {{ name: blue, replicas: [{}] }} ]
{more}
",
        replicas.join(", ")
    );
    config(&service).replace("workers: 2", "workers: 1")
}

async fn gateway(replicas: &[SocketAddr], retry: &str) -> Gateway {
    Gateway::start(&with(replicas, &format!("    retry: {{ {retry} }}"))).await
}

async fn score(gateway: &Gateway, body: &str) -> Answer {
    gateway.score("iris", Some(KEY), body).await
}

fn retries(why: &str) -> String {
    format!("scoregate_retries_total{{service=\"iris\",why=\"{why}\"}}")
}

const EXHAUSTED: &str = "scoregate_retry_budget_exhausted_total{service=\"iris\"}";

/// Reads one request per connection and closes without a word.
async fn closing() -> Upstream {
    Upstream::once("").await
}

/// Calls until one has needed a second attempt, which with two replicas half of them do.
async fn until_attempts(gateway: &Gateway, wanted: u64) -> usize {
    for calls in 1..=100 {
        assert_eq!(score(gateway, "x").await.status, 200);
        let records = gateway.records(calls).await;
        if records[calls - 1]["Attempts"] == wanted {
            return calls;
        }
    }
    panic!("no call had {wanted} attempts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_refuses_connections_costs_no_call() {
    let (dead, alive) = (Mortal::dead(|_| async { Vec::new() }), Upstream::echo().await);
    let gateway = gateway(&[dead.address, alive.address], "replay: never").await;
    until_attempts(&gateway, 2).await;
    assert!(gateway.metric(&retries("connect_failed")).await >= 1.0);
    assert_eq!(gateway.metric(&retries("reset")).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_other_replica_a_refused_connection_stands() {
    let dead = Mortal::dead(|_| async { Vec::new() });
    let gateway = gateway(&[dead.address], "replay: always").await;
    let answer = score(&gateway, "x").await;
    assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
    assert_eq!(gateway.records(1).await[0]["Attempts"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_attempt_nothing_is_tried_again() {
    let (dead, alive) = (Mortal::dead(|_| async { Vec::new() }), Upstream::echo().await);
    let gateway = gateway(&[dead.address, alive.address], "attempts: 1").await;
    let mut refused = 0;
    while refused == 0 {
        let answer = score(&gateway, "x").await;
        refused += usize::from(answer.status == 502);
    }
    assert_eq!(gateway.metric(&retries("connect_failed")).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_have_run_is_sent_again_only_on_the_owners_word() {
    for (replay, post, get) in [("never", 502, 502), ("idempotent", 502, 200), ("always", 200, 200)] {
        // Each closes the first connection it gets before it has answered.
        let replica = Upstream::serving(|mut tcp, connection, log| async move {
            let mut buffer = Vec::new();
            while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
                let answer = ok(&seen.body);
                let is_first = log.lock().unwrap().is_empty();
                log.lock().unwrap().push(seen);
                if is_first || tcp.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
        let posted = replica.await;
        let gateway_of = |address| async move { gateway(&[address], &format!("replay: {replay}")).await };
        let gateway = gateway_of(posted.address).await;
        let answer = score(&gateway, "hello").await;
        assert_eq!(answer.status, post, "POST with {replay}");
        let attempts = if post == 200 { 2 } else { 1 };
        assert_eq!(gateway.records(1).await[0]["Attempts"], attempts, "POST with {replay}");
        assert_eq!(gateway.metric(&retries("reset")).await, f64::from(attempts - 1), "POST with {replay}");
        let seen = posted.seen();
        assert_eq!(seen.len(), usize::try_from(attempts).unwrap());
        assert!(seen.iter().all(|seen| seen.body == b"hello"));
        let ids: Vec<_> = seen.iter().map(|seen| seen.header("x-request-id")).collect();
        assert!(ids.iter().all(|id| *id == ids[0] && !id.is_empty()), "{ids:?}");

        let got = Upstream::serving(|mut tcp, connection, log| async move {
            let Some(seen) = read_request(&mut tcp, &mut Vec::new(), connection).await else { return };
            log.lock().unwrap().push(seen);
            if connection > 0 {
                let _ = tcp.write_all(&ok(b"got")).await;
            }
        });
        let got = got.await;
        let gateway = gateway_of(got.address).await;
        let request = format!(
            "GET /api/v1/service/iris/score?a=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        );
        assert_eq!(gateway.call(request).await.status, get, "GET with {replay}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_has_begun_is_never_tried_again_and_its_cut_is_seen() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let replica = Upstream::once(bytes).await;
        let gateway = gateway(&[replica.address], "replay: always, statuses: [503]").await;
        let mut connection = gateway.connect().await;
        connection.send(score_request("iris", Some(KEY), "hello")).await;
        assert_eq!(connection.answer_to_head().await.status, 200);
        let (_, end) = connection.ending().await;
        assert_eq!(end, End::Cut, "{}", String::from_utf8_lossy(bytes));
        let record = &gateway.exactly(1).await[0];
        assert_eq!((&record["Attempts"], &record["Reason"]), (&1.into(), &"upstream_reset".into()));
        assert_eq!(replica.seen().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_still_arriving_goes_whole_to_the_next_replica() {
    let replica = Replica::bind().await;
    let gateway = gateway(&[replica.address], "replay: always").await;
    let mut client = gateway.connect().await;
    let head =
        score_request("iris", Some(KEY), "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    client.send(&head).await;
    client.send("3\r\none\r\n").await;
    let mut first = replica.accept().await;
    first.head().await;
    assert_eq!(first.bytes(8).await, b"3\r\none\r\n");
    drop(first);
    let mut second = replica.accept().await;
    client.send("3\r\ntwo\r\n0\r\n\r\n").await;
    let seen = second.request().await;
    assert_eq!(seen.body, b"onetwo");
    second.send(ok(b"done")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    let record = &gateway.exactly(1).await[0];
    assert_eq!((&record["Attempts"], &record["RequestBytes"]), (&2.into(), &6.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_outgrows_its_buffer_is_not_sent_again() {
    let large = "x".repeat(1025);
    let framed = score_request("iris", Some(KEY), &large);
    let chunked = score_request("iris", Some(KEY), "")
        .replace("Content-Length: 0", "Transfer-Encoding: chunked")
        + &format!("401\r\n{large}\r\n0\r\n\r\n");
    for request in [framed, chunked] {
        let replica = closing().await;
        let gateway = gateway(&[replica.address], "replay: always, body_bytes: 1KiB").await;
        let answer = gateway.call(&request).await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"));
        assert_eq!(replica.seen().len(), 1);
        // One byte less, and it is.
        assert_eq!(score(&gateway, &large[1..]).await.status, 502);
        assert_eq!(replica.seen().len(), 1 + 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_statuses_are_tried_again_and_the_last_answer_is_passed_on() {
    let answering = |status: &'static str| {
        Upstream::answering(move |seen| {
            String::from_utf8(ok(&seen.body)).unwrap().replacen("200 OK", status, 1).into_bytes()
        })
    };
    let (busy, well) = (answering("503 Busy").await, Upstream::echo().await);
    let two = gateway(&[busy.address, well.address], "replay: always, statuses: [503]").await;
    until_attempts(&two, 2).await;
    assert!(two.metric(&retries("status")).await >= 1.0);

    let alone = gateway(&[busy.address], "replay: always, statuses: [503]").await;
    let before = busy.seen().len();
    let answer = score(&alone, "hello").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "hello"), "the replica's own answer");
    assert_eq!(busy.seen().len() - before, 3);
    let record = &alone.exactly(1).await[0];
    assert_eq!((&record["Attempts"], &record["ModelStatusCode"]), (&3.into(), &503.into()));
    assert!(record["FirstByteMs"].is_number());

    for status in ["500 Odd", "400 Bad", "404 Not Found", "429 Slow down"] {
        let replica = answering(status).await;
        let gateway = gateway(&[replica.address], "replay: always, statuses: [503]").await;
        score(&gateway, "hello").await;
        assert_eq!(replica.seen().len(), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_bounds_what_a_broken_service_gets() {
    let replica = closing().await;
    let gateway = gateway(&[replica.address], "replay: always, budget: 20").await;
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(score(&gateway, "x").await.status, 502);
    }
    // Ten more in each further window of ten seconds.
    let windows = usize::try_from(begun.elapsed().as_secs() / 10).unwrap();
    let attempts = replica.seen().len();
    assert!((110..=120 + 10 * windows).contains(&attempts), "{attempts}");
    let again = gateway.metric(&retries("reset")).await;
    assert_eq!(again, (attempts - 100) as f64);
    assert!(gateway.metric(EXHAUSTED).await >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_too_slow_is_not_asked_twice() {
    let (replica, _gate) = Upstream::held().await;
    let more = "    retry: { replay: always }\n    limits: { scoring_timeout: 300ms }";
    let gateway = Gateway::start(&with(&[replica.address], more)).await;
    let answer = score(&gateway, "x").await;
    assert_eq!((answer.status, answer.reason()), (504, "upstream_timeout"));
    assert_eq!(gateway.exactly(1).await[0]["Attempts"], 1);
    assert_eq!(replica.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_attempts_together_have_the_scoring_timeout() {
    let replica = Replica::bind().await;
    let more = "    retry: { replay: always }\n    limits: { scoring_timeout: 2s }";
    let gateway = Gateway::start(&with(&[replica.address], more)).await;
    let mut client = gateway.connect().await;
    client.send(score_request("iris", Some(KEY), "x")).await;
    let (first, _) = replica.request().await;
    drop(first);
    let (_second, _) = replica.request().await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.reason()), (504, "upstream_timeout"));
    assert!(
        answer.text().contains("within limits.scoring_timeout (2s), over 2 attempts"),
        "{}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_left_is_not_served_any_more() {
    let replica = Replica::bind().await;
    let gateway = gateway(&[replica.address], "replay: always").await;
    let mut client = gateway.connect().await;
    client.send(score_request("iris", Some(KEY), "x")).await;
    let (first, _) = replica.request().await;
    drop(client);
    first.closed().await;
    let record = &gateway.exactly(1).await[0];
    assert_eq!((&record["Reason"], &record["Attempts"]), (&"client_gone".into(), &1.into()));
}

/// Both ways of F01: two replicas at work, one is killed with calls in flight.
async fn kill_one_of_two(replay: &str) -> (usize, usize, Vec<String>) {
    let time = Duration::from_millis(100);
    let (mut mortal, other) = (Mortal::slow(time), Mortal::slow(time));
    let gateway = gateway(&[mortal.address, other.address], &format!("replay: {replay}")).await;
    let load = Load::start(&gateway, 16, score_request("iris", Some(KEY), "hello"), |answer: &Answer| {
        (answer.status != 200 || answer.body != b"hello")
            .then(|| format!("{} {}", answer.status, answer.reason()))
    });
    load.further(64).await;
    let in_flight = eventually("calls in flight", async || {
        let busy = mortal.busy();
        (busy > 0).then_some(busy)
    })
    .await;
    mortal.kill();
    load.further(64).await;
    mortal.start();
    load.further(64).await;
    let (calls, problems) = load.stop().await;
    drop(other);
    // What had begun to be sent when it died may be beyond what it had read.
    (in_flight.max(8), calls, problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_takes_only_its_calls_in_flight_along() {
    let (_, calls, problems) = kill_one_of_two("never").await;
    assert!(calls >= 192);
    // At most as many as there are clients can be in flight.
    assert!(problems.len() <= 16, "{problems:?}");
    assert!(problems.iter().all(|problem| problem == "502 upstream_reset"), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_replay_a_killed_replica_costs_no_call() {
    let (in_flight, _, problems) = kill_one_of_two("always").await;
    assert!(in_flight > 0);
    assert_eq!(problems, Vec::<String>::new());
}

/// F03: the replica closes what rests for a second, and calls come in bursts one second apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_closes_idle_connections_costs_no_call() {
    let replica = Mortal::echo().closing_after(Duration::from_secs(1));
    let gateway = gateway(&[replica.address], "replay: never").await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(gateway.connect().await);
    }
    let start = tokio::time::Instant::now();
    let mut calls = 0;
    for millis in [0, 990, 1_985, 2_990, 3_992, 5_000, 5_200, 5_210] {
        tokio::time::sleep_until(start + Duration::from_millis(millis)).await;
        for client in &mut clients {
            client.send(score_request("iris", Some(KEY), "hello")).await;
        }
        for client in &mut clients {
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "at {millis} ms");
            calls += 1;
        }
    }
    assert_eq!(replica.seen(), calls);
    assert!(replica.accepted() < calls, "some connections were used again");
    let records = gateway.exactly(calls).await;
    assert!(records.iter().all(|record| record["Reason"] == "ok"));
}
