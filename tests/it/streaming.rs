//! Bodies pass through as they come, at the pace of the slower side, and a call ends when its client leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use super::harness::{End, Gateway, KEY, Replica, Rest, Upstream, config, score_request, service};

const MIB: usize = 1 << 20;
/// What is sent in the tests of back-pressure.
const LARGE: usize = 64 * MIB;
/// What may be on the way then: the socket buffers of two connections (Linux: up to 6 MiB to read and 4 MiB to write
/// each) and what the gateway holds.
const ON_THE_WAY: usize = 32 * MIB;

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

async fn gateway(replica: &Replica) -> Gateway {
    // One worker, so that there is one pool of upstream connections.
    let one_worker = config(&service("iris", replica.address, "")).replace("workers: 2", "workers: 1");
    Gateway::start(&one_worker).await
}

/// Nothing more comes but the end, which may be an empty frame.
async fn assert_ended(mut body: h2::RecvStream) {
    while let Some(data) = body.data().await {
        assert_eq!(data.unwrap(), "");
    }
}

/// The byte at `place` of a large body.
fn pattern(place: usize) -> u8 {
    (place / 7 % 251) as u8
}

fn large() -> Vec<u8> {
    (0..LARGE).map(pattern).collect()
}

/// Waits until `count` stands still. On a slow machine that may be early, which makes the test weaker but not wrong.
pub async fn standstill(count: &AtomicUsize) -> usize {
    let mut last = 0;
    let mut same = 0;
    while same < 30 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let now = count.load(Relaxed);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_read_stops_the_client() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut connection = gateway.connect().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let client = tokio::spawn(async move {
        connection.send(head(&format!("Content-Length: {LARGE}\r\n"))).await;
        for piece in large().chunks(64 * 1024) {
            connection.send(piece).await;
            counted.fetch_add(piece.len(), Relaxed);
        }
        connection.answer().await
    });
    let mut call = replica.accept().await;
    call.head().await;
    let taken = standstill(&sent).await;
    assert!(taken < ON_THE_WAY, "{taken} bytes were taken for a replica that reads nothing");
    assert_eq!(call.bytes(LARGE).await, large());
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.await.unwrap().status, 200);
    assert_eq!(gateway.exactly(1).await[0]["RequestBytes"], LARGE);
}

