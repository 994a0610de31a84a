//! Which deployment a call goes to: by weight, by name, by what it has in common with others, and while that changes.

use std::collections::BTreeMap;

use crate::harness::{Answer, Gateway, KEY, Load, Upstream, config, ok, score_request};

/// A replica that answers with its name.
async fn named(name: &'static str) -> Upstream {
    Upstream::answering(move |_| ok(name.as_bytes())).await
}

/// The three deployments of the tests.
struct Deployments {
    blue: Upstream,
    green: Upstream,
    gray: Upstream,
}

impl Deployments {
    async fn new() -> Self {
        Self { blue: named("blue").await, green: named("green").await, gray: named("gray").await }
    }

    /// The service with these further keys of blue, green and gray, such as `traffic: 90`.
    fn config(&self, keys: [&str; 3], more: &str) -> String {
        let of = |name: &str, upstream: &Upstream, keys: &str| {
            format!("{{ name: {name}, replicas: [\"http://{}\"], {keys} }}", upstream.address)
        };
        config(&format!(
            "  - name: iris
    compute_type: AKS
    keys: {{ primary: {{ file: primary.key }} }}
    deployments: [ {}, {}, {} ]
{more}
",
            of("blue", &self.blue, keys[0]),
            of("green", &self.green, keys[1]),
            of("gray", &self.gray, keys[2]),
        ))
    }
}

/// A scoring call with this further header.
fn request(header: &str) -> String {
    score_request("iris", Some(KEY), "x").replace("Content-Type", &format!("{header}\r\nContent-Type"))
}

/// The deployment that answered, as the gateway says and as the model itself does.
fn answered_by(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("azureml-model-deployment"), answer.text(), "a mix of two deployments");
    answer.text()
}

/// How many of `calls` calls went where, over connections that both workers have.
async fn shares(
    gateway: &Gateway,
    calls: usize,
    request: impl Fn(usize) -> String,
) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(gateway.connect().await);
    }
    for call in 0..calls {
        let connection = &mut connections[call % 8];
        connection.send(request(call)).await;
        *shares.entry(answered_by(&connection.answer().await)).or_default() += 1;
    }
    shares
}

fn expect(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_exact_over_all_workers() {
    let deployments = Deployments::new().await;
    let weights = ["traffic: 70", "traffic: 25", "traffic: 5"];
    let gateway = Gateway::start(&deployments.config(weights, "")).await;
    let shares = shares(&gateway, 200, |_| request("x-a: b")).await;
    assert_eq!(shares, expect(&[("blue", 140), ("green", 50), ("gray", 10)]));
}

/// Azure's documented rule for the versions of an endpoint: 40 and 20 percent leave the default with 80.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_takes_what_nobody_else_was_given() {
    let deployments = Deployments::new().await;
    let weights = ["traffic: 40, default: true", "traffic: 20", "traffic: 0"];
    let gateway = Gateway::start(&deployments.config(weights, "")).await;
    let shares = shares(&gateway, 100, |_| request("x-a: b")).await;
    assert_eq!(shares, expect(&[("blue", 80), ("green", 20)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_settings_change_without_disturbing_the_turn() {
    let deployments = Deployments::new().await;
    let weights = ["traffic: 90", "traffic: 10", "traffic: 0"];
    let gateway = Gateway::start(&deployments.config(weights, "")).await;
    let mut all = BTreeMap::new();
    for round in 0..10 {
        let limits = format!("    limits: {{ queue_wait: {}ms }}", 100 + round);
        gateway.replace("scoregate.yaml", &deployments.config(weights, &limits));
        gateway.reload().await;
        for (name, count) in shares(&gateway, 3, |_| request("x-a: b")).await {
            *all.entry(name).or_default() += count;
        }
    }
    assert_eq!(all, expect(&[("blue", 27), ("green", 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_goes_before_weights_and_an_unknown_one_is_refused_or_passed_over() {
    let deployments = Deployments::new().await;
    let weights = ["traffic: 100", "traffic: 0", "traffic: 0"];
    for (setting, ignored) in
        [("", false), ("    unknown_deployment: refuse", false), ("    unknown_deployment: ignore", true)]
    {
        let gateway = Gateway::start(&deployments.config(weights, setting)).await;
        let answer = gateway.call(request("azureml-model-deployment: gray")).await;
        assert_eq!(answered_by(&answer), "gray", "{setting}");
        let answer = gateway.call(request("azureml-model-deployment: teal")).await;
        if ignored {
            assert_eq!(answered_by(&answer), "blue");
        } else {
            assert_eq!((answer.status, answer.reason()), (404, "unknown_service"), "{setting}");
            assert!(answer.text().contains("azureml-model-deployment"), "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_with_the_same_value_stay_together_and_many_values_share_by_weight() {
    let deployments = Deployments::new().await;
    let weights = ["traffic: 50", "traffic: 50", "traffic: 0"];
    let sticky = "    sticky: { header: x-session-id }";
    let gateway = Gateway::start(&deployments.config(weights, sticky)).await;
    let session = |number: usize| request(&format!("X-Session-Id: session-{number}"));
    for number in 0..10 {
        let one = shares(&gateway, 8, |_| session(number)).await;
        assert_eq!(one.len(), 1, "session-{number}: {one:?}");
    }
    let many = shares(&gateway, 400, session).await;
    assert!((150..=250).contains(&many["blue"]), "{many:?}");
    // Without the header calls take turns, exactly.
    let turns = shares(&gateway, 20, |_| request("x-a: b")).await;
    assert_eq!(turns, expect(&[("blue", 10), ("green", 10)]));
    // A name goes before.
    let answer = gateway.call(request("x-session-id: session-1\r\nazureml-model-deployment: gray")).await;
    assert_eq!(answered_by(&answer), "gray");

    // Another gateway, and this one after a change elsewhere, choose alike.
    let other = Gateway::start(&deployments.config(weights, sticky)).await;
    gateway.replace(
        "scoregate.yaml",
        &deployments.config(weights, &format!("{sticky}\n    limits: {{ queue_wait: 1ms }}")),
    );
    gateway.reload().await;
    for number in 0..10 {
        let here = answered_by(&gateway.call(session(number)).await);
        assert_eq!(here, answered_by(&other.call(session(number)).await), "session-{number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_change_under_load_and_no_call_sees_a_mix() {
    let deployments = Deployments::new().await;
    let blue = deployments.config(["traffic: 100", "traffic: 0", "traffic: 0"], "");
    let green = deployments.config(["traffic: 0", "traffic: 100", "traffic: 0"], "");
    let gateway = Gateway::start(&blue).await;
    let load = Load::start(&gateway, 8, request("x-a: b"), |answer| {
        let mixed = answer.header("azureml-model-deployment") != answer.text();
        (answer.status != 200 || mixed).then(|| format!("{} {}", answer.status, answer.text()))
    });
    for round in 0..10 {
        let (text, wanted) = if round % 2 == 0 { (&green, "green") } else { (&blue, "blue") };
        gateway.replace("scoregate.yaml", text);
        gateway.reload().await;
        let answer = gateway.call(request("x-a: b")).await;
        assert_eq!(answered_by(&answer), wanted, "a call after the change");
        load.further(20).await;
    }
    let (calls, problems) = load.stop().await;
    assert!(calls >= 200);
    assert_eq!(problems, Vec::<String>::new());
}
