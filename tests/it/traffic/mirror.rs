//! Copies of calls to another deployment: how many, of which calls, and that callers notice nothing.

use std::net::SocketAddr;

use crate::harness::{
    Gateway, KEY, Mortal, Replica, Upstream, config, eventually, ok, read_request, score_request,
};

/// A service whose calls go to `blue`, with `mirror` on another deployment, `green`.
fn with(blue: SocketAddr, green: SocketAddr, mirror: &str, more: &str) -> String {
    config(&format!(
        "  - name: iris
    compute_type: AKS
    keys: {{ primary: {{ file: primary.key }} }}
    mirror: {{ deployment: green, {mirror} }}
    deployments:
      - {{ name: blue, traffic: 100, replicas: [\"http://{blue}\"] }}
      - {{ name: green, traffic: 0, replicas: [\"http://{green}\"] }}
{more}
"
    ))
}

fn mirrored(outcome: &str) -> String {
    format!("scoregate_mirrored_total{{service=\"iris\",outcome=\"{outcome}\"}}")
}

/// Makes `count` calls, all of which are answered by blue.
async fn calls(gateway: &Gateway, count: usize) {
    let mut client = gateway.connect().await;
    for number in 0..count {
        client.send(score_request("iris", Some(KEY), &number.to_string())).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (200, number.to_string()));
        assert_eq!(answer.header("azureml-model-deployment"), "blue");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exact_share_of_calls_is_copied_whole() {
    // Its answer is not what the callers get.
    let (blue, green) = (
        Upstream::echo().await,
        Upstream::answering(|_| b"HTTP/1.1 500 Odd\r\nContent-Length: 3\r\n\r\nodd".into()).await,
    );
    let gateway = Gateway::start(&with(blue.address, green.address, "percent: 25", "")).await;
    calls(&gateway, 40).await;
    gateway.until_metric(&mirrored("sent"), 10.0).await;
    let (originals, copies) = (blue.seen(), green.seen());
    assert_eq!((originals.len(), copies.len()), (40, 10));
    for copy in copies {
        let original = originals.iter().find(|original| original.body == copy.body).unwrap();
        assert_eq!(copy.line(), original.line());
        for field in ["x-request-id", "content-type", "content-length", "x-forwarded-for"] {
            assert_eq!(copy.header(field), original.header(field), "{field}");
        }
        assert_eq!(copy.header("host"), green.address.to_string());
        assert_eq!(copy.header("authorization"), "");
    }
    // Copies have no record.
    let records = gateway.exactly(40).await;
    assert!(records.iter().all(|record| record["Deployment"] == "blue" && record["Attempts"] == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_slow_copy_and_what_is_too_many_is_dropped() {
    let (green, gate) = Upstream::held().await;
    let blue = Upstream::echo().await;
    let gateway = Gateway::start(&with(blue.address, green.address, "percent: 50, concurrent: 3", "")).await;
    calls(&gateway, 20).await;
    // Ten have had their turn.
    green.until_seen(3).await;
    gateway.until_metric(&mirrored("behind"), 7.0).await;
    gate.add_permits(100);
    gateway.until_metric(&mirrored("sent"), 3.0).await;
    calls(&gateway, 4).await;
    gateway.until_metric(&mirrored("sent"), 5.0).await;
    assert_eq!(green.seen().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_name_a_deployment_or_ask_for_no_score_are_not_copied() {
    let (blue, green) = (Upstream::echo().await, Upstream::echo().await);
    let more = "    unknown_deployment: ignore";
    let gateway = Gateway::start(&with(blue.address, green.address, "percent: 50", more)).await;
    for name in ["blue", "teal"] {
        let named = format!("azureml-model-deployment: {name}\r\nContent-Type");
        for _ in 0..4 {
            let request = score_request("iris", Some(KEY), "named").replace("Content-Type", &named);
            assert_eq!(gateway.call(request).await.status, 200);
        }
    }
    for path in ["swagger.json", ""] {
        for _ in 0..4 {
            let request = format!(
                "GET /api/v1/service/iris/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"
            );
            assert_eq!(gateway.call(request).await.status, 200);
        }
    }
    // After two more, one copy is there, and none is of the others.
    calls(&gateway, 2).await;
    gateway.until_metric(&mirrored("sent"), 1.0).await;
    assert_eq!(green.seen().len(), 1);
    assert_eq!(green.seen()[0].line(), "POST /score HTTP/1.1");
    assert_ne!(green.seen()[0].body, b"named");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_goes_there_anyway_is_not_copied() {
    let (blue, green) = (Upstream::echo().await, Upstream::echo().await);
    let both = with(blue.address, green.address, "percent: 50", "")
        .replace("traffic: 100", "traffic: 50")
        .replace("traffic: 0", "traffic: 50");
    let gateway = Gateway::start(&both).await;
    let mut client = gateway.connect().await;
    for _ in 0..20 {
        client.send(score_request("iris", Some(KEY), "x")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    // Half of blue's ten.
    gateway.until_metric(&mirrored("sent"), 5.0).await;
    assert_eq!((blue.seen().len(), green.seen().len()), (10, 10 + 5));
}

/// A scoring call whose body comes in chunks.
fn chunked(chunks: &[&str]) -> String {
    let head =
        score_request("iris", Some(KEY), "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    head + &chunks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_copied_as_it_passes_if_it_is_small_and_comes_to_its_end() {
    let (blue, green) = (Upstream::echo().await, Upstream::echo().await);
    let limits = "percent: 50, body_bytes: 8";
    let gateway = Gateway::start(&with(blue.address, green.address, limits, "")).await;
    let mut client = gateway.connect().await;
    let turn = async |request: &str| {
        // Every second call is copied: the first of each pair has not had its turn.
        calls(&gateway, 1).await;
        client.send(request).await;
        client.answer().await
    };
    let mut turn = turn;
    let answer = turn(&(chunked(&["one", "two"]) + "0\r\n\r\n")).await;
    assert_eq!(answer.text(), "onetwo");
    gateway.until_metric(&mirrored("sent"), 1.0).await;
    assert_eq!(green.seen()[0].body, b"onetwo");
    for large in
        [chunked(&["four", "five", "6"]) + "0\r\n\r\n", score_request("iris", Some(KEY), "123456789")]
    {
        assert_eq!(turn(&large).await.body.len(), 9);
    }
    gateway.until_metric(&mirrored("too_large"), 2.0).await;

    // The client leaves before its body is whole.
    calls(&gateway, 1).await;
    let mut leaving = gateway.connect().await;
    leaving.send(chunked(&["one"])).await;
    eventually("the call is under way", async || {
        (gateway.metric("scoregate_requests_in_flight{service=\"iris\"}").await == 1.0).then_some(())
    })
    .await;
    drop(leaving);
    gateway.until_metric(&mirrored("incomplete"), 1.0).await;
    assert_eq!(green.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_is_down_or_busy_costs_only_the_copies() {
    let blue = Upstream::echo().await;
    let down = Mortal::dead(|_| async { Vec::new() });
    let gateway = Gateway::start(&with(blue.address, down.address, "percent: 50", "")).await;
    calls(&gateway, 8).await;
    gateway.until_metric(&mirrored("failed"), 4.0).await;

    let (busy, gate) = Upstream::held().await;
    let more = "    limits: { concurrent_requests_per_replica: 1 }";
    let gateway = Gateway::start(&with(blue.address, busy.address, "percent: 50", more)).await;
    let mut named = gateway.connect().await;
    let request = score_request("iris", Some(KEY), "own")
        .replace("Content-Type", "azureml-model-deployment: green\r\nContent-Type");
    named.send(request).await;
    busy.until_seen(1).await;
    calls(&gateway, 4).await;
    gateway.until_metric(&mirrored("busy"), 2.0).await;
    gate.add_permits(10);
    assert_eq!(named.answer().await.text(), "own");
    assert_eq!(busy.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_tried_again_is_copied_once() {
    let green = Upstream::echo().await;
    // Closes each connection but every second one before it has answered.
    let blue = Upstream::serving(|mut tcp, connection, log| async move {
        let Some(seen) = read_request(&mut tcp, &mut Vec::new(), connection).await else { return };
        let answer = ok(&seen.body).escape_ascii().to_string().replace("OK", "OK\\r\\nConnection: close");
        let answer = answer.replace("\\r\\n", "\r\n");
        log.lock().unwrap().push(seen);
        if connection % 2 == 1 {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut tcp, answer.as_bytes()).await;
        }
    })
    .await;
    let more = "    retry: { replay: always }";
    let gateway = Gateway::start(&with(blue.address, green.address, "percent: 50", more)).await;
    calls(&gateway, 4).await;
    gateway.until_metric(&mirrored("sent"), 2.0).await;
    assert_eq!((blue.seen().len(), green.seen().len()), (8, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirroring_changes_with_a_reload_and_does_not_hold_up_the_end() {
    let (blue, green) = (Upstream::echo().await, Replica::bind().await);
    let text = with(blue.address, green.address, "percent: 50", "");
    let mut gateway = Gateway::start(&text).await;
    calls(&gateway, 2).await;
    let (copy, seen) = green.request().await;
    assert_eq!(seen.body, b"1");
    let without = text.replace("    mirror: { deployment: green, percent: 50 }\n", "");
    assert_ne!(without, text);
    gateway.replace("scoregate.yaml", &without);
    gateway.reload().await;
    calls(&gateway, 4).await;
    gateway.exactly(6).await;
    // The copy is never answered, and nobody waits for it.
    assert_eq!(gateway.drain().await.cut, 0);
    copy.closed().await;
}