/// Sends a large answer to the next call and counts what goes out.
async fn send_large(replica: &Replica, sent: Arc<AtomicUsize>) {
    let (mut call, _) = replica.request().await;
    call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    for piece in large().chunks(64 * 1024) {
        call.send(piece).await;
        sent.fetch_add(piece.len(), Relaxed);
    }
    call.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_stops_the_replica() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "")).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = tokio::spawn({
        let sent = Arc::clone(&sent);
        async move { send_large(&replica, sent).await }
    });
    let taken = standstill(&sent).await;
    assert!(taken < ON_THE_WAY, "{taken} bytes were taken for a client that reads nothing");
    let answer = connection.answer().await;
    assert_eq!(answer.body, large());
    let record = &gateway.exactly(1).await[0];
    assert_eq!((&record["ResponseBytes"], &record["Reason"]), (&LARGE.into(), &"ok".into()));
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_stream_whose_window_is_full_stops_the_replica_and_no_other_stream() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut h2 = gateway.h2_streams().await;
    let (response, _) = h2.send_request(h2_score(), true).unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = async { send_large(&replica, Arc::clone(&sent)).await };
    let reading = async {
        let mut body = response.await.unwrap().into_body();
        let taken = standstill(&sent).await;
        // No larger than the socket buffers of one connection.
        assert!(taken < ON_THE_WAY / 2, "{taken} bytes were taken for a stream whose window is full");
        // The connection is not stopped: a call of its own fails at once, without a credential.
        let other = Request::post("https://localhost/api/v1/service/iris/score").body(()).unwrap();
        let (other, _) = h2.send_request(other, true).unwrap();
        assert_eq!(other.await.unwrap().status(), 401);
        let mut received = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            assert!(data.iter().enumerate().all(|(place, byte)| *byte == pattern(received + place)));
            received += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        received
    };
    tokio::select! {
        () = sending => panic!("the connection is kept"),
        received = reading => assert_eq!(received, LARGE),
    }
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_begin_before_the_request_ends() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut connection = gateway.connect().await;
    connection.send(head("Transfer-Encoding: chunked\r\n") + "3\r\none\r\n").await;
    let mut call = replica.accept().await;
    assert!(call.head().await.contains("transfer-encoding: chunked\r\n"));
    assert_eq!(call.bytes(8).await, b"3\r\none\r\n");
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n").await;
    let answer = connection.head().await.unwrap();
    // Whether the client will ever end its request was not known.
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(connection.chunk().await, b"ONE");
    connection.send("3\r\ntwo\r\n").await;
    assert_eq!(call.bytes(8).await, b"3\r\ntwo\r\n");
    call.send("3\r\nTWO\r\n").await;
    assert_eq!(connection.chunk().await, b"TWO");
    connection.send("0\r\n\r\n").await;
    assert_eq!(call.bytes(5).await, b"0\r\n\r\n");
    call.send("0\r\n\r\n").await;
    assert_eq!(connection.chunk().await, b"");
    assert_eq!(connection.ending().await, (vec![], End::Clean));
    // The replica's connection goes on.
    let (next, ()) = tokio::join!(gateway.score("iris", Some(KEY), "next"), async {
        assert_eq!(call.request().await.body, b"next");
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    });
    assert_eq!(next.status, 200);
    let records = gateway.exactly(2).await;
    assert_eq!((&records[0]["RequestBytes"], &records[0]["ResponseBytes"]), (&6.into(), &6.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_over_http2_may_begin_before_the_request_ends() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut h2 = gateway.h2_streams().await;
    let (response, mut upload) = h2.send_request(h2_score(), false).unwrap();
    upload.send_data(Bytes::from_static(b"one"), false).unwrap();
    let mut call = replica.accept().await;
    call.head().await;
    assert_eq!(call.bytes(8).await, b"3\r\none\r\n");
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n").await;
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "ONE");
    upload.send_data(Bytes::from_static(b"two"), true).unwrap();
    assert_eq!(call.bytes(13).await, b"3\r\ntwo\r\n0\r\n\r\n");
    call.send("3\r\nTWO\r\n0\r\n\r\n").await;
    assert_eq!(body.data().await.unwrap().unwrap(), "TWO");
    assert_ended(body).await;
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_one_by_one() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "")).await;
    let mut h2 = gateway.h2_streams().await;
    let (mut call, _) = replica.request().await;
    let (response, _) = h2.send_request(h2_score(), true).unwrap();
    let (mut other, _) = replica.request().await;
    let sse = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    call.send(sse).await;
    other.send(sse).await;
    assert!(connection.head().await.unwrap().contains("text/event-stream"));
    let mut body = response.await.unwrap().into_body();
    for number in 0..5 {
        // The next one is not sent before this one has arrived.
        let event = format!("data: {number}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        call.send(&chunk).await;
        assert_eq!(connection.chunk().await, event.as_bytes());
        other.send(&chunk).await;
        assert_eq!(body.data().await.unwrap().unwrap(), event);
    }
    call.send("0\r\n\r\n").await;
    other.send("0\r\n\r\n").await;
    assert_eq!(connection.chunk().await, b"");
    assert_ended(body).await;
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut connection = gateway.connect().await;
    connection.send(head(&format!("Content-Length: {LARGE}\r\n"))).await;
    connection.send(vec![b'a'; MIB]).await;
    let mut call = replica.accept().await;
    call.head().await;
    call.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 8\r\n\r\ntoo long").await;
    drop(call);
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "too long"));
    assert_eq!(answer.header("connection"), "close", "the rest of the body is not waited for");
    assert_eq!(connection.rest().await, b"");
    let record = &gateway.exactly(1).await[0];
    assert_eq!((&record["Reason"], &record["ModelStatusCode"]), (&"model_error".into(), &413.into()));
}

