//! Tests of reading services.

use super::super::fixtures::{Gateway, caller, declared as declare, holder, holder_in, spec};
use super::*;
use crate::auth::AuthSettings;
use crate::catalog::{Action, ActionSet, BuiltInRole, Origin, ServiceSpec, WorkspaceSpec};
use crate::management::Cause;
use crate::management::operations::{Precondition, SuppliedKeys};
use crate::store::{Batch, Store};

fn owner() -> Caller {
    holder(BuiltInRole::Owner)
}

fn list(
    gateway: &Gateway,
    caller: &Caller,
    filter: &ServiceFilter,
    page: &Page,
) -> (Vec<String>, Option<String>) {
    let list = gateway.operations.services(caller, "ws", filter, page).unwrap();
    (list.items.iter().map(|service| service.value.name.to_string()).collect(), list.next)
}

fn all(gateway: &Gateway, caller: &Caller, filter: &ServiceFilter) -> Vec<String> {
    let mut page = Page { limit: 2, cursor: None };
    let mut found = Vec::new();
    loop {
        let (names, next) = list(gateway, caller, filter, &page);
        found.extend(names);
        page.cursor = next;
        if page.cursor.is_none() {
            return found;
        }
    }
}

fn with_declared(names: &[&str]) -> Gateway {
    let gateway = Gateway::new();
    let services = names.iter().map(|name| declare(name, &spec(ComputeType::Aks), AuthSettings::None));
    gateway.data_plane.declared.lock().unwrap().extend(services);
    gateway
}

#[test]
fn declared_and_stored_services_are_one_list_in_the_order_of_their_names() {
    let gateway = with_declared(&["mike", "alpha"]);
    for name in ["zulu", "bravo", "november"] {
        gateway.serve(name, spec(ComputeType::Aks));
    }
    let none = ServiceFilter::default();
    assert_eq!(all(&gateway, &owner(), &none), ["alpha", "bravo", "mike", "november", "zulu"]);
    let page = gateway.operations.services(&owner(), "WS", &none, &Page::default()).unwrap();
    let origins: Vec<_> = page.items.iter().map(|service| service.value.origin).collect();
    assert_eq!(origins.iter().filter(|origin| **origin == Origin::Declared).count(), 2);
    assert_eq!(page.items[1], gateway.operations.service(&owner(), "ws", "bravo").unwrap());
}

#[test]
fn a_list_holds_the_services_of_its_workspace_alone() {
    let gateway = with_declared(&["file"]);
    let operations = &gateway.operations;
    for workspace in ["lab", "lab-2"] {
        operations.put_workspace(&owner(), workspace, WorkspaceSpec::default(), Precondition::None).unwrap();
    }
    gateway.serve("iris", spec(ComputeType::Aks));
    gateway.serve_in("lab-2", "wine", spec(ComputeType::Aks));
    let names = |workspace| -> Vec<String> {
        let none = ServiceFilter::default();
        let list = operations.services(&owner(), workspace, &none, &Page::default()).unwrap();
        list.items.iter().map(|service| service.value.name.to_string()).collect()
    };
    assert_eq!(names("ws"), ["file", "iris"]);
    assert!(names("lab").is_empty());
    assert_eq!(names("lab-2"), ["wine"]);
    assert_eq!(operations.service(&owner(), "lab", "wine").unwrap_err().cause, Cause::NotFound);
    assert_eq!(operations.service(&owner(), "lab", "file").unwrap_err().cause, Cause::NotFound);
    let gone = operations.services(&owner(), "gone", &ServiceFilter::default(), &Page::default());
    assert_eq!(gone.unwrap_err().cause, Cause::NotFound);
}

#[test]
fn filters_go_by_compute_type_tags_and_properties() {
    let gateway = Gateway::new();
    let tagged = |tag: &str, value: &str| {
        let mut spec = spec(ComputeType::Aks);
        spec.tags.insert(tag.into(), value.into());
        spec.properties.insert("owner".into(), value.into());
        spec
    };
    gateway.serve("one", tagged("team", "red"));
    gateway.serve("two", tagged("team", "blue"));
    gateway.serve("three", ServiceSpec { ..spec(ComputeType::Managed) });
    let found = |filter: ServiceFilter| all(&gateway, &owner(), &filter);
    let name = |text: &str| text.to_owned();
    assert_eq!(
        found(ServiceFilter { compute_type: Some(ComputeType::Managed), ..ServiceFilter::default() }),
        ["three"]
    );
    let by_tag = |value: Option<&str>| ServiceFilter {
        tags: vec![(name("team"), value.map(Into::into))],
        ..ServiceFilter::default()
    };
    assert_eq!(found(by_tag(None)), ["one", "two"]);
    assert_eq!(found(by_tag(Some("red"))), ["one"]);
    assert!(found(by_tag(Some("re"))).is_empty());
    let both = ServiceFilter { properties: vec![(name("owner"), Some(name("red")))], ..by_tag(Some("blue")) };
    assert!(found(both).is_empty());
}

