//! `/v1/workspaces/{workspace}/services`

use http::Method;
use serde_json::{Map, Value};

use super::call::{CURSOR, Call, LIMIT, judged, nothing, ok, versioned, written};
use super::route::{Answer, Conditions, Parameter, ParameterKind, Route};
use super::view::{GivenKeys, Listed, ServiceRequest, ServiceView};
use crate::catalog::{Action, ComputeType, ServiceEntry, ServiceSpec};
use crate::management::http::merge_patch;
use crate::management::operations::{ServiceFilter, SuppliedKeys, Versioned};
use crate::management::{Cause, Operations, Refusal};

const ALL: &str = "/v1/workspaces/{workspace}/services";
const ONE: &str = "/v1/workspaces/{workspace}/services/{service}";
pub(super) const READ: &[Action] = &[Action::ServiceRead, Action::EndpointRead];
pub(super) const WRITE: &[Action] = &[Action::AciWrite, Action::AksWrite, Action::EndpointWrite];
pub(super) const DELETE: &[Action] = &[Action::AciDelete, Action::AksDelete, Action::EndpointDelete];

/// What [`ServiceView`] has beside the spec: may come back with a read-change-write, and means nothing then.
const READ_ONLY: [&str; 4] = ["origin", "scoring_uri", "swagger_uri", "provenance"];

const FILTERS: &[Parameter] = &[
    LIMIT,
    CURSOR,
    Parameter { name: "compute_type", about: "ACI, AKS or Managed.", kind: ParameterKind::Text },
    Parameter { name: "tag", about: "`name` or `name=value`; all must hold.", kind: ParameterKind::Texts },
    Parameter {
        name: "property",
        about: "`name` or `name=value`; all must hold.",
        kind: ParameterKind::Texts,
    },
];

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, ALL, "listServices", list)
            .summary("Lists services in the order of their names")
            .needs(READ)
            .query(FILTERS)
            .gives::<Listed<ServiceView>>(200),
        Route::new(Method::GET, ONE, "getService", get)
            .summary("Shows a service")
            .needs(READ)
            .gives::<ServiceView>(200),
        Route::new(Method::PUT, ONE, "putService", put)
            .summary("Makes or replaces a service, whole; a change of the auth mode is one switch")
            .needs(WRITE)
            .conditions(Conditions::MatchOrAbsent)
            .takes::<ServiceRequest>()
            .gives::<ServiceView>(200)
            .gives::<ServiceView>(201),
        Route::new(Method::PATCH, ONE, "patchService", patch)
            .summary("Changes a service by a merge patch of what it was asked to be")
            .needs(WRITE)
            .conditions(Conditions::Match)
            .takes_patch()
            .gives::<ServiceView>(200),
        Route::new(Method::DELETE, ONE, "deleteService", delete)
            .summary("Deletes a service with its deployments and keys")
            .needs(DELETE)
            .conditions(Conditions::Match)
            .gives_nothing(204),
    ]
}

/// A service and what the gateway adds to it.
pub(super) fn view(operations: &Operations, entry: ServiceEntry) -> ServiceView {
    let uris = operations.uris(&entry);
    ServiceView::new(entry, uris)
}

async fn list(call: Call) -> Answer {
    let (workspace, page, filter) = (call.path("workspace"), call.page()?, filter(&call)?);
    let found = call.run(move |operations, caller| {
        let found = operations.services(caller, &workspace, &filter, &page)?;
        Ok(Listed::of(found, |found| view(operations, found.value)))
    });
    Ok(ok(found.await?))
}

fn filter(call: &Call) -> Result<ServiceFilter, Refusal> {
    let compute_type = call.parameter("compute_type").map(|text| compute_type(&text)).transpose()?;
    let pair = |text: &str| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    };
    Ok(ServiceFilter {
        compute_type,
        tags: call.parameters("tag").map(pair).collect(),
        properties: call.parameters("property").map(pair).collect(),
    })
}

fn compute_type(text: &str) -> Result<ComputeType, Refusal> {
    let known = [ComputeType::Aci, ComputeType::Aks, ComputeType::Managed];
    let found = known.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text));
    found.ok_or_else(|| Refusal::invalid("compute_type", format!("'{text}' is not one of ACI, AKS, Managed")))
}

async fn get(call: Call) -> Answer {
    let (workspace, name) = (call.path("workspace"), call.path("service"));
    let found = call.run(move |operations, caller| {
        let found = operations.service(caller, &workspace, &name)?;
        Ok(Versioned { value: view(operations, found.value), version: found.version })
    });
    let found = found.await?;
    Ok(versioned(ok(found.value), found.version))
}

async fn put(mut call: Call) -> Answer {
    let (workspace, name, precondition) =
        (call.path("workspace"), call.path("service"), call.precondition()?);
    let (spec, keys) = request(call.body().await?, &workspace, &name)?;
    let made = call.run(move |operations, caller| {
        let (made, how) = operations.put_service(caller, &workspace, &name, spec, keys, precondition)?;
        Ok((view(operations, made.value), made.version, how))
    });
    let (service, version, how) = made.await.map_err(judged(precondition))?;
    Ok(versioned(written(service, how), version))
}

