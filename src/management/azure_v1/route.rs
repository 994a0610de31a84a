//! Which call a method and a path are; every fixed part of a path in any letter case.

use http::Method;

/// A call of the model management service, with the parts of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET /services`
    List,
    /// `POST /services/list`
    ListByFilter,
    /// `POST /services`
    Create,
    /// `PUT /services`: the same, whatever is there.
    Replace,
    /// `POST /services/validate/name/{name}`
    ValidateName(String),
    /// `POST /services/validate`
    Validate,
    /// `POST /services/validate/resource`
    ValidateResource,
    /// `POST /services/migrate`
    Migrate,
    /// `GET /services/{name}`
    Get(String),
    /// `PATCH /services/{name}`
    Patch(String),
    /// `DELETE /services/{name}`
    Delete(String),
    /// `POST /services/{name}/listkeys`
    ListKeys(String),
    /// `POST /services/{name}/regenerateKeys`
    RegenerateKey(String),
    /// `POST /services/{name}/token`
    Token(String),
    /// `GET /services/{name}/logs`
    Logs(String),
    /// `GET /operations/{id}`
    Operation(String),
}

/// A workspace as Azure names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Subscription id.
    pub subscription: String,
    /// Resource group.
    pub resource_group: String,
    /// Workspace.
    pub workspace: String,
}

impl Place {
    /// Its Azure resource id.
    #[must_use]
    pub fn resource_id(&self) -> String {
        let Self { subscription, resource_group, workspace } = self;
        format!(
            "/subscriptions/{subscription}/resourceGroups/{resource_group}\
             /providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
        )
    }
}

/// A call of the resource provider about a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderCall {
    /// `GET` of the workspace itself.
    Workspace,
    /// `GET /computes/{name}`
    Compute(String),
}

/// Reads what follows `/modelmanagement/`: a version of the API, the workspace, the call.
#[must_use]
pub fn model_management(method: &Method, path: &str) -> Option<(Place, Call)> {
    let (_version, path) = path.split_once('/')?;
    let (place, rest) = place(path)?;
    let lower: Vec<_> = rest.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let lower: Vec<_> = lower.iter().map(String::as_str).collect();
    let name = |at: usize| rest[at].to_owned();
    let call = match (method.as_str(), lower.as_slice()) {
        ("GET", ["services"]) => Call::List,
        ("POST", ["services"]) => Call::Create,
        ("PUT", ["services"]) => Call::Replace,
        ("POST", ["services", "list"]) => Call::ListByFilter,
        ("POST", ["services", "migrate"]) => Call::Migrate,
        ("POST", ["services", "validate"]) => Call::Validate,
        ("POST", ["services", "validate", "resource"]) => Call::ValidateResource,
        ("POST", ["services", "validate", "name", _]) => Call::ValidateName(name(3)),
        ("GET", ["services", _]) => Call::Get(name(1)),
        ("PATCH", ["services", _]) => Call::Patch(name(1)),
        ("DELETE", ["services", _]) => Call::Delete(name(1)),
        ("POST", ["services", _, "listkeys"]) => Call::ListKeys(name(1)),
        ("POST", ["services", _, "regeneratekeys"]) => Call::RegenerateKey(name(1)),
        ("POST", ["services", _, "token"]) => Call::Token(name(1)),
        ("GET", ["services", _, "logs"]) => Call::Logs(name(1)),
        ("GET", ["operations", _]) => Call::Operation(name(1)),
        _ => return None,
    };
    Some((place, call))
}

/// Reads what follows `/rp/workspaces/`.
#[must_use]
pub fn provider(method: &Method, path: &str) -> Option<(Place, ProviderCall)> {
    let (place, rest) = place(path)?;
    match (method.as_str(), rest.as_slice()) {
        ("GET", []) => Some((place, ProviderCall::Workspace)),
        ("GET", [computes, name]) if computes.eq_ignore_ascii_case("computes") => {
            Some((place, ProviderCall::Compute((*name).to_owned())))
        }
        _ => None,
    }
}

/// The workspace that `path` begins with, and the segments after it.
fn place(path: &str) -> Option<(Place, Vec<&str>)> {
    const FIXED: [(usize, &str); 5] = [
        (0, "subscriptions"),
        (2, "resourcegroups"),
        (4, "providers"),
        (5, "microsoft.machinelearningservices"),
        (6, "workspaces"),
    ];
    let mut segments: Vec<_> = path.split('/').collect();
    if segments.last() == Some(&"") {
        segments.pop();
    }
    if segments.len() < 8 || segments.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    if FIXED.iter().any(|(at, word)| !segments[*at].eq_ignore_ascii_case(word)) {
        return None;
    }
    let [subscription, resource_group, workspace] = [1, 3, 7].map(|at| segments[at].to_owned());
    Some((Place { subscription, resource_group, workspace }, segments.split_off(8)))
}
