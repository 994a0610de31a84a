//! Which replica gets a call, who is left out, and counts that come back to zero.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scoregate::upstream::States;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::harness::{
    Answer, Gateway, KEY, Replica, Upstream, config, eventually, in_time, ok, read_request, score_request,
    websocket_agreed, websocket_handshake,
};

/// A service `iris` whose one deployment, `blue`, has these replicas; `more` is further YAML of the deployment, `limits` of
/// the service.
fn iris(replicas: &[SocketAddr], more: &str, limits: &str) -> String {
    let replicas: Vec<_> = replicas.iter().map(|replica| format!("\"http://{replica}\"")).collect();
    config(&format!(
        "  - name: iris\n    compute_type: AKS\n    keys: {{ primary: {{ file: primary.key }}, secondary: {{ file: secondary.key }} }}\n    \
         limits: {{ {limits} }}\n    deployments: [ {{ name: blue, replicas: [{}]{more} }} ]\n",
        replicas.join(", ")
    ))
}

async fn start(replicas: &[&Upstream], more: &str, limits: &str) -> Gateway {
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    Gateway::start(&iris(&addresses, more, limits)).await
}

/// A replica that answers each call with its number.
async fn numbered(number: usize) -> Upstream {
    Upstream::answering(move |_| ok(number.to_string().as_bytes())).await
}

/// An address at which connections are refused until it is told to listen; nobody else can get it.
struct Refusing {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Refusing {
    fn bind() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { address: socket.local_addr().unwrap(), socket }
    }

