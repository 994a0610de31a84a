//! Which credential goes which way, over HTTP: an outside issuer's token, a management token, and what is neither.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::any;
use http::{HeaderMap, Method, Request, header};
use tokio::task::JoinHandle;
use tower_service::Service as _;
use uuid::Uuid;

use super::*;
use crate::auth::{
    AuthSettings, Authenticator, IssuerSettings, JwksSource, MintRequest, OidcSettings, SigningKey, mint,
    run_key_sets,
};
use crate::catalog::{BuiltInRole, Grantee, Scope};
use crate::management::Caller;
use crate::management::http::Api;
use crate::management::operations::fixtures::{Gateway, holder, settings};

const ISSUER: &str = "https://login.example/tenant/v2.0";
const AUDIENCE: &str = "api://scoregate";

/// A gateway that takes tokens of one outside issuer, whose key set is a file.
struct Served {
    gateway: Arc<crate::management::Operations>,
    router: axum::Router,
    key: SigningKey,
    fetching: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.fetching.abort();
    }
}

fn outside(audience: &str, jwks: JwksSource) -> OutsideSettings {
    OutsideSettings {
        oidc: OidcSettings {
            issuer: ISSUER.to_owned(),
            audience: audience.to_owned(),
            jwks,
            leeway: Duration::ZERO,
        },
        subject_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        prefix: String::new(),
    }
}

impl Served {
    async fn start() -> Self {
        let (key, folder) = (SigningKey::generate().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().join("keys.json");
        fs::write(&path, serde_json::json!({ "keys": [key.public().jwk()] }).to_string()).unwrap();
        let registry = JwksRegistry::default();
        let mut with = settings();
        let issuers = vec![outside(AUDIENCE, JwksSource::File(path))];
        with.credentials = Arc::new(Credentials::new(issuers, &registry).unwrap());
        let fetching = tokio::spawn(run_key_sets(registry.clone(), std::future::pending()));
        let there = async {
            while registry.status()[0].keys.is_none() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), there).await.unwrap();

        let gateway = Arc::new(Gateway::with(with).operations);
        let api = Api::new(Arc::clone(&gateway));
        let echo = any(|Extension(caller): Extension<Caller>| async move { caller.principal.to_string() });
        let router = api.protect(axum::Router::new().route("/who", echo), |refusal| {
            http::Response::builder()
                .status(refusal.cause.status())
                .body(Body::from(refusal.cause.code()))
                .unwrap()
        });
        Self { gateway, router: router.with_state(api), key, fetching, _folder: folder }
    }

    fn token(&self, issuer: &str, audience: &str, subject: &str) -> String {
        self.token_at(issuer, audience, subject, SystemTime::now())
    }

    fn token_at(&self, issuer: &str, audience: &str, subject: &str, now: SystemTime) -> String {
        let request = MintRequest { issuer, audience, subject, lifetime: Duration::from_secs(60), now };
        mint(&self.key, &request).unwrap().token.expose_secret().to_owned()
    }

    /// Status and body of a call with `credential`.
    async fn call(&self, method: Method, credential: &str) -> (u16, String) {
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut request =
            Request::builder().method(method).uri("/who?secret=1").extension(ConnectInfo(client));
        if !credential.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
        }
        let answer = self.router.clone().call(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, credential: &str) -> (u16, String) {
        self.call(Method::GET, credential).await
    }
}

fn refused(code: &str) -> (u16, String) {
    (401, code.to_owned())
}

#[tokio::test]
async fn each_kind_of_credential_goes_its_own_way() {
    let served = Served::start().await;
    let (_, own) = {
        let owner = holder(BuiltInRole::Owner);
        let day = Duration::from_secs(86_400);
        served.gateway.create_management_token(&owner, "ann", String::new(), day).unwrap()
    };
    let past = SystemTime::now() - Duration::from_secs(3600);
    let other_key = Served::start().await;
    for (credential, expected) in [
        (served.token(ISSUER, AUDIENCE, "3f25"), (200, "3f25".to_owned())),
        (own.expose_secret().to_owned(), (200, "ann".to_owned())),
        (String::new(), refused("AuthMissing")),
        ("nonsense".to_owned(), refused("AuthInvalid")),
        // A scoring token of that issuer, and one of this gateway.
        (served.token(ISSUER, "iris", "3f25"), refused("AuthInvalid")),
        (served.token("scoregate", "iris", "3f25"), refused("AuthInvalid")),
        (served.token("scoregate", AUDIENCE, "3f25"), refused("AuthInvalid")),
        (other_key.token(ISSUER, AUDIENCE, "3f25"), refused("AuthInvalid")),
        (served.token_at(ISSUER, AUDIENCE, "3f25", past), refused("AuthExpired")),
        // Names that only the gateway itself gives.
        (served.token(ISSUER, AUDIENCE, "owner"), refused("AuthInvalid")),
        (served.token(ISSUER, AUDIENCE, "bootstrap"), refused("AuthInvalid")),
    ] {
        assert_eq!(served.get(&credential).await, expected, "{credential}");
    }
}

