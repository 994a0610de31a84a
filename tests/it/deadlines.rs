//! Every wait ends by its own deadline, which is named to whoever can still hear it and in the record.
//!
//! The deadlines are tiny and real; no test judges how long anything took.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::harness::{
    Answer, Authority, End, Gateway, KEY, Replica, Upstream, config, eventually, h2_streams, in_time,
    score_request, service,
};

/// A service `iris` with these limits.
async fn gateway(replica: std::net::SocketAddr, limits: &str) -> Gateway {
    Gateway::start(&config(&service("iris", replica, &format!("    limits: {{ {limits} }}")))).await
}

/// A listener that waits as `settings` say.
async fn gateway_with_listener(replica: std::net::SocketAddr, settings: &str) -> Gateway {
    let config = config(&service("iris", replica, ""));
    Gateway::start(&config.replace("  - name: public\n", &format!("  - name: public\n    {settings}\n")))
        .await
}

fn head(lines: &str) -> String {
    format!(
        "POST /api/v1/service/iris/score HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{lines}\r\n"
    )
}

fn h2_score() -> Request<()> {
    Request::post("https://localhost/api/v1/service/iris/score")
        .header("authorization", format!("Bearer {KEY}"))
        .body(())
        .unwrap()
}

fn assert_named(answer: &Answer, status: u16, reason: &str, name: &str) {
    assert_eq!((answer.status, answer.reason()), (status, reason), "{}", answer.text());
    assert!(answer.text().contains(name), "{}", answer.text());
}

