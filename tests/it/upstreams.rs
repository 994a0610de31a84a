//! Replicas that answer badly: the caller gets a 502 or a cut that nobody can take for the whole, and the next caller
//! gets its own answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::harness::{End, Gateway, KEY, Upstream, config, ok, read_request, score_request, service};

/// What a replica does with its connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    WaitForMore,
    Close,
    Reset,
}

/// A replica that answers a call with body `bad` by `answer`, and every other one by its own body.
async fn replica(answer: Vec<u8>, then: Then) -> Upstream {
    replica_that_waits(answer, then, Arc::new(Semaphore::new(1024))).await
}

/// The same; what comes behind the answer comes for a permit of the gate.
async fn replica_that_waits(answer: Vec<u8>, then: Then, gate: Arc<Semaphore>) -> Upstream {
    Upstream::serving(move |mut tcp, connection, log| {
        let (answer, gate) = (answer.clone(), Arc::clone(&gate));
        async move {
            let mut buffer = Vec::new();
            while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
                let is_bad = seen.body == b"bad";
                let bytes = if is_bad { answer.clone() } else { ok(&seen.body) };
                log.lock().unwrap().push(seen);
                if tcp.write_all(&bytes).await.is_err() {
                    return;
                }
                if is_bad {
                    gate.acquire().await.unwrap().forget();
                }
                match then {
                    Then::Close if is_bad => return,
                    Then::Reset if is_bad => {
                        socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
                        return;
                    }
                    _ => {}
                }
            }
        }
    })
    .await
}

/// One worker, so that there is one pool of upstream connections.
async fn gateway(replica: &Upstream) -> Gateway {
    let one_worker = config(&service("iris", replica.address, "")).replace("workers: 2", "workers: 1");
    Gateway::start(&one_worker).await
}

/// The connection that served the call with body `bad` serves no other; others get their own answers.
async fn assert_only_own_answers(gateway: &Gateway, replica: &Upstream, what: &str) {
    for marker in ["one", "two"] {
        let answer = gateway.score("iris", Some(KEY), marker).await;
        assert_eq!((answer.status, answer.text()), (200, marker.to_owned()), "after {what}");
    }
    let seen = replica.seen();
    let bad = seen.iter().find(|seen| seen.body == b"bad").expect("the bad call arrived");
    let after = seen
        .iter()
        .filter(|seen| seen.connection == bad.connection && (seen.body == b"one" || seen.body == b"two"));
    assert_eq!(after.count(), 0, "{what}: the connection was used again");
}

fn of_bad(records: &[Value]) -> &Value {
    // Written in the order in which the calls ended.
    &records[1]
}

