//! Cross-origin calls of browsers: off unless configured, and then the gateway's own business.

use http_body_util::Full;
use serde_json::json;

use crate::harness::{Answer, Gateway, KEY, Upstream, assert_record, config, service};

const APP: &str = "https://app.test";
const RULES: &str = "    cors: { origins: [\"https://app.test\", \"http://localhost:3000\"], \
                     headers: [authorization, content-type], max_age: 10m }\n    hosts: [iris.test]\n    \
                     limits: { body_bytes: 16 }";
const PATH: &str = "/api/v1/service/iris/score";

fn preflight(path: &str, host: &str, origin: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type\r\n\r\n"
    )
}

fn post(origin: &str, credential: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nAuthorization: Bearer {credential}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// The CORS fields of an answer.
fn cors_fields(answer: &Answer) -> Vec<&str> {
    let mut names: Vec<_> = answer.headers.keys().map(String::as_str).collect();
    names.retain(|name| name.starts_with("access-control-"));
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_rules_a_preflight_is_a_method_like_any_other() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, ""))).await;
    let answer = gateway.call(preflight(PATH, "localhost", APP)).await;
    gateway.refused(&answer, 405, "bad_request").await;
    assert!(cors_fields(&answer).is_empty(), "{answer:?}");
    for (credential, status) in [(KEY, 200), ("wrong", 401)] {
        let answer = gateway.call(post(APP, credential, "{}")).await;
        assert_eq!(answer.status, status);
        assert!(cors_fields(&answer).is_empty(), "{answer:?}");
        assert_eq!(answer.header("vary"), "");
    }
    assert_eq!(replica.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_is_answered_without_a_credential_and_without_the_replica() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, RULES))).await;
    let mut answers = Vec::new();
    for (path, host) in [
        (PATH, "localhost"),
        ("/api/v1/service/iris/swagger.json", "localhost"),
        ("/api/v1/service/iris/", "localhost"),
        ("/score", "iris.test"),
    ] {
        answers.push((APP, gateway.call(preflight(path, host, APP)).await));
    }
    let other = "http://localhost:3000";
    answers.push((other, gateway.call(preflight(PATH, "localhost", other)).await));
    let mut h2 = gateway.h2().await;
    let request =
        h2.request("OPTIONS", PATH).header("origin", APP).header("access-control-request-method", "POST");
    answers.push((APP, h2.call(request.body(Full::default()).unwrap()).await));
    for (origin, answer) in answers {
        assert_eq!((answer.status, answer.reason()), (204, "ok"), "{answer:?}");
        assert_eq!(answer.body, b"");
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
        assert_eq!(answer.header("access-control-allow-headers"), "authorization, content-type");
        assert_eq!(answer.header("access-control-max-age"), "600");
        assert_eq!(answer.header("vary"), "origin");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
        let record = gateway.record(&answer).await;
        assert_record(
            &record,
            &json!({
                "HTTPMethod": "OPTIONS", "Service": "iris", "AuthType": "key", "KeyId": null, "Reason": "ok",
                "EndedBy": "gateway", "ModelStatusCode": null, "Attempts": 0, "ResponseBytes": 0,
            }),
        );
    }
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_is_no_preflight_is_refused_by_method() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, RULES))).await;
    for fields in [
        String::new(),
        format!("Origin: {APP}\r\n"),
        "Access-Control-Request-Method: POST\r\n".to_owned(),
        format!("Authorization: Bearer {KEY}\r\n"),
    ] {
        let answer =
            gateway.call(format!("OPTIONS {PATH} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
        gateway.refused(&answer, 405, "bad_request").await;
    }
    for path in ["/api/v1/service/nobody/score", "/api/v1/service/iris/metrics"] {
        let answer = gateway.call(preflight(path, "localhost", APP)).await;
        gateway.refused(&answer, 404, "unknown_service").await;
    }
    // A preflight asks for another method; a POST with its fields is a POST.
    let answer = gateway
        .call(format!(
            "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nOrigin: {APP}\r\nAccess-Control-Request-Method: POST\r\n\r\n"
        ))
        .await;
    gateway.refused(&answer, 401, "auth_missing").await;
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_can_be_read_by_an_allowed_origin_refusals_too() {
    let replica = Upstream::answering(|seen| match seen.body.as_slice() {
        b"break" => b"no HTTP at all\r\n\r\n".to_vec(),
        body => {
            // The stock container with AML_CORS_ORIGINS set.
            let fields = "Vary: accept\r\nAccess-Control-Allow-Origin: https://model.test";
            let body = String::from_utf8_lossy(body);
            format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                .into_bytes()
        }
    })
    .await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, RULES))).await;
    for (credential, body, status, reason, vary) in [
        (KEY, "{}", 200, "ok", "accept, origin"),
        ("wrong", "{}", 401, "auth_invalid", "origin"),
        (KEY, "seventeen letters", 413, "body_too_large", "origin"),
        (KEY, "break", 502, "upstream_protocol", "origin"),
    ] {
        let answer = gateway.call(post(APP, credential, body)).await;
        let record = if reason == "ok" {
            gateway.passed(&answer, status).await
        } else {
            gateway.refused(&answer, status, reason).await
        };
        assert_eq!(record["Reason"], reason);
        assert_eq!(answer.header("access-control-allow-origin"), APP);
        assert_eq!(answer.header("vary"), vary);
        assert_eq!(cors_fields(&answer), ["access-control-allow-origin"]);
    }
    let put = format!("PUT {PATH} HTTP/1.1\r\nHost: localhost\r\nOrigin: {APP}\r\n\r\n");
    let answer = gateway.call(put).await;
    gateway.refused(&answer, 405, "bad_request").await;
    assert_eq!(answer.header("access-control-allow-origin"), APP);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_origin_is_allowed_nothing_whatever_the_replica_says() {
    let replica = Upstream::once(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
         Content-Length: 2\r\n\r\n{}",
    )
    .await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, RULES))).await;
    for origin in [
        "https://evil.test",
        "null",
        "https://app.test.evil.test",
        "https://app.test:8443",
        "http://app.test",
        "https://APP.test",
        "https://app.test/",
        "https://app.test https://evil.test",
        "*",
        "",
    ] {
        let answer = gateway.call(preflight(PATH, "localhost", origin)).await;
        assert_eq!(answer.status, 204, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
        assert_eq!(answer.header("vary"), "origin", "{origin}");
        for (credential, status) in [(KEY, 200), ("wrong", 401)] {
            let answer = gateway.call(post(origin, credential, "{}")).await;
            assert_eq!(answer.status, status);
            assert!(cors_fields(&answer).is_empty(), "{origin}: {answer:?}");
            gateway.record(&answer).await;
        }
    }
    // Without an origin nobody asked.
    let answer = gateway.score("iris", Some(KEY), "{}").await;
    assert!(cors_fields(&answer).is_empty(), "{answer:?}");
    assert_eq!(answer.header("vary"), "origin", "a cache must not give this one to a page that asks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_allows_every_origin() {
    let replica = Upstream::echo().await;
    let rules = "    cors: { origins: [\"*\"], headers: [content-type], max_age: 1m }";
    let gateway = Gateway::start(&config(&service("iris", replica.address, rules))).await;
    for origin in ["https://anybody.test", "null"] {
        let preflight = gateway.call(preflight(PATH, "localhost", origin)).await;
        assert_eq!((preflight.status, preflight.header("access-control-max-age")), (204, "60"));
        let served = gateway.call(post(origin, KEY, "{}")).await;
        assert_eq!(served.status, 200);
        for answer in [preflight, served] {
            assert_eq!(answer.header("access-control-allow-origin"), "*");
            gateway.record(&answer).await;
        }
    }
}
