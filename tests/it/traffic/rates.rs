//! Rates at the door: so many calls in a time, of a service and of each caller, refused before they wait for anything.

use scoregate::control::Outcome;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Connection, Gateway, KEY, OTHER_KEY, TlsClient, Upstream, assert_record, config, eventually,
    score_request, service, service_of,
};

/// Nothing comes back of a rate like this while a test runs: a thousand seconds for one call.
const SLOW: &str = "requests_per_second: 0.001";

async fn gateway(upstream: &Upstream, limits: &str) -> Gateway {
    let limits = format!("    limits: {{ {limits} }}");
    Gateway::start(&config(&service("iris", upstream.address, &limits))).await
}

/// Statuses of `count` calls by `key`, each on a connection of its own and so on whichever worker takes it.
async fn statuses(gateway: &Gateway, key: &str, count: usize) -> Vec<u16> {
    let mut statuses = vec![];
    for _ in 0..count {
        statuses.push(gateway.score("iris", Some(key), "1").await.status);
    }
    statuses
}

fn message(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_let_in_whole_and_the_next_call_hears_the_rate_and_when_to_come_back() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream, &format!("rate: {{ {SLOW}, burst: 5 }}")).await;
    // Strangers use nothing of it.
    assert_eq!(statuses(&gateway, "a-wrong-key", 3).await, [401; 3]);
    assert_eq!(statuses(&gateway, KEY, 3).await, [200; 3]);
    assert_eq!(statuses(&gateway, OTHER_KEY, 2).await, [200; 2]);
    for key in [KEY, OTHER_KEY] {
        let answer = gateway.score("iris", Some(key), "1").await;
        let record = gateway.refused(&answer, 429, "rate_limited").await;
        assert_record(
            &record,
            &json!({"Attempts": 0, "QueueMs": null, "Deployment": null, "EndedBy": "gateway"}),
        );
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=1000).contains(&wait), "{wait}");
        assert_eq!(answer.header("ratelimit-policy"), r#""service";q=1;w=1000"#);
        assert_eq!(answer.header("ratelimit"), format!(r#""service";r=0;t={wait}"#));
        assert!(message(&answer).contains("0.001 a second"), "{}", message(&answer));
        assert!(message(&answer).contains("(limits.rate)"), "{}", message(&answer));
    }
    assert_eq!(upstream.seen().len(), 5);
    let limited = r#"scoregate_requests_total{service="iris",compute_type="AKS",deployment="",code="429",reason="rate_limited"}"#;
    gateway.until_metric(limited, 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_has_a_rate_of_its_own_whichever_connection_it_comes_by() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream, &format!("rate_per_principal: {{ {SLOW}, burst: 2 }}")).await;
    assert_eq!(statuses(&gateway, KEY, 4).await, [200, 200, 429, 429]);
    assert_eq!(statuses(&gateway, OTHER_KEY, 3).await, [200, 200, 429]);
    let answer = gateway.h2().await.score("iris", KEY, "1").await;
    assert_eq!((answer.status, answer.reason()), (429, "rate_limited"));
    assert_eq!(answer.header("ratelimit-policy"), r#""principal";q=1;w=1000"#);
    assert!(message(&answer).contains("limits.rate_per_principal"), "{}", message(&answer));
    assert_eq!(gateway.metric(r#"scoregate_rate_limit_principals{service="iris"}"#).await, 2.0);
    assert_eq!(gateway.metric(r#"scoregate_rate_limit_forgotten_total{service="iris"}"#).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_each_address_is_a_caller() {
    let upstream = Upstream::echo().await;
    let limits = format!("    limits: {{ rate_per_principal: {{ {SLOW}, burst: 1 }} }}");
    let config = config(&service_of("AKS none", "iris", upstream.address, &limits))
        .replace("name: public", "name: public\n    proxy_protocol: { from: [ 127.0.0.0/8 ] }");
    let gateway = Gateway::start(&config).await;
    let by = async |address: &str, family: &str, to: &str| {
        let mut tcp = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let header = format!("PROXY {family} {address} {to} 4711 443\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut tcp, header.as_bytes()).await.unwrap();
        let client = TlsClient::trusting(&[gateway.ca()]);
        let mut connection = Connection::over(client.handshake(tcp, "localhost").await.unwrap());
        connection.send(score_request("iris", None, "1")).await;
        connection.answer().await.status
    };
    assert_eq!(by("192.0.2.7", "TCP4", "198.51.100.1").await, 200);
    assert_eq!(by("192.0.2.7", "TCP4", "198.51.100.1").await, 429);
    assert_eq!(by("192.0.2.8", "TCP4", "198.51.100.1").await, 200);
    assert_eq!(by("2001:db8:1:2::7", "TCP6", "2001:db8::1").await, 200);
    assert_eq!(by("2001:db8:1:2:ffff::8", "TCP6", "2001:db8::1").await, 429, "one network is one caller");
    assert_eq!(by("2001:db8:1:3::7", "TCP6", "2001:db8::1").await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_comes_back_with_time() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream, "rate: { requests_per_second: 2, burst: 1 }").await;
    assert_eq!(statuses(&gateway, KEY, 1).await, [200]);
    eventually("another call is let in", async || {
        (gateway.score("iris", Some(KEY), "1").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_forgives_nothing_unless_it_changes_the_rate() {
    let upstream = Upstream::echo().await;
    let with = |more: &str| {
        let limits = format!("    limits: {{ rate: {{ {SLOW}, burst: 2 }}, {more} }}");
        config(&service("iris", upstream.address, &limits))
    };
    let gateway = Gateway::start(&with("queue_wait: 1s")).await;
    let reload = async |config: String| {
        gateway.replace("scoregate.yaml", &config);
        assert!(!matches!(gateway.reload().await, Outcome::Refused(_)));
    };
    assert_eq!(statuses(&gateway, KEY, 3).await, [200, 200, 429]);
    reload(with("queue_wait: 2s")).await;
    assert_eq!(statuses(&gateway, KEY, 1).await, [429]);
    reload(with("queue_wait: 2s").replace("burst: 2", "burst: 3")).await;
    assert_eq!(statuses(&gateway, KEY, 4).await, [200, 200, 200, 429]);
    reload(config(&service("iris", upstream.address, ""))).await;
    assert_eq!(statuses(&gateway, KEY, 4).await, [200; 4]);
}
