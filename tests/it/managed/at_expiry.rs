//! Answers that end with the credential that began them, where the service says so.

use bytes::Bytes;
use http::Request;
use scoregate::auth::Revoked;
use serde_json::json;

use super::*;
use crate::harness::{Call, Connection, End, Replica, in_time, websocket_agreed, websocket_handshake};

const NEW_KEY: &str = "regenerated-0123456789abcdefghijklm";

/// A service that cuts, with one replica.
fn cutting(replica: &Replica, auth: AuthSettings) -> ServiceSettings {
    ServiceSettings { at_expiry: AtExpiry::Cut, ..managed("iris", replica.address, auth) }
}

/// A gateway without declared services.
async fn empty() -> Gateway {
    Gateway::start(&config("  []")).await
}

/// A streamed answer under way: its first piece has arrived.
async fn stream(gateway: &Gateway, replica: &Replica, credential: &str) -> (Connection, Call) {
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(credential), "1")).await;
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(connection.chunk().await, b"first");
    (connection, call)
}

/// The client's answer breaks off, the replica is left, and the record says why.
async fn assert_cut(gateway: &Gateway, mut connection: Connection, call: Call) {
    let (rest, end) = connection.ending().await;
    assert_eq!((&*rest, end), (&b""[..], End::Cut), "no end of the answer, no goodbye");
    call.closed().await;
    let record = &gateway.exactly(1).await[0];
    let expected = json!({
        "StatusCode": 200, "ModelStatusCode": 200, "Reason": "auth_expired", "EndedBy": "gateway", "ResponseBytes": 5,
    });
    assert_record(record, &expected);
}