fn assert_record(record: &Value, status: u16, reason: &str) {
    assert_eq!((&record["StatusCode"], &record["Reason"]), (&status.into(), &reason.into()), "{record}");
    assert_eq!(record["EndedBy"], "gateway", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_never_answers_is_given_up_after_the_scoring_timeout() {
    for (compute_type, status) in [("AKS", 504), ("ACI", 504), ("Managed", 408)] {
        let replica = Replica::bind().await;
        let services =
            service("iris", replica.address, "    auth: key\n    limits: { scoring_timeout: 50ms }");
        let services = services.replace("compute_type: AKS", &format!("compute_type: {compute_type}"));
        let gateway = Gateway::start(&config(&services)).await;
        let mut connection = gateway.connect().await;
        connection.send(score_request("iris", Some(KEY), "body")).await;
        let (call, _) = replica.request().await;
        assert_named(&connection.answer().await, status, "upstream_timeout", "limits.scoring_timeout (50ms)");
        // Cancelled there, and the client's connection goes on.
        call.closed().await;
        connection.send(score_request("iris", None, "")).await;
        assert_eq!(connection.answer().await.status, 401);
        let records = gateway.exactly(2).await;
        assert_record(&records[0], status, "upstream_timeout");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_replica_that_never_answers_is_given_up_after_the_scoring_timeout() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let replica = Upstream::h2(None, move |_, mut respond| {
        let tell = tell.clone();
        async move { tell.send(std::future::poll_fn(|cx| respond.poll_reset(cx)).await.ok()).unwrap() }
    })
    .await;
    let services = service("iris", replica.address, "    limits: { scoring_timeout: 50ms }");
    let gateway = Gateway::start(&config(&services.replace("name: blue", "name: blue, protocol: h2"))).await;
    let answer = gateway.score("iris", Some(KEY), "body").await;
    assert_named(&answer, 504, "upstream_timeout", "limits.scoring_timeout (50ms)");
    assert_eq!(told.recv().await.unwrap(), Some(h2::Reason::CANCEL));
    assert_record(&gateway.exactly(1).await[0], 504, "upstream_timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scoring_timeout_does_not_run_while_the_client_uploads() {
    let replica = Upstream::echo().await;
    let gateway = gateway(replica.address, "scoring_timeout: 50ms").await;
    let mut connection = gateway.connect().await;
    connection.send(head("Content-Length: 5\r\n") + "hel").await;
    // Longer than the timeout; the replica is not what is waited for.
    tokio::time::sleep(Duration::from_millis(250)).await;
    connection.send("lo").await;
    assert_eq!(connection.answer().await.text(), "hello");
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_pauses_is_cut_after_the_idle_timeout() {
    for framing in ["Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "Content-Length: 10\r\n\r\nhello"] {
        let replica = Replica::bind().await;
        let gateway = gateway(replica.address, "idle_timeout: 50ms").await;
        let mut connection = gateway.connect().await;
        connection.send(score_request("iris", Some(KEY), "")).await;
        let (mut call, _) = replica.request().await;
        call.send(format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 200 "));
        let (rest, end) = connection.ending().await;
        assert!(rest.windows(5).any(|window| window == b"hello") && !rest.ends_with(b"0\r\n\r\n"));
        assert_eq!(end, End::Cut);
        call.closed().await;
        let record = &gateway.exactly(1).await[0];
        assert_record(record, 200, "upstream_timeout");
        assert_eq!(record["ResponseBytes"], 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_pauses_over_http2_is_reset_after_the_idle_timeout() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "idle_timeout: 50ms").await;
    let mut h2 = gateway.h2_streams().await;
    let (response, _) = h2.send_request(h2_score(), true).unwrap();
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "hello");
    assert!(body.data().await.unwrap().unwrap_err().is_reset());
    call.closed().await;
    assert_record(&gateway.exactly(1).await[0], 200, "upstream_timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stops_arriving_is_given_up_after_the_request_body_timeout() {
    for (framing, first) in
        [("Content-Length: 100\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n")]
    {
        let replica = Replica::bind().await;
        let gateway = gateway(replica.address, "request_body_timeout: 50ms").await;
        let mut connection = gateway.connect().await;
        connection.send(head(framing) + first).await;
        let mut call = replica.accept().await;
        call.head().await;
        let answer = connection.answer().await;
        assert_named(&answer, 408, "client_stalled", "limits.request_body_timeout");
        assert_eq!(answer.header("connection"), "close");
        let received = call.closed().await;
        assert!(!received.ends_with(b"0\r\n\r\n"), "the cut body was ended");
        let record = &gateway.exactly(1).await[0];
        assert_record(record, 408, "client_stalled");
        assert_eq!(record["RequestBytes"], 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_now_and_then_is_no_progress_of_a_body() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "request_body_timeout: 200ms").await;
    let mut connection = gateway.connect().await;
    connection.send(head("Content-Length: 1000\r\n")).await;
    let head = loop {
        connection.try_send("a").await;
        if let Ok(head) = tokio::time::timeout(Duration::from_millis(20), connection.head()).await {
            break head.unwrap();
        }
    };
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert_record(&gateway.exactly(1).await[0], 408, "client_stalled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_body_that_stops_arriving_is_given_up_after_the_request_body_timeout() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "request_body_timeout: 50ms").await;
    let mut h2 = gateway.h2_streams().await;
    let (response, mut upload) = h2.send_request(h2_score(), false).unwrap();
    upload.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 408);
    let mut text = Vec::new();
    let mut body = response.into_body();
    while let Some(Ok(data)) = body.data().await {
        text.extend_from_slice(&data);
    }
    assert!(String::from_utf8(text).unwrap().contains("limits.request_body_timeout"));
    replica.accept().await.closed().await;
    assert_record(&gateway.exactly(1).await[0], 408, "client_stalled");
}

/// Sends an answer without an end, until the gateway takes no more of it.
async fn send_for_ever(replica: &Replica) {
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n").await;
    while in_time("the gateway closes", call.tcp.write_all(&[b'a'; 64 * 1024])).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_given_up_after_the_response_write_timeout() {
    let replica = Replica::bind().await;
    let gateway = gateway(replica.address, "response_write_timeout: 100ms").await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "")).await;
    // Ends when the gateway has closed its side of the call.
    send_for_ever(&replica).await;
    assert_record(&gateway.exactly(1).await[0], 200, "client_stalled");
    assert_eq!(connection.ending().await.1, End::Cut);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_stream_that_is_never_read_is_given_up_and_no_other() {
    for window in [0, 65_535] {
        let replica = Replica::bind().await;
        let gateway = gateway(replica.address, "response_write_timeout: 100ms").await;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window);
        let mut h2 = h2_streams(gateway.address, "localhost", gateway.ca(), &builder).await;
        let (response, _) = h2.send_request(h2_score(), true).unwrap();
        send_for_ever(&replica).await;
        assert_record(&gateway.exactly(1).await[0], 200, "client_stalled");
        // The connection is as good as before: an answer that waits for the replica is not a stalled one.
        let (other, _) = h2.send_request(h2_score(), true).unwrap();
        let (mut call, _) = replica.request().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        call.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(other.await.unwrap().status(), 204);
        let mut body = response.await.map(http::Response::into_body);
        if let Ok(body) = &mut body {
            let end = loop {
                match body.data().await.expect("a clean end") {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(end.is_reset(), "{end}");
        }
        gateway.exactly(2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_come_or_does_not_end_closes_the_connection_silently() {
    let replica = Upstream::echo().await;
    let gateway = gateway_with_listener(replica.address, "header_timeout: 100ms").await;
    for sent in ["", "POST /api/v1/service/iris/score HT", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut connection = gateway.connect().await;
        connection.send(sent).await;
        assert_eq!(connection.ending().await, (vec![], End::Clean), "{sent:?}");
    }
    // The next head on a kept connection, too, though the connection might rest for longer.
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "body")).await;
    assert_eq!(connection.answer().await.status, 200);
    connection.send("POST ").await;
    assert_eq!(connection.ending().await, (vec![], End::Clean));
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_rests_is_closed_silently_after_the_listeners_idle_timeout() {
    let replica = Upstream::echo().await;
    let gateway = gateway_with_listener(replica.address, "idle_timeout: 1s").await;
    let mut connection = gateway.connect().await;
    let mut h2 = gateway.h2_streams().await;
    let (response, _) = h2.send_request(h2_score(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    connection.send(score_request("iris", Some(KEY), "body")).await;
    assert_eq!(connection.answer().await.status, 200);
    assert_eq!(connection.ending().await, (vec![], End::Clean));
    eventually("GOAWAY", async || h2.clone().ready().await.is_err().then_some(())).await;
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_shake_hands_is_closed_after_the_handshake_timeout() {
    let replica = Upstream::echo().await;
    let gateway = gateway_with_listener(replica.address, "handshake_timeout: 100ms").await;
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.write_all(sent).await.unwrap();
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
    }
    let series = "scoregate_tls_handshake_failures_total{kind=\"timeout\",listener=\"public\"}";
    eventually("both are counted", async || (gateway.metric(series).await == 2.0).then_some(())).await;
    assert_eq!(gateway.score("iris", Some(KEY), "ordinary").await.text(), "ordinary");
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_take_the_connection_is_given_up_after_the_connect_timeout() {
    // Its queue is full: the kernel answers no further SYN.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let _queued = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let gateway = gateway(address, "connect_timeout: 50ms").await;
    let answer = gateway.score("iris", Some(KEY), "body").await;
    assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
    assert!(answer.text().contains("connect_timeout (50ms)"), "{}", answer.text());
    let record = &gateway.exactly(1).await[0];
    assert_eq!((&record["Reason"], &record["Attempts"]), (&"connect_failed".into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_shake_hands_is_given_up_after_the_connect_timeout() {
    let replica = Replica::bind().await;
    let authority = Authority::new();
    let services = service("iris", replica.address, "    limits: { connect_timeout: 50ms }")
        .replace("http://", "https://")
        .replace("name: blue", &format!("name: blue, tls: {{ ca: \"{}\" }}", authority.ca().display()));
    let gateway = Gateway::start(&config(&services)).await;
    let answer = gateway.score("iris", Some(KEY), "body").await;
    assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
    assert!(answer.text().contains("connect_timeout (50ms)"), "{}", answer.text());
    replica.accept().await.closed().await;
    gateway.exactly(1).await;
}
