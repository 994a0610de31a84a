//! Probes, and readiness by a real scoring call: who gets no calls, and who gets them again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use scoregate::control::Outcome;

use crate::harness::{
    Authority, Connection, Gateway, H2Request, H2Respond, KEY, Seen, Upstream, config, eventually, ok,
    score_request,
};

/// Asked ten times a second; two good answers make it ready, two failures not ready.
const PROBE: &str = "probe: { interval: 100ms, healthy: 2, unhealthy: 2 }";

/// A service `iris` with one deployment, whose replicas prove their `health`.
fn iris(replicas: &[SocketAddr], health: &str) -> String {
    named_service("iris", replicas, &format!("health: {{ {health} }}"))
}

/// An AKS service; `more` is further YAML of its deployment.
fn named_service(name: &str, replicas: &[SocketAddr], more: &str) -> String {
    let replicas: Vec<_> = replicas.iter().map(|replica| format!("\"http://{replica}\"")).collect();
    format!(
        "  - name: {name}\n    compute_type: AKS\n    keys: {{ primary: {{ file: primary.key }} }}\n    deployments:\n      \
         - {{ name: blue, replicas: [{}], {more} }}\n",
        replicas.join(", ")
    )
}

/// A model whose health and scoring the test decides.
struct Model {
    upstream: Upstream,
    is_healthy: Arc<AtomicBool>,
    can_score: Arc<AtomicBool>,
}

impl Model {
    async fn start() -> Self {
        let is_healthy = Arc::new(AtomicBool::new(true));
        let can_score = Arc::new(AtomicBool::new(true));
        let (healthy, scores) = (Arc::clone(&is_healthy), Arc::clone(&can_score));
        let upstream = Upstream::answering(move |seen| {
            let good = if seen.line().starts_with("GET / ") { &healthy } else { &scores };
            if good.load(Ordering::Relaxed) {
                ok(&seen.body)
            } else {
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()
            }
        });
        Self { upstream: upstream.await, is_healthy, can_score }
    }

    /// One that is not ready from the start.
    async fn ill() -> Self {
        let model = Self::start().await;
        model.is_healthy.store(false, Ordering::Relaxed);
        model
    }

    fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    fn seen(&self, which: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        self.upstream.seen().into_iter().filter(which).collect()
    }

    /// Probes that came.
    fn probes(&self) -> usize {
        self.seen(|seen| seen.line() == "GET / HTTP/1.1").len()
    }

    /// Scoring calls of the gateway's own that came.
    fn readiness_calls(&self) -> Vec<Seen> {
        self.seen(|seen| seen.line() == "POST /score HTTP/1.1" && is_prober(seen))
    }

    /// Calls of callers that came.
    fn calls(&self) -> usize {
        self.seen(|seen| seen.line() == "POST /score HTTP/1.1" && !is_prober(seen)).len()
    }
}

fn is_prober(seen: &Seen) -> bool {
    seen.header("user-agent").starts_with("scoregate-probe/")
}

