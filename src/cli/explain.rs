//! `scoregate explain`: what a call would meet on its way, and why; makes no call.
//!
//! Takes the steps of `proxy::phases` in their order, with the same parsers, route table and rules, and leaves out what
//! only a real call can tell: whether its credential is good and whether a replica has a place.

mod deployment;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use clap::Args;
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Value, json};

use crate::auth::AuthSettings;
use crate::catalog::{AuthMode, Endpoint};
use crate::control::config::{self, Config};
use crate::error::Error;
use crate::limit::{DeploymentLimits, QueueLength};
use crate::listener::ListenerSettings;
use crate::proxy::{self, DeploymentSettings, ServiceSettings, TlsFacts};
use crate::route::{Host, RouteTable, Routed, SERVICE_PREFIX, Target};
use crate::tls;

use super::ConfigFile;
use deployment::{Candidates, show_balancing, show_mirror, show_retry};

/// The call to explain.
#[derive(Debug, Args)]
pub(super) struct Call {
    #[command(flatten)]
    config: ConfigFile,
    /// Method of the call
    #[arg(long, default_value = "POST")]
    method: Method,
    /// URL of the call as it is sent: dots and escapes in its path are not tidied up first
    #[arg(long, value_parser = parse_url)]
    url: Uri,
    /// Header of the call, `Name: value`; may be repeated. `Host` goes before the URL's host
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Writes one JSON object to `out`; exit code 1 if the gateway would refuse the call whatever its credential.
///
/// # Errors
/// The configuration is not usable, or writing failed.
pub(super) fn run(call: &Call, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(&call.config.source()) {
        Ok(loaded) => loaded,
        Err(problems) => bail!("the configuration is not usable:\n{problems}"),
    };
    let mut met = json!({});
    let code = match walk(&loaded.config, call, &mut met)? {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            met["refused"] = refusal(&error);
            ExitCode::FAILURE
        }
    };
    writeln!(out, "{met:#}")?;
    Ok(code)
}

/// Takes the call through the steps of the request path and notes in `met` what it meets; the inner error is the
/// gateway's refusal, where the call ends.
fn walk(config: &Config, call: &Call, met: &mut Value) -> anyhow::Result<Result<(), Error>> {
    let headers: HeaderMap = call.headers.iter().cloned().collect();
    let (listener, because) = choose_listener(&config.listeners, &call.url);
    met["listener"] = show_listener(listener, because);
    let tls = match listener {
        Some(listener) => connect(listener, &call.url)?,
        None => None,
    };
    Ok(route(config, call, &headers, tls.as_ref()).and_then(|(host, target, routed)| {
        let service = &config.services[routed.service];
        met["service"] = show_service(service, &host, &target);
        met["auth"] = show_auth(service, &headers);
        met["limits"] = show_limits(service);
        let asked = target.under(routed.prefix);
        let endpoint = routed.endpoint?;
        met["endpoint"] = show_endpoint(endpoint);
        if service.cors.is_some() && proxy::is_preflight(&call.method, &headers) {
            met["cors"] = json!("the gateway answers this preflight itself, without a credential");
            return Ok(());
        }
        proxy::check_method(&call.method, endpoint.methods())?;
        let candidates = Candidates::of(service, &headers);
        let shown: Vec<_> = candidates
            .deployments
            .iter()
            .map(|deployment| {
                let mut shown = show_deployment(deployment, endpoint, &asked);
                shown["balancing"] = show_balancing(&deployment.balancing, &headers);
                shown
            })
            .collect();
        met["deployment"] = json!({ "because": candidates.because, "candidates": shown });
        met["mirror"] = show_mirror(service, &headers, (endpoint, &call.method));
        met["retry"] = show_retry(service, &call.method);
        candidates.check()?;
        some_path(&candidates.deployments, endpoint, &asked)
    }))
}

