//! The loader as its callers see it: good configurations, bad ones with their exact lines, and anything at all.

mod balancing;
mod collection;
mod delivery;
mod health;
mod management;
mod otlp;
mod profiles;
mod rates;
mod services;
mod telemetry;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::auth::{AuthSettings, KeyDigest};
use crate::telemetry::{SpoolEncryption, SpoolMode, SpoolSettings};
use crate::tls::development_certificates;

const PRIMARY: &str = "primary-secret-of-iris";
const SECONDARY: &str = "secondary-secret-of-iris";
const BOOTSTRAP: &str = "bootstrap-secret-of-the-owner";
const INSIGHTS: &str =
    "InstrumentationKey=99999999-8888-4777-8666-555555555555;IngestionEndpoint=https://ingest.example.org/";
/// The environment of the example.
const SECRETS: &[(&str, &str)] = &[
    ("IRIS_SECONDARY", SECONDARY),
    ("SCOREGATE_BOOTSTRAP_TOKEN", BOOTSTRAP),
    ("APPLICATIONINSIGHTS_CONNECTION_STRING", INSIGHTS),
    ("WRAPPING_KEY", "read when the store is opened"),
];

/// A service that nothing is wrong with.
const SERVICE: &str =
    "services: [{name: iris, compute_type: ACI, deployments: [{name: blue, replicas: ['http://h:1']}]}]\n";
/// The head of every text of the tables; their own lines start at 3.
const HEAD: &str =
    "version: scoregate/v1\nlisteners: [{name: one, address: '127.0.0.1:0', plaintext: true}]\n";

/// The example of the contract, every placeholder filled in, in a folder with all its files.
fn example() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    development_certificates(&dir.path().join("certs"), &["iris.example.org"]).unwrap();
    let key = dir.path().join("iris-primary");
    fs::write(&key, format!("{PRIMARY}\n")).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let text = r#"version: scoregate/v1
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
management:
  address: 127.0.0.1:9443
  tls: { certificates: [ { cert: certs/server.pem, key: certs/server.key } ] }
  bootstrap_token: {env: SCOREGATE_BOOTSTRAP_TOKEN}
observe:    { address: 127.0.0.1:9090 }
store:      { kind: embedded, path: data/, key: {env: WRAPPING_KEY} }
services:
  - name: iris
    compute_type: AKS
    hosts: [iris.example.org]
    auth: key
    keys: { primary: {file: iris-primary}, secondary: {env: IRIS_SECONDARY} }
    limits: { body_bytes: 100MiB, scoring_timeout: 60s, concurrent_requests_per_replica: 4, queue_wait: 500ms }
    deployments:
      - { name: blue,  traffic: 90, replicas: ["http://127.0.0.1:5001", "http://127.0.0.1:5002"] }
      - { name: green, traffic: 10, replicas: ["https://10.0.0.7:5001"], paths: { score: /score, swagger: /swagger.json, health: / }, tls: { ca: certs/ca.pem } }
telemetry:
  privacy: high
  records: { file: {path: records.jsonl} , stdout: false }
  application_insights: { connection_string: {env: APPLICATIONINSIGHTS_CONNECTION_STRING} }
  otlp: { endpoint: http://127.0.0.1:4317 }
"#;
    (dir, text.to_owned())
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What `load` has to say about `text`.
fn lines(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let source = Source::text("c.yaml", Path::new("/nowhere"), text).with_variables(variables(pairs));
    let problems = match load(&source) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems.0,
    };
    problems.iter().map(ToString::to_string).collect()
}

fn load_example(overrides: &[(&str, &str)]) -> (TempDir, Loaded) {
    let (dir, text) = example();
    let file = dir.path().join("gateway.yaml");
    fs::write(&file, text).unwrap();
    let mut pairs = SECRETS.to_vec();
    pairs.extend(overrides);
    let loaded = load(&Source::path(&file).with_variables(variables(&pairs)))
        .unwrap_or_else(|problems| panic!("{problems}"));
    (dir, loaded)
}

