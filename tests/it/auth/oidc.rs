//! Tokens of an outside issuer, its keys in a file or behind a URL.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{bearer, get, tokens};
use crate::harness::{Answer, Gateway, KEY, Upstream, assert_record, config, eventually, ok, service_of};

/// An outside issuer: keys under names, and their set as others fetch it.
struct Issuer {
    keys: Vec<(&'static str, rcgen::KeyPair)>,
}

impl Issuer {
    fn new(kids: &[&'static str]) -> Self {
        Self { keys: kids.iter().map(|kid| (*kid, rcgen::KeyPair::generate().unwrap())).collect() }
    }

    /// The set of those keys whose names are `kids`.
    fn jwks(&self, kids: &[&str]) -> String {
        let keys = self.keys.iter().filter(|(kid, _)| kids.contains(kid)).map(|(kid, pair)| {
            let (x, y) = pair.public_key_raw()[1..].split_at(32);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y})
        });
        json!({"keys": keys.collect::<Vec<_>>()}).to_string()
    }

    /// A token signed with the key `kid`: ann's for the service, good for ten minutes, but for what `edits` says.
    fn token(&self, kid: &str, edits: &Value) -> String {
        let pair = &self.keys.iter().find(|(known, _)| *known == kid).unwrap().1;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let mut claims =
            json!({"iss": "https://login.test", "aud": "api://iris", "sub": "ann", "exp": now() + 600});
        claims.as_object_mut().unwrap().extend(edits.as_object().unwrap().clone());
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn good(&self, kid: &str, subject: &str) -> String {
        self.token(kid, &json!({"sub": subject}))
    }
}

/// A Managed service `iris` that trusts `https://login.test`, whose keys are at `jwks`.
fn oidc(replica: &Upstream, jwks: &str) -> String {
    let more = format!(
        "    oidc: {{ issuer: \"https://login.test\", audience: \"api://iris\", leeway: 0s, jwks: {{ {jwks} }} }}"
    );
    config(&service_of("Managed oidc", "iris", replica.address, &more))
}

/// The answer to `token` once the gateway has the issuer's keys.
async fn once_loaded(gateway: &Gateway, token: &str) -> Answer {
    eventually("the issuer's keys are loaded", async || {
        let answer = gateway.call(get("iris", bearer(token))).await;
        (answer.status != 503).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_set_in_a_file_opens_a_managed_service_to_its_issuer() {
    let replica = Upstream::echo().await;
    let issuer = Issuer::new(&["a", "b"]);
    let config = oidc(&replica, "file: keys.json");
    let gateway = Gateway::start_with(&config, &[("keys.json", &issuer.jwks(&["a"]))]).await;
    let answer = once_loaded(&gateway, &issuer.good("a", "ann")).await;
    let record = gateway.passed(&answer, 200).await;
    let expected = json!({"AuthType": "oidc", "Subject": "ann", "KeyId": null, "ComputeType": "Managed"});
    assert_record(&record, &expected);
    assert_eq!(replica.seen()[0].header("authorization"), "");
    let own = tokens::token(&tokens::issuer(&gateway), "iris", SystemTime::now());
    for (token, reason) in [
        (issuer.token("a", &json!({"exp": now() - 60})), "auth_expired"),
        (issuer.token("a", &json!({"aud": "iris"})), "auth_invalid"),
        (issuer.token("a", &json!({"iss": "https://other.test"})), "auth_invalid"),
        (issuer.token("a", &json!({"nbf": now() + 300})), "auth_invalid"),
        (Issuer::new(&["a"]).good("a", "ann"), "auth_invalid"),
        (own, "auth_invalid"),
        (KEY.to_owned(), "auth_invalid"),
    ] {
        let answer = gateway.call(get("iris", bearer(&token))).await;
        let record = gateway.refused(&answer, 401, reason).await;
        assert_record(&record, &json!({"AuthType": "oidc", "Subject": null, "Attempts": 0}));
    }
    gateway.refused(&gateway.call(get("iris", "")).await, 401, "auth_missing").await;
    assert_eq!(replica.seen().len(), 1);
}

/// What an issuer on loopback serves; without it, 500.
type Served = Arc<Mutex<Option<String>>>;

async fn issuer_server(served: &Served) -> Upstream {
    let served = Arc::clone(served);
    Upstream::answering(move |_| match &*served.lock().unwrap() {
        Some(document) => ok(document.as_bytes()),
        None => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec(),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_may_change_its_keys_at_any_time() {
    let replica = Upstream::echo().await;
    let issuer = Issuer::new(&["a", "b"]);
    let served = Served::new(Mutex::new(Some(issuer.jwks(&["a"]))));
    let server = issuer_server(&served).await;
    let gateway = Gateway::start(&oidc(&replica, &format!("url: \"http://{}/keys\"", server.address))).await;
    let old = issuer.good("a", "ann");
    gateway.passed(&once_loaded(&gateway, &old).await, 200).await;
    assert_eq!(server.seen()[0].line(), "GET /keys HTTP/1.1");

    // The first token of the new key has the set fetched again.
    *served.lock().unwrap() = Some(issuer.jwks(&["b"]));
    let record = gateway.passed(&once_loaded(&gateway, &issuer.good("b", "bob")).await, 200).await;
    assert_eq!(record["Subject"], "bob");
    // The key that is gone opens nothing any more, not even to a token that was known.
    gateway.refused(&gateway.call(get("iris", bearer(&old))).await, 401, "auth_invalid").await;
    // Unknown keys cannot have the set fetched again and again.
    let fetches = server.seen().len();
    for _ in 0..20 {
        let answer = gateway.call(get("iris", bearer(&issuer.good("a", "ann")))).await;
        gateway.refused(&answer, 401, "auth_invalid").await;
    }
    assert!(server.seen().len() <= fetches + 1, "{} fetches", server.seen().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_keys_count_while_their_issuer_is_down() {
    let replica = Upstream::echo().await;
    let issuer = Issuer::new(&["a", "b"]);
    let served = Served::new(Mutex::new(Some(issuer.jwks(&["a"]))));
    let server = issuer_server(&served).await;
    let gateway = Gateway::start(&oidc(&replica, &format!("url: \"http://{}/keys\"", server.address))).await;
    gateway.passed(&once_loaded(&gateway, &issuer.good("a", "ann")).await, 200).await;

    *served.lock().unwrap() = None;
    // A key that the set lacks: whether the issuer has it by now cannot be said, which is not the caller's fault.
    let answer = gateway.call(get("iris", bearer(&issuer.good("b", "bob")))).await;
    let record = gateway.refused(&answer, 503, "auth_unavailable").await;
    assert_record(&record, &json!({"AuthType": "oidc", "Subject": null, "Attempts": 0}));
    // A key that it has is as good as ever, also for tokens not seen before.
    let answer = gateway.call(get("iris", bearer(&issuer.good("a", "cleo")))).await;
    assert_eq!(gateway.passed(&answer, 200).await["Subject"], "cleo");
    let answer = gateway.call(get("iris", bearer(&issuer.token("a", &json!({"exp": 1}))))).await;
    gateway.refused(&answer, 401, "auth_expired").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_issuers_keys_nobody_is_let_in_and_nobody_is_blamed() {
    let replica = Upstream::echo().await;
    let issuer = Issuer::new(&["a"]);
    let server = issuer_server(&Served::default()).await;
    let gateway = Gateway::start(&oidc(&replica, &format!("url: \"http://{}/keys\"", server.address))).await;
    // `refused` checks: with Retry-After and without WWW-Authenticate.
    for _ in 0..2 {
        let answer = gateway.call(get("iris", bearer(&issuer.good("a", "ann")))).await;
        let record = gateway.refused(&answer, 503, "auth_unavailable").await;
        assert_record(&record, &json!({"AuthType": "oidc", "Subject": null, "EndedBy": "gateway"}));
        assert!(!answer.text().contains(&server.address.to_string()));
    }
    gateway.refused(&gateway.call(get("iris", "")).await, 401, "auth_missing").await;
    assert_eq!(replica.accepted(), 0);
}

/// Seconds since the epoch.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
