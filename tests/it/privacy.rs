//! Privacy at the door: what `privacy: high` leaves out reaches none of the places that records go to, and secrets in URLs are
//! masked in all of them.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use scoregate::auth::{MintRequest, SigningKey, mint};
use scoregate::control::Outcome;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::net::TcpSocket;

use crate::harness::{
    Connection, Gateway, KEY, TlsClient, Upstream, config, ok, score_request, service, service_of,
};
use crate::management::{Api, OWNER, managed};

/// Where the caller calls from.
const ADDRESS: &str = "127.66.55.44";
/// All that tells who called and with what: each stands in one of the places where a caller can say such things.
const MARKS: [&str; 5] = [ADDRESS, "agent-of-zoe", "query-of-zoe", "zoe-the-subject", "client-id-of-zoe"];

/// A collector of any exporter: refuses at first, then takes everything and keeps what it was sent.
struct Collector {
    server: Upstream,
    is_open: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    async fn start() -> Self {
        let (is_open, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (open, keep) = (Arc::clone(&is_open), Arc::clone(&taken));
        let server = Upstream::answering(move |seen| {
            if !open.load(Ordering::Relaxed) {
                return b"HTTP/1.1 503 Not Yet\r\nContent-Length: 0\r\n\r\n".to_vec();
            }
            let mut keep = keep.lock().unwrap();
            keep.extend_from_slice(seen.head.as_bytes());
            flate2::read::GzDecoder::new(&seen.body[..]).read_to_end(&mut keep).unwrap();
            ok(b"{}")
        })
        .await;
        Self { server, is_open, taken }
    }

    fn connection_string(&self) -> String {
        let address = self.server.address;
        format!("InstrumentationKey=99999999-8888-4777-8666-555555555555;IngestionEndpoint=http://{address}/")
    }
}

/// A gateway with all that records go to, and a service that lets in tokens and one that lets in keys.
async fn gateway(privacy: &str, replica: &Upstream, [insights, otlp]: &[Collector; 2]) -> Gateway {
    let services =
        service_of("AKS token", "iris", replica.address, "") + &service("rose", replica.address, "");
    let telemetry = format!(
        "telemetry: {{ privacy: {privacy}, spool: {{ path: spool }}, \
         application_insights: {{ connection_string: {{ file: insights }} }}, \
         otlp: {{ endpoint: \"http://{}\", protocol: http/protobuf, compression: gzip, metrics_interval: 1s }}, records:",
        otlp.server.address
    );
    let config = managed(&services).replace("telemetry: { records:", &telemetry);
    let files = [("bootstrap.key", OWNER), ("insights", &insights.connection_string())];
    Gateway::start_with(&config, &files).await
}

/// A connection from the caller's address.
async fn from_zoe(gateway: &Gateway, to: SocketAddr) -> Connection {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{ADDRESS}:0").parse().unwrap()).unwrap();
    let tcp = socket.connect(to).await.unwrap();
    let client = TlsClient::trusting(&[gateway.ca()]);
    Connection::over(client.handshake(tcp, "localhost").await.unwrap())
}

fn token(gateway: &Gateway) -> String {
    let pem = std::fs::read_to_string(gateway.path("signing.key")).unwrap();
    let key = SigningKey::from_pem(&pem.into()).unwrap();
    let request = MintRequest {
        issuer: "https://tokens.test",
        audience: "iris",
        subject: "zoe-the-subject",
        lifetime: Duration::from_secs(3600),
        now: SystemTime::now(),
    };
    mint(&key, &request).unwrap().token.expose_secret().to_owned()
}

/// Calls in several ways, each of them with every mark; how many there were.
async fn call(gateway: &Gateway) -> usize {
    let token = token(gateway);
    let told = "x-ms-client-request-id: client-id-of-zoe\r\nuser-agent: agent-of-zoe\r\n";
    let calls = [
        ("iris", Some(&*token), 200),
        ("iris", None, 401),
        ("rose", Some(KEY), 200),
        ("rose", Some(&*token), 401),
        ("nobody", Some(&*token), 404),
    ];
    let mut connection = from_zoe(gateway, gateway.address).await;
    for (service, credential, status) in calls {
        let request = score_request(service, credential, "[1]")
            .replace("/score HTTP", "/score?patient=query-of-zoe&key=query-of-zoe HTTP")
            .replace("Content-Type", &format!("{told}Content-Type"));
        connection.send(request).await;
        assert_eq!(connection.answer().await.status, status, "{service}");
    }
    calls.len()
}

/// Calls the management API in ways that leave every mark but the agent and the query in the activity log; how many events
/// there are.
async fn manage(gateway: &Gateway) -> usize {
    let owner = Api::owner(gateway);
    let token = json!({"principal": "zoe-the-subject", "lifetime_s": 3600});
    let made = owner.expect(201, "POST", "/v1/management-tokens", Some(&token)).await;
    let zoe = Api::with(gateway, made["token"].as_str());
    let told = "x-ms-client-request-id: client-id-of-zoe\r\nuser-agent: agent-of-zoe\r\n";
    let mut connection = from_zoe(gateway, zoe.address()).await;
    // She may do nothing, and the refusal names her.
    connection.send(zoe.request("POST", "/v1/management-tokens", told, &token.to_string())).await;
    assert_eq!(connection.answer().await.status, 403);
    let revoked = json!({"principal": "zoe-the-subject"});
    owner.expect(204, "POST", "/v1/workspaces/default/tokens/revoke", Some(&revoked)).await;
    owner.get("/v1/activity?limit=100").await["items"].as_array().unwrap().len()
}

fn files_under(folder: &Path, bytes: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_under(&path, bytes);
        } else {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
}

/// Every place that tells of calls, with all the bytes that it got. A new exporter's place is here.
async fn sinks(gateway: &Gateway, [insights, otlp]: &[Collector; 2]) -> Vec<(&'static str, Vec<u8>)> {
    let (calls, events) = (call(gateway).await, manage(gateway).await);
    let mut sinks = Vec::new();
    gateway.exactly(calls).await;
    sinks.push(("the record file", std::fs::read(gateway.path("records.jsonl")).unwrap()));
    let page = Api::owner(gateway).call("GET", "/v1/records", None).await;
    assert_eq!(page.status, 200);
    sinks.push(("GET /v1/records", page.body));

    // Spans do not tell of events.
    let spooled =
        [("application_insights", calls + events), ("otlp_logs", calls + events), ("otlp_traces", calls)]
            .map(|(exporter, all)| (format!(r#"scoregate_exporter_spooled{{exporter="{exporter}"}}"#), all));
    for (series, all) in &spooled {
        gateway.until_metric(series, *all as f64).await;
    }
    let mut spool = Vec::new();
    files_under(&gateway.path("spool"), &mut spool);
    sinks.push(("the spool", spool));

    [insights, otlp].iter().for_each(|collector| collector.is_open.store(true, Ordering::Relaxed));
    for (series, _) in &spooled {
        gateway.until_metric(series, 0.0).await;
    }
    sinks.push(("Application Insights", insights.taken.lock().unwrap().clone()));
    sinks.push(("OpenTelemetry", otlp.taken.lock().unwrap().clone()));
    sinks
}

fn holds(bytes: &[u8], mark: &str) -> bool {
    memchr::memmem::find(bytes, mark.as_bytes()).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_high_privacy_leaves_out_reaches_nobody() {
    for privacy in ["standard", "high"] {
        let replica = Upstream::echo().await;
        let collectors = [Collector::start().await, Collector::start().await];
        let gateway = gateway(privacy, &replica, &collectors).await;
        for (sink, bytes) in sinks(&gateway, &collectors).await {
            assert!(holds(&bytes, "/api/v1/service/iris/score"), "{sink} does not tell of the calls");
            let has_events = ["the spool", "Application Insights", "OpenTelemetry"].contains(&sink);
            assert_eq!(holds(&bytes, "managementTokens"), has_events, "{sink} and events");
            for mark in MARKS {
                // Under `standard` each mark is there: the search would find it.
                assert_eq!(holds(&bytes, mark), privacy == "standard", "{mark} in {sink}, {privacy}");
            }
            assert!(!holds(&bytes, "key=query"), "a secret in {sink}, {privacy}");
        }
        let (_, metrics) = gateway.observe("/metrics").await;
        assert!(MARKS.iter().all(|mark| !metrics.contains(mark)), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_parameters_are_masked_and_a_reload_changes_which() {
    let replica = Upstream::echo().await;
    let with = |names: &str| {
        let telemetry = format!("telemetry: {{ mask_query: [{names}], records:");
        config(&service("iris", replica.address, "")).replace("telemetry: { records:", &telemetry)
    };
    let gateway = Gateway::start(&with("patient_id, $SIG")).await;
    let query = async || {
        let target = "/score?Patient-Id=1&%70atientid=2;x&%24sig=3&ward=4&key=5 HTTP";
        let answer = gateway.call(score_request("iris", Some(KEY), "1").replace("/score HTTP", target)).await;
        let url = gateway.passed(&answer, 200).await["RequestUrl"].as_str().unwrap().to_owned();
        url.split_once('?').unwrap().1.to_owned()
    };
    assert_eq!(query().await, "Patient-Id=***&%70atientid=***&%24sig=***&ward=4&key=***");
    gateway.replace("scoregate.yaml", &with("WARD"));
    let outcome = gateway.reload().await;
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(query().await, "Patient-Id=1&%70atientid=2;x&%24sig=3&ward=***&key=***");
}
