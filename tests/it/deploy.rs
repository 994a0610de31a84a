//! Every configuration that the repository gives away is one that the loader takes, and the manifests around it agree
//! with it: mounts, ports, paths and the time to drain.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use scoregate::control::config::{Loaded, Source, json_schema, load};
use scoregate::tls::development_certificates;
use serde_json::Value;
use tempfile::TempDir;

/// Absolute folders of a machine that a configuration may name.
const FOLDERS: [&str; 3] = ["/etc/scoregate", "/run/secrets", "/var/log/scoregate"];
/// Certificates, each with its key beside it.
const CERTIFICATES: [&str; 4] = [
    "etc/scoregate/tls/tls.crt",
    "etc/scoregate/tls-internal/tls.crt",
    "etc/scoregate/upstream/tls.crt",
    "certs/server.pem",
];
const AUTHORITIES: [&str; 4] = [
    "etc/scoregate/tls/client-ca.crt",
    "etc/scoregate/upstream/ca.crt",
    "etc/scoregate/login-ca.crt",
    "etc/scoregate/collector-ca.crt",
];
const KEYS: [&str; 8] = [
    "run/secrets/collector",
    "run/secrets/scoregate-bootstrap-token",
    "run/secrets/iris-primary",
    "run/secrets/iris-secondary",
    "run/secrets/iris/primary",
    "run/secrets/iris/secondary",
    "secrets/iris-primary",
    "secrets/iris-secondary",
];
const SIGNING_KEYS: [&str; 3] =
    ["run/secrets/scoregate-token-key", "run/secrets/token/signing-key", "secrets/signing.pem"];
const INSIGHTS: &str = "InstrumentationKey=99999999-8888-4777-8666-555555555555";
const KEY_SETS: [&str; 1] = ["etc/scoregate/login-keys.json"];