    /// From now on it answers each call with 200.
    fn listen(self) {
        let listener = self.socket.listen(16).unwrap();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    while let Some(seen) = read_request(&mut tcp, &mut buffer, 0).await {
                        if tcp.write_all(&ok(&seen.body)).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
}

async fn score(gateway: &Gateway) -> Answer {
    gateway.score("iris", Some(KEY), "1").await
}

fn states(gateway: &Gateway) -> States {
    let snapshot = gateway.running().publisher().published().load_full();
    snapshot.service("iris").unwrap().deployments[0].replicas.states()
}

fn in_flight(gateway: &Gateway) -> Vec<u32> {
    let snapshot = gateway.running().publisher().published().load_full();
    let members = snapshot.service("iris").unwrap().deployments[0].replicas.members();
    members.iter().map(|replica| replica.in_flight()).collect()
}

fn shown(state: &str) -> String {
    format!(r#"scoregate_replicas{{service="iris",deployment="blue",state="{state}"}}"#)
}

const EJECTIONS: &str = r#"scoregate_replica_ejections_total{service="iris",deployment="blue"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_robin_is_exact_over_all_workers() {
    let replicas = [Upstream::echo().await, Upstream::echo().await, Upstream::echo().await];
    let gateway = start(&replicas.each_ref(), ", balancing: round_robin", "").await;
    let calls: Vec<_> = (0..60).map(|_| score(&gateway)).collect();
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.status, 200);
    }
    let counts: Vec<_> = replicas.iter().map(|replica| replica.seen().len()).collect();
    assert_eq!(counts, [20, 20, 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_replicas_share_evenly_and_a_slow_one_gets_less() {
    let (quick, (slow, gate)) = (Upstream::echo().await, Upstream::held().await);
    gate.add_permits(1000);
    let gateway = start(&[&quick, &slow], "", "").await;
    let mut connection = gateway.connect().await;
    for _ in 0..400 {
        connection.send(score_request("iris", Some(KEY), "1")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    // Half of them, give or take eight standard deviations.
    let count = slow.seen().len();
    assert!((120..=280).contains(&count), "{count} of 400");

    // From now on it answers no more: with one call in flight it is the busier of the two, and gets none.
    gate.forget_permits(1000);
    let before = slow.seen().len();
    let mut held = gateway.connect().await;
    loop {
        held.send(score_request("iris", Some(KEY), "1")).await;
        tokio::select! {
            answer = held.answer() => assert_eq!(answer.status, 200),
            () = slow.until_seen(before + 1) => break,
        }
    }
    eventually("one call in flight", async || (in_flight(&gateway) == [0, 1]).then_some(())).await;
    for _ in 0..50 {
        connection.send(score_request("iris", Some(KEY), "1")).await;
        assert_eq!(connection.answer().await.status, 200);
        eventually("the call is over", async || (in_flight(&gateway)[0] == 0).then_some(())).await;
    }
    assert_eq!(slow.seen().len(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_keeps_calls_together_and_only_the_keys_of_a_replica_that_leaves_move() {
    let mut replicas = Vec::new();
    for number in 0..4 {
        replicas.push(numbered(number).await);
    }
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    let more = ", balancing: {hash: x-user}";
    let gateway = Gateway::start(&iris(&addresses, more, "")).await;
    let ask = async |user: usize| {
        let header = format!("X-User: user-{user}\r\nHost:");
        let request = score_request("iris", Some(KEY), "1").replace("Host:", &header);
        gateway.call(request).await.text()
    };
    let mut before = BTreeMap::new();
    for round in 0..2 {
        for user in 0..40 {
            let replica = ask(user).await;
            let first = before.entry(user).or_insert_with(|| replica.clone());
            assert_eq!(*first, replica, "user {user} in round {round}");
        }
    }
    // HTTP/2 callers as well.
    let mut h2 = gateway.h2().await;
    for (user, replica) in &before {
        let mut request = h2.score_request("iris", KEY, "1");
        request.headers_mut().insert("x-user", format!("user-{user}").parse().unwrap());
        assert_eq!(h2.call(request).await.text(), *replica);
    }
    let used: BTreeSet<_> = before.values().cloned().collect();
    assert_eq!(used.len(), 4, "{before:?}");

    gateway.replace("scoregate.yaml", &iris(&addresses[..3], more, ""));
    gateway.reload().await;
    for (user, replica) in &before {
        let after = ask(*user).await;
        assert!(after == *replica || replica == "3", "user {user} moved from {replica} to {after}");
        assert_ne!(after, "3");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_cap_no_replica_idles_while_another_has_two_calls() {
    let ((one, one_gate), (other, other_gate)) = (Upstream::held().await, Upstream::held().await);
    let gateway = start(&[&one, &other], "", "concurrent_requests_per_replica: 1, queue_wait: 0s").await;
    let mut connections = [gateway.connect().await, gateway.connect().await];
    for round in 1..=30 {
        for connection in &mut connections {
            connection.send(score_request("iris", Some(KEY), "1")).await;
        }
        // Each takes one of the two, whichever workers they are on.
        one.until_seen(round).await;
        other.until_seen(round).await;
        assert_eq!(in_flight(&gateway), [1, 1]);
        // A third one finds no place, and no replica gets a second call.
        let third = score(&gateway).await;
        assert_eq!((third.status, third.reason()), (503, "queue_timeout"));
        one_gate.add_permits(1);
        other_gate.add_permits(1);
        for connection in &mut connections {
            assert_eq!(connection.answer().await.status, 200);
        }
        eventually("nothing in flight", async || (in_flight(&gateway) == [0, 0]).then_some(())).await;
    }
    assert_eq!((one.seen().len(), other.seen().len()), (30, 30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_at_any_point_leave_no_count_behind() {
    // Answers in pieces, the last of which only half of the calls get.
    let serve = |mut tcp: tokio::net::TcpStream, connection: usize, _| async move {
        let mut buffer = Vec::new();
        while read_request(&mut tcp, &mut buffer, connection).await.is_some() {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n";
            if tcp.write_all(head).await.is_err() || tcp.write_all(&[b'x'; 30]).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
            if connection.is_multiple_of(2) {
                // Waits for the gateway to leave.
                let _ = tcp.read(&mut [0; 1]).await;
                return;
            }
            if tcp.write_all(&[b'x'; 30]).await.is_err() {
                return;
            }
        }
    };
    let replicas = [Upstream::serving(serve).await, Upstream::serving(serve).await, Upstream::held().await.0];
    let limits = "concurrent_requests_per_replica: 20, queue_wait: 10s";
    let gateway = start(&replicas.each_ref(), "", limits).await;
    let request = score_request("iris", Some(KEY), "0123456789");
    let client = async |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let pause = Duration::from_millis(random.u64(..30));
        if seed.is_multiple_of(2) {
            let mut connection = gateway.connect().await;
            let sent = random.usize(1..=request.len());
            connection.send(&request[..sent]).await;
            let _ = tokio::time::timeout(pause, connection.try_answer()).await;
        } else {
            let mut h2 = gateway.h2().await;
            // Before the answer, or in its middle.
            let request = h2.score_request("iris", KEY, "0123456789");
            drop(tokio::time::timeout(pause, h2.start(request)).await);
        }
    };
    in_time("all clients have left", futures_util::future::join_all((0..120).map(client))).await;
    gateway.until_metric(r#"scoregate_requests_in_flight{service="iris"}"#, 0.0).await;
    eventually("no call is counted", async || (in_flight(&gateway) == [0, 0, 0]).then_some(())).await;
    let snapshot = gateway.running().publisher().published().load_full();
    let load = snapshot.service("iris").unwrap().deployments[0].admission.load().unwrap();
    assert_eq!((load.busy, load.waiting), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_is_a_call_in_flight_until_it_is_closed() {
    let (first, second) = (Replica::bind().await, Replica::bind().await);
    let replicas = [first.address, second.address];
    let websocket = iris(&replicas, ", balancing: round_robin", "") + "    websocket: true\n";
    let gateway = Gateway::start(&websocket).await;
    let mut client = gateway.connect().await;
    client.send(websocket_handshake("iris", KEY)).await;
    let mut call = first.accept().await;
    call.head().await;
    call.send(websocket_agreed()).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    assert_eq!(in_flight(&gateway), [1, 0]);
    drop(client);
    eventually("the tunnel is no more", async || (in_flight(&gateway) == [0, 0]).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replica_is_ejected_and_no_caller_notices() {
    let (living, dead) = (Upstream::echo().await, Refusing::bind());
    let replicas = [living.address, dead.address];
    let gateway = Gateway::start(&iris(&replicas, "", "concurrent_requests_per_replica: 4")).await;
    for _ in 0..60 {
        assert_eq!(score(&gateway).await.status, 200);
    }
    assert_eq!(states(&gateway), States { ready: 1, ejected: 1, ..States::default() });
    assert_eq!(gateway.metric(EJECTIONS).await, 1.0);
    assert_eq!((gateway.metric(&shown("ready")).await, gateway.metric(&shown("ejected")).await), (1.0, 1.0));
    // The fifth failure was the last one.
    let records = gateway.records(60).await;
    let retried = records.iter().filter(|record| record["Attempts"] == 2).count();
    assert_eq!(retried, 5);
    // There are places for the living one only.
    let snapshot = gateway.running().publisher().published().load_full();
    assert_eq!(snapshot.service("iris").unwrap().deployments[0].admission.load().unwrap().slots, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_answers_5xx_is_ejected_and_comes_back_when_it_is_well() {
    let (well, ill) = (Upstream::echo().await, Arc::new(AtomicBool::new(true)));
    let is_ill = Arc::clone(&ill);
    let other = Upstream::answering(move |_| {
        let status = if is_ill.load(Ordering::Relaxed) { "503 Service Unavailable" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    })
    .await;
    let gateway = start(&[&well, &other], ", ejection: { time: 200ms, most_time: 200ms }", "").await;
    // Whoever is ill fails as fast as it is asked, and a trial each 200 ms is all it gets.
    let mut failed = 0;
    while gateway.metric(EJECTIONS).await == 0.0 {
        failed += usize::from(score(&gateway).await.status == 503);
        assert!(failed <= 5, "five failures in a row eject");
    }
    assert_eq!(failed, 5);
    assert_eq!(states(&gateway).ejected, 1);
    ill.store(false, Ordering::Relaxed);
    eventually("it is back", async || {
        score(&gateway).await;
        (states(&gateway) == States { ready: 2, ..States::default() }).then_some(())
    })
    .await;
    for _ in 0..40 {
        assert_eq!(score(&gateway).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_that_fail_are_never_all_ejected() {
    let error =
        async || Upstream::answering(|_| b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    let replicas = [error().await, error().await, error().await];
    let gateway = start(&replicas.each_ref(), "", "").await;
    for _ in 0..60 {
        // The model's own answer, and never a word of the gateway's.
        let answer = score(&gateway).await;
        assert_eq!((answer.status, answer.reason()), (502, ""));
    }
    assert_eq!(states(&gateway), States { ready: 2, ejected: 1, ..States::default() });

    let single = start(&[&replicas[0]], "", "").await;
    for _ in 0..20 {
        let answer = score(&single).await;
        assert_eq!((answer.status, answer.reason()), (502, ""));
    }
    assert_eq!(single.metric(EJECTIONS).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_replicas_dead_calls_fail_at_once_until_one_is_back() {
    for limits in ["", "concurrent_requests_per_replica: 1, queue_wait: 10m"] {
        let (one, other) = (Refusing::bind(), Refusing::bind());
        let gateway = Gateway::start(&iris(&[one.address, other.address], "", limits)).await;
        let refused = eventually("no replica is ready", async || {
            let answer = score(&gateway).await;
            match answer.reason() {
                "connect_failed" => None,
                _ => Some(answer),
            }
        })
        .await;
        assert_eq!((refused.status, refused.reason()), (503, "no_ready_replica"));
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(gateway.metric(&shown("ejected")).await, 2.0);
        // Nobody reports it: the next call that is let through finds it.
        other.listen();
        eventually("a call is answered", async || (score(&gateway).await.status == 200).then_some(())).await;
        for _ in 0..20 {
            assert_eq!(score(&gateway).await.status, 200, "once it is known to be back, no call is lost");
        }
        assert_eq!(states(&gateway), States { ready: 1, ejected: 1, ..States::default() });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_balancing_and_newcomers_start_slowly() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let gateway = start(&[&one], "", "").await;
    assert_eq!(score(&gateway).await.status, 200);
    let both = [one.address, other.address];
    gateway.replace("scoregate.yaml", &iris(&both, ", slow_start: 1h, ejection: off", ""));
    gateway.reload().await;
    assert_eq!(states(&gateway), States { ready: 1, slow_start: 1, ..States::default() });
    let mut connection = gateway.connect().await;
    for _ in 0..400 {
        connection.send(score_request("iris", Some(KEY), "1")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    // A tenth of its half: 20, give or take eight standard deviations.
    let count = other.seen().len();
    assert!(count < 56, "{count} of 400");
    gateway.replace("scoregate.yaml", &iris(&both, ", balancing: round_robin", ""));
    gateway.reload().await;
    let before = other.seen().len();
    for _ in 0..20 {
        connection.send(score_request("iris", Some(KEY), "1")).await;
        assert_eq!(connection.answer().await.status, 200);
    }
    assert_eq!(other.seen().len() - before, 10);
}
