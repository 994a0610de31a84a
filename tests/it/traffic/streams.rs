//! Answers that come in pieces or in steps: interim answers, `Expect`, events, and how long an answer may last.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;

use crate::harness::{
    End, Gateway, KEY, Replica, Upstream, assert_record, config, score_request, service, soon,
};

async fn gateway(replica: std::net::SocketAddr, more: &str) -> Gateway {
    Gateway::start(&config(&service("iris", replica, more))).await
}

fn h2_score() -> http::request::Builder {
    Request::post("https://localhost/api/v1/service/iris/score")
        .header("authorization", format!("Bearer {KEY}"))
}

const EARLY_HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\
    X-Scoregate-Reason: ok\r\nConnection: x-named\r\nX-Named: 1\r\n\r\n";
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_go_to_an_http1_client_as_they_come() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "").await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "")).await;
    let (mut call, _) = replica.request().await;
    // Nobody has asked for a 100: the gateway itself answers `Expect`.
    call.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n").await;
    assert_eq!(connection.head().await.unwrap(), "HTTP/1.1 102 Processing\r\n\r\n");
    // The next is not sent before this one has arrived.
    call.send(EARLY_HINTS).await;
    let hints = connection.head().await.unwrap();
    assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n");
    call.send(FINAL).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    // The connections go on.
    connection.send(score_request("iris", Some(KEY), "again")).await;
    assert_eq!(call.request().await.body, b"again");
    call.send(FINAL).await;
    assert_eq!(connection.answer().await.status, 200);
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_go_to_an_http2_client_as_they_come() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "").await;
    let mut h2 = gateway.h2_streams().await;
    let (mut answer, _) = h2.send_request(h2_score().body(()).unwrap(), true).unwrap();
    let (mut call, _) = replica.request().await;
    for (sent, expected) in [("HTTP/1.1 102 Processing\r\n\r\n", 102), (EARLY_HINTS, 103)] {
        call.send(sent).await;
        let interim = soon("an interim answer", std::future::poll_fn(|cx| answer.poll_informational(cx)));
        let interim = interim.await.unwrap().unwrap();
        assert_eq!(interim.status(), expected);
        let names: Vec<_> = interim.headers().keys().collect();
        assert_eq!(names, if expected == 103 { vec!["link"] } else { vec![] });
    }
    call.send(FINAL).await;
    let answer = soon("the answer", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(soon("the body", answer.into_body().data()).await.unwrap().unwrap(), "hi");
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http10_client_gets_the_final_answer_only() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "").await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "").replace("HTTP/1.1", "HTTP/1.0")).await;
    let (mut call, _) = replica.request().await;
    call.send(format!("{EARLY_HINTS}{FINAL}")).await;
    assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_without_end_are_a_502() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "").await;
    for (count, status) in [(16, 200), (17, 502)] {
        let mut connection = gateway.connect().await;
        connection.send(score_request("iris", Some(KEY), "")).await;
        let (mut call, _) = replica.request().await;
        call.send(
            EARLY_HINTS.repeat(count) + FINAL.replace("OK\r\n", "OK\r\nConnection: close\r\n").as_str(),
        )
        .await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, status, "{count}: {answer:?}");
    }
    // Each connection may have been another worker's: their records come in any order.
    let records = gateway.exactly(2).await;
    let mut reasons: Vec<_> = records.iter().map(|record| record["Reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["ok", "upstream_protocol"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_client_that_asks_first_is_told_to_continue_only_if_its_call_is_taken() {
    let h1 = Upstream::echo().await;
    let h2_replica = Upstream::h2(None, |request, mut respond| async move {
        assert!(!request.headers().contains_key("expect"));
        let mut body = request.into_body();
        let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
        while let Some(data) = body.data().await {
            answer.send_data(data.unwrap(), false).unwrap();
        }
        answer.send_data(Bytes::new(), true).unwrap();
    })
    .await;
    let services = service("iris", h1.address, "")
        + &service("rose", h2_replica.address, "").replace("name: blue", "name: blue, protocol: h2");
    let gateway = Gateway::start(&config(&services)).await;
    let mut h2 = gateway.h2_streams().await;
    let asking = |service: &str, key: &str| {
        Request::post(format!("https://localhost/api/v1/service/{service}/score"))
            .header("authorization", format!("Bearer {key}"))
            .header("expect", "100-continue")
            .body(())
            .unwrap()
    };
    for service in ["iris", "rose"] {
        let (mut answer, mut upload) = h2.send_request(asking(service, KEY), false).unwrap();
        let interim = soon("the 100", std::future::poll_fn(|cx| answer.poll_informational(cx)));
        assert_eq!(interim.await.unwrap().unwrap().status(), StatusCode::CONTINUE);
        upload.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let answer = soon("the answer", answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(soon("the body", answer.into_body().data()).await.unwrap().unwrap(), "hello");
        // One that is refused is told so and nothing else.
        let (mut answer, _upload) = h2.send_request(asking(service, "wrong"), false).unwrap();
        let first = soon("the refusal", std::future::poll_fn(|cx| answer.poll_informational(cx))).await;
        assert!(first.is_none(), "no 100 before the refusal");
        assert_eq!(soon("the refusal", answer).await.unwrap().status(), 401);
    }
    assert!(h1.seen().iter().all(|seen| seen.header("expect").is_empty()));
    gateway.exactly(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_an_http2_replica_arrive_one_by_one() {
    let (next, told) = tokio::sync::mpsc::unbounded_channel::<String>();
    let told = std::sync::Arc::new(tokio::sync::Mutex::new(told));
    let replica = Upstream::h2(None, move |_, mut respond| {
        let told = std::sync::Arc::clone(&told);
        async move {
            let head =
                http::Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
            let mut answer = respond.send_response(head, false).unwrap();
            while let Some(event) = told.lock().await.recv().await {
                let is_last = event.is_empty();
                answer.send_data(event.into(), is_last).unwrap();
                if is_last {
                    return;
                }
            }
        }
    })
    .await;
    let services = service("iris", replica.address, "").replace("name: blue", "name: blue, protocol: h2");
    let gateway = Gateway::start(&config(&services)).await;

    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "")).await;
    // The head does not wait for the first event.
    assert!(connection.head().await.unwrap().contains("text/event-stream"));
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        next.send(event.clone()).unwrap();
        assert_eq!(connection.chunk().await, event.as_bytes());
    }
    next.send(String::new()).unwrap();
    assert_eq!(connection.chunk().await, b"");

    let mut h2 = gateway.h2_streams().await;
    let (answer, _) = h2.send_request(h2_score().body(()).unwrap(), true).unwrap();
    let mut body = soon("the head", answer).await.unwrap().into_body();
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        next.send(event.clone()).unwrap();
        assert_eq!(soon("the event", body.data()).await.unwrap().unwrap(), event);
    }
    next.send(String::new()).unwrap();
    while let Some(data) = soon("the end", body.data()).await {
        assert_eq!(data.unwrap(), "");
    }
    gateway.exactly(2).await;
}

