//! Members that only Azure's clients know of: kept as they were sent, given back with Azure's defaults filled in.

use serde_json::{Map, Value};

/// Members that are the gateway's to say, that it keeps elsewhere, or that must not be kept.
const NOT_KEPT: &[&str] = &[
    "aadAuthEnabled",
    "authEnabled",
    "computeType",
    "createdBy",
    "createdTime",
    "deploymentStatus",
    "error",
    "id",
    "keys",
    "models",
    "name",
    "operationId",
    "overwrite",
    "publicFqdn",
    "publicIp",
    "scoringUri",
    "state",
    "swaggerUri",
    "trafficPercentile",
    "updatedTime",
];

/// Members whose value is a credential, wherever they are, in lower case: a service's TLS key, passwords of image
/// registries, and environment variables of the container, which may be anything.
const CREDENTIALS: &[&str] = &[
    "accesskey",
    "accountkey",
    "connectionstring",
    "environmentvariables",
    "instrumentationkey",
    "password",
    "primarykey",
    "registryidentity",
    "sastoken",
    "secondarykey",
    "secret",
    "sslkey",
    "token",
];

/// What is kept of the members that nobody has taken. Credentials become `null`: what is stored in the clear, shown to
/// every reader and copied into backups is no place for them. The gateway's own TLS keys are in its listeners'
/// configuration; that of an ACI service (`sslKey`) has no use here.
pub fn kept(members: Map<String, Value>) -> Map<String, Value> {
    let mut members: Map<_, _> = members
        .into_iter()
        .filter(|(name, value)| !value.is_null() && !NOT_KEPT.contains(&name.as_str()))
        .collect();
    blank(&mut members);
    members.retain(|_, value| !value.is_null());
    members
}

fn blank(members: &mut Map<String, Value>) {
    for (name, value) in members.iter_mut() {
        if CREDENTIALS.contains(&name.to_ascii_lowercase().as_str()) {
            *value = Value::Null;
        } else {
            blank_within(value);
        }
    }
}

fn blank_within(value: &mut Value) {
    match value {
        Value::Object(members) => blank(members),
        Value::Array(items) => items.iter_mut().for_each(blank_within),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The members of `bag` over `defaults`. A service with a set number of replicas does not scale by itself.
pub fn members(defaults: &Value, bag: &Map<String, Value>) -> Map<String, Value> {
    let mut members = filled(defaults, bag);
    if bag.contains_key("numReplicas")
        && !bag.contains_key("autoScaler")
        && let Some(scaler) = members.get_mut("autoScaler").and_then(Value::as_object_mut)
    {
        scaler.insert("autoscaleEnabled".into(), false.into());
    }
    members.shift_remove("computeType");
    members.shift_remove("operationId");
    members
}

/// `given` with what it lacks, or has as `null`, from `defaults`.
fn filled(defaults: &Value, given: &Map<String, Value>) -> Map<String, Value> {
    let mut members = defaults.as_object().cloned().unwrap_or_default();
    for (name, value) in given {
        match (members.get(name), value) {
            (Some(default @ Value::Object(_)), Value::Object(inner)) => {
                let inner = filled(default, inner);
                members.insert(name.clone(), inner.into());
            }
            (Some(_), Value::Null) => {}
            _ => {
                members.insert(name.clone(), value.clone());
            }
        }
    }
    members
}