#[test]
fn the_example_of_the_contract_loads() {
    let (dir, loaded) = load_example(&[]);
    let config = &loaded.config;
    let service = &config.services[0];
    let AuthSettings::Key(keys) = &service.auth else { panic!("{:?}", service.auth) };
    assert_eq!(keys.primary, KeyDigest::of(&PRIMARY.into()).unwrap());
    assert_eq!(keys.secondary, Some(KeyDigest::of(&SECONDARY.into()).unwrap()));
    assert_eq!(service.deployments[0].limits.admission.per_replica, Some(4));
    assert_eq!(service.deployments[1].limits.upstream.first_byte, Duration::from_secs(60));
    assert_eq!(service.deployments[0].traffic, 90);
    let replica = &service.deployments[1].replicas[0];
    assert_eq!(replica.origin.to_string(), "10.0.0.7:5001");
    assert!(replica.tls.is_some());
    assert_eq!(config.telemetry.record_file, Some(dir.path().join("records.jsonl")));
    assert!(config.runtime.workers >= 1);
    let mut files = ["certs/ca.pem", "certs/server.key", "certs/server.pem", "gateway.yaml", "iris-primary"]
        .map(|name| dir.path().join(name));
    files.sort();
    assert_eq!(config.files, files);
    assert_eq!(content_hash(&config.files), loaded.hash);

    assert_eq!(loaded.warnings, []);
    let otlp = config.telemetry.otlp.as_ref().unwrap();
    assert_eq!(otlp.traces.as_ref().unwrap().collector.endpoint.as_str(), "http://127.0.0.1:4317/");
    assert!(config.telemetry.tracing.is_some());
    let insights = config.telemetry.insights.as_ref().unwrap();
    let spool = SpoolSettings {
        path: dir.path().join("spool"),
        mode: SpoolMode::WriteBehind,
        size: 256 << 20,
        age: Duration::from_secs(48 * 3600),
        encryption: SpoolEncryption::None,
    };
    assert_eq!((&insights.spool, insights.connection.is_plain()), (&spool, false));
}

#[test]
fn the_dump_loads_again_to_itself_and_holds_no_secret() {
    let (dir, loaded) = load_example(&[("SCOREGATE__RUNTIME__WORKERS", "3")]);
    let dump = loaded.dump().unwrap();
    assert!(!dump.contains(PRIMARY) && !dump.contains(SECONDARY));
    assert!(!dump.contains(BOOTSTRAP) && !dump.contains("99999999-8888"));
    let shown = format!("{loaded:?}");
    assert!(!shown.contains(PRIMARY) && !shown.contains(BOOTSTRAP) && !shown.contains("99999999-8888"));
    assert!(dump.contains("workers: 3"), "{dump}");
    assert!(dump.contains("file: iris-primary"), "{dump}");
    assert!(dump.contains("handshake_timeout: 10s"), "{dump}");
    let again = Source::text("dump.yaml", dir.path(), dump.as_str()).with_variables(variables(SECRETS));
    let again = load(&again).unwrap_or_else(|problems| panic!("{problems}\n{dump}"));
    assert_eq!(again.dump().unwrap(), dump);
    assert_eq!(needs_restart(&loaded.config, &again.config), [""; 0]);
}

#[test]
fn defaults_that_depend_on_other_fields_are_filled_in() {
    let source = Source::text("c.yaml", Path::new("/"), format!("{HEAD}{SERVICE}"));
    let dump = load(&source).unwrap().dump().unwrap();
    assert!(dump.contains("auth: none"), "{dump}");
    assert!(dump.contains("traffic: 100"), "{dump}");
}

#[test]
fn the_environment_overrides_scalars_by_path_and_index() {
    let (_dir, loaded) = load_example(&[
        ("SCOREGATE__RUNTIME__WORKERS", "2"),
        ("SCOREGATE__OBSERVE__ADDRESS", "127.0.0.1:0"),
        ("SCOREGATE__SERVICES__0__DEPLOYMENTS__1__DEFAULT", "true"),
        ("SCOREGATE__SERVICES__0__DEPLOYMENTS__0__TRAFFIC", "60"),
        ("SCOREGATE__WORKSPACE__NAME", "123"),
        ("SCOREGATE__LOG__LEVEL", "debug"),
        ("SCOREGATE__URI_TEMPLATES__MANAGED", "http://{service}/"),
        ("SCOREGATE_PORT", "not an override"),
    ]);
    let config = &loaded.config;
    assert_eq!(config.runtime.workers, 2);
    assert_eq!(config.observe.unwrap().address.port(), 0);
    assert_eq!(config.workspace.name, "123");
    assert_eq!(config.log.level, "debug");
    let shares = config.services[0].deployments.iter().map(|d| d.traffic);
    assert_eq!(shares.collect::<Vec<_>>(), [60, 40]);
}

/// Text below [`HEAD`], variables, the exact lines.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