/// Sends an answer in chunks with short pauses until the gateway has closed.
async fn send_for_ever(replica: &Replica) {
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    while tokio::io::AsyncWriteExt::write_all(&mut call.tcp, b"1\r\n.\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_lasts_too_long_is_cut_though_it_never_pauses() {
    let replica = Replica::bind().await;
    let limits = "    limits: { scoring_timeout: 60s, idle_timeout: 60s, answer_timeout: 1s }";
    let gateway = gateway(replica.address, limits).await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "")).await;
    let (_, (rest, end)) = tokio::join!(send_for_ever(&replica), connection.ending());
    assert_eq!(end, End::Cut);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "no end of the body");

    let mut h2 = gateway.h2_streams().await;
    let (answer, _) = h2.send_request(h2_score().body(()).unwrap(), true).unwrap();
    let reading = async {
        let mut body = soon("the head", answer).await.unwrap().into_body();
        loop {
            match soon("the end", body.data()).await.expect("not a clean end") {
                Ok(data) => body.flow_control().release_capacity(data.len()).unwrap(),
                Err(error) => return error,
            }
        }
    };
    let (_, error) = tokio::join!(send_for_ever(&replica), reading);
    assert!(error.is_reset(), "{error}");
    let records = gateway.exactly(2).await;
    for record in &records {
        assert_record(
            record,
            &json!({"StatusCode": 200, "Reason": "upstream_timeout", "EndedBy": "gateway"}),
        );
        assert!(record["StreamMs"].as_f64().unwrap() > 900.0, "cut before its time: {record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_timeout_does_not_run_before_the_answer() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "    limits: { answer_timeout: 300ms }").await;
    let (answer, ()) = tokio::join!(gateway.score("iris", Some(KEY), ""), async {
        let (mut call, _) = replica.request().await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        call.send(FINAL).await;
    });
    assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
    assert_eq!(gateway.exactly(1).await[0]["Reason"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_before_its_head_is_out_is_a_refusal() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "").await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut connection = gateway.connect().await;
        connection.send(score_request("iris", Some(KEY), "").replace("HTTP/1.1", version)).await;
        let (mut call, _) = replica.request().await;
        // All of it arrives at once, so that nothing has gone to the client when the third chunk shows to be none.
        let chunks = "5\r\nhello\r\n5\r\nagain\r\nxyz\r\n";
        call.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;
        let answer = connection.answer().await;
        let record = gateway.record(&answer).await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_protocol"));
        let body = answer.body.len();
        assert_record(
            &record,
            &json!({"ModelStatusCode": 200, "ResponseBytes": body, "EndedBy": "upstream"}),
        );
        assert_eq!(call.closed().await, b"");
    }
    gateway.exactly(2).await;
}
