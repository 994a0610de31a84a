//! A service as the JSON document that SDK v1 writes and patches, and back: one mapping, read in both directions.
//!
//! [`of`] gives the document of a service with every member that can be written; [`apply`] makes the service that a
//! document describes. Creating is `apply` on what was sent, patching is `of`, the patch, `apply`. What the gateway has
//! no use for goes into the `azure` member of service and deployment and comes back from there, except credentials:
//! those are never kept.

mod auth;
mod bag;
mod probe;
mod versions;

use serde_json::{Map, Value, json};

use crate::catalog::{DeploymentSpec, LimitsSpec, ServiceName, ServiceSpec};
use crate::limit::DeploymentLimits;
use crate::management::Refusal;

use super::fields::Fields;
use super::kind::Kind;

/// The one deployment of an ACI or AKS service.
const ONLY_DEPLOYMENT: &str = "default";

/// Calls at once per container, where an AKS service does not say (Azure's documented default).
const CONCURRENT_REQUESTS: u32 = 1;
/// Milliseconds in the queue, where an AKS service does not say (Azure's documented default).
const QUEUE_WAIT_MS: u64 = 500;
/// Milliseconds to the answer, where an AKS service does not say (Azure's documented default).
const SCORING_TIMEOUT_MS: u64 = 60_000;
/// Longest scoring timeout, in milliseconds, that Azure takes.
const MOST_SCORING_TIMEOUT_MS: u64 = 300_000;

/// The document of a service: every member that can be written, unset ones with what is in force or `null`.
#[must_use]
pub fn of(kind: Kind, spec: &ServiceSpec) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("description".into(), text_or_null(&spec.description));
    document.insert("kvTags".into(), json!(spec.tags));
    document.insert("properties".into(), json!(spec.properties));
    document.extend(auth::members(spec.auth_mode()));
    document.extend(bag::members(&kind.defaults(), &spec.azure));
    match kind {
        Kind::Aci | Kind::Aks => document.extend(limit_members(&spec.limits)),
        Kind::AksEndpoint => {
            document.insert("versions".into(), versions::members(&spec.deployments));
        }
    }
    document
}

/// The service that `document` describes. What a document cannot say (replicas, hosts, other limits) stays as it is in
/// `base`.
///
/// # Errors
/// Names the first member that is wrong and what it may be.
pub fn apply(kind: Kind, document: Map<String, Value>, base: &ServiceSpec) -> Result<ServiceSpec, Refusal> {
    let mut fields = Fields::new("", document);
    let mut spec = base.clone();
    spec.description = fields.text("description")?.unwrap_or_default();
    spec.tags = tags(&mut fields)?;
    spec.properties = fields.texts("properties")?.unwrap_or_default();
    spec.auth = Some(auth::mode(kind, &mut fields)?);
    match kind {
        Kind::Aci | Kind::Aks => spec.limits = limits(&mut fields, &base.limits)?,
        Kind::AksEndpoint => spec.deployments = versions::read(&mut fields, &base.deployments)?,
    }
    spec.azure = bag::kept(fields.rest());
    if kind == Kind::Aks {
        let change = probe::change("", &base.azure, &spec.azure)?;
        spec.deployments.values_mut().for_each(|deployment| change.apply(deployment));
    }
    if kind == Kind::AksEndpoint {
        spec.azure.insert(Kind::MARK.into(), kind.as_str().into());
    }
    if kind == Kind::Aci {
        rename_host(&mut spec, base);
    }
    Ok(spec)
}

/// Takes out of a document that [`of`] made of `spec`, and that was patched, what is told there though nobody has set it, and
/// would count as set now.
pub fn forget_defaults(kind: Kind, document: &mut Map<String, Value>, spec: &ServiceSpec) {
    match kind {
        Kind::Aci => {}
        Kind::Aks => probe::forget_defaults(&spec.azure, document),
        Kind::AksEndpoint => {
            let Some(Value::Object(versions)) = document.get_mut("versions") else { return };
            for (name, deployment) in &spec.deployments {
                if let Some(Value::Object(version)) = versions.get_mut(name.as_str()) {
                    probe::forget_defaults(&deployment.azure, version);
                }
            }
        }
    }
}

/// The service that a request to create one describes.
///
/// # Errors
/// As [`apply`].
pub fn create(kind: Kind, mut payload: Map<String, Value>) -> Result<ServiceSpec, Refusal> {
    let mut base = ServiceSpec::new(kind.compute_type());
    if kind != Kind::AksEndpoint {
        let name = ServiceName::parse(ONLY_DEPLOYMENT)
            .map_err(|error| Refusal::new(crate::management::Cause::Internal, error.to_string()))?;
        base.deployments.insert(name, DeploymentSpec { traffic: 100, ..DeploymentSpec::default() });
    }
    if kind == Kind::Aks {
        set_defaults(&mut payload);
    }
    apply(kind, payload, &base)
}

/// Fills in the limits of a new AKS service or version that were left to Azure's defaults. They are written out since
/// the gateway's own differ: it has no limit per replica.
fn set_defaults(payload: &mut Map<String, Value>) {
    for (name, default) in [
        ("maxConcurrentRequestsPerContainer", u64::from(CONCURRENT_REQUESTS)),
        ("maxQueueWaitMs", QUEUE_WAIT_MS),
        ("scoringTimeoutMs", SCORING_TIMEOUT_MS),
    ] {
        let value = payload.entry(name).or_insert(Value::Null);
        if value.is_null() {
            *value = default.into();
        }
    }
}

fn limit_members(limits: &LimitsSpec) -> [(String, Value); 3] {
    [
        ("maxConcurrentRequestsPerContainer".into(), json!(limits.concurrent_requests_per_replica)),
        ("maxQueueWaitMs".into(), json!(limits.queue_wait_ms)),
        ("scoringTimeoutMs".into(), json!(limits.scoring_timeout_ms)),
    ]
}

fn limits(fields: &mut Fields, base: &LimitsSpec) -> Result<LimitsSpec, Refusal> {
    let calls = DeploymentLimits::PER_REPLICA;
    let calls = u64::from(*calls.start())..=u64::from(*calls.end());
    let concurrent = fields.number("maxConcurrentRequestsPerContainer", calls)?;
    let longest = u64::try_from(DeploymentLimits::QUEUE_WAIT.end().as_millis()).unwrap_or(u64::MAX);
    Ok(LimitsSpec {
        concurrent_requests_per_replica: concurrent.and_then(|number| u32::try_from(number).ok()),
        queue_wait_ms: fields.number("maxQueueWaitMs", 0..=longest)?,
        scoring_timeout_ms: fields.number("scoringTimeoutMs", 1..=MOST_SCORING_TIMEOUT_MS)?,
        ..base.clone()
    })
}

/// `kvTags`, or `tags`, which old clients and `AksEndpoint.update_version` say.
fn tags(fields: &mut Fields) -> Result<std::collections::BTreeMap<String, String>, Refusal> {
    let old = fields.texts("tags")?;
    Ok(fields.texts("kvTags")?.or(old).unwrap_or_default())
}

/// An ACI service is called by its `cname`, so that is a host of it.
fn rename_host(spec: &mut ServiceSpec, base: &ServiceSpec) {
    let name = |spec: &ServiceSpec| {
        spec.azure
            .get("cname")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
            .map(str::to_ascii_lowercase)
    };
    let (old, new) = (name(base), name(spec));
    if old == new {
        return;
    }
    spec.hosts.retain(|host| Some(host) != old.as_ref());
    spec.hosts.extend(new.filter(|new| !spec.hosts.contains(new)));
}

fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}
