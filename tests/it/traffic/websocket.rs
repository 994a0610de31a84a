//! WebSockets: no tunnel before the replica's 101, both ways at the pace of the slower side, ends and resets passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    Answer, Call, Connection, End, Gateway, KEY, Replica, Seen, Upstream, WEBSOCKET_ACCEPT, WEBSOCKET_KEY,
    assert_record, config, eventually, ok, score_request, service, soon, websocket_agreed,
    websocket_handshake, with_plain_listener,
};

/// A handshake with a further line.
fn handshake(line: &str) -> String {
    websocket_handshake("iris", KEY).replace("\r\n\r\n", &format!("\r\n{line}\r\n"))
}

/// A 101 with these fields.
fn switching(fields: &str) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n")
}

fn with_websocket(replica: std::net::SocketAddr, more: &str) -> String {
    service("iris", replica, &format!("    websocket: true\n{more}"))
}

async fn gateway(replica: &Replica, more: &str) -> Gateway {
    let one_worker = config(&with_websocket(replica.address, more)).replace("workers: 2", "workers: 1");
    Gateway::start(&with_plain_listener(&one_worker)).await
}

async fn plain(gateway: &Gateway) -> Connection {
    Connection::plain(gateway.listener("plain")).await
}

/// Opens a tunnel over `connection`; gives its replica's end and the two heads.
async fn open(connection: &mut Connection, replica: &Replica) -> (Call, String, String) {
    connection.send(handshake("")).await;
    let mut call = replica.accept().await;
    let request = call.head().await;
    call.send(websocket_agreed()).await;
    let answer = connection.head().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    (call, request, answer)
}

/// How often a head has this line.
fn count(head: &str, line: &str) -> usize {
    head.split("\r\n").filter(|have| have.eq_ignore_ascii_case(line)).count()
}