/// The answer goes on to its end.
async fn assert_finishes(mut connection: Connection, mut call: Call) {
    call.send("4\r\nlast\r\n0\r\n\r\n").await;
    assert_eq!(connection.chunk().await, b"last");
    assert_eq!(connection.chunk().await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_cut_when_its_token_expires() {
    let (gateway, replica) = (empty().await, Replica::bind().await);
    let key = SigningKey::generate().unwrap();
    upsert(&gateway, [cutting(&replica, by_tokens(&key))]);
    let token = token(&key, "iris", Duration::from_secs(5));
    let (connection, call) = stream(&gateway, &replica, &token).await;
    assert_cut(&gateway, connection, call).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_cut_when_its_key_is_regenerated() {
    let (gateway, replica) = (empty().await, Replica::bind().await);
    upsert(&gateway, [cutting(&replica, by_keys(KEY, Some(OTHER_KEY)))]);
    let (connection, call) = stream(&gateway, &replica, KEY).await;
    upsert(&gateway, [cutting(&replica, by_keys(NEW_KEY, Some(OTHER_KEY)))]);
    assert_cut(&gateway, connection, call).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_cut_when_its_token_is_revoked() {
    let (gateway, replica) = (empty().await, Replica::bind().await);
    let key = SigningKey::generate().unwrap();
    upsert(&gateway, [cutting(&replica, by_tokens(&key))]);
    let token = token(&key, "iris", Duration::from_secs(3600));
    let (connection, call) = stream(&gateway, &replica, &token).await;
    let revoked = Revoked { principals: [("ann".into(), u64::MAX)].into(), ..Revoked::default() };
    let AuthSettings::Token(settings) = by_tokens(&key) else { unreachable!() };
    let settings = TokenSettings { revoked: Arc::new(revoked), ..(*settings).clone() };
    upsert(&gateway, [cutting(&replica, AuthSettings::Token(Arc::new(settings)))]);
    assert_cut(&gateway, connection, call).await;
    let answer = gateway.score("iris", Some(&token), "1").await;
    assert_eq!((answer.status, answer.reason()), (401, "auth_invalid"));
    assert!(answer.text().contains("the token has been revoked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_cut_when_its_service_is_removed() {
    let (gateway, replica) = (empty().await, Replica::bind().await);
    upsert(&gateway, [cutting(&replica, by_keys(KEY, None))]);
    let (connection, call) = stream(&gateway, &replica, KEY).await;
    remove(&gateway, "iris");
    assert_cut(&gateway, connection, call).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_goes_on_while_its_credential_is_good() {
    let (gateway, replica) = (empty().await, Replica::bind().await);
    upsert(&gateway, [cutting(&replica, by_keys(KEY, Some(OTHER_KEY)))]);
    let (connection, call) = stream(&gateway, &replica, KEY).await;
    // The other key, the places of the two, another service.
    upsert(&gateway, [cutting(&replica, by_keys(NEW_KEY, Some(KEY)))]);
    upsert(&gateway, [managed("wine", replica.address, AuthSettings::None)]);
    assert_finishes(connection, call).await;
    assert_eq!(gateway.exactly(1).await[0]["Reason"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_wish_to_cut_an_answer_goes_on_to_its_end() {
    let (gateway, replica) = (empty().await, Replica::bind().await);
    upsert(&gateway, [managed("iris", replica.address, by_keys(KEY, None))]);
    let (connection, call) = stream(&gateway, &replica, KEY).await;
    upsert(&gateway, [managed("iris", replica.address, by_keys(NEW_KEY, None))]);
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 401, "the new snapshot is in force");
    assert_finishes(connection, call).await;
    assert_eq!(gateway.exactly(2).await.iter().filter(|record| record["Reason"] == "ok").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_has_not_begun_becomes_a_refusal() {
    let (gateway, replica) = (empty().await, Replica::bind().await);
    upsert(&gateway, [cutting(&replica, by_keys(KEY, None))]);
    let mut connection = gateway.connect().await;
    connection.send(score_request("iris", Some(KEY), "1")).await;
    let (mut call, _) = replica.request().await;
    upsert(&gateway, [cutting(&replica, by_keys(NEW_KEY, None))]);
    call.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.reason()), (401, "auth_expired"));
    assert_record(&gateway.exactly(1).await[0], &json!({"Reason": "auth_expired", "EndedBy": "gateway"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_answer_is_reset_and_its_connection_stays() {
    let (gateway, replica) = (empty().await, Replica::bind().await);
    upsert(&gateway, [cutting(&replica, by_keys(KEY, None))]);
    let mut client = gateway.h2_streams().await;
    let request = Request::post("https://localhost/api/v1/service/iris/score")
        .header("authorization", format!("Bearer {KEY}"))
        .body(())
        .unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let (mut call, _) = replica.request().await;
    call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    let mut body = in_time("the head", answer).await.unwrap().into_body();
    assert_eq!(in_time("the first piece", body.data()).await.unwrap().unwrap(), Bytes::from_static(b"first"));
    upsert(&gateway, [cutting(&replica, by_keys(NEW_KEY, None))]);
    let end = in_time("the end", body.data()).await.expect("not a clean end");
    assert!(end.unwrap_err().is_reset());
    call.closed().await;
    assert_record(&gateway.exactly(1).await[0], &json!({"Reason": "auth_expired", "EndedBy": "gateway"}));
    in_time("the connection goes on", client.ready()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_is_cut_when_its_key_is_regenerated_or_its_token_expires() {
    let key = SigningKey::generate().unwrap();
    for (auth, credential, then) in [
        (by_keys(KEY, None), KEY.to_owned(), Some(by_keys(NEW_KEY, None))),
        (by_tokens(&key), token(&key, "iris", Duration::from_secs(5)), None),
    ] {
        let (gateway, replica) = (empty().await, Replica::bind().await);
        let tunnelling = |auth| ServiceSettings { websocket: true, ..cutting(&replica, auth) };
        upsert(&gateway, [tunnelling(auth)]);
        let mut connection = gateway.connect().await;
        connection.send(websocket_handshake("iris", &credential)).await;
        let mut call = replica.accept().await;
        call.head().await;
        call.send(websocket_agreed() + "first").await;
        assert!(connection.head().await.unwrap().starts_with("HTTP/1.1 101 "));
        assert_eq!(connection.bytes(5).await, b"first");
        if let Some(auth) = then {
            upsert(&gateway, [tunnelling(auth)]);
        }
        assert_eq!(connection.ending().await, (vec![], End::Cut));
        let left = in_time("the replica is left", tokio::io::AsyncReadExt::read_u8(&mut call.tcp)).await;
        assert_eq!(left.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let expected = json!({
            "StatusCode": 101, "Reason": "auth_expired", "EndedBy": "gateway", "ResponseBytes": 5,
        });
        assert_record(&gateway.exactly(1).await[0], &expected);
    }
}
