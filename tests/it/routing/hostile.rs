//! Requests made to be read in two ways: they are refused, and no replica hears of them.

use super::{HOSTS, open, request};
use crate::harness::{Answer, Gateway, Upstream, assert_malformed, config, service_of};

/// Spellings of another service's path (or of the own one) that some reader takes for it: T47 and T53 of the
/// hardening list.
const AMBIGUOUS: [&str; 40] = [
    "//score",
    "/score//",
    "/./score",
    "/score/.",
    "/../score",
    "/score/..",
    "/x/../score",
    "/%2e/score",
    "/%2E%2E/score",
    "/x/%2e%2e/score",
    "/x/.%2e/score",
    "/x/%2e./score",
    "/x/..%2fscore",
    "/x/..%2Fscore",
    "/x/..%5cscore",
    "/x/..\\score",
    "/\\score",
    "\\score",
    "/score\\",
    "/%2fscore",
    "/%5cscore",
    "/score%2f",
    "/%73core",
    "/s%63ore",
    "/scor%65",
    "/score%2Ejson",
    "/score;x",
    "/score;x=1/..",
    "/;/score",
    "/..;/score",
    "/score%3bx",
    "/score%00",
    "/score%0a",
    "/score%0d%0aX:1",
    "/score%7f",
    "/score%",
    "/score%2",
    "/score%zz",
    "/x/%252e%252e/score",
    "/x%252fscore",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_spelling_of_a_path_is_refused_and_reaches_nobody() {
    let replica = Upstream::echo().await;
    let services = service_of("AKS none", "iris", replica.address, "")
        + &service_of("AKS key", "secret", replica.address, HOSTS);
    let gateway = Gateway::start(&config(&services)).await;
    // Below each of these the spelling could mean the one service or the other.
    let bases = [
        "",
        "/api/v1/service/iris",
        "/api/v1/service/iris/../secret",
        "https://iris.test",
        "/api/v1/service",
    ];
    for base in bases {
        for spelling in AMBIGUOUS {
            // Without a slash the absolute form is no URL, and of the others this is the next segment's name.
            let target = format!("{base}{spelling}");
            let raw = format!("GET {target} HTTP/1.1\r\nHost: iris.test\r\n\r\n");
            let answer = gateway.call(raw).await;
            assert_eq!(answer.status, 400, "{target}: {}", answer.text());
            assert_malformed(&answer);
        }
    }
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_path_at_all_is_refused_and_reaches_nobody() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    for target in [
        "/score#x",
        "/score?x#y",
        "/sc\u{f6}re",
        "/score?\u{f6}",
        "score",
        "?x",
        "//evil.example/score",
        "/\\evil.example/score",
        "///score",
        "https://",
        "https:///score",
        "https://u@iris.test/score",
        "https://u:p@iris.test/score",
        "https://iris.test:99999/score",
        "https://iris.test\\@evil.example/score",
        "ftp://iris.test/score",
        "iris.test:443",
        "/score\u{0}",
        "/score\t",
    ] {
        let answer = gateway.call(format!("GET {target} HTTP/1.1\r\nHost: iris.test\r\n\r\n")).await;
        assert_eq!(answer.status, 400, "{target:?}");
        assert_malformed(&answer);
    }
    // An overlong or foreign escape has no second reading here: it is only a name that nobody has.
    for target in ["/%c0%ae%c0%ae/score", "/%e0%80%af/score", "/score%ff", "/score%20"] {
        let answer = gateway.call(format!("GET {target} HTTP/1.1\r\nHost: iris.test\r\n\r\n")).await;
        gateway.refused(&answer, 404, "unknown_service").await;
    }
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_can_be_read_in_two_ways_is_refused_and_its_connection_closed() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    let long = format!("Host: {}.test\r\n", "a".repeat(300));
    for host in [
        "",
        "Host:\r\n",
        "Host: \r\n",
        "Host: iris.test\r\nHost: iris.test\r\n",
        "Host: iris.test\r\nhost: other.test\r\n",
        "Host: iris.test, other.test\r\n",
        "Host: user@iris.test\r\n",
        "Host: iris.test/score\r\n",
        "Host: iris.test/health?\r\n",
        "Host: iris.test?x\r\n",
        "Host: iris.test#x\r\n",
        "Host: iris.test:99999\r\n",
        "Host: iris.test:8443x\r\n",
        "Host: iris.test:1:2\r\n",
        "Host: iris test\r\n",
        "Host: [::1\r\n",
        "Host: [iris.test]\r\n",
        "Host: %69ris.test\r\n",
        "Host: iris\\test\r\n",
        "Host : iris.test\r\n",
        "Host: other.test\r\n iris.test\r\n",
        &long,
    ] {
        let mut connection = gateway.connect().await;
        connection.send(format!("GET /score HTTP/1.1\r\n{host}\r\n")).await;
        let answer = connection.answer().await;
        assert_eq!(answer.status, 400, "{host:?}");
        assert_eq!(answer.header("connection"), "close", "{host:?}");
        assert_malformed(&answer);
        assert_eq!(connection.rest().await, b"", "{host:?}");
    }
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_a_refused_call_is_never_run_as_a_request() {
    let replica = Upstream::echo().await;
    let limit = "    limits: { body_bytes: 64 }";
    let services = service_of("AKS none", "iris", replica.address, limit)
        + &service_of("AKS key", "locked", replica.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    let hidden = request("GET", "/api/v1/service/iris/score?hidden", "");
    assert!(hidden.len() > 64, "over the limit of iris");
    let next = request("GET", "/api/v1/service/iris/score?next", "");
    let mut expected = Vec::new();
    for (method, service, status, reason) in [
        ("POST", "locked", 401, "auth_missing"),
        ("POST", "nobody", 404, "unknown_service"),
        ("POST", "iris", 413, "body_too_large"),
        ("PUT", "iris", 405, "bad_request"),
    ] {
        let target = format!("/api/v1/service/{service}/score");
        let length = format!("Content-Length: {}\r\n", hidden.len());
        let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        let mut connection = gateway.connect().await;
        connection.send(request(method, &target, &length) + &hidden + &next).await;
        gateway.refused(&connection.answer().await, status, reason).await;
        expected.push(served_next(&gateway, connection.try_answer().await).await);

        // The length of this one is not known when it is refused: it is read to its end, or the connection closes.
        if reason != "body_too_large" {
            let mut connection = gateway.connect().await;
            let head = request(method, &target, "Transfer-Encoding: chunked\r\n");
            connection.send(head + &chunked + &next).await;
            gateway.refused(&connection.answer().await, status, reason).await;
            expected.push(served_next(&gateway, connection.try_answer().await).await);
        }
    }
    let served = expected.into_iter().filter(|served| *served).count();
    let seen = replica.seen();
    assert_eq!(seen.len(), served);
    assert!(seen.iter().all(|seen| seen.line() == "GET /score?next HTTP/1.1"), "{seen:?}");
}

/// Whether the call behind a refused one was served; if not, the connection was closed.
async fn served_next(gateway: &Gateway, answer: Option<Answer>) -> bool {
    match answer {
        Some(answer) => {
            gateway.passed(&answer, 200).await;
            true
        }
        None => false,
    }
}
