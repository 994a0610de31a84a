//! Writing ahead at the door: no answer is whole before its record is written, whatever kind of answer it is, so that a kill
//! takes none of them; what does not become whole has its one record all the same.

use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;

use super::*;
use crate::harness::{Answer, H2, Replica, ok, websocket_agreed, websocket_handshake};

const FILE: &str = "records: { file: { path: records.jsonl } }";

/// The harness's gateway, whose record file is written ahead.
fn ahead(services: &str) -> String {
    config(services).replace(FILE, "records: { write_ahead: true, file: { path: records.jsonl } }")
}

/// Lines of the record file that are whole records: a kill may leave half a one at the end.
fn whole_records(folder: &Path) -> Vec<Value> {
    let text = std::fs::read(folder.join("records.jsonl")).unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// The record of the call with this id. It must be there: nothing is waited for.
#[track_caller]
fn already(gateway: &Gateway, id: &str) -> Value {
    let records = whole_records(gateway.dir.path());
    let mut found = records.iter().filter(|record| record["RequestId"] == id);
    let record = found.next().unwrap_or_else(|| panic!("{id:?} has its answer and no record")).clone();
    assert_eq!(found.next(), None, "a second record of one call");
    record
}

#[track_caller]
fn assert_already(gateway: &Gateway, answer: &Answer, status: u16, reason: &str) {
    let record = already(gateway, answer.header("x-request-id"));
    assert_eq!((answer.status, &record["StatusCode"]), (status, &status.into()), "{answer:?} {record}");
    assert_eq!(record["Reason"], reason, "{record}");
    assert_eq!(record["ResponseBytes"], answer.body.len(), "{record}");
}

/// Answers in the way that the request's body asks for.
async fn manners() -> Upstream {
    Upstream::answering(|seen| match &*seen.body {
        b"chunks" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n".to_vec()
        }
        b"nothing" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        b"empty" => ok(b""),
        b"much" => ok(&vec![b'x'; 1 << 20]),
        b"failure" => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops".to_vec(),
        other => ok(other),
    })
    .await
}

