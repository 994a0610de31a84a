//! The exporter against an ingestion server that plays every reply in turn.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::exporter::Fate;
use super::super::runner::Runner;
use super::sender::MOST_REDIRECTS;
use super::*;
use crate::catalog::ComputeType;
use crate::telemetry::record::Record;
use crate::telemetry::spool::{ExporterCounts, Reading, Spool};
use crate::telemetry::{Metrics, Privacy, ServiceMetrics, SpoolEncryption, SpoolMode, SpoolSettings};

const KEY: &str = "99999999-8888-4777-8666-555555555555";

/// What the server does with a request: status, headers, body.
#[derive(Clone, Debug)]
struct Reply(u16, Vec<(&'static str, String)>, String);

/// The exporter's towards an endpoint.
fn settings(endpoint: &str) -> InsightsSettings {
    let text = format!("InstrumentationKey={KEY};IngestionEndpoint={endpoint}");
    let connection = ConnectionString::of(Some(&text), |_| None).unwrap();
    InsightsSettings { connection, ca: None, metrics_interval: None, spool: spool() }
}

fn spool() -> SpoolSettings {
    let age = Duration::from_secs(3600);
    let (size, encryption) = (1 << 20, SpoolEncryption::None);
    SpoolSettings { path: "unused".into(), mode: SpoolMode::Memory, size, age, encryption }
}

/// An ingestion server on loopback; it ends when dropped.
struct Ingestion {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Reply>,
    seen: Vec<Seen>,
}

/// One POST as it came.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: HeaderNames,
    items: Vec<Value>,
}

type HeaderNames = Vec<(String, String)>;

impl Ingestion {
    /// Plays `script`, then answers 200.
    async fn start(script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { script: script.into(), ..State::default() }));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(request, Arc::clone(&state)));
                drop(tokio::spawn(async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
                }));
            }
        });
        Self { address, state, accepting }
    }

    fn settings(&self) -> InsightsSettings {
        settings(&format!("http://{}/", self.address))
    }

    fn exporter(&self) -> Insights {
        Insights::new(&self.settings())
    }

    fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// Ids by request.
    fn ids(&self) -> Vec<Vec<String>> {
        let id = |item: &Value| item["data"]["baseData"]["id"].as_str().unwrap().to_owned();
        self.seen().iter().map(|seen| seen.items.iter().map(id).collect()).collect()
    }
}

impl Drop for Ingestion {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    let headers =
        head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let items = serde_json::from_str(&text).unwrap();
    let mut state = state.lock().unwrap();
    state.seen.push(Seen { path: head.uri.to_string(), headers: headers.collect(), items });
    let Reply(status, headers, body) = state.script.pop_front().unwrap_or_else(|| reply(200, "{}"));
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(body)).unwrap())
}

fn reply(status: u16, body: &str) -> Reply {
    Reply(status, Vec::new(), body.to_owned())
}

/// A redirect to this address.
fn moved(status: u16, to: SocketAddr) -> Reply {
    Reply(status, vec![("location", format!("http://{to}/v2.1/track"))], String::new())
}

fn line(number: usize) -> Vec<u8> {
    let mut line = Vec::new();
    Record::sample().encode(Privacy::Standard, &mut line);
    let text = String::from_utf8(line).unwrap();
    text.replace("11111111-2222", &format!("{number:08}-2222")).into_bytes()
}

fn items(exporter: &Insights, count: usize) -> Vec<Vec<u8>> {
    let item = |number| {
        let line = line(number);
        let entry = Entry { kind: EntryKind::Record, line: line.trim_ascii_end() };
        exporter.translate(entry).unwrap()
    };
    (0..count).map(item).collect()
}

async fn sent(script: Vec<Reply>) -> (Outcome, Ingestion) {
    let server = Ingestion::start(script).await;
    let mut exporter = server.exporter();
    let items = items(&exporter, 3);
    (exporter.send(&items).await, server)
}

#[tokio::test]
async fn a_batch_is_one_gzipped_array_over_one_connection() {
    let (outcome, server) = sent(vec![]).await;
    assert_eq!(outcome, Outcome::Delivered);
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].path.as_str(), seen[0].items.len()), (1, "/v2.1/track", 3));
    assert!(seen[0].items.iter().all(|item| item["iKey"] == KEY));
    let header =
        |name: &str| seen[0].headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("content-encoding"), Some("gzip"));
    assert_eq!(header("x-ms-client-request-id").unwrap().len(), 36);
    assert_eq!(header("host").unwrap(), server.address.to_string());
}

