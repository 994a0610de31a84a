//! The gateway's own tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::PublicKeyData;
use scoregate::auth::{IssuerSettings, MintRequest, SigningKey, mint};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::oidc::now;
use super::{bearer, get};
use crate::harness::{Gateway, KEY, Upstream, assert_record, config, service_of};

/// What `config` says of the gateway's own issuer, with the key that `gateway` signs with.
pub(super) fn issuer(gateway: &Gateway) -> IssuerSettings {
    let pem = std::fs::read_to_string(gateway.path("signing.key")).unwrap();
    IssuerSettings {
        issuer: "https://tokens.test".to_owned(),
        signing_key: Arc::new(SigningKey::from_pem(&pem.into()).unwrap()),
        lifetime: Duration::from_secs(3600),
        leeway: Duration::ZERO,
    }
}

pub(super) fn token(settings: &IssuerSettings, service: &str, at: SystemTime) -> String {
    let request = MintRequest {
        issuer: &settings.issuer,
        audience: service,
        subject: "ann",
        lifetime: settings.lifetime,
        now: at,
    };
    mint(&settings.signing_key, &request).unwrap().token.expose_secret().to_owned()
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
    let stranger = IssuerSettings {
        signing_key: Arc::new(SigningKey::from_pem(&stranger.into()).unwrap()),
        ..settings.clone()
    };
    let elsewhere = IssuerSettings { issuer: "https://tokens.test/".to_owned(), ..settings.clone() };
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
