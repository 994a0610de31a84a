//! `scoregate explain`: what a call would meet on its way, and why; makes no call.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use url::Url;

use crate::auth::AuthSettings;
use crate::catalog::{AuthMode, Endpoint};
use crate::control::config::{self, Config, DeploymentSettings, ServiceSettings};
use crate::error::Error;
use crate::limit::Limits;
use crate::listener::ListenerSettings;
use crate::route::{Host, RouteTable, SERVICE_PREFIX, Target};

use super::ConfigFile;

/// The call to explain.
#[derive(Debug, Args)]
pub(super) struct Call {
    #[command(flatten)]
    config: ConfigFile,
    /// Method of the call
    #[arg(long, default_value = "POST")]
    method: Method,
    /// URL of the call, as a client would write it
    #[arg(long)]
    url: Url,
    /// Header of the call, `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Prints one JSON object; exit code 1 if the gateway would refuse the call before it looks at a credential.
#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(call: &Call) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(&call.config.source()) {
        Ok(loaded) => loaded,
        Err(problems) => bail!("the configuration is not usable:\n{problems}"),
    };
    let explained = explain(&loaded.config, call);
    let code = if explained.get("refused").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    println!("{explained:#}");
    Ok(code)
}

fn explain(config: &Config, call: &Call) -> Value {
    let mut explained = json!({ "listener": listener(config, &call.url) });
    match service(config, &call.url) {
        Err(error) => explained["refused"] = refusal(&error),
        Ok((service, how, endpoint)) => {
            explained["service"] = json!({ "name": service.name.as_str(), "computeType": service.compute_type.as_str(), "because": how });
            explained["auth"] = auth(service, call);
            explained["limits"] = limits(&service.limits);
            explained["deployment"] = deployment(service, call, endpoint.as_ref().ok());
            if call.method == Method::OPTIONS && service.cors.is_some() {
                explained["cors"] = json!(
                    "a preflight with Origin and Access-Control-Request-Method is answered by the gateway"
                );
            } else if call.method != Method::GET && call.method != Method::POST {
                explained["refused"] =
                    json!({ "reason": "bad_request", "message": "services take GET and POST only" });
            }
            if let Err(error) = endpoint {
                explained["refused"] = refusal(&error);
            }
        }
    }
    explained
}

fn listener(config: &Config, url: &Url) -> Value {
    let wants_tls = url.scheme() == "https";
    let port = url.port_or_known_default();
    let by_port = |listener: &&ListenerSettings| {
        Some(listener.address.port()) == port && listener.tls.is_some() == wants_tls
    };
    let exact = config.listeners.iter().find(by_port);
    let (listener, because) = match exact {
        Some(listener) => (Some(listener), "it has the URL's port and scheme"),
        None => (
            config.listeners.iter().find(|listener| listener.tls.is_some() == wants_tls),
            "no listener has the URL's port; this is the first one of its scheme (a load balancer may map ports)",
        ),
    };
    listener.map_or(Value::Null, |listener| {
        json!({ "name": &*listener.name, "address": listener.address.to_string(), "tls": listener.tls.is_some(), "because": because })
    })
}

/// The service, how it was found, and what of it is wanted.
fn service<'a>(
    config: &'a Config,
    url: &Url,
) -> Result<(&'a ServiceSettings, String, Result<Endpoint, Error>), Error> {
    let whole = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let target = Target::parse(Bytes::from(whole))?;
    let authority = url.host_str().unwrap_or_default();
    let host = Host::parse(authority.as_bytes())?;
    let services = config.services.iter().enumerate();
    let routes = RouteTable::new(services.map(|(place, s)| (s.name.clone(), s.hosts.clone(), place)));
    let routed = routes.find(&host, &target)?;
    let how = if target.path().starts_with(SERVICE_PREFIX) {
        "the path names it".to_owned()
    } else {
        format!("its hosts hold {}", host.as_str())
    };
    Ok((&config.services[routed.service], how, routed.endpoint))
}

fn auth(service: &ServiceSettings, call: &Call) -> Value {
    let (mode, takes) = match &service.auth {
        AuthSettings::None => (AuthMode::None, "nothing: everybody may call".to_owned()),
        AuthSettings::Key(keys) if keys.secondary.is_some() => {
            (AuthMode::Key, "Authorization: Bearer with the primary or the secondary key".to_owned())
        }
        AuthSettings::Key(_) => (AuthMode::Key, "Authorization: Bearer with the primary key".to_owned()),
        AuthSettings::Token(tokens) => (
            AuthMode::Token,
            format!("Authorization: Bearer with a token of {} for {}", tokens.issuer, service.name),
        ),
        AuthSettings::Oidc(oidc) => (
            AuthMode::Oidc,
            format!("Authorization: Bearer with a token of {} for {}", oidc.issuer, oidc.audience),
        ),
    };
    let is_default = service.compute_type.default_auth() == mode;
    let credential = call.headers.iter().any(|(name, _)| name == http::header::AUTHORIZATION);
    json!({
        "mode": mode.as_str(),
        "isDefaultOfComputeType": is_default,
        "takes": takes,
        "credentialInCall": credential,
        "note": "credentials are not judged here",
    })
}

fn limits(limits: &Limits) -> Value {
    json!({
        "bodyBytes": limits.body_bytes,
        "headerBytes": limits.header_bytes,
        "connectTimeout": format!("{:?}", limits.upstream.connect),
        "scoringTimeout": format!("{:?}", limits.upstream.first_byte),
        "idleTimeout": format!("{:?}", limits.upstream.idle),
        "requestBodyTimeout": format!("{:?}", limits.request_body),
        "responseWriteTimeout": format!("{:?}", limits.response_write),
        "concurrentRequestsPerReplica": limits.admission.per_replica,
        "queueWait": format!("{:?}", limits.admission.queue_wait),
        "queueLength": limits.admission.queue_length,
    })
}

fn deployment(service: &ServiceSettings, call: &Call, endpoint: Option<&Endpoint>) -> Value {
    let path = |deployment: &DeploymentSettings| {
        endpoint.map(|endpoint| match endpoint {
            Endpoint::Score => deployment.paths.score.clone(),
            Endpoint::Swagger => deployment.paths.swagger.clone(),
            Endpoint::Health => deployment.paths.health.clone(),
        })
    };
    let shown = |deployment: &DeploymentSettings| {
        let replicas: Vec<_> = deployment.replicas.iter().map(|replica| replica.origin.to_string()).collect();
        json!({ "name": deployment.name.as_str(), "trafficPercent": deployment.traffic, "replicas": replicas, "path": path(deployment) })
    };
    let named = call.headers.iter().find(|(name, _)| name == "azureml-model-deployment");
    match named {
        None => {
            json!({ "because": "the traffic split decides", "candidates": service.deployments.iter().map(shown).collect::<Vec<_>>() })
        }
        Some((_, wanted)) => {
            let found = service
                .deployments
                .iter()
                .find(|deployment| deployment.name.as_str().as_bytes() == wanted.as_bytes());
            json!({ "because": "azureml-model-deployment names it", "candidates": found.map(shown) })
        }
    }
}

fn refusal(error: &Error) -> Value {
    json!({ "reason": error.reason().as_str(), "message": error.message })
}

fn parse_header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("a header is written `Name: value`")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}
