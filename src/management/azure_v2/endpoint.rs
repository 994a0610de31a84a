//! An online endpoint as ARM's JSON, from and to a service of the catalogue.
//!
//! A Managed service is an endpoint without `compute`, an AKS service one with it (a Kubernetes endpoint). What only Azure
//! knows of stays as it was sent in the service's bag, `azure.onlineEndpoint`, and is given back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::place::{self, Place};
use super::target::PROVIDER;
use crate::catalog::{AuthMode, ComputeType, MirrorSpec, ServiceEntry, ServiceSpec};
use crate::management::operations::{ServiceUris, SuppliedKeys};
use crate::management::{Cause, Refusal};
use crate::proxy::MirrorSettings;

/// Name of the bag.
const BAG: &str = "onlineEndpoint";
/// Where the bag has the id of the operation that wrote the endpoint last.
const OPERATION: &str = "operation";

/// An endpoint as a client wants it.
#[derive(Debug)]
pub struct EndpointBody {
    auth: Option<String>,
    compute: Option<String>,
    description: String,
    tags: BTreeMap<String, String>,
    properties: BTreeMap<String, String>,
    /// `None`: as it is.
    traffic: Option<BTreeMap<String, u8>>,
    /// `None`: as it is.
    mirror: Option<BTreeMap<String, u8>>,
    keys: SuppliedKeys,
    bag: Map<String, Value>,
}

impl EndpointBody {
    /// Reads the body of a PUT.
    ///
    /// # Errors
    /// Names the member that is wrong.
    pub fn parse(body: Value) -> Result<Self, Refusal> {
        let mut body = Fields::of_body(body)?;
        let tags = body.labels("tags")?.unwrap_or_default();
        let mut properties = body.object("properties")?.ok_or_else(|| {
            Refusal::invalid("properties", "is missing; it holds authMode and all that is to be set")
        })?;
        let auth = properties.text("authMode")?.filter(|mode| !mode.is_empty());
        let compute = properties.text("compute")?;
        let mut own = properties.labels("properties")?.unwrap_or_default();
        own.retain(|name, _| !place::is_system_property(name));
        let traffic = properties.percentages("traffic")?;
        let mirror = properties.percentages("mirrorTraffic")?;
        let keys = supplied_keys(&mut properties)?;
        let description = properties.text("description")?.unwrap_or_default();
        let mut kept = properties.without(&["scoringUri", "swaggerUri", "provisioningState"]).rest();
        if let Some(compute) = &compute {
            kept.insert("compute".into(), compute.as_str().into());
        }
        let mut bag = body.without(&["id", "name", "type", "location", "systemData"]).rest();
        bag.insert("properties".into(), Value::Object(kept));
        Ok(Self { auth, compute, description, tags, properties: own, traffic, mirror, keys, bag })
    }

    /// The keys that a new endpoint is to have. Azure takes them at creation only and passes over them later.
    pub fn take_keys(&mut self) -> SuppliedKeys {
        std::mem::take(&mut self.keys)
    }

    /// The service that `before` becomes, or the new one; `operation` is the id of the operation that writes it.
    ///
    /// # Errors
    /// Names the member that does not go with what is there.
    pub fn apply(&self, before: Option<&ServiceEntry>, operation: &str) -> Result<ServiceSpec, Refusal> {
        let wanted = if self.compute.is_some() { ComputeType::Aks } else { ComputeType::Managed };
        let mut spec = before.map_or_else(|| ServiceSpec::new(wanted), |entry| entry.spec.clone());
        if spec.compute_type == ComputeType::Aci {
            let message = "the name is taken by a web service on ACI, which is no online endpoint";
            return Err(Refusal::new(Cause::Conflict, message));
        }
        if spec.compute_type != wanted {
            return Err(Refusal::invalid(
                "properties.compute",
                "an endpoint stays Managed (without compute) or Kubernetes (with it); delete it and make it anew",
            ));
        }
        spec.auth = self.auth_mode(&spec)?;
        if let Some(traffic) = &self.traffic {
            split(&mut spec, traffic)?;
        }
        if let Some(shares) = &self.mirror {
            spec.mirror = mirror(&spec, shares)?;
        }
        spec.description.clone_from(&self.description);
        spec.tags.clone_from(&self.tags);
        spec.properties.clone_from(&self.properties);
        let mut bag = self.bag.clone();
        bag.insert(OPERATION.into(), operation.into());
        spec.azure.insert(BAG.into(), Value::Object(bag));
        Ok(spec)
    }