/// The listener that the URL leads to, and why this one.
fn choose_listener<'a>(
    listeners: &'a [ListenerSettings],
    url: &Uri,
) -> (Option<&'a ListenerSettings>, &'static str) {
    let wants_tls = url.scheme() == Some(&Scheme::HTTPS);
    let port = url.port_u16().unwrap_or(if wants_tls { 443 } else { 80 });
    let mut of_scheme = listeners.iter().filter(|listener| listener.tls.is_some() == wants_tls);
    match of_scheme.clone().find(|listener| listener.address.port() == port) {
        Some(listener) => (Some(listener), "it has the URL's port and scheme"),
        None => match of_scheme.next() {
            Some(listener) => (
                Some(listener),
                "no listener has the URL's port; this is the first of its scheme (a load balancer may map ports)",
            ),
            None => {
                (None, "no listener has the URL's scheme; whatever is in front must begin or end TLS itself")
            }
        },
    }
}

/// What a client's handshake for the URL settles; `None` without TLS. An address is never sent as a server name (RFC 6066,
/// section 3).
fn connect(listener: &ListenerSettings, url: &Uri) -> anyhow::Result<Option<TlsFacts>> {
    let Some(settings) = &listener.tls else { return Ok(None) };
    let tls = tls::server(settings).with_context(|| format!("listener {}", listener.name))?;
    let host = url.host().unwrap_or_default();
    let is_name = !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err();
    let server_name = is_name.then(|| host.to_ascii_lowercase().trim_end_matches('.').into());
    Ok(Some(TlsFacts { server_name, certificates: Arc::clone(&tls.certificates) }))
}

/// The service's place in the configuration and what is wanted of it.
fn route(
    config: &Config,
    call: &Call,
    headers: &HeaderMap,
    tls: Option<&TlsFacts>,
) -> Result<(Host, Target, Routed<usize>), Error> {
    let target = call.url.path_and_query().map_or("/", |target| target.as_str());
    let target = Target::parse(Bytes::copy_from_slice(target.as_bytes()))?;
    let authority = call.url.authority().map_or("", |authority| authority.as_str());
    let host = Host::parse(headers.get(header::HOST).map_or(authority.as_bytes(), HeaderValue::as_bytes))?;
    if let Some(tls) = tls {
        tls.check_authority(&host)?;
    }
    let services = config.services.iter().enumerate();
    let routes = RouteTable::new(services.map(|(place, service)| service.route(place)));
    let routed = routes.find(&host, &target)?;
    Ok((host, target, routed))
}

/// The refusal of a call that none of `candidates` has a path for.
fn some_path(candidates: &[&DeploymentSettings], endpoint: Endpoint, asked: &Target) -> Result<(), Error> {
    let mut paths = candidates.iter().map(|candidate| candidate.paths.upstream(endpoint, asked).map(drop));
    match paths.next() {
        Some(Err(refusal)) if !paths.any(|path| path.is_ok()) => Err(refusal),
        _ => Ok(()),
    }
}

fn show_listener(listener: Option<&ListenerSettings>, because: &str) -> Value {
    match listener {
        None => json!({ "name": null, "because": because }),
        Some(listener) => json!({
            "name": &*listener.name,
            "address": listener.address.to_string(),
            "tls": listener.tls.is_some(),
            "because": because,
        }),
    }
}

fn show_service(service: &ServiceSettings, host: &Host, target: &Target) -> Value {
    let because = match target.path().strip_prefix(SERVICE_PREFIX) {
        Some(_) => format!("the path names it after {SERVICE_PREFIX}"),
        None => format!("its hosts list {}", host.as_str()),
    };
    json!({
        "name": service.name.as_str(),
        "computeType": service.compute_type.as_str(),
        "profile": service.opens.profile.as_str(),
        "because": because,
    })
}

fn show_endpoint(endpoint: Endpoint) -> Value {
    let because = match endpoint {
        Endpoint::Score | Endpoint::Swagger | Endpoint::Health => {
            "every service has it; the deployment says where it is"
        }
        Endpoint::Open(_) => "the profile or score_paths opens this path; it is passed on as it is",
        Endpoint::Grpc => "the profile or grpc opens this method; it is passed on as it is",
    };
    json!({ "kind": endpoint.as_str(), "methods": endpoint.methods().as_str(), "because": because })
}