fn check(cases: &[Case<'_>]) {
    for (text, pairs, expected) in cases {
        assert_eq!(lines(&format!("{HEAD}{text}"), pairs), *expected, "\n{HEAD}{text}\n{pairs:?}");
    }
}

fn check_services(cases: &[Case<'_>]) {
    let whole: Vec<String> = cases.iter().map(|(text, ..)| format!("services:\n- {text}\n")).collect();
    let cases: Vec<Case<'_>> = whole
        .iter()
        .zip(cases)
        .map(|(text, (_, pairs, expected))| (text.as_str(), *pairs, *expected))
        .collect();
    check(&cases);
}

#[test]
fn what_is_no_yaml_or_no_configuration_is_told_with_its_place() {
    for (text, expected) in [
        ("a: [", "c.yaml:1:4: not valid YAML: unclosed bracket '['"),
        ("a: b: c", "c.yaml:1:5: not valid YAML: mapping values are not allowed in this context"),
        ("a: *b", "c.yaml:1:4: not valid YAML: reference to unknown value"),
        ("- a", "c.yaml:1:1: expected a section (key: value), found a list"),
    ] {
        assert_eq!(lines(text, &[]), [expected]);
    }
    assert_eq!(
        lines("", &[]),
        [
            "c.yaml:1:1: version: is missing; write version: scoregate/v1",
            "c.yaml:1:1: listeners: lists no listener; add one with name, address and tls (or plaintext: true)",
            "c.yaml:1:1: warning: services: lists no service: every call will be answered 404; add one",
        ]
    );
    let missing = load(&Source::path(Path::new("/nowhere/c.yaml"))).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "/nowhere/c.yaml: cannot be read (No such file or directory (os error 2)); check the path"
    );
}

#[test]
fn five_mistakes_give_five_lines_in_the_order_of_the_file() {
    check(&[(
        "listner: []\nruntime: { worker: 2 }\nlog: { level: inof }\ndrain: { delay: 5 }\nservices:\n- name: Iris\n  compute_type: ACI\n  auth: token\n  deployments: [{name: blue, replicas: ['ftp://h']}]\n",
        &[],
        &[
            "c.yaml:3:1: listner: unknown field; did you mean 'listeners'?",
            "c.yaml:4:12: runtime.worker: unknown field; did you mean 'workers'?",
            "c.yaml:5:15: log.level: 'inof' is no level; write error, warn, info, debug, trace or off, or a filter such as info,scoregate::tls=debug",
            "c.yaml:6:17: drain.delay: a duration is a whole number with a unit, such as 500ms, 60s, 10m or 12h",
            "c.yaml:8:9: services[0].name: a name begins with a lower-case letter; choose another name",
            "c.yaml:10:9: services[0].auth: token authentication is not available on ACI; use key, none, or another compute type",
            "c.yaml:11:41: services[0].deployments[0].replicas[0]: has the scheme 'ftp'; write http:// or https://",
        ],
    )]);
}

#[test]
fn the_shape_is_checked_with_the_nearest_known_name() {
    let with = |text: &str| format!("{text}\n{SERVICE}");
    check(&[
        (
            &with("frobnicate: 1"),
            &[],
            &[
                "c.yaml:3:1: frobnicate: unknown field; known here: version, workspace, public_url, uri_templates, replica_template, runtime, listeners, management, observe, store, tokens, services, telemetry, drain, log",
            ],
        ),
        (
            &with("log: {format: jsn}"),
            &[],
            &["c.yaml:3:15: log.format: 'jsn' is not one of auto, json, text; did you mean 'json'?"],
        ),
        (&with("log: verbose"), &[], &["c.yaml:3:6: log: expected a section (key: value), found text"]),
        (
            &with("runtime: {workers: 0}"),
            &[],
            &["c.yaml:3:20: runtime.workers: 0 is out of range; allowed are 1 to 1024"],
        ),
        (
            &with("runtime: {workers: many}"),
            &[],
            &["c.yaml:3:20: runtime.workers: expected auto or a whole number from 1 to 1024"],
        ),
        (
            &with("drain: {timeout: 2h}\ndrain: {}"),
            &[],
            &[
                "c.yaml:3:18: drain.timeout: 2h is out of range; allowed are 0s to 1h",
                "c.yaml:4:1: drain: this key stands at c.yaml:3:1 already; remove one of them",
            ],
        ),
        (
            &with("observe: {address: localhost:9090}"),
            &[],
            &[
                "c.yaml:3:20: observe.address: 'localhost:9090' is no address; write an IP address and a port, such as 0.0.0.0:8443 or [::]:8443",
            ],
        ),
        (
            &with("public_url: score.example.org"),
            &[],
            &["c.yaml:3:13: public_url: has no scheme; write http:// or https:// before it"],
        ),
        (
            &with("telemetry: {records: {file: {path: r.jsonl}, stdout: yes}}"),
            &[],
            &[
                "c.yaml:3:36: telemetry.records.file.path: folder /nowhere does not exist; create it",
                "c.yaml:3:54: telemetry.records.stdout: expected true or false, found text",
            ],
        ),
        (
            &with("version: scoregate/v2"),
            &[],
            &["c.yaml:3:1: version: this key stands at c.yaml:1:1 already; remove one of them"],
        ),
    ]);
    assert_eq!(
        lines(&format!("{HEAD}{SERVICE}").replace("/v1", "/v2"), &[]),
        ["c.yaml:1:10: version: must be scoregate/v1, not 'scoregate/v2'"]
    );
}

#[test]
fn a_refused_value_has_no_followers() {
    check_services(&[
        (
            "{name: iris, compute_type: AKS, auth: tokens, deployments: [{name: blue, replicas: ['http://h:1']}]}",
            &[],
            &[
                "c.yaml:4:41: services[0].auth: 'tokens' is not one of none, key, token, oidc; did you mean 'token'?",
            ],
        ),
        (
            "{name: iris, compute_type: ACI, auth: keys, keys: {primary: {env: A}}, deployments: [{name: blue, replicas: ['http://h:1']}]}",
            &[],
            &[
                "c.yaml:4:41: services[0].auth: 'keys' is not one of none, key, token, oidc; did you mean 'key'?",
            ],
        ),
        (
            "{name: iris, compute_type: AKS, auth: token, deployments: [{name: blue, replicas: ['http://h:1']}]}\ntokens: yes",
            &[],
            &["c.yaml:5:9: tokens: expected a section (key: value), found text"],
        ),
    ]);
    assert_eq!(
        lines(&format!("{HEAD}{SERVICE}").replace("true", "yes"), &[]),
        ["c.yaml:2:60: listeners[0].plaintext: expected true or false, found text"]
    );
}

#[test]
fn overrides_that_name_nothing_are_refused_by_variable() {
    check(&[(
        SERVICE,
        &[
            ("SCOREGATE__DRAIN", "5s"),
            ("SCOREGATE__LISTENERS", "x"),
            ("SCOREGATE__LISTENERS__1__NAME", "two"),
            ("SCOREGATE__LISTENERS__0__MAX_CONNECTIONS", "-1"),
            ("SCOREGATE__RUNTIME__", "2"),
            ("SCOREGATE__RUNTIME__WORKER", "2"),
            ("SCOREGATE__VERSION__X", "2"),
        ],
        &[
            "$SCOREGATE__LISTENERS: names a section or a list; only single values can be overridden, name a key below it",
            "$SCOREGATE__LISTENERS__1__NAME: '1' is no item of the list, which has 1; count from 0",
            "$SCOREGATE__RUNTIME__: has an empty part; write SCOREGATE__SECTION__KEY",
            "$SCOREGATE__VERSION__X: 'X' is below a single value; name the value itself",
            "$SCOREGATE__LISTENERS__0__MAX_CONNECTIONS: listeners[0].max_connections: -1 is out of range; expected a whole number, 0 or more",
            "$SCOREGATE__DRAIN: drain: expected a section (key: value), found text",
            "$SCOREGATE__RUNTIME__WORKER: runtime.worker: unknown field; did you mean 'workers'?",
        ],
    )]);
}

#[test]
fn listeners_are_encrypted_or_say_that_they_are_not() {
    let text = "version: scoregate/v1\nobserve: {address: '127.0.0.1:3'}\nlisteners:\n\
        - {name: one, address: '0.0.0.0:1', plaintext: true}\n\
        - {name: one, address: '127.0.0.1:1'}\n\
        - {name: two, address: '127.0.0.1:2', plaintext: true, tls: {certificates: [{cert: a.pem, key: a.key}, {cert: b}]}}\n\
        - {name: tri, address: '127.0.0.1:3', plaintext: true, proxy_protocol: {from: [10.0.0.0/8, lb]}}\n\
        - {name: for, plaintext: true, handshake_timeout: 1ms, proxy_protocol: {}}\n";
    assert_eq!(
        lines(&format!("{text}{SERVICE}"), &[]),
        [
            "c.yaml:2:20: observe.address: 127.0.0.1:3 is taken by listeners[3].address already; choose another port",
            "c.yaml:4:48: warning: listeners[0].plaintext: keys and data travel unencrypted over the network; use tls, or listen on 127.0.0.1",
            "c.yaml:5:3: listeners[1].tls: is missing; add certificates, or say plaintext: true for loopback and sidecars",
            "c.yaml:5:10: listeners[1].name: 'one' is at c.yaml:4:10 (listeners[0].name) already; each may be there once",
            "c.yaml:5:24: listeners[1].address: 127.0.0.1:1 is taken by listeners[0].address already; choose another port",
            "c.yaml:6:50: listeners[2].plaintext: plaintext: true stands beside tls; remove one of them",
            "c.yaml:6:84: listeners[2].tls.certificates[0].cert: /nowhere/a.pem cannot be read (No such file or directory (os error 2)): check the path and that this process may read it",
            "c.yaml:6:104: listeners[2].tls.certificates[1].key: is missing; add it",
            "c.yaml:7:92: listeners[3].proxy_protocol.from[1]: 'lb' is no network; write one such as 10.0.0.0/8, or an IP address",
            "c.yaml:8:3: listeners[4].address: is missing; add it",
            "c.yaml:8:51: listeners[4].handshake_timeout: 1ms is out of range; allowed are 100ms to 5m",
            "c.yaml:8:72: listeners[4].proxy_protocol.from: lists nobody; add the load balancers' networks, or remove proxy_protocol",
        ]
    );
}

#[test]
fn a_signing_key_is_a_p256_key_and_a_readable_one_is_a_warning() {
    let (dir, text) = example();
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(dir.path().join("token.key"), key.serialize_pem()).unwrap();
    fs::set_permissions(dir.path().join("token.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let load = |key: &str| {
        let text = text.replace("auth: key", "auth: token").replace("keys:", "# keys:");
        let text = format!("{text}tokens: {{issuer: me, signing_key: {{file: {key}}}}}\n");
        super::load(&Source::text("c.yaml", dir.path(), text).with_variables(variables(SECRETS)))
    };
    let loaded = load("token.key").unwrap();
    assert!(matches!(loaded.config.services[0].auth, AuthSettings::Token(_)));
    let warning = loaded.warnings.last().unwrap();
    assert_eq!(warning.field, "tokens.signing_key.file");
    assert!(warning.message.starts_with("every user of this machine can read"));
    let refused = load("certs/ca.pem").unwrap_err();
    let errors: Vec<_> = refused
        .0
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(errors, ["tokens.signing_key"]);
}

#[test]
fn every_field_of_the_schema_is_described_and_closed() {
    fn walk(schema: &Value, path: &str, fields: &mut usize) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        assert_eq!(schema["additionalProperties"], false, "{path}");
        for (name, field) in properties {
            *fields += 1;
            let described = field.get("description").is_some_and(|text| text != "");
            assert!(described, "{path}.{name} has no description");
        }
    }
    let schema = json_schema().to_value();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let mut fields = 0;
    walk(&schema, "", &mut fields);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        walk(definition, name, &mut fields);
    }
    assert!(fields > 80, "{fields}");
    let limits = &schema["$defs"]["Limits"]["properties"];
    assert_eq!(limits["body_bytes"]["default"], "100MiB");
    assert_eq!(schema["$defs"]["Service"]["required"][0], "name");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// The example with a piece cut out and another put in.
    #[test]
    fn no_text_makes_the_loader_panic(
        cut in 0_usize..2400,
        length in 0_usize..40,
        put in "(?s)[\\PC\n\t]{0,12}|[\\[\\]{}:,&*!|>'\"%@#?-]{0,6}|\n +|null|-1|1e999|99999999999999999999|\\{\\}|\\[\\]",
    ) {
        static EXAMPLE: std::sync::LazyLock<(TempDir, String)> = std::sync::LazyLock::new(example);
        let (dir, example) = &*EXAMPLE;
        let mut text: Vec<char> = example.chars().collect();
        let start = cut.min(text.len());
        let end = (start + length).min(text.len());
        text.splice(start..end, put.chars());
        let source = Source::text("c.yaml", dir.path(), text.into_iter().collect::<String>())
            .with_variables(variables(&[("IRIS_SECONDARY", SECONDARY), ("SCOREGATE__LOG__LEVEL", "info")]));
        match load(&source) {
            Ok(loaded) => prop_assert!(loaded.dump().is_ok()),
            Err(problems) => prop_assert!(problems.0.iter().any(|p| p.severity == Severity::Error)),
        }
    }
}
