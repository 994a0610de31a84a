//! Whole calls against operations on a store in memory.

use super::*;
use crate::catalog::{ActionSet, BuiltInRole, ComputeType};
use crate::management::azure_v1::answer::{self, OperationLink};
use crate::management::azure_v1::route::{Call, Place};
use crate::management::azure_v1::{Input, perform};
use crate::management::operations::fixtures::{self, Gateway};
use crate::management::operations::{ActivityStatus, Precondition, SuppliedKeys};
use crate::management::{Caller, Cause};

/// An answer as the SDK sees it.
#[derive(Debug)]
struct Seen {
    status: u16,
    operation: Option<String>,
    body: Value,
}

struct Client<'a> {
    gateway: &'a Gateway,
    caller: Caller,
    workspace: &'static str,
}

impl<'a> Client<'a> {
    fn new(gateway: &'a Gateway, role: BuiltInRole) -> Self {
        Self { gateway, caller: fixtures::holder(role), workspace: fixtures::DECLARED }
    }

    async fn call(&self, call: Call, body: Value) -> Seen {
        self.ask(call, &[], body).await
    }

    async fn ask(&self, call: Call, query: &[(&str, &str)], body: Value) -> Seen {
        let place = Place {
            subscription: "SUB".into(),
            resource_group: "rg".into(),
            workspace: self.workspace.into(),
        };
        let caller = Caller { request: fixtures::request(), ..self.caller.clone() };
        let link = OperationLink { base: "https://gw:9443".into(), place, id: caller.request.operation_id };
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = perform(&self.gateway.operations, &caller, &link, Input { call, query, body });
        let response =
            answer.map_or_else(|refusal| answer::refusal(&refusal), |answer| answer.respond(&link));
        let status = response.status().as_u16();
        let operation = response.headers().get("operation-location");
        let operation = operation.map(|url| url.to_str().unwrap().rsplit('/').next().unwrap().to_owned());
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Seen { status, operation, body }
    }

    async fn with_service(self) -> Self {
        let made = self.call(Call::Create, service()).await;
        assert_eq!(made.status, 202, "{made:?}");
        self
    }

    async fn get(&self, name: &str) -> Seen {
        self.call(Call::Get(name.into()), Value::Null).await
    }
}

fn service() -> Value {
    let keys = json!({ "primaryKey": "P".repeat(32), "secondaryKey": null });
    with(smallest_aks(), json!({ "properties": { "upstream": "http://127.0.0.1:5001" }, "keys": keys }))
}

fn named() -> String {
    "svc-aks".into()
}

