//! Events of the activity log at the collector: each of them, in the same counts as records, also when the gateway is killed
//! between their commit and their sending; and none where the configuration wants them kept.

use serde_json::json;

use super::*;
use crate::management::{Api, OWNER, call, managed};

const IRIS: &str = "/v1/workspaces/default/services/iris";
/// How often the gateway is killed.
const KILLS: usize = 6;

/// A management plane and the exporter; `more` is YAML of `telemetry`.
fn config_with(more: &str) -> String {
    let exporter = format!(
        "telemetry: {{ {more} application_insights: {{ connection_string: {{ file: insights }} }}, records:"
    );
    managed("  []").replace("telemetry: { records:", &exporter)
}

async fn gateway(more: &str, server: &Upstream) -> Gateway {
    let files = [("bootstrap.key", OWNER), ("insights", &connection_string(server))];
    Gateway::start_with(&config_with(more), &files).await
}

fn spec() -> Value {
    json!({
        "compute_type": "AKS",
        "deployments": { "blue": { "traffic": 100, "replicas": ["http://127.0.0.2:1"] } },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_reaches_the_collector_once_and_counts_like_a_record() {
    let (collector, server) = Collector::start(&[Play::Status(503), Play::Partly]).await;
    let gateway = gateway("", &server).await;
    let api = Api::owner(&gateway);
    api.expect(201, "PUT", IRIS, Some(&spec())).await;
    assert_eq!(gateway.score("iris", None, "[1]").await.status, 401);
    let _ = api.call("DELETE", "/v1/workspaces/default/services/none", None).await;
    let logged = api.get("/v1/activity?limit=100").await["items"].as_array().unwrap().len();
    assert!(logged >= 2, "{logged}");
    assert_eq!(
        until_settled(&gateway, logged + 1).await,
        [logged as f64 + 1.0, logged as f64 + 1.0, 0.0, 0.0]
    );
    let taken = collector.taken();
    let expected: BTreeSet<_> = (1..=logged).map(|sequence| format!("event {sequence}")).collect();
    let events: BTreeSet<_> = taken.keys().filter(|id| id.starts_with("event")).cloned().collect();
    assert_eq!((events, taken.len()), (expected, logged + 1));
    assert!(taken.values().all(|times| *times == 1), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_stay_in_the_store_where_they_are_to_be_kept() {
    let (collector, server) = Collector::start(&[]).await;
    let gateway = gateway("activity: false,", &server).await;
    Api::owner(&gateway).expect(201, "PUT", IRIS, Some(&spec())).await;
    assert_eq!(gateway.score("iris", None, "[1]").await.status, 401);
    until_settled(&gateway, 1).await;
    assert!(collector.taken().keys().all(|id| !id.starts_with("event")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_exporters_that_can_tell_of_events_get_them() {
    let (_collector, server) = Collector::start(&[]).await;
    // Nobody takes what is sent there.
    let gateway = gateway("otlp: { endpoint: \"http://127.0.0.2:1\" },", &server).await;
    Api::owner(&gateway).expect(201, "PUT", IRIS, Some(&spec())).await;
    assert_eq!(gateway.score("iris", None, "[1]").await.status, 401);
    until_settled(&gateway, 3).await;
    let series = |exporter| format!("scoregate_exporter_accepted_total{{exporter=\"{exporter}\"}}");
    for (exporter, entries) in [("otlp_logs", 3.0), ("otlp_traces", 1.0), ("otlp_metrics", 1.0)] {
        gateway.until_metric(&series(exporter), entries).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_events_before_the_end_are_sent_by_the_next_process() {
    let (collector, server) = Collector::start(&[]).await;
    collector.dies();
    let mut gateway = gateway("", &server).await;
    Api::owner(&gateway).expect(201, "PUT", IRIS, Some(&spec())).await;
    soon("the drain", gateway.drain()).await;
    collector.is_back();
    let gateway = Gateway::start_in(gateway.dir, gateway.certificates).await;
    assert_eq!(until_settled(&gateway, 2).await, [2.0, 2.0, 0.0, 0.0], "found, and sent");
    assert_eq!(collector.taken().keys().cloned().collect::<Vec<_>>(), ["event 1", "event 2"]);
}

/// Changes the service until the process is killed.
async fn change_until_killed(process: &mut Process, ca: &Path) {
    let address = process.ready["management"].as_str().unwrap().parse().unwrap();
    let mut connection = Connection::tls(address, "localhost", ca).await;
    let pid = process.child.id().unwrap();
    let delay = Duration::from_micros(fastrand::u64(0..120_000));
    let killer = tokio::task::spawn_blocking(move || {
        std::thread::sleep(delay);
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.unwrap().success());
    });
    while call(&mut connection, "PUT", IRIS, &spec()).await.is_some() {}
    killer.await.unwrap();
    process.child.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_at_any_moment_misses_no_event() {
    let (collector, server) = Collector::start(&[]).await;
    collector.dies();
    let (dir, certificates) = prepare(&config_with("spool: { path: spool, encryption: store },"));
    std::fs::write(dir.path().join("bootstrap.key"), OWNER).unwrap();
    std::fs::write(dir.path().join("insights"), connection_string(&server)).unwrap();
    for _ in 0..KILLS {
        let mut process = Process::start(dir.path()).await;
        change_until_killed(&mut process, &certificates.ca).await;
    }
    collector.is_back();
    let gateway = Gateway::start_in(dir, certificates).await;
    let last =
        Api::owner(&gateway).get("/v1/activity?limit=1").await["items"][0]["sequence"].as_u64().unwrap();
    assert!(last >= KILLS as u64, "the kills came too early to test anything: {last} events");
    let expected: BTreeSet<_> = (1..=last).map(|sequence| format!("event {sequence}")).collect();
    eventually("every event at the collector", async || {
        let [all, delivered, dropped, spooled] = counts(&gateway.observe("/metrics").await.1);
        assert_eq!((all, dropped), (delivered + spooled, 0.0));
        (collector.taken().into_keys().collect::<BTreeSet<_>>() == expected).then_some(())
    })
    .await;
}
