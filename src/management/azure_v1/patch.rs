//! JSON Patch (RFC 6902) on the document of a service, member by member of what Azure lets clients change.
//!
//! `add`, `replace`, `remove` and `test`; not `move` and `copy`, which no client of this API sends and with which a small
//! patch can make an enormous document. The whole patch is applied to a copy: it happens wholly or not at all.

use serde_json::{Map, Value};

use crate::catalog::{ServiceEntry, ServiceSpec};
use crate::management::{Cause, Refusal};

use super::document;
use super::kind::Kind;

/// Most operations in one patch.
const MOST_OPERATIONS: usize = 1_000;

/// Members of every kind of service and of a version.
const ANY: &[&str] = &["description", "kvTags", "properties", "appInsightsEnabled"];
/// Members of whatever is called directly.
const SERVICE: &[&str] = &["authEnabled", "aadAuthEnabled"];
/// Members of what runs containers.
const CONTAINER: &[&str] =
    &["imageId", "environmentImageRequest", "containerResourceRequirements", "dataCollection"];
const ACI: &[&str] = &["sslEnabled", "sslCertificate", "sslKey", "cname"];
const AKS: &[&str] = &[
    "autoScaler",
    "livenessProbeRequirements",
    "maxConcurrentRequestsPerContainer",
    "maxQueueWaitMs",
    "namespace",
    "numReplicas",
    "scoringTimeoutMs",
];
const ENDPOINT: &[&str] = &["namespace", "versions"];
const VERSION: &[&str] = &["trafficPercentile", "isDefault", "type"];

/// The service that `patch` makes of `entry`.
///
/// # Errors
/// Names the operation or the member that is wrong; [`Cause::Conflict`] if a `test` fails.
pub fn apply(entry: &ServiceEntry, patch: &Value) -> Result<ServiceSpec, Refusal> {
    let kind = Kind::of(&entry.spec)
        .ok_or_else(|| Refusal::not_found(format_args!("web service '{}'", entry.name)))?;
    let operations =
        patch.as_array().ok_or_else(|| Refusal::invalid("body", "must be a JSON Patch: an array"))?;
    if operations.len() > MOST_OPERATIONS {
        return Err(Refusal::invalid("body", format!("a patch has at most {MOST_OPERATIONS} operations")));
    }
    let mut document = Value::Object(document::of(kind, &entry.spec));
    for (place, operation) in operations.iter().enumerate() {
        let operation = Operation::read(operation, place)?;
        may_change(kind, &operation)?;
        operation.apply(&mut document)?;
    }
    let Value::Object(mut document) = document else {
        return Err(Refusal::new(Cause::Internal, "a service is no object any more"));
    };
    document::forget_defaults(kind, &mut document, &entry.spec);
    document::apply(kind, document, &entry.spec)
}

enum Act {
    Add(Value),
    Replace(Value),
    Remove,
    Test(Value),
}

struct Operation {
    act: Act,
    /// The pointer as it was sent, for messages.
    path: String,
    /// Its tokens, unescaped.
    tokens: Vec<String>,
}

impl Operation {
    fn read(operation: &Value, place: usize) -> Result<Self, Refusal> {
        let wrong =
            |member: &str, message: &str| Refusal::invalid(format!("body[{place}].{member}"), message);
        let text = |member: &str| {
            operation.get(member).and_then(Value::as_str).ok_or_else(|| wrong(member, "must be a text"))
        };
        let value =
            || operation.get("value").cloned().ok_or_else(|| wrong("value", "is missing; say null to clear"));
        let act = match text("op")? {
            "add" => Act::Add(value()?),
            "replace" => Act::Replace(value()?),
            "remove" => Act::Remove,
            "test" => Act::Test(value()?),
            _ => return Err(wrong("op", "must be add, replace, remove or test")),
        };
        let path = text("path")?.to_owned();
        let tokens = tokens(&path).ok_or_else(|| {
            wrong("path", "must be a JSON Pointer (RFC 6901) to a member, such as /authEnabled")
        })?;
        Ok(Self { act, path, tokens })
    }

