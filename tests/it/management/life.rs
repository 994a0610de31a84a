//! What outlives a restart, and what happens when the store does not play along.

use scoregate::app;
use scoregate::control::config::{Source, load};
use serde_json::json;

use super::catalogue::{aks, primary_key};
use super::{Api, OWNER, gateway, managed, problem};
use crate::harness::{Gateway, Upstream, eventually, ok};

const IRIS: &str = "/v1/workspaces/default/services/iris";

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_services_keys_tokens_and_roles() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let mut before = gateway().await;
    let api = Api::owner(&before);
    let made = api.call("PUT", IRIS, Some(&aks(upstream.address))).await;
    let key = primary_key(&api, "iris").await;
    assert_eq!(before.score("iris", Some(&key), "{}").await.status, 200);
    let reader = api.login(&before, "ann", "Reader", &json!({"workspace": "default"})).await;
    let events = api.get("/v1/activity").await["items"].as_array().unwrap().len();
    before.drain().await;
    let Gateway { dir, certificates, .. } = before;

    let after = Gateway::start_in(dir, certificates).await;
    assert_eq!(after.score("iris", Some(&key), "{}").await.status, 200);
    let api = Api::owner(&after);
    let kept = api.call("GET", IRIS, None).await;
    assert_eq!(kept.header("etag"), made.header("etag"));
    let keys = api.get(&format!("{IRIS}/keys")).await;
    assert_eq!(keys["primary"]["value"], key);
    assert!(keys["primary"]["last_used_at"].is_string(), "written down at the drain: {keys}");
    let reader = reader.on(&after);
    assert_eq!(reader.get("/v1/whoami").await["principal"], "ann");
    problem(&reader.call("DELETE", IRIS, None).await, 403, "AuthorizationFailed");
    assert!(api.get("/v1/activity").await["items"].as_array().unwrap().len() >= events);
    let verdict = api.expect(200, "POST", "/v1/activity/verify", None).await;
    assert_eq!(verdict.get("broken"), None, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_process_has_open_stops_the_start_and_is_named() {
    let gateway = gateway().await;
    let source = Source::path(&gateway.path("scoregate.yaml"));
    let started = app::Gateway::start(source.clone(), load(&source).unwrap()).await;
    let error = format!("{:#}", started.err().expect("two gateways on one store"));
    assert!(error.contains("store.path") && error.contains("open in another process"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_key_stops_the_start_and_is_named() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let mut gateway = gateway().await;
    Api::owner(&gateway).expect(201, "PUT", IRIS, Some(&aks(upstream.address))).await;
    gateway.drain().await;
    let key = std::fs::read_dir(gateway.path("store")).unwrap().map(|entry| entry.unwrap().path());
    let key = key.into_iter().find(|path| path.extension().is_some_and(|end| end == "key"));
    std::fs::remove_file(key.expect("a wrapping key beside the store")).unwrap();
    let source = Source::path(&gateway.path("scoregate.yaml"));
    let started = app::Gateway::start(source.clone(), load(&source).unwrap()).await;
    let error = format!("{:#}", started.err().expect("a start without the key"));
    assert!(error.contains("store.key") && error.contains("is not there"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_shows_in_readiness_and_metrics_and_certificates_follow_a_reload() {
    let gateway = gateway().await;
    gateway.until_metric("scoregate_store_up", 1.0).await;
    let (status, page) = gateway.observe("/readyz?verbose").await;
    assert!(status == 200 && page.contains("[+]store ok"), "{page}");

    let api = Api::owner(&gateway);
    let fresh = tempfile::tempdir().unwrap();
    let other = scoregate::tls::development_certificates(fresh.path(), &["other.test"]).unwrap();
    let old = gateway.certificates.ca.clone();
    for (name, from) in [("certs/server.key", &other.server.key), ("certs/server.pem", &other.server.cert)] {
        std::fs::copy(from, gateway.path(name)).unwrap();
    }
    eventually("a certificate of the new authority", async || {
        gateway.reload().await;
        (api.is_certified_by(&other.ca).await && !api.is_certified_by(&old).await).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_keys_and_the_number_of_the_snapshot_follow_what_the_api_changes() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    let before = gateway.metric("scoregate_snapshot_generation").await;
    assert_eq!(before, gateway.metric("scoregate_config_generation").await);
    api.expect(201, "PUT", IRIS, Some(&aks(upstream.address))).await;
    assert!(gateway.metric("scoregate_snapshot_generation").await > before);
    assert_eq!(gateway.metric("scoregate_config_generation").await, before);

    let of = |name: &str, key: &str| {
        format!(r#"scoregate_key_{name}_timestamp_seconds{{service="iris",key="{key}"}}"#)
    };
    let made = gateway.metric(&of("created", "primary")).await;
    assert!(made > 1.7e9, "{made}");
    assert_eq!(gateway.metric(&of("last_used", "secondary")).await, 0.0);
    let end = "2099-01-01T00:00:00Z";
    let change = json!({"expires_at": end});
    api.expect(200, "POST", &format!("{IRIS}/keys/secondary/regenerate"), Some(&change)).await;
    assert_eq!(gateway.metric(&of("not_after", "secondary")).await, 4_070_908_800.0);
    assert_eq!(gateway.metric(&of("not_after", "primary")).await, 0.0);
    assert!(gateway.metric(&of("created", "secondary")).await >= made);
    let key = primary_key(&api, "iris").await;
    assert_eq!(gateway.score("iris", Some(&key), "{}").await.status, 200);
    assert!(gateway.metric(&of("last_used", "primary")).await >= made);
    let page = gateway.observe("/metrics").await.1;
    assert!(page.contains(r#"_not_after_timestamp_seconds{listener="_management","#), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reload_cannot_change_is_named_and_nothing_is_changed() {
    let gateway = gateway().await;
    let changed = managed("  []")
        .replace("store: { kind: embedded, path: store }", "store: { kind: embedded, path: other }");
    gateway.replace("scoregate.yaml", &changed);
    let outcome = format!("{:?}", gateway.reload().await);
    assert!(outcome.contains("store.path changed"), "{outcome}");
    gateway.replace("bootstrap.key", "another-0123456789abcdefghijklmnop");
    gateway.replace("scoregate.yaml", &managed("  []"));
    let outcome = format!("{:?}", gateway.reload().await);
    assert!(
        outcome.contains("management.bootstrap_token changed") && !outcome.contains("another-"),
        "{outcome}"
    );
    assert_eq!(Api::with(&gateway, Some(OWNER)).get("/v1/whoami").await["principal"], "bootstrap");
}
