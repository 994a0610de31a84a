//! Replicas given by name, looked up again.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use scoregate::control::{LookUp, Resolver};

use crate::harness::{Gateway, KEY, Upstream, config, eventually, score_request};

/// What the name `model.test` means, as the test says.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<Meaning>>);

#[derive(Clone, Default)]
enum Meaning {
    /// Nobody knows.
    #[default]
    Unknown,
    /// These.
    Hosts(Vec<SocketAddr>),
}

impl Table {
    fn means(hosts: &[&Upstream]) -> Self {
        let table = Self::default();
        table.now_means(hosts);
        table
    }

    fn now_means(&self, hosts: &[&Upstream]) {
        *self.0.lock().unwrap() = Meaning::Hosts(hosts.iter().map(|host| host.address).collect());
    }

    fn forget(&self) {
        *self.0.lock().unwrap() = Meaning::Unknown;
    }
}

impl Resolver for Table {
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> LookUp<'a> {
        assert_eq!((host, port), ("model.test", 5001));
        let meaning = self.0.lock().unwrap().clone();
        Box::pin(async move {
            match meaning {
                Meaning::Hosts(hosts) => Ok(hosts),
                Meaning::Unknown => Err(io::Error::other("no such name")),
            }
        })
    }
}

/// Gateway whose service `iris` has `http://model.test:5001`; `more` is further YAML of the deployment.
async fn gateway(table: &Table, more: &str) -> Gateway {
    let service = format!(
        "  - name: iris\n    compute_type: AKS\n    keys: {{ primary: {{ file: primary.key }} }}\n    deployments:\n      \
         - {{ name: blue, replicas: [\"http://model.test:5001\"], names: {{ refresh: 100ms }} {more} }}\n"
    );
    Gateway::start_resolving(&config(&service), Arc::new(table.clone())).await
}