    fn apply(self, document: &mut Value) -> Result<(), Refusal> {
        let Self { act, path, tokens } = self;
        let missing = || Refusal::invalid(path.as_str(), "there is no such member");
        let Some((last, parents)) = tokens.split_last() else { return Err(missing()) };
        let parent = parents.iter().try_fold(document, |at, token| child(at, token)).ok_or_else(missing)?;
        match act {
            Act::Add(value) => add(parent, last, value).ok_or_else(missing),
            Act::Replace(value) => {
                *child(parent, last).ok_or_else(missing)? = value;
                Ok(())
            }
            Act::Remove => remove(parent, last).ok_or_else(missing),
            Act::Test(value) if *child(parent, last).ok_or_else(missing)? == value => Ok(()),
            Act::Test(_) => Err(Refusal {
                cause: Cause::Conflict,
                message: "it is not what the patch expects".into(),
                target: Some(path),
            }),
        }
    }
}

/// The tokens of a pointer (RFC 6901); `None` if it is none, or points to the whole document. `tags` is `kvTags`: that is
/// how `AksEndpoint.update_version` spells it.
fn tokens(pointer: &str) -> Option<Vec<String>> {
    let unescape = |token: &str| token.replace("~1", "/").replace("~0", "~");
    let mut tokens: Vec<_> = pointer.strip_prefix('/')?.split('/').map(unescape).collect();
    let member = if tokens[0] == "versions" { 2 } else { 0 };
    if let Some(token) = tokens.get_mut(member).filter(|token| *token == "tags") {
        "kvTags".clone_into(token);
    }
    Some(tokens)
}

fn may_change(kind: Kind, operation: &Operation) -> Result<(), Refusal> {
    let tokens: Vec<_> = operation.tokens.iter().map(String::as_str).collect();
    let allowed: &[&[&str]] = match (kind, tokens.as_slice()) {
        (Kind::AksEndpoint, ["versions"]) => &[],
        (Kind::AksEndpoint, ["versions", _]) => return Ok(()),
        (Kind::AksEndpoint, ["versions", ..]) => &[ANY, CONTAINER, AKS, VERSION],
        (Kind::AksEndpoint, _) => &[ANY, SERVICE, ENDPOINT],
        (Kind::Aci, _) => &[ANY, SERVICE, CONTAINER, ACI],
        (Kind::Aks, _) => &[ANY, SERVICE, CONTAINER, AKS],
    };
    let member = match tokens.as_slice() {
        ["versions", _, member, ..] if kind == Kind::AksEndpoint => member,
        [member, ..] => member,
        [] => "",
    };
    if allowed.iter().any(|members| members.contains(&member)) {
        return Ok(());
    }
    let message = format!("cannot be changed on a web service of type {}", kind.as_str());
    Err(Refusal::invalid(operation.path.as_str(), message))
}

fn child<'a>(parent: &'a mut Value, token: &str) -> Option<&'a mut Value> {
    match parent {
        Value::Object(members) => members.get_mut(token),
        Value::Array(items) => items.get_mut(index(token)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn add(parent: &mut Value, token: &str, value: Value) -> Option<()> {
    match parent {
        Value::Object(members) => {
            members.insert(token.to_owned(), value);
        }
        Value::Array(items) => {
            let at = if token == "-" { items.len() } else { index(token)? };
            if at > items.len() {
                return None;
            }
            items.insert(at, value);
        }
        // What was never set is null in the document: the first member makes it an object.
        Value::Null => *parent = Value::Object(Map::from_iter([(token.to_owned(), value)])),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    }
    Some(())
}

fn remove(parent: &mut Value, token: &str) -> Option<()> {
    match parent {
        Value::Object(members) => members.shift_remove(token).map(drop),
        Value::Array(items) => {
            let at = index(token).filter(|at| *at < items.len())?;
            items.remove(at);
            Some(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// An array index: digits without a leading zero (RFC 6901, section 4).
fn index(token: &str) -> Option<usize> {
    let is_index =
        token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    is_index.then(|| token.parse().ok()).flatten()
}
