//! Who is let in, who is not, and what either of them and the replica get to see.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use rcgen::PublicKeyData;
use scoregate::auth::{TokenSettings, mint};
use scoregate::catalog::ServiceName;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Gateway, KEY, OTHER_KEY, Upstream, assert_record, config, eventually, ok, service, service_of,
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
    let ids = ["x-request-id", "x-ms-request-id"];
    let fields = answer.headers.iter().filter(|(name, _)| !ids.contains(&name.as_str()));
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
    gateway.refused(&answer, 400, "bad_request").await;
    let answer = gateway.call(get("iris", bearer(&"a".repeat(70 * 1024)))).await;
    gateway.refused(&answer, 431, "headers_too_large").await;
    // HTTP/1 takes blanks off a value's end; HTTP/2 leaves them, and then it is another key.
    let mut h2 = gateway.h2().await;
    let request =
        h2.request("GET", "/api/v1/service/iris/score").header("authorization", format!("Bearer {KEY} "));
    assert_eq!(h2.call(request.body(Full::default()).unwrap()).await.status, 401);

    assert_eq!(replica.seen().len(), 1);
    let records = std::fs::read_to_string(gateway.path("records.jsonl")).unwrap();
    for secret in [KEY, OTHER_KEY, other_key, "DROP TABLE", "jndi"] {
        assert!(!records.contains(secret), "{secret}");
    }
}

/// What `config` says of the gateway's own issuer, with the key that `gateway` signs with.
fn issuer(gateway: &Gateway) -> TokenSettings {
    TokenSettings {
        issuer: "https://tokens.test".to_owned(),
        signing_key: std::fs::read_to_string(gateway.path("signing.key")).unwrap().into(),
        lifetime: Duration::from_secs(3600),
        leeway: Duration::ZERO,
    }
}

fn token(settings: &TokenSettings, service: &str, at: SystemTime) -> String {
    mint(settings, &ServiceName::parse(service).unwrap(), "ann", None, at).unwrap()
}

fn signing_key(gateway: &Gateway) -> EncodingKey {
    EncodingKey::from_ec_pem(&std::fs::read(gateway.path("signing.key")).unwrap()).unwrap()
}

/// The three parts of a token, read.
fn parts(token: &str) -> (Value, Value, &str) {
    let mut parts = token.split('.');
    let mut json =
        || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap()).unwrap();
    (json(), json(), token.rsplit_once('.').unwrap().1)
}

fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_the_service_it_was_made_for_and_goes_no_further() {
    let replica = Upstream::echo().await;
    let services = service_of("AKS token", "iris", replica.address, "")
        + &service_of("Managed token", "managed", replica.address, "")
        + &service_of("AKS key", "by-key", replica.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    let settings = issuer(&gateway);
    for service in ["iris", "managed"] {
        let token = token(&settings, service, SystemTime::now());
        // The second of them is known already.
        for fields in [bearer(&token), bearer(&token), format!("authorization: bearer {token}\r\n")] {
            let answer = gateway.call(get(service, &fields)).await;
            let record = gateway.passed(&answer, 200).await;
            assert_record(
                &record,
                &json!({"AuthType": "token", "Subject": "ann", "KeyId": null, "Reason": "ok"}),
            );
            let seen = replica.seen().pop().unwrap();
            assert!(!seen.head.contains(&token) && seen.header("authorization").is_empty(), "{}", seen.head);
        }
        for other in ["iris", "managed", "by-key"] {
            if other != service {
                let answer = gateway.call(get(other, bearer(&token))).await;
                let record = gateway.refused(&answer, 401, "auth_invalid").await;
                assert_record(&record, &json!({"Service": other, "Subject": null, "Attempts": 0}));
            }
        }
    }
    let answer = gateway.call(get("iris", bearer(KEY))).await;
    gateway.refused(&answer, 401, "auth_invalid").await;
    assert_eq!(replica.seen().len(), 6);
    let records = std::fs::read_to_string(gateway.path("records.jsonl")).unwrap();
    assert!(!records.contains("eyJ"), "a record holds the beginning of a token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_time_issuer_or_key_is_refused() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service_of("AKS token", "iris", replica.address, ""))).await;
    let settings = issuer(&gateway);
    let (hour, present) = (Duration::from_secs(3600), SystemTime::now());
    let stranger = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let stranger = TokenSettings { signing_key: stranger.into(), ..settings.clone() };
    let elsewhere = TokenSettings { issuer: "https://tokens.test/".to_owned(), ..settings.clone() };
    for (what, token, reason) in [
        ("expired", token(&settings, "iris", present - 2 * hour), "auth_expired"),
        ("not valid yet", token(&settings, "iris", present + hour), "auth_invalid"),
        ("another service's", token(&settings, "iris-2", present), "auth_invalid"),
        ("another issuer's", token(&elsewhere, "iris", present), "auth_invalid"),
        ("another key's", token(&stranger, "iris", present), "auth_invalid"),
        ("another key's and expired", token(&stranger, "iris", present - 2 * hour), "auth_invalid"),
    ] {
        let answer = gateway.call(get("iris", bearer(&token))).await;
        assert_eq!(answer.reason(), reason, "{what}");
        let record = gateway.refused(&answer, 401, reason).await;
        assert_record(&record, &json!({"AuthType": "token", "Subject": null, "Attempts": 0}));
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
        assert!(!answer.text().contains(&token[..20]));
    }
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_cannot_choose_how_it_is_verified() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service_of("AKS token", "iris", replica.address, ""))).await;
    let good = token(&issuer(&gateway), "iris", SystemTime::now());
    gateway.passed(&gateway.call(get("iris", bearer(&good))).await, 200).await;
    let (header, claims, signature) = parts(&good);
    let (claims, kid) = (claims.to_string(), header["kid"].as_str().unwrap());
    let mut tokens = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "ES384", "RS256", "es256"] {
        let message = message(&json!({"alg": alg, "typ": "JWT", "kid": kid}).to_string(), &claims);
        tokens.extend([format!("{message}."), format!("{message}.{signature}"), message]);
    }
    let without = message(&json!({"typ": "JWT", "kid": kid}).to_string(), &claims);
    tokens.extend([format!("{without}."), format!("{without}.{signature}")]);
    // A secret that everybody knows: the public key in each of its forms.
    let pair =
        rcgen::KeyPair::from_pem(&std::fs::read_to_string(gateway.path("signing.key")).unwrap()).unwrap();
    let hs256 = message(&json!({"alg": "HS256", "typ": "JWT", "kid": kid}).to_string(), &claims);
    let (raw, der) = (pair.public_key_raw().to_vec(), pair.subject_public_key_info());
    for secret in [raw, der, pair.public_key_pem().into_bytes(), vec![]] {
        let key = EncodingKey::from_secret(&secret);
        let signature = crypto::sign(hs256.as_bytes(), &key, Algorithm::HS256).unwrap();
        tokens.push(format!("{hs256}.{signature}"));
    }
    // The right key over a header that brings its own, or asks for what is not understood.
    for more in [
        json!({"jwk": {"kty": "oct", "k": "AA"}, "kid": "other"}),
        json!({"typ": "logout+jwt"}),
        json!({"crit": ["exp"]}),
        json!({"b64": false}),
    ] {
        let mut header = header.clone();
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tokens.push(sign(&gateway, &header.to_string(), &claims));
    }
    for token in tokens {
        let answer = gateway.call(get("iris", bearer(&token))).await;
        assert_eq!(answer.status, 401, "{token}");
        gateway.refused(&answer, 401, "auth_invalid").await;
    }
    assert_eq!(replica.seen().len(), 1);
}