/// What a request's body asks for, and the status and reason of the answer.
const MANNERS: [(&str, u16, &str); 6] = [
    ("[1]", 200, "ok"),
    ("chunks", 200, "ok"),
    ("nothing", 204, "ok"),
    ("empty", 200, "ok"),
    ("much", 200, "ok"),
    ("failure", 502, "model_error"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_an_answer_over_http1_finds_its_record_written() {
    let upstream = manners().await;
    let until_close = Upstream::once("HTTP/1.1 200 OK\r\n\r\nto the end").await;
    let services = service("iris", upstream.address, "") + &service("rose", until_close.address, "");
    let gateway = Gateway::start(&ahead(&services)).await;
    let mut connection = gateway.connect().await;
    for (body, status, reason) in MANNERS {
        connection.send(score_request("iris", Some(KEY), body)).await;
        assert_already(&gateway, &connection.answer().await, status, reason);
    }
    for (name, key, status, reason) in [
        ("rose", Some(KEY), 200, "ok"),
        ("iris", None, 401, "auth_missing"),
        ("violet", Some(KEY), 404, "unknown_service"),
    ] {
        assert_already(&gateway, &gateway.score(name, key, "[1]").await, status, reason);
    }
    let old = score_request("iris", Some(KEY), "chunks").replace("HTTP/1.1", "HTTP/1.0");
    assert_already(&gateway, &gateway.call(old).await, 200, "ok");
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "").replace("POST", "HEAD")).await;
    assert_already(&gateway, &connection.answer_to_head().await, 405, "bad_request");
    let long =
        score_request("iris", Some(KEY), "").replace("Host:", &format!("X: {}\r\nHost:", "x".repeat(70_000)));
    let refused = gateway.call(long).await;
    assert_already(&gateway, &refused, 431, "headers_too_large");
    gateway.exactly(MANNERS.len() + 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_an_answer_over_http2_finds_its_record_written() {
    let upstream = manners().await;
    let gateway = Gateway::start(&ahead(&service("iris", upstream.address, ""))).await;
    let mut h2 = gateway.h2().await;
    for (body, status, reason) in MANNERS {
        assert_already(&gateway, &h2.score("iris", KEY, body).await, status, reason);
    }
    assert_already(&gateway, &h2.score("iris", "wrong", "[1]").await, 401, "auth_invalid");
    gateway.exactly(MANNERS.len() + 1).await;
}

/// What a record file can be that takes nothing for now: a pipe that is full until it is read.
struct Stuck {
    sender: pipe::Sender,
    receiver: pipe::Receiver,
}

impl Stuck {
    fn at(path: &Path) -> Self {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        let options = || pipe::OpenOptions::new().read_write(true).clone();
        Self {
            sender: options().open_sender(path).unwrap(),
            receiver: options().open_receiver(path).unwrap(),
        }
    }

    async fn fill(&self) {
        self.sender.writable().await.unwrap();
        while self.sender.try_write(b"\n").is_ok() {}
    }

    async fn read(&self) -> String {
        soon("something to read", self.receiver.readable()).await.unwrap();
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = self.receiver.try_read(&mut buffer) {
            text.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8(text).unwrap()
    }
}

/// On a slow machine the first wait may end early, which makes the test weaker but not wrong.
async fn assert_held_up(stuck: &Stuck, answer: impl Future<Output = Answer>) {
    let mut answer = pin!(answer);
    let early = tokio::time::timeout(Duration::from_millis(150), &mut answer).await;
    assert!(early.is_err(), "an answer without its record: {early:?}");
    let mut taken = stuck.read().await;
    let answer = soon("the answer", answer).await;
    while !taken.contains(answer.header("x-request-id")) {
        taken += &stuck.read().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_whole_before_its_record_is_taken() {
    let upstream = manners().await;
    let config = ahead(&service("iris", upstream.address, "")).replace("workers: 2", "workers: 1");
    let (dir, certificates) = prepare(&config);
    let stuck = Stuck::at(&dir.path().join("records.jsonl"));
    let gateway = Gateway::start_in(dir, certificates).await;
    let (mut h1, mut h2) = (gateway.connect().await, gateway.h2().await);
    for (body, _, _) in MANNERS {
        stuck.fill().await;
        h1.send(score_request("iris", Some(KEY), body)).await;
        assert_held_up(&stuck, h1.answer()).await;
        stuck.fill().await;
        assert_held_up(&stuck, h2.score("iris", KEY, body)).await;
    }
}

/// An HTTP/2 replica's end may come in a frame of its own, behind all that was announced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_known_length_is_whole_though_its_replica_has_not_ended_it() {
    let upstream = Upstream::h2(None, |_, mut respond| async move {
        let head = Response::builder().header("content-length", 5).body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        // Until the gateway gives the stream up.
        let _ = std::future::poll_fn(|cx| body.poll_reset(cx)).await;
    })
    .await;
    let services = service("iris", upstream.address, "").replace("name: blue", "name: blue, protocol: h2");
    let gateway = Gateway::start(&ahead(&services)).await;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        connection.send(score_request("iris", Some(KEY), "[1]")).await;
        assert_already(&gateway, &connection.answer().await, 200, "ok");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_are_awaited_before_the_record_is_written() {
    let upstream = Upstream::h2(None, |_, mut respond| async move {
        let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(b"\0\0\0\0\0"), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "13".parse().unwrap());
        body.send_trailers(trailers).unwrap();
    })
    .await;
    let services = service("iris", upstream.address, "    grpc: [echo.Echo]\n    hosts: [localhost]")
        .replace("name: blue", "name: blue, protocol: h2");
    let gateway = Gateway::start(&ahead(&services)).await;
    let mut client = gateway.h2_streams().await;
    let request = http::Request::post("https://localhost/echo.Echo/Talk")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    while body.data().await.is_some() {}
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "13");
    let record = already(&gateway, head.headers["x-request-id"].to_str().unwrap());
    assert_eq!((&record["StatusCode"], &record["Reason"]), (&200.into(), &"model_error".into()), "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_become_whole_has_one_record_too() {
    let replica = Replica::bind().await;
    let (cut, cuts) = Upstream::cut("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    let websocket = "    websocket: true";
    let services = service("iris", replica.address, websocket) + &service("rose", cut.address, "");
    let gateway = Gateway::start(&ahead(&services)).await;

    let mut connection = gateway.connect().await;
    connection.send(score_request("rose", Some(KEY), "[1]")).await;
    assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 200"));
    cuts.add_permits(1);
    connection.ending().await;
    let reasons = |records: &[Value]| -> Vec<String> {
        records.iter().map(|record| record["Reason"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(reasons(&gateway.exactly(1).await), ["upstream_reset"]);

    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "[1]")).await;
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 200"));
    drop(connection);
    assert_eq!(reasons(&gateway.exactly(2).await)[1..], ["client_gone"]);

    let mut connection = gateway.connect().await;
    connection.send(websocket_handshake("iris", KEY)).await;
    let (mut call, _) = replica.request().await;
    call.send(websocket_agreed()).await;
    assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(whole_records(gateway.dir.path()).len(), 2, "a tunnel under way is not over");
    call.send("bye").await;
    drop(call);
    assert_eq!(connection.bytes(3).await, b"bye");
    connection.finish().await;
    connection.ending().await;
    let records = gateway.exactly(3).await;
    assert_eq!((&records[2]["StatusCode"], &records[2]["ResponseBytes"]), (&101.into(), &3.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_no_call_and_each_record_counts_as_dropped() {
    let upstream = Upstream::echo().await;
    let services = service("iris", upstream.address, "");
    let gateway = Gateway::start(&ahead(&services).replace("path: records.jsonl", "path: /dev/full")).await;
    score(&gateway, 5).await;
    let mut h2 = gateway.h2().await;
    for _ in 0..5 {
        assert_eq!(h2.score("iris", KEY, "[1]").await.status, 200);
    }
    assert_eq!(gateway.metric("scoregate_records_total{outcome=\"dropped\"}").await, 10.0);
    assert_eq!(gateway.metric("scoregate_records_accepted_total").await, 10.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_the_file_has_no_room_for_is_delivered_and_counts_as_dropped_once() {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(&[]).await;
    for mode in ["write_behind", "write_ahead"] {
        let spool = format!("{{ path: spool, mode: {mode} }}");
        let config = exporting(&service("iris", upstream.address, ""), &spool).replace(
            "records: { file: { path: records.jsonl",
            "records: { write_ahead: true, file: { path: /dev/full",
        );
        let before = collector.taken().len();
        let gateway = Gateway::start_with(&config, &[("insights", &connection_string(&server))]).await;
        score(&gateway, 20).await;
        assert_eq!(until_settled(&gateway, 20).await, [20.0, 20.0, 0.0, 0.0]);
        assert_eq!(collector.taken().len() - before, 20);
        gateway.until_metric("scoregate_records_total{outcome=\"dropped\"}", 20.0).await;
        assert_eq!(gateway.metric("scoregate_records_total{outcome=\"written\"}").await, 0.0);
    }
}

/// Clients that call without a pause until the gateway is gone, and what they got whole: the ids of the answers.
struct Witnesses {
    ids: Arc<Mutex<Vec<String>>>,
    clients: JoinSet<()>,
}

impl Witnesses {
    async fn start(public: SocketAddr, ca: &Path, per_protocol: usize) -> Self {
        let mut witnesses = Self { ids: Arc::default(), clients: JoinSet::new() };
        for number in 0..per_protocol {
            let body = MANNERS[number % MANNERS.len()].0;
            let ids = Arc::clone(&witnesses.ids);
            let h1 = Connection::tls(public, "localhost", ca).await;
            witnesses.clients.spawn(call_over_http1(h1, body, ids));
            let ids = Arc::clone(&witnesses.ids);
            let h2 = H2::connect(public, "localhost", ca).await;
            witnesses.clients.spawn(call_over_http2(h2, body, ids));
        }
        witnesses
    }

    fn count(&self) -> usize {
        self.ids.lock().unwrap().len()
    }

    /// Waits until they have noticed that the gateway is gone.
    async fn end(mut self) -> Vec<String> {
        // One whose answer was cut has panicked: it is no witness of that answer.
        while soon("the clients' end", self.clients.join_next()).await.is_some() {}
        std::mem::take(&mut *self.ids.lock().unwrap())
    }
}

async fn call_over_http1(mut connection: Connection, body: &'static str, ids: Arc<Mutex<Vec<String>>>) {
    while connection.try_send(score_request("iris", Some(KEY), body)).await {
        let Some(answer) = connection.try_answer().await else { return };
        ids.lock().unwrap().push(answer.header("x-request-id").to_owned());
    }
}

async fn call_over_http2(mut h2: H2, body: &'static str, ids: Arc<Mutex<Vec<String>>>) {
    loop {
        let request = h2.score_request("iris", KEY, body);
        let Ok(answer) = h2.start(request).await else { return };
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        if answer.into_body().collect().await.is_err() {
            return;
        }
        ids.lock().unwrap().push(id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_under_load_takes_no_record_of_an_answer_that_is_whole() {
    let upstream = manners().await;
    let (collector, server) = Collector::start(&[]).await;
    collector.dies();
    let config = exporting(&service("iris", upstream.address, ""), "{ path: spool, mode: write_ahead }");
    let (dir, certificates) = prepare(&config.replace("records: {", "records: { write_ahead: true,"));
    std::fs::write(dir.path().join("insights"), connection_string(&server)).unwrap();
    let mut process = Process::start(dir.path()).await;
    let mut answered = BTreeSet::new();
    for _ in 0..3 {
        let public = process.ready["listeners"]["public"].as_str().unwrap().parse().unwrap();
        let witnesses = Witnesses::start(public, &certificates.ca, 6).await;
        eventually("answers", async || (witnesses.count() >= 300).then_some(())).await;
        process.child.kill().await.unwrap();
        answered.extend(witnesses.end().await);
        // It begins where the last one was killed.
        process = Process::start(dir.path()).await;
    }
    let mut recorded = BTreeMap::new();
    for record in whole_records(dir.path()) {
        *recorded.entry(record["RequestId"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!(recorded.values().all(|times| *times == 1), "a record twice in the file");
    let missing: Vec<_> = answered.iter().filter(|id| !recorded.contains_key(*id)).collect();
    assert!(missing.is_empty(), "{} of {} answers have no record", missing.len(), answered.len());

    collector.is_back();
    eventually("all delivered", async || (counts(&process.page().await)[3] == 0.0).then_some(())).await;
    let taken = collector.taken();
    let missing: Vec<_> = answered.iter().filter(|id| !taken.contains_key(*id)).collect();
    assert!(missing.is_empty(), "{} of {} answers were never delivered", missing.len(), answered.len());
}
