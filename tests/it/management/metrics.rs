//! How services went, asked for as Azure Monitor's metrics are: what was called shows a look later.

use serde_json::{Value, json};

use super::{Api, OWNER, managed, problem};
use crate::harness::{Gateway, KEY, Upstream, eventually, ok, service};

const METRICS: &str = "/v1/workspaces/default/services/iris/metrics";
const ARM: &str = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/default\
                   /onlineEndpoints/iris/providers/microsoft.insights/metrics?api-version=2018-01-01";

/// A gateway with a declared service `iris` that has had three calls and a refused one, when these show.
async fn called() -> (Upstream, Gateway, Api) {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let config = managed(&service("iris", upstream.address, "")).replace(
        "workspace: { name: default }",
        "workspace: { subscription: sub, resource_group: rg, name: default, location: westeurope }",
    );
    let gateway = Gateway::start_with(&config, &[("bootstrap.key", OWNER)]).await;
    let api = Api::owner(&gateway);
    for _ in 0..3 {
        assert_eq!(gateway.score("iris", Some(KEY), "{}").await.status, 200);
    }
    assert_eq!(gateway.score("iris", None, "{}").await.status, 401);
    eventually("the calls show", async || {
        let told = api.get(&format!("{METRICS}?metricnames=Requests&timespan=PT10M&interval=FULL")).await;
        (told["value"][0]["timeseries"][0]["data"][0]["total"] == 4.0).then_some(())
    })
    .await;
    (upstream, gateway, api)
}