/// The files of a machine under a folder of its own.
struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(machine.path("var/log/scoregate")).unwrap();
        let made = development_certificates(&machine.path("made"), &["score.example.org"]).unwrap();
        let certificate = fs::read_to_string(&made.server.cert).unwrap();
        let key = fs::read_to_string(&made.server.key).unwrap();
        for path in CERTIFICATES {
            machine.write(path, &certificate);
            let beside = Path::new(path).with_extension("key");
            machine.write(beside.to_str().unwrap(), &key);
        }
        for path in AUTHORITIES {
            machine.write(path, &fs::read_to_string(&made.ca).unwrap());
        }
        for path in KEYS {
            machine.write(path, &uuid::Uuid::new_v4().simple().to_string());
        }
        for path in SIGNING_KEYS {
            machine.write(path, &rcgen::KeyPair::generate().unwrap().serialize_pem());
        }
        for path in KEY_SETS {
            machine.write(path, r#"{"keys":[]}"#);
        }
        for path in ["run/secrets/insights", "secrets/insights"] {
            machine.write(path, INSIGHTS);
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// For the owner alone, as a secret should be.
    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    }

    /// Loads `text` as if the machine's folders were at the root; relative paths begin at the root, too.
    fn load(&self, name: &str, text: &str, variables: &[(&str, &str)]) -> Loaded {
        let here = self.root.path().display();
        let text = FOLDERS
            .iter()
            .fold(text.to_owned(), |text, folder| text.replace(folder, &format!("{here}{folder}")));
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = Source::text(name, self.root.path(), text).with_variables(variables);
        let loaded = load(&source).unwrap_or_else(|problems| {
            panic!("{name} is refused (tests/it/deploy.rs makes the files it may name):\n{problems}")
        });
        for file in &loaded.config.files {
            assert!(
                file.starts_with(self.root.path()),
                "{name} names {}, which no test made",
                file.display()
            );
        }
        loaded
    }

    /// The path on the machine that `file` stands for.
    fn on_the_machine(&self, file: &Path) -> PathBuf {
        Path::new("/").join(file.strip_prefix(self.root.path()).unwrap())
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn warnings(loaded: &Loaded) -> Vec<String> {
    loaded.warnings.iter().map(|warning| format!("{}: {}", warning.field, warning.message)).collect()
}

#[test]
fn the_example_is_taken_without_a_warning() {
    let loaded = Machine::new().load("example.yaml", &read("deploy/example.yaml"), &[]);
    assert_eq!(warnings(&loaded), Vec::<String>::new());
    assert_eq!(loaded.config.services.len(), 6);
}

#[test]
fn the_readmes_configuration_is_taken_without_a_warning() {
    let readme = read("README.md");
    let blocks: Vec<_> = readme.split("```yaml\n").skip(1).collect();
    assert_eq!(blocks.len(), 3, "README.md has another YAML block: test it as well");
    let [text, managed, exported] = [0, 1, 2].map(|place: usize| blocks[place].split("```").next().unwrap());
    let both = Machine::new().load("README.md", &format!("{text}{managed}"), &[]);
    assert_eq!(warnings(&both), Vec::<String>::new());
    let loaded = Machine::new().load("README.md", text, &[]);
    assert_eq!(warnings(&loaded), Vec::<String>::new());
    let exported = Machine::new().load("README.md", &text.replace("telemetry:\n", exported), &[]);
    assert_eq!(warnings(&exported), Vec::<String>::new());
    assert!(exported.config.telemetry.insights.is_some());
    let names: Vec<_> = loaded.config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["iris", "wine", "tulip"]);
}

/// The contract's own example: the whole shape, what is built and what is not yet.
const CONTRACT: &str = r#"
version: scoregate/v1
workspace: { subscription: sub, resource_group: rg, name: ws, location: westeurope }
public_url: https://score.example.org:8443
uri_templates: { ACI: "https://{service}.aci.example.org/score" }
replica_template: "http://{service}.{namespace}.svc:5001"
runtime: { workers: auto }
listeners:
  - name: public
    address: 0.0.0.0:8443
    tls:
      certificates: [ { cert: certs/server.pem, key: certs/server.key } ]
      client_ca: null
    # plaintext: true
management:
  address: 127.0.0.1:9443
  tls: { certificates: [ { cert: certs/server.pem, key: certs/server.key } ] }
  bootstrap_token: {env: SCOREGATE_BOOTSTRAP_TOKEN}
observe:    { address: 127.0.0.1:9090 }
store:      { kind: embedded, path: data/ }
services:
  - name: iris
    compute_type: AKS
    hosts: [iris.example.org]
    auth: key
    keys: { primary: {file: /run/secrets/iris-primary}, secondary: {env: IRIS_SECONDARY} }
    limits: { body_bytes: 100MiB, scoring_timeout: 60s, concurrent_requests_per_replica: 4, queue_wait: 500ms }
    deployments:
      - { name: blue,  traffic: 90, replicas: ["http://127.0.0.1:5001", "http://127.0.0.1:5002"] }
      - { name: green, traffic: 10, replicas: ["https://10.0.0.7:5001"], paths: { score: /score, swagger: /swagger.json, health: / } }
telemetry:
  privacy: standard
  records: { file: {path: records.jsonl} , stdout: false }
  application_insights: { connection_string: {env: APPLICATIONINSIGHTS_CONNECTION_STRING} }
  otlp: { endpoint: http://127.0.0.1:4317 }
"#;

#[test]
fn the_contracts_example_is_taken_without_a_warning() {
    let secrets = [
        ("IRIS_SECONDARY", "secondary-0123456789abcdefghijklm"),
        ("SCOREGATE_BOOTSTRAP_TOKEN", "owner-0123456789abcdefghijklmnop"),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", INSIGHTS),
    ];
    let loaded = Machine::new().load("contract.yaml", CONTRACT, &secrets);
    assert!(loaded.config.management.is_some());
    assert_eq!(warnings(&loaded), Vec::<String>::new());
}

/// Every key that is built, as a path such as `services.limits.body_bytes`.
fn built_keys(schema: &Value, at: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(reference) = at.get("$ref") {
        let definition = reference.as_str().unwrap().strip_prefix('#').unwrap();
        built_keys(schema, schema.pointer(definition).unwrap(), path, found);
    }
    for (name, property) in at.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let text =
            property["description"].as_str().unwrap_or_else(|| panic!("{path}.{name} is not described"));
        if text.to_lowercase().contains("no effect in this version") {
            continue;
        }
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        found.push(below.clone());
        built_keys(schema, property, &below, found);
    }
    for name in ["items", "anyOf", "oneOf", "allOf"] {
        match at.get(name) {
            Some(Value::Array(several)) => {
                several.iter().for_each(|one| built_keys(schema, one, path, found));
            }
            Some(one) => built_keys(schema, one, path, found),
            None => {}
        }
    }
}

/// Whether some item of the lists on the way has the key.
fn has_key(document: &Value, path: &str) -> bool {
    if let Value::Array(items) = document {
        return items.iter().any(|item| has_key(item, path));
    }
    match path.split_once('.') {
        Some((first, rest)) => document.get(first).is_some_and(|below| has_key(below, rest)),
        None => document.get(path).is_some(),
    }
}

#[test]
fn the_example_shows_every_key_that_is_built() {
    let schema = json_schema().to_value();
    let mut keys = Vec::new();
    built_keys(&schema, &schema, "", &mut keys);
    for known in ["services.oidc.jwks.ca", "listeners.proxy_protocol.from", "services.deployments.tls.ca"] {
        assert!(keys.iter().any(|key| key == known), "the walk does not reach {known}: {keys:?}");
    }
    let text = read("deploy/example.yaml");
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let in_a_comment = |name: &str| {
        let comments = text.lines().filter_map(|line| line.split_once('#').map(|(_, comment)| comment));
        let words =
            comments.flat_map(|comment| comment.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c)));
        words.into_iter().any(|word| word.strip_suffix(':') == Some(name))
    };
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !has_key(&document, key) && !in_a_comment(key.rsplit('.').next().unwrap()))
        .collect();
    assert!(missing.is_empty(), "deploy/example.yaml does not show {missing:?}");
}

