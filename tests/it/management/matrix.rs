//! Who may do what (T44): every operation of the API's own document, called by everybody who might try.
//!
//! The document is the list: an operation that is added to it without an example here fails the test.

use std::time::{Duration, SystemTime};

use scoregate::auth::{MintRequest, SigningKey, mint};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::catalogue::aks;
use super::{Api, OWNER, managed, problem};
use crate::harness::{Gateway, KEY, Upstream, eventually, ok, service};

const ISSUER: &str = "https://login.test";
const AUDIENCE: &str = "api://scoregate";
const ASSIGNMENT: &str = "6f1d9c1e-0c5b-4f0e-9d52-1f6f3f1c2a01";

/// One operation of the document, ready to be called.
struct Operation {
    id: String,
    method: String,
    path: String,
    /// The caller needs one of them.
    actions: Vec<String>,
    statuses: Vec<u16>,
    body: Option<Value>,
}

/// What the path parameters stand for, and what exists by these names.
struct World {
    gateway: Gateway,
    owner: Api,
    operation: String,
    token: String,
    replica: Upstream,
}

impl World {
    /// A workspace `lab` with a service that takes tokens, a role that ann holds, a management token of hers.
    async fn new(issuer: &SigningKey) -> Self {
        let replica = Upstream::answering(|_| ok(b"[1]")).await;
        let issuers = format!(
            "management: {{ issuers: [ {{ issuer: \"{ISSUER}\", audience: \"{AUDIENCE}\", leeway: 0s, jwks: {{ file: jwks.json }} }} ], "
        );
        let config = managed(&service("tulip", replica.address, "")).replace("management: { ", &issuers);
        let jwks = json!({"keys": [issuer.public().jwk()]}).to_string();
        let gateway = Gateway::start_with(&config, &[("bootstrap.key", OWNER), ("jwks.json", &jwks)]).await;
        let owner = Api::owner(&gateway);
        owner.expect(201, "PUT", "/v1/workspaces/lab", Some(&json!({}))).await;
        let mut spec = aks(replica.address);
        spec["auth"] = json!("token");
        spec["deployments"]["green"] = json!({"replicas": ["http://10.0.0.1:5001"]});
        let made = owner.call("PUT", "/v1/workspaces/lab/services/iris", Some(&spec)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let operation = made.header("x-request-id").to_owned();
        let role = json!({"actions": ["*/read"]});
        owner.expect(201, "PUT", "/v1/roles/watcher", Some(&role)).await;
        let given =
            json!({"scope": {"workspace": "lab"}, "grantee": {"principal": "ann"}, "role": "watcher"});
        owner.expect(201, "PUT", &format!("/v1/role-assignments/{ASSIGNMENT}"), Some(&given)).await;
        let token = json!({"principal": "ann", "lifetime_s": 3600});
        let token = owner.expect(201, "POST", "/v1/management-tokens", Some(&token)).await;
        let token = token["id"].as_str().unwrap().to_owned();
        Self { gateway, owner, operation, token, replica }
    }

    /// The operations of the document, with this world's names in their paths.
    async fn operations(&self) -> Vec<Operation> {
        let document = self.owner.get("/v1/openapi.json").await;
        let mut operations = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                let actions = operation["x-scoregate-actions"].as_array().into_iter().flatten();
                let statuses = operation["responses"].as_object().unwrap().keys();
                let body = self.example(&id);
                assert_eq!(body.is_some(), operation.get("requestBody").is_some(), "an example for {id}");
                operations.push(Operation {
                    body,
                    path: self.path(path, &id),
                    method: method.to_uppercase(),
                    actions: actions.map(|action| action.as_str().unwrap().to_owned()).collect(),
                    statuses: statuses.map(|status| status.parse().unwrap()).collect(),
                    id,
                });
            }
        }
        operations
    }

    fn path(&self, path: &str, id: &str) -> String {
        let named = [
            ("{workspace}", "lab"),
            ("{service}", "iris"),
            ("{deployment}", "green"),
            ("{slot}", "secondary"),
            ("{role}", "watcher"),
        ];
        let mut path = named.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
        let (of_id, query) = match id {
            "getOperation" => (self.operation.as_str(), ""),
            "getManagementToken" | "revokeManagementToken" => (self.token.as_str(), ""),
            "getRoleAssignment" | "deleteRoleAssignment" => (ASSIGNMENT, "?workspace=lab"),
            _ => (ASSIGNMENT, ""),
        };
        path = path.replace("{id}", of_id);
        assert!(!path.contains('{'), "no name for a parameter of {path}");
        path + query
    }

    /// A body that the operation takes; `None`: it takes none.
    fn example(&self, id: &str) -> Option<Value> {
        let mut spec = aks(self.replica.address);
        spec["auth"] = json!("token");
        spec["deployments"]["green"] = json!({"replicas": ["http://10.0.0.1:5001"]});
        Some(match id {
            "putWorkspace" => json!({"description": "a lab"}),
            "putService" => spec,
            "patchService" => json!({"description": "irises"}),
            "putDeployment" => json!({"replicas": ["http://10.0.0.2:5001"]}),
            "regenerateKey" => json!({"value": "chosen-0123456789abcdefghijklmnop"}),
            "revokeTokens" => json!({"principal": "nobody"}),
            "putRole" => json!({"actions": ["*/read"], "description": "sees"}),
            "putRoleAssignment" => {
                json!({"scope": {"workspace": "lab"}, "grantee": {"principal": "ann"}, "role": "watcher"})
            }
            "createManagementToken" => json!({"principal": "bob"}),
            _ => return None,
        })
    }
}