fn looked_up(outcome: &str) -> String {
    format!(r#"scoregate_names_total{{outcome="{outcome}"}}"#)
}

/// Waits until a look-up that began after this was called has ended so.
async fn until_looked_up(gateway: &Gateway, outcome: &str) {
    let before = gateway.metric(&looked_up(outcome)).await;
    eventually(outcome, async || (gateway.metric(&looked_up(outcome)).await >= before + 2.0).then_some(()))
        .await;
}

async fn score(gateway: &Gateway) {
    let answer = gateway.score("iris", Some(KEY), "1").await;
    assert_eq!((answer.status, answer.reason()), (200, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_addresses_of_a_name_share_its_calls_and_are_told_the_name() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let gateway = gateway(&Table::means(&[&one, &other]), "").await;
    gateway.until_ready("iris/blue", 2, 2).await;
    let calls = 40;
    for _ in 0..calls {
        score(&gateway).await;
    }
    // One of 2^40 runs gives all calls to one.
    assert!(!one.seen().is_empty() && !other.seen().is_empty());
    assert!(one.seen().iter().chain(&other.seen()).all(|seen| seen.header("host") == "model.test:5001"));
    let records = gateway.exactly(calls).await;
    let replicas: HashSet<_> = records.iter().map(|record| record["Replica"].as_str().unwrap()).collect();
    assert_eq!(replicas, HashSet::from([&*one.address.to_string(), &*other.address.to_string()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_means_another_host_is_followed_and_calls_under_way_finish() {
    let (old, gate) = Upstream::held().await;
    let new = Upstream::echo().await;
    let table = Table::means(&[&old]);
    let gateway = gateway(&table, "").await;
    until_looked_up(&gateway, "unchanged").await;
    let mut under_way = gateway.connect().await;
    under_way.send(score_request("iris", Some(KEY), "old")).await;
    old.until_seen(1).await;

    table.now_means(&[&new]);
    gateway.until_metric(&looked_up("changed"), 2.0).await;
    until_looked_up(&gateway, "unchanged").await;
    gateway.until_ready("iris/blue", 1, 1).await;
    for _ in 0..10 {
        score(&gateway).await;
    }
    assert_eq!((new.seen().len(), old.seen().len()), (10, 1));
    gate.add_permits(1);
    let answer = under_way.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "old"));
    gateway.exactly(11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_good_answer_is_kept_while_the_name_service_fails() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let table = Table::means(&[&one]);
    let gateway = gateway(&table, "").await;
    until_looked_up(&gateway, "unchanged").await;
    table.forget();
    until_looked_up(&gateway, "failed").await;
    score(&gateway).await;
    table.now_means(&[]);
    until_looked_up(&gateway, "empty").await;
    score(&gateway).await;
    assert_eq!(one.seen().len(), 2);
    table.now_means(&[&other]);
    until_looked_up(&gateway, "unchanged").await;
    score(&gateway).await;
    assert_eq!((one.seen().len(), other.seen().len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_host_that_a_name_means_no_more_are_closed() {
    let closed = Arc::new(Mutex::new(0));
    let count = Arc::clone(&closed);
    let old = Upstream::serving(move |mut tcp, connection, log| {
        let count = Arc::clone(&count);
        async move {
            let mut buffer = Vec::new();
            while let Some(seen) = crate::harness::read_request(&mut tcp, &mut buffer, connection).await {
                let answer = crate::harness::ok(&seen.body);
                log.lock().unwrap().push(seen);
                tokio::io::AsyncWriteExt::write_all(&mut tcp, &answer).await.unwrap();
            }
            *count.lock().unwrap() += 1;
        }
    })
    .await;
    let new = Upstream::echo().await;
    let table = Table::means(&[&old]);
    let gateway = gateway(&table, "").await;
    until_looked_up(&gateway, "unchanged").await;
    score(&gateway).await;
    assert_eq!((old.accepted(), *closed.lock().unwrap()), (1, 0), "a pooled connection");
    table.now_means(&[&new]);
    eventually("the pooled connection is closed", async || (*closed.lock().unwrap() == 1).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_host_of_a_name_proves_itself_before_the_old_one_goes() {
    let old = Upstream::echo().await;
    let is_ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ready = Arc::clone(&is_ready);
    let new = Upstream::answering(move |seen| {
        if ready.load(std::sync::atomic::Ordering::Relaxed) {
            crate::harness::ok(&seen.body)
        } else {
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
    })
    .await;
    let table = Table::means(&[&old]);
    let gateway = gateway(&table, ", health: { probe: { interval: 100ms } }").await;
    gateway.until_ready("iris/blue", 1, 1).await;
    table.now_means(&[&new]);
    gateway.until_ready("iris/blue", 1, 2).await;
    score(&gateway).await;
    is_ready.store(true, std::sync::atomic::Ordering::Relaxed);
    gateway.until_ready("iris/blue", 1, 1).await;
    score(&gateway).await;
    let scored =
        |upstream: &Upstream| upstream.seen().iter().filter(|seen| seen.line().starts_with("POST")).count();
    assert_eq!((scored(&old), scored(&new)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_keeps_what_names_mean() {
    let upstream = Upstream::echo().await;
    let table = Table::means(&[&upstream]);
    let gateway = gateway(&table, "").await;
    until_looked_up(&gateway, "unchanged").await;
    // From now on nobody would find out again.
    table.forget();
    until_looked_up(&gateway, "failed").await;
    let text = std::fs::read_to_string(gateway.path("scoregate.yaml")).unwrap();
    gateway.replace(
        "scoregate.yaml",
        &text.replace("model.test:5001\"", "model.test:5001\", \"http://127.0.0.1:9\""),
    );
    assert!(!matches!(gateway.reload().await, scoregate::control::Outcome::Refused(_)));
    let (_, checks) = gateway.observe("/readyz?verbose").await;
    assert!(checks.contains("replicas iris/blue 2 of 2 ready"), "{checks}");
    gateway.replace("scoregate.yaml", &text);
    assert!(!matches!(gateway.reload().await, scoregate::control::Outcome::Refused(_)));
    score(&gateway).await;
    assert_eq!(gateway.exactly(1).await[0]["Replica"], upstream.address.to_string());
}
