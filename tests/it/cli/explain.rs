//! `explain` tells what a call would meet, and what it tells is what the gateway does.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{CONFIG, folder, run};
use crate::harness::{Connection, Gateway, Upstream};

fn explain(dir: &Path, arguments: &[&str]) -> (i32, Value) {
    let done = run(dir, &[&["explain", "-c", "gateway.yaml"], arguments].concat());
    assert_eq!(done.err, "", "{arguments:?}");
    (done.code, done.json())
}

#[test]
fn explain_finds_a_service_by_path_and_by_host() {
    let dir = folder(CONFIG);
    let (code, met) = explain(dir.path(), &["--url", "http://localhost:8080/api/v1/service/iris/score"]);
    assert_eq!(code, 0);
    assert_eq!((&met["service"]["name"], &met["service"]["computeType"]), (&json!("iris"), &json!("AKS")));
    assert!(met["service"]["because"].as_str().unwrap().contains("path"), "{met}");
    assert_eq!(met["auth"]["mode"], "key");
    assert_eq!(met["auth"]["isDefaultOfComputeType"], true);
    assert_eq!(met["auth"]["credentialInCall"], false);
    let limits = &met["limits"];
    assert_eq!(limits["bodyBytes"], 1 << 20);
    assert_eq!(limits["scoringTimeout"], "7s");
    assert_eq!(limits["concurrentRequestsPerReplica"], 3);

    let (code, met) = explain(dir.path(), &["--url", "http://Wine.test:8080/score"]);
    assert_eq!(code, 0);
    assert_eq!(met["service"]["name"], "wine");
    assert!(met["service"]["because"].as_str().unwrap().contains("wine.test"), "{met}");
    assert_eq!(
        (&met["auth"]["mode"], &met["auth"]["isDefaultOfComputeType"]),
        (&json!("none"), &json!(true))
    );
    let by_header = ["--url", "http://127.0.0.1:8080/score", "-H", "Host: wine.test:8080"];
    assert_eq!(explain(dir.path(), &by_header).1["service"]["name"], "wine");

    let tulip =
        ["--url", "http://localhost:8080/api/v1/service/tulip/score", "-H", "Authorization: Bearer hunter2"];
    let (code, met) = explain(dir.path(), &tulip);
    assert_eq!((code, &met["auth"]["mode"]), (0, &json!("token")));
    assert_eq!(met["auth"]["isDefaultOfComputeType"], false);
    assert_eq!(met["auth"]["credentialInCall"], true);
    assert!(!met.to_string().contains("hunter2"), "{met}");
}

#[test]
fn explain_names_the_deployments_that_may_get_the_call() {
    let dir = folder(CONFIG);
    let url = "http://localhost:8080/api/v1/service/iris/score";
    let candidates = |met: &Value| -> Vec<(String, u64)> {
        let listed = met["deployment"]["candidates"].as_array().unwrap().iter();
        listed
            .map(|one| (one["name"].as_str().unwrap().to_owned(), one["trafficPercent"].as_u64().unwrap()))
            .collect()
    };
    let (_, met) = explain(dir.path(), &["--url", url]);
    assert_eq!(candidates(&met), [("blue".to_owned(), 90), ("green".to_owned(), 10)]);
    assert_eq!(met["deployment"]["candidates"][0]["replicas"], json!(["127.0.0.1:5001"]));
    assert_eq!(met["deployment"]["candidates"][0]["path"], "/invocations");
    assert!(met["deployment"]["because"].as_str().unwrap().contains("split"), "{met}");

    let (code, met) = explain(dir.path(), &["--url", url, "-H", "azureml-model-deployment: dark"]);
    assert_eq!((code, candidates(&met)), (0, vec![("dark".to_owned(), 0)]));

    let (code, met) = explain(dir.path(), &["--url", url, "-H", "azureml-model-deployment: Blue"]);
    assert_eq!((code, candidates(&met)), (1, vec![]));
    assert_eq!(met["refused"]["reason"], "unknown_service");
    assert!(met["deployment"]["because"].as_str().unwrap().contains("blue, green, dark"), "{met}");
}