#[tokio::test]
async fn each_status_has_its_outcome_over_the_wire() {
    for status in [401, 403, 408, 429, 500, 502, 503, 504] {
        assert!(matches!(sent(vec![reply(status, "")]).await.0, Outcome::Later(_)), "{status}");
    }
    for status in [400, 402, 404, 439] {
        let (outcome, server) = sent(vec![reply(status, "no quota")]).await;
        assert_eq!(outcome, Outcome::Refused { cause: format!("status {status}: no quota") });
        assert_eq!(server.seen().len(), 1);
    }
    let partly = r#"{"itemsReceived":3,"itemsAccepted":1,"errors":[{"index":0,"statusCode":503},{"index":2,"statusCode":400}]}"#;
    let Outcome::Each { fates, .. } = sent(vec![reply(206, partly)]).await.0 else { panic!("no fates") };
    assert_eq!(fates, [Fate::Again, Fate::Delivered, Fate::Dropped]);
    let busy = Reply(429, vec![("retry-after", "17".to_owned())], String::new());
    let Outcome::Later(again) = sent(vec![busy]).await.0 else { panic!("not later") };
    assert_eq!(again.after, Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn a_redirect_within_the_domain_is_followed_and_remembered() {
    for status in [307, 308] {
        let new = Ingestion::start(vec![]).await;
        let old = Ingestion::start(vec![moved(status, new.address)]).await;
        let mut exporter = old.exporter();
        let items = items(&exporter, 2);
        assert_eq!(exporter.send(&items).await, Outcome::Delivered);
        assert_eq!(exporter.send(&items).await, Outcome::Delivered);
        assert_eq!((old.seen().len(), new.seen().len()), (1, 2));
    }
}

#[tokio::test]
async fn a_redirect_elsewhere_or_without_end_is_not_followed() {
    let away = Reply(307, vec![("location", "http://127.0.0.2:1/v2.1/track".to_owned())], String::new());
    let Outcome::Later(again) = sent(vec![away]).await.0 else { panic!("not later") };
    assert!(again.cause.contains("another domain"), "{}", again.cause);
    let circle = Reply(308, vec![("location", "/v2.1/track".to_owned())], String::new());
    let (outcome, server) = sent(vec![circle; 50]).await;
    let Outcome::Later(again) = outcome else { panic!("not later") };
    assert_eq!((again.cause.as_str(), server.seen().len()), ("more than 10 redirects", MOST_REDIRECTS + 1));
}

#[tokio::test]
async fn a_dead_collector_is_for_later() {
    // Bound and not listening: nobody else can get the port meanwhile.
    let holder = tokio::net::TcpSocket::new_v4().unwrap();
    holder.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = holder.local_addr().unwrap();
    let mut exporter = Insights::new(&settings(&format!("http://{address}")));
    let items = items(&exporter, 1);
    let Outcome::Later(again) = exporter.send(&items).await else { panic!("not later") };
    assert!(again.cause.starts_with("connecting failed"), "{}", again.cause);
}

/// An exporter that runs on a spool in memory.
struct Running {
    spool: Arc<Spool>,
    counts: Arc<ExporterCounts>,
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(server: &Ingestion) -> Self {
        let counts = Arc::new(ExporterCounts::default());
        let spool = Arc::new(Spool::open(NAME, &spool(), None, Arc::clone(&counts)).unwrap());
        let closing = watch::Sender::new(false);
        let runner = Runner::new(server.exporter(), Arc::clone(&spool), closing.subscribe());
        Self { spool, counts, closing, task: tokio::spawn(runner.run()) }
    }

    /// Waits until nothing is spooled.
    async fn emptied(&self) -> Reading {
        for _ in 0..3000 {
            let reading = self.counts.reading();
            assert_eq!(reading.accepted, reading.delivered + reading.dropped + reading.spooled);
            if reading.spooled == 0 && reading.accepted > 0 {
                return reading;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("records stay in the spool: {:?}", self.counts.reading());
    }
}

#[tokio::test]
async fn of_a_batch_partly_taken_only_the_rest_is_sent_again() {
    let partly = r#"{"errors":[{"index":1,"statusCode":500},{"index":3,"statusCode":400}]}"#;
    let server = Ingestion::start(vec![reply(503, ""), reply(206, partly)]).await;
    let running = Running::start(&server);
    let mut lines: Vec<u8> = (0..4).flat_map(line).collect();
    lines.extend_from_slice(b"{\"no\":\"record\"}\n");
    running.spool.append(EntryKind::Record, &lines);
    let reading = running.emptied().await;
    assert_eq!((reading.delivered, reading.dropped), (3, 2), "one refused, one untranslatable");
    let ids = server.ids();
    assert_eq!(ids.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 1]);
    assert_eq!(ids[0], ids[1], "a resend has the same ids");
    assert_eq!(ids[2], [ids[0][1].clone()]);
    running.closing.send_replace(true);
    running.task.await.unwrap();
}

#[tokio::test]
async fn refused_batches_are_dropped_and_counted_and_the_next_ones_sent() {
    let server = Ingestion::start(vec![reply(402, ""), reply(439, ""), reply(400, ""), reply(404, "")]).await;
    let running = Running::start(&server);
    // Batches of their own: each is full.
    let lines: Vec<u8> = (0..BATCH.records * 4 + 1).flat_map(line).collect();
    running.spool.append(EntryKind::Record, &lines);
    running.closing.send_replace(true);
    let reading = running.emptied().await;
    let sizes: Vec<_> = server.ids().iter().map(Vec::len).collect();
    assert_eq!(reading.dropped as usize, sizes[..4].iter().sum::<usize>());
    assert_eq!(reading.delivered as usize, sizes[4..].iter().sum::<usize>());
    assert_eq!(reading.accepted as usize, BATCH.records * 4 + 1);
    running.task.await.unwrap();
}

#[tokio::test]
async fn at_the_end_it_delivers_what_it_can_and_does_not_wait_for_a_collector_that_fails() {
    let server = Ingestion::start(vec![]).await;
    let running = Running::start(&server);
    running.spool.append(EntryKind::Record, &line(1));
    running.closing.send_replace(true);
    running.task.await.unwrap();
    assert_eq!(running.counts.reading().delivered, 1);

    let busy = Reply(429, vec![("retry-after", "3000".to_owned())], String::new());
    let server = Ingestion::start(vec![busy]).await;
    let running = Running::start(&server);
    running.spool.append(EntryKind::Record, &line(1));
    running.closing.send_replace(true);
    running.task.await.unwrap();
    let reading = running.counts.reading();
    assert_eq!((reading.delivered, reading.spooled), (0, 1), "it stays in the spool");
}

/// The meter of a gateway with one service, which has had one call.
fn metered(server: &Ingestion) -> (Meter, Arc<ServiceMetrics>) {
    let metrics = Metrics::new();
    let service = metrics.service(&"iris".into(), ComputeType::Aks);
    service.observe(&Record::sample());
    (Meter::new(&server.settings(), metrics), service)
}

/// What each request said of the calls of `iris`.
fn calls(server: &Ingestion) -> Vec<Option<f64>> {
    let value = |item: &Value| {
        let data = &item["data"]["baseData"];
        let point = &data["metrics"][0];
        let named = point["name"] == "scoregate_requests_total" && data["properties"]["service"] == "iris";
        named.then(|| point["value"].as_f64().unwrap())
    };
    server.seen().iter().map(|seen| seen.items.iter().find_map(value)).collect()
}

#[tokio::test]
async fn metrics_that_were_not_taken_are_part_of_the_next_ones() {
    let all = Reply(206, vec![], r#"{"errors":[]}"#.to_owned());
    let server = Ingestion::start(vec![reply(200, "{}"), reply(503, ""), all, reply(400, "")]).await;
    let (mut meter, service) = metered(&server);
    for _ in 0..5 {
        meter.send().await;
        service.observe(&Record::sample());
    }
    // The third has the call that the second could not tell, the fifth no more the one that was refused for good.
    assert_eq!(calls(&server), [Some(1.0), Some(1.0), Some(2.0), Some(1.0), Some(1.0)]);
    assert_eq!(server.seen()[0].items[0]["name"], "Microsoft.ApplicationInsights.Metric");
}

#[tokio::test]
async fn of_metrics_partly_taken_only_the_rest_is_told_again() {
    let server = Ingestion::start(vec![]).await;
    let (mut meter, _) = metered(&server);
    meter.send().await;
    let items = server.seen()[0].items.clone();
    let is_calls =
        |item: &Value| item["data"]["baseData"]["metrics"][0]["name"] == "scoregate_requests_total";
    let at = items.iter().position(is_calls).unwrap();
    let partly = format!(r#"{{"errors":[{{"index":{at},"statusCode":500}}]}}"#);
    let server = Ingestion::start(vec![reply(206, &partly)]).await;
    let (mut meter, service) = metered(&server);
    meter.send().await;
    service.observe(&Record::sample());
    meter.send().await;
    meter.send().await;
    assert_eq!(calls(&server), [Some(1.0), Some(2.0), None], "what has not grown is not sent");
}

#[tokio::test]
async fn metrics_are_sent_once_more_at_the_end() {
    let server = Ingestion::start(vec![]).await;
    let (meter, _) = metered(&server);
    let closing = watch::Sender::new(false);
    let task = tokio::spawn(meter.run(Duration::from_secs(3600), closing.subscribe()));
    closing.send_replace(true);
    task.await.unwrap();
    assert_eq!(calls(&server), [Some(1.0)]);
}

#[tokio::test]
async fn series_beyond_the_bound_wait_for_the_next_time() {
    let server = Ingestion::start(vec![]).await;
    let metrics = Metrics::new();
    for number in 0..300 {
        metrics.service(&format!("s{number}").into(), ComputeType::Aks).observe(&Record::sample());
    }
    let mut meter = Meter::new(&server.settings(), metrics);
    let told = |server: &Ingestion| {
        let items = server.seen().into_iter().flat_map(|seen| seen.items);
        items
            .filter(|item| item["data"]["baseData"]["metrics"][0]["name"] == "scoregate_requests_total")
            .count()
    };
    meter.send().await;
    let sizes: Vec<_> = server.seen().iter().map(|seen| seen.items.len()).collect();
    assert_eq!(sizes, [BATCH.records; 4]);
    for _ in 0..10 {
        meter.send().await;
    }
    assert_eq!(told(&server), 300, "each counter once, those that were left out at first as well");
}