    /// The mode of `spec` from now on.
    fn auth_mode(&self, spec: &ServiceSpec) -> Result<Option<AuthMode>, Refusal> {
        let Some(word) = &self.auth else { return Ok(spec.auth) };
        let wrong = |message: &str| Err(Refusal::invalid("properties.authMode", message));
        let mode = spelled(word);
        match mode {
            Some(AuthMode::Key | AuthMode::Token) => Ok(mode),
            // A client that reads, changes and writes an endpoint sends back what it was told.
            Some(mode) if mode == spec.auth_mode() => Ok(Some(mode)),
            Some(AuthMode::Oidc) => wrong(
                "AADToken needs an outside issuer, which this API has no member for: use Key or AMLToken, or declare \
                 the service in the configuration file with 'auth: oidc' and its 'oidc' settings",
            ),
            Some(AuthMode::None) => wrong("an endpoint is never open here; use Key or AMLToken"),
            None => wrong("must be Key, AMLToken or AADToken"),
        }
    }
}

/// Sets each deployment's share; those that `traffic` does not name get none.
fn split(spec: &mut ServiceSpec, traffic: &BTreeMap<String, u8>) -> Result<(), Refusal> {
    if let Some(unknown) = traffic.keys().find(|name| !spec.deployments.contains_key(name.as_str())) {
        let message = "there is no such deployment; make it first, then give it traffic";
        return Err(Refusal::invalid(format!("properties.traffic.{unknown}"), message));
    }
    let sum: u32 = traffic.values().copied().map(u32::from).sum();
    if sum != 0 && sum != 100 {
        let message =
            format!("the percentages add up to {sum}; they must add up to 100, or to 0 for no traffic");
        return Err(Refusal::invalid("properties.traffic", message));
    }
    for (name, deployment) in &mut spec.deployments {
        deployment.traffic = traffic.get(name.as_str()).copied().unwrap_or_default();
    }
    Ok(())
}

/// Copies to the one deployment that `shares` names with more than nothing, if any (Azure allows one); how large and how many
/// they may be, which ARM has no member for, stays as it is.
fn mirror(spec: &ServiceSpec, shares: &BTreeMap<String, u8>) -> Result<Option<MirrorSpec>, Refusal> {
    let mut named = shares.iter().filter(|(_, percent)| **percent > 0);
    let Some((name, percent)) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        let message = "names more than one deployment; copies go to one only";
        return Err(Refusal::invalid("properties.mirrorTraffic", message));
    }
    let member = format!("properties.mirrorTraffic.{name}");
    let Some((deployment, _)) = spec.deployments.get_key_value(name.as_str()) else {
        let message = "there is no such deployment; make it first, then have calls copied to it";
        return Err(Refusal::invalid(member, message));
    };
    let bounds = MirrorSettings::PERCENT;
    if !bounds.contains(percent) {
        let message =
            format!("{percent} is out of range; allowed are {} to {}", bounds.start(), bounds.end());
        return Err(Refusal::invalid(member, message));
    }
    let (body_bytes, concurrent) =
        spec.mirror.as_ref().map_or((None, None), |before| (before.body_bytes, before.concurrent));
    Ok(Some(MirrorSpec { deployment: deployment.clone(), percent: *percent, body_bytes, concurrent }))
}

/// Takes `keys`.
fn supplied_keys(properties: &mut Fields) -> Result<SuppliedKeys, Refusal> {
    let Some(mut keys) = properties.object("keys")? else { return Ok(SuppliedKeys::default()) };
    let mut key = |name| Ok::<_, Refusal>(keys.text(name)?.filter(|key| !key.is_empty()).map(Into::into));
    Ok(SuppliedKeys { primary: key("primaryKey")?, secondary: key("secondaryKey")? })
}

