//! Traffic shares and copies of calls, changed by the API while calls are under way.

use serde_json::json;

use super::catalogue::primary_key;
use super::{Api, OWNER, gateway, managed, problem};
use crate::harness::{Gateway, Load, Upstream, ok, score_request};

const IRIS: &str = "/v1/workspaces/default/services/iris";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_change_under_load_and_no_call_fails_or_sees_a_mix() {
    let (blue, green) =
        (Upstream::answering(|_| ok(b"blue")).await, Upstream::answering(|_| ok(b"green")).await);
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    let spec = json!({
        "compute_type": "AKS",
        "limits": { "concurrent_requests_per_replica": 100 },
        "deployments": {
            "blue": { "traffic": 100, "replicas": [format!("http://{}", blue.address)] },
            "green": { "traffic": 0, "replicas": [format!("http://{}", green.address)] },
        },
    });
    api.expect(201, "PUT", IRIS, Some(&spec)).await;
    let key = primary_key(&api, "iris").await;
    let load = Load::start(&gateway, 8, score_request("iris", Some(&key), "x"), |answer| {
        let mixed = answer.header("azureml-model-deployment") != answer.text();
        (answer.status != 200 || mixed).then(|| format!("{} {}", answer.status, answer.text()))
    });
    for round in 0..8 {
        let (b, g) = if round % 2 == 0 { (0, 100) } else { (100, 0) };
        let patch = json!({ "deployments": { "blue": { "traffic": b }, "green": { "traffic": g } } });
        api.expect(200, "PATCH", IRIS, Some(&patch)).await;
        let answer = gateway.score("iris", Some(&key), "x").await;
        assert_eq!(answer.text(), if g == 100 { "green" } else { "blue" }, "a call after the answer");
        load.further(20).await;
    }
    let (calls, problems) = load.stop().await;
    assert!(calls >= 160);
    assert_eq!(problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_begin_and_end_with_a_patch_and_hold_their_deployment() {
    let (blue, green) = (Upstream::echo().await, Upstream::echo().await);
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    let spec = json!({
        "compute_type": "AKS",
        "deployments": {
            "blue": { "traffic": 100, "replicas": [format!("http://{}", blue.address)] },
            "green": { "traffic": 0, "replicas": [format!("http://{}", green.address)] },
        },
        "mirror": { "deployment": "green", "percent": 50 },
    });
    let made = api.expect(201, "PUT", IRIS, Some(&spec)).await;
    assert_eq!(made["mirror"], json!({ "deployment": "green", "percent": 50 }));
    let key = primary_key(&api, "iris").await;
    for _ in 0..4 {
        assert_eq!(gateway.score("iris", Some(&key), "x").await.status, 200);
    }
    gateway.until_metric("scoregate_mirrored_total{service=\"iris\",outcome=\"sent\"}", 2.0).await;

    // What copies go to cannot be taken away under them.
    let gone = json!({ "deployments": { "green": null } });
    problem(&api.call("PATCH", IRIS, Some(&gone)).await, 400, "BadRequest");
    api.expect(200, "PATCH", IRIS, Some(&json!({ "mirror": null, "deployments": { "green": null } }))).await;
    for _ in 0..4 {
        assert_eq!(gateway.score("iris", Some(&key), "x").await.status, 200);
    }
    gateway.exactly(8).await;
    assert_eq!(green.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collection_begins_and_ends_with_a_patch_where_the_configuration_allows_it() {
    let upstream = Upstream::echo().await;
    let spec = json!({
        "compute_type": "AKS",
        "deployments": { "blue": { "traffic": 100, "replicas": [format!("http://{}", upstream.address)] } },
        "data_collection": { "sample": 1.0, "body_bytes": 3 },
    });
    let without = gateway().await;
    let answer = Api::owner(&without).call("PUT", IRIS, Some(&spec)).await;
    assert_eq!(problem(&answer, 400, "BadRequest")["field"], "data_collection");

    let allowing = managed("  []").replacen("telemetry: {", "telemetry: { data_collection: {},", 1);
    let gateway = Gateway::start_with(&allowing, &[("bootstrap.key", OWNER)]).await;
    let api = Api::owner(&gateway);
    let made = api.expect(201, "PUT", IRIS, Some(&spec)).await;
    assert_eq!(made["data_collection"], spec["data_collection"]);
    let key = primary_key(&api, "iris").await;
    let written = "scoregate_collected_total{service=\"iris\",outcome=\"written\"}";
    assert_eq!(gateway.score("iris", Some(&key), "first").await.status, 200);
    gateway.until_metric(written, 1.0).await;
    let wrong = json!({ "data_collection": { "sample": 1.5 } });
    let answer = api.call("PATCH", IRIS, Some(&wrong)).await;
    assert_eq!(problem(&answer, 400, "BadRequest")["field"], "data_collection.sample");
    api.expect(200, "PATCH", IRIS, Some(&json!({ "data_collection": null }))).await;
    assert_eq!(gateway.score("iris", Some(&key), "second").await.status, 200);
    api.expect(200, "PATCH", IRIS, Some(&json!({ "data_collection": {} }))).await;
    assert_eq!(gateway.score("iris", Some(&key), "third").await.status, 200);
    gateway.until_metric(written, 2.0).await;
    let day = std::fs::read_dir(gateway.path("collected/iris")).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(day.path()).unwrap();
    assert!(text.contains("\"Input\":\"fir\"") && text.contains("\"Input\":\"third\""), "{text}");
    assert!(!text.contains("second"));
}