#[tokio::test]
async fn a_change_is_done_when_it_is_answered_and_its_operation_has_ended() {
    let gateway = Gateway::new();
    let owner = Client::new(&gateway, BuiltInRole::Owner);
    let made = owner.call(Call::Create, service()).await;
    assert_eq!((made.status, &made.body["state"]), (202, &json!("Healthy")), "{made:?}");
    let found = owner.get("svc-aks").await;
    assert_eq!((found.status, &found.body), (200, &made.body));
    assert_eq!(found.body["operationId"], json!(made.operation));

    let changed = owner.call(Call::Patch(named()), json!([replace("/description", "d")])).await;
    assert_eq!((changed.status, &changed.body["description"]), (202, &json!("d")));
    let key = json!({ "keyType": "Primary", "keyValue": null });
    let regenerated = owner.call(Call::RegenerateKey(named()), key).await;
    assert_eq!(regenerated.status, 202);
    let deleted = owner.call(Call::Delete(named()), Value::Null).await;
    assert_eq!(deleted.status, 200);
    let operations: Vec<_> =
        [made, changed, regenerated, deleted].into_iter().map(|seen| seen.operation.unwrap()).collect();
    for operation in &operations {
        let polled = owner.call(Call::Operation(operation.clone()), Value::Null).await;
        assert_eq!((polled.status, &polled.body["state"]), (200, &json!("Succeeded")), "{polled:?}");
    }
    assert_eq!(operations.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    assert_eq!(owner.get("svc-aks").await.status, 404);
    assert_eq!(owner.call(Call::Delete(named()), Value::Null).await.status, 204);
}

#[tokio::test]
async fn a_refused_patch_changes_nothing_and_its_operation_has_failed() {
    let gateway = Gateway::new();
    let owner = Client::new(&gateway, BuiltInRole::Owner).with_service().await;
    let before = owner.get("svc-aks").await.body;
    let patch = json!([replace("/description", "half"), replace("/nonsense", 1)]);
    let refused = owner.call(Call::Patch(named()), patch).await;
    assert_eq!((refused.status, refused.operation), (400, None));
    assert!(
        refused.body["error"]["message"].as_str().unwrap().starts_with("/nonsense: "),
        "{}",
        refused.body
    );
    assert_eq!(owner.get("svc-aks").await.body, before);
    assert_eq!(gateway.statuses().last(), Some(&ActivityStatus::Failed));
}

#[tokio::test]
async fn a_taken_name_is_refused_unless_it_is_to_be_overwritten() {
    let gateway = Gateway::new();
    let owner = Client::new(&gateway, BuiltInRole::Owner).with_service().await;
    let again = owner.call(Call::Create, service()).await;
    assert_eq!((again.status, &again.body["code"]), (409, &json!("ResourceExists")), "{again:?}");
    for (call, body) in [
        (Call::ValidateName(named()), json!({})),
        (Call::Validate, json!({ "type": "Create", "serviceName": "svc-aks", "createRequest": service() })),
    ] {
        let told = owner.call(call, body).await;
        assert_eq!(told.status, 200);
        assert!(told.body["error"]["message"].as_str().unwrap().contains("exists already"), "{}", told.body);
    }
    let other = json!({ "overwrite": true, "description": "other" });
    let written = owner.call(Call::Create, with(service(), other)).await;
    assert_eq!((written.status, &written.body["description"]), (202, &json!("other")));
    assert_eq!(owner.call(Call::Replace, service()).await.status, 202);
}

#[tokio::test]
async fn what_would_be_refused_is_told_beforehand() {
    let gateway = Gateway::new();
    let owner = Client::new(&gateway, BuiltInRole::Owner).with_service().await;
    let request = |kind: &str, create: Value, update: Value| json!({ "type": kind, "serviceName": "svc-aks", "createRequest": create, "updateRequest": update });
    let new = |more| with(service(), with(json!({ "name": "new" }), more));
    for (body, told) in [
        (request("Create", new(json!({})), Value::Null), None),
        (request("Create", new(json!({ "name": "X" })), Value::Null), Some("name: ")),
        (request("Create", new(json!({ "computeType": "IOT" })), Value::Null), Some("computeType: ")),
        (
            request("Create", new(json!({ "scoringTimeoutMs": 300_001 })), Value::Null),
            Some("scoringTimeoutMs: "),
        ),
        (request("Create", with(service(), json!({ "overwrite": true })), Value::Null), None),
        (request("Update", Value::Null, json!([replace("/description", "d")])), None),
        (request("Update", Value::Null, json!([replace("/name", "d")])), Some("/name: ")),
        (request("Delete", Value::Null, Value::Null), None),
    ] {
        let seen = owner.call(Call::Validate, body.clone()).await;
        assert_eq!(seen.status, 200, "{body}");
        match told {
            None => assert_eq!(seen.body, json!({}), "{body}"),
            Some(place) => {
                assert!(seen.body["error"]["message"].as_str().unwrap().starts_with(place), "{body}")
            }
        }
    }
    assert_eq!(owner.call(Call::ValidateResource, service()).await.body, json!({}));
    assert_eq!(owner.get("svc-aks").await.body["description"], Value::Null);
}

#[tokio::test]
async fn keys_are_seen_by_those_who_may_list_them_and_nowhere_else() {
    let gateway = Gateway::new();
    let owner = Client::new(&gateway, BuiltInRole::Owner).with_service().await;
    let keys = owner.call(Call::ListKeys(named()), Value::Null).await;
    assert_eq!((keys.status, &keys.body["primaryKey"]), (200, &json!("P".repeat(32))));
    let secondary = keys.body["secondaryKey"].as_str().unwrap().to_owned();
    let told = owner.get("svc-aks").await.body.to_string();
    assert!(!told.contains(&"P".repeat(32)) && !told.contains(&secondary));
    for (key_type, slot) in [(json!("secondary"), "secondaryKey"), (json!(0), "primaryKey")] {
        let body = json!({ "keyType": key_type, "keyValue": "N".repeat(32) });
        assert_eq!(owner.call(Call::RegenerateKey(named()), body).await.status, 202);
        let keys = owner.call(Call::ListKeys(named()), Value::Null).await.body;
        assert_eq!(keys[slot], json!("N".repeat(32)));
        let generated = json!({ "keyType": key_type, "keyValue": "" });
        assert_eq!(owner.call(Call::RegenerateKey(named()), generated).await.status, 202);
        let keys = owner.call(Call::ListKeys(named()), Value::Null).await.body;
        assert_ne!(keys[slot], json!("N".repeat(32)));
    }
    for wrong in [json!({}), json!({ "keyType": "Third" }), json!({ "keyType": 2 }), json!([])] {
        assert_eq!(owner.call(Call::RegenerateKey(named()), wrong).await.status, 400);
    }
}

#[tokio::test]
async fn a_token_is_told_as_the_sdk_reads_it_and_a_reader_gets_one() {
    let gateway = Gateway::new();
    let owner = Client::new(&gateway, BuiltInRole::Owner).with_service().await;
    let refused = owner.call(Call::Token(named()), Value::Null).await;
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("Conflict")));
    let switch = json!([replace("/authEnabled", false), replace("/aadAuthEnabled", true)]);
    assert_eq!(owner.call(Call::Patch(named()), switch).await.status, 202);
    let reader = Client::new(&gateway, BuiltInRole::Reader);
    let token = reader.call(Call::Token(named()), Value::Null).await;
    assert_eq!((token.status, &token.body["tokenType"]), (201, &json!("Bearer")), "{token:?}");
    let times = [&token.body["refreshAfter"], &token.body["expiryOn"]].map(|it| it.as_i64().unwrap());
    assert!(times[0] < times[1]);
}