#[tokio::test]
async fn an_outside_caller_has_the_roles_of_its_subject() {
    let served = Served::start().await;
    let token = SecretString::from(served.token(ISSUER, AUDIENCE, "3f25"));
    let claims = served.gateway.credentials().vouch(&token).await.unwrap().unwrap();
    let give = |role: &str| {
        let (id, grantee) = (Uuid::new_v4().to_string(), Grantee::Principal("3f25".into()));
        let owner = holder(BuiltInRole::Owner);
        served.gateway.put_role_assignment(&owner, &id, Scope::Gateway, grantee, role).unwrap();
    };
    give("Reader");
    let request = crate::management::operations::fixtures::request();
    let caller = served.gateway.outside_caller(&claims.subject, &claims.groups, request).unwrap();
    assert_eq!(caller.grants.within(None), BuiltInRole::Reader.actions());
}

#[tokio::test]
async fn strangers_leave_events_of_what_they_tried_to_write_only() {
    let served = Served::start().await;
    let events = || {
        let owner = holder(BuiltInRole::Owner);
        served.gateway.activity(&owner, &Default::default(), &Default::default()).unwrap().items
    };
    for method in [Method::GET, Method::HEAD] {
        served.call(method, "nonsense").await;
    }
    assert!(events().is_empty());
    for (method, operation) in [
        (Method::PUT, "Scoregate/unauthenticated/write"),
        (Method::DELETE, "Scoregate/unauthenticated/delete"),
        (Method::POST, "Scoregate/unauthenticated/action"),
    ] {
        assert_eq!(served.call(method, "nonsense").await.0, 401);
        let latest = &events()[0];
        assert_eq!((latest.operation_name.as_str(), latest.resource_id.as_str()), (operation, "/who"));
        assert!(latest.caller.is_empty() && latest.error.as_ref().unwrap().starts_with("AuthInvalid"));
    }
    assert_eq!(events().len(), 6);
}

#[tokio::test]
async fn no_management_credential_opens_a_service() {
    let served = Served::start().await;
    let owner = holder(BuiltInRole::Owner);
    let day = Duration::from_secs(86_400);
    let (_, own) = served.gateway.create_management_token(&owner, "ann", String::new(), day).unwrap();
    let issuer = IssuerSettings {
        issuer: ISSUER.to_owned(),
        signing_key: Arc::new(SigningKey::from_pkcs8(&served.key.to_pkcs8()).unwrap()),
        lifetime: day,
        leeway: Duration::ZERO,
    };
    let service = crate::catalog::ServiceName::parse("iris").unwrap();
    let tokens = AuthSettings::Token(Arc::new(issuer.verification()));
    let service = Authenticator::new(&tokens, &service, &JwksRegistry::default(), None).unwrap();
    let enter = async |credential: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {credential}").parse().unwrap());
        service.authenticate(&headers, SystemTime::now()).await.map(|_| ()).map_err(|error| error.kind)
    };
    assert!(enter(&served.token(ISSUER, "iris", "3f25")).await.is_ok());
    for credential in [own.expose_secret(), &served.token(ISSUER, AUDIENCE, "3f25")] {
        assert_eq!(enter(credential).await.err(), Some(Kind::AuthInvalid));
    }
}

#[test]
fn settings_that_would_mix_things_up_are_refused_by_name() {
    let file = || JwksSource::File("/does/not/matter".into());
    let build = |issuers| Credentials::new(issuers, &JwksRegistry::default()).map_err(|error| error.field);
    assert_eq!(build(vec![outside("iris", file())]).err(), Some("oidc.audience"));
    assert_eq!(build(vec![outside(AUDIENCE, file()), outside("api://b", file())]).err(), Some("oidc.issuer"));
    let built = build(vec![outside(AUDIENCE, file())]).unwrap();
    assert_eq!(format!("{built:?}"), format!("[{ISSUER:?}]"));
}
