//! What people and clients attach to resources: descriptions, tags, properties, Azure's own fields. Free, but bounded.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::project::at_most;
use crate::catalog::{ServiceSpec, WorkspaceSpec};
use crate::management::Refusal;

/// Longest description, in bytes.
const MAX_DESCRIPTION: usize = 5000;
/// Most tags, and most properties, of one resource (Azure's limit for tags).
const MAX_ENTRIES: usize = 50;
/// Longest name of a tag or property, in bytes.
const MAX_NAME: usize = 256;
/// Longest value, in bytes.
const MAX_VALUE: usize = 8192;
/// Largest bag of fields that only Azure's clients know, in bytes of JSON.
const MAX_AZURE: usize = 64 * 1024;
/// Longest part of a workspace's identity, in characters (Azure's limit for resource groups).
const MAX_IDENTITY: usize = 90;

/// Checks what a service and its deployments carry.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for the first field that is too much.
pub(super) fn check_service(spec: &ServiceSpec) -> Result<(), Refusal> {
    description("description", &spec.description)?;
    entries("tags", &spec.tags)?;
    entries("properties", &spec.properties)?;
    azure("azure", &spec.azure)?;
    for (name, deployment) in &spec.deployments {
        let place = |field: &str| format!("deployments.{name}.{field}");
        description(&place("description"), &deployment.description)?;
        entries(&place("tags"), &deployment.tags)?;
        entries(&place("properties"), &deployment.properties)?;
        azure(&place("azure"), &deployment.azure)?;
    }
    Ok(())
}

/// Checks what a workspace carries.
///
/// # Errors
/// As [`check_service`].
pub(super) fn check_workspace(spec: &WorkspaceSpec) -> Result<(), Refusal> {
    identity("subscription", &spec.subscription)?;
    identity("resource_group", &spec.resource_group)?;
    identity("location", &spec.location)?;
    description("description", &spec.description)?;
    entries("tags", &spec.tags)
}

/// A part of a workspace's identity stands in paths of the Azure APIs.
fn identity(field: &str, text: &str) -> Result<(), Refusal> {
    let good = (1..=MAX_IDENTITY).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._()".contains(&b));
    if good {
        return Ok(());
    }
    let problem = format!("must be 1 to {MAX_IDENTITY} letters, digits or any of -._(); choose such a name");
    Err(Refusal::invalid(field, problem))
}

fn description(field: &str, text: &str) -> Result<(), Refusal> {
    bytes(field, text.len(), MAX_DESCRIPTION)
}

fn entries(field: &str, entries: &BTreeMap<String, String>) -> Result<(), Refusal> {
    at_most(field, entries.len(), MAX_ENTRIES)?;
    for (name, value) in entries {
        if name.is_empty() {
            return Err(Refusal::invalid(field, "has an entry without a name; give it one"));
        }
        bytes(&format!("the name of an entry of {field}"), name.len(), MAX_NAME)
            .map_err(|refusal| Refusal { target: Some(field.to_owned()), ..refusal })?;
        bytes(&format!("{field}.{name}"), value.len(), MAX_VALUE)?;
    }
    Ok(())
}

fn azure(field: &str, bag: &Map<String, Value>) -> Result<(), Refusal> {
    let size = serde_json::to_vec(bag).map_or(usize::MAX, |json| json.len());
    bytes(field, size, MAX_AZURE)
}

fn bytes(field: &str, size: usize, most: usize) -> Result<(), Refusal> {
    if size <= most {
        return Ok(());
    }
    Err(Refusal::invalid(field, format!("has {size} bytes; at most {most} are allowed")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::{ComputeType, DeploymentSpec, ServiceName};

    fn spec() -> ServiceSpec {
        ServiceSpec::new(ComputeType::Aks)
    }

    #[track_caller]
    fn refused(spec: &ServiceSpec, target: &str) {
        assert_eq!(check_service(spec).unwrap_err().target.as_deref(), Some(target));
    }

    fn entry(name: &str, value: &str) -> BTreeMap<String, String> {
        [(name.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn what_is_within_bounds_passes_whatever_it_says() {
        let mut spec = spec();
        spec.description = "x".repeat(MAX_DESCRIPTION);
        spec.tags = (0..MAX_ENTRIES).map(|i| (format!("tag {i}"), "\u{fc}\n\"".into())).collect();
        spec.properties = entry(&"n".repeat(MAX_NAME), &"v".repeat(MAX_VALUE));
        spec.azure.insert("numReplicas".into(), json!(null));
        assert_eq!(check_service(&spec), Ok(()));
    }

    #[test]
    fn what_is_too_much_is_named_by_its_field() {
        refused(&ServiceSpec { description: "x".repeat(MAX_DESCRIPTION + 1), ..spec() }, "description");
        let many = (0..=MAX_ENTRIES).map(|i| (i.to_string(), String::new())).collect();
        refused(&ServiceSpec { tags: many, ..spec() }, "tags");
        refused(&ServiceSpec { tags: entry("", "x"), ..spec() }, "tags");
        refused(&ServiceSpec { tags: entry(&"n".repeat(MAX_NAME + 1), ""), ..spec() }, "tags");
        let long = "v".repeat(MAX_VALUE + 1);
        refused(&ServiceSpec { properties: entry("a", &long), ..spec() }, "properties.a");
        let mut with_azure = spec();
        with_azure.azure.insert("a".into(), "x".repeat(MAX_AZURE).into());
        refused(&with_azure, "azure");
        let deployment = DeploymentSpec { tags: entry("a", &long), ..DeploymentSpec::default() };
        let blue = ServiceName::parse("blue").unwrap();
        let spec = ServiceSpec { deployments: [(blue, deployment)].into(), ..spec() };
        refused(&spec, "deployments.blue.tags.a");
    }

    #[test]
    fn a_workspace_has_an_identity_that_paths_can_carry() {
        let spec = |subscription: &str| WorkspaceSpec {
            subscription: subscription.into(),
            resource_group: "rg_(1)".into(),
            location: "westeurope".into(),
            ..WorkspaceSpec::default()
        };
        assert_eq!(check_workspace(&spec("00000000-0000-0000-0000-000000000000")), Ok(()));
        for bad in ["", "a/b", "a b", "\u{e9}", &"x".repeat(91)] {
            let target = check_workspace(&spec(bad)).unwrap_err().target;
            assert_eq!(target.as_deref(), Some("subscription"), "{bad}");
        }
    }
}
