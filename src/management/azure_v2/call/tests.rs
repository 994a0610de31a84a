//! Calls against operations on a store in memory.

use axum::response::IntoResponse as _;
use http::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::super::target::Target;
use super::*;
use crate::catalog::{BuiltInRole, ComputeType, ServiceSpec};
use crate::management::operations::SuppliedKeys;
use crate::management::operations::fixtures::{Gateway, TestStore, holder, request, settings};
use crate::store::{Batch, MemoryStore, Order, Range, Store as _, Table};

const WORKSPACE: &str = "sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws";

/// An answer as its client sees it.
#[derive(Debug)]
struct Answer {
    status: u16,
    etag: Option<String>,
    body: Value,
}

struct Client<'a> {
    gateway: &'a Gateway,
    role: BuiltInRole,
    precondition: Precondition,
}

impl<'a> Client<'a> {
    fn new(gateway: &'a Gateway) -> Self {
        Self { gateway, role: BuiltInRole::Owner, precondition: Precondition::None }
    }

    /// A call about something in the workspace.
    async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        self.call_of(&format!("{WORKSPACE}{path}"), method, body).await
    }

    /// A call about something below `/subscriptions/`.
    async fn call_of(&self, rest: &str, method: Method, body: Value) -> Answer {
        let uri: Uri = format!("/subscriptions/{rest}").parse().unwrap();
        let caller = Caller { request: request(), ..holder(self.role) };
        let target = Target::parse(rest.split('?').next().unwrap()).unwrap();
        let (base, precondition) = ("https://gateway".to_owned(), self.precondition);
        let call = Call { caller, method, uri, base, precondition, body };
        let answer = call.answer(target, &self.gateway.operations);
        let response = answer.map_or_else(|refusal| super::super::render(&refusal), Reply::into_response);
        let status = response.status().as_u16();
        let etag = response.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned());
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status, etag, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null).await
    }

    /// The endpoint iris with the deployments blue and green.
    async fn with_iris(self) -> Self {
        let endpoint = json!({ "properties": { "authMode": "Key" } });
        assert_eq!(self.call(Method::PUT, "/onlineEndpoints/iris", endpoint).await.status, 201);
        for name in ["blue", "green"] {
            let made = self.call(Method::PUT, &deployment(name), upstream()).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        self
    }
}

fn deployment(name: &str) -> String {
    format!("/onlineEndpoints/iris/deployments/{name}")
}

fn upstream() -> Value {
    json!({ "properties": { "properties": { "upstream": "http://127.0.0.1:5001" } } })
}

#[tokio::test]
async fn an_endpoint_lives_from_put_to_delete() {
    let gateway = Gateway::new();
    let client = Client::new(&gateway).with_iris().await;
    let traffic = json!({ "properties": { "traffic": { "blue": 100 } } });
    let replaced = client.call(Method::PUT, "/onlineEndpoints/iris", traffic.clone()).await;
    assert_eq!((replaced.status, &replaced.body["properties"]["traffic"]), (200, &json!({ "blue": 100 })));
    let listed = client.get("/onlineEndpoints/iris/deployments").await.body;
    assert_eq!(listed["value"].as_array().unwrap().len(), 2, "replacing it dropped its deployments");
    // A new version of a deployment keeps its share.
    assert_eq!(client.call(Method::PUT, &deployment("blue"), upstream()).await.status, 200);
    assert_eq!(
        client.get("/onlineEndpoints/iris").await.body["properties"]["traffic"],
        json!({ "blue": 100 })
    );
    assert_eq!(client.call(Method::DELETE, &deployment("blue"), Value::Null).await.status, 409);
    assert_eq!(client.call(Method::DELETE, &deployment("green"), Value::Null).await.status, 200);
    assert_eq!(client.call(Method::DELETE, &deployment("green"), Value::Null).await.status, 204);
    assert_eq!(client.call(Method::DELETE, "/onlineEndpoints/iris", Value::Null).await.status, 200);
    assert_eq!(client.call(Method::DELETE, "/onlineEndpoints/iris", Value::Null).await.status, 204);
    assert_eq!(client.get("/onlineEndpoints/iris").await.status, 404);
}

#[tokio::test]
async fn an_operation_can_be_polled_where_the_answer_says() {
    let gateway = Gateway::new();
    let client = Client::new(&gateway).with_iris().await;
    let body = client.get("/onlineEndpoints/iris").await.body;
    let uri = body["properties"]["properties"]["AzureAsyncOperationUri"].as_str().unwrap();
    let rest = uri.strip_prefix("https://gateway/subscriptions/").unwrap();
    let operation = client.call_of(rest, Method::GET, Value::Null).await;
    assert_eq!((operation.status, &operation.body["status"]), (200, &json!("Succeeded")), "{operation:?}");
}

