//! Keys and tokens of the API at the data plane's door: what lets in, from when on, and what no longer does.

use serde_json::json;

use super::catalogue::{aks, primary_key};
use super::{Api, gateway, problem};
use crate::harness::{Upstream, ok, score_request};

const IRIS: &str = "/v1/workspaces/default/services/iris";

#[tokio::test(flavor = "multi_thread")]
async fn a_regenerated_key_is_dead_on_the_next_call_of_an_open_connection() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    api.expect(201, "PUT", IRIS, Some(&aks(upstream.address))).await;
    let old = primary_key(&api, "iris").await;
    let mut open = gateway.connect().await;
    open.send(score_request("iris", Some(&old), "{}")).await;
    assert_eq!(open.answer().await.status, 200);

    let once = json!({"request_id": "rotation-1"});
    let path = format!("{IRIS}/keys/primary/regenerate");
    let new = api.expect(200, "POST", &path, Some(&once)).await["value"].clone();
    assert_ne!(new, json!(old));
    // Repeated with its id, the answer may have been lost; the key is the same.
    assert_eq!(api.expect(200, "POST", &path, Some(&once)).await["value"], new);
    open.send(score_request("iris", Some(&old), "{}")).await;
    assert_eq!((open.answer().await.status), 401);
    let mut open = gateway.connect().await;
    open.send(score_request("iris", new.as_str(), "{}")).await;
    assert_eq!(open.answer().await.status, 200);

    let chosen = "chosen-by-the-caller-0123456789abcdef";
    let answer = api
        .expect(200, "POST", &format!("{IRIS}/keys/secondary/regenerate"), Some(&json!({"value": chosen})))
        .await;
    assert_eq!((&answer["value"], &answer["slot"]), (&json!(chosen), &json!("secondary")));
    open.send(score_request("iris", Some(chosen), "{}")).await;
    assert_eq!(open.answer().await.status, 200);
    problem(
        &api.call("POST", &format!("{IRIS}/keys/tertiary/regenerate"), None).await,
        404,
        "ResourceNotFound",
    );
    let soon = json!({"expires_at": "tomorrow"});
    assert_eq!(
        problem(&api.call("POST", &path, Some(&soon)).await, 400, "BadRequest")["field"],
        "expires_at"
    );
}

/// One PUT: from the key to the token, with no moment in which both or neither are taken; and the token ends by revocation.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_switches_from_key_to_token_in_one_put() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    api.expect(201, "PUT", IRIS, Some(&aks(upstream.address))).await;
    let key = primary_key(&api, "iris").await;
    problem(&api.call("POST", &format!("{IRIS}/token"), None).await, 409, "Conflict");

    let mut spec = aks(upstream.address);
    spec["auth"] = json!("token");
    api.expect(200, "PUT", IRIS, Some(&spec)).await;
    assert_eq!(gateway.score("iris", Some(&key), "{}").await.status, 401);
    let token = api.expect(200, "POST", &format!("{IRIS}/token"), None).await;
    let bearer = token["token"].as_str().unwrap();
    assert_eq!(gateway.score("iris", Some(bearer), "{}").await.status, 200);
    // No credential of one plane opens the other.
    problem(&Api::with(&gateway, Some(bearer)).call("GET", "/v1/whoami", None).await, 401, "AuthInvalid");

    let revoke = "/v1/workspaces/default/tokens/revoke";
    for bad in [json!({}), json!({"id": "x", "principal": "y"}), json!({"jti": "x"}), json!(null)] {
        problem(&api.call("POST", revoke, Some(&bad)).await, 400, "BadRequest");
    }
    api.expect(204, "POST", revoke, Some(&json!({"id": token["id"]}))).await;
    assert_eq!(gateway.score("iris", Some(bearer), "{}").await.status, 401);
    let next = api.expect(200, "POST", &format!("{IRIS}/token"), None).await;
    assert_eq!(gateway.score("iris", next["token"].as_str(), "{}").await.status, 200);

    let kid =
        api.expect(200, "POST", "/v1/workspaces/default/signing-keys/rotate", None).await["kid"].clone();
    let set = api.get("/v1/workspaces/default/jwks").await;
    assert!(set["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid), "{set}");
    // Signed by the key before, it is good until its end.
    assert_eq!(gateway.score("iris", next["token"].as_str(), "{}").await.status, 200);

    spec["auth"] = json!("key");
    api.expect(200, "PUT", IRIS, Some(&spec)).await;
    assert_eq!(gateway.score("iris", Some(&key), "{}").await.status, 200);
    assert_eq!(gateway.score("iris", next["token"].as_str(), "{}").await.status, 401);
}
