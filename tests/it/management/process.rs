//! A gateway with a management plane as a process of its own, for what only a process can show.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{OWNER, managed};
use crate::harness::{Answer, Connection, prepare, score_request};

/// A folder with everything that a gateway with a management plane needs, declaring no service; and its authority.
pub fn folder() -> (TempDir, PathBuf) {
    let (dir, certificates) = prepare(&managed("  []"));
    std::fs::write(dir.path().join("bootstrap.key"), OWNER).unwrap();
    (dir, certificates.ca)
}

/// The built binary on a [`folder`]; killed without warning when dropped.
pub struct Process {
    pub child: Child,
    ready: Value,
    ca: PathBuf,
}

impl Process {
    pub fn start(folder: &Path, ca: &Path) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_scoregate")), folder, ca)
    }

    /// Starts the binary so that no file of it can grow beyond `blocks` (of 512 or 1,024 bytes, as the shell counts).
    pub fn start_with_small_files(blocks: u32, folder: &Path, ca: &Path) -> Self {
        let mut shell = Command::new("sh");
        // Ignored, so that a write past the limit fails instead of ending the process.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_scoregate")]);
        Self::start_by(shell, folder, ca)
    }

    fn start_by(mut command: Command, folder: &Path, ca: &Path) -> Self {
        command.args(["run", "-c"]).arg(folder.join("scoregate.yaml")).env_remove("NOTIFY_SOCKET");
        let log = std::fs::File::create(folder.join("stderr")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("{e}: {}", std::fs::read_to_string(folder.join("stderr")).unwrap()));
        Self { child, ready, ca: ca.to_owned() }
    }

    /// A connection to what the ready line says at `place` (a JSON pointer).
    async fn connect(&self, place: &str) -> Connection {
        let address = self.ready.pointer(place).unwrap().as_str().unwrap().parse().unwrap();
        Connection::tls(address, "localhost", &self.ca).await
    }

    /// A connection to the API.
    pub async fn api(&self) -> Connection {
        self.connect("/management").await
    }

    /// The answer of the service `iris` to a call with `key`.
    pub async fn score(&self, key: &str) -> Answer {
        let mut connection = self.connect("/listeners/public").await;
        connection.send(score_request("iris", Some(key), "{}")).await;
        connection.answer().await
    }

    /// A page of the observe port.
    pub async fn observe(&self, path: &str) -> String {
        let address = self.ready["observe"].as_str().unwrap().parse().unwrap();
        let mut connection = Connection::plain(address).await;
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
        connection.answer().await.text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the API answers the owner on `connection`; nothing if the process is gone.
pub async fn call(connection: &mut Connection, method: &str, path: &str, body: &Value) -> Option<Answer> {
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OWNER}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    if !connection.try_send(request).await {
        return None;
    }
    connection.try_answer().await
}

/// The body of a success.
pub fn json(answer: &Answer) -> Value {
    assert!(answer.status < 300, "{}: {}", answer.status, answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}
