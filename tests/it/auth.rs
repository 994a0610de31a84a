//! Who is let in, who is not, and what either of them and the replica get to see.

mod oidc;
mod tokens;

use http_body_util::Full;
use serde_json::json;

use crate::harness::{
    Answer, Gateway, KEY, OTHER_KEY, Upstream, assert_malformed, assert_record, config, service, service_of,
};

/// A GET of the score path of `service` with `fields`, each ended by CR LF.
fn get(service: &str, fields: impl AsRef<[u8]>) -> Vec<u8> {
    let line = format!("GET /api/v1/service/{service}/score HTTP/1.1\r\nHost: localhost\r\n");
    [line.as_bytes(), fields.as_ref(), b"\r\n"].concat()
}

fn bearer(credential: &str) -> String {
    format!("Authorization: Bearer {credential}\r\n")
}

/// What of a refusal a caller can learn something from: all but the ids.
fn shape(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let id = answer.header("x-request-id");
    let own = ["x-request-id", "x-ms-request-id", "date"];
    let fields = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let mut fields: Vec<_> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    fields.sort();
    (answer.status, fields, answer.text().replace(id, "ID"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_keys_open_their_service_and_go_no_further() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, ""))).await;
    for (fields, key_id) in [
        (bearer(KEY), "primary"),
        (bearer(OTHER_KEY), "secondary"),
        (format!("authorization: bearer {KEY}\r\n"), "primary"),
        (format!("AUTHORIZATION: BEARER  {KEY}\r\n"), "primary"),
        (format!("Authorization:Bearer {KEY} \t\r\n"), "primary"),
    ] {
        for path in ["score", "swagger.json", ""] {
            let answer = gateway
                .call(format!("GET /api/v1/service/iris/{path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
                .await;
            let record = gateway.passed(&answer, 200).await;
            assert_record(
                &record,
                &json!({"AuthType": "key", "KeyId": key_id, "Subject": null, "Reason": "ok"}),
            );
            let seen = replica.seen().pop().unwrap();
            assert_eq!(seen.header("authorization"), "", "{}", seen.head);
            assert!(!seen.head.contains(KEY) && !seen.head.contains(OTHER_KEY), "{}", seen.head);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_bearer_credential_is_told_so() {
    let replica = Upstream::echo().await;
    let services = service("iris", replica.address, "    hosts: [iris.test]")
        + &service_of("AKS token", "tokens", replica.address, "")
        + &service_of("Managed key", "managed", replica.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    for name in ["iris", "tokens", "managed"] {
        for fields in [
            String::new(),
            "Authorization:\r\n".to_owned(),
            "Authorization: Bearer\r\n".to_owned(),
            "Authorization: Bearer \r\n".to_owned(),
            format!("Authorization: {KEY}\r\n"),
            format!("Authorization: Basic {KEY}\r\n"),
            format!("Authorization: Bearer{KEY}\r\n"),
            format!("Authorization: Bearer\t{KEY}\r\n"),
            format!("Authorization: Key {KEY}\r\n"),
            format!("X-Api-Key: {KEY}\r\n"),
            format!("api_key: {KEY}\r\nCookie: key={KEY}\r\n"),
            format!("Proxy-Authorization: Bearer {KEY}\r\n"),
            format!("X-Authorization: Bearer {KEY}\r\n"),
        ] {
            let answer = gateway.call(get(name, &fields)).await;
            let record = gateway.refused(&answer, 401, "auth_missing").await;
            assert_eq!(answer.header("www-authenticate"), "Bearer", "no error code: RFC 6750, section 3.1");
            assert_record(
                &record,
                &json!({"Service": name, "KeyId": null, "Attempts": 0, "EndedBy": "gateway"}),
            );
        }
    }
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_the_query_is_neither_accepted_nor_recorded() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, ""))).await;
    for name in ["key", "code", "access_token", "api-key", "subscription-key", "ACCESS_TOKEN", "k%65y"] {
        let target = format!("/api/v1/service/iris/score?a=1&{name}={KEY}&b=2");
        let answer = gateway.call(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let record = gateway.refused(&answer, 401, "auth_missing").await;
        let url = format!("https://localhost/api/v1/service/iris/score?a=1&{name}=***&b=2");
        assert_eq!(record["RequestUrl"], url);
    }
    let records = std::fs::read_to_string(gateway.path("records.jsonl")).unwrap();
    assert!(!records.contains(KEY));
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_authorization_fields_are_refused_even_if_one_is_right() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, ""))).await;
    for fields in [
        bearer(KEY) + &bearer(KEY),
        bearer("wrong") + &bearer(KEY),
        bearer(KEY) + "authorization: Basic x\r\n",
        bearer(KEY) + "Authorization:\r\n",
    ] {
        let answer = gateway.call(get("iris", &fields)).await;
        let record = gateway.refused(&answer, 401, "auth_invalid").await;
        assert_eq!(record.get("KeyId"), None);
    }
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_service_asks_nobody_and_passes_the_credential_on() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service_of("ACI none", "iris", replica.address, ""))).await;
    for (fields, seen_as) in [
        ("", ""),
        ("Authorization: Bearer the-model's-own\r\n", "Bearer the-model's-own"),
        ("Authorization: Basic eDp5\r\n", "Basic eDp5"),
    ] {
        let answer = gateway.call(get("iris", fields)).await;
        let record = gateway.passed(&answer, 200).await;
        assert_record(&record, &json!({"AuthType": "none", "KeyId": null, "Subject": null}));
        assert_eq!(replica.seen().pop().unwrap().header("authorization"), seen_as);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_wrong_keys_look_alike_and_open_nothing() {
    let replica = Upstream::echo().await;
    let services = service("iris", replica.address, "")
        + &format!(
            "  - name: other\n    compute_type: AKS\n    keys: {{ primary: {{ file: certs/other.key }} }}\n    \
             deployments: [ {{ name: blue, replicas: [\"http://{}\"] }} ]\n",
            replica.address
        );
    let other_key = "another-0123456789abcdefghijklmn";
    let gateway = Gateway::start_with(&config(&services), &[("certs/other.key", other_key)]).await;
    gateway.passed(&gateway.call(get("other", bearer(other_key))).await, 200).await;
    let at = |length: usize, end: &str| format!("{}{end}", &KEY[..length]);
    let mut shapes = Vec::new();
    for (service, credential) in [
        ("iris", "wrong".to_owned()),
        ("iris", other_key.to_owned()),
        ("other", KEY.to_owned()),
        ("other", OTHER_KEY.to_owned()),
        ("iris", at(20, "")),
        ("iris", at(KEY.len() - 1, "x")),
        ("iris", at(KEY.len(), "x")),
        ("iris", KEY.to_uppercase()),
        ("iris", format!("{KEY} {KEY}")),
        ("iris", format!("{KEY},")),
        ("iris", format!("\"{KEY}\"")),
        ("iris", "' OR '1'='1".to_owned()),
        ("iris", "'; DROP TABLE keys; --".to_owned()),
        ("iris", "*".to_owned()),
        ("iris", "%".to_owned()),
        ("iris", "%00".to_owned()),
        ("iris", format!("{KEY}%00")),
        ("iris", "*1\\r\\n$8\\r\\nFLUSHALL".to_owned()),
        ("iris", "${jndi:ldap://localhost/x}".to_owned()),
        ("iris", KEY.replace('p', "\u{440}")),
        ("iris", "\u{feff}".to_owned() + KEY),
        ("iris", "a".repeat(16 * 1024 - 7)),
        ("iris", "null".to_owned()),
        ("iris", "undefined".to_owned()),
    ] {
        let answer = gateway.call(get(service, bearer(&credential))).await;
        let record = gateway.refused(&answer, 401, "auth_invalid").await;
        assert_record(&record, &json!({"Service": service, "AuthType": "key", "KeyId": null, "Attempts": 0}));
        shapes.push((shape(&answer), credential));
    }
    let first = shapes[0].0.clone();
    for (shape, credential) in shapes {
        assert_eq!(shape, first, "{credential}");
    }
    let raw = gateway.call(get("iris", b"Authorization: Bearer \x80\xff\r\n")).await;
    gateway.refused(&raw, 401, "auth_invalid").await;
    assert_eq!(shape(&raw), first);
    // Bytes that no field may hold, and one that is longer than any head.
    let answer = gateway.call(get("iris", format!("Authorization: Bearer {KEY}\0\r\n"))).await;
    assert_malformed(&answer);
    let answer = gateway.call(get("iris", bearer(&"a".repeat(70 * 1024)))).await;
    gateway.refused(&answer, 431, "headers_too_large").await;
    // HTTP/1 takes blanks off a value's end; HTTP/2 forbids them (RFC 9113 8.2.1).
    let mut h2 = gateway.h2().await;
    let request =
        h2.request("GET", "/api/v1/service/iris/score").header("authorization", format!("Bearer {KEY} "));
    assert_eq!(h2.call(request.body(Full::default()).unwrap()).await.status, 400);

    assert_eq!(replica.seen().len(), 1);
    let records = std::fs::read_to_string(gateway.path("records.jsonl")).unwrap();
    for secret in [KEY, OTHER_KEY, other_key, "DROP TABLE", "jndi"] {
        assert!(!records.contains(secret), "{secret}");
    }
}