async fn answered_502(answer: impl Into<Vec<u8>>, then: Then, reason: &str) {
    let answer = answer.into();
    let what = String::from_utf8_lossy(&answer[..answer.len().min(100)]).into_owned();
    let replica = replica(answer, then).await;
    let gateway = gateway(&replica).await;
    gateway.score("iris", Some(KEY), "first").await;
    let answer = gateway.score("iris", Some(KEY), "bad").await;
    assert_eq!((answer.status, answer.reason()), (502, reason), "{what}: {}", answer.text());
    assert_only_own_answers(&gateway, &replica, &what).await;
    let records = gateway.exactly(4).await;
    let record = of_bad(&records);
    assert_eq!((&record["StatusCode"], &record["Reason"]), (&502.into(), &reason.into()), "{what}");
    assert_eq!(record["EndedBy"], "upstream", "{what}");
    assert_eq!(record["Attempts"], 1, "{what}: it may have been run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_acceptable_http_is_a_502() {
    let protocol = "upstream_protocol";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 99 Odd\r\n\r\n",
        "HTTP/1.1 20 Odd\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nx-a: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a : b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ng\r\nhello\r\n0\r\n\r\n",
        "garbage\r\n\r\n",
        "\0\0\x06\x04\0\0\0\0\0",
    ] {
        answered_502(answer, Then::WaitForMore, protocol).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_over_a_limit_is_a_502() {
    let fields: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    for answer in [
        format!("HTTP/1.1 200 OK\r\nx-a: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(1 << 20)),
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"),
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(1000)
            + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        answered_502(answer, Then::Close, "upstream_protocol").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_closes_before_it_has_answered_is_a_502() {
    for (answer, then) in [
        ("", Then::Close),
        ("", Then::Reset),
        ("HTTP/1.1 200 OK\r\nContent-Le", Then::Close),
        ("HTTP/1.1 100 Continue\r\n\r\n", Then::Close),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Then::Reset),
    ] {
        answered_502(answer, then, "upstream_reset").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_an_answer_is_nobodys_answer() {
    let body = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    for (answer, status) in [
        (format!("{body}extra"), 200),
        (body.repeat(2), 200),
        (format!("{body}\r\n"), 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nextra".to_owned(), 200),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nextra".to_owned(), 204),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nextra".to_owned(), 304),
        (format!("HTTP/1.1 103 Early Hints\r\n\r\n{body}{body}"), 200),
    ] {
        let replica = replica(answer.clone().into(), Then::WaitForMore).await;
        let gateway = gateway(&replica).await;
        gateway.score("iris", Some(KEY), "first").await;
        let mut connection = gateway.connect().await;
        connection.send(score_request("iris", Some(KEY), "bad")).await;
        let got = connection.answer().await;
        assert_eq!(
            (got.status, got.text().as_str()),
            (status, if status == 200 { "hi" } else { "" }),
            "{answer}"
        );
        // The same client's next call on the same connection, too.
        connection.send(score_request("iris", Some(KEY), "mine")).await;
        assert_eq!(connection.answer().await.text(), "mine", "{answer}");
        assert_only_own_answers(&gateway, &replica, &answer).await;
        gateway.exactly(5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_keep_the_connection() {
    for answer in
        ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"]
    {
        let replica = replica(answer.into(), Then::WaitForMore).await;
        let gateway = gateway(&replica).await;
        let mut connection = gateway.connect().await;
        for _ in 0..3 {
            connection.send(score_request("iris", Some(KEY), "bad")).await;
            let head = connection.head().await.unwrap();
            assert!(head.starts_with(&answer[..13]), "{head}");
            assert!(!head.contains("transfer-encoding") && !head.contains("connection: close"), "{head}");
        }
        assert_eq!(replica.accepted(), 1);
        gateway.exactly(3).await;
    }
}

/// Answers that end before they are complete, with the body bytes that still arrive.
const CUT: [(&str, Then, &str, u64); 6] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Then::Close, "upstream_reset", 5),
    ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", Then::Reset, "upstream_reset", 5),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Then::Close, "upstream_reset", 5),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        Then::Reset,
        "upstream_reset",
        5,
    ),
    ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", Then::Reset, "upstream_reset", 5),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello", Then::Close, "upstream_reset", 5),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_answer_is_never_a_clean_end_over_http1() {
    for (answer, then, reason, bytes) in CUT {
        let gate = Arc::new(Semaphore::new(0));
        let replica = replica_that_waits(answer.into(), then, Arc::clone(&gate)).await;
        let gateway = gateway(&replica).await;
        gateway.score("iris", Some(KEY), "first").await;
        let mut connection = gateway.connect().await;
        connection.send(score_request("iris", Some(KEY), "bad")).await;
        let head = connection.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        gate.add_permits(1);
        let (rest, end) = connection.ending().await;
        assert_eq!(end, End::Cut, "{answer}: {then:?}");
        assert!(rest.len() < 10 || !rest.ends_with(b"0\r\n\r\n"), "{answer}: the last chunk was sent");
        assert_only_own_answers(&gateway, &replica, answer).await;
        assert_cut(&gateway.exactly(4).await, answer, reason, bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_answer_is_never_a_clean_end_for_an_http10_client() {
    for (answer, then, reason, bytes) in CUT {
        let gate = Arc::new(Semaphore::new(0));
        let replica = replica_that_waits(answer.into(), then, Arc::clone(&gate)).await;
        let gateway = gateway(&replica).await;
        gateway.score("iris", Some(KEY), "first").await;
        let mut connection = gateway.connect().await;
        connection.send(score_request("iris", Some(KEY), "bad").replace("HTTP/1.1", "HTTP/1.0")).await;
        let head = connection.head().await.unwrap();
        assert!(!head.contains("transfer-encoding"), "{head}");
        gate.add_permits(1);
        let (_, end) = connection.ending().await;
        assert_eq!(end, End::Cut, "{answer}: {then:?}");
        assert_only_own_answers(&gateway, &replica, answer).await;
        assert_cut(&gateway.exactly(4).await, answer, reason, bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_answer_is_never_a_clean_end_over_http2() {
    for (answer, then, reason, bytes) in CUT {
        let gate = Arc::new(Semaphore::new(0));
        let replica = replica_that_waits(answer.into(), then, Arc::clone(&gate)).await;
        let gateway = gateway(&replica).await;
        gateway.score("iris", Some(KEY), "first").await;
        let mut h2 = gateway.h2_streams().await;
        let (response, _) = h2
            .send_request(h2_score(), false)
            .map(|(response, mut body)| {
                body.send_data(Bytes::from_static(b"bad"), true).unwrap();
                (response, body)
            })
            .unwrap();
        let mut body = response.await.unwrap().into_body();
        gate.add_permits(1);
        let mut received = 0;
        let error = loop {
            match body.data().await.expect("a clean end") {
                Ok(data) => received += data.len() as u64,
                Err(error) => break error,
            }
        };
        assert!(error.is_reset(), "{answer}: {error}");
        assert!(received <= bytes, "{answer}");
        assert_only_own_answers(&gateway, &replica, answer).await;
        assert_cut(&gateway.exactly(4).await, answer, reason, bytes);
    }
}

fn assert_cut(records: &[Value], answer: &str, reason: &str, bytes: u64) {
    let record = of_bad(records);
    assert_eq!((&record["StatusCode"], &record["Reason"]), (&200.into(), &reason.into()), "{answer}");
    assert_eq!(
        (&record["ResponseBytes"], &record["EndedBy"]),
        (&bytes.into(), &"upstream".into()),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_break_in_mid_answer_cut_it() {
    let replica = Upstream::serving(|mut tcp, connection, log| async move {
        let mut buffer = Vec::new();
        while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
            let is_bad = seen.body == b"bad";
            let answer = ok(&seen.body);
            log.lock().unwrap().push(seen);
            if is_bad {
                tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                    .await
                    .unwrap();
                // Only once the caller has the first chunk does the break come.
                tokio::time::sleep(Duration::from_millis(50)).await;
                tcp.write_all(b"xyz\r\n").await.unwrap();
            } else {
                tcp.write_all(&answer).await.unwrap();
            }
        }
    })
    .await;
    let gateway = gateway(&replica).await;
    gateway.score("iris", Some(KEY), "first").await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "bad")).await;
    connection.head().await.unwrap();
    assert_eq!(connection.chunk().await, b"hello");
    assert_eq!(connection.ending().await, (vec![], End::Cut));
    assert_only_own_answers(&gateway, &replica, "broken chunks").await;
    assert_cut(&gateway.exactly(4).await, "broken chunks", "upstream_protocol", 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_ends_with_its_connection_is_whole() {
    let replica = replica(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec(), Then::Close).await;
    let gateway = gateway(&replica).await;
    gateway.score("iris", Some(KEY), "first").await;
    let answer = gateway.score("iris", Some(KEY), "bad").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "until the end"));
    assert_only_own_answers(&gateway, &replica, "close-delimited").await;
    let records = gateway.exactly(4).await;
    assert!(records.iter().all(|record| record["Reason"] == "ok"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http10_answer_is_whole_and_ends_its_connection() {
    let replica =
        replica(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec(), Then::WaitForMore).await;
    let gateway = gateway(&replica).await;
    assert_eq!(gateway.score("iris", Some(KEY), "bad").await.text(), "hi");
    assert_only_own_answers(&gateway, &replica, "HTTP/1.0").await;
    gateway.exactly(3).await;
}

fn h2_score() -> Request<()> {
    Request::post("https://localhost/api/v1/service/iris/score")
        .header("authorization", format!("Bearer {KEY}"))
        .body(())
        .unwrap()
}
