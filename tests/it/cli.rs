//! The commands as a user runs them: the real binary, its exit codes, what it prints where.

mod explain;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{KEY, OTHER_KEY};

/// What a command left behind.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    /// Standard output as JSON: all of it, so nothing else may be there.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One call of the binary in `dir`, with no variable of whoever runs the tests.
fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
    command.args(arguments).current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

fn finish(mut command: Command) -> Done {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn run(dir: &Path, arguments: &[&str]) -> Done {
    finish(command(dir, arguments))
}

/// A service per auth mode that needs no network; the first listener's port is not bound by any test.
const CONFIG: &str = r#"version: scoregate/v1
listeners:
  - { name: plain, address: "127.0.0.1:8080", plaintext: true }
observe: { address: "127.0.0.1:0" }
tokens: { issuer: "https://tokens.test", signing_key: { file: signing.key }, lifetime: 2h }
services:
  - name: iris
    compute_type: AKS
    keys: { primary: { file: primary.key }, secondary: { file: secondary.key } }
    limits: { body_bytes: 1MiB, scoring_timeout: 7s, concurrent_requests_per_replica: 3 }
    deployments:
      - { name: blue, traffic: 90, replicas: ["http://127.0.0.1:5001"], paths: { score: /invocations } }
      - { name: green, traffic: 10, replicas: ["http://127.0.0.1:5002"] }
      - { name: dark, traffic: 0, replicas: ["http://127.0.0.1:5003"] }
  - name: wine
    compute_type: ACI
    hosts: [wine.test]
    deployments: [ { name: only, replicas: ["http://127.0.0.1:5004"] } ]
  - name: tulip
    compute_type: AKS
    auth: token
    deployments: [ { name: only, replicas: ["http://127.0.0.1:5005"] } ]
"#;

/// A folder with `config` and the secrets that it may name.
fn folder(config: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("primary.key", KEY);
    write("secondary.key", OTHER_KEY);
    write("signing.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    write("gateway.yaml", config);
    dir
}

#[test]
fn exit_codes_are_fine_failed_and_usage() {
    let dir = folder(CONFIG);
    let dir = dir.path();
    for (code, arguments) in [
        (0, &["version"][..]),
        (0, &["--help"]),
        (0, &["check", "-c", "gateway.yaml"]),
        (1, &["check", "-c", "nowhere.yaml"]),
        (1, &["config", "dump", "-c", "nowhere.yaml"]),
        (1, &["explain", "-c", "nowhere.yaml", "--url", "http://localhost/"]),
        (1, &["tokens", "mint", "-c", "nowhere.yaml", "--service", "tulip", "--subject", "ann"]),
        (1, &["run", "-c", "nowhere.yaml"]),
        (2, &[]),
        (2, &["chekc"]),
        (2, &["check"]),
        (2, &["check", "-c", "gateway.yaml", "--quick"]),
        (2, &["config"]),
        (2, &["explain", "-c", "gateway.yaml", "--url", "localhost/score"]),
        (2, &["explain", "-c", "gateway.yaml", "--url", "http://u:p@localhost/"]),
        (2, &["explain", "-c", "gateway.yaml", "--url", "http://localhost/", "-H", "no colon"]),
    ] {
        let done = run(dir, arguments);
        assert_eq!(done.code, code, "{arguments:?}: {done:?}");
        assert_eq!(done.out.is_empty(), code != 0, "only what succeeds prints: {arguments:?}: {done:?}");
        assert_eq!(done.err.is_empty(), code == 0, "what fails says why: {arguments:?}: {done:?}");
    }
    let mut by_variable = command(dir, &["check"]);
    by_variable.env("SCOREGATE_CONFIG", "gateway.yaml");
    assert_eq!(finish(by_variable).code, 0);
}

#[test]
fn check_tells_every_problem_with_its_place_and_no_secret() {
    let broken = CONFIG
        .replace("{ file: secondary.key }", "hunter2-hunter2-hunter2")
        .replace("traffic: 90", "traffic: 95")
        .replace("hosts: [wine.test]", "host: [wine.test]")
        .replace("auth: token", "auth: tokens")
        .replace("lifetime: 2h", "lifetime: 2");
    let dir = folder(&broken);
    let done = run(dir.path(), &["check", "-c", "gateway.yaml"]);
    assert_eq!((done.code, done.out.as_str()), (1, ""));
    let places: Vec<_> =
        done.err.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(
        places,
        [
            "gateway.yaml:5:88: tokens.lifetime",
            "gateway.yaml:7:5: services[0].deployments",
            "gateway.yaml:9:56: services[0].keys.secondary",
            "gateway.yaml:17:5: services[1].host",
            "gateway.yaml:21:11: services[2].auth",
        ],
        "{}",
        done.err
    );
    assert!(
        done.err.contains("did you mean 'hosts'?") && done.err.contains("did you mean 'token'?"),
        "{}",
        done.err
    );
    for secret in ["hunter2", KEY, OTHER_KEY] {
        assert!(!done.err.contains(secret), "{}", done.err);
    }
}

#[test]
fn check_reads_standard_input() {
    let dir = folder("");
    let feed = |text: &str| {
        let mut command = command(dir.path(), &["check", "-c", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out, err) = feed(CONFIG);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "OK: - (listeners: 1, services: 3, warnings: 0)\n");
    let (code, out, err) = feed("version: scoregate/v2\n");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("-:1:10: version: must be scoregate/v1, not 'scoregate/v2'\n"), "{err}");
}

#[test]
fn schema_is_a_json_schema_of_the_whole_configuration() {
    let dir = folder(CONFIG);
    let done = run(dir.path(), &["schema"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let schema = done.json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let required: Vec<_> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(required, ["version", "listeners"]);
    for name in ["listeners", "services", "tokens", "telemetry", "observe", "drain", "log", "runtime"] {
        assert!(schema["properties"][name].is_object(), "{name}");
    }
    // Every reference leads somewhere.
    for reference in done.out.split("\"$ref\": \"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(schema.pointer(pointer).is_some_and(Value::is_object), "{pointer}");
    }
}

#[test]
fn config_dump_shows_references_for_secrets_and_loads_again() {
    let dir = folder(CONFIG);
    let done = run(dir.path(), &["config", "dump", "-c", "gateway.yaml"]);
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    for secret in [KEY, OTHER_KEY, "PRIVATE KEY"] {
        assert!(!done.out.contains(secret), "{}", done.out);
    }
    let dumped: Value = serde_saphyr::from_str(&done.out).unwrap();
    let iris = &dumped["services"][0];
    assert_eq!(iris["keys"]["primary"], json!({ "file": "primary.key" }));
    assert_eq!((&iris["auth"], &dumped["services"][1]["auth"]), (&json!("key"), &json!("none")));
    assert_eq!(iris["limits"]["queue_wait"], "500ms");

    fs::write(dir.path().join("dumped.yaml"), &done.out).unwrap();
    assert_eq!(run(dir.path(), &["check", "-c", "dumped.yaml"]).code, 0);
    assert_eq!(run(dir.path(), &["config", "dump", "-c", "dumped.yaml"]).out, done.out);
}

#[test]
fn the_environment_overrides_a_scalar_and_an_unknown_one_is_refused() {
    let dir = folder(CONFIG);
    let mut good = command(dir.path(), &["config", "dump", "-c", "gateway.yaml"]);
    good.env("SCOREGATE__RUNTIME__WORKERS", "3");
    let dumped: Value = serde_saphyr::from_str(&finish(good).out).unwrap();
    assert_eq!(dumped["runtime"]["workers"], 3);

    for (name, value, field) in [
        ("SCOREGATE__RUNTIME__WORKER", "3", "runtime.worker: unknown field; did you mean 'workers'?"),
        ("SCOREGATE__RUNTIME__WORKERS", "many", "runtime.workers: "),
        ("SCOREGATE__SERVICES", "none", "names a section or a list"),
    ] {
        let mut bad = command(dir.path(), &["check", "-c", "gateway.yaml"]);
        bad.env(name, value);
        let done = finish(bad);
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{name}={value}");
        assert!(done.err.starts_with(&format!("${name}: {field}")), "{}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    }
}

fn mint(dir: &Path, arguments: &[&str]) -> Done {
    run(dir, &[&["tokens", "mint", "-c", "gateway.yaml"], arguments].concat())
}

#[test]
fn a_minted_token_says_who_may_call_what_and_how_long() {
    let dir = folder(CONFIG);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (lifetime, seconds) in [(None, 7200), (Some("10m"), 600), (Some("1s"), 1), (Some("720h"), 2_592_000)]
    {
        let mut arguments = vec!["--service", "tulip", "--subject", "robot-7"];
        arguments.extend(lifetime.iter().flat_map(|lifetime| ["--lifetime", lifetime]));
        let done = mint(dir.path(), &arguments);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
        let token = done.out.strip_suffix('\n').unwrap();
        let parts: Vec<_> = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        assert_eq!((parts.len(), parts[2].len()), (3, 64), "an ES256 signature has 64 bytes");
        let header: Value = serde_json::from_slice(&parts[0]).unwrap();
        assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("JWT")));
        let claims: Value = serde_json::from_slice(&parts[1]).unwrap();
        assert_eq!(claims["iss"], "https://tokens.test");
        assert_eq!((&claims["aud"], &claims["sub"]), (&json!("tulip"), &json!("robot-7")));
        let issued = claims["iat"].as_u64().unwrap();
        assert!(issued >= now && claims["nbf"] == issued, "{claims}");
        assert_eq!(claims["exp"].as_u64().unwrap(), issued + seconds);
    }
}

#[test]
fn what_cannot_be_minted_is_said() {
    let dir = folder(CONFIG);
    for (code, arguments, said) in [
        (
            1,
            ["--service", "nobody", "--subject", "a", "--lifetime", "1h"],
            "no service \"nobody\"; it has iris, wine, tulip",
        ),
        (
            1,
            ["--service", "iris", "--subject", "a", "--lifetime", "1h"],
            "iris does not take tokens of this gateway",
        ),
        (1, ["--service", "tulip", "--subject", "", "--lifetime", "1h"], "subject"),
        (1, ["--service", "tulip", "--subject", "a\nb", "--lifetime", "1h"], "subject"),
        (2, ["--service", "tulip", "--subject", "a", "--lifetime", "1"], "such as 500ms, 60s, 10m or 12h"),
        (2, ["--service", "tulip", "--subject", "a", "--lifetime", "0s"], "1s to 720h"),
        (2, ["--service", "tulip", "--subject", "a", "--lifetime", "500ms"], "1s to 720h"),
        (2, ["--service", "tulip", "--subject", "a", "--lifetime", "721h"], "1s to 720h"),
    ] {
        let done = mint(dir.path(), &arguments);
        assert_eq!((done.code, done.out.as_str()), (code, ""), "{arguments:?}: {}", done.err);
        assert!(done.err.contains(said), "{arguments:?}: {}", done.err);
    }
}

#[test]
fn version_is_one_line_or_json() {
    let dir = folder(CONFIG);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(run(dir.path(), &["version"]).out, format!("scoregate {version}\n"));
    let json = run(dir.path(), &["version", "--json"]).json();
    assert_eq!((&json["name"], &json["version"]), (&json!("scoregate"), &json!(version)));
    assert!(json["target"].as_str().unwrap().contains(std::env::consts::ARCH), "{json}");
}

#[test]
fn run_tells_every_problem_and_binds_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // An attempt to bind would fail as well, and say so.
    let config = CONFIG.replace("127.0.0.1:8080", &address);
    let dir = folder(&config.replace("traffic: 90", "traffic: 95").replace("auth: token", "auth: oidc"));
    let done = run(dir.path(), &["run", "-c", "gateway.yaml"]);
    assert_eq!((done.code, done.out.as_str()), (1, ""));
    assert_eq!(done.err.lines().count(), 2, "{}", done.err);
    assert!(done.err.lines().all(|line| line.starts_with("gateway.yaml:")), "{}", done.err);
    assert!(!done.err.contains("bound"), "{}", done.err);
}

#[test]
fn run_names_the_field_whose_address_is_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = CONFIG.replace("127.0.0.1:8080", "127.0.0.1:0");
    let observe = free
        .replace("observe: { address: \"127.0.0.1:0\" }", &format!("observe: {{ address: \"{address}\" }}"));
    for (config, field) in [
        (CONFIG.replace("127.0.0.1:8080", &address), "listeners.plain.address"),
        (observe, "observe.address"),
    ] {
        let dir = folder(&config);
        let done = run(dir.path(), &["run", "-c", "gateway.yaml"]);
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{field}: {}", done.err);
        assert!(done.err.contains(&format!("{field}: {address} cannot be bound")), "{field}: {}", done.err);
    }
}

#[test]
fn the_demo_shows_what_it_promises() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = command(dir.path(), &["demo", "--once"]);
    demo.env("TMPDIR", dir.path());
    let done = finish(demo);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.out.is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "its folder is gone");
}
