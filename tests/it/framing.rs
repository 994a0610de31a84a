//! What is malformed or over a limit: refused at the door, never half understood, and nothing of it reaches a replica.

use std::time::Duration;

use serde_json::Value;

use super::harness::{
    Answer, Connection, End, Gateway, KEY, Rest, Upstream, config, in_time, score_request, service,
    with_plain_listener,
};

/// A request that must never run: it follows whatever is malformed.
fn hidden() -> String {
    score_request("iris", Some(KEY), "hidden")
}

/// A score request head with `lines` (each with its CR LF) in place of a body's framing.
fn head(lines: &str) -> String {
    format!(
        "POST /api/v1/service/iris/score HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{lines}\r\n"
    )
}

/// A GET with this target and `lines`, which hold the host.
fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{lines}Authorization: Bearer {KEY}\r\n\r\n")
}

async fn gateway(replica: &Upstream) -> Gateway {
    Gateway::start(&config(&service("iris", replica.address, ""))).await
}

/// 4xx, closed, with the reason in header and body.
fn assert_refused(answer: &Answer, status: u16, reason: &str, what: &str) {
    assert_eq!((answer.status, answer.reason()), (status, reason), "{what}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"]["reason"], reason, "{what}");
    assert_eq!(body["error"]["requestId"], answer.header("x-request-id"), "{what}");
    assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
}

/// Sends `wire`; the answer is the refusal and the last thing on the connection.
async fn refused_and_closed(gateway: &Gateway, wire: &[u8], status: u16, reason: &str, what: &str) {
    let mut connection = gateway.connect().await;
    connection.try_send(wire).await;
    let answer = connection.try_answer().await.unwrap_or_else(|| panic!("{what}: closed without an answer"));
    assert_refused(&answer, status, reason, what);
    assert_eq!(answer.header("connection"), "close", "{what}");
    assert_eq!(connection.ending().await, (vec![], End::Clean), "{what}");
}

/// Every one of `wires` is refused with 400 and counted once under `flaw`; nothing reaches the replica, no record is
/// left, and the gateway goes on.
async fn all_malformed(flaw: &str, wires: Vec<(String, Vec<u8>)>) {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    for (what, wire) in &wires {
        let wire = [wire, hidden().as_bytes()].concat();
        refused_and_closed(&gateway, &wire, 400, "bad_request", what).await;
    }
    assert_eq!(replica.accepted(), 0);
    let series = format!("scoregate_requests_malformed_total{{reason=\"{flaw}\"}}");
    assert_eq!(gateway.metric(&series).await, wires.len() as f64);
    assert_eq!(gateway.score("iris", Some(KEY), "ordinary").await.text(), "ordinary");
    gateway.exactly(1).await;
}

