//! The demo's folder: development certificates, fresh keys, the configuration, the records; removed at the end.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::KeyPair;

use crate::tls::{DevelopmentCertificates, development_certificates};

/// Host of the service that is reached by host.
pub(super) const OPEN_HOST: &str = "iris-open.localhost";

/// Everything of the demo that is on disk. Dropping it removes the folder.
pub(super) struct Stage {
    dir: PathBuf,
    /// Authority and server certificate.
    pub certificates: DevelopmentCertificates,
    /// The key of service `iris`.
    pub primary_key: String,
}

impl Stage {
    /// Sets the stage in front of the model at `model`.
    pub fn set(model: SocketAddr) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("scoregate-demo-{}", std::process::id()));
        // Not recursive: a folder that is there already is somebody else's.
        DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("{}", dir.display()))?;
        let primary_key = new_key();
        let certificates = development_certificates(&dir.join("certs"), &[OPEN_HOST])?;
        let stage = Self { dir, certificates, primary_key };
        stage.write("primary.key", &stage.primary_key)?;
        stage.write("secondary.key", &new_key())?;
        stage.write("signing.key", &KeyPair::generate()?.serialize_pem())?;
        stage.write("scoregate.yaml", &config(model))?;
        Ok(stage)
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("scoregate.yaml")
    }

    /// The records written so far, a line each.
    pub fn records(&self) -> io::Result<Vec<String>> {
        let text = fs::read_to_string(self.dir.join("records.jsonl"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The authority's certificate.
    pub fn ca(&self) -> &Path {
        &self.certificates.ca
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(content.as_bytes()))
            .with_context(|| format!("{}", path.display()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Nothing can be done about a temporary folder that does not go away.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A key as Azure's look: 32 letters and digits, here of 122 random bits.
fn new_key() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn config(model: SocketAddr) -> String {
    format!(
        r#"version: scoregate/v1
runtime: {{ workers: 1 }}
listeners:
  - name: public
    address: 127.0.0.1:0
    tls: {{ certificates: [ {{ cert: certs/server.pem, key: certs/server.key }} ] }}
observe: {{ address: 127.0.0.1:0 }}
tokens: {{ issuer: "https://scoregate.demo", signing_key: {{ file: signing.key }}, lifetime: 1h, leeway: 0s }}
services:
  - name: iris
    compute_type: AKS            # key on by default
    keys: {{ primary: {{ file: primary.key }}, secondary: {{ file: secondary.key }} }}
    deployments: [ {{ name: blue, replicas: ["http://{model}"] }} ]
  - name: iris-open
    compute_type: ACI            # key off by default
    hosts: [{OPEN_HOST}]
    deployments: [ {{ name: blue, replicas: ["http://{model}"] }} ]
  - name: iris-token
    compute_type: AKS
    auth: token
    deployments: [ {{ name: blue, replicas: ["http://{model}"] }} ]
telemetry: {{ records: {{ file: {{ path: records.jsonl }} }} }}
drain: {{ delay: 0s, timeout: 5s }}
log: {{ level: warn }}
"#
    )
}
