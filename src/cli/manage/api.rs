//! The management API's client: requests out, JSON in, problems told with what to do about them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Items asked for at once where all are wanted.
const PAGE: usize = 500;

/// One gateway's management API.
pub(super) struct Api {
    agent: ureq::Agent,
    endpoint: String,
    token: Option<SecretString>,
}

/// What the API said.
pub(super) struct Answer {
    /// The body; `null` if there was none.
    pub value: Value,
}

/// One request.
pub(super) struct Call<'a> {
    pub method: Method,
    pub path: &'a str,
    pub body: Option<&'a Value>,
    /// `If-Match`, as the `etag` of an answer gave it.
    pub if_match: Option<&'a str>,
    /// `If-None-Match: *`: only if there is nothing yet.
    pub if_none_match: bool,
    pub content_type: &'static str,
}

impl<'a> Call<'a> {
    pub fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            body: None,
            if_match: None,
            if_none_match: false,
            content_type: "application/json",
        }
    }

    pub const fn with_body(mut self, body: &'a Value) -> Self {
        self.body = Some(body);
        self
    }
}

impl Api {
    /// An API at `endpoint` (`https`), trusted by the certificates in the PEM text `ca`, or else by the system's.
    ///
    /// # Errors
    /// The endpoint is no `https` URL, or `ca` holds no certificate.
    pub fn new(endpoint: &str, ca: Option<&str>, token: Option<SecretString>) -> anyhow::Result<Self> {
        let url: url::Url =
            endpoint.parse().with_context(|| format!("--endpoint: '{endpoint}' is no URL"))?;
        if url.scheme() != "https" {
            bail!("--endpoint: '{endpoint}' must begin with https://; the management plane has no other");
        }
        let tls = TlsConfig::builder()
            .root_certs(roots(ca)?)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE))
            .user_agent(concat!("scoregate-cli/", env!("CARGO_PKG_VERSION")))
            // Management traffic carries tokens; it goes where it is told to and through nobody else.
            .proxy(None)
            .build();
        Ok(Self { agent: config.new_agent(), endpoint: endpoint.trim_end_matches('/').to_owned(), token })
    }

    /// Makes a call; its answer must be a success.
    ///
    /// # Errors
    /// The gateway cannot be reached, or refuses: with its reason and what to do.
    pub fn call(&self, call: &Call<'_>) -> anyhow::Result<Answer> {
        let uri = format!("{}{}", self.endpoint, call.path);
        let mut request = http::Request::builder().method(&call.method).uri(&uri);
        if let Some(token) = &self.token {
            request =
                request.header(http::header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        if let Some(tag) = call.if_match {
            request = request.header(http::header::IF_MATCH, tag);
        }
        if call.if_none_match {
            request = request.header(http::header::IF_NONE_MATCH, "*");
        }
        let sent = match call.body {
            Some(body) => {
                let request = request.header(http::header::CONTENT_TYPE, call.content_type);
                self.agent.run(request.body(serde_json::to_vec(body)?)?)
            }
            None => self.agent.run(request.body(())?),
        };
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec();
        let body = body.context("the gateway's answer broke off")?;
        let value = if body.is_empty() { Value::Null } else { parse(&body) };
        if status.is_success() { Ok(Answer { value }) } else { Err(refusal(status, &value)) }
    }

    /// What there is at `path`.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(&Call::new(Method::GET, path)).map(|answer| answer.value)
    }

    /// Has what `path` names done.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.call(&Call::new(Method::POST, path)).map(|answer| answer.value)
    }

    /// Sends `body` to `path`.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(&Call::new(method, path).with_body(body)).map(|answer| answer.value)
    }

    /// Every item of the list at `path`, page by page, at most `most`.
    ///
    /// # Errors
    /// As of [`Self::call`].
    pub fn list(&self, path: &str, query: &[(&str, String)], most: usize) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut pairs = url::form_urlencoded::Serializer::new(String::new());
            pairs.extend_pairs(query).append_pair("limit", &most.min(PAGE).to_string());
            if let Some(cursor) = &cursor {
                pairs.append_pair("cursor", cursor);
            }
            let mut page = self.get(&format!("{path}?{}", pairs.finish()))?;
            if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
                items.extend(found);
            }
            cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || items.len() >= most {
                items.truncate(most);
                return Ok(items);
            }
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        let text = error.to_string();
        let advice = if text.contains("certificate") || text.contains("UnknownIssuer") {
            "; is --ca the authority that signed the management certificate?"
        } else {
            "; is the gateway running, and is this its management address?"
        };
        anyhow!("{} cannot be reached: {text}{advice}", self.endpoint)
    }
}

fn roots(ca: Option<&str>) -> anyhow::Result<RootCerts> {
    let certificates: Vec<Certificate<'static>> = match ca {
        Some(pem) => parse_pem(pem.as_bytes())
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect(),
        None => {
            let found = rustls_native_certs::load_native_certs();
            found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
        }
    };
    match (certificates.is_empty(), ca) {
        (false, _) => Ok(RootCerts::Specific(Arc::new(certificates))),
        (true, Some(_)) => bail!("--ca: the file holds no PEM certificate"),
        (true, None) => bail!("this machine has no trusted certificates; give --ca"),
    }
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// A problem (RFC 9457) in one line, with what to do.
fn refusal(status: http::StatusCode, problem: &Value) -> anyhow::Error {
    let text = |name: &str| problem.get(name).and_then(Value::as_str);
    let detail = text("detail").or_else(|| problem.as_str()).unwrap_or("no reason was given");
    let field = text("field").map(|field| format!("{field}: ")).unwrap_or_default();
    let code = text("code").unwrap_or(status.as_str());
    let advice = match status.as_u16() {
        401 => "; run 'scoregate login'",
        403 => "; an owner can give you a role: 'scoregate roles assign'",
        412 => "; read it again and repeat the change",
        503 => "; try again later",
        _ => "",
    };
    let id = text("request_id").map(|id| format!(" (request {id})")).unwrap_or_default();
    anyhow!("{field}{detail} [{code}]{advice}{id}")
}

/// A path of `segments`, each encoded.
pub(super) fn path(segments: &[&str]) -> String {
    let mut url = url::Url::parse("https://gateway").unwrap_or_else(|_| unreachable!("a fixed text"));
    if let Ok(mut path) = url.path_segments_mut() {
        path.extend(segments);
    }
    url.path().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(path(&["v1", "a/b", "c?d", "e f"]), "/v1/a%2Fb/c%3Fd/e%20f");
    }

    #[test]
    fn a_problem_names_field_code_and_way_out() {
        let problem = serde_json::json!({
            "detail": "must be at most 100", "field": "deployments.blue.traffic", "code": "BadRequest",
            "request_id": "r1",
        });
        let said = refusal(http::StatusCode::BAD_REQUEST, &problem).to_string();
        assert_eq!(said, "deployments.blue.traffic: must be at most 100 [BadRequest] (request r1)");
        let said = refusal(http::StatusCode::UNAUTHORIZED, &Value::Null).to_string();
        assert!(said.contains("scoregate login"), "{said}");
    }

    #[test]
    fn only_https_and_real_certificates_are_taken() {
        assert!(Api::new("http://127.0.0.1:1", None, None).is_err());
        assert!(Api::new("https://127.0.0.1:1", Some("no pem"), None).is_err());
    }
}
