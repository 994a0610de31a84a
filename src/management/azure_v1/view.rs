//! A service as SDK v1 reads it: its document and what only the gateway can say. The SDK raises an exception for every
//! member that it expects and does not find, so all of them are always there.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::catalog::{AuthMode, ServiceEntry};
use crate::management::operations::ServiceUris;

use super::document;
use super::kind::Kind;

/// The member of [`ServiceSpec::azure`](crate::catalog::ServiceSpec::azure) that names the last change made by this SDK.
pub const OPERATION_ID: &str = "operationId";

/// What is told about a service beside the service itself.
pub struct Facts<'a> {
    /// Where it is called.
    pub uris: &'a ServiceUris,
    /// Azure location of its workspace.
    pub location: &'a str,
}

/// The JSON of a service of `kind`.
#[must_use]
pub fn service(kind: Kind, entry: &ServiceEntry, facts: &Facts<'_>) -> Value {
    let mut view = document::of(kind, &entry.spec);
    view.extend(head(entry.name.as_str(), kind, entry, facts));
    view.insert(OPERATION_ID.into(), entry.spec.azure.get(OPERATION_ID).cloned().unwrap_or_default());
    match kind {
        Kind::Aci => {
            let host =
                url::Url::parse(&facts.uris.scoring).ok().and_then(|url| url.host_str().map(str::to_owned));
            view.insert("publicIp".into(), Value::Null);
            view.insert("publicFqdn".into(), json!(host));
            if view.get("location").is_none_or(Value::is_null) {
                view.insert("location".into(), facts.location.into());
            }
        }
        Kind::Aks => {
            view.insert("models".into(), json!([]));
        }
        Kind::AksEndpoint => complete_versions(&mut view, entry, facts),
    }
    view.into()
}

/// What all kinds of service begin with.
fn head(name: &str, kind: Kind, entry: &ServiceEntry, facts: &Facts<'_>) -> Map<String, Value> {
    let head = json!({
        "id": name,
        "name": name,
        "computeType": kind.as_str(),
        "deploymentType": "HttpRealtimeEndpoint",
        // The gateway makes no containers: once it has taken a service on, it is as ready as it gets. Whether replicas
        // answer is told by the gateway's metrics.
        "state": "Healthy",
        "error": null,
        "createdTime": timestamp(entry.provenance.created_at),
        "updatedTime": timestamp(entry.provenance.updated_at),
        "createdBy": { "userName": entry.provenance.created_by },
        "scoringUri": facts.uris.scoring,
        "swaggerUri": facts.uris.swagger,
    });
    match head {
        Value::Object(head) => head,
        _ => Map::new(),
    }
}

/// Each version is a whole AKS service to the SDK, behind the endpoint's address and auth mode.
fn complete_versions(view: &mut Map<String, Value>, entry: &ServiceEntry, facts: &Facts<'_>) {
    let inherited =
        ["computeName", "namespace"].map(|name| (name, view.get(name).cloned().unwrap_or_default()));
    let mode = entry.spec.auth_mode();
    let Some(versions) = view.get_mut("versions").and_then(Value::as_object_mut) else { return };
    for (name, version) in versions {
        let Some(version) = version.as_object_mut() else { continue };
        version.extend(head(name, Kind::Aks, entry, facts));
        version.insert("authEnabled".into(), (mode == AuthMode::Key).into());
        version.insert("aadAuthEnabled".into(), (mode == AuthMode::Token).into());
        version.insert("models".into(), json!([]));
        for (name, value) in &inherited {
            if version.get(*name).is_none_or(Value::is_null) {
                version.insert((*name).to_owned(), value.clone());
            }
        }
    }
}

/// RFC 3339 in UTC.
#[must_use]
pub fn timestamp(time: OffsetDateTime) -> String {
    // Only years past 9999 have no such form.
    time.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}
