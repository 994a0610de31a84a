//! A whole gateway in this process, with its folder, its records and its observe port.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scoregate::app;
use scoregate::control::config::{self as configuration, Config, Source};
use scoregate::control::{Outcome, Resolver};
use scoregate::tls::{DevelopmentCertificates, development_certificates};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, Connection, Frames, H2, eventually, h2_streams};

/// The primary key of every service that [`service`] describes.
pub const KEY: &str = "primary-0123456789abcdefghijklmnop";
/// The secondary key.
pub const OTHER_KEY: &str = "secondary-0123456789abcdefghijklm";

/// A running gateway. Its folder goes with it.
pub struct Gateway {
    running: Option<app::Gateway>,
    pub dir: TempDir,
    pub certificates: DevelopmentCertificates,
    pub address: SocketAddr,
    pub observe: SocketAddr,
}

/// A configuration with one TLS listener, an observe port and a record file, around `services`.
pub fn config(services: &str) -> String {
    format!(
        r#"version: scoregate/v1
runtime: {{ workers: 2 }}
listeners:
  - name: public
    address: 127.0.0.1:0
    tls: {{ certificates: [ {{ cert: certs/server.pem, key: certs/server.key }} ] }}
observe: {{ address: 127.0.0.1:0 }}
telemetry: {{ records: {{ file: {{ path: records.jsonl }} }} }}
drain: {{ delay: 0s, timeout: 5s }}
tokens: {{ issuer: "https://tokens.test", signing_key: {{ file: signing.key }}, lifetime: 1h, leeway: 0s }}
services:
{services}"#
    )
}

/// An AKS service with both keys and one replica; `more` is further YAML of the service, each line indented by four.
pub fn service(name: &str, replica: SocketAddr, more: &str) -> String {
    format!(
        r#"  - name: {name}
    compute_type: AKS
    keys: {{ primary: {{ file: primary.key }}, secondary: {{ file: secondary.key }} }}
    deployments: [ {{ name: blue, replicas: ["http://{replica}"] }} ]
{more}
"#
    )
}

/// A service of the kind `KIND MODE`, such as `ACI none`, with one replica; a service by key has both keys. `more` is
/// as with [`service`].
pub fn service_of(kind: &str, name: &str, replica: SocketAddr, more: &str) -> String {
    let (compute_type, mode) = kind.split_once(' ').unwrap();
    let keys = "\n    keys: { primary: { file: primary.key }, secondary: { file: secondary.key } }";
    let keys = if mode == "key" { keys } else { "" };
    format!(
        r#"  - name: {name}
    compute_type: {compute_type}
    auth: {mode}{keys}
    deployments: [ {{ name: blue, replicas: ["http://{replica}"] }} ]
{more}
"#
    )
}

/// `config` with a second listener, `plain`, without TLS.
pub fn with_plain_listener(config: &str) -> String {
    let listener = "listeners:\n  - { name: plain, address: \"127.0.0.1:0\", plaintext: true }\n";
    // Last in the list: `Gateway::address` is the first one's.
    let listeners = config.find("observe:").unwrap();
    let (before, after) = config.split_at(listeners);
    format!("{before}{}{after}", listener.trim_start_matches("listeners:\n"))
}

impl Gateway {
    /// Starts a gateway with `config`, whose relative paths are in a folder with `certs/` and the key files.
    pub async fn start(config: &str) -> Self {
        Self::start_with(config, &[]).await
    }

    /// The same with further `files` (name and text) in the folder.
    pub async fn start_with(config: &str, files: &[(&str, &str)]) -> Self {
        let (dir, certificates) = prepare(config);
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self::start_in(dir, certificates).await
    }

    /// Starts a gateway in a folder that [`prepare`] made.
    pub async fn start_in(dir: TempDir, certificates: DevelopmentCertificates) -> Self {
        Self::start_changed(dir, certificates, |_| {}).await
    }

    /// Starts a gateway in a folder that [`prepare`] made, with a configuration that no file can give.
    pub async fn start_changed(
        dir: TempDir,
        certificates: DevelopmentCertificates,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let source = Source::path(&dir.path().join("scoregate.yaml"));
        let mut loaded = configuration::load(&source).unwrap_or_else(|problems| panic!("{problems}"));
        change(&mut loaded.config);
        let running = app::Gateway::start(source, loaded).await.unwrap();
        Self::of(running, dir, certificates)
    }

    /// Starts a gateway with `config`, for which names of replicas mean what `resolver` says.
    pub async fn start_resolving(config: &str, resolver: Arc<dyn Resolver>) -> Self {
        let (dir, certificates) = prepare(config);
        let source = Source::path(&dir.path().join("scoregate.yaml"));
        let loaded = configuration::load(&source).unwrap_or_else(|problems| panic!("{problems}"));
        let running = app::Gateway::start_with(source, loaded, resolver).await.unwrap();
        Self::of(running, dir, certificates)
    }

    fn of(running: app::Gateway, dir: TempDir, certificates: DevelopmentCertificates) -> Self {
        let bound = running.bound().clone();
        let address = bound.listeners[0].1;
        let observe = bound.observe.unwrap();
        Self { running: Some(running), dir, certificates, address, observe }
    }