#[test]
fn callers_see_services_of_the_compute_types_that_they_may_see() {
    let gateway = Gateway::new();
    gateway.serve("aks", spec(ComputeType::Aks));
    gateway.serve("managed", spec(ComputeType::Managed));
    let may = |action| caller("ann", ActionSet::from_iter([action]));
    let none = ServiceFilter::default();
    assert_eq!(all(&gateway, &may(Action::ServiceRead), &none), ["aks"]);
    assert_eq!(all(&gateway, &may(Action::EndpointRead), &none), ["managed"]);
    let read = |caller: &Caller, name| gateway.operations.service(caller, "ws", name).map_err(|it| it.cause);
    assert_eq!(read(&may(Action::ServiceRead), "managed").unwrap_err(), Cause::NotFound);
    assert_eq!(read(&may(Action::EndpointRead), "nobody").unwrap_err(), Cause::NotFound);
    assert!(read(&may(Action::EndpointRead), "managed").is_ok());
    let stranger = holder_in("other", BuiltInRole::Owner);
    for name in ["aks", "nobody"] {
        assert_eq!(read(&stranger, name).unwrap_err(), Cause::Forbidden(Action::ServiceRead), "{name}");
    }
    let outcome = gateway.operations.services(&stranger, "ws", &none, &Page::default());
    assert_eq!(outcome.unwrap_err().cause, Cause::Forbidden(Action::ServiceRead));
    let events = gateway.events().len();
    assert_eq!(events, 4, "reads leave no event");
}

#[test]
fn a_page_of_a_large_workspace_reads_no_more_than_it_needs() {
    let gateway = Gateway::new();
    let made = gateway.serve("svc-00000", spec(ComputeType::Aks)).value;
    let mut batch = Batch::default();
    for number in 1..20_000 {
        let name = format!("svc-{number:05}");
        let entry = ServiceEntry { name: crate::catalog::ServiceName::parse(&name).unwrap(), ..made.clone() };
        batch.put(Table::Services, name.as_str(), serde_json::to_vec(&entry).unwrap());
        batch.put(Table::ServicesByWorkspace, format!("ws/{name}"), []);
    }
    gateway.store.commit(batch).unwrap();
    let none = ServiceFilter::default();
    let (names, next) = list(&gateway, &owner(), &none, &Page { limit: 3, cursor: None });
    assert_eq!(names, ["svc-00000", "svc-00001", "svc-00002"]);
    let (names, _) = list(&gateway, &owner(), &none, &Page { limit: 1, cursor: next });
    assert_eq!(names, ["svc-00003"]);
    // A filter that nothing passes gives the page back after a bounded look.
    let filter = ServiceFilter { tags: vec![("none".into(), None)], ..none };
    let (names, next) = list(&gateway, &owner(), &filter, &Page::default());
    assert!(names.is_empty() && next.is_some());
}

#[test]
fn a_cursor_of_nowhere_is_refused() {
    let gateway = Gateway::new();
    let page = Page { limit: 10, cursor: Some("!".into()) };
    let refusal = gateway.operations.services(&owner(), "ws", &ServiceFilter::default(), &page).unwrap_err();
    assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some("cursor")));
}

#[test]
fn a_service_made_before_it_was_declared_is_hidden_by_the_declared_one() {
    let gateway = Gateway::new();
    gateway.serve("iris", spec(ComputeType::Managed));
    let file = declare("iris", &spec(ComputeType::Aks), AuthSettings::None);
    gateway.data_plane.declared.lock().unwrap().push(file);
    let read = gateway.operations.service(&owner(), "ws", "iris").unwrap();
    assert_eq!((read.value.origin, read.value.spec.compute_type), (Origin::Declared, ComputeType::Aks));
    assert_eq!(all(&gateway, &owner(), &ServiceFilter::default()), ["iris"]);
    let outcome = gateway.operations.put_service(
        &owner(),
        "ws",
        "iris",
        spec(ComputeType::Managed),
        SuppliedKeys::default(),
        Precondition::None,
    );
    assert_eq!(outcome.unwrap_err().cause, Cause::ReadOnly);
}
