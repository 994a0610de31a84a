//! From a request line and a host to a service and its container's path, or to a refusal.

mod hostile;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::{Gateway, KEY, Upstream, assert_malformed, assert_record, config, service, service_of};

const HOSTS: &str = "    hosts: [iris.test]";

/// A bodiless request to `localhost` with `fields`, each ended by CR LF.
fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

/// One service `iris`, open to everybody, that goes by path and by the host `iris.test`.
async fn open(replica: &Upstream) -> Gateway {
    Gateway::start(&config(&service_of("ACI none", "iris", replica.address, HOSTS))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_is_reached_by_path_whatever_its_compute_type() {
    let replica = Upstream::echo().await;
    let kinds = [("ACI none", Value::Null), ("AKS key", json!("primary")), ("Managed key", json!("primary"))];
    let names = ["aci", "aks", "managed"];
    let services =
        names.iter().zip(&kinds).map(|(name, (kind, _))| service_of(kind, name, replica.address, ""));
    let gateway = Gateway::start(&config(&services.collect::<String>())).await;
    for (name, (kind, key_id)) in names.into_iter().zip(kinds) {
        for (method, path, upstream) in [
            ("POST", "score?a=1&b=%2e%2e/..&c", "/score?a=1&b=%2e%2e/..&c"),
            ("GET", "swagger.json?version=3", "/swagger.json?version=3"),
            ("GET", "", "/"),
        ] {
            let fields = format!("Authorization: Bearer {KEY}\r\n");
            let target = format!("/api/v1/service/{name}/{path}");
            let answer = gateway.call(request(method, &target, &fields)).await;
            let record = gateway.passed(&answer, 200).await;
            assert_eq!(replica.seen().last().unwrap().line(), format!("{method} {upstream} HTTP/1.1"));
            assert_eq!(answer.header("azureml-model-deployment"), "blue");
            let (compute_type, mode) = kind.split_once(' ').unwrap();
            assert_record(
                &record,
                &json!({
                    "HTTPMethod": method, "ComputeType": compute_type, "Service": name, "Deployment": "blue",
                    "AuthType": mode, "KeyId": key_id, "Subject": null, "ModelStatusCode": 200, "Reason": "ok",
                    "Attempts": 1, "Protocol": "HTTP/1.1", "Replica": replica.address.to_string(),
                    "RequestUrl": format!("https://localhost{target}"), "ClientAddress": "127.0.0.1",
                }),
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_hosts_is_reached_by_each_of_them_in_any_spelling() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let services = service_of("ACI none", "one", one.address, "    hosts: [iris.test, a.wild.test]")
        + &service_of("Managed key", "other", other.address, "    hosts: [b.wild.test]")
        + &service_of("AKS none", "by-path", other.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    for (host, service) in [
        ("iris.test", "one"),
        ("IRIS.Test:8443", "one"),
        ("iris.test.", "one"),
        ("a.wild.test:0", "one"),
        ("b.wild.test", "other"),
    ] {
        for (path, upstream) in [("/score?x=1", "/score?x=1"), ("/swagger.json", "/swagger.json"), ("/", "/")]
        {
            let answer = gateway
                .call(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n\r\n"))
                .await;
            let record = gateway.passed(&answer, 200).await;
            assert_record(
                &record,
                &json!({"Service": service, "RequestUrl": format!("https://{host}{path}")}),
            );
            let replica = if service == "one" { &one } else { &other };
            let seen = replica.seen().pop().unwrap();
            assert_eq!(seen.line(), format!("GET {upstream} HTTP/1.1"));
            assert_eq!(seen.header("host"), replica.address.to_string());
            assert_eq!(seen.header("x-forwarded-host"), host);
        }
    }
    let before = (one.seen().len(), other.seen().len());
    // Neither a name nor a part of a host is a host, and only the host itself says which it is.
    for host in ["by-path", "wild.test", "c.wild.test", "xiris.test", "iris.test.example", "localhost"] {
        let answer = gateway
            .call(format!(
                "GET /score HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: iris.test\r\nForwarded: host=iris.test\r\n\r\n"
            ))
            .await;
        let record = gateway.refused(&answer, 404, "unknown_service").await;
        assert_record(
            &record,
            &json!({"Service": null, "AuthType": null, "ComputeType": null, "Attempts": 0}),
        );
    }
    assert_eq!((one.seen().len(), other.seen().len()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_container_has_paths_of_its_own() {
    let replica = Upstream::echo().await;
    let services = format!(
        r#"  - name: iris
    compute_type: AKS
    auth: none
    deployments:
      - name: blue
        replicas: ["http://{}"]
        paths: {{ score: /v2/models/iris/infer, swagger: /docs/openapi.json, health: /v2/health/ready }}
"#,
        replica.address
    );
    let gateway = Gateway::start(&config(&services)).await;
    for (path, upstream) in [
        ("score?verbose", "/v2/models/iris/infer?verbose"),
        ("score?", "/v2/models/iris/infer?"),
        ("swagger.json", "/docs/openapi.json"),
        ("", "/v2/health/ready"),
    ] {
        let answer = gateway.call(request("GET", &format!("/api/v1/service/iris/{path}"), "")).await;
        gateway.passed(&answer, 200).await;
        assert_eq!(replica.seen().last().unwrap().line(), format!("GET {upstream} HTTP/1.1"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_service_opens_is_not_found() {
    let replica = Upstream::echo().await;
    let gateway = Gateway::start(&config(&service("iris", replica.address, HOSTS))).await;
    for (target, service) in [
        ("/api/v1/service/nobody/score", Value::Null),
        ("/api/v1/service/IRIS/score", Value::Null),
        ("/api/v1/service/iri/score", Value::Null),
        ("/api/v1/service/iris%20/score", Value::Null),
        ("/api/v1/service/", Value::Null),
        ("/api/v1/service", Value::Null),
        ("/API/v1/service/iris/score", Value::Null),
        ("/api/v1/services/iris/score", Value::Null),
        ("/api/v1/service/iris", json!("iris")),
        ("/api/v1/service/iris/score/", json!("iris")),
        ("/api/v1/service/iris/Score", json!("iris")),
        ("/api/v1/service/iris/scores", json!("iris")),
        ("/api/v1/service/iris/metrics", json!("iris")),
        ("/api/v1/service/iris/api/v1/service/iris/score", json!("iris")),
        ("/metrics", Value::Null),
        ("/score", Value::Null),
        ("/", Value::Null),
    ] {
        let fields = format!("Authorization: Bearer {KEY}\r\n");
        let answer = gateway.call(request("GET", target, &fields)).await;
        let record = gateway.refused(&answer, 404, "unknown_service").await;
        assert_record(
            &record,
            &json!({"Service": service, "Deployment": null, "Attempts": 0, "Replica": null}),
        );
        assert!(!answer.text().contains(&replica.address.to_string()));
    }
    let fields = format!("Authorization: Bearer {KEY}\r\nazureml-model-deployment: green\r\n");
    let answer = gateway.call(request("GET", "/api/v1/service/iris/score", &fields)).await;
    let record = gateway.refused(&answer, 404, "unknown_service").await;
    assert_record(
        &record,
        &json!({"Service": "iris", "KeyId": "primary", "Deployment": null, "Attempts": 0}),
    );
    assert_eq!(answer.header("azureml-model-deployment"), "");
    assert_eq!(replica.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_of_an_absolute_target_wins_over_the_field() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let services = service_of("ACI none", "one", one.address, "    hosts: [iris.test]")
        + &service_of("ACI none", "other", other.address, "    hosts: [other.wild.test]");
    let gateway = Gateway::start(&config(&services)).await;
    for (target, path) in [
        ("https://IRIS.test/score?x", "/score?x"),
        ("http://iris.test:80", "/"),
        ("HTTPS://iris.test?q", "/?q"),
    ] {
        let answer = gateway.call(format!("GET {target} HTTP/1.1\r\nHost: other.wild.test\r\n\r\n")).await;
        let record = gateway.passed(&answer, 200).await;
        assert_eq!(record["Service"], "one", "{target}");
        let seen = one.seen().pop().unwrap();
        assert_eq!(seen.line(), format!("GET {path} HTTP/1.1"));
        assert_eq!(seen.header("host"), one.address.to_string());
        assert!(seen.header("x-forwarded-host").to_lowercase().starts_with("iris.test"), "{}", seen.head);
        assert!(!seen.head.contains("other.wild.test"), "{}", seen.head);
    }
    assert_eq!(other.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_clients_are_served_and_keep_the_connection_only_if_they_ask_to() {
    let replica = Upstream::answering(|seen| match seen.line() {
        "GET /score?chunked HTTP/1.1" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec()
        }
        _ => crate::harness::ok(&seen.body),
    })
    .await;
    let gateway = open(&replica).await;

    let path = "/api/v1/service/iris/score";
    let mut connection = gateway.connect().await;
    connection.send(format!("POST {path} HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")).await;
    let answer = connection.answer().await;
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("hi", "close"));
    let record = gateway.passed(&answer, 200).await;
    assert_record(&record, &json!({"Protocol": "HTTP/1.0", "RequestUrl": path, "RequestBytes": 2}));
    assert_eq!(connection.rest().await, b"");
    assert!(replica.seen()[0].line().ends_with(" HTTP/1.1"));
    assert_eq!(replica.seen()[0].header("x-forwarded-host"), "");

    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        connection.send("GET /score HTTP/1.0\r\nHost: iris.test\r\nConnection: Keep-Alive\r\n\r\n").await;
        let answer = connection.answer().await;
        assert_eq!(answer.header("connection"), "keep-alive");
        gateway.passed(&answer, 200).await;
    }
    // Of unknown length and no chunks: the end of the connection is the end of the answer.
    let chunked = "GET /score?chunked HTTP/1.0\r\nHost: iris.test\r\nConnection: keep-alive\r\n\r\n";
    connection.send(chunked).await;
    let answer = connection.answer().await;
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("abcde", ""));
    gateway.passed(&answer, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_calls_are_routed_by_their_authority_and_path() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let services = service_of("ACI none", "one", one.address, HOSTS)
        + &service_of("AKS none", "other", other.address, "");
    let gateway = Gateway::start(&config(&services)).await;
    let mut h2 = gateway.h2().await;
    let body = || Full::new(Bytes::from_static(b"{}"));

    let request = http::Request::post("https://iris.test:8443/score?x=1").body(body()).unwrap();
    let answer = h2.call(request).await;
    assert_eq!(answer.body, b"{}");
    let record = gateway.passed(&answer, 200).await;
    let url = "https://iris.test:8443/score?x=1";
    assert_record(
        &record,
        &json!({"Protocol": "HTTP/2", "Service": "one", "RequestUrl": url, "RequestBytes": 2}),
    );
    assert_eq!(one.seen()[0].line(), "POST /score?x=1 HTTP/1.1");
    assert_eq!(one.seen()[0].header("x-forwarded-host"), "iris.test:8443");

    let request = h2.request("GET", "/api/v1/service/other/swagger.json").body(Full::default()).unwrap();
    let answer = h2.call(request).await;
    let record = gateway.passed(&answer, 200).await;
    assert_record(&record, &json!({"Service": "other", "RequestBytes": 0}));
    assert_eq!(other.seen()[0].line(), "GET /swagger.json HTTP/1.1");

    let request = http::Request::get("https://nobody.test/score").body(Full::default()).unwrap();
    gateway.refused(&h2.call(request).await, 404, "unknown_service").await;
    // hyper's client cannot send a fragment or a blank; the rest of the ambiguous spellings it can.
    for path in ["/../score", "//score", "/%2e%2e/score", "/x/..%2fscore", "/score;x", "/score%00"] {
        let request = http::Request::get(format!("https://iris.test{path}")).body(Full::default()).unwrap();
        assert_malformed(&h2.call(request).await);
    }
    let request = http::Request::get("https://iris.test/score").header("host", "other.test");
    assert_malformed(&h2.call(request.body(Full::default()).unwrap()).await);
    assert_eq!((one.seen().len(), other.seen().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_with_a_query_reaches_the_container_without_a_body() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    let query = "?data=%7B%22a%22%3A[1,2]%7D&data=2&path=/a/../b&empty=";
    let answer = gateway.call(request("GET", &format!("/api/v1/service/iris/score{query}"), "")).await;
    let record = gateway.passed(&answer, 200).await;
    assert_record(&record, &json!({"HTTPMethod": "GET", "RequestBytes": 0}));
    let seen = replica.seen().pop().unwrap();
    assert_eq!(seen.line(), format!("GET /score{query} HTTP/1.1"));
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), ("", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_other_than_get_and_post_are_refused_by_name_and_the_connection_goes_on() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    let path = "/api/v1/service/iris/score";
    let mut connection = gateway.connect().await;
    let mut h2 = gateway.h2().await;
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get", "Post", "BREW"] {
        connection.send(request(method, path, "Content-Length: 2\r\n") + "{}").await;
        let record = gateway.refused(&connection.answer().await, 405, "bad_request").await;
        assert_record(&record, &json!({"HTTPMethod": method, "Service": "iris", "Attempts": 0}));
        let request = h2.request(method, path).body(Full::default()).unwrap();
        let record = gateway.refused(&h2.call(request).await, 405, "bad_request").await;
        assert_record(&record, &json!({"HTTPMethod": method, "Protocol": "HTTP/2"}));
    }
    // One that means the server, not a resource, and one that wants a tunnel: neither is a path of a service.
    for (line, status) in [("OPTIONS *", 400), ("CONNECT iris.test:443", 405)] {
        connection.send(format!("{line} HTTP/1.1\r\nHost: iris.test\r\n\r\n")).await;
        gateway.refused(&connection.answer().await, status, "bad_request").await;
    }
    let connect = http::Request::builder().method("CONNECT").uri("iris.test:443");
    let answer = h2.call(connect.body(Full::default()).unwrap()).await;
    gateway.refused(&answer, 405, "bad_request").await;
    connection.send(request("GET", path, "")).await;
    gateway.passed(&connection.answer().await, 200).await;
    assert_eq!(replica.seen().len(), 1);

    assert_malformed(&gateway.call(request(&"A".repeat(10 * 1024), path, "")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusal_of_head_has_a_head_and_no_body() {
    let replica = Upstream::echo().await;
    let gateway = open(&replica).await;
    let path = "/api/v1/service/iris/score";
    let mut connection = gateway.connect().await;
    connection.send(request("HEAD", path, "") + &request("GET", path, "")).await;
    let over_h1 = connection.answer_to_head().await;
    // What follows the head is the next answer.
    gateway.passed(&connection.answer().await, 200).await;
    let mut h2 = gateway.h2().await;
    let over_h2 = h2.call(h2.request("HEAD", path).body(Full::default()).unwrap()).await;
    for answer in [over_h1, over_h2] {
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, POST"));
        assert_eq!((answer.reason(), answer.text().as_str()), ("bad_request", ""));
        let record = gateway.record(&answer).await;
        assert_record(&record, &json!({"Reason": "bad_request", "EndedBy": "gateway", "ResponseBytes": 0}));
    }
    assert_eq!(replica.seen().len(), 1);
}