/// Takes a request to make a service apart: what its owner asks for, and keys.
fn request(body: Value, workspace: &str, name: &str) -> Result<(ServiceSpec, SuppliedKeys), Refusal> {
    let Value::Object(mut members) = body else {
        return Err(Refusal::new(Cause::Invalid, "the body must be a JSON object"));
    };
    let keys = members.shift_remove("keys").unwrap_or(Value::Null);
    let keys: Option<GivenKeys> = typed(keys, "keys.")?;
    let keys = keys.unwrap_or_default();
    let spec = spec(members, workspace, name)?;
    let supplied =
        SuppliedKeys { primary: keys.primary.map(|key| key.0), secondary: keys.secondary.map(|key| key.0) };
    Ok((spec, supplied))
}

/// The spec among `members`; what else a service shows of itself is dropped, if it is about this service.
fn spec(mut members: Map<String, Value>, workspace: &str, name: &str) -> Result<ServiceSpec, Refusal> {
    for (member, here) in [("name", name), ("workspace", workspace)] {
        let given = members.shift_remove(member);
        if given.is_some_and(|given| !given.as_str().is_some_and(|given| given.eq_ignore_ascii_case(here))) {
            return Err(Refusal::invalid(
                member,
                format!("is not '{here}', which the path says; leave it out"),
            ));
        }
    }
    for member in READ_ONLY {
        members.shift_remove(member);
    }
    typed(Value::Object(members), "")
}

fn typed<T: serde::de::DeserializeOwned>(value: Value, under: &str) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let target = (!matches!(path.as_str(), "." | "?")).then(|| format!("{under}{path}"));
        let message = format!("not the JSON expected: {}", error.inner());
        Refusal { cause: Cause::Invalid, message, target }
    })
}

async fn patch(mut call: Call) -> Answer {
    let (workspace, name, precondition) =
        (call.path("workspace"), call.path("service"), call.precondition()?);
    let patch: Value = call.body().await?;
    if !patch.is_object() {
        return Err(Refusal::new(Cause::Invalid, "the body must be a JSON object"));
    }
    if patch.get("keys").is_some() {
        return Err(Refusal::invalid("keys", "are changed by keys/{slot}/regenerate"));
    }
    let changed = call.run(move |operations, caller| {
        let change = |service: &ServiceEntry| patched(service, patch.clone());
        let changed = operations.change_service(caller, &workspace, &name, precondition, &change)?;
        Ok(Versioned { value: view(operations, changed.value), version: changed.version })
    });
    let changed = changed.await?;
    Ok(versioned(ok(changed.value), changed.version))
}

/// What `service` is asked to be after `patch`.
fn patched(service: &ServiceEntry, patch: Value) -> Result<ServiceSpec, Refusal> {
    let mut wanted = serde_json::to_value(&service.spec).map_err(|error| {
        tracing::error!(%error, service = %service.name, "a service cannot be written as JSON");
        Refusal::new(Cause::Internal, "the gateway failed on this request")
    })?;
    merge_patch(&mut wanted, patch);
    let Value::Object(members) = wanted else {
        return Err(Refusal::new(Cause::Invalid, "the body must be a JSON object"));
    };
    spec(members, &service.workspace, service.name.as_str())
}

async fn delete(call: Call) -> Answer {
    let (workspace, name, precondition) =
        (call.path("workspace"), call.path("service"), call.precondition()?);
    call.run(move |operations, caller| operations.delete_service(caller, &workspace, &name, precondition))
        .await?;
    Ok(nothing())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_read_may_be_sent_back_but_not_to_another_service() {
        let shown = json!({
            "name": "iris", "workspace": "ws", "origin": "managed", "scoring_uri": "https://x",
            "swagger_uri": "https://y", "provenance": {}, "compute_type": "AKS", "auth": "token",
            "keys": {"primary": "p"},
        });
        let (spec, keys) = request(shown.clone(), "WS", "iris").unwrap();
        assert_eq!(spec.compute_type, ComputeType::Aks);
        assert_eq!(keys.primary.unwrap().expose_secret(), "p");
        assert!(keys.secondary.is_none());
        assert_eq!(request(shown, "ws", "tulip").unwrap_err().target.as_deref(), Some("name"));
    }

    #[test]
    fn a_wrong_member_is_named_and_a_wrong_key_not_repeated() {
        let wrong = json!({"compute_type": "AKS", "deployments": {"blue": {"traffic": 300}}});
        assert_eq!(
            request(wrong, "ws", "iris").unwrap_err().target.as_deref(),
            Some("deployments.blue.traffic")
        );
        let key = json!({"compute_type": "AKS", "keys": {"primary": 123_456}});
        let refusal = request(key, "ws", "iris").unwrap_err();
        assert_eq!(refusal.target.as_deref(), Some("keys.primary"));
        let unknown = json!({"compute_type": "AKS", "tag": {}});
        assert!(request(unknown, "ws", "iris").unwrap_err().message.contains("unknown field `tag`"));
    }
}
