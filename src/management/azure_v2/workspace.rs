//! A workspace and its subscription as ARM's JSON, with what the SDKs read of them.

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::place::{self, Place};
use super::target::PROVIDER;

/// No tenant: the gateway has none, and clients want a UUID.
const TENANT: &str = "00000000-0000-0000-0000-000000000000";

/// The workspace as ARM tells it.
pub fn render(place: &Place) -> Value {
    let entry = &place.workspace;
    json!({
        "id": place.id(),
        "name": entry.name,
        "type": format!("{PROVIDER}/workspaces"),
        "location": place.location(),
        "tags": entry.spec.tags,
        "kind": "Default",
        "sku": { "name": "Basic", "tier": "Basic" },
        "identity": { "type": "None" },
        "systemData": place::system_data(&entry.provenance),
        "properties": {
            "friendlyName": entry.name,
            "description": entry.spec.description,
            "workspaceId": workspace_id(&place.id()),
            // SDK v1 learns from it where the model management service is.
            "discoveryUrl": format!("{}/discovery", place.base),
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
            "hbiWorkspace": false,
            "tenantId": TENANT,
        },
    })
}

/// The subscription `id` as ARM tells it.
pub fn subscription(id: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{id}"),
        "subscriptionId": id,
        "displayName": id,
        "tenantId": TENANT,
        "state": "Enabled",
    })
}

/// A UUID that is the same wherever the workspace is asked for (RFC 9562 section 5.8: version 8, here of a SHA-256).
fn workspace_id(id: &str) -> String {
    let digest = digest::digest(&digest::SHA256, id.to_ascii_lowercase().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_keeps_its_id_however_it_is_spelled() {
        let id = workspace_id("/subscriptions/S/x");
        assert_eq!(id, workspace_id("/subscriptions/s/X"));
        assert_ne!(id, workspace_id("/subscriptions/t/x"));
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 8);
    }
}
