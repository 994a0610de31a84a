//! What a path below `/subscriptions` names. Names of collections and actions are read without regard to case, as ARM
//! does; names of resources are taken as they are.

/// Path of the gateway's resource provider.
pub const PROVIDER: &str = "Microsoft.MachineLearningServices";

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// `/subscriptions`
    Subscriptions,
    /// `/subscriptions/{id}`
    Subscription(String),
    /// `..locations/{location}/mfeOperationsStatus/{id}`: an operation to poll.
    Operation(String),
    /// `..workspaces`: those of one resource group, or of the whole subscription.
    Workspaces {
        /// Subscription id.
        subscription: String,
        /// Its name.
        resource_group: Option<String>,
    },
    /// `..workspaces/{name}` or something in it.
    InWorkspace(WorkspacePath, Resource),
}

/// How SDK clients name a workspace.
#[derive(Debug, PartialEq, Eq)]
pub struct WorkspacePath {
    /// Subscription id.
    pub subscription: String,
    /// Name of the resource group.
    pub resource_group: String,
    /// Name of the workspace.
    pub name: String,
}

/// Something in a workspace.
#[derive(Debug, PartialEq, Eq)]
pub enum Resource {
    /// The workspace itself.
    Workspace,
    /// `onlineEndpoints`
    Endpoints,
    /// `onlineEndpoints/{name}`
    Endpoint(String),
    /// `onlineEndpoints/{name}/{action}`
    EndpointAction(String, EndpointAction),
    /// `onlineEndpoints/{name}/providers/Microsoft.Insights/metrics`
    Metrics(String),
    /// `onlineEndpoints/{name}/deployments`
    Deployments(String),
    /// `onlineEndpoints/{name}/deployments/{name}`
    Deployment(String, String),
    /// `..deployments/{name}/getLogs`
    Logs(String, String),
    /// `..deployments/{name}/skus`
    Skus(String, String),
}

/// What can be asked of an endpoint beside reading and writing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointAction {
    /// `listKeys`
    ListKeys,
    /// `regenerateKeys`
    RegenerateKeys,
    /// `token`
    Token,
}

impl Target {
    /// What `rest`, the decoded path after `/subscriptions/`, names; `None`: nothing of this API.
    pub fn parse(rest: &str) -> Option<Self> {
        let segments: Vec<&str> = rest.strip_suffix('/').unwrap_or(rest).split('/').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return rest.is_empty().then_some(Self::Subscriptions);
        }
        match segments.as_slice() {
            [subscription] => Some(Self::Subscription((*subscription).to_owned())),
            [_, providers, provider, locations, _, status, id]
                if is(providers, "providers")
                    && is(provider, PROVIDER)
                    && is(locations, "locations")
                    && is(status, "mfeOperationsStatus") =>
            {
                Some(Self::Operation((*id).to_owned()))
            }
            [subscription, providers, provider, workspaces]
                if is(providers, "providers") && is(provider, PROVIDER) && is(workspaces, "workspaces") =>
            {
                Some(Self::Workspaces { subscription: (*subscription).to_owned(), resource_group: None })
            }
            [subscription, groups, group, providers, provider, workspaces, inside @ ..]
                if is(groups, "resourceGroups")
                    && is(providers, "providers")
                    && is(provider, PROVIDER)
                    && is(workspaces, "workspaces") =>
            {
                Self::below_workspaces((*subscription).to_owned(), (*group).to_owned(), inside)
            }
            _ => None,
        }
    }

    fn below_workspaces(subscription: String, resource_group: String, inside: &[&str]) -> Option<Self> {
        let Some((name, inside)) = inside.split_first() else {
            return Some(Self::Workspaces { subscription, resource_group: Some(resource_group) });
        };
        let workspace = WorkspacePath { subscription, resource_group, name: (*name).to_owned() };
        Resource::parse(inside).map(|resource| Self::InWorkspace(workspace, resource))
    }
}

impl Resource {
    fn parse(inside: &[&str]) -> Option<Self> {
        let Some((collection, inside)) = inside.split_first() else { return Some(Self::Workspace) };
        if !is(collection, "onlineEndpoints") {
            return None;
        }
        let owned = |name: &str| name.to_owned();
        match inside {
            [] => Some(Self::Endpoints),
            [endpoint] => Some(Self::Endpoint(owned(endpoint))),
            [endpoint, word] if is(word, "deployments") => Some(Self::Deployments(owned(endpoint))),
            [endpoint, word] => {
                EndpointAction::parse(word).map(|action| Self::EndpointAction(owned(endpoint), action))
            }
            [endpoint, word, provider, metrics]
                if is(word, "providers") && is(provider, "Microsoft.Insights") && is(metrics, "metrics") =>
            {
                Some(Self::Metrics(owned(endpoint)))
            }
            [endpoint, word, deployment] if is(word, "deployments") => {
                Some(Self::Deployment(owned(endpoint), owned(deployment)))
            }
            [endpoint, word, deployment, action] if is(word, "deployments") => {
                let (endpoint, deployment) = (owned(endpoint), owned(deployment));
                if is(action, "getLogs") {
                    return Some(Self::Logs(endpoint, deployment));
                }
                is(action, "skus").then_some(Self::Skus(endpoint, deployment))
            }
            _ => None,
        }
    }
}

