//! Names of what operations are about: Azure resource ids, as the activity log keeps them.

use crate::catalog::{ComputeType, WorkspaceSpec};

/// Something that an operation is about: where rights are asked for, and its id in the activity log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    id: String,
    workspace: Option<String>,
}

impl Resource {
    /// A workspace. `spec` is empty for one that is not there.
    pub(super) fn workspace(name: &str, spec: &WorkspaceSpec) -> Self {
        let id = format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.MachineLearningServices/workspaces/{name}",
            spec.subscription, spec.resource_group
        );
        Self { id, workspace: Some(name.to_owned()) }
    }

    /// A service of this workspace: SDK v2 calls the Managed ones online endpoints.
    pub(super) fn service(&self, compute_type: ComputeType, name: &str) -> Self {
        match compute_type {
            ComputeType::Aci | ComputeType::Aks => self.within(&format!("services/{name}")),
            ComputeType::Managed => self.within(&format!("onlineEndpoints/{name}")),
        }
    }

    /// A deployment of this service.
    pub(super) fn deployment(&self, name: &str) -> Self {
        self.within(&format!("deployments/{name}"))
    }

    /// A thing of the gateway as a whole, such as `Scoregate/managementTokens/x`. Rights are asked for on the gateway.
    pub(super) fn of_gateway(provider_path: &str) -> Self {
        Self { id: format!("/providers/{provider_path}"), workspace: None }
    }

    /// Part of this resource, such as `providers/Microsoft.Authorization/roleAssignments/x`.
    pub(super) fn within(&self, path: &str) -> Self {
        Self { id: format!("{}/{path}", self.id), workspace: self.workspace.clone() }
    }

    /// Its id, as Azure spells it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The workspace that it is in; `None`: the gateway as a whole.
    pub(super) fn scope(&self) -> Option<&str> {
        self.workspace.as_deref()
    }
}

/// The workspace that a resource id is in.
pub(super) fn workspace_of(resource_id: &str) -> Option<&str> {
    const BEFORE: &str = "/workspaces/";
    let at = resource_id.to_ascii_lowercase().find(BEFORE)?;
    resource_id[at + BEFORE.len()..].split('/').next().filter(|name| !name.is_empty())
}

/// A resource id without the principal that it ends with, if it is about one.
pub(super) fn without_principal(resource_id: &str) -> &str {
    resource_id
        .split_once(OF_PRINCIPALS)
        .map_or(resource_id, |(before, _)| &resource_id[..before.len() + OF_PRINCIPALS.len() - 1])
}

/// In front of the name of a principal.
const OF_PRINCIPALS: &str = "/revocations/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_spelled_as_azure_spells_them() {
        let spec = WorkspaceSpec {
            subscription: "sub".into(),
            resource_group: "rg".into(),
            ..WorkspaceSpec::default()
        };
        let workspace = Resource::workspace("Ws", &spec);
        let base =
            "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/Ws";
        assert_eq!(workspace.id(), base);
        let service = workspace.service(ComputeType::Aks, "iris");
        assert_eq!(service.id(), format!("{base}/services/iris"));
        let deployment = workspace.service(ComputeType::Managed, "iris").deployment("blue");
        assert_eq!(deployment.id(), format!("{base}/onlineEndpoints/iris/deployments/blue"));
        assert_eq!(deployment.scope(), Some("Ws"));
        let store = Resource::of_gateway("Scoregate/store");
        assert_eq!((store.id(), store.scope()), ("/providers/Scoregate/store", None));
    }

    #[test]
    fn the_workspace_of_an_id_is_found_in_any_case() {
        for (id, workspace) in [
            ("/subscriptions/s/resourceGroups/r/providers/P/Workspaces/Ws", Some("Ws")),
            ("/subscriptions/s/resourceGroups/r/providers/P/workspaces/ws/services/a", Some("ws")),
            ("/providers/Scoregate/store", None),
            ("/workspaces/", None),
            ("", None),
        ] {
            assert_eq!(workspace_of(id), workspace, "{id}");
        }
    }
}
