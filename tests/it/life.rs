//! The life of the process: health, drain, signals, what it tells the service manager, and a call that panics.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpStream, UnixDatagram};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::harness::{
    Answer, Connection, Gateway, H2, KEY, OTHER_KEY, Upstream, config, eventually, prepare, score_request,
    service, soon,
};

/// No healthy machine takes that long; what is shown to be quick is compared with far longer configured waits.
const SOON: Duration = Duration::from_secs(30);

fn with_drain(services: &str, delay: &str, timeout: &str) -> String {
    let drain = format!("drain: {{ delay: {delay}, timeout: {timeout} }}");
    config(services).replace("drain: { delay: 0s, timeout: 5s }", &drain)
}

async fn until_phase(gateway: &Gateway, phase: &str) {
    eventually(phase, async || {
        let (_, text) = gateway.observe("/readyz?verbose").await;
        text.contains(&format!("lifecycle {phase}")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_of_a_gateway_that_serves() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", upstream.address, ""))).await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(gateway.observe(path).await, (200, "ok\n".to_owned()), "{path}");
    }
    let (status, text) = gateway.observe("/readyz?verbose").await;
    assert_eq!(status, 200);
    for line in ["[+]lifecycle running", "[+]snapshot generation 1", "[+]config ok", "readyz check passed"] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    assert_eq!(gateway.observe("/nothing").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_first_fails_readiness_then_ends_connections() {
    let upstream = Upstream::echo().await;
    let config = with_drain(&service("iris", upstream.address, ""), "4s", "600s");
    let mut gateway = Gateway::start(&config).await;
    let mut h1 = gateway.connect().await;
    let mut h2 = gateway.h2().await;
    let drain = gateway.begin_drain();

    until_phase(&gateway, "unready").await;
    for path in ["/readyz", "/healthz"] {
        assert_eq!(gateway.observe(path).await.0, 503, "{path}");
    }
    assert_eq!(gateway.observe("/livez").await.0, 200);
    // Within drain.delay all is served, on new connections too.
    h1.send(score_request("iris", Some(KEY), "1")).await;
    let answer = h1.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, ""));
    assert_eq!(h2.score("iris", KEY, "1").await.status, 200);
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);

    until_phase(&gateway, "draining").await;
    h1.send(score_request("iris", Some(KEY), "1")).await;
    let answer = h1.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    assert!(h1.rest().await.is_empty());
    eventually("the GOAWAY", async || h2.is_closed().then_some(())).await;
    eventually("refused connections", async || {
        TcpStream::connect(gateway.address).await.is_err().then_some(())
    })
    .await;
    // Nothing is open any more: drain.timeout is not waited for.
    assert_eq!(timeout(SOON, drain).await.unwrap().unwrap().cut, 0);
    let records = gateway.records(4).await;
    assert_eq!(records.len(), 4);
    assert!(records.iter().all(|record| record["Reason"] == "ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_a_gateway_at_rest_ends_at_once() {
    let upstream = Upstream::echo().await;
    let config = with_drain(&service("iris", upstream.address, ""), "0s", "600s");
    let mut gateway = Gateway::start(&config).await;
    assert_eq!(gateway.score("iris", Some(KEY), "1").await.status, 200);
    assert_eq!(timeout(SOON, gateway.drain()).await.unwrap().cut, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_flight_finish_within_the_drain() {
    let (upstream, gate) = Upstream::held().await;
    let config = with_drain(&service("iris", upstream.address, ""), "0s", "600s");
    let mut gateway = Gateway::start(&config).await;
    let mut h1 = gateway.connect().await;
    h1.send(score_request("iris", Some(KEY), "h1")).await;
    let mut h2 = gateway.h2().await;
    let h2 = tokio::spawn(async move { h2.score("iris", KEY, "h2").await });
    upstream.until_seen(2).await;

    let drain = gateway.begin_drain();
    until_phase(&gateway, "draining").await;
    assert!(!drain.is_finished());
    gate.add_permits(2);
    let answer = h1.answer().await;
    assert_eq!((answer.status, answer.text().as_str(), answer.header("connection")), (200, "h1", "close"));
    let answer = h2.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "h2"));
    assert!(h1.rest().await.is_empty());
    assert_eq!(timeout(SOON, drain).await.unwrap().unwrap().cut, 0);
    let records = gateway.records(2).await;
    assert!(records.len() == 2 && records.iter().all(|record| record["Reason"] == "ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_longer_than_the_drain_are_cut_with_one_record_each() {
    let (upstream, _gate) = Upstream::held().await;
    let config = with_drain(&service("iris", upstream.address, ""), "0s", "100ms");
    let mut gateway = Gateway::start(&config).await;
    let mut h1 = gateway.connect().await;
    h1.send(score_request("iris", Some(KEY), "h1")).await;
    let mut h2 = gateway.h2().await;
    let request = h2.score_request("iris", KEY, "h2");
    let h2 = tokio::spawn(async move { h2.start(request).await.is_err() });
    upstream.until_seen(2).await;

    assert_eq!(timeout(SOON, gateway.drain()).await.unwrap().cut, 2);
    assert!(h1.try_answer().await.is_none());
    assert!(h2.await.unwrap());
    let records = gateway.records(2).await;
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!((&record["Reason"], &record["EndedBy"]), (&"draining".into(), &"gateway".into()));
        assert_eq!(record["Attempts"], 1);
    }
}

/// The built binary, running in a folder that [`prepare`] made. Killed when dropped.
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    ready: Value,
    dir: TempDir,
    ca: std::path::PathBuf,
}

impl Process {
    async fn start(config: &str, notify: Option<&Path>) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_scoregate")), config, notify).await
    }

    /// Starts the binary with at most so many file descriptors.
    async fn start_with_descriptors(limit: u32, config: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            &format!("ulimit -n {limit}; exec \"$0\" \"$@\""),
            env!("CARGO_BIN_EXE_scoregate"),
        ]);
        Self::start_by(shell, config, None).await
    }

    async fn start_by(mut command: Command, config: &str, notify: Option<&Path>) -> Self {
        let (dir, certificates) = prepare(config);
        command.args(["run", "-c"]).arg(dir.path().join("scoregate.yaml"));
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("RUST_LOG");
        if let Some(socket) = notify {
            command.env("NOTIFY_SOCKET", socket);
        }
        let log = std::fs::File::create(dir.path().join("stderr")).unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        timeout(SOON, stdout.read_line(&mut line)).await.unwrap().unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        Self { child, stdout, ready, dir, ca: certificates.ca }
    }

    fn address(&self) -> std::net::SocketAddr {
        self.ready["listeners"]["public"].as_str().unwrap().parse().unwrap()
    }

    async fn connect(&self) -> Connection {
        Connection::tls(self.address(), "localhost", &self.ca).await
    }

    async fn score(&self, key: &str) -> u16 {
        let mut connection = self.connect().await;
        connection.send(score_request("iris", Some(key), "1")).await;
        connection.answer().await.status
    }

    /// Sends a signal, by the name that `kill` knows.
    fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let script = ["-c", "kill -s \"$0\" \"$1\"", name, &pid];
        assert!(std::process::Command::new("sh").args(script).status().unwrap().success());
    }

    async fn status(&self, path: &str) -> u16 {
        self.page(path).await.status
    }

    /// A page of the observe port.
    async fn page(&self, path: &str) -> Answer {
        let observe: std::net::SocketAddr = self.ready["observe"].as_str().unwrap().parse().unwrap();
        let mut connection = Connection::plain(observe).await;
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n")).await;
        connection.answer().await
    }

    /// Waits for the end; gives the exit status and what came on standard output after the ready line.
    async fn ended(&mut self) -> (ExitStatus, String) {
        let status = timeout(SOON, self.child.wait()).await.unwrap().unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).await.unwrap();
        (status, rest)
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    async fn until_lines(&self, name: &str, count: usize) {
        eventually(&format!("{count} lines in {name}"), async || {
            (self.file(name).lines().count() == count).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sigterm_lets_calls_finish_and_exits_0_and_no_output_holds_a_credential() {
    let (upstream, gate) = Upstream::held().await;
    gate.add_permits(4);
    let config = with_drain(&service("iris", upstream.address, ""), "0s", "600s") + "log: { level: trace }\n";
    let mut process = Process::start(&config, None).await;
    assert_eq!(process.ready["event"], "ready");
    assert_eq!(process.ready["pid"], process.child.id().unwrap());

    let wrong = "wrong-0123456789abcdefghijklmnopqr";
    for (key, status) in [(KEY, 200), (OTHER_KEY, 200), (wrong, 401)] {
        assert_eq!(process.score(key).await, status);
    }
    let mut h2 = H2::connect(process.address(), "localhost", &process.ca).await;
    assert_eq!(h2.score("iris", KEY, "1").await.status, 200);
    let in_query = score_request("iris", Some(KEY), "1").replace("/score ", &format!("/score?code={KEY} "));
    let mut connection = process.connect().await;
    connection.send(in_query).await;
    assert_eq!(connection.answer().await.status, 200);

    connection.send(score_request("iris", Some(KEY), "last")).await;
    upstream.until_seen(5).await;
    process.signal("TERM");
    eventually("a failed readiness", async || (process.status("/readyz").await == 503).then_some(())).await;
    gate.add_permits(1);
    let answer = connection.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "last"));
    drop((connection, h2));
    let (status, stdout) = process.ended().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(stdout, "");

    assert_eq!(process.file("records.jsonl").lines().count(), 6);
    let signing_key = process.file("signing.key");
    let signing_key = signing_key.lines().nth(1).unwrap();
    for output in ["records.jsonl", "stderr"] {
        let text = process.file(output);
        assert!(!text.is_empty());
        for secret in [KEY, OTHER_KEY, wrong, signing_key] {
            assert!(!text.contains(secret), "{output} holds {secret}");
        }
    }
    // Every line of the log is one object.
    for line in process.file("stderr").lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_outlasts_the_drain_is_named_in_the_log() {
    let (upstream, _gate) = Upstream::held().await;
    let config = with_drain(&service("iris", upstream.address, ""), "0s", "100ms");
    let mut process = Process::start(&config, None).await;
    let mut connection = process.connect().await;
    connection.send(score_request("iris", Some(KEY), "1")).await;
    upstream.until_seen(1).await;
    process.signal("TERM");
    assert_eq!(process.ended().await.0.code(), Some(0));
    assert!(connection.try_answer().await.is_none());
    let record: Value = serde_json::from_str(&process.file("records.jsonl")).unwrap();
    assert_eq!(record["Reason"], "draining");
    let named = process.file("stderr").lines().any(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["request_id"] == record["RequestId"] && line["service"] == "iris"
    });
    assert!(named, "{}", process.file("stderr"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_exits_at_once() {
    let (upstream, _gate) = Upstream::held().await;
    let config = with_drain(&service("iris", upstream.address, ""), "0s", "600s");
    let mut process = Process::start(&config, None).await;
    let mut connection = process.connect().await;
    connection.send(score_request("iris", Some(KEY), "1")).await;
    upstream.until_seen(1).await;
    process.signal("TERM");
    eventually("a failed readiness", async || (process.status("/readyz").await == 503).then_some(())).await;
    assert!(process.child.try_wait().unwrap().is_none(), "the call in flight was not waited for");
    process.signal("TERM");
    assert_eq!(process.ended().await.0.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sighup_reloads_and_the_service_manager_hears_of_each_step() {
    let upstream = Upstream::echo().await;
    let sockets = tempfile::tempdir().unwrap();
    let path = sockets.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let heard = async || {
        let mut buffer = [0; 1024];
        let length = timeout(SOON, manager.recv(&mut buffer)).await.unwrap().unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let services = service("iris", upstream.address, "");
    let mut process = Process::start(&with_drain(&services, "0s", "5s"), Some(&path)).await;
    assert_eq!(heard().await.trim_end(), "READY=1");
    assert_eq!(process.score(KEY).await, 200);

    let new = "new-primary-0123456789abcdefghijklm";
    std::fs::write(process.dir.path().join("primary.key"), new).unwrap();
    process.signal("HUP");
    let reloading = heard().await;
    let mut lines = reloading.lines();
    assert_eq!(lines.next(), Some("RELOADING=1"), "{reloading}");
    let clock = lines.next().and_then(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(clock.parse::<u64>().unwrap() > 0);
    assert_eq!(heard().await.trim_end(), "READY=1");
    // When the manager hears READY the new key counts.
    assert_eq!((process.score(KEY).await, process.score(new).await), (401, 200));

    process.signal("TERM");
    assert_eq!(heard().await.trim_end(), "STOPPING=1");
    let (status, stdout) = process.ended().await;
    assert_eq!((status.code(), stdout.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sigusr1_after_a_rename_goes_on_in_a_new_record_file() {
    let upstream = Upstream::echo().await;
    let process = Process::start(&config(&service("iris", upstream.address, "")), None).await;
    assert_eq!(process.score(KEY).await, 200);
    process.until_lines("records.jsonl", 1).await;
    let dir = process.dir.path();
    std::fs::rename(dir.join("records.jsonl"), dir.join("rotated.jsonl")).unwrap();
    // Until the signal the old file is written on.
    assert_eq!(process.score(KEY).await, 200);
    process.until_lines("rotated.jsonl", 2).await;
    process.signal("USR1");
    eventually("a new record file", async || dir.join("records.jsonl").exists().then_some(())).await;
    assert_eq!(process.score(KEY).await, 200);
    process.until_lines("records.jsonl", 1).await;
    process.until_lines("rotated.jsonl", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_one_call_with_500_and_a_record_and_the_connection_goes_on() {
    let (upstream, gate) = Upstream::held().await;
    let echo = Upstream::echo().await;
    let services = service("iris", upstream.address, "") + &service("broken", echo.address, "");
    let (dir, certificates) = prepare(&config(&services));
    // No configuration file can give a wait that has no end: adding it to the clock panics.
    let gateway = Gateway::start_changed(dir, certificates, |config| {
        let broken = &mut Arc::make_mut(&mut config.services[1]).deployments[0];
        broken.limits.upstream.first_byte = Duration::MAX;
    })
    .await;
    let mut h2 = gateway.h2().await;
    let mut other = h2.clone();
    let beside = tokio::spawn(async move { other.score("iris", KEY, "beside").await });
    upstream.until_seen(1).await;
    let mut h1 = gateway.connect().await;
    h1.send(score_request("broken", Some(KEY), "1")).await;
    for answer in [h1.answer().await, h2.score("broken", KEY, "1").await] {
        assert_eq!((answer.status, answer.reason()), (500, "internal"));
        assert!(!answer.text().contains("panic"), "{}", answer.text());
    }
    gate.add_permits(2);
    h1.send(score_request("iris", Some(KEY), "after")).await;
    let answer = h1.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "after"));
    let answer = beside.await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "beside"));

    let records = gateway.records(4).await;
    let internal = records.iter().filter(|record| record["Reason"] == "internal");
    let internal: Vec<_> = internal.map(|record| (&record["Service"], &record["StatusCode"])).collect();
    assert_eq!(internal, [(&"broken".into(), &500.into()); 2]);
    gateway.until_metric(r#"scoregate_requests_in_flight{service="broken"}"#, 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_out_of_descriptors_neither_ends_nor_spins_and_serves_when_there_are_some() {
    let upstream = Upstream::echo().await;
    let config = config(&service("iris", upstream.address, ""));
    let process = Process::start_with_descriptors(128, &config).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(process.address()).await.unwrap());
    }
    eventually("the log line", async || process.file("stderr").contains("accept fails").then_some(())).await;
    // Each worker tries again ten times a second and tells it once.
    assert!(process.file("stderr").matches("accept fails").count() <= 4, "{}", process.file("stderr"));
    drop(silent);
    assert_eq!(soon("an answer", process.score(KEY)).await, 200);
}

/// What cannot be logged, standard error being a file on a full disk, is lost, and nothing else: least of all the thread that
/// had something to say, such as the writer of the records, whose disk is the same one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_and_a_record_file_that_take_nothing_end_no_thread_and_what_is_lost_is_counted() {
    let upstream = Upstream::echo().await;
    let config = config(&service("iris", upstream.address, ""));
    assert!(config.contains("records.jsonl"), "{config}");
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full", env!("CARGO_BIN_EXE_scoregate")]);
    let process = Process::start_by(shell, &config.replace("records.jsonl", "/dev/full"), None).await;
    for calls in 1..=3 {
        assert_eq!(process.score(KEY).await, 200);
        let dropped = format!("scoregate_records_total{{outcome=\"dropped\"}} {calls}\n");
        eventually(&dropped, async || process.page("/metrics").await.text().contains(&dropped).then_some(()))
            .await;
    }
}