#[test]
fn every_yaml_file_under_deploy_is_looked_at() {
    let mut found = Vec::new();
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    // The rules are no configurations: observability.rs looks at them.
    assert_eq!(found, ["example.yaml", "rules.yaml", "rules_test.yaml", "sidecar.yaml", "standalone.yaml"]);
}

/// A manifest's configuration and the pod that it is for.
struct Manifest {
    machine: Machine,
    loaded: Loaded,
    pod: Value,
    container: Value,
}

impl Manifest {
    fn read(name: &str) -> Self {
        let text = read(&format!("deploy/kubernetes/{name}"));
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let one = |kind: &str| {
            let mut of_kind = documents.iter().filter(|document| document["kind"] == kind);
            let found = of_kind.next().unwrap_or_else(|| panic!("{name} has no {kind}"));
            assert!(of_kind.next().is_none(), "{name} has a second {kind}: test it as well");
            found.clone()
        };
        let data = one("ConfigMap")["data"].as_object().unwrap().clone();
        assert_eq!(data.keys().collect::<Vec<_>>(), ["scoregate.yaml"], "{name}");
        let machine = Machine::new();
        let loaded = machine.load(name, data["scoregate.yaml"].as_str().unwrap(), &[]);
        let pod = one("Deployment")["spec"]["template"]["spec"].clone();
        let containers = pod["containers"].as_array().unwrap();
        let container = containers.iter().find(|container| container["name"] == "scoregate").unwrap().clone();
        Self { machine, loaded, pod, container }
    }

    /// Folders of the container that a volume is mounted at.
    fn mounts(&self) -> Vec<PathBuf> {
        let mounts = self.container["volumeMounts"].as_array().unwrap();
        mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap().into()).collect()
    }

    fn port(&self, name: &str) -> u64 {
        let ports = self.container["ports"].as_array().unwrap();
        ports.iter().find(|port| port["name"] == name).unwrap()["containerPort"].as_u64().unwrap()
    }
}

#[test]
fn what_the_manifests_configure_agrees_with_their_pods() {
    for name in ["sidecar.yaml", "standalone.yaml"] {
        let manifest = Manifest::read(name);
        let config = &manifest.loaded.config;
        // The kubelet probes the pod's address: a listener on loopback would never be ready.
        let fields: Vec<_> = manifest.loaded.warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(fields, ["observe.address"], "{name}");

        let mounts = manifest.mounts();
        for file in &config.files {
            let file = manifest.machine.on_the_machine(file);
            assert!(
                mounts.iter().any(|mount| file.parent() == Some(mount)),
                "{name}: {} is in no volume: {mounts:?}",
                file.display()
            );
        }
        assert_eq!(config.listeners.len(), 1, "{name}");
        assert_eq!(u64::from(config.listeners[0].address.port()), manifest.port("https"), "{name}");
        let observe = config.observe.unwrap().address;
        assert_eq!(u64::from(observe.port()), manifest.port("observe"), "{name}");
        let grace = manifest.pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace >= (config.drain.delay + config.drain.timeout).as_secs() + 5, "{name}: {grace} s");
    }
}

#[test]
fn image_and_manifests_look_for_the_same_file() {
    let dockerfile = read("deploy/Dockerfile");
    let command = dockerfile.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    let command: Value = serde_json::from_str(command).unwrap();
    for name in ["sidecar.yaml", "standalone.yaml"] {
        let manifest = Manifest::read(name);
        assert_eq!(manifest.container["args"], command, "{name}");
        let path = Path::new(command[2].as_str().unwrap());
        assert_eq!(path.file_name().unwrap(), "scoregate.yaml", "the key in the ConfigMap");
        assert!(manifest.mounts().iter().any(|mount| path.parent() == Some(mount)), "{name}");
    }
}

#[test]
fn the_unit_waits_for_a_drain_and_lets_records_and_store_be_written() {
    let unit = read("deploy/systemd/scoregate.service");
    let setting = |name: &str| {
        let mut lines = unit.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let loaded = Machine::new().load("example.yaml", &read("deploy/example.yaml"), &[]);
    let drain = loaded.config.drain;
    let stop: u64 = setting("TimeoutStopSec").strip_suffix('s').unwrap().parse().unwrap();
    assert!(stop >= (drain.delay + drain.timeout).as_secs() + 5, "{stop} s");

    let command: Vec<_> = setting("ExecStart").split(' ').collect();
    assert_eq!(command[1..3], ["run", "-c"]);
    assert!(read("deploy/README.md").contains(command[3]), "the README installs another file");

    let folder = format!("/var/log/{}/", setting("LogsDirectory"));
    assert!(read("deploy/example.yaml").contains(&format!("path: {folder}")), "records go elsewhere");
    let store = loaded.config.management.unwrap().store.path;
    assert_eq!(store, Path::new("/var/lib").join(setting("StateDirectory")), "the store goes elsewhere");
}
