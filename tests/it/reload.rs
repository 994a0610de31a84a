//! Reload at the door: all or nothing, at once, and no call notices but by what has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use scoregate::control::Outcome;

use crate::harness::{
    Connection, Gateway, H2, KEY, OTHER_KEY, Upstream, config, eventually, score_request, service,
};

const NEW_KEY: &str = "new-primary-0123456789abcdefghijklm";
const IN_FLIGHT: &str = r#"scoregate_requests_in_flight{service="iris"}"#;

fn reloads(outcome: &str) -> String {
    format!(r#"scoregate_config_reloads_total{{outcome="{outcome}"}}"#)
}

/// Applied, be it that the watch was quicker and nothing was left to do.
fn assert_taken(outcome: &Outcome) {
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_service_appears_on_open_connections_and_a_removed_one_is_gone() {
    let upstream = Upstream::echo().await;
    let iris = service("iris", upstream.address, "");
    let gateway = Gateway::start(&config(&iris)).await;
    let mut h1 = gateway.connect().await;
    let mut h2 = gateway.h2().await;
    h1.send(score_request("rose", Some(KEY), "1")).await;
    assert_eq!(h1.answer().await.status, 404);
    assert_eq!(h2.score("rose", KEY, "1").await.status, 404);

    let both = format!("{iris}{}", service("rose", upstream.address, ""));
    gateway.replace("scoregate.yaml", &config(&both));
    assert_taken(&gateway.reload().await);
    h1.send(score_request("rose", Some(KEY), "1")).await;
    assert_eq!(h1.answer().await.status, 200);
    assert_eq!(h2.score("rose", KEY, "1").await.status, 200);
    assert_eq!(gateway.metric("scoregate_config_generation").await, 2.0);

    gateway.replace("scoregate.yaml", &config(&iris));
    assert_taken(&gateway.reload().await);
    h1.send(score_request("rose", Some(KEY), "1")).await;
    assert_eq!(h1.answer().await.status, 404);
    h1.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(h1.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_key_is_refused_at_once_on_open_connections_and_the_other_one_stays() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    let mut h1 = gateway.connect().await;
    let mut h2 = gateway.h2().await;
    h1.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(h1.answer().await.status, 200);
    assert_eq!(h2.score("iris", KEY, "1").await.status, 200);

    gateway.replace("primary.key", NEW_KEY);
    assert_taken(&gateway.reload().await);
    for (key, status) in [(KEY, 401), (NEW_KEY, 200), (OTHER_KEY, 200)] {
        h1.send(score_request("iris", Some(key), "1")).await;
        assert_eq!(h1.answer().await.status, status, "{key}");
        assert_eq!(h2.score("iris", key, "1").await.status, status, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_files_are_noticed_without_being_told() {
    let upstream = Upstream::echo().await;
    let iris = service("iris", upstream.address, "");
    let gateway = Gateway::start(&config(&iris)).await;
    // A secret, replaced by rename.
    gateway.replace("primary.key", NEW_KEY);
    eventually("the new key", async || {
        (gateway.score("iris", Some(NEW_KEY), "1").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 401);
    // The configuration, overwritten in place, with an error and then without.
    std::fs::write(gateway.path("scoregate.yaml"), "version: [").unwrap();
    gateway.until_metric("scoregate_config_last_reload_successful", 0.0).await;
    let both = format!("{iris}{}", service("rose", upstream.address, ""));
    std::fs::write(gateway.path("scoregate.yaml"), config(&both)).unwrap();
    eventually("the new service", async || {
        (gateway.score("rose", Some(NEW_KEY), "1").await.status == 200).then_some(())
    })
    .await;
    gateway.until_metric("scoregate_config_last_reload_successful", 1.0).await;
    // A change back to what runs is one, too.
    assert!(gateway.status().await["error"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_changes_nothing_and_is_told() {
    let upstream = Upstream::echo().await;
    let good = config(&service("iris", upstream.address, ""));
    let gateway = Gateway::start(&good).await;
    let before = gateway.status().await;
    assert_eq!(before["runningHash"], before["fileHash"]);
    assert!(before["error"].is_null());
    let hash = before["runningHash"].as_str().unwrap();
    assert_eq!(gateway.metric(&format!(r#"scoregate_config_info{{hash="{hash}"}}"#)).await, 1.0);
    let mut open = gateway.connect().await;

    gateway.replace("scoregate.yaml", &good.replace("services:", "services: ["));
    let Outcome::Refused(why) = gateway.reload().await else { panic!("a broken file was taken") };
    let status = gateway.status().await;
    assert_eq!(status["error"], why.as_str());
    for unchanged in ["runningHash", "generation", "appliedAt"] {
        assert_eq!(status[unchanged], before[unchanged], "{unchanged}");
    }
    assert_ne!(status["fileHash"], status["runningHash"]);
    assert!(gateway.metric(&reloads("refused")).await >= 1.0);
    assert_eq!(gateway.metric("scoregate_config_last_reload_successful").await, 0.0);
    assert_eq!(gateway.metric("scoregate_config_generation").await, 1.0);
    let (ready, told) = gateway.observe("/readyz?verbose").await;
    assert_eq!(ready, 200, "a gateway that serves well stays ready");
    assert!(told.contains("[-]config"), "{told}");
    open.send(score_request("iris", Some(KEY), "1")).await;
    assert_eq!(open.answer().await.status, 200);

    gateway.replace("scoregate.yaml", &good);
    assert_eq!(gateway.reload().await, Outcome::Unchanged);
    let status = gateway.status().await;
    assert!(status["error"].is_null());
    assert_eq!(status["fileHash"], before["runningHash"]);
    assert!(gateway.metric(&reloads("unchanged")).await >= 1.0);
    assert_eq!(gateway.metric("scoregate_config_last_reload_successful").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_restart_is_refused_by_name() {
    let upstream = Upstream::echo().await;
    let good = config(&service("iris", upstream.address, ""));
    let gateway = Gateway::start(&good).await;
    for (from, to, field) in [
        ("runtime: { workers: 2 }", "runtime: { workers: 1 }", "runtime.workers"),
        ("path: records.jsonl", "path: other.jsonl", "telemetry.records"),
        ("name: public", "name: private", "listeners"),
        ("name: public", "name: public\n    max_connections: 7", "max_connections"),
    ] {
        assert!(good.contains(from), "{from}");
        gateway.replace("scoregate.yaml", &good.replace(from, to));
        let Outcome::Refused(why) = gateway.reload().await else { panic!("{field} was taken") };
        assert!(why.contains("restart") && why.contains(field), "{field}: {why}");
        let status = gateway.status().await;
        assert!(status["error"].as_str().unwrap().contains(field), "{status}");
        assert_ne!(status["fileHash"], status["runningHash"]);
        assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
    }
}

/// Scores until `stop`; gives the number of calls. Any call that fails ends the test.
async fn keep_scoring_h1(mut connection: Connection, stop: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) {
        connection.send(score_request("iris", Some(OTHER_KEY), "h1")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "h1"));
        assert_ne!(answer.header("connection"), "close", "a reload closed a connection");
        calls += 1;
    }
    calls
}

async fn keep_scoring_h2(mut h2: H2, stop: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = h2.score("iris", OTHER_KEY, "h2").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "h2"));
        calls += 1;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_reloads_under_keep_alive_clients_fail_no_call_and_lose_no_record() {
    let upstream = Upstream::echo().await;
    let iris = service("iris", upstream.address, "");
    let gateway = Gateway::start(&config(&iris)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(tokio::spawn(keep_scoring_h1(gateway.connect().await, Arc::clone(&stop))));
    }
    for _ in 0..4 {
        clients.push(tokio::spawn(keep_scoring_h2(gateway.h2().await, Arc::clone(&stop))));
    }
    for round in 1..=10 {
        // Each round changes a key and the set of services; calls must go on between any two.
        let before = gateway.metric("scoregate_records_accepted_total").await;
        gateway.replace("primary.key", &format!("{NEW_KEY}-{round}"));
        let more = service(&format!("more-{round}"), upstream.address, "");
        gateway.replace("scoregate.yaml", &config(&format!("{iris}{more}")));
        assert_taken(&gateway.reload().await);
        eventually("more calls", async || {
            (gateway.metric("scoregate_records_accepted_total").await > before + 24.0).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for client in clients {
        calls += client.await.unwrap();
    }
    assert!(gateway.metric("scoregate_config_generation").await >= 11.0);
    let records = gateway.records(calls).await;
    assert_eq!(records.len(), calls);
    assert!(records.iter().all(|record| record["Reason"] == "ok"));
    let total = r#"scoregate_requests_total{service="iris",compute_type="AKS",deployment="blue",code="200",reason="ok"}"#;
    gateway.until_metric(total, calls as f64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_and_their_places_live_through_a_reload() {
    let (upstream, gate) = Upstream::held().await;
    let limits = "    limits: { concurrent_requests_per_replica: 1, queue_wait: 1ms }";
    let iris = service("iris", upstream.address, limits);
    let gateway = Gateway::start(&config(&iris)).await;
    let mut first = gateway.connect().await;
    first.send(score_request("iris", Some(KEY), "first")).await;
    eventually("the call at the model", async || (upstream.seen().len() == 1).then_some(())).await;
    gateway.until_metric(IN_FLIGHT, 1.0).await;

    let more = service("more", upstream.address, "");
    gateway.replace("scoregate.yaml", &config(&format!("{iris}{more}")));
    assert_taken(&gateway.reload().await);
    assert_eq!(gateway.metric(IN_FLIGHT).await, 1.0);
    // The one place is still taken by the call of the old snapshot.
    let second = gateway.score("iris", Some(KEY), "second").await;
    assert_eq!((second.status, second.reason()), (503, "queue_timeout"));

    gate.add_permits(2);
    let answer = first.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "first"));
    eventually("the place is free", async || {
        (gateway.score("iris", Some(KEY), "third").await.status == 200).then_some(())
    })
    .await;
    gateway.until_metric(IN_FLIGHT, 0.0).await;
}