fn probes_counted(outcome: &str) -> String {
    format!(r#"scoregate_probes_total{{deployment="blue",outcome="{outcome}",service="iris"}}"#)
}

/// Scores until `stop`; gives the number of calls. Any call that fails ends the test.
async fn keep_scoring(mut connection: Connection, stop: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) {
        connection.send(score_request("iris", Some(KEY), "1")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.reason()), (200, ""), "{}", answer.text());
        calls += 1;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_probe_fails_leaves_without_one_failed_call_and_comes_back() {
    let (one, other) = (Model::start().await, Model::start().await);
    let gateway = Gateway::start(&config(&iris(&[one.address(), other.address()], PROBE))).await;
    gateway.until_ready("iris/blue", 2, 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [gateway.connect().await, gateway.connect().await]
        .map(|connection| tokio::spawn(keep_scoring(connection, Arc::clone(&stop))))
        .into();
    eventually("calls at both", async || (one.calls() > 0 && other.calls() > 0).then_some(())).await;

    one.is_healthy.store(false, Ordering::Relaxed);
    gateway.until_ready("iris/blue", 1, 2).await;
    // Each of the two clients may have had a call on its way.
    let at_the_end = one.calls() + 2;
    let then = other.calls();
    eventually("calls at the other", async || (other.calls() > then + 50).then_some(())).await;
    assert!(one.calls() <= at_the_end, "a replica that is not ready was called");

    one.is_healthy.store(true, Ordering::Relaxed);
    gateway.until_ready("iris/blue", 2, 2).await;
    let then = one.calls();
    eventually("calls at the one that is back", async || (one.calls() > then).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for client in clients {
        calls += client.await.unwrap();
    }
    let records = gateway.exactly(calls).await;
    assert!(records.iter().all(|record| record["Attempts"] == 1), "nothing had to be tried again");
    assert!(gateway.metric(&probes_counted("failed")).await >= 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_all_start_calls_are_refused_at_once_and_failed_probes_are_forgiven() {
    let model = Model::ill().await;
    // One failure would do, and the next question would come in an hour, were it not for the start.
    let health = "probe: { interval: 1h, unhealthy: 1, startup: 10m }";
    let gateway = Gateway::start(&config(&iris(&[model.address()], health))).await;
    eventually("failed probes", async || (model.probes() >= 2).then_some(())).await;
    let answer = gateway.score("iris", Some(KEY), "1").await;
    assert_eq!((answer.status, answer.reason()), (503, "no_ready_replica"));
    let retry_after: u32 = answer.header("retry-after").parse().unwrap();
    assert!(retry_after >= 1);
    let (status, checks) = gateway.observe("/readyz?verbose").await;
    assert_eq!(status, 200, "a model that is not ready is no fault of the gateway");
    assert!(checks.contains("[-]replicas iris/blue 0 of 1 ready"), "{checks}");

    model.is_healthy.store(true, Ordering::Relaxed);
    gateway.until_ready("iris/blue", 1, 1).await;
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
    assert_eq!(model.calls(), 1);
    let records = gateway.exactly(2).await;
    assert_eq!(records[0]["Reason"], "no_ready_replica");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scoring_call_stands_before_the_first_traffic_and_before_each_return() {
    let model = Model::start().await;
    model.can_score.store(false, Ordering::Relaxed);
    let health =
        format!("{PROBE}, readiness: {{ body: '{{\"data\":[[1,2,3,4]]}}', content_type: text/x-test }}");
    let gateway = Gateway::start(&config(&iris(&[model.address()], &health))).await;
    eventually("readiness calls", async || (model.readiness_calls().len() >= 2).then_some(())).await;
    for call in model.readiness_calls() {
        assert_eq!(call.body, br#"{"data":[[1,2,3,4]]}"#);
        assert_eq!(call.header("content-type"), "text/x-test");
        assert_eq!(call.header("user-agent"), concat!("scoregate-probe/", env!("CARGO_PKG_VERSION")));
        assert_eq!(call.header("x-request-id").len(), 36);
        assert_eq!(call.header("host"), model.address().to_string());
    }
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.reason(), "no_ready_replica");

    model.can_score.store(true, Ordering::Relaxed);
    gateway.until_ready("iris/blue", 1, 1).await;
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
    // Probes go on; scoring calls do not.
    let (probes, scored) = (model.probes(), model.readiness_calls().len());
    eventually("more probes", async || (model.probes() >= probes + 4).then_some(())).await;
    assert_eq!(model.readiness_calls().len(), scored);
    assert_eq!(gateway.metric(&probes_counted("score_passed")).await, 1.0);

    model.is_healthy.store(false, Ordering::Relaxed);
    gateway.until_ready("iris/blue", 0, 1).await;
    model.is_healthy.store(true, Ordering::Relaxed);
    gateway.until_ready("iris/blue", 1, 1).await;
    assert_eq!(model.readiness_calls().len(), scored + 1);
    assert_eq!(gateway.metric(&probes_counted("score_passed")).await, 2.0);
    assert!(gateway.metric(&probes_counted("score_failed")).await >= 2.0);
    // Neither probes nor scoring calls are calls.
    gateway.exactly(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_the_scoring_call_may_be_in_a_file() {
    let model = Model::start().await;
    let config = config(&iris(&[model.address()], "readiness: { body_file: body.json }"));
    let gateway = Gateway::start_with(&config, &[("body.json", "{\"inputs\": []}")]).await;
    gateway.until_ready("iris/blue", 1, 1).await;
    assert_eq!(model.readiness_calls()[0].body, b"{\"inputs\": []}");
    assert_eq!(model.readiness_calls()[0].header("content-type"), "application/json");
    assert_eq!(model.probes(), 0, "readiness alone asks nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_is_asked_no_more() {
    let (gone, stays) = (Model::start().await, Model::start().await);
    let rose = named_service("rose", &[stays.address()], &format!("health: {{ {PROBE} }}"));
    let both = format!("{}{rose}", iris(&[gone.address()], PROBE));
    let gateway = Gateway::start(&config(&both)).await;
    gateway.until_ready("iris/blue", 1, 1).await;
    assert!(gateway.metric(&probes_counted("passed")).await > 0.0);

    gateway.replace("scoregate.yaml", &config(&rose));
    assert!(!matches!(gateway.reload().await, Outcome::Refused(_)));
    // The other one's probes are the clock: one that was under way has ended after these.
    let begun = stays.probes();
    eventually("two probes", async || (stays.probes() >= begun + 2).then_some(())).await;
    let (last, begun) = (gone.probes(), stays.probes());
    eventually("more probes", async || (stays.probes() >= begun + 5).then_some(())).await;
    assert_eq!(gone.probes(), last, "a removed replica is still asked");
    assert_eq!(gateway.metric(&probes_counted("passed")).await, 0.0, "its series is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_rules_take_effect_and_take_no_calls_away() {
    let model = Model::start().await;
    let plain = config(&named_service("iris", &[model.address()], "traffic: 100"));
    let gateway = Gateway::start(&plain).await;
    let stop = Arc::new(AtomicBool::new(false));
    let client = tokio::spawn(keep_scoring(gateway.connect().await, Arc::clone(&stop)));
    // From no probe to one, and to another path: a replica that serves goes on.
    for path in ["/", "/healthz"] {
        let probe = format!("probe: {{ path: {path}, status: [200-299, 503], interval: 100ms }}");
        gateway.replace("scoregate.yaml", &config(&iris(&[model.address()], &probe)));
        assert!(!matches!(gateway.reload().await, Outcome::Refused(_)));
        let line = format!("GET {path} HTTP/1.1");
        eventually(&line, async || (model.seen(|seen| seen.line() == line).len() >= 2).then_some(())).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(client.await.unwrap() > 0);

    // One that failed its probes serves again when nobody asks it any more.
    model.is_healthy.store(false, Ordering::Relaxed);
    gateway.replace("scoregate.yaml", &config(&iris(&[model.address()], PROBE)));
    assert!(!matches!(gateway.reload().await, Outcome::Refused(_)));
    gateway.until_ready("iris/blue", 0, 1).await;
    gateway.replace("scoregate.yaml", &plain);
    assert!(!matches!(gateway.reload().await, Outcome::Refused(_)));
    gateway.until_ready("iris/blue", 1, 1).await;
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_asked_as_it_is_called_over_tls_and_http_2() {
    let authority = Authority::new();
    let ca = authority.ca();
    let over_h1 = Upstream::tls(authority.server("replica.test", None)).await;
    let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
    let mut tls = (*authority.server("replica.test", None)).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let over_h2 = Upstream::h2(Some(Arc::new(tls)), move |request, mut respond| {
        asked.send((request.method().to_string(), request.uri().clone())).unwrap();
        async move {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data("{}".into(), true).unwrap();
        }
    })
    .await;
    let health = "health: { probe: { path: /ping, interval: 100ms }, readiness: { body: '{}' } }";
    let tls = format!("tls: {{ ca: {}, server_name: replica.test }}", ca.display());
    let service = |name: &str, address, more: &str| {
        named_service(name, &[address], &format!("{health}, {tls}{more}")).replace("http://", "https://")
    };
    let services = service("iris", over_h1.address, "") + &service("rose", over_h2.address, ", protocol: h2");
    let gateway = Gateway::start(&config(&services)).await;
    gateway.until_ready("iris/blue", 1, 1).await;
    gateway.until_ready("rose/blue", 1, 1).await;
    let lines: Vec<_> = over_h1.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(lines[..2], ["GET /ping HTTP/1.1", "POST /score HTTP/1.1"]);
    for expected in [("GET", "/ping"), ("POST", "/score")] {
        let (method, uri) = questions.recv().await.unwrap();
        assert_eq!((method.as_str(), uri.path()), expected);
        assert_eq!(uri.authority().unwrap().as_str(), over_h2.address.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_may_be_asked_by_the_grpc_health_protocol() {
    let serving = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&serving);
    let replica = Upstream::h2(None, move |request: H2Request, mut respond: H2Respond| {
        let status = if says.load(Ordering::Relaxed) { 1 } else { 2 };
        async move {
            let mut body = request.into_body();
            let mut question = Vec::new();
            while let Some(data) = body.data().await {
                question.extend_from_slice(&data.unwrap());
            }
            assert_eq!(question, b"\0\0\0\0\x0b\x0a\x09inference");
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut answer = respond.send_response(head, false).unwrap();
            answer.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]), false).unwrap();
            let trailers = [("grpc-status", "0")].map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            answer.send_trailers(trailers.into_iter().collect()).unwrap();
        }
    })
    .await;
    let health = "health: { probe: { grpc: inference, interval: 100ms } }, protocol: h2";
    let gateway = Gateway::start(&config(&named_service("iris", &[replica.address], health))).await;
    gateway.until_metric(&probes_counted("passed"), 0.0).await;
    eventually("failed probes", async || {
        (gateway.metric(&probes_counted("failed")).await >= 1.0).then_some(())
    })
    .await;
    gateway.until_ready("iris/blue", 0, 1).await;
    serving.store(true, Ordering::Relaxed);
    gateway.until_ready("iris/blue", 1, 1).await;
}