#[test]
fn explain_tells_profile_endpoint_and_path() {
    let profile = "    profile: torchserve\n    score_paths: [/explain]\n";
    let dir =
        folder(&CONFIG.replace("    hosts: [wine.test]\n", &format!("    hosts: [wine.test]\n{profile}")));
    let met = |method: &str, path: &str| {
        let url = format!("http://wine.test:8080{path}");
        let (code, met) = explain(dir.path(), &["--method", method, "--url", &url]);
        assert_eq!(met["service"]["profile"], "torchserve");
        (code, met)
    };
    for (method, path, kind, methods, own) in [
        ("POST", "/predictions/iris?x=1", "open", "POST", "/predictions/iris"),
        ("GET", "/explain", "open", "GET, POST", "/explain"),
        ("GET", "/", "health", "GET, POST", "/ping"),
    ] {
        let (code, met) = met(method, path);
        assert_eq!((code, &met["endpoint"]["kind"]), (0, &json!(kind)), "{met}");
        assert_eq!(met["endpoint"]["methods"], methods);
        assert_eq!(met["deployment"]["candidates"][0]["path"], own);
    }
    let (code, closed) = met("GET", "/models");
    assert_eq!((code, closed.get("endpoint")), (1, None));
    assert!(closed["refused"]["message"].as_str().unwrap().contains("/predictions/{}"), "{closed}");
    let (code, unset) = met("POST", "/score");
    assert_eq!((code, &unset["deployment"]["candidates"][0]["path"]), (1, &Value::Null));
    assert!(unset["refused"]["message"].as_str().unwrap().contains("paths.score"), "{unset}");
}

#[test]
fn explain_tells_how_replicas_share_the_calls() {
    let balancing = |more: &str, arguments: &[&str]| {
        let replicas = "[\"http://127.0.0.1:5001\"]";
        assert!(CONFIG.contains(replicas), "the first deployment's");
        let dir = folder(&CONFIG.replacen(replicas, &format!("{replicas}{more}"), 1));
        let url = ["--url", "http://localhost:8080/api/v1/service/iris/score"];
        let (code, met) = explain(dir.path(), &[&url, arguments].concat());
        assert_eq!(code, 0, "{met}");
        met["deployment"]["candidates"][0]["balancing"].clone()
    };
    let usual = balancing("", &[]);
    assert_eq!((&usual["policy"], &usual["slowStart"]), (&json!("least_busy"), &json!("0ns")), "{usual}");
    assert!(usual["ejection"]["failures"].is_u64(), "{usual}");
    let hash = ", balancing: { hash: x-user }, slow_start: 30s, ejection: off";
    let shown = balancing(hash, &["-H", "x-user: ann"]);
    assert_eq!((&shown["policy"], &shown["slowStart"]), (&json!({"hash": "x-user"}), &json!("30s")));
    assert_eq!(shown["ejection"], Value::Null);
    assert!(shown["because"].as_str().unwrap().contains("same replica"), "{shown}");
    assert!(balancing(hash, &[])["because"].as_str().unwrap().contains("no x-user"));
    assert_eq!(balancing(", balancing: round_robin", &[])["policy"], "round_robin");
}