#[tokio::test]
async fn a_stale_etag_is_refused_and_a_fresh_one_passes() {
    let gateway = Gateway::new();
    let mut client = Client::new(&gateway).with_iris().await;
    let version = |etag: Option<String>| etag.unwrap().trim_matches('"').parse().unwrap();
    let read = version(client.get(&deployment("blue")).await.etag);
    client.precondition = Precondition::Version(read);
    let patch = || json!({ "tags": { "a": "b" } });
    let changed = client.call(Method::PATCH, &deployment("blue"), patch()).await;
    assert_eq!((changed.status, &changed.body["tags"]), (200, &json!({ "a": "b" })));
    assert_eq!(client.call(Method::PATCH, &deployment("blue"), patch()).await.status, 412);
    assert_eq!(client.call(Method::PATCH, "/onlineEndpoints/iris", patch()).await.status, 412);
    assert_eq!(client.call(Method::DELETE, "/onlineEndpoints/iris", Value::Null).await.status, 412);
    client.precondition = Precondition::Absent;
    let again = json!({ "properties": { "authMode": "Key" } });
    assert_eq!(client.call(Method::PUT, "/onlineEndpoints/iris", again).await.status, 409);
}

/// What another gateway on the same store does: touches the row of the service.
fn touch(store: &MemoryStore) {
    let services =
        Range { table: Table::Services, prefix: &[], after: None, limit: 1, order: Order::Forwards };
    let row = store.scan(&services).unwrap().remove(0);
    let mut batch = Batch::default();
    batch.put(Table::Services, row.key, row.value);
    store.commit(batch).unwrap();
}

#[tokio::test]
async fn a_deployment_written_while_somebody_else_was_faster_is_written_all_the_same() {
    let gateway = Gateway::on(std::sync::Arc::<TestStore>::default(), settings());
    let client = Client::new(&gateway).with_iris().await;
    gateway.store.rivals.lock().unwrap().push(Box::new(touch));
    let patched = client.call(Method::PATCH, &deployment("blue"), json!({ "tags": { "a": "b" } })).await;
    assert_eq!((patched.status, &patched.body["tags"]["a"]), (200, &json!("b")), "{patched:?}");
    assert!(gateway.store.rivals.lock().unwrap().is_empty());
}

#[tokio::test]
async fn services_on_aci_are_not_there() {
    let gateway = Gateway::new();
    let client = Client::new(&gateway).with_iris().await;
    let mut spec = ServiceSpec::new(ComputeType::Aci);
    spec.properties.insert("upstream".into(), "http://127.0.0.1:5001".into());
    let made = gateway.operations.put_service(
        &holder(BuiltInRole::Owner),
        "ws",
        "aci-svc",
        spec,
        SuppliedKeys::default(),
        Precondition::None,
    );
    made.unwrap();
    assert_eq!(client.get("/onlineEndpoints/aci-svc").await.status, 404);
    assert_eq!(client.call(Method::DELETE, "/onlineEndpoints/aci-svc", Value::Null).await.status, 204);
    assert_eq!(client.call(Method::POST, "/onlineEndpoints/aci-svc/listKeys", Value::Null).await.status, 404);
    assert_eq!(client.call(Method::PATCH, "/onlineEndpoints/aci-svc", json!({})).await.status, 404);
    let body = json!({ "properties": { "authMode": "Key" } });
    assert_eq!(client.call(Method::PUT, "/onlineEndpoints/aci-svc", body).await.status, 409);
    let listed = client.get("/onlineEndpoints").await.body;
    let names: Vec<_> = listed["value"].as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!(names, ["iris"]);
    gateway.operations.service(&holder(BuiltInRole::Owner), "ws", "aci-svc").expect("it is still there");
}

#[tokio::test]
async fn the_key_in_place_means_a_new_one_and_any_other_is_set() {
    let gateway = Gateway::new();
    let client = Client::new(&gateway).with_iris().await;
    let keys = async || client.call(Method::POST, "/onlineEndpoints/iris/listKeys", Value::Null).await.body;
    let regenerate = async |body: Value| {
        client.call(Method::POST, "/onlineEndpoints/iris/regenerateKeys", body).await.status
    };
    let before = keys().await;
    let same = json!({ "keyType": "Primary", "keyValue": before["primaryKey"] });
    assert_eq!(regenerate(same).await, 200);
    let after = keys().await;
    assert_ne!(after["primaryKey"], before["primaryKey"]);
    assert_eq!(after["secondaryKey"], before["secondaryKey"]);
    let own = "an-own-key-of-32-characters-0123";
    assert_eq!(regenerate(json!({ "keyType": "secondary", "keyValue": own })).await, 200);
    assert_eq!(keys().await["secondaryKey"], own);
    assert_eq!(regenerate(json!({ "keyType": "Both" })).await, 400);
}

