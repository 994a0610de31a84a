//! A gateway that is killed while keys are regenerated: what was answered is there, and nothing is half there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{OWNER, managed};
use crate::harness::{Connection, prepare, score_request};

/// How often it is killed.
const KILLS: usize = 200;
const IRIS: &str = "/v1/workspaces/default/services/iris";

/// The built binary on the folder of [`prepare`]; killed without warning when dropped.
struct Process {
    child: Child,
    ready: Value,
    ca: std::path::PathBuf,
}

impl Process {
    fn start(folder: &Path, ca: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
        command.args(["run", "-c"]).arg(folder.join("scoregate.yaml")).env_remove("NOTIFY_SOCKET");
        let log = std::fs::File::create(folder.join("stderr")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("{e}: {}", std::fs::read_to_string(folder.join("stderr")).unwrap()));
        Self { child, ready, ca: ca.to_owned() }
    }

    async fn connect(&self, place: &str) -> Connection {
        let address = self.ready.pointer(place).unwrap().as_str().unwrap().parse().unwrap();
        Connection::tls(address, "localhost", &self.ca).await
    }

    /// What the API answers on `connection`; nothing if the process is gone.
    async fn call(connection: &mut Connection, method: &str, path: &str, body: &Value) -> Option<Value> {
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OWNER}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        if !connection.try_send(request).await {
            return None;
        }
        let answer = connection.try_answer().await?;
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        serde_json::from_slice(&answer.body).ok()
    }

    /// The status of a call to the service with `key`. Its replica is not there: 502 means that the key opened.
    async fn score(&self, key: &str) -> u16 {
        let mut connection = self.connect("/listeners/public").await;
        connection.send(score_request("iris", Some(key), "{}")).await;
        connection.answer().await.status
    }

    async fn keys(&self) -> [String; 2] {
        let mut connection = self.connect("/management").await;
        let keys = Self::call(&mut connection, "GET", &format!("{IRIS}/keys"), &json!({})).await.unwrap();
        ["primary", "secondary"].map(|slot| keys[slot]["value"].as_str().unwrap().to_owned())
    }

    /// Regenerates the keys in turn until the process is killed; `pair` follows what was answered. Returns the slot
    /// whose answer did not come.
    async fn regenerate(&mut self, pair: &mut [String; 2]) -> usize {
        let mut connection = self.connect("/management").await;
        let pid = self.child.id();
        let delay = Duration::from_micros(fastrand::u64(0..25_000));
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(delay);
            let killed = Command::new("sh").args(["-c", "kill -9 \"$0\"", &pid.to_string()]).status();
            assert!(killed.unwrap().success());
        });
        let mut slot = 0;
        loop {
            let path = format!("{IRIS}/keys/{}/regenerate", ["primary", "secondary"][slot]);
            let Some(key) = Self::call(&mut connection, "POST", &path, &json!({})).await else { break };
            pair[slot] = key["value"].as_str().unwrap().to_owned();
            slot = 1 - slot;
        }
        killer.await.unwrap();
        self.child.wait().unwrap();
        slot
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_keys_are_regenerated_the_store_opens_with_the_old_pair_or_the_new() {
    let (dir, certificates) = prepare(&managed("  []"));
    std::fs::write(dir.path().join("bootstrap.key"), OWNER).unwrap();
    let start = || Process::start(dir.path(), &certificates.ca);
    let mut process = start();
    let spec = json!({
        "compute_type": "AKS",
        "deployments": { "blue": { "traffic": 100, "replicas": ["http://127.0.0.2:1"] } },
    });
    let mut connection = process.connect("/management").await;
    Process::call(&mut connection, "PUT", IRIS, &spec).await.unwrap();
    drop(connection);
    let mut pair = process.keys().await;
    let mut moved_on = 0;
    for kill in 0..KILLS {
        let answered = pair.clone();
        let slot = process.regenerate(&mut pair).await;
        process = start();
        let found = process.keys().await;
        let other = 1 - slot;
        assert_eq!(found[other], pair[other], "kill {kill}: a key that nobody touched, or that was answered");
        // The slot whose answer did not come has the key before it or a new one, and that one opens.
        moved_on += usize::from(pair != answered);
        if found[slot] != pair[slot] {
            assert_eq!(process.score(&pair[slot]).await, 401, "kill {kill}: the replaced key is dead");
        }
        assert_eq!(process.score(&found[slot]).await, 502, "kill {kill}: the key that is there opens");
        pair = found;
    }
    assert!(moved_on > 0, "no kill came after an answer: the delays are too short to test anything");
}
