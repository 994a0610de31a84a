//! Exporters at the door: every record reaches the collector exactly once, whatever the collector does, no call notices,
//! and the counts add up.

mod activity;
mod ahead;
mod encryption;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Authority, Connection, Gateway, KEY, Seen, Upstream, config, eventually, prepare, read_request,
    score_request, service, soon,
};

const EXPORTER: &str = r#"{exporter="application_insights"}"#;

/// What the collector does with one request.
#[derive(Clone, Copy, Debug)]
enum Play {
    /// Closes the connection without an answer.
    Cut,
    /// Takes everything, but late.
    Slow,
    Status(u16),
    /// 429 with this `Retry-After` in seconds.
    Busy(u64),
    /// 206: of three items the first is taken, the second may come again, the third as well.
    Partly,
}

/// An ingestion server: plays a script, then takes everything.
#[derive(Clone)]
struct Collector(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    script: Vec<Play>,
    /// How often each id was taken.
    taken: BTreeMap<String, usize>,
    /// Items of each request, the script's among them.
    requests: Vec<usize>,
    times: Vec<Instant>,
    /// While it lasts, every connection is cut.
    is_dead: bool,
}

impl Collector {
    async fn start(script: &[Play]) -> (Self, Upstream) {
        let script = script.iter().rev().copied().collect();
        let collector = Self(Arc::new(Mutex::new(State { script, ..State::default() })));
        let shared = collector.clone();
        let server = Upstream::serving(move |mut tcp, connection, _| {
            let collector = shared.clone();
            async move {
                let mut buffer = Vec::new();
                while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
                    let Some((answer, delay)) = collector.answer(&seen) else { return };
                    tokio::time::sleep(delay).await;
                    if tcp.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        (collector, server)
    }

    fn dies(&self) {
        self.0.lock().unwrap().is_dead = true;
    }

    fn is_back(&self) {
        self.0.lock().unwrap().is_dead = false;
    }

    /// `None`: the connection is cut.
    fn answer(&self, seen: &Seen) -> Option<(String, Duration)> {
        assert_eq!(seen.line(), "POST /v2.1/track HTTP/1.1");
        assert_eq!(
            (seen.header("content-encoding"), seen.header("content-type")),
            ("gzip", "application/json")
        );
        let mut text = String::new();
        flate2::read::GzDecoder::new(&seen.body[..]).read_to_string(&mut text).unwrap();
        let ids: Vec<String> =
            serde_json::from_str::<Vec<Value>>(&text).unwrap().iter().map(checked).collect();
        let mut state = self.0.lock().unwrap();
        state.requests.push(ids.len());
        state.times.push(Instant::now());
        if state.is_dead {
            return None;
        }
        let everything = || (0..ids.len()).collect::<Vec<_>>();
        let taken_all = "{}".to_owned();
        let (status, more, body, delay, taken) = match state.script.pop() {
            Some(Play::Cut) => return None,
            Some(Play::Status(status)) => (status, String::new(), String::new(), 0, Vec::new()),
            Some(Play::Busy(seconds)) => {
                (429, format!("Retry-After: {seconds}\r\n"), String::new(), 0, Vec::new())
            }
            Some(Play::Partly) => {
                let (taken, again): (Vec<_>, Vec<_>) = (0..ids.len()).partition(|at| at % 3 == 0);
                let errors: Vec<_> =
                    again.iter().map(|at| format!(r#"{{"index":{at},"statusCode":500}}"#)).collect();
                (206, String::new(), format!(r#"{{"errors":[{}]}}"#, errors.join(",")), 0, taken)
            }
            Some(Play::Slow) => (200, String::new(), taken_all, 1000, everything()),
            None => (200, String::new(), taken_all, 0, everything()),
        };
        for at in taken {
            *state.taken.entry(ids[at].clone()).or_default() += 1;
        }
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} Played\r\n{more}Content-Length: {length}\r\n\r\n{body}");
        Some((answer, Duration::from_millis(delay)))
    }

    fn taken(&self) -> BTreeMap<String, usize> {
        self.0.lock().unwrap().taken.clone()
    }

    fn requests(&self) -> usize {
        self.0.lock().unwrap().requests.len()
    }
}

/// The id of an item that has all it must have; of an event its place in the activity log.
fn checked(item: &Value) -> String {
    if item["data"]["baseType"] == "EventData" {
        assert_eq!(item["name"], "Microsoft.ApplicationInsights.Event");
        let data = &item["data"]["baseData"];
        assert!(data["name"].as_str().unwrap().starts_with("Microsoft."), "{item}");
        assert_eq!(data["name"], item["tags"]["ai.operation.name"]);
        return format!("event {}", data["properties"]["sequence"].as_str().unwrap());
    }
    assert_eq!(item["name"], "Microsoft.ApplicationInsights.Request");
    assert_eq!(item["data"]["baseType"], "RequestData");
    let data = &item["data"]["baseData"];
    for field in ["HTTPMethod", "ComputeType", "RequestUrl", "StatusCode", "RequestId", "Duration"] {
        assert!(data["properties"][field].is_string(), "{field} in {item}");
    }
    assert_eq!(data["responseCode"], data["properties"]["StatusCode"]);
    data["id"].as_str().unwrap().to_owned()
}

/// The collector at `address` behind TLS, as a proxy in front of it would be.
async fn encrypted(address: SocketAddr, authority: &Authority) -> Upstream {
    let tls = TlsAcceptor::from(authority.server("localhost", None));
    Upstream::serving(move |tcp, _, _| {
        let tls = tls.clone();
        async move {
            let Ok(mut client) = tls.accept(tcp).await else { return };
            let mut collector = TcpStream::connect(address).await.unwrap();
            // Either end may leave at any time.
            let _ = copy_bidirectional(&mut client, &mut collector).await;
        }
    })
    .await
}

/// The harness's gateway with the exporter and `spool` (YAML), sending to `collector`.
fn exporting(services: &str, spool: &str) -> String {
    let exporter = format!(
        "telemetry: {{ spool: {spool}, application_insights: {{ connection_string: {{ file: insights }} }}, records:"
    );
    config(services).replace("telemetry: { records:", &exporter)
}

fn connection_string(collector: &Upstream) -> String {
    format!(
        "InstrumentationKey=99999999-8888-4777-8666-555555555555;IngestionEndpoint=http://{}/",
        collector.address
    )
}

async fn score(gateway: &Gateway, calls: usize) {
    let mut connection = gateway.connect().await;
    for _ in 0..calls {
        connection.send(score_request("iris", Some(KEY), "[1]")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
}

/// Ids of the records in the file.
fn recorded(folder: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder.join("records.jsonl")).unwrap();
    let id = |line| serde_json::from_str::<Value>(line).unwrap()["RequestId"].as_str().unwrap().to_owned();
    text.lines().map(id).collect()
}

/// Accepted, delivered, dropped and spooled on one page.
fn counts(page: &str) -> [f64; 4] {
    let value = |series: String| {
        let line = page.lines().find_map(|line| line.strip_prefix(&series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} in {page}")).parse().unwrap()
    };
    let outcome = |outcome| {
        value(format!(
            r#"scoregate_exporter_records_total{{exporter="application_insights",outcome="{outcome}"}}"#
        ))
    };
    [
        value(format!("scoregate_exporter_accepted_total{EXPORTER}")),
        outcome("delivered"),
        outcome("dropped"),
        value(format!("scoregate_exporter_spooled{EXPORTER}")),
    ]
}

/// Waits until so many records were accepted and nothing is spooled any more; on every page the counts must add up.
async fn until_settled(gateway: &Gateway, accepted: usize) -> [f64; 4] {
    eventually("all records settled", async || {
        let counts = counts(&gateway.observe("/metrics").await.1);
        let [all, delivered, dropped, spooled] = counts;
        assert_eq!(all, delivered + dropped + spooled, "{counts:?}");
        (all == accepted as f64 && spooled == 0.0).then_some(counts)
    })
    .await
}

fn assert_each_once(taken: &BTreeMap<String, usize>, recorded: &BTreeSet<String>) {
    assert_eq!(&taken.keys().cloned().collect::<BTreeSet<_>>(), recorded);
    assert!(taken.values().all(|times| *times == 1), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_collector_does_each_record_arrives_once() {
    let upstream = Upstream::echo().await;
    let script = [
        Play::Cut,
        Play::Busy(1),
        Play::Status(500),
        Play::Partly,
        Play::Status(503),
        Play::Partly,
        Play::Slow,
    ];
    let (collector, server) = Collector::start(&script).await;
    let services = service("iris", upstream.address, "");
    let gateway = Gateway::start_with(
        &exporting(&services, "{ path: spool }"),
        &[("insights", &connection_string(&server))],
    )
    .await;
    score(&gateway, 60).await;
    assert_eq!(until_settled(&gateway, 60).await, [60.0, 60.0, 0.0, 0.0]);
    assert_each_once(&collector.taken(), &recorded(gateway.dir.path()));
    {
        let state = collector.0.lock().unwrap();
        assert!(state.script.is_empty(), "the whole script was played");
        let asked = state.times[2] - state.times[1];
        assert!(asked >= Duration::from_secs(1), "Retry-After was not obeyed: {asked:?}");
    }
    assert_eq!(gateway.metric("scoregate_records_total{outcome=\"dropped\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_collector_left_is_sent_by_the_next_process() {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(&[]).await;
    collector.dies();
    let services = service("iris", upstream.address, "");
    let config = exporting(&services, "{ path: spool, mode: write_ahead }");
    let mut gateway = Gateway::start_with(&config, &[("insights", &connection_string(&server))]).await;
    score(&gateway, 30).await;
    eventually("a try", async || (collector.requests() > 0).then_some(())).await;
    gateway.until_metric(&format!("scoregate_exporter_spooled{EXPORTER}"), 30.0).await;
    soon("the drain", gateway.drain()).await;
    collector.is_back();
    let gateway = Gateway::start_in(gateway.dir, gateway.certificates).await;
    assert_eq!(until_settled(&gateway, 30).await, [30.0, 30.0, 0.0, 0.0], "found, and sent");
    score(&gateway, 5).await;
    until_settled(&gateway, 35).await;
    assert_each_once(&collector.taken(), &recorded(gateway.dir.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_is_dropped_counted_and_no_end_of_it() {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(&[Play::Status(439)]).await;
    let services = service("iris", upstream.address, "");
    let gateway = Gateway::start_with(
        &exporting(&services, "{ mode: memory }"),
        &[("insights", &connection_string(&server))],
    )
    .await;
    score(&gateway, 3).await;
    eventually("the refusal", async || (collector.requests() > 0).then_some(())).await;
    score(&gateway, 3).await;
    let [_, delivered, dropped, _] = until_settled(&gateway, 6).await;
    assert!(delivered > 0.0 && dropped > 0.0);
    assert_eq!(collector.taken().len() as f64, delivered);
    assert!(!gateway.path("spool").exists(), "nothing is written in this mode");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_with_a_private_authority_is_trusted_by_that_alone_and_a_new_bundle_is_taken_up() {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(&[]).await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let front = encrypted(server.address, &authority).await;
    let services = service("iris", upstream.address, "");
    let config = exporting(&services, "{ mode: memory }")
        .replace("{ file: insights }", "{ file: insights }, ca: collector.pem");
    let endpoint = format!("https://localhost:{}/", front.address.port());
    let files = [
        (
            "insights",
            format!("InstrumentationKey=99999999-8888-4777-8666-555555555555;IngestionEndpoint={endpoint}"),
        ),
        ("collector.pem", std::fs::read_to_string(stranger.ca()).unwrap()),
    ];
    let gateway =
        Gateway::start_with(&config, &files.each_ref().map(|(name, text)| (*name, text.as_str()))).await;
    score(&gateway, 3).await;
    eventually("a handshake", async || (front.accepted() > 0).then_some(())).await;
    assert_eq!(collector.requests(), 0, "a stranger's certificate is no collector's");
    std::fs::copy(authority.ca(), gateway.path("collector.pem")).unwrap();
    assert_eq!(until_settled(&gateway, 3).await, [3.0, 3.0, 0.0, 0.0]);
    assert_each_once(&collector.taken(), &recorded(gateway.dir.path()));
}

/// The built binary in a folder.
struct Process {
    child: Child,
    ready: Value,
}

impl Process {
    async fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_scoregate"))
            .args(["run", "-c"])
            .arg(folder.join("scoregate.yaml"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        soon("the ready line", stdout.read_line(&mut line)).await.unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    async fn page(&self) -> String {
        let observe = self.ready["observe"].as_str().unwrap().parse().unwrap();
        let mut connection = Connection::plain(observe).await;
        connection.send("GET /metrics HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n").await;
        connection.answer().await.text()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_gateway_loses_no_record_that_its_spool_has() {
    let upstream = Upstream::echo().await;
    let (collector, server) = Collector::start(&[]).await;
    collector.dies();
    let (dir, certificates) = prepare(&exporting(&service("iris", upstream.address, ""), "{ path: spool }"));
    std::fs::write(dir.path().join("insights"), connection_string(&server)).unwrap();
    let mut process = Process::start(dir.path()).await;
    let public = process.ready["listeners"]["public"].as_str().unwrap().parse().unwrap();
    let mut connection = Connection::tls(public, "localhost", &certificates.ca).await;
    for _ in 0..40 {
        connection.send(score_request("iris", Some(KEY), "[1]")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    eventually("40 records spooled", async || (counts(&process.page().await)[3] == 40.0).then_some(())).await;
    eventually("a batch in hand", async || (collector.requests() > 0).then_some(())).await;
    process.child.kill().await.unwrap();
    collector.is_back();
    let process = Process::start(dir.path()).await;
    eventually("all delivered", async || {
        (counts(&process.page().await) == [40.0, 40.0, 0.0, 0.0]).then_some(())
    })
    .await;
    assert_each_once(&collector.taken(), &recorded(dir.path()));
}
