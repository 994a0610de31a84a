//! Bodies that no handler should see: refused at once, whatever they hold (T62).

use std::time::{Duration, Instant};

use super::{Api, gateway, problem};

const TOKENS: &str = "/v1/management-tokens";

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_with_their_place_and_change_nothing() {
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    let deep = "[".repeat(100_000);
    let cases: &[(&str, &str)] = &[
        (&deep, "nested deeper than 64"),
        (r#"{"principal": 1e999}"#, "number out of range"),
        (r#"{"principal":"a","principal":"b"}"#, "the member 'principal' is there twice"),
        (r#"{"principal":"\ud800"}"#, "line 1 column"),
        (r#"{"principal\u0000":"a"}"#, "NUL"),
        (r#"{"principal":"a\u0000b"}"#, "NUL"),
        (r#"{"principal":["a"]}"#, "invalid type"),
        (r#"{"principal":"a","role":"Owner"}"#, "unknown field `role`"),
        ("[]", "line 1 column"),
        ("", "line 1 column"),
        ("{", "EOF"),
    ];
    for (body, word) in cases {
        let mut connection = api.connect().await;
        connection.send(api.request("POST", TOKENS, "", body)).await;
        let problem = problem(&connection.answer().await, 400, "BadRequest");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
        // The connection is as good as before.
        connection.send(api.request("GET", "/v1/whoami", "", "")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    let wrong = api.call_with("POST", TOKENS, "Content-Type: text/plain\r\n", None).await;
    assert_eq!(problem(&wrong, 400, "BadRequest")["field"], "content-type");
    assert_eq!(api.get(TOKENS).await["items"], serde_json::json!([]));
}

/// 64 MiB are refused by their announcement: before a byte of them is read, and well before they could have been.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_before_it_comes() {
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    let head = api.request("POST", TOKENS, "", "").replace("Content-Length: 0", "Content-Length: 67108864");
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let mut connection = api.connect().await;
        let sent = Instant::now();
        connection.send(&head).await;
        let answer = connection.answer().await;
        fastest = fastest.min(sent.elapsed());
        problem(&answer, 413, "PayloadTooLarge");
        assert_eq!(answer.header("connection"), "close");
        assert!(connection.rest().await.is_empty());
    }
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");

    // Sent all the same, the client still gets to read why.
    let mut connection = api.connect().await;
    connection.send(&head).await;
    let chunk = vec![b' '; 64 * 1024];
    for _ in 0..32 {
        if !connection.try_send(&chunk).await {
            break;
        }
    }
    assert_eq!(connection.answer().await.status, 413);

    let mut connection = api.connect().await;
    let chunked = head.replace("Content-Length: 67108864", "Transfer-Encoding: chunked");
    connection.send(chunked).await;
    for _ in 0..17 {
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
        if !connection.try_send(chunk).await {
            break;
        }
    }
    assert_eq!(connection.answer().await.status, 413);
}