#[tokio::test]
async fn a_reader_is_refused_in_words_of_this_api() {
    let gateway = Gateway::new();
    Client::new(&gateway, BuiltInRole::Owner).with_service().await;
    let reader = Client::new(&gateway, BuiltInRole::Reader);
    assert_eq!(reader.get("svc-aks").await.status, 200);
    assert_eq!(reader.call(Call::Logs(named()), Value::Null).await.status, 200);
    for (call, body) in [
        (Call::ListKeys(named()), Value::Null),
        (Call::RegenerateKey(named()), json!({ "keyType": "Primary" })),
        (Call::Patch(named()), json!([replace("/description", "d")])),
        (Call::Delete(named()), Value::Null),
        (Call::Create, with(service(), json!({ "name": "another" }))),
    ] {
        let refused = reader.call(call.clone(), body).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["code"]),
            (403, &json!("AuthorizationFailed")),
            "{call:?}"
        );
    }
    let mut stranger = Client::new(&gateway, BuiltInRole::Reader);
    stranger.caller = fixtures::caller("stranger", ActionSet::NONE);
    assert_eq!(stranger.get("svc-aks").await.status, 403);
    // The same where there is nothing: who has no role does not learn which workspaces there are.
    stranger.workspace = "elsewhere";
    assert_eq!(stranger.get("svc-aks").await.status, 403);
}

#[tokio::test]
async fn a_managed_service_is_not_there_for_this_sdk() {
    let gateway = Gateway::new();
    let owner = Client::new(&gateway, BuiltInRole::Owner).with_service().await;
    let mut spec = ServiceSpec::new(ComputeType::Managed);
    spec.properties.insert("upstream".into(), "http://127.0.0.1:5001".into());
    let made = gateway.operations.put_service(
        &owner.caller,
        fixtures::DECLARED,
        "managed",
        spec,
        SuppliedKeys::default(),
        Precondition::Absent,
    );
    made.unwrap();
    let name = || "managed".to_owned();
    for (call, body) in [
        (Call::Get(name()), Value::Null),
        (Call::Patch(name()), json!([replace("/description", "d")])),
        (Call::Delete(name()), Value::Null),
        (Call::ListKeys(name()), Value::Null),
        (Call::RegenerateKey(name()), json!({ "keyType": "Primary" })),
        (Call::Token(name()), Value::Null),
        (Call::Logs(name()), Value::Null),
    ] {
        assert_eq!(owner.call(call.clone(), body).await.status, 404, "{call:?}");
    }
    let listed = owner.call(Call::List, Value::Null).await.body;
    assert_eq!(listed["value"].as_array().unwrap().len(), 1);
    assert!(gateway.operations.service(&owner.caller, fixtures::DECLARED, "managed").is_ok());
}

#[tokio::test]
async fn pages_are_linked_and_the_last_one_is_not() {
    let gateway = Gateway::new();
    let owner = Client::new(&gateway, BuiltInRole::Owner);
    for name in ["one", "two", "three"] {
        assert_eq!(owner.call(Call::Create, with(service(), json!({ "name": name }))).await.status, 202);
    }
    let (mut names, mut query) = (Vec::new(), vec![("count".to_owned(), "2".to_owned())]);
    loop {
        let borrowed: Vec<_> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let page = owner.ask(Call::List, &borrowed, Value::Null).await.body;
        names.extend(
            page["value"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page.as_object().unwrap().get("nextLink") else { break };
        let next: url::Url = next.as_str().unwrap().parse().unwrap();
        assert_eq!(next.host_str(), Some("gw"));
        query = next.query_pairs().into_owned().collect();
    }
    assert_eq!(names, ["one", "three", "two"]);
    let filter = json!({ "count": 2 });
    let first = owner.call(Call::ListByFilter, filter.clone()).await.body;
    let more = json!({ "continuationToken": first["continuationToken"] });
    let second = owner.call(Call::ListByFilter, with(filter, more)).await.body;
    assert_eq!((second["value"].as_array().unwrap().len(), &second["continuationToken"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_missing_service_and_a_missing_workspace_are_404() {
    let gateway = Gateway::new();
    let mut owner = Client::new(&gateway, BuiltInRole::Owner);
    let missing = owner.get("missing").await;
    assert_eq!((missing.status, &missing.body["code"]), (404, &json!(Cause::NotFound.code())));
    assert_eq!(owner.call(Call::Operation("none".into()), Value::Null).await.status, 404);
    assert_eq!(owner.call(Call::Migrate, json!({})).await.status, 400);
    owner.workspace = "elsewhere";
    assert_eq!(owner.call(Call::List, Value::Null).await.status, 404);
    owner.workspace = "WS";
    assert_eq!(owner.call(Call::List, Value::Null).await.status, 200);
}