fn show_auth(service: &ServiceSettings, headers: &HeaderMap) -> Value {
    let bearer = |what: &str| format!("Authorization: Bearer with {what}");
    let (mode, takes) = match &service.auth {
        AuthSettings::None => (AuthMode::None, "nothing: everybody may call".to_owned()),
        AuthSettings::Key(keys) if keys.secondary.is_some() => {
            (AuthMode::Key, bearer("the primary or the secondary key"))
        }
        AuthSettings::Key(_) => (AuthMode::Key, bearer("the primary key")),
        AuthSettings::Token(tokens) => {
            (AuthMode::Token, bearer(&format!("a token of {} for {}", tokens.issuer, service.name)))
        }
        AuthSettings::Oidc(oidc) => {
            (AuthMode::Oidc, bearer(&format!("a token of {} for {}", oidc.issuer, oidc.audience)))
        }
    };
    let compute_type = service.compute_type;
    let is_default = compute_type.default_auth() == mode;
    let because = if is_default {
        format!("it is the default of {compute_type}")
    } else {
        format!(
            "the service says auth: {mode}; the default of {compute_type} is {}",
            compute_type.default_auth()
        )
    };
    json!({
        "mode": mode.as_str(),
        "isDefaultOfComputeType": is_default,
        "because": because,
        "takes": takes,
        "credentialInCall": headers.contains_key(header::AUTHORIZATION),
        "note": "the credential is not judged here",
    })
}

/// Sizes in bytes, waits with their unit; null: no limit. In the configuration all deployments have their service's limits.
fn show_limits(service: &ServiceSettings) -> Value {
    let mut shown = json!({
        "bodyBytes": service.limits.body_bytes,
        "headerBytes": service.limits.header_bytes,
        "requestBodyTimeout": format!("{:?}", service.limits.request_body),
        "responseWriteTimeout": format!("{:?}", service.limits.response_write),
        "answerTimeout": service.limits.answer.map(|limit| format!("{limit:?}")),
    });
    for (name, rate) in
        [("rate", service.limits.rates.service), ("ratePerPrincipal", service.limits.rates.per_principal)]
    {
        shown[name] = rate.map_or(
            Value::Null,
            |rate| json!({ "requestsPerSecond": rate.per_second(), "burst": rate.burst() }),
        );
    }
    if let Some(deployment) = service.deployments.first() {
        let DeploymentLimits { upstream, admission } = deployment.limits;
        shown["connectTimeout"] = format!("{:?}", upstream.connect).into();
        shown["scoringTimeout"] = format!("{:?}", upstream.first_byte).into();
        shown["idleTimeout"] = format!("{:?}", upstream.idle).into();
        shown["concurrentRequestsPerReplica"] = admission.per_replica.into();
        shown["queueWait"] = format!("{:?}", admission.queue_wait).into();
        shown["queueLength"] = match admission.queue_length {
            QueueLength::Fixed(length) => length.into(),
            QueueLength::AsPlaces => "as many as there are places".into(),
        };
    }
    shown
}

fn show_deployment(deployment: &DeploymentSettings, endpoint: Endpoint, asked: &Target) -> Value {
    let path = deployment.paths.upstream(endpoint, asked).ok();
    let replicas: Vec<_> = deployment.replicas.iter().map(|replica| replica.origin.to_string()).collect();
    json!({
        "name": deployment.name.as_str(),
        "trafficPercent": deployment.traffic,
        "replicas": replicas,
        "path": path.as_ref().map(PathAndQuery::path),
    })
}

fn refusal(error: &Error) -> Value {
    // The statuses of these refusals are the same for every compute type.
    let status = proxy::status_of(error.kind, None);
    json!({ "status": status.as_u16(), "reason": error.reason().as_str(), "message": error.message })
}

fn parse_url(text: &str) -> anyhow::Result<Uri> {
    let url: Uri =
        text.parse().map_err(|error| anyhow!("{error}; write one such as https://localhost:8443/score"))?;
    let has_scheme = matches!(url.scheme_str(), Some("http" | "https"));
    ensure!(has_scheme, "a URL begins with http:// or https:// and a host");
    let credentials = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    ensure!(!credentials, "clients do not send what stands before '@'; say it with -H 'Authorization: ..'");
    Ok(url)
}

fn parse_header(text: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("a header is written `Name: value`")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}
