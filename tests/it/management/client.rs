//! A gateway with a management plane, and its API as a client calls it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Answer, Connection, Gateway, TlsClient, config};

/// The management token of the configuration: an Owner.
pub const OWNER: &str = "owner-0123456789abcdefghijklmnop";

/// A configuration with a management plane around the declared `services`, with a bootstrap token.
pub fn managed(services: &str) -> String {
    let sections = "management: { address: \"127.0.0.1:0\", bootstrap_token: { file: bootstrap.key }, \
                    tls: { certificates: [ { cert: certs/server.pem, key: certs/server.key } ] } }\n\
                    store: { kind: embedded, path: store }\n\
                    workspace: { name: default }\n\
                    services:\n";
    config(services).replacen("services:\n", sections, 1)
}

/// A running gateway with a management plane and nothing declared.
pub async fn gateway() -> Gateway {
    Gateway::start_with(&managed("  []"), &[("bootstrap.key", OWNER)]).await
}

/// The API as one principal calls it; each call on a connection of its own.
pub struct Api {
    address: SocketAddr,
    ca: PathBuf,
    token: Option<String>,
}

impl Api {
    /// As the owner.
    pub fn owner(gateway: &Gateway) -> Self {
        Self::with(gateway, Some(OWNER))
    }

    /// With `token` as the bearer, or without a credential.
    pub fn with(gateway: &Gateway, token: Option<&str>) -> Self {
        Self {
            address: gateway.running().bound().management.unwrap(),
            ca: gateway.ca().to_owned(),
            token: token.map(str::to_owned),
        }
    }

    /// Where it is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same caller at another gateway.
    pub fn on(&self, gateway: &Gateway) -> Self {
        Self::with(gateway, self.token.as_deref())
    }

    /// Whether the port's certificate is one of this authority.
    pub async fn is_certified_by(&self, ca: &Path) -> bool {
        TlsClient::trusting(&[ca]).connect(self.address, "localhost").await.is_ok()
    }

    /// A connection to the management port.
    pub async fn connect(&self) -> Connection {
        Connection::tls(self.address, "localhost", &self.ca).await
    }

    /// A request as text; `more` are further header lines, each ended.
    pub fn request(&self, method: &str, path: &str, more: &str, body: &str) -> String {
        let token =
            self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Calls, with further header lines.
    pub async fn call_with(&self, method: &str, path: &str, more: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut connection = self.connect().await;
        connection.send(self.request(method, path, more, &body)).await;
        connection.answer().await
    }

    /// Calls.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.call_with(method, path, "", body).await
    }

    /// Calls, expects `status`, and gives the body; null if it is empty.
    pub async fn expect(&self, status: u16, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).unwrap() }
    }

    /// GET, 200.
    pub async fn get(&self, path: &str) -> Value {
        self.expect(200, "GET", path, None).await
    }

    /// A management token for `principal`, who has `role` in `scope` from now on.
    pub async fn login(&self, gateway: &Gateway, principal: &str, role: &str, scope: &Value) -> Self {
        let token = serde_json::json!({"principal": principal, "lifetime_s": 3600});
        let made = self.expect(201, "POST", "/v1/management-tokens", Some(&token)).await;
        let id = uuid::Uuid::new_v4();
        let assignment =
            serde_json::json!({"scope": scope, "grantee": {"principal": principal}, "role": role});
        self.expect(201, "PUT", &format!("/v1/role-assignments/{id}"), Some(&assignment)).await;
        Self::with(gateway, Some(made["token"].as_str().unwrap()))
    }
}

/// Checks that `answer` is a problem of RFC 9457 with this status and code; gives it.
pub fn problem(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (status, "application/problem+json"),
        "{}",
        answer.text()
    );
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
    problem
}
