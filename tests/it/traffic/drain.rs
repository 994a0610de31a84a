//! Replicas and deployments that go while calls are under way: what has begun ends well.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::{
    Answer, Gateway, KEY, Load, Mortal, Replica, Upstream, config, eventually, ok, score_request,
};

/// A service with these replicas.
fn with(replicas: &[SocketAddr], more: &str) -> String {
    let replicas: Vec<_> = replicas.iter().map(|replica| format!("\"http://{replica}\"")).collect();
    config(&format!(
        "  - name: iris
    compute_type: AKS
    keys: {{ primary: {{ file: primary.key }} }}
    deployments: [ {{ name: blue, replicas: [{}] }} ]
{more}
",
        replicas.join(", ")
    ))
}

fn problem(answer: &Answer) -> Option<String> {
    (answer.status != 200 || answer.body != b"hello").then(|| format!("{} {}", answer.status, answer.text()))
}

fn load(gateway: &Gateway) -> Load {
    Load::start(gateway, 12, score_request("iris", Some(KEY), "hello"), problem)
}

/// Each replica is restarted in its turn, twice, and no client of a service that never sends a call twice notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_lose_no_call() {
    let time = Duration::from_millis(10);
    let mut replicas = [Mortal::slow(time), Mortal::slow(time)];
    let addresses = [replicas[0].address, replicas[1].address];
    let gateway = Gateway::start(&with(&addresses, "    retry: { replay: never }")).await;
    let load = load(&gateway);
    load.further(50).await;
    for place in [0, 1, 0, 1] {
        let replica = &mut replicas[place];
        replica.retire().await;
        load.further(50).await;
        replica.start();
        let before = replica.seen();
        eventually("the replica that came back has calls", async || (replica.seen() > before).then_some(()))
            .await;
        load.further(50).await;
    }
    let (calls, problems) = load.stop().await;
    assert!(calls >= 450);
    assert_eq!(problems, Vec::<String>::new());
}

/// The same with replicas that are killed, where calls may be sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_kills_lose_no_call_that_may_be_replayed() {
    let time = Duration::from_millis(10);
    let mut replicas = [Mortal::slow(time), Mortal::slow(time)];
    let addresses = [replicas[0].address, replicas[1].address];
    let gateway = Gateway::start(&with(&addresses, "    retry: { replay: always, budget: 100 }")).await;
    let load = load(&gateway);
    load.further(50).await;
    for place in [0, 1, 0, 1] {
        let replica = &mut replicas[place];
        replica.kill();
        load.further(50).await;
        replica.start();
        let before = replica.seen();
        eventually("the replica that came back has calls", async || (replica.seen() > before).then_some(()))
            .await;
        load.further(50).await;
    }
    let (_, problems) = load.stop().await;
    assert_eq!(problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_come_and_go_by_reload_under_load() {
    let (one, two, three) = (Mortal::echo(), Mortal::echo(), Mortal::echo());
    let sets = [[one.address, two.address], [two.address, three.address], [three.address, one.address]];
    let gateway = Gateway::start(&with(&sets[0], "")).await;
    let load = load(&gateway);
    for round in 1..=9 {
        gateway.replace("scoregate.yaml", &with(&sets[round % 3], ""));
        gateway.reload().await;
        load.further(30).await;
    }
    let (calls, problems) = load.stop().await;
    assert!(calls >= 270);
    assert_eq!(problems, Vec::<String>::new());
    assert!(one.seen() > 0 && two.seen() > 0 && three.seen() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_deployment_ends_its_calls_and_then_its_connections() {
    let (blue, green) = (Upstream::echo().await, Replica::bind().await);
    let with = |green: &str| {
        config(&format!(
            "  - name: iris
    compute_type: AKS
    keys: {{ primary: {{ file: primary.key }} }}
    deployments:
      - {{ name: blue, traffic: 100, replicas: [\"http://{}\"] }}
{green}",
            blue.address
        ))
    };
    let both = format!("      - {{ name: green, traffic: 0, replicas: [\"http://{}\"] }}\n", green.address);
    let gateway = Gateway::start(&with(&both)).await;
    let request = score_request("iris", Some(KEY), "x")
        .replace("Content-Type", "azureml-model-deployment: green\r\nContent-Type");

    // One connection that is idle, a call that waits for its answer, and a stream under way.
    let (mut quick, mut slow, mut streaming) =
        (gateway.connect().await, gateway.connect().await, gateway.connect().await);
    streaming.send(&request).await;
    let (mut stream, _) = green.request().await;
    stream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    assert_eq!(streaming.answer_to_head().await.status, 200);
    assert_eq!(streaming.chunk().await, b"one");
    slow.send(&request).await;
    let (mut call, _) = green.request().await;
    quick.send(&request).await;
    let (mut idle, _) = green.request().await;
    idle.send(ok(b"quick")).await;
    assert_eq!(quick.answer().await.text(), "quick");

    gateway.replace("scoregate.yaml", &with(""));
    gateway.reload().await;
    let refused = gateway.call(&request).await;
    assert_eq!((refused.status, refused.reason()), (404, "unknown_service"));

    // What has begun goes on for as long as it takes.
    stream.send("3\r\ntwo\r\n").await;
    assert_eq!(streaming.chunk().await, b"two");
    call.send(ok(b"slow")).await;
    assert_eq!(slow.answer().await.text(), "slow");
    stream.send("0\r\n\r\n").await;
    assert_eq!(streaming.chunk().await, b"");

    // Nobody can need the connections any more, and they are closed.
    for connection in [idle, call, stream] {
        assert_eq!(connection.closed().await, b"");
    }
    let records = gateway.exactly(4).await;
    let of_green = records.iter().filter(|record| record["Deployment"] == "green");
    assert_eq!(of_green.filter(|record| record["Reason"] == "ok").count(), 3, "{records:#?}");
}