#[test]
fn explain_tells_what_sticks_what_is_passed_over_what_is_copied_and_what_is_tried_again() {
    let more = "    sticky: { header: x-user }
    unknown_deployment: ignore
    mirror: { deployment: dark, percent: 10 }
    retry: { replay: idempotent, budget: 7 }
";
    let text = CONFIG.replacen("    deployments:", &format!("{more}    deployments:"), 1);
    assert_ne!(text, CONFIG);
    let dir = folder(&text);
    let url = "http://localhost:8080/api/v1/service/iris/score";
    let names = |met: &Value| -> Vec<String> {
        let listed = met["deployment"]["candidates"].as_array().unwrap().iter();
        listed.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let because = |met: &Value| met["deployment"]["because"].as_str().unwrap().to_owned();

    let (_, met) = explain(dir.path(), &["--url", url]);
    assert_eq!(names(&met), ["blue", "green"]);
    assert_eq!((&met["mirror"]["deployment"], &met["mirror"]["percent"]), (&json!("dark"), &json!(10)));
    assert_eq!((&met["retry"]["mayBeSentTwice"], &met["retry"]["budgetPercent"]), (&json!(false), &json!(7)));
    let (_, met) = explain(dir.path(), &["--url", url, "--method", "GET"]);
    assert_eq!(met["retry"]["mayBeSentTwice"], true);

    let chosen: Vec<_> = (0..40)
        .map(|user| {
            let (_, met) = explain(dir.path(), &["--url", url, "-H", &format!("x-user: {user}")]);
            assert!(because(&met).contains("x-user"), "{met}");
            names(&met)
        })
        .collect();
    assert!(chosen.iter().all(|names| names.len() == 1));
    assert!(chosen.contains(&vec!["blue".to_owned()]) && chosen.contains(&vec!["green".to_owned()]));

    let (code, met) = explain(dir.path(), &["--url", url, "-H", "azureml-model-deployment: teal"]);
    assert_eq!((code, names(&met)), (0, vec!["blue".to_owned(), "green".to_owned()]));
    assert!(because(&met).contains("unknown_deployment: ignore"), "{met}");
    assert_eq!(met["mirror"], Value::Null);
}

#[test]
fn explain_chooses_the_listener_by_port_and_scheme() {
    let dir = folder("");
    scoregate::tls::development_certificates(&dir.path().join("certs"), &["wine.test"]).unwrap();
    let listeners = r#"listeners:
  - { name: plain, address: "127.0.0.1:8080", plaintext: true }
  - { name: other, address: "127.0.0.1:8081", plaintext: true }
  - name: public
    address: 127.0.0.1:8443
    tls: { certificates: [ { cert: certs/server.pem, key: certs/server.key } ] }
  - name: standard
    address: 127.0.0.1:443
    tls: { certificates: [ { cert: certs/server.pem, key: certs/server.key } ] }
"#;
    let first = CONFIG.lines().nth(2).unwrap();
    let config = CONFIG.replace(&format!("listeners:\n{first}\n"), listeners);
    fs::write(dir.path().join("gateway.yaml"), config).unwrap();
    for (url, name, exact) in [
        ("http://wine.test:8080/score", "plain", true),
        ("http://wine.test:8081/score", "other", true),
        ("https://wine.test:8443/score", "public", true),
        ("https://wine.test/score", "standard", true),
        ("https://wine.test:8080/score", "public", false),
        ("http://wine.test:8443/score", "plain", false),
        ("http://wine.test/score", "plain", false),
    ] {
        let (code, met) = explain(dir.path(), &["--url", url]);
        assert_eq!((code, &met["listener"]["name"]), (0, &json!(name)), "{url}");
        assert_eq!(met["listener"]["tls"], url.starts_with("https"), "{url}");
        let because = met["listener"]["because"].as_str().unwrap();
        assert_eq!(because == "it has the URL's port and scheme", exact, "{url}: {because}");
    }
    let dir = folder(CONFIG);
    let (code, met) = explain(dir.path(), &["--url", "https://wine.test/score"]);
    assert_eq!((code, &met["listener"]["name"], &met["service"]["name"]), (0, &Value::Null, &json!("wine")));
}

/// The same calls to a running gateway and to `explain`: status and reason must be the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_what_the_gateway_answers() {
    let upstream = Upstream::echo().await;
    let replica = upstream.address;
    let config = format!(
        r#"version: scoregate/v1
runtime: {{ workers: 1 }}
listeners:
  - name: public
    address: 127.0.0.1:0
    tls:
      certificates:
        - {{ cert: certs/server.pem, key: certs/server.key }}
        - {{ cert: certs/wine.pem, key: certs/wine.key }}
observe: {{ address: 127.0.0.1:0 }}
drain: {{ delay: 0s, timeout: 5s }}
services:
  - name: iris
    compute_type: AKS
    auth: none
    hosts: [iris.test, wine.test]
    cors: {{ origins: ["https://app.test"] }}
    deployments: [ {{ name: blue, replicas: ["http://{replica}"] }} ]
  - name: open
    compute_type: ACI
    deployments: [ {{ name: blue, replicas: ["http://{replica}"] }} ]
  - name: triton
    compute_type: ACI
    profile: triton
    score_paths: [/explain]
    deployments: [ {{ name: blue, replicas: ["http://{replica}"] }} ]
"#
    );
    let key = rcgen::KeyPair::generate().unwrap();
    let wine = rcgen::CertificateParams::new(["wine.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = [("certs/wine.pem", &*wine.pem()), ("certs/wine.key", &*key.serialize_pem())];
    let gateway = Gateway::start_with(&config, &files).await;
    let preflight = "Origin: https://app.test\r\nAccess-Control-Request-Method: POST\r\n";
    for (method, target, more) in [
        ("POST", "/score", ""),
        ("GET", "/", ""),
        ("GET", "/swagger.json", ""),
        ("GET", "/api/v1/service/open/swagger.json?a=/../b", ""),
        ("POST", "/api/v1/service/nobody/score", ""),
        ("POST", "/api/v1/service/iris/score/", ""),
        ("POST", "/api/v1/service/iris/../open/score", ""),
        ("POST", "/api/v1/service/%69ris/score", ""),
        ("POST", "//score", ""),
        ("POST", "/metrics", ""),
        ("POST", "/api/v1/service/triton/v2/models/iris/infer?x", ""),
        ("GET", "/api/v1/service/triton/v2/models/iris/infer", ""),
        ("GET", "/api/v1/service/triton/v2/models/iris", ""),
        ("GET", "/api/v1/service/triton/v2/models/stats", ""),
        ("POST", "/api/v1/service/triton/v2/repository/index", ""),
        ("POST", "/api/v1/service/triton/explain", ""),
        ("POST", "/api/v1/service/triton/score", ""),
        ("GET", "/api/v1/service/triton/", ""),
        ("PUT", "/metrics", ""),
        ("PUT", "/score", ""),
        ("DELETE", "/api/v1/service/open/score", ""),
        ("post", "/score", ""),
        ("OPTIONS", "/score", ""),
        ("OPTIONS", "/score", "Origin: https://app.test\r\n"),
        ("OPTIONS", "/score", preflight),
        ("OPTIONS", "/metrics", preflight),
        ("OPTIONS", "/api/v1/service/open/score", preflight),
        ("POST", "/score", "azureml-model-deployment: blue\r\n"),
        ("POST", "/score", "azureml-model-deployment: green\r\n"),
        ("PUT", "/score", "azureml-model-deployment: green\r\n"),
        ("POST", "/score", "Host: nobody.test\r\n"),
        ("POST", "/score", "Host: wine.test\r\n"),
        ("POST", "/api/v1/service/open/score", "Host: wine.test\r\n"),
        ("POST", "/score", "Host: iris.test.:1\r\n"),
    ] {
        let what = format!("{method} {target} {more:?}");
        let host = if more.starts_with("Host") { "" } else { "Host: iris.test\r\n" };
        let mut connection = Connection::tls(gateway.address, "iris.test", gateway.ca()).await;
        connection.send(format!("{method} {target} HTTP/1.1\r\n{host}{more}Content-Length: 0\r\n\r\n")).await;
        let answer = connection.answer().await;

        let url = format!("https://iris.test{target}");
        let mut arguments = vec!["explain", "-c", "scoregate.yaml", "--method", method, "--url", &url];
        arguments.extend(more.lines().flat_map(|header| ["-H", header]));
        let done = run(gateway.dir.path(), &arguments);
        let met = done.json();
        if ["", "ok"].contains(&answer.reason()) {
            assert_eq!((done.code, met.get("refused")), (0, None), "{what}: {}", answer.status);
            assert_eq!(met.get("cors").is_some(), answer.status == 204, "{what}: {}", answer.status);
        } else {
            assert_eq!(done.code, 1, "{what}: {}", answer.text());
            let refused = &met["refused"];
            assert_eq!(refused["status"], answer.status, "{what}");
            assert_eq!(refused["reason"], answer.reason(), "{what}");
            assert!(
                answer.text().contains(refused["message"].as_str().unwrap()),
                "{what}: {}",
                answer.text()
            );
        }
    }
}