/// Waits until the peer has reset the connection.
async fn until_reset(mut tcp: TcpStream) {
    let mut bytes = [0; 1024];
    let error = soon("a reset", async {
        loop {
            match tcp.read(&mut bytes).await {
                Ok(0) => panic!("an end, not a reset"),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    });
    assert_eq!(error.await.kind(), std::io::ErrorKind::ConnectionReset);
}

fn reset(call: &Call) {
    socket2::SockRef::from(&call.tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_carries_bytes_both_ways_and_leaves_one_record() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let mut connection = gateway.connect().await;
    let (mut call, request, answer) = open(&mut connection, &replica).await;

    assert!(request.starts_with("GET /score?room=1 HTTP/1.1\r\n"), "{request}");
    for line in ["connection: upgrade", "upgrade: websocket", &format!("sec-websocket-key: {WEBSOCKET_KEY}")]
    {
        assert_eq!(count(&request, line), 1, "{line}: {request}");
    }
    assert!(request.contains("sec-websocket-protocol: chat\r\n"), "{request}");
    assert!(!request.to_lowercase().contains("authorization"), "{request}");
    for line in
        ["connection: upgrade", "upgrade: websocket", &format!("sec-websocket-accept: {WEBSOCKET_ACCEPT}")]
    {
        assert_eq!(count(&answer, line), 1, "{line}: {answer}");
    }
    for framing in ["content-length", "transfer-encoding", "keep-alive", "close"] {
        assert!(!answer.to_lowercase().contains(framing), "{framing}: {answer}");
    }
    for gauge in ["scoregate_tunnels", "scoregate_requests_in_flight"] {
        gateway.until_metric(&format!(r#"{gauge}{{service="iris"}}"#), 1.0).await;
    }

    for round in 0..3 {
        let (ping, pong) = (format!("ping {round}"), format!("pong {round}!"));
        connection.send(&ping).await;
        assert_eq!(call.bytes(ping.len()).await, ping.as_bytes());
        call.send(&pong).await;
        assert_eq!(connection.bytes(pong.len()).await, pong.as_bytes());
    }
    // One side's end is passed on, and the other may still speak.
    connection.finish().await;
    let mut rest = Vec::new();
    soon("the client's end", call.tcp.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    call.send("bye").await;
    assert_eq!(connection.bytes(3).await, b"bye");
    drop(call);
    assert_eq!(connection.ending().await, (vec![], End::Clean));

    let record = &gateway.exactly(1).await[0];
    let expected = json!({
        "StatusCode": 101, "ModelStatusCode": 101, "Reason": "ok", "EndedBy": "client", "RequestBytes": 18,
        "ResponseBytes": 24, "HTTPMethod": "GET",
    });
    assert_record(record, &expected);
    assert!(record["StreamMs"].is_number(), "{record}");
    assert_eq!(gateway.metric(r#"scoregate_tunnels{service="iris"}"#).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_sends_early_waits_for_the_101_and_then_goes_first() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let mut connection = gateway.connect().await;
    connection.send(handshake("") + "early ").await;
    let mut call = replica.accept().await;
    call.head().await;
    connection.send("bird ").await;
    // Can only be wrong if something did go through.
    let mut byte = [0];
    let read = call.tcp.try_read(&mut byte);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    call.send(websocket_agreed() + "worm").await;
    connection.head().await.unwrap();
    assert_eq!(connection.bytes(4).await, b"worm");
    connection.send("late").await;
    assert_eq!(call.bytes(15).await, b"early bird late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_handshake_that_is_not_agreed_to_is_an_ordinary_request() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    for status in ["200 OK", "403 Forbidden", "426 Upgrade Required"] {
        let mut connection = gateway.connect().await;
        // Whoever took the answer for a 101 would hand this to the replica as it stands.
        let hidden = "GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n";
        connection.send(handshake("") + hidden).await;
        let mut call = replica.accept().await;
        call.head().await;
        let refusal = format!(
            "HTTP/1.1 {status}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\
             Content-Length: 2\r\n\r\nno"
        );
        call.send(&refusal).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status.to_string().as_str(), answer.text().as_str()), (&status[..3], "no"));
        assert_eq!((answer.header("upgrade"), answer.header("connection")), ("", ""));
        assert_eq!(connection.answer().await.status, 404, "the gateway's own to what follows");
        // The next that the replica gets on that connection is the next call.
        let (next, ()) = tokio::join!(gateway.score("iris", Some(KEY), "next"), async {
            assert_eq!(call.request().await.body, b"next");
            call.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        });
        assert_eq!(next.status, 200);
    }
    let records = gateway.exactly(9).await;
    assert!(records.iter().all(|record| record["StatusCode"] != 101), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_101_that_does_not_answer_the_handshake_is_no_tunnel() {
    let accept = format!("Sec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n");
    let fields = [
        accept.clone(),
        format!("Upgrade: websocket\r\n{accept}"),
        format!("Connection: Upgrade\r\n{accept}"),
        format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{accept}"),
        format!("Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n{accept}"),
        format!("Upgrade: websocket\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept}"),
        "Upgrade: websocket\r\nConnection: Upgrade\r\n".to_owned(),
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n".to_owned(),
        format!("Upgrade: websocket\r\nConnection: Upgrade\r\n{accept}{accept}"),
    ];
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let calls = fields.len();
    for fields in fields {
        let mut connection = gateway.connect().await;
        connection.send(handshake("") + "early").await;
        let mut call = replica.accept().await;
        call.head().await;
        call.send(switching(&fields)).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_protocol"), "{fields}");
        assert_eq!(call.closed().await, b"", "{fields}");
    }
    let records = gateway.exactly(calls).await;
    assert!(records.iter().all(|record| record["Reason"] == "upstream_protocol"), "{records:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_101_that_nobody_asked_for_is_no_tunnel() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let asked = handshake("");
    for (what, wire) in [
        ("an ordinary call", score_request("iris", Some(KEY), "")),
        ("no Connection", asked.replace("Connection: keep-alive, Upgrade\r\n", "")),
        ("h2c", asked.replace("WebSocket\r\n", "h2c\r\n")),
        ("h2c as well", asked.replace("WebSocket\r\n", "websocket, h2c\r\n")),
        ("a POST", asked.replace("GET ", "POST ").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n")),
        ("a body", asked.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi")),
        ("HTTP/1.0", asked.replace("HTTP/1.1", "HTTP/1.0")),
    ] {
        let mut connection = gateway.connect().await;
        connection.send(wire).await;
        let mut call = replica.accept().await;
        let head = call.head().await.to_lowercase();
        assert!(!head.contains("upgrade"), "{what}: {head}");
        call.send(websocket_agreed()).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_protocol"), "{what}");
    }
    gateway.exactly(7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_websocket_takes_a_handshake_for_an_ordinary_get() {
    let replica = Upstream::answering(|_: &Seen| ok(b"plain")).await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, ""))).await;
    assert_eq!(gateway.call(handshake("")).await.text(), "plain");
    let seen = &replica.seen()[0];
    assert_eq!((seen.header("upgrade"), seen.header("connection")), ("", ""));
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_goes_through_the_same_doors_as_any_call() {
    let replica = Replica::bind().await;
    let gateway =
        gateway(&replica, "    limits: { concurrent_requests_per_replica: 1, queue_wait: 0s }").await;
    let key = format!("Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\n");
    for (wire, status, reason) in [
        (handshake("").replace(KEY, "wrong"), 401, "auth_invalid"),
        (handshake("").replace("/iris/", "/other/"), 404, "unknown_service"),
        (handshake("").replace(&key, ""), 400, "bad_request"),
        (handshake(&key), 400, "bad_request"),
        (handshake("").replace(WEBSOCKET_KEY, "c2hvcnQ="), 400, "bad_request"),
        (handshake("").replace("Sec-WebSocket-Version: 13\r\n", ""), 400, "bad_request"),
    ] {
        let answer: Answer = gateway.call(&wire).await;
        gateway.refused(&answer, status, reason).await;
    }
    // A tunnel holds its place until it ends.
    let mut connection = gateway.connect().await;
    let (call, ..) = open(&mut connection, &replica).await;
    let refused = gateway.score("iris", Some(KEY), "").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    drop(call);
    connection.ending().await;
    drop(connection);
    eventually("the place is free", async || {
        let mut connection = gateway.connect().await;
        connection
            .send(handshake("").replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"))
            .await;
        let answered = async {
            let mut call = replica.accept().await;
            call.head().await;
            call.send(
                "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n",
            )
            .await;
            std::future::pending::<()>().await;
        };
        let answer =
            tokio::select! { answer = connection.answer() => answer, () = answered => unreachable!() };
        (answer.status == 426).then(|| assert_eq!(answer.header("sec-websocket-version"), "13"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_replica_resets_the_client() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let mut client = TcpStream::connect(gateway.listener("plain")).await.unwrap();
    client.write_all(handshake("").as_bytes()).await.unwrap();
    let mut call = replica.accept().await;
    call.head().await;
    call.send(websocket_agreed() + "last").await;
    let mut seen = Vec::new();
    soon("the last words", async {
        while !seen.ends_with(b"last") {
            client.read_buf(&mut seen).await.unwrap();
        }
    })
    .await;
    reset(&call);
    drop(call);
    until_reset(client).await;
    let expected =
        json!({"StatusCode": 101, "Reason": "upstream_reset", "EndedBy": "upstream", "ResponseBytes": 4});
    assert_record(&gateway.exactly(1).await[0], &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_the_client_resets_the_replica() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let client = TcpStream::connect(gateway.listener("plain")).await.unwrap();
    let (mut reading, mut writing) = client.into_split();
    writing.write_all(handshake("").as_bytes()).await.unwrap();
    let mut call = replica.accept().await;
    call.head().await;
    call.send(websocket_agreed()).await;
    soon("the 101", reading.read_u8()).await.unwrap();
    writing.write_all(b"hi").await.unwrap();
    assert_eq!(call.bytes(2).await, b"hi");
    let client = reading.reunite(writing).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    until_reset(call.tcp).await;
    let expected =
        json!({"StatusCode": 101, "Reason": "client_gone", "EndedBy": "client", "RequestBytes": 2});
    assert_record(&gateway.exactly(1).await[0], &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_tls_without_a_goodbye_resets_the_replica() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let mut connection = gateway.connect().await;
    let (call, ..) = open(&mut connection, &replica).await;
    drop(connection);
    until_reset(call.tcp).await;
    assert_record(&gateway.exactly(1).await[0], &json!({"Reason": "client_gone", "EndedBy": "client"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_ends_first_ends_the_tunnel_cleanly() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let mut connection = gateway.connect().await;
    let (mut call, ..) = open(&mut connection, &replica).await;
    call.send("close").await;
    drop(call);
    assert_eq!(connection.ending().await, (b"close".to_vec(), End::Clean));
    // As many clients do once a WebSocket is closed.
    drop(connection);
    assert_record(
        &gateway.exactly(1).await[0],
        &json!({"Reason": "ok", "EndedBy": "upstream", "ResponseBytes": 5}),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_in_which_nobody_speaks_is_cut_after_the_idle_timeout() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "    limits: { idle_timeout: 300ms }").await;
    let mut connection = plain(&gateway).await;
    let (call, ..) = open(&mut connection, &replica).await;
    assert_eq!(connection.ending().await.1, End::Cut);
    until_reset(call.tcp).await;
    assert_record(&gateway.exactly(1).await[0], &json!({"Reason": "upstream_timeout", "EndedBy": "gateway"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_in_which_one_side_speaks_is_not_idle() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "    limits: { idle_timeout: 1s, answer_timeout: 3s }").await;
    let mut connection = plain(&gateway).await;
    let (call, ..) = open(&mut connection, &replica).await;
    // Only the replica speaks, with pauses below the one limit and beyond it together, until the other limit ends it.
    let mut tcp = call.tcp;
    let speaking = tokio::spawn(async move {
        while tcp.write_all(b".").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let (said, end) = connection.ending().await;
    assert_eq!(end, End::Cut);
    assert!(said.iter().all(|byte| *byte == b'.'));
    speaking.await.unwrap();
    let record = &gateway.exactly(1).await[0];
    assert_record(record, &json!({"Reason": "upstream_timeout", "EndedBy": "gateway"}));
    assert!(record["StreamMs"].as_f64().unwrap() > 2900.0, "cut before its time: {record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_a_tunnel_go_on_until_its_timeout() {
    let replica = Replica::bind().await;
    let service = with_websocket(replica.address, "");
    let brief = config(&service).replace("timeout: 5s", "timeout: 2s");
    let mut gateway = Gateway::start(&brief).await;
    let mut connection = gateway.connect().await;
    let (mut call, ..) = open(&mut connection, &replica).await;
    let drained = gateway.begin_drain();
    connection.send("still").await;
    assert_eq!(call.bytes(5).await, b"still");
    call.send("here").await;
    assert_eq!(connection.bytes(4).await, b"here");
    soon("the drain ends", drained).await.unwrap();
    assert_eq!(connection.ending().await.1, End::Cut);
    until_reset(call.tcp).await;
    let expected = json!({"StatusCode": 101, "Reason": "draining", "EndedBy": "gateway", "RequestBytes": 5});
    assert_record(&gateway.records(1).await[0], &expected);
}

/// What is sent in the test of back-pressure.
const LARGE: usize = 48 << 20;
/// What may be on the way then: the socket buffers of two connections and what the gateway holds.
const ON_THE_WAY: usize = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_side_that_does_not_read_stops_the_other_and_nothing_is_lost() {
    let replica = Replica::bind().await;
    let gateway = gateway(&replica, "").await;
    let client = TcpStream::connect(gateway.listener("plain")).await.unwrap();
    let (mut reading, mut writing) = client.into_split();
    writing.write_all(handshake("").as_bytes()).await.unwrap();
    let mut call = replica.accept().await;
    call.head().await;
    call.send(websocket_agreed()).await;
    let mut head = vec![0; 1];
    soon("the 101", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reading.read_u8().await.unwrap());
        }
    })
    .await;
    let (mut replica_reading, mut replica_writing) = call.tcp.into_split();
    let sent = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let [up, down] = sent.clone();
    tokio::spawn(async move { send_all(&mut writing, &up).await });
    tokio::spawn(async move { send_all(&mut replica_writing, &down).await });
    for sent in &sent {
        let taken = crate::streaming::standstill(sent).await;
        assert!(taken < ON_THE_WAY, "{taken} bytes were taken for a peer that reads nothing");
    }
    let (up, down) = tokio::join!(read_all(&mut replica_reading), read_all(&mut reading));
    assert_eq!((up, down), (LARGE, LARGE));
    let expected = json!({"Reason": "ok", "RequestBytes": LARGE, "ResponseBytes": LARGE});
    assert_record(&gateway.exactly(1).await[0], &expected);
}

async fn send_all(to: &mut tokio::net::tcp::OwnedWriteHalf, sent: &AtomicUsize) {
    let piece: Vec<u8> = (0..64 << 10).map(|place| (place % 251) as u8).collect();
    while sent.load(Relaxed) < LARGE {
        to.write_all(&piece).await.unwrap();
        sent.fetch_add(piece.len(), Relaxed);
    }
    to.shutdown().await.unwrap();
}

/// Reads to the end and checks each byte.
async fn read_all(from: &mut tokio::net::tcp::OwnedReadHalf) -> usize {
    let mut bytes = vec![0; 64 << 10];
    let mut place = 0;
    loop {
        let read = soon("more of it", from.read(&mut bytes)).await.unwrap();
        if read == 0 {
            return place;
        }
        for byte in &bytes[..read] {
            assert_eq!(*byte, (place % (64 << 10) % 251) as u8);
            place += 1;
        }
    }
}