#[tokio::test]
async fn a_token_is_for_those_who_hold_its_action() {
    let gateway = Gateway::new();
    let mut client = Client::new(&gateway);
    let endpoint = json!({ "properties": { "authMode": "AMLToken" } });
    assert_eq!(client.call(Method::PUT, "/onlineEndpoints/iris", endpoint).await.status, 201);
    let token = client.call(Method::POST, "/onlineEndpoints/iris/token", Value::Null).await;
    assert_eq!((token.status, &token.body["tokenType"]), (200, &json!("Bearer")));
    let (refresh, expiry) =
        (token.body["refreshAfterTimeUtc"].as_i64(), token.body["expiryTimeUtc"].as_i64());
    assert!(Some(OffsetDateTime::now_utc().unix_timestamp()) < refresh && refresh < expiry, "{token:?}");
    client.role = BuiltInRole::Reader;
    for action in ["token", "listKeys", "regenerateKeys"] {
        let path = format!("/onlineEndpoints/iris/{action}");
        let refused = client.call(Method::POST, &path, json!({ "keyType": "Primary" })).await;
        assert_eq!(refused.status, 403, "{refused:?}");
        assert_eq!(refused.body["error"]["code"], "AuthorizationFailed");
    }
}

#[tokio::test]
async fn a_wrong_body_changes_nothing_and_a_wrong_method_is_refused() {
    let gateway = Gateway::new();
    let client = Client::new(&gateway).with_iris().await;
    let before = client.get("/onlineEndpoints/iris").await;
    for body in [Value::Null, json!([]), json!({ "properties": { "traffic": { "red": 100 } } })] {
        assert_eq!(client.call(Method::PUT, "/onlineEndpoints/iris", body).await.status, 400);
    }
    assert_eq!(client.call(Method::PATCH, "/onlineEndpoints/iris", json!("x")).await.status, 400);
    let after = client.get("/onlineEndpoints/iris").await;
    assert_eq!((after.etag, after.body), (before.etag, before.body));
    assert_eq!(client.call(Method::POST, "/onlineEndpoints/iris", json!({})).await.status, 405);
    assert_eq!(client.call(Method::DELETE, "", Value::Null).await.status, 405);
}

#[tokio::test]
async fn the_workspace_and_its_subscription_are_told() {
    let gateway = Gateway::new();
    let client = Client::new(&gateway);
    let workspace = client.get("").await.body;
    assert_eq!((&workspace["name"], &workspace["location"]), (&json!("ws"), &json!("westeurope")));
    assert_eq!(workspace["properties"]["discoveryUrl"], "https://gateway/discovery");
    let subscriptions = client.call_of("", Method::GET, Value::Null).await.body;
    assert_eq!(subscriptions["value"][0]["subscriptionId"], "sub");
    assert_eq!(client.call_of("SUB", Method::GET, Value::Null).await.body["state"], "Enabled");
    assert_eq!(client.call_of("other", Method::GET, Value::Null).await.status, 404);
    let all = "sub/providers/Microsoft.MachineLearningServices/workspaces";
    assert_eq!(client.call_of(all, Method::GET, Value::Null).await.body["value"][0], workspace);
    let elsewhere = WORKSPACE.replace("/rg/", "/other/");
    assert_eq!(client.call_of(&elsewhere, Method::GET, Value::Null).await.status, 404);
}

#[test]
fn an_operation_that_is_done_has_no_error() {
    let mut done = OperationStatus {
        status: ActivityStatus::Succeeded,
        operation_name: "write".into(),
        resource_id: "/x".into(),
        started_at: OffsetDateTime::UNIX_EPOCH,
        ended_at: Some(OffsetDateTime::UNIX_EPOCH),
        error: None,
    };
    let body = operation("id", &done);
    assert_eq!((&body["status"], body.get("error")), (&json!("Succeeded"), None));
    assert_eq!(body["endTime"], "1970-01-01T00:00:00Z");
    done.status = ActivityStatus::Failed;
    done.error = Some("why".into());
    let body = operation("id", &done);
    assert_eq!((&body["status"], &body["error"]["message"]), (&json!("Failed"), &json!("why")));
}

#[test]
fn all_pages_are_gathered() {
    let list = |page: &Page| {
        let first: u32 = page.cursor.as_deref().map_or(0, |cursor| cursor.parse().unwrap());
        let next = (first < 2).then(|| (first + 1).to_string());
        Ok(PageOf { items: vec![first * 2, first * 2 + 1], next })
    };
    assert_eq!(gather(list), Ok(vec![0, 1, 2, 3, 4, 5]));
}