/// The one record says that the client left, at `status`.
async fn assert_gone(gateway: &Gateway, status: u16) -> Value {
    let record = gateway.exactly(1).await.remove(0);
    assert_eq!(
        (&record["Reason"], &record["EndedBy"]),
        (&"client_gone".into(), &"client".into()),
        "{record}"
    );
    assert_eq!(record["StatusCode"], status, "{record}");
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_waits_cancels_the_call() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "body")).await;
    let (call, _) = replica.request().await;
    drop(connection);
    call.closed().await;
    assert_gone(&gateway, 499).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_uploads_cancels_the_call() {
    for framing in ["Content-Length: 1000\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let replica = Replica::bind().await;
        let gateway = gateway(&replica).await;
        let mut connection = gateway.connect().await;
        connection.send(head("").trim_end().to_owned() + "\r\n" + framing).await;
        let mut call = replica.accept().await;
        call.head().await;
        drop(connection);
        let received = call.closed().await;
        assert!(!received.ends_with(b"0\r\n\r\n"), "the cut body was ended");
        assert_gone(&gateway, 499).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_mid_stream_cancels_the_call() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "")).await;
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    connection.head().await.unwrap();
    assert_eq!(connection.chunk().await, b"hello");
    drop(connection);
    call.closed().await;
    assert_eq!(assert_gone(&gateway, 200).await["ResponseBytes"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_while_it_waits_cancels_the_call_and_no_other() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut h2 = gateway.h2_streams().await;
    let (response, mut upload) = h2.send_request(h2_score(), true).unwrap();
    let (call, _) = replica.request().await;
    let (other, _) = h2.send_request(h2_score(), true).unwrap();
    let (mut other_call, _) = replica.request().await;
    upload.send_reset(h2::Reason::CANCEL);
    assert!(response.await.unwrap_err().is_reset());
    call.closed().await;
    let gone = gateway.records(1).await.remove(0);
    assert_eq!((&gone["Reason"], &gone["StatusCode"]), (&"client_gone".into(), &499.into()), "{gone}");
    other_call.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(other.await.unwrap().status(), 200);
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_while_it_uploads_cancels_the_call() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut h2 = gateway.h2_streams().await;
    let (_response, mut upload) = h2.send_request(h2_score(), false).unwrap();
    upload.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut call = replica.accept().await;
    call.head().await;
    assert_eq!(call.bytes(10).await, b"5\r\nhello\r\n");
    upload.send_reset(h2::Reason::CANCEL);
    assert_eq!(call.closed().await, b"", "the cut body was not ended");
    assert_gone(&gateway, 499).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_in_mid_answer_cancels_the_call() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut h2 = gateway.h2_streams().await;
    let (response, mut upload) = h2.send_request(h2_score(), true).unwrap();
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "hello");
    upload.send_reset(h2::Reason::CANCEL);
    call.closed().await;
    assert_eq!(assert_gone(&gateway, 200).await["ResponseBytes"], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_drops_its_http2_connection_cancels_all_its_calls() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica).await;
    let mut frames = gateway.frames().await;
    let key = format!("Bearer {KEY}");
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/api/v1/service/iris/score"),
        (b":authority", b"localhost"),
        (b"authorization", key.as_bytes()),
    ];
    frames.headers(1, &fields, Rest::Nothing).await;
    let (one, _) = replica.request().await;
    frames.headers(3, &fields, Rest::Nothing).await;
    let (other, _) = replica.request().await;
    drop(frames);
    one.closed().await;
    other.closed().await;
    let records = gateway.exactly(2).await;
    assert!(records.iter().all(|record| record["Reason"] == "client_gone" && record["StatusCode"] == 499));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_cancels_its_call_at_an_http2_replica() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let replica = Upstream::h2(None, move |_, mut respond| {
        let tell = tell.clone();
        async move {
            tell.send(None).unwrap();
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            tell.send(Some(reset.map_err(|error| error.to_string()))).unwrap();
        }
    })
    .await;
    let services = service("iris", replica.address, "").replace("name: blue", "name: blue, protocol: h2");
    let gateway = Gateway::start(&config(&services)).await;
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "body")).await;
    assert_eq!(told.recv().await.unwrap(), None, "the call has arrived");
    drop(connection);
    assert_eq!(told.recv().await.unwrap(), Some(Ok(h2::Reason::CANCEL)));
    assert_gone(&gateway, 499).await;
}