fn named<W: Into<Vec<u8>> + Clone>(wires: impl IntoIterator<Item = W>) -> Vec<(String, Vec<u8>)> {
    let name = |wire: &Vec<u8>| String::from_utf8_lossy(&wire[..wire.len().min(300)]).into_owned();
    wires.into_iter().map(Into::into).map(|wire| (name(&wire), wire)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_beside_chunks_or_an_odd_length_is_refused() {
    let lengths = ["+5", "-0", "0x5", "1 0", "", "5, 5", "5,6", "5_0", "18446744073709551616", "٥"];
    let mut heads: Vec<_> =
        lengths.iter().map(|length| head(&format!("Content-Length: {length}\r\n"))).collect();
    heads.extend([
        head(&format!("Content-Length: {}\r\n", "1".repeat(10_000))),
        head("Content-Length: 5\r\nContent-Length: 5\r\n"),
        head("Content-Length: 5\r\nContent-Length: 6\r\n"),
        head("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\nG",
        head("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n") + "0\r\n\r\nG",
        head("content-length: 6\r\nTRANSFER-ENCODING: chunked\r\n") + "0\r\n\r\nG",
        head("Transfer-Encoding: chunked\r\nx-a: b\r\nContent-Length: 0\r\n") + "0\r\n\r\nG",
    ]);
    all_malformed("framing", named(heads)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_coding_that_is_not_plainly_chunked_is_refused() {
    let codings = [
        "xchunked",
        "chunked, gzip",
        "gzip, chunked",
        "identity",
        "",
        ", chunked",
        "chunked,",
        "chunked, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "chunke",
        "chunked chunked",
    ];
    let mut heads: Vec<_> = codings
        .iter()
        .map(|coding| head(&format!("Transfer-Encoding: {coding}\r\n")) + "0\r\n\r\n")
        .collect();
    heads.push(head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n");
    heads.push(head("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n") + "0\r\n\r\n");
    let old = |lines: &str| head(lines).replace("HTTP/1.1", "HTTP/1.0") + "0\r\n\r\n";
    heads.push(old("Transfer-Encoding: chunked\r\n"));
    heads.push(old("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"));
    all_malformed("framing", named(heads)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_does_not_end_with_cr_lf_is_refused() {
    let lines = [
        head("x-a: b\nx-c: d\r\n"),
        head("x-a: b\r\n").replacen("\r\n", "\n", 1),
        head("x-a: b\r\n").replacen("localhost\r\n", "localhost\n", 1),
        head("Content-Length: 0\n"),
        head("").replace("\r\n\r\n", "\r\n\n"),
        "\r\n\r\n".to_owned() + &head(""),
        "\n".to_owned() + &head(""),
        head("").replacen("HTTP/1.1", "HTTP/1.1 ", 1),
        head("").replacen("HTTP/1.1", "HTTP/1.1x", 1),
    ];
    all_malformed("line_end", named(lines)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_is_none_is_refused() {
    let mut fields: Vec<Vec<u8>> = [
        "x-a: b\rc\r\n",
        "x-a: b\0c\r\n",
        "x-a: b\r\n folded\r\n",
        "x-a: b\r\n\tfolded\r\n",
        "x-a : b\r\n",
        "x-a\t: b\r\n",
        "no colon\r\n",
        "nocolon\r\n",
        ": b\r\n",
        "x a: b\r\n",
        "x-a: \u{7f}\r\n",
        "x(a): b\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
    ]
    .iter()
    .map(|field| head(field).into_bytes())
    .collect();
    fields.push([b"GET / HTTP/1.1\r\nHost: localhost\r\n\xefx: y\r\n\r\n".as_slice(), b""].concat());
    all_malformed("field", named(fields)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_none_is_refused() {
    let score = "/api/v1/service/iris/score";
    let hosts = [
        "",
        "a, b",
        "user@localhost",
        "localhost/path",
        "localhost?x",
        "localhost#x",
        "localhost:99999",
        "localhost:",
        "localhost:8443:1",
        "localhost:x",
        "[::1",
        "loc alhost",
        "loc\\alhost",
    ];
    let mut heads: Vec<_> = hosts.iter().map(|host| get(score, &format!("Host: {host}\r\n"))).collect();
    // An empty port is allowed by RFC 3986 and means the default one.
    heads.retain(|head| !head.contains("Host: localhost:\r\n"));
    heads.push(get(score, &format!("Host: {}\r\n", "a".repeat(300))));
    heads.push(get(score, ""));
    heads.push(get(score, "Host: localhost\r\nHost: localhost\r\n"));
    heads.push(get(score, "Host: localhost\r\nHost: other\r\n"));
    heads.push(get("https://user@localhost/", "Host: localhost\r\n"));
    all_malformed("host", named(heads)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_line_or_target_that_is_none_is_refused() {
    let host = "Host: localhost\r\n\r\n";
    let lines = [
        "GET / HTTP/1.2\r\n",
        "GET / HTTP/2.0\r\n",
        "GET / http/1.1\r\n",
        "GET /\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET /a b HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "G(T / HTTP/1.1\r\n",
        "\u{16}\u{3}\u{1}\r\n",
    ];
    let mut wires: Vec<_> = lines.iter().map(|line| (*line).to_owned() + host).collect();
    wires.push("X".repeat(10_240) + " / HTTP/1.1\r\n" + host);
    // The HTTP/2 preface on a connection that agreed on HTTP/1.1.
    wires.push("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned());
    all_malformed("start_line", named(wires)).await;

    let targets = ["/score#x", "*", "score", "ftp://localhost/", "localhost:443", "/\u{e9}"];
    all_malformed("target", named(targets.map(|target| get(target, "Host: localhost\r\n")))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_over_a_limit_is_refused_by_name_and_leaves_one_record_each() {
    let replica = Upstream::echo().await;
    let limited = service("iris", replica.address, "    limits: { header_bytes: 2048 }");
    let gateway = Gateway::start(&config(&limited)).await;
    let fields: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = format!("/{}", "a".repeat(17 * 1024));
    for (wire, status, says) in [
        (get(&long, "Host: localhost\r\n"), 414, "16384"),
        (head(&fields), 431, "100"),
        (head(&format!("x-long: {}\r\n", "a".repeat(65 * 1024))), 431, "65536"),
        // Never ended.
        (format!("GET / HTTP/1.1\r\nx-long: {}", "a".repeat(70 * 1024)), 431, "65536"),
    ] {
        let mut connection = gateway.connect().await;
        connection.try_send(&wire).await;
        let answer = connection.answer().await;
        assert_refused(&answer, status, "headers_too_large", says);
        assert!(answer.text().contains(says), "{}", answer.text());
        assert_eq!(answer.header("connection"), "close");
        assert_eq!(connection.ending().await, (vec![], End::Clean));
    }
    // The service's own limit is lower, and told only to those whom it lets in.
    let answer = gateway.call(head(&format!("x-long: {}\r\n", "a".repeat(2048)))).await;
    assert_refused(&answer, 431, "headers_too_large", "of the service");
    assert!(
        answer.text().contains("limits.header_bytes") && answer.text().contains("2048"),
        "{}",
        answer.text()
    );
    assert_eq!(replica.accepted(), 0);
    assert_eq!(gateway.score("iris", Some(KEY), "ordinary").await.status, 200);
    let records = gateway.exactly(6).await;
    let reasons: Vec<_> = records.iter().map(|record| record["Reason"].as_str().unwrap()).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == "headers_too_large").count(), 5, "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_fields_over_http2_are_refused_cookie_crumbs_included() {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    let mut h2 = gateway.h2().await;
    for name in ["x-a", "cookie"] {
        let mut request = h2.request("GET", "/api/v1/service/iris/score");
        for _ in 0..101 {
            request = request.header(name, "a=b");
        }
        let answer = h2.call(request.body(Default::default()).unwrap()).await;
        assert_refused(&answer, 431, "headers_too_large", name);
    }
    let long = h2.request("GET", "/api/v1/service/iris/score").header("x-long", "a".repeat(70 * 1024));
    // Over 64 KiB the HTTP/2 library answers by itself, before there is a call: without a body, and without a record.
    let answer = h2.call(long.body(Default::default()).unwrap()).await;
    assert_eq!(answer.status, 431);
    assert_eq!(replica.accepted(), 0);
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_over_the_limit_is_refused_before_it_is_read_or_as_soon_as_it_is_over() {
    let replica = Upstream::echo().await;
    let gateway =
        Gateway::start(&config(&service("iris", replica.address, "    limits: { body_bytes: 1000 }"))).await;
    // Not a byte of the body is sent: the answer cannot have waited for it.
    let declared = gateway.call(head("Content-Length: 100000\r\n")).await;
    assert_refused(&declared, 413, "body_too_large", "declared");
    assert_eq!(declared.header("connection"), "close");
    let text = declared.text();
    assert!(text.contains("limits.body_bytes") && text.contains("1000") && text.contains("100000"), "{text}");
    assert_eq!(replica.accepted(), 0);

    let mut connection = gateway.connect().await;
    connection.send(head("Transfer-Encoding: chunked\r\n")).await;
    connection.send(format!("1f4\r\n{}\r\n", "a".repeat(500))).await;
    connection.send(format!("1f5\r\n{}\r\n", "a".repeat(501))).await;
    let chunked = connection.answer().await;
    assert_refused(&chunked, 413, "body_too_large", "chunked");
    assert!(chunked.text().contains("limits.body_bytes") && chunked.text().contains("1000"));
    assert_eq!(chunked.header("connection"), "close");

    let mut h2 = gateway.h2().await;
    let request =
        h2.request("POST", "/api/v1/service/iris/score").header("authorization", format!("Bearer {KEY}"));
    let answer = h2.call(request.body(vec![b'a'; 1001].into()).unwrap()).await;
    assert_refused(&answer, 413, "body_too_large", "h2");

    let exact = "a".repeat(1000);
    assert_eq!(gateway.score("iris", Some(KEY), &exact).await.text(), exact);
    assert!(replica.seen().iter().all(|seen| seen.body.len() == 1000), "no more than a whole one");
    let records = gateway.exactly(4).await;
    let count = |reason| records.iter().filter(|record| record["Reason"] == reason).count();
    assert_eq!((count("body_too_large"), count("ok")), (3, 1));
}

/// Chunked bodies that are broken, each after a good head.
fn broken_bodies() -> Vec<(String, Vec<u8>)> {
    let first = [
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5\r\r;a\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n",
        "5;a=\"\r\n0\r\n\r\n",
        "+5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "g\r\nhello\r\n",
        "\r\n5\r\nhello\r\n",
        "10000000000000005\r\nhello\r\n",
        "ffffffffffffffff5\r\nhello\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx y: z\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
    ];
    let mut bodies = named(first);
    bodies.push((
        "64 KiB of extension".to_owned(),
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(65536)).into(),
    ));
    let trailers: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    bodies.push(("200 trailers".to_owned(), format!("5\r\nhello\r\n0\r\n{trailers}\r\n").into()));
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_body_is_the_clients_fault_and_ends_both_connections() {
    let replica = Upstream::echo().await;
    let one_worker = config(&service("iris", replica.address, "")).replace("workers: 2", "workers: 1");
    let gateway = Gateway::start(&one_worker).await;
    gateway.score("iris", Some(KEY), "first").await;
    let bodies = broken_bodies();
    let mut accepted = replica.accepted();
    for (number, (what, body)) in bodies.iter().enumerate() {
        let wire = [head("Transfer-Encoding: chunked\r\n").as_bytes(), body, hidden().as_bytes()].concat();
        refused_and_closed(&gateway, &wire, 400, "bad_request", what).await;
        // The pooled connection that the broken call had is gone, if it had one at all: a body that is broken from its first
        // piece on reaches nobody. Its successor gets its own answer.
        let marker = format!("marker {number}");
        assert_eq!(gateway.score("iris", Some(KEY), &marker).await.text(), marker);
        let (before, now) = (accepted, replica.accepted());
        assert!(now == before || now == before + 1, "{what}: {now} after {before}");
        accepted = now;
    }
    assert!(accepted > 1, "some bodies do begin well");
    let whole: Vec<_> =
        replica.seen().iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
    assert_eq!(whole.len(), 1 + bodies.len(), "only the markers arrived whole: {whole:?}");
    let records = gateway.exactly(1 + 2 * bodies.len()).await;
    let bad: Vec<_> = records.iter().filter(|record| record["StatusCode"] == 400).collect();
    assert_eq!(bad.len(), bodies.len());
    assert!(
        bad.iter().all(|record| record["Reason"] == "bad_request" && record["EndedBy"] == "gateway"),
        "{bad:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_ends_early_is_never_taken_for_a_whole_one() {
    let replica = Upstream::echo().await;
    let gateway = with_plain(&replica).await;
    for wire in
        [head("Content-Length: 10\r\n") + "hello", head("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n"]
    {
        // Without TLS a client can end its side alone and still read.
        let mut connection = Connection::plain(gateway.listener("plain")).await;
        connection.send(&wire).await;
        connection.finish().await;
        let answer = connection.try_answer().await;
        assert!(answer.is_none_or(|answer| answer.status == 400), "{wire}");
    }
    assert_eq!(gateway.score("iris", Some(KEY), "ordinary").await.text(), "ordinary");
    assert_eq!(replica.seen().len(), 1, "the early ends did not arrive whole");
    let records = gateway.exactly(3).await;
    let gone = |record: &&Value| record["Reason"] == "client_gone" && record["StatusCode"] != 502;
    assert_eq!(records.iter().filter(gone).count(), 2, "{records:#?}");
}

async fn with_plain(replica: &Upstream) -> Gateway {
    Gateway::start(&with_plain_listener(&config(&service("iris", replica.address, "")))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_calls_are_answered_in_order_until_a_malformed_one() {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    let valid = |body| score_request("iris", Some(KEY), body);
    let mut connection = gateway.connect().await;
    let malformed = get("/", "");
    connection.send([valid("one"), valid("two"), valid("three"), malformed, valid("five")].concat()).await;
    for body in ["one", "two", "three"] {
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.text()), (200, body.to_owned()));
    }
    let refusal = connection.answer().await;
    assert_refused(&refusal, 400, "bad_request", "the fourth");
    assert_eq!(refusal.header("connection"), "close");
    assert_eq!(connection.ending().await, (vec![], End::Clean));
    let bodies: Vec<_> = replica.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    gateway.exactly(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_cut_at_any_byte_is_answered_as_if_it_were_whole() {
    let replica = Upstream::echo().await;
    let gateway = with_plain(&replica).await;
    let mut calls = 0;
    for (wire, status) in [
        (score_request("iris", Some(KEY), "body"), 200),
        (head("Transfer-Encoding: chunked\r\n") + "4\r\nbo\r\n\r\n2\r\ndy\r\n0\r\nx-t: 1\r\n\r\n", 200),
        (score_request("iris", None, "body"), 401),
        (head("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"), 400),
        (head("x-a: b\nx-c: d\r\n"), 400),
    ] {
        // What is malformed is refused as soon as it is seen, perhaps before the cut.
        for cut in 1..wire.len() {
            let mut connection = Connection::plain(gateway.listener("plain")).await;
            connection.send(&wire[..cut]).await;
            // So that the halves arrive apart; nothing depends on it.
            tokio::time::sleep(Duration::from_millis(1)).await;
            connection.try_send(&wire[cut..]).await;
            let answer = connection.answer().await;
            assert_eq!(answer.status, status, "{wire} cut at {cut}");
            calls += usize::from(status != 400);
        }
    }
    assert!(replica.seen().iter().all(|seen| seen.body == b"body" || seen.body == b"bo\r\ndy"));
    gateway.exactly(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_a_refused_call_is_never_run_as_a_request() {
    let replica = Upstream::echo().await;
    let limited = service("iris", replica.address, "    limits: { body_bytes: 100 }");
    let gateway = Gateway::start(&config(&limited)).await;
    let valid = score_request("iris", Some(KEY), "valid");
    for (request, status) in [
        (score_request("iris", Some("wrong"), &hidden()), 401),
        (score_request("nowhere", Some(KEY), &hidden()), 404),
        (score_request("iris", Some(KEY), &hidden()), 413),
    ] {
        let mut connection = gateway.connect().await;
        connection.send(request + &valid).await;
        let refusal = connection.answer().await;
        assert_eq!(refusal.status, status);
        // The body was taken off the connection: what follows is the next request and no other.
        let next = connection.answer().await;
        assert_eq!((next.status, next.text()), (200, "valid".to_owned()), "after {status}");
    }
    // The same with a body that comes only after the refusal.
    let mut connection = gateway.connect().await;
    let hidden = hidden();
    connection.send(head(&format!("Content-Length: {}\r\n", hidden.len())).replace(KEY, "wrong")).await;
    let refusal = connection.answer().await;
    assert_eq!((refusal.status, refusal.header("connection")), (401, ""));
    connection.send(hidden + &valid).await;
    assert_eq!(connection.answer().await.text(), "valid");
    assert!(replica.seen().iter().all(|seen| seen.body == b"valid"));
    gateway.exactly(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_body_too_long_to_be_thrown_away_closes_the_connection() {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    for framing in ["Content-Length: 70000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let wire = head(framing).replace(KEY, "wrong") + &hidden();
        refused_and_closed(&gateway, wire.as_bytes(), 401, "auth_invalid", framing).await;
    }
    assert_eq!(replica.accepted(), 0);
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_first_is_told_to_continue_only_if_its_call_is_taken() {
    let replica = Upstream::echo().await;
    let limited = service("iris", replica.address, "    limits: { body_bytes: 100 }");
    let gateway = Gateway::start(&config(&limited)).await;
    let expects = |length: usize| head(&format!("Content-Length: {length}\r\nExpect: 100-continue\r\n"));

    let mut connection = gateway.connect().await;
    for body in ["hello", "again"] {
        connection.send(expects(5)).await;
        assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 100 "));
        connection.send(body).await;
        assert_eq!(connection.answer().await.text(), body);
    }
    // A client that does not wait is not told any more.
    connection.send(expects(5) + "hasty").await;
    assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(connection.bytes(5).await, b"hasty");

    for (wire, status) in [
        (expects(5).replace(KEY, "wrong"), 401),
        (expects(5).replace("iris", "nowhere"), 404),
        (expects(101), 413),
    ] {
        let mut connection = gateway.connect().await;
        connection.send(&wire).await;
        let head = connection.head().await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "no 100 before the refusal: {head}");
        // The body will not come, and nobody can say whether what comes is the body.
        assert!(head.contains("connection: close\r\n"), "{head}");
        connection.try_send(hidden()).await;
        let (rest, end) = connection.ending().await;
        assert_eq!(end, End::Clean);
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "one final status only");
    }
    assert_eq!(replica.seen().len(), 3);
    assert!(replica.seen().iter().all(|seen| seen.header("expect").is_empty()));
    gateway.exactly(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_a_request_become_no_fields() {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    let trailers = "Authorization: x\r\nHost: y\r\nContent-Length: 1\r\nX-Forwarded-For: 127.0.0.9\r\n";
    let wire =
        head("Transfer-Encoding: chunked\r\nTrailer: Host\r\n") + "2\r\nhi\r\n0\r\n" + trailers + "\r\n";
    assert_eq!(gateway.call(wire).await.text(), "hi");
    let seen = replica.seen();
    assert_eq!((seen[0].header("x-forwarded-for"), seen[0].header("authorization")), ("127.0.0.1", ""));
    assert_eq!(seen[0].header("host"), replica.address.to_string());
    assert_eq!(seen[0].header("trailer"), "");
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_not_passed_on_and_its_call_is_an_ordinary_one() {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    let upgrade = "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n";
    let mut connection = gateway.connect().await;
    // Also where `Connection` forgets to name them.
    for named in ["Connection: Upgrade, HTTP2-Settings\r\n", ""] {
        connection.send(head(&format!("{upgrade}{named}Content-Length: 2\r\n")) + "hi").await;
        assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 200 "));
        assert_eq!(connection.bytes(2).await, b"hi");
    }
    for seen in replica.seen() {
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(seen.header(name), "", "{}", seen.head);
        }
    }
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_is_refused() {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    let answer = gateway.call("CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n").await;
    assert_refused(&answer, 405, "bad_request", "h1");
    let mut frames = gateway.frames().await;
    frames.headers(1, &[(b":method", b"CONNECT"), (b":authority", b"localhost:443")], Rest::Nothing).await;
    // 405 has no number of its own in HPACK.
    assert_eq!(frames.outcome(1).await, super::harness::Outcome::Answered(0));
    let mut frames = gateway.frames().await;
    let extended: [(&[u8], &[u8]); 5] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/api/v1/service/iris/score"),
        (b":authority", b"localhost"),
    ];
    frames.headers(1, &extended, Rest::Nothing).await;
    assert!(frames.outcome(1).await.is_refusal_of_malformed());
    assert_eq!(replica.accepted(), 0);
    let records = gateway.exactly(2).await;
    assert!(records.iter().all(|record| record["StatusCode"] == 405), "{records:#?}");
}

/// The fields of a good HTTP/2 score call.
fn h2_fields(more: &[(&'static [u8], &'static [u8])]) -> Vec<(&'static [u8], &'static [u8])> {
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", b"/api/v1/service/iris/score"),
        (b":authority", b"localhost"),
        (b"authorization", b"Bearer primary-0123456789abcdefghijklmnop"),
    ];
    fields.extend(more);
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_length_that_does_not_fit_the_data_never_makes_a_whole_request() {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    for (length, data) in [(&b"0"[..], &b"hello"[..]), (b"10", b"hello"), (b"5", b"hellohello")] {
        let mut frames = gateway.frames().await;
        frames.headers(1, &h2_fields(&[(b"content-length", length)]), Rest::Follows).await;
        frames.data(1, data, Rest::Nothing).await;
        let outcome = frames.outcome(1).await;
        assert!(outcome.is_refusal_of_malformed(), "{length:?}: {outcome:?}");
    }
    let mut frames = gateway.frames().await;
    frames.headers(1, &h2_fields(&[(b"content-length", b"5")]), Rest::Follows).await;
    frames.data(1, b"hello", Rest::Nothing).await;
    assert_eq!(frames.outcome(1).await, super::harness::Outcome::Answered(200));
    assert_eq!(replica.seen().len(), 1, "{:?}", replica.seen());
    let records = gateway.exactly(4).await;
    // Never the client's leaving. Of a body that the head says is empty nothing is read: such a call may have its answer.
    let bad = |record: &&Value| record["Reason"] == "bad_request";
    assert_eq!(records.iter().filter(bad).count(), 3, "{records:#?}");
    assert!(
        records.iter().filter(bad).filter(|record| record["StatusCode"] == 400).count() >= 2,
        "{records:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_fields_that_could_be_read_as_others_are_refused() {
    let replica = Upstream::echo().await;
    let gateway = gateway(&replica).await;
    let fields: [(&[u8], &[u8]); 19] = [
        (b"x-a", b"b\r\nx-c: d"),
        (b"x-a", b"b\nx-c: d"),
        (b"x-a", b"b\0c"),
        (b"x-a", b" b"),
        (b"x-a", b"b "),
        (b"x-a", b"\tb"),
        (b"X-A", b"b"),
        (b"x a", b"b"),
        (b"x:a", b"b"),
        (b"", b"b"),
        (b"x-a\r\nx-c", b"b"),
        (b"connection", b"close"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b":path", b"/api/v1/service/other/score"),
        (b":unknown", b"b"),
    ];
    for field in fields {
        let mut frames = gateway.frames().await;
        frames.headers(1, &h2_fields(&[field]), Rest::Nothing).await;
        let outcome = frames.outcome(1).await;
        assert!(outcome.is_refusal_of_malformed(), "{}: {outcome:?}", String::from_utf8_lossy(field.0));
    }
    for (name, value) in [(":method", "POST x"), (":path", "/a b"), (":path", ""), (":authority", "a, b")] {
        let mut fields = h2_fields(&[]);
        for field in &mut fields {
            if field.0 == name.as_bytes() {
                field.1 = value.as_bytes();
            }
        }
        let mut frames = gateway.frames().await;
        frames.headers(1, &fields, Rest::Nothing).await;
        let outcome = frames.outcome(1).await;
        assert!(outcome.is_refusal_of_malformed(), "{name} {value}: {outcome:?}");
    }
    assert_eq!(replica.accepted(), 0);
    assert_eq!(gateway.score("iris", Some(KEY), "ordinary").await.text(), "ordinary");
    gateway.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_http2_call_with_a_short_body_ends_without_a_reset() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let mut h2 = gateway.h2_streams().await;
    let post = |length: usize| {
        let uri = format!("https://localhost:{}/api/v1/service/iris/score", gateway.address.port());
        http::Request::post(uri).header("content-length", length).body(()).unwrap()
    };
    let (refused, mut body) = h2.send_request(post(4), false).unwrap();
    // A whole call behind it: by then the gateway has refused the first one, whose body is still to come.
    let (served, _) = h2.send_request(post(0), true).unwrap();
    assert_eq!(in_time("the second call", served).await.unwrap().status(), 401);
    body.send_data("body".into(), true).unwrap();
    let answer = in_time("the refusal", refused).await.unwrap();
    assert_eq!(answer.status(), 401);
    let mut text = answer.into_body();
    while let Some(piece) = in_time("its body", text.data()).await {
        piece.unwrap();
    }
    // Once more a whole call, so that a reset would have arrived.
    let (served, _) = h2.send_request(post(0), true).unwrap();
    assert_eq!(in_time("the third call", served).await.unwrap().status(), 401);
    let reset = std::future::poll_fn(|cx| std::task::Poll::Ready(body.poll_reset(cx))).await;
    assert!(reset.is_pending(), "{reset:?}");
}