/// A token of the outside issuer for `subject`, made so long ago.
fn outside(key: &SigningKey, subject: &str, ago: Duration) -> String {
    let now = SystemTime::now() - ago;
    let lifetime = Duration::from_secs(600);
    let request = MintRequest { issuer: ISSUER, audience: AUDIENCE, subject, lifetime, now };
    mint(key, &request).unwrap().token.expose_secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_asks_who_calls_and_whether_that_one_may() {
    let issuer = SigningKey::generate().unwrap();
    let world = World::new(&issuer).await;
    let World { gateway, owner, .. } = &world;
    let operations = world.operations().await;
    assert!(operations.len() > 30, "the document has lost operations");

    // The credentials of the data plane, and one that was good.
    let scoring = owner.expect(200, "POST", "/v1/workspaces/lab/services/iris/token", None).await;
    let expired = outside(&issuer, "ann", Duration::from_secs(3600));
    let strangers = [
        (None, "AuthMissing"),
        (Some("scoring key"), "AuthInvalid"),
        (Some("scoring token"), "AuthInvalid"),
        (Some("expired"), "AuthExpired"),
    ];
    eventually("the issuer's keys are loaded", async || {
        let ann = Api::with(gateway, Some(&outside(&issuer, "ann", Duration::ZERO)));
        (ann.call("GET", "/v1/whoami", None).await.status == 200).then_some(())
    })
    .await;
    for (kind, code) in strangers {
        let credential = kind.map(|kind| match kind {
            "scoring key" => KEY,
            "scoring token" => scoring["token"].as_str().unwrap(),
            _ => expired.as_str(),
        });
        let stranger = Api::with(gateway, credential);
        for operation in &operations {
            let answer = stranger.call(&operation.method, &operation.path, operation.body.as_ref()).await;
            // Who has nothing but the secret of the first owner is no caller yet, and an expired one neither.
            let code = if operation.id == "bootstrap" && kind.is_some() { "AuthInvalid" } else { code };
            assert_eq!(answer.status, 401, "{kind:?} {}: {}", operation.id, answer.text());
            problem(&answer, 401, code);
            assert!(operation.statuses.contains(&401), "{}", operation.id);
        }
    }

    let reader = owner.login(gateway, "rita", "Reader", &json!("gateway")).await;
    let granted = reader.get("/v1/whoami").await["actions"].clone();
    let granted: Vec<_> = granted.as_array().unwrap().iter().map(|action| action.as_str().unwrap()).collect();
    let mut refused = 0;
    for operation in operations.iter().filter(|operation| operation.id != "bootstrap") {
        let may = operation.actions.is_empty()
            || operation.actions.iter().any(|action| granted.contains(&action.as_str()));
        let answer = reader.call(&operation.method, &operation.path, operation.body.as_ref()).await;
        let expected = if may { 200 } else { 403 };
        assert_eq!(answer.status, expected, "{}: {}", operation.id, answer.text());
        assert!(operation.statuses.contains(&expected), "{} {expected}", operation.id);
        refused += usize::from(!may);
    }
    assert!(refused > 15 && refused < operations.len() - 10, "{refused} of {}", operations.len());

    // What takes away comes last, the inner before the outer.
    let mut ordered: Vec<_> = operations.iter().filter(|operation| operation.id != "bootstrap").collect();
    ordered.sort_by_key(|operation| (operation.method == "DELETE", std::cmp::Reverse(operation.path.len())));
    for operation in ordered {
        let answer = owner.call(&operation.method, &operation.path, operation.body.as_ref()).await;
        let good = (200..300).contains(&answer.status) && operation.statuses.contains(&answer.status);
        assert!(
            good,
            "{} {} {}: {} {}",
            operation.id,
            operation.method,
            operation.path,
            answer.status,
            answer.text()
        );
    }
    assert_eq!(owner.get("/v1/workspaces").await["items"].as_array().unwrap().len(), 1);
}

/// An outside token is a caller with the roles of its subject and its groups, and of nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn an_outside_token_has_the_roles_of_its_subject() {
    let issuer = SigningKey::generate().unwrap();
    let world = World::new(&issuer).await;
    let ann = eventually("the issuer's keys are loaded", async || {
        let ann = Api::with(&world.gateway, Some(&outside(&issuer, "ann", Duration::ZERO)));
        (ann.call("GET", "/v1/whoami", None).await.status == 200).then_some(ann)
    })
    .await;
    let me = ann.get("/v1/whoami").await;
    assert_eq!((&me["principal"], &me["actions"]), (&json!("ann"), &json!([])));
    assert!(me["workspaces"]["lab"].as_array().unwrap().len() > 5, "{me}");
    ann.get("/v1/workspaces/lab/services/iris").await;
    let elsewhere = ann.call("GET", "/v1/workspaces/default/services", None).await;
    problem(&elsewhere, 403, "AuthorizationFailed");
    let write = ann.call("DELETE", "/v1/workspaces/lab/services/iris", None).await;
    problem(&write, 403, "AuthorizationFailed");
    for forged in ["bootstrap", "owner"] {
        let forged = Api::with(&world.gateway, Some(&outside(&issuer, forged, Duration::ZERO)));
        problem(&forged.call("GET", "/v1/whoami", None).await, 401, "AuthInvalid");
    }
    let other = SigningKey::generate().unwrap();
    let stranger = Api::with(&world.gateway, Some(&outside(&other, "ann", Duration::ZERO)));
    problem(&stranger.call("GET", "/v1/whoami", None).await, 401, "AuthInvalid");
}
