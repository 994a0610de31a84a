//! What the port itself does, whatever is asked: TLS, credentials, headers, paths and methods that are not there.

use serde_json::Value;

use super::{Api, OWNER, gateway, managed, problem};
use crate::harness::{Connection, Gateway, H2, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_an_id_and_is_never_stored() {
    let gateway = gateway().await;
    for (token, method, path, status) in [
        (Some(OWNER), "GET", "/v1/whoami", 200),
        (Some(OWNER), "GET", "/v1/nothing", 404),
        (Some(OWNER), "DELETE", "/v1/whoami", 405),
        (Some("wrong-0123456789"), "GET", "/v1/whoami", 401),
        (None, "GET", "/v1/whoami", 401),
        (None, "GET", "/v1/nothing", 401),
        (None, "PUT", "/", 401),
        (None, "GET", "/livez", 200),
    ] {
        let answer = Api::with(&gateway, token).call(method, path, None).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(uuid::Uuid::parse_str(answer.header("x-request-id")).is_ok());
        assert_eq!(answer.header("www-authenticate"), if status == 401 { "Bearer" } else { "" });
        if status == 405 {
            assert!(answer.header("allow").contains("GET"), "{:?}", answer.headers);
        }
        if status >= 400 {
            let code = ["AuthMissing", "AuthInvalid", "ResourceNotFound", "MethodNotAllowed"];
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert!(code.contains(&body["code"].as_str().unwrap()), "{body}");
        }
    }
    let owner = Api::owner(&gateway);
    let me = owner.get("/v1/whoami").await;
    assert_eq!(me["principal"], "bootstrap");
    problem(&owner.call("GET", "/v1/whoami?x=1", None).await, 400, "BadRequest");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_and_plain_http_is_not() {
    let gateway = gateway().await;
    let management = gateway.running().bound().management.unwrap();
    let mut h2 = H2::connect(management, "localhost", gateway.ca()).await;
    for _ in 0..3 {
        let request = h2.request("GET", "/v1/whoami").header("authorization", format!("Bearer {OWNER}"));
        let answer = h2.call(request.body(http_body_util::Full::default()).unwrap()).await;
        assert_eq!(answer.status, 200);
    }
    let mut plain = Connection::plain(management).await;
    plain.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(!String::from_utf8_lossy(&plain.rest().await).contains("HTTP/1.1"));
}

/// The Owner's secret is for the first who takes it: exchanged once, from a file that only its owner can read.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_owner_comes_in_by_the_bootstrap_file_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let config = managed("  []").replace(" bootstrap_token: { file: bootstrap.key },", "");
    let gateway = Gateway::start(&config).await;
    let file = gateway.path("store/bootstrap-token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&file).unwrap();
    let stranger = Api::with(&gateway, Some(secret.trim()));
    problem(&stranger.call("GET", "/v1/whoami", None).await, 401, "AuthInvalid");
    problem(
        &Api::with(&gateway, Some("wrong")).call("POST", "/v1/bootstrap", None).await,
        401,
        "AuthInvalid",
    );
    let made = stranger.expect(201, "POST", "/v1/bootstrap", None).await;
    problem(&stranger.call("POST", "/v1/bootstrap", None).await, 401, "AuthInvalid");
    let owner = Api::with(&gateway, made["token"].as_str());
    assert_eq!(owner.get("/v1/whoami").await["principal"], made["principal"]);
    assert!(!owner.get("/v1/management-tokens").await.to_string().contains(made["token"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_the_call_under_way_finish_and_closes_the_rest() {
    let mut gateway = gateway().await;
    let api = Api::owner(&gateway);
    let mut resting = api.connect().await;
    resting.send(api.request("GET", "/v1/whoami", "", "")).await;
    assert_eq!(resting.answer().await.status, 200);
    let body = r#"{"principal":"late","lifetime_s":3600}"#;
    let request = api.request("POST", "/v1/management-tokens", "Expect: 100-continue\r\n", body);
    let (begun, end) = request.split_at(request.len() - 1);
    let mut working = api.connect().await;
    working.send(begun).await;
    // Asked for the body, it is under way.
    assert!(working.head().await.unwrap().starts_with("HTTP/1.1 100 "));
    let drained = gateway.begin_drain();
    assert!(resting.rest().await.is_empty());
    eventually("no new connection", async || {
        tokio::net::TcpStream::connect(api.address()).await.is_err().then_some(())
    })
    .await;
    working.send(end).await;
    assert_eq!(working.answer().await.status, 201);
    assert_eq!(drained.await.unwrap().cut, 0);
}