impl EndpointAction {
    fn parse(word: &str) -> Option<Self> {
        let all =
            [("listKeys", Self::ListKeys), ("regenerateKeys", Self::RegenerateKeys), ("token", Self::Token)];
        all.into_iter().find(|(name, _)| is(word, name)).map(|(_, action)| action)
    }
}

fn is(segment: &str, word: &str) -> bool {
    segment.eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "S/resourceGroups/Rg/providers/Microsoft.MachineLearningServices/workspaces/Ws";

    fn inside(path: &str) -> Option<Resource> {
        match Target::parse(&format!("{WORKSPACE}{path}"))? {
            Target::InWorkspace(workspace, resource) => {
                assert_eq!(
                    (&*workspace.subscription, &*workspace.resource_group, &*workspace.name),
                    ("S", "Rg", "Ws")
                );
                Some(resource)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_path_of_the_api_names_one_thing() {
        let (e, d) = (|| "iris".to_owned(), || "blue".to_owned());
        for (path, resource) in [
            ("", Resource::Workspace),
            ("/onlineEndpoints", Resource::Endpoints),
            ("/onlineEndpoints/", Resource::Endpoints),
            ("/onlineEndpoints/iris", Resource::Endpoint(e())),
            ("/onlineEndpoints/iris/listKeys", Resource::EndpointAction(e(), EndpointAction::ListKeys)),
            (
                "/onlineEndpoints/iris/regenerateKeys",
                Resource::EndpointAction(e(), EndpointAction::RegenerateKeys),
            ),
            ("/onlineEndpoints/iris/token", Resource::EndpointAction(e(), EndpointAction::Token)),
            ("/onlineEndpoints/iris/providers/microsoft.insights/metrics", Resource::Metrics(e())),
            ("/onlineEndpoints/iris/deployments", Resource::Deployments(e())),
            ("/onlineEndpoints/iris/deployments/blue", Resource::Deployment(e(), d())),
            ("/onlineEndpoints/iris/deployments/blue/getLogs", Resource::Logs(e(), d())),
            ("/onlineEndpoints/iris/deployments/blue/skus", Resource::Skus(e(), d())),
        ] {
            assert_eq!(inside(path), Some(resource), "{path}");
        }
        let operation = "S/providers/Microsoft.MachineLearningServices/locations/x/mfeOperationsStatus/id";
        assert_eq!(Target::parse(operation), Some(Target::Operation("id".into())));
        assert_eq!(Target::parse(""), Some(Target::Subscriptions));
        assert_eq!(Target::parse("S"), Some(Target::Subscription("S".into())));
        let workspaces = |resource_group| Target::Workspaces { subscription: "S".into(), resource_group };
        let all = "S/providers/Microsoft.MachineLearningServices/workspaces";
        assert_eq!(Target::parse(all), Some(workspaces(None)));
        assert_eq!(Target::parse(WORKSPACE.trim_end_matches("/Ws")), Some(workspaces(Some("Rg".into()))));
    }

    #[test]
    fn collections_and_actions_have_no_case_and_names_keep_theirs() {
        let spelled = "S/RESOURCEGROUPS/Rg/Providers/microsoft.machinelearningservices/WorkSpaces/Ws\
                       /onlineendpoints/IRIS/LISTKEYS";
        let Some(Target::InWorkspace(workspace, resource)) = Target::parse(spelled) else { panic!() };
        assert_eq!(workspace.name, "Ws");
        assert_eq!(resource, Resource::EndpointAction("IRIS".into(), EndpointAction::ListKeys));
    }

    #[test]
    fn anything_else_names_nothing() {
        for path in [
            "/batchEndpoints/iris",
            "/onlineEndpoints/iris/keys",
            "/onlineEndpoints/iris/deployments/blue/delete",
            "/onlineEndpoints/iris/deployments/blue/getLogs/more",
            "/onlineEndpoints/iris/providers/Microsoft.Insights/logs",
            "/onlineEndpoints//deployments",
        ] {
            assert_eq!(inside(path), None, "{path}");
        }
        for path in ["/", "S/resourceGroups/Rg", "S/providers/Microsoft.Compute/workspaces", "S//"] {
            assert_eq!(Target::parse(path), None, "{path}");
        }
    }
}