fn sign(gateway: &Gateway, header: &str, claims: &str) -> String {
    let message = message(header, claims);
    let signature = crypto::sign(message.as_bytes(), &signing_key(gateway), Algorithm::ES256).unwrap();
    format!("{message}.{signature}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_of_a_known_token_is_judged_by_itself() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service_of("AKS token", "iris", replica.address, ""))).await;
    let good = token(&issuer(&gateway), "iris", SystemTime::now());
    for _ in 0..2 {
        gateway.passed(&gateway.call(get("iris", bearer(&good))).await, 200).await;
    }
    let flip = |place: usize| {
        let mut twin = good.clone().into_bytes();
        twin[place] = if twin[place] == b'A' { b'B' } else { b'A' };
        String::from_utf8(twin).unwrap()
    };
    let last = good.len() - 1;
    let signature = good.rfind('.').unwrap() + 1;
    let twins = [20, 32, 64, signature, signature + 40, last].map(flip);
    let cut = [&good[..last], &good[..signature], &good[..64]].map(str::to_owned);
    let longer = [format!("{good}A"), format!("{good}="), format!("{good}.")];
    for twin in twins.into_iter().chain(cut).chain(longer) {
        let answer = gateway.call(get("iris", bearer(&twin))).await;
        assert_eq!(answer.status, 401, "{good}\n{twin}");
        gateway.refused(&answer, 401, "auth_invalid").await;
    }
    gateway.passed(&gateway.call(get("iris", bearer(&good))).await, 200).await;
    assert_eq!(replica.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_read_strictly() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service_of("AKS token", "iris", replica.address, ""))).await;
    let (header, good, _) = parts(&token(&issuer(&gateway), "iris", SystemTime::now()));
    let (past, future) = ((now() - 60).to_string(), (now() + 600).to_string());
    // Raw JSON, since some of it is none that a library would write; empty removes the claim.
    for (claim, value, reason) in [
        ("aud", "[\"x\",\"iris\"]", "ok"),
        ("iat", "", "ok"),
        ("nbf", "", "ok"),
        ("exp", &format!("{future}.5"), "ok"),
        ("exp", &past, "auth_expired"),
        ("exp", "0", "auth_expired"),
        ("exp", &format!("\"{future}\""), "auth_invalid"),
        ("exp", "null", "auth_invalid"),
        ("exp", "-1", "auth_invalid"),
        ("exp", "1e400", "auth_invalid"),
        ("exp", "true", "auth_invalid"),
        ("exp", &format!("[{future}]"), "auth_invalid"),
        ("exp", "", "auth_invalid"),
        ("nbf", &future, "auth_invalid"),
        ("nbf", &format!("\"{past}\""), "auth_invalid"),
        ("iat", &future, "auth_invalid"),
        ("aud", "", "auth_invalid"),
        ("aud", "[]", "auth_invalid"),
        ("aud", "\"iris \"", "auth_invalid"),
        ("aud", "\"*\"", "auth_invalid"),
        ("aud", "null", "auth_invalid"),
        ("iss", "", "auth_invalid"),
        ("iss", "[\"https://tokens.test\"]", "auth_invalid"),
        ("sub", "", "auth_invalid"),
        ("sub", "\"\"", "auth_invalid"),
        ("sub", "\"a\\nb\"", "auth_invalid"),
    ] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().shift_remove(claim);
        let mut text = claims.to_string();
        if !value.is_empty() {
            text = format!("{},\"{claim}\":{value}}}", text.trim_end_matches('}'));
        }
        let answer = gateway.call(get("iris", bearer(&sign(&gateway, &header.to_string(), &text)))).await;
        if reason == "ok" {
            gateway.passed(&answer, 200).await;
        } else {
            assert_eq!(answer.reason(), reason, "{text}");
            gateway.refused(&answer, 401, reason).await;
        }
    }
    assert_eq!(replica.seen().len(), 4);
}

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

    /// A token of `subject` for `audience`, signed with the key `kid` and good until `exp`.
    fn token(&self, kid: &str, audience: &str, subject: &str, exp: u64) -> String {
        let pair = &self.keys.iter().find(|(known, _)| *known == kid).unwrap().1;
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let claims = json!({"iss": "https://login.test", "aud": audience, "sub": subject, "exp": exp});
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn good(&self, kid: &str, subject: &str) -> String {
        self.token(kid, "api://iris", subject, now() + 600)
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
    let own = token(&self::issuer(&gateway), "iris", SystemTime::now());
    for (token, reason) in [
        (issuer.token("a", "api://iris", "ann", now() - 60), "auth_expired"),
        (issuer.token("a", "iris", "ann", now() + 600), "auth_invalid"),
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
    let answer = gateway.call(get("iris", bearer(&issuer.token("a", "api://iris", "ann", 1)))).await;
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
