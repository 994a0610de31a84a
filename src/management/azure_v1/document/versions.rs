//! The versions of an endpoint as deployments, and how they share the traffic.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::catalog::{DeploymentSpec, ServiceName};
use crate::management::Refusal;
use crate::management::azure_v1::fields::Fields;
use crate::management::azure_v1::kind::Kind;

use super::{bag, limit_members, limits, probe, set_defaults, tags, text_or_null};

type Deployments = BTreeMap<ServiceName, DeploymentSpec>;

/// What version types there are: the one that others are compared with, and the others.
const TYPES: [&str; 2] = ["Control", "Treatment"];

/// The documents of all versions. `trafficPercentile` is the share that a version really gets.
pub fn members(deployments: &Deployments) -> Value {
    let version = |(name, deployment): (&ServiceName, &DeploymentSpec)| {
        let mut version = Map::new();
        version.insert("description".into(), text_or_null(&deployment.description));
        version.insert("kvTags".into(), json!(deployment.tags));
        version.insert("properties".into(), json!(deployment.properties));
        version.insert("trafficPercentile".into(), f64::from(deployment.traffic).into());
        version.insert("isDefault".into(), is_default(deployment).into());
        version.insert("type".into(), Value::Null);
        version.extend(bag::members(&Kind::Aks.defaults(), &deployment.azure));
        version.extend(limit_members(&deployment.limits));
        (name.to_string(), Value::Object(version))
    };
    deployments.iter().map(version).collect::<Map<_, _>>().into()
}

/// Whether traffic that no other version claims goes to this one.
pub fn is_default(deployment: &DeploymentSpec) -> bool {
    deployment.azure.get("isDefault").and_then(Value::as_bool).unwrap_or(false)
}

/// Takes `versions`. New ones get Azure's defaults; of old ones, what a document cannot say stays as it is in `base`.
///
/// # Errors
/// Names the first member that is wrong and what it may be.
pub fn read(fields: &mut Fields, base: &Deployments) -> Result<Deployments, Refusal> {
    let Some(versions) = fields.take("versions") else { return Ok(Deployments::new()) };
    let mut deployments = Deployments::new();
    let mut first = None;
    for (name, version) in Fields::of("versions", versions)?.rest() {
        let place = format!("versions/{name}");
        let name =
            ServiceName::parse(&name).map_err(|error| Refusal::invalid(place.as_str(), error.to_string()))?;
        let deployment = deployment(&place, version, base.get(&name))?;
        first.get_or_insert_with(|| name.clone());
        deployments.insert(name, deployment);
    }
    if let Some(first) = first {
        let default = default_of(&deployments, base, first)?;
        share(&mut deployments, &default)?;
    }
    Ok(deployments)
}

fn deployment(place: &str, version: Value, base: Option<&DeploymentSpec>) -> Result<DeploymentSpec, Refusal> {
    let mut members = Fields::of(place, version)?.rest();
    if base.is_none() {
        set_defaults(&mut members);
    }
    let mut fields = Fields::new(place, members);
    let mut base = base.cloned().unwrap_or_default();
    let azure = std::mem::take(&mut base.azure);
    let traffic = fields.number("trafficPercentile", 0..=100)?.unwrap_or(0);
    let is_default = fields.flag("isDefault")?.unwrap_or(false);
    let role = role(&mut fields)?;
    let mut deployment = DeploymentSpec {
        traffic: u8::try_from(traffic).unwrap_or(0),
        description: fields.text("description")?.unwrap_or_default(),
        tags: tags(&mut fields)?,
        properties: fields.texts("properties")?.unwrap_or_default(),
        limits: limits(&mut fields, &base.limits)?,
        ..base
    };
    deployment.azure = bag::kept(fields.rest());
    probe::change(place, &azure, &deployment.azure)?.apply(&mut deployment);
    deployment.azure.insert("isDefault".into(), is_default.into());
    deployment.azure.extend(role.map(|role| ("type".to_owned(), role.into())));
    Ok(deployment)
}

fn role(fields: &mut Fields) -> Result<Option<&'static str>, Refusal> {
    let Some(given) = fields.text("type")? else { return Ok(None) };
    let known = TYPES.into_iter().find(|known| known.eq_ignore_ascii_case(&given));
    known.map(Some).ok_or_else(|| Refusal::invalid(fields.place("type"), "must be Control or Treatment"))
}

/// The version that takes the traffic that no other claims: the one that says so, else the first of a new endpoint, else
/// the only one left.
fn default_of(new: &Deployments, base: &Deployments, first: ServiceName) -> Result<ServiceName, Refusal> {
    let mut named = new.iter().filter(|(_, it)| is_default(it)).map(|(name, _)| name);
    match (named.next(), named.next()) {
        (Some(one), Some(other)) => {
            let message =
                format!("'{one}' and '{other}' cannot both be the default; set isDefault of one to false");
            Err(Refusal::invalid("versions", message))
        }
        (Some(one), None) => Ok(one.clone()),
        (None, _) if new.len() == 1 || !base.values().any(is_default) => Ok(first),
        (None, _) => {
            let message = "no version is the default, which takes what is left of the traffic; \
                           set isDefault of one to true first";
            Err(Refusal::invalid("versions", message))
        }
    }
}

/// Gives the default version what the others leave (Azure's documented rule: whatever was assigned to it).
fn share(deployments: &mut Deployments, default: &ServiceName) -> Result<(), Refusal> {
    let others = deployments.iter().filter(|(name, _)| *name != default);
    let claimed: u32 = others.map(|(_, deployment)| u32::from(deployment.traffic)).sum();
    let left = 100_u32.checked_sub(claimed).and_then(|left| u8::try_from(left).ok()).ok_or_else(|| {
        let message =
            format!("trafficPercentile of the versions beside the default adds up to {claimed}, over 100");
        Refusal::invalid("versions", message)
    })?;
    if let Some(deployment) = deployments.get_mut(default) {
        deployment.traffic = left;
        deployment.azure.insert("isDefault".into(), true.into());
    }
    Ok(())
}
