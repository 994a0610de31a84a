//! Services made, changed, listed and taken away by the API, as their callers feel it.

use serde_json::{Value, json};

use super::{Api, OWNER, gateway, managed, problem};
use crate::harness::{Gateway, KEY, Upstream, ok, service};

const SERVICES: &str = "/v1/workspaces/default/services";

/// An AKS service with one deployment at `replica`.
pub fn aks(replica: std::net::SocketAddr) -> Value {
    json!({
        "compute_type": "AKS",
        "deployments": {"blue": {"traffic": 100, "replicas": [format!("http://{replica}")]}},
    })
}

/// The primary key of `service`.
pub async fn primary_key(api: &Api, service: &str) -> String {
    let keys = api.get(&format!("{SERVICES}/{service}/keys")).await;
    keys["primary"]["value"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_made_by_the_api_is_scored_through_with_its_key_until_it_is_deleted() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    assert_eq!(gateway.score("iris", Some(OWNER), "{}").await.status, 404);
    let made = api.call("PUT", &format!("{SERVICES}/iris"), Some(&aks(upstream.address))).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made: Value = serde_json::from_slice(&made.body).unwrap();
    assert_eq!((&made["auth"], &made["origin"]), (&json!("key"), &json!("managed")));
    let uri = format!("https://{}/api/v1/service/iris/score", gateway.address);
    assert_eq!(made["scoring_uri"], uri);
    let key = primary_key(&api, "iris").await;
    let scored = gateway.score("iris", Some(&key), "{}").await;
    assert_eq!((scored.status, scored.text().as_str()), (200, "[1]"));
    for wrong in [None, Some(OWNER), Some("wrong-0123456789abcdefghijklmnop")] {
        assert_eq!(gateway.score("iris", wrong, "{}").await.status, 401);
    }
    api.expect(204, "DELETE", &format!("{SERVICES}/iris"), None).await;
    assert_eq!(gateway.score("iris", Some(&key), "{}").await.status, 404);
    problem(&api.call("GET", &format!("{SERVICES}/iris"), None).await, 404, "ResourceNotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_update_is_refused_and_a_patch_changes_what_it_names() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    let path = format!("{SERVICES}/iris");
    let spec = aks(upstream.address);
    let made = api.call_with("PUT", &path, "If-None-Match: *\r\n", Some(&spec)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let first = made.header("etag").to_owned();
    let again = api.call_with("PUT", &path, "If-None-Match: *\r\n", Some(&spec)).await;
    problem(&again, 412, "PreconditionFailed");

    let patch = json!({"description": "new", "tags": {"team": "a"}, "deployments": {"green": {"replicas": ["http://10.0.0.1:1"]}}});
    let patched = api.call_with("PATCH", &path, &format!("If-Match: {first}\r\n"), Some(&patch)).await;
    assert_eq!(patched.status, 200, "{}", patched.text());
    let shown: Value = serde_json::from_slice(&patched.body).unwrap();
    assert_eq!(shown["deployments"]["blue"]["traffic"], 100);
    assert_eq!(shown["deployments"]["green"]["traffic"], 0);
    assert_eq!((&shown["description"], &shown["tags"]), (&json!("new"), &json!({"team": "a"})));

    // Somebody who read before the patch.
    let late = api.call_with("PUT", &path, &format!("If-Match: {first}\r\n"), Some(&spec)).await;
    problem(&late, 412, "PreconditionFailed");
    for malformed in ["If-Match: 7\r\n", "If-Match: W/\"7\"\r\n", "If-None-Match: \"7\"\r\n"] {
        problem(&api.call_with("PUT", &path, malformed, Some(&spec)).await, 400, "BadRequest");
    }
    // What was read goes back as it is, and changes nothing but the version.
    let read = api.call("GET", &path, None).await;
    let shown: Value = serde_json::from_slice(&read.body).unwrap();
    let tag = format!("If-Match: {}\r\n", read.header("etag"));
    let put = api.call_with("PUT", &path, &tag, Some(&shown)).await;
    assert_eq!(put.status, 200, "{}", put.text());
    let after: Value = serde_json::from_slice(&put.body).unwrap();
    assert_eq!(after["deployments"], shown["deployments"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_by_filter() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    for number in 0..5 {
        let mut spec = aks(upstream.address);
        spec["tags"] = json!({"parity": if number % 2 == 0 { "even" } else { "odd" }});
        api.expect(201, "PUT", &format!("{SERVICES}/iris-{number}"), Some(&spec)).await;
    }
    let mut names = Vec::new();
    let mut path = format!("{SERVICES}?limit=2");
    loop {
        let page = api.get(&path).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        match page.get("next") {
            Some(next) => path = format!("{SERVICES}?limit=2&cursor={}", next.as_str().unwrap()),
            None => break,
        }
    }
    assert_eq!(names, ["iris-0", "iris-1", "iris-2", "iris-3", "iris-4"]);
    let even = api.get(&format!("{SERVICES}?tag=parity%3Deven&compute_type=AKS")).await;
    assert_eq!(even["items"].as_array().unwrap().len(), 3);
    for bad in
        ["limit=0", "limit=1001", "limit=x", "compute_type=VM", "cursor=%00", "page=1", "limit=1&limit=2"]
    {
        problem(&api.call("GET", &format!("{SERVICES}?{bad}"), None).await, 400, "BadRequest");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_services_are_shown_and_only_the_file_changes_them() {
    let upstream = Upstream::answering(|_| ok(b"[1]")).await;
    let declared = service("iris", upstream.address, "");
    let gateway = Gateway::start_with(&managed(&declared), &[("bootstrap.key", OWNER)]).await;
    let api = Api::owner(&gateway);
    let path = format!("{SERVICES}/iris");
    let shown = api.get(&path).await;
    assert_eq!((&shown["origin"], &shown["auth"]), (&json!("declared"), &json!("key")));
    assert!(!shown.to_string().contains(KEY));
    for (method, path, body) in [
        ("PUT", path.clone(), Some(aks(upstream.address))),
        ("PATCH", path.clone(), Some(json!({"description": "x"}))),
        ("DELETE", path.clone(), None),
        ("POST", format!("{path}/keys/primary/regenerate"), None),
        ("PUT", format!("{path}/deployments/green"), Some(json!({"replicas": ["http://10.0.0.1:1"]}))),
    ] {
        let refused = api.call(method, &path, body.as_ref()).await;
        problem(&refused, 409, "DeclaredInConfiguration");
    }
    assert_eq!(gateway.score("iris", Some(KEY), "{}").await.status, 200);
}

/// The metadata service of a cloud, the gateway's own ports, and a URL that is none: refused by name, nothing is kept.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_where_none_may_be_are_refused() {
    let gateway = gateway().await;
    let api = Api::owner(&gateway);
    let own = gateway.running().bound().management.unwrap();
    for url in [
        "http://169.254.169.254",
        &format!("http://{own}"),
        &format!("http://{}", gateway.observe),
        "ftp://h",
    ] {
        let mut spec = json!({"compute_type": "AKS", "deployments": {"blue": {"traffic": 100}}});
        spec["deployments"]["blue"]["replicas"] = json!([url]);
        let refused = api.call("PUT", &format!("{SERVICES}/iris"), Some(&spec)).await;
        let problem = problem(&refused, 400, "BadRequest");
        assert_eq!(problem["field"], "deployments.blue.replicas[0]", "{problem}");
    }
    assert_eq!(api.get(SERVICES).await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_of_the_configuration_make_uris_and_replicas() {
    let config = format!(
        "{}\nuri_templates: {{ AKS: \"https://{{service}}.aks.test/score\" }}\n\
         replica_template: \"http://{{service}}.{{namespace}}.svc.test:5001\"\n",
        managed("  []")
    );
    let gateway = Gateway::start_with(&config, &[("bootstrap.key", OWNER)]).await;
    let api = Api::owner(&gateway);
    let spec = json!({"compute_type": "AKS", "deployments": {"blue": {"traffic": 100}}});
    let made = api.expect(201, "PUT", &format!("{SERVICES}/iris"), Some(&spec)).await;
    assert_eq!(made["scoring_uri"], "https://iris.aks.test/score");
    assert_eq!(made["deployments"]["blue"]["replicas"], json!([]));
}
