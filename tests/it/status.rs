//! Which status a call ends with, per compute type: the container's own, rewritten or not, and the gateway's.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;

use crate::harness::{
    Connection, Gateway, KEY, Upstream, assert_record, config, eventually, ok, read_request, score_request,
    service_of,
};

/// Each way of mapping: the service's name, what it is, and further lines.
const MAPPINGS: [(&str, &str, &str); 5] = [
    ("aci", "ACI none", ""),
    ("aks", "AKS none", ""),
    ("managed", "Managed key", ""),
    ("aks-as-is", "AKS none", "    status_mapping: passthrough\n"),
    ("managed-as-is", "Managed key", "    status_mapping: passthrough\n"),
];

/// One service per mapping, all with `replica`, and `more` for each.
async fn all_mappings(replica: SocketAddr, more: &str) -> Gateway {
    let services =
        MAPPINGS.map(|(name, kind, mapping)| service_of(kind, name, replica, &format!("{mapping}{more}")));
    Gateway::start(&config(&services.concat())).await
}

/// A container whose answer has the status that the query asks for.
async fn obedient() -> Upstream {
    Upstream::answering(|seen| {
        let status = seen.line().split(['?', ' ']).nth(2).unwrap().to_owned();
        let body = format!("body of {status}");
        let framing = match status.as_str() {
            "204" | "304" => "\r\n".to_owned(),
            _ => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        };
        let fields =
            "Location: https://elsewhere.test/\r\nContent-Type: text/odd\r\nx-ms-run-function-failed: True";
        format!("HTTP/1.1 {status} Whatever\r\n{fields}\r\n{framing}").into_bytes()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_containers_status_is_mapped_as_the_compute_type_has_it() {
    let replica = obedient().await;
    let gateway = all_mappings(replica.address, "").await;
    for (sent, fe, managed) in [
        (200, 200, 200),
        (201, 201, 424),
        (204, 204, 424),
        (299, 299, 424),
        (301, 301, 424),
        (304, 304, 424),
        (400, 400, 424),
        (401, 401, 424),
        (404, 404, 424),
        (413, 413, 424),
        (424, 424, 424),
        (429, 429, 424),
        (500, 502, 424),
        (501, 501, 424),
        (502, 502, 424),
        (503, 503, 424),
        (504, 504, 424),
        (599, 599, 424),
    ] {
        for (name, kind, mapping) in MAPPINGS {
            let expected = match (kind, mapping) {
                ("Managed key", "") => managed,
                (_, "") => fe,
                _ => sent,
            };
            let target = format!("/api/v1/service/{name}/score?{sent}");
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n");
            let answer = gateway.call(request).await;
            assert_eq!(answer.status, expected, "{sent} of {name}");
            let record = gateway.passed(&answer, expected).await;
            let reason = if expected >= 400 { "model_error" } else { "ok" };
            assert_record(
                &record,
                &json!({"ModelStatusCode": sent, "Reason": reason, "Service": name, "Attempts": 1, "EndedBy": "upstream"}),
            );
            let is_mapped = kind == "Managed key" && mapping.is_empty() && sent != 200;
            let expected = if is_mapped { (sent.to_string(), "model_error") } else { (String::new(), "") };
            let shown = (
                answer.header("ms-azureml-model-error-statuscode").to_owned(),
                answer.header("ms-azureml-model-error-reason"),
            );
            assert_eq!(shown, expected, "{sent} of {name}");
            // The rest of the answer stays the container's.
            let body = if matches!(sent, 204 | 304) { String::new() } else { format!("body of {sent}") };
            assert_eq!(answer.text(), body, "{sent} of {name}");
            assert_eq!(answer.header("content-type"), "text/odd");
            assert_eq!(answer.header("location"), "https://elsewhere.test/", "passed on and not followed");
            assert_eq!(answer.header("x-ms-run-function-failed"), "True");
        }
    }
}

/// Calls the score path of `name` and expects `status` with `reason`; gives the record.
async fn refused(gateway: &Gateway, name: &str, status: u16, reason: &str) -> serde_json::Value {
    let answer = gateway.score(name, Some(KEY), "{}").await;
    assert_eq!((answer.status, answer.reason()), (status, reason), "{name}");
    assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    assert_eq!(answer.header("ms-azureml-model-error-statuscode"), "", "it was not the model");
    assert_eq!(answer.header("azureml-model-deployment"), "blue");
    gateway.refused(&answer, status, reason).await
}

/// A container that answers when `gate` has a permit.
async fn gated(gate: &Arc<Semaphore>) -> Upstream {
    let gate = Arc::clone(gate);
    Upstream::serving(move |mut tcp, connection, log| {
        let gate = Arc::clone(&gate);
        async move {
            let mut buffer = Vec::new();
            while let Some(seen) = read_request(&mut tcp, &mut buffer, connection).await {
                log.lock().unwrap().push(seen);
                gate.acquire().await.unwrap().forget();
                if tcp.write_all(&ok(b"{}")).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A call to each service that the container holds: every place is taken.
async fn occupy(gateway: &Gateway, replica: &Upstream) -> Vec<Connection> {
    let mut connections = Vec::new();
    for (name, ..) in MAPPINGS {
        let mut connection = gateway.connect().await;
        connection.send(score_request(name, Some(KEY), "{}")).await;
        connections.push(connection);
    }
    let arrived = async || (replica.seen().len() == MAPPINGS.len()).then_some(());
    eventually("all places are taken", arrived).await;
    connections
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_503_and_429_for_managed() {
    let gate = Arc::new(Semaphore::new(0));
    let replica = gated(&gate).await;
    let limits = "    limits: { concurrent_requests_per_replica: 1, queue_length: 0, queue_wait: 60s }";
    let gateway = all_mappings(replica.address, limits).await;
    let held = occupy(&gateway, &replica).await;
    for (name, status) in
        [("aci", 503), ("aks", 503), ("managed", 429), ("aks-as-is", 503), ("managed-as-is", 503)]
    {
        let record = refused(&gateway, name, status, "queue_full").await;
        assert_record(
            &record,
            &json!({"Attempts": 0, "Replica": null, "Deployment": "blue", "EndedBy": "gateway"}),
        );
    }
    // Those that had a place are served, and then there is one again.
    gate.add_permits(2 * MAPPINGS.len());
    for mut connection in held {
        gateway.passed(&connection.answer().await, 200).await;
    }
    for (name, ..) in MAPPINGS {
        gateway.passed(&gateway.score(name, Some(KEY), "{}").await, 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_long_a_wait_in_the_queue_is_503_and_429_for_managed() {
    let gate = Arc::new(Semaphore::new(0));
    let replica = gated(&gate).await;
    let limits = "    limits: { concurrent_requests_per_replica: 1, queue_wait: 50ms }";
    let gateway = all_mappings(replica.address, limits).await;
    let _held = occupy(&gateway, &replica).await;
    for (name, status) in
        [("aci", 503), ("aks", 503), ("managed", 429), ("aks-as-is", 503), ("managed-as-is", 503)]
    {
        let record = refused(&gateway, name, status, "queue_timeout").await;
        assert_record(&record, &json!({"Attempts": 0, "Replica": null, "EndedBy": "gateway"}));
        assert!(record["QueueMs"].as_f64() >= Some(50.0), "{record}");
    }
    assert_eq!(replica.seen().len(), MAPPINGS.len(), "nothing that was refused was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_does_not_answer_is_504_and_408_for_managed() {
    let replica = gated(&Arc::new(Semaphore::new(0))).await;
    let gateway = all_mappings(replica.address, "    limits: { scoring_timeout: 100ms }").await;
    for (name, status) in
        [("aci", 504), ("aks", 504), ("managed", 408), ("aks-as-is", 504), ("managed-as-is", 504)]
    {
        let record = refused(&gateway, name, status, "upstream_timeout").await;
        let replica = replica.address.to_string();
        assert_record(
            &record,
            &json!({"Attempts": 1, "Replica": replica, "EndedBy": "gateway", "KeyId": record.get("KeyId")}),
        );
    }
    assert_eq!(replica.seen().len(), MAPPINGS.len(), "a call that was sent is not sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_cannot_be_reached_is_502() {
    // Bound and not listening: nobody else can get the port, and nobody answers on it.
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = nobody.local_addr().unwrap();
    let gateway = all_mappings(address, "").await;
    for (name, ..) in MAPPINGS {
        let record = refused(&gateway, name, 502, "connect_failed").await;
        assert_record(
            &record,
            &json!({"Attempts": 1, "Replica": address.to_string(), "EndedBy": "upstream"}),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_breaks_off_is_502_and_not_asked_again() {
    for (answer, reason) in [
        ("", "upstream_reset"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "upstream_reset"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "upstream_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "upstream_protocol"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "upstream_protocol"),
    ] {
        let replica = Upstream::once(answer).await;
        let gateway = all_mappings(replica.address, "").await;
        for (name, ..) in MAPPINGS {
            let record = refused(&gateway, name, 502, reason).await;
            let replica = replica.address.to_string();
            assert_record(&record, &json!({"Attempts": 1, "Replica": replica, "EndedBy": "upstream"}));
        }
        assert_eq!(replica.seen().len(), MAPPINGS.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_be_reached_costs_an_attempt_and_not_the_call() {
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (dead, alive) = (nobody.local_addr().unwrap(), Upstream::echo().await);
    let services = format!(
        r#"  - name: iris
    compute_type: AKS
    auth: none
    deployments: [ {{ name: blue, replicas: ["http://{dead}", "http://{}"] }} ]
"#,
        alive.address
    );
    let gateway = Gateway::start(&config(&services)).await;
    let mut attempts = Vec::new();
    // Replicas are drawn; that the dead one never is has a chance of one in 2^64.
    for _ in 0..64 {
        let record = gateway.passed(&gateway.score("iris", None, "{}").await, 200).await;
        assert_eq!(record["Replica"], alive.address.to_string());
        attempts.push(record["Attempts"].as_u64().unwrap());
    }
    assert!(attempts.contains(&2), "{attempts:?}");
    assert!(attempts.iter().all(|count| (1..=2).contains(count)), "{attempts:?}");
    assert_eq!(alive.seen().len(), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_over_the_limits_are_named_and_reach_nobody() {
    let replica = Upstream::serving(|_, _, _| pending()).await;
    let gateway = all_mappings(replica.address, "    limits: { body_bytes: 10, header_bytes: 1024 }").await;
    for (name, ..) in MAPPINGS {
        let answer = gateway.score(name, Some(KEY), "12345678901").await;
        assert!(answer.text().contains("11 bytes") && answer.text().contains("10"), "{}", answer.text());
        let record = gateway.refused(&answer, 413, "body_too_large").await;
        assert_record(&record, &json!({"Service": name, "Attempts": 0, "Replica": null}));
        let long = format!("{KEY}\r\nX-Long: {}", "x".repeat(1024));
        let answer = gateway.score(name, Some(&long), "{}").await;
        assert!(answer.text().contains("1024"), "{}", answer.text());
        gateway.refused(&answer, 431, "headers_too_large").await;
        // A stranger does not learn the limits.
        if name.starts_with("managed") {
            let answer = gateway.score(name, None, "12345678901").await;
            gateway.refused(&answer, 401, "auth_missing").await;
        }
    }
    assert_eq!(replica.accepted(), 0);
}
