//! Where an answer's resources are: ids, the URIs to poll and to go on at, who made something and when.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::target::PROVIDER;
use crate::catalog::{Provenance, WorkspaceEntry};

/// The workspace that a call is about, seen from its client.
pub struct Place {
    /// The gateway as the client addressed it, `https://HOST`.
    pub base: String,
    /// The workspace.
    pub workspace: WorkspaceEntry,
}

impl Place {
    /// ARM id of the workspace.
    pub fn id(&self) -> String {
        let spec = &self.workspace.spec;
        format!(
            "/subscriptions/{}/resourceGroups/{}/providers/{PROVIDER}/workspaces/{}",
            spec.subscription, spec.resource_group, self.workspace.name
        )
    }

    /// Azure location of all that is in the workspace.
    pub fn location(&self) -> &str {
        let location = &self.workspace.spec.location;
        // It stands in paths, where an empty segment would end them.
        if location.is_empty() { "global" } else { location }
    }

    /// Where the operation `id` is polled.
    pub fn operation_uri(&self, id: &str) -> String {
        let (base, subscription) = (&self.base, &self.workspace.spec.subscription);
        let location = self.location();
        format!(
            "{base}/subscriptions/{subscription}/providers/{PROVIDER}/locations/{location}/mfeOperationsStatus/{id}"
        )
    }
}

/// `systemData` of Azure resources.
pub fn system_data(provenance: &Provenance) -> Value {
    json!({
        "createdBy": provenance.created_by,
        "createdByType": "User",
        "createdAt": timestamp(provenance.created_at),
        "lastModifiedBy": provenance.updated_by,
        "lastModifiedByType": "User",
        "lastModifiedAt": timestamp(provenance.updated_at),
    })
}

/// RFC 3339 to the microsecond: not every reader of such times takes more digits.
pub fn timestamp(at: OffsetDateTime) -> String {
    let micros = at.replace_nanosecond(at.microsecond() * 1_000).unwrap_or(at);
    micros.format(&Rfc3339).unwrap_or_default()
}

/// `known` with the members of the bag that are not among them.
pub fn with_bag(known: Value, bag: Option<&Value>) -> Value {
    let Value::Object(mut members) = known else { return known };
    for (name, value) in bag.and_then(Value::as_object).into_iter().flat_map(Map::iter) {
        if !members.contains_key(name) {
            members.insert(name.clone(), value.clone());
        }
    }
    Value::Object(members)
}

/// Properties that Azure's answers have among the user's own, and that its clients send back with them: SDK v2 puts
/// `systemData` there, the service its operation.
const SYSTEM_PROPERTIES: [&str; 4] = ["createdBy", "createdAt", "lastModifiedAt", OPERATION_PROPERTY];
/// Where Azure's REST scripts look for the URI to poll after a PUT.
const OPERATION_PROPERTY: &str = "AzureAsyncOperationUri";

/// Whether the user property `name` is one of an answer's own.
pub fn is_system_property(name: &str) -> bool {
    SYSTEM_PROPERTIES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// User properties as an answer has them, with the URI of the operation that wrote the resource last.
pub fn properties<'a>(
    own: impl IntoIterator<Item = (&'a String, &'a String)>,
    operation: Option<Cow<'_, str>>,
) -> Value {
    let mut members: Map<String, Value> =
        own.into_iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    if let Some(uri) = operation {
        members.insert(OPERATION_PROPERTY.to_owned(), Value::from(uri));
    }
    Value::Object(members)
}