/// Of each series its labels and the sum of its totals.
fn totals(metric: &Value) -> Vec<(String, f64)> {
    let series = metric["timeseries"].as_array().unwrap().iter();
    series
        .map(|series| {
            let labels = series["metadatavalues"].as_array().unwrap().iter();
            let labels: Vec<_> = labels
                .map(|label| {
                    format!(
                        "{}={}",
                        label["name"]["value"].as_str().unwrap(),
                        label["value"].as_str().unwrap()
                    )
                })
                .collect();
            let points = series["data"].as_array().unwrap().iter();
            (labels.join(","), points.filter_map(|point| point["total"].as_f64()).sum())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_show_in_the_metrics_of_their_service_as_azure_tells_them() {
    let (_upstream, _gateway, api) = called().await;
    let told = api.get(&format!("{METRICS}?metricnames=Requests&timespan=PT10M")).await;
    assert_eq!(told["interval"], "PT1M");
    assert_eq!(told["namespace"], "Microsoft.MachineLearningServices/workspaces/onlineEndpoints");
    assert_eq!(told["resourceregion"], "westeurope");
    let requests = &told["value"][0];
    assert_eq!(
        (&requests["name"], &requests["unit"], &requests["type"], &requests["errorCode"]),
        (
            &json!({"value": "Requests", "localizedValue": "Requests"}),
            &json!("Count"),
            &json!("Microsoft.Insights/metrics"),
            &json!("Success"),
        )
    );
    let id = requests["id"].as_str().unwrap();
    assert!(id.starts_with("/subscriptions/sub/resourceGroups/rg/providers/"), "{id}");
    assert!(id.ends_with("/services/iris/providers/Microsoft.Insights/metrics/Requests"), "{id}");
    assert_eq!(totals(requests), [(String::new(), 4.0)]);
    let points = requests["timeseries"][0]["data"].as_array().unwrap();
    assert!(points.len() >= 10, "{}", points.len());
    let (start, end) = told["timespan"].as_str().unwrap().split_once('/').unwrap();
    assert_eq!(points[0], json!({"timeStamp": start}), "nothing is known of the time before the start");
    assert!(start < end && end.ends_with(":00Z"));

    let split = "$filter=statusCodeClass%20eq%20'*'%20and%20reason%20eq%20'*'";
    let told = api.get(&format!("{METRICS}?metricnames=Requests,Errors&timespan=PT10M&{split}")).await;
    let of = |text: &str, count| (text.to_owned(), count);
    let refused = of("statusCodeClass=4xx,reason=auth_missing", 1.0);
    assert_eq!(totals(&told["value"][0]), [of("statusCodeClass=2xx,reason=ok", 3.0), refused.clone()]);
    assert_eq!(totals(&told["value"][1]), [refused]);

    let all = api.get(&format!("{METRICS}?timespan=PT10M&interval=FULL&aggregation=average,count")).await;
    let point = |name: &str| {
        let metric = all["value"].as_array().unwrap().iter().find(|metric| metric["name"]["value"] == name);
        metric.unwrap()["timeseries"][0]["data"][0].clone()
    };
    let latency = point("RequestLatency");
    assert_eq!(latency["count"], 4.0);
    assert!(latency["average"].as_f64().unwrap() > 0.0 && latency.get("total").is_none(), "{latency}");
    assert!(
        point("RequestLatency_P99")["average"].as_f64() >= point("RequestLatency_P50")["average"].as_f64()
    );
    assert!(point("NetworkBytes")["average"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arm_path_of_an_endpoint_tells_the_same() {
    let (_upstream, _gateway, api) = called().await;
    let query = "metricnames=Requests&timespan=PT10M&interval=FULL&aggregation=Total";
    let told = api.get(&format!("{ARM}&{query}")).await;
    assert_eq!(totals(&told["value"][0]), [(String::new(), 4.0)]);
    let wrong = api.call("GET", &format!("{ARM}&metricnames=Wishes"), None).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("metricnames"), "{}", wrong.text());
    assert_eq!(api.call("POST", ARM, Some(&json!({}))).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_a_line_per_metric_and_series() {
    let (_upstream, gateway, _api) = called().await;
    let (token, endpoint) = (gateway.path("bootstrap.key"), gateway.running().bound().management.unwrap());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_scoregate"));
    command
        .args(["services", "metrics", "iris", "-m", "Requests", "--filter", "reason eq '*'", "-w", "default"])
        .env("SCOREGATE_LOGIN_FILE", gateway.path("login.json"))
        .env("SCOREGATE_TOKEN", std::fs::read_to_string(token).unwrap())
        .env("SCOREGATE_ENDPOINT", format!("https://localhost:{}", endpoint.port()))
        .env("SCOREGATE_CA", gateway.ca());
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let (said, complaint) =
        (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    let lines: Vec<Vec<_>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{said}{complaint}");
    assert_eq!(lines[0], ["METRIC", "OF", "FROM", "VALUES", "UNIT"]);
    assert_eq!((lines[1][1], lines[1][3], lines[1][4]), ("reason=ok", "total=3", "Count"), "{said}");
    assert_eq!((lines[2][1], lines[2][3]), ("reason=auth_missing", "total=1"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_readers_of_the_workspace_and_of_services_that_are_there() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let config = managed(&service("iris", upstream.address, ""));
    let gateway = Gateway::start_with(&config, &[("bootstrap.key", OWNER)]).await;
    let owner = Api::owner(&gateway);
    owner.expect(201, "PUT", "/v1/workspaces/lab", Some(&json!({}))).await;
    let here = owner.login(&gateway, "ann", "Reader", &json!({"workspace": "default"})).await;
    let there = owner.login(&gateway, "bob", "Reader", &json!({"workspace": "lab"})).await;
    let told = here.get(METRICS).await;
    assert_eq!(told["value"][0]["timeseries"][0]["data"].as_array().unwrap().len(), 60, "{told}");
    problem(&there.call("GET", METRICS, None).await, 403, "AuthorizationFailed");
    problem(&Api::with(&gateway, None).call("GET", METRICS, None).await, 401, "AuthMissing");
    for path in ["/v1/workspaces/default/services/wine/metrics", "/v1/workspaces/lab/services/iris/metrics"] {
        problem(&owner.call("GET", path, None).await, 404, "ResourceNotFound");
    }
    for query in ["interval=PT1S", "timespan=PT1M/PT1M", "$filter=colour%20eq%20'red'", "orderby=x"] {
        problem(&owner.call("GET", &format!("{METRICS}?{query}"), None).await, 400, "BadRequest");
    }
}