/// Azure's words for auth modes; it has none for an open service.
const AUTH_MODES: [(AuthMode, &str); 4] = [
    (AuthMode::Key, "Key"),
    (AuthMode::Token, "AMLToken"),
    (AuthMode::Oidc, "AADToken"),
    (AuthMode::None, "None"),
];

fn spelled(word: &str) -> Option<AuthMode> {
    AUTH_MODES.into_iter().find(|(_, known)| known.eq_ignore_ascii_case(word)).map(|(mode, _)| mode)
}

const fn word(mode: AuthMode) -> &'static str {
    match mode {
        AuthMode::Key => AUTH_MODES[0].1,
        AuthMode::Token => AUTH_MODES[1].1,
        AuthMode::Oidc => AUTH_MODES[2].1,
        AuthMode::None => AUTH_MODES[3].1,
    }
}

/// Whether `entry` is an online endpoint: SDK v2 has no notion of ACI.
pub fn is_endpoint(entry: &ServiceEntry) -> bool {
    match entry.spec.compute_type {
        ComputeType::Managed | ComputeType::Aks => true,
        ComputeType::Aci => false,
    }
}

/// ARM id of the endpoint `name`.
pub fn id(place: &Place, name: &str) -> String {
    format!("{}/onlineEndpoints/{name}", place.id())
}

/// The endpoint as ARM tells it.
pub fn render(entry: &ServiceEntry, uris: &ServiceUris, place: &Place) -> Value {
    let spec = &entry.spec;
    let bag = spec.azure.get(BAG);
    let operation = bag.and_then(|bag| bag.get(OPERATION)).and_then(Value::as_str);
    let traffic: Map<String, Value> = spec
        .deployments
        .iter()
        .filter(|(_, deployment)| deployment.traffic > 0)
        .map(|(name, deployment)| (name.to_string(), deployment.traffic.into()))
        .collect();
    let mirror = spec.mirror.iter().map(|mirror| (mirror.deployment.to_string(), mirror.percent.into()));
    let mirror: Map<String, Value> = mirror.collect();
    let properties = json!({
        "authMode": word(spec.auth_mode()),
        "description": (!spec.description.is_empty()).then_some(&spec.description),
        // Null here breaks SDK v2.
        "properties": place::properties(&spec.properties, operation.map(|id| Cow::Owned(place.operation_uri(id)))),
        "scoringUri": uris.scoring,
        "swaggerUri": uris.swagger,
        "provisioningState": "Succeeded",
        "traffic": traffic,
        "mirrorTraffic": mirror,
        "compute": compute(entry, place),
        "keys": null,
    });
    let defaults = json!({ "publicNetworkAccess": "Enabled" });
    let properties = place::with_bag(properties, bag.and_then(|bag| bag.get("properties")));
    let resource = json!({
        "id": id(place, entry.name.as_str()),
        "name": entry.name,
        "type": format!("{PROVIDER}/workspaces/onlineEndpoints"),
        "location": place.location(),
        "tags": spec.tags,
        "systemData": place::system_data(&entry.provenance),
        "properties": place::with_bag(properties, Some(&defaults)),
    });
    let mut resource = place::with_bag(resource, bag);
    if let Some(members) = resource.as_object_mut() {
        members.shift_remove(OPERATION);
    }
    resource
}

/// What SDK v2 tells a Kubernetes endpoint by. A service that SDK v1 made has the name of its cluster in the bag.
fn compute(entry: &ServiceEntry, place: &Place) -> Option<String> {
    let spec = &entry.spec;
    if spec.compute_type == ComputeType::Managed {
        return None;
    }
    let sent = spec.azure.get(BAG).and_then(|bag| bag.pointer("/properties/compute")).and_then(Value::as_str);
    let cluster = spec.azure.get("computeName").and_then(Value::as_str).unwrap_or("kubernetes");
    Some(sent.map_or_else(|| format!("{}/computes/{cluster}", place.id()), str::to_owned))
}