    /// A path in the gateway's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The address of the listener of that name.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let bound = self.running().bound();
        bound.listeners.iter().find(|(listener, _)| &**listener == name).unwrap().1
    }

    /// The gateway itself.
    pub fn running(&self) -> &app::Gateway {
        self.running.as_ref().unwrap()
    }

    /// The authority that clients trust.
    pub fn ca(&self) -> &Path {
        &self.certificates.ca
    }

    /// A TLS connection for HTTP/1.1, with SNI `localhost`.
    pub async fn connect(&self) -> Connection {
        Connection::tls(self.address, "localhost", self.ca()).await
    }

    /// An HTTP/2 connection.
    pub async fn h2(&self) -> H2 {
        H2::connect(self.address, "localhost", self.ca()).await
    }

    /// An HTTP/2 connection whose streams the test drives itself.
    pub async fn h2_streams(&self) -> h2::client::SendRequest<bytes::Bytes> {
        h2_streams(self.address, "localhost", self.ca(), &h2::client::Builder::new()).await
    }

    /// An HTTP/2 connection, frame by frame.
    pub async fn frames(&self) -> Frames {
        Frames::connect(self.address, "localhost", self.ca()).await
    }

    /// Sends `request` as it stands on a connection of its own and reads one answer.
    pub async fn call(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut connection = self.connect().await;
        connection.send(request).await;
        connection.answer().await
    }

    /// A POST of `body` to the score path of `service` with `credential`.
    pub async fn score(&self, service: &str, credential: Option<&str>, body: &str) -> Answer {
        self.call(score_request(service, credential, body)).await
    }

    /// Waits until there are at least `count` records and gives all.
    pub async fn records(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} records"), async || {
            let text = std::fs::read_to_string(self.path("records.jsonl")).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            (lines.len() >= count && text.ends_with('\n'))
                .then(|| lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect())
        })
        .await
    }

    /// Waits until the calls are over and gives their records, of which there must be exactly `count`: one per call.
    pub async fn exactly(&self, count: usize) -> Vec<Value> {
        let records = self.records(count).await;
        eventually("no call in flight", async || {
            let (_, page) = self.observe("/metrics").await;
            let mut gauges =
                page.lines().filter_map(|line| line.strip_prefix("scoregate_requests_in_flight{"));
            gauges.all(|line| line.ends_with(" 0")).then_some(())
        })
        .await;
        let accepted = self.metric("scoregate_records_accepted_total").await;
        assert_eq!(accepted, count as f64, "records are not one per call: {records:#?}");
        records
    }

    /// GET on the observe port: status and body.
    pub async fn observe(&self, path: &str) -> (u16, String) {
        let (head, body) = self.observe_with(path, "").await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// The same with more header lines, each with its line end: head and body.
    pub async fn observe_with(&self, path: &str, headers: &str) -> (String, String) {
        let mut tcp = TcpStream::connect(self.observe).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: observe\r\n{headers}Connection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// The value of one metric series, written as on the page; 0 if it is not there.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, page) = self.observe("/metrics").await;
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_default()
    }

    /// Waits until so many of the replicas of a deployment, `SERVICE/DEPLOYMENT`, are ready, of how many there are.
    pub async fn until_ready(&self, deployment: &str, ready: usize, all: usize) {
        let line = format!("replicas {deployment} {ready} of {all} ready");
        eventually(&line, async || self.observe("/readyz?verbose").await.1.contains(&line).then_some(()))
            .await;
    }

    /// `/config/status`.
    pub async fn status(&self) -> Value {
        let (status, body) = self.observe("/config/status").await;
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }

    /// Reads the files again.
    pub async fn reload(&self) -> Outcome {
        let reloader = self.running().reloader();
        tokio::task::spawn_blocking(move || reloader.reload()).await.unwrap()
    }

    /// Waits until a metric series has this value.
    pub async fn until_metric(&self, series: &str, value: f64) {
        eventually(&format!("{series} {value}"), async || (self.metric(series).await == value).then_some(()))
            .await;
    }

    /// Replaces a file of the gateway's folder at once.
    pub fn replace(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// Begins to drain the gateway, beside the test; the folder stays.
    pub fn begin_drain(&mut self) -> tokio::task::JoinHandle<app::Drained> {
        tokio::spawn(self.running.take().unwrap().drain())
    }

    /// Drains the gateway; the folder stays.
    pub async fn drain(&mut self) -> app::Drained {
        self.running.take().unwrap().drain().await
    }
}

/// A folder with `scoregate.yaml`, `certs/` and the key files.
pub fn prepare(config: &str) -> (TempDir, DevelopmentCertificates) {
    let dir = tempfile::tempdir().unwrap();
    let names = ["iris.test", "*.wild.test"];
    let certificates = development_certificates(&dir.path().join("certs"), &names).unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("primary.key", KEY);
    write("secondary.key", OTHER_KEY);
    write("signing.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    write("scoregate.yaml", config);
    (dir, certificates)
}

/// A POST of `body` to the score path of `service`, for a connection that goes on.
pub fn score_request(service: &str, credential: Option<&str>, body: &str) -> String {
    let authorization = credential.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    format!(
        "POST /api/v1/service/{service}/score HTTP/1.1\r\nHost: localhost\r\n{authorization}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
