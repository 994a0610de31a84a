//! Tests of writing services and deployments.

use std::sync::Arc;

use super::super::fixtures::{Gateway, TestStore, caller, declared, holder, holder_in, settings, spec};
use super::*;
use crate::catalog::{Action, ActionSet, BuiltInRole, ComputeType, Provenance, WorkspaceSpec};
use crate::management::operations::ActivityStatus;
use crate::store::Store;

fn put(
    gateway: &Gateway,
    name: &str,
    spec: ServiceSpec,
    precondition: Precondition,
) -> Result<(Versioned<ServiceEntry>, Written), Refusal> {
    let owner = holder(BuiltInRole::Owner);
    gateway.operations.put_service(&owner, "ws", name, spec, SuppliedKeys::default(), precondition)
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> (Cause, Option<String>) {
    let refusal = outcome.unwrap_err();
    (refusal.cause, refusal.target)
}

fn with(compute_type: ComputeType, auth: AuthMode) -> ServiceSpec {
    ServiceSpec { auth: Some(auth), ..spec(compute_type) }
}

fn served_mode(gateway: &Gateway, name: &str) -> &'static str {
    match gateway.served(name).unwrap().auth {
        AuthSettings::None => "none",
        AuthSettings::Key(_) => "key",
        AuthSettings::Token(_) => "token",
        AuthSettings::Oidc(_) => "oidc",
    }
}

#[test]
fn a_new_service_is_stored_served_and_logged_in_one_go() {
    let gateway = Gateway::new();
    let (made, written) = put(&gateway, "iris", spec(ComputeType::Aks), Precondition::Absent).unwrap();
    assert_eq!(written, Written::Created);
    let owner = holder(BuiltInRole::Owner);
    let read = gateway.operations.service(&owner, "WS", "iris").unwrap();
    assert_eq!(read, made);
    assert_eq!((read.value.workspace.as_str(), read.value.origin), ("ws", Origin::Managed));
    let served = gateway.served("iris").unwrap();
    assert_eq!(served.deployments[0].replicas[0].origin.to_string(), "127.0.0.1:5001");
    assert!(served.deployments[0].replicas[0].policy.is_some(), "the address policy goes with each replica");
    assert_eq!(gateway.statuses(), [ActivityStatus::Started, ActivityStatus::Succeeded]);
    let event = &gateway.events()[1];
    assert!(event.resource_id.ends_with("/workspaces/ws/services/iris"), "{}", event.resource_id);
    assert_eq!(event.operation_name, Action::AksWrite.as_str());
}

#[test]
fn the_compute_type_decides_the_default_mode_and_what_can_be_had() {
    let gateway = Gateway::new();
    for (name, compute_type, mode) in [
        ("aci", ComputeType::Aci, "none"),
        ("aks", ComputeType::Aks, "key"),
        ("managed", ComputeType::Managed, "key"),
    ] {
        gateway.serve(name, spec(compute_type));
        assert_eq!(served_mode(&gateway, name), mode);
    }
    for (compute_type, mode) in [
        (ComputeType::Aci, AuthMode::Token),
        (ComputeType::Aks, AuthMode::Oidc),
        (ComputeType::Managed, AuthMode::None),
        (ComputeType::Managed, AuthMode::Oidc),
    ] {
        let outcome = put(&gateway, "other", with(compute_type, mode), Precondition::None);
        assert_eq!(refused(outcome), (Cause::Invalid, Some("auth".into())), "{compute_type} {mode}");
    }
    assert!(gateway.served("other").is_none());
}

#[test]
fn a_switch_of_the_mode_is_one_change_and_keys_outlive_it() {
    let gateway = Gateway::new();
    gateway.serve("iris", spec(ComputeType::Aks));
    let keys = gateway.served("iris").unwrap().auth.clone();
    for mode in [AuthMode::Token, AuthMode::None, AuthMode::Key] {
        let before = gateway.data_plane.applied.lock().unwrap().len();
        gateway.serve("iris", with(ComputeType::Aks, mode));
        assert_eq!(gateway.data_plane.applied.lock().unwrap().len(), before + 1);
        assert_eq!(served_mode(&gateway, "iris"), mode.as_str());
    }
    assert_eq!(gateway.served("iris").unwrap().auth, keys);
}

#[test]
fn names_and_hosts_belong_to_one_service_of_the_gateway() {
    let gateway = Gateway::new();
    let with_host = |host: &str| ServiceSpec { hosts: vec![host.into()], ..spec(ComputeType::Aks) };
    let file = declared("file", &with_host("f.example"), AuthSettings::None);
    gateway.data_plane.declared.lock().unwrap().push(file);
    let owner = holder(BuiltInRole::Owner);
    gateway.operations.put_workspace(&owner, "other", WorkspaceSpec::default(), Precondition::None).unwrap();
    gateway.serve_in("other", "iris", with_host("a.example"));

    let taken = |name: &str, spec| refused(put(&gateway, name, spec, Precondition::None));
    assert_eq!(taken("iris", spec(ComputeType::Aks)), (Cause::AlreadyExists, Some("name".into())));
    assert_eq!(taken("file", spec(ComputeType::Aks)).0, Cause::ReadOnly);
    for host in ["a.example", "f.example"] {
        assert_eq!(taken("wine", with_host(host)), (Cause::AlreadyExists, Some("hosts[0]".into())), "{host}");
    }
    let put_in_other = |name| {
        let keys = SuppliedKeys::default();
        gateway.operations.put_service(
            &owner,
            "other",
            name,
            spec(ComputeType::Aks),
            keys,
            Precondition::None,
        )
    };
    assert_eq!(refused(put_in_other("file")).0, Cause::AlreadyExists, "declared in another workspace");

    gateway.operations.delete_service(&owner, "other", "iris", Precondition::None).unwrap();
    put(&gateway, "wine", with_host("a.example"), Precondition::None).unwrap();
}

#[test]
fn what_is_wrong_is_refused_by_its_field_and_changes_nothing() {
    let gateway = Gateway::new();
    let before = gateway.serve("iris", spec(ComputeType::Aks));
    let owner = holder(BuiltInRole::Owner);
    let mut bad = spec(ComputeType::Aks);
    bad.deployments.values_mut().for_each(|blue| blue.replicas = vec!["nowhere".into()]);
    let outcome = put(&gateway, "iris", bad, Precondition::None);
    assert_eq!(refused(outcome), (Cause::Invalid, Some("deployments.blue.replicas[0]".into())));
    let lifetime = ServiceSpec { token_lifetime_s: Some(0), ..spec(ComputeType::Aks) };
    assert_eq!(
        refused(put(&gateway, "iris", lifetime, Precondition::None)),
        (Cause::Invalid, Some("token_lifetime_s".into()))
    );
    let described = ServiceSpec { description: "x".repeat(5001), ..spec(ComputeType::Aks) };
    assert_eq!(
        refused(put(&gateway, "iris", described, Precondition::None)),
        (Cause::Invalid, Some("description".into()))
    );
    for name in ["Iris", "a", "-a-", &"a".repeat(33), "a/b"] {
        let outcome = put(&gateway, name, spec(ComputeType::Aks), Precondition::None);
        assert_eq!(refused(outcome), (Cause::Invalid, Some("name".into())), "{name}");
    }
    let keys = SuppliedKeys::default();
    let elsewhere = gateway.operations.put_service(
        &owner,
        "gone",
        "wine",
        spec(ComputeType::Aks),
        keys,
        Precondition::None,
    );
    assert_eq!(refused(elsewhere).0, Cause::NotFound);
    assert_eq!(gateway.operations.service(&owner, "ws", "iris").unwrap(), before);
    assert_eq!(gateway.data_plane.applied.lock().unwrap().len(), 1);
    let failed = gateway.statuses().into_iter().filter(|status| *status == ActivityStatus::Failed);
    assert_eq!(failed.count(), 9, "each refused attempt is in the log");
}

#[test]
fn the_compute_type_of_a_service_never_changes() {
    let gateway = Gateway::new();
    gateway.serve("iris", spec(ComputeType::Aks));
    let outcome = put(&gateway, "iris", spec(ComputeType::Aci), Precondition::None);
    assert_eq!(refused(outcome), (Cause::Conflict, Some("compute_type".into())));
}

#[test]
fn a_precondition_keeps_two_owners_from_overwriting_each_other() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let first = gateway.serve("iris", spec(ComputeType::Aks));
    assert_eq!(
        refused(put(&gateway, "iris", spec(ComputeType::Aks), Precondition::Absent)).0,
        Cause::AlreadyExists
    );
    let (second, written) =
        put(&gateway, "iris", spec(ComputeType::Aks), Precondition::Version(first.version)).unwrap();
    assert_eq!(written, Written::Replaced);
    assert!(second.version > first.version);
    assert_eq!(second.value.provenance.created_at, first.value.provenance.created_at);
    let late = Precondition::Version(first.version);
    assert_eq!(refused(put(&gateway, "iris", spec(ComputeType::Aks), late)).0, Cause::PreconditionFailed);
    let change = gateway.operations.change_service(&owner, "ws", "iris", late, &|it| Ok(it.spec.clone()));
    assert_eq!(refused(change).0, Cause::PreconditionFailed);
    let delete = gateway.operations.delete_service(&owner, "ws", "iris", late);
    assert_eq!(refused(delete).0, Cause::PreconditionFailed);
    gateway.operations.delete_service(&owner, "ws", "iris", Precondition::Version(second.version)).unwrap();
    let gone = put(&gateway, "iris", spec(ComputeType::Aks), Precondition::Present);
    assert_eq!(refused(gone).0, Cause::PreconditionFailed);
}

#[test]
fn a_change_sees_what_is_stored_even_if_somebody_was_faster() {
    let gateway = Gateway::new();
    gateway.serve("iris", spec(ComputeType::Aks));
    let owner = holder(BuiltInRole::Owner);
    // Right before the commit of the change, another process adds a tag.
    let rival = |rows: &crate::store::MemoryStore| {
        let row = rows.get(Table::Services, b"iris").unwrap().unwrap();
        let mut entry: ServiceEntry = serde_json::from_slice(&row.value).unwrap();
        entry.spec.tags.insert("rival".into(), String::new());
        let mut batch = Batch::default();
        batch.put(Table::Services, "iris", serde_json::to_vec(&entry).unwrap());
        rows.commit(batch).unwrap();
    };
    // The first commit is that of the start event, the second one of the change.
    gateway.store.rivals.lock().unwrap().extend([Box::new(rival) as Box<_>, Box::new(|_: &_| ()) as Box<_>]);
    let changed = gateway
        .operations
        .change_service(&owner, "ws", "iris", Precondition::None, &|entry| {
            let mut spec = entry.spec.clone();
            spec.tags.insert("mine".into(), String::new());
            Ok(spec)
        })
        .unwrap();
    assert_eq!(changed.value.spec.tags.keys().collect::<Vec<_>>(), ["mine", "rival"]);
}

#[test]
fn a_deleted_service_leaves_no_row_and_is_served_no_more() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    gateway.serve("iris", spec(ComputeType::Aks));
    gateway.operations.delete_service(&owner, "ws", "iris", Precondition::None).unwrap();
    for table in [Table::Services, Table::ServicesByWorkspace, Table::Keys] {
        assert_eq!(gateway.rows(table), 0, "{}", table.as_str());
    }
    assert!(gateway.served("iris").is_none());
    assert_eq!(refused(gateway.operations.service(&owner, "ws", "iris")).0, Cause::NotFound);
    let again = gateway.operations.delete_service(&owner, "ws", "iris", Precondition::None);
    assert_eq!(refused(again).0, Cause::NotFound);
}

#[test]
fn deployments_come_and_go_one_by_one_while_the_traffic_adds_up() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let operations = &gateway.operations;
    gateway.serve("iris", ServiceSpec::new(ComputeType::Managed));
    let deployment = |traffic| DeploymentSpec {
        traffic,
        replicas: vec!["http://127.0.0.1:5001".into()],
        ..DeploymentSpec::default()
    };
    let put = |name: &str, traffic, precondition| {
        operations.put_deployment(&owner, "ws", "iris", name, deployment(traffic), precondition)
    };
    let delete = |name: &str| operations.delete_deployment(&owner, "ws", "iris", name, Precondition::None);
    assert_eq!(put("blue", 0, Precondition::Absent).unwrap().1, Written::Created);
    let (service, written) = put("blue", 100, Precondition::Present).unwrap();
    assert_eq!(written, Written::Replaced);
    assert_eq!(refused(put("green", 10, Precondition::None)), (Cause::Invalid, Some("deployments".into())));
    assert_eq!(refused(put("Green", 0, Precondition::None)), (Cause::Invalid, Some("name".into())));
    assert_eq!(refused(put("green", 0, Precondition::Present)).0, Cause::PreconditionFailed);
    put("green", 0, Precondition::Version(service.version)).unwrap();
    assert_eq!(gateway.served("iris").unwrap().deployments.len(), 2);
    assert_eq!(refused(delete("blue")).0, Cause::Conflict, "its traffic has to go first");
    assert_eq!(refused(delete("red")).0, Cause::NotFound);
    delete("green").unwrap();
    delete("blue").unwrap();
    assert!(gateway.served("iris").unwrap().deployments.is_empty());
    let event = gateway.events().pop().unwrap();
    assert!(event.resource_id.ends_with("/onlineEndpoints/iris/deployments/blue"), "{}", event.resource_id);
}

#[test]
fn each_compute_type_asks_for_its_own_right() {
    let gateway = Gateway::new();
    for (name, compute_type, write, delete) in [
        ("aci", ComputeType::Aci, Action::AciWrite, Action::AciDelete),
        ("aks", ComputeType::Aks, Action::AksWrite, Action::AksDelete),
        ("managed", ComputeType::Managed, Action::EndpointWrite, Action::EndpointDelete),
    ] {
        let writer = caller("writer", ActionSet::from_iter([write]));
        let keys = SuppliedKeys::default;
        let operations = &gateway.operations;
        for other in [ComputeType::Aci, ComputeType::Aks, ComputeType::Managed] {
            let outcome =
                operations.put_service(&writer, "ws", name, spec(other), keys(), Precondition::Absent);
            assert_eq!(outcome.is_ok(), other == compute_type, "{name} {other}");
            if outcome.is_ok() {
                operations
                    .delete_service(&holder(BuiltInRole::Owner), "ws", name, Precondition::None)
                    .unwrap();
            }
        }
        gateway.serve(name, spec(compute_type));
        let refusal = operations.delete_service(&writer, "ws", name, Precondition::None).unwrap_err();
        assert_eq!(refusal.cause, Cause::Forbidden(delete));
        let deleter = caller("deleter", ActionSet::from_iter([delete]));
        operations.delete_service(&deleter, "ws", name, Precondition::None).unwrap();
    }
    let reader = holder(BuiltInRole::Reader);
    let unknown = gateway.operations.delete_service(&reader, "ws", "nobody", Precondition::None);
    assert_eq!(refused(unknown).0, Cause::Forbidden(Action::AksDelete), "a stranger learns nothing");
    let elsewhere = holder_in("other", BuiltInRole::Owner);
    let outcome = gateway.operations.put_service(
        &elsewhere,
        "ws",
        "iris",
        spec(ComputeType::Aks),
        SuppliedKeys::default(),
        Precondition::None,
    );
    assert_eq!(refused(outcome).0, Cause::Forbidden(Action::AksWrite));
}

#[test]
fn declared_services_are_read_and_never_written() {
    let gateway = Gateway::new();
    let file = declared("file", &spec(ComputeType::Aks), AuthSettings::None);
    gateway.data_plane.declared.lock().unwrap().push(file);
    let (owner, operations) = (holder(BuiltInRole::Owner), &gateway.operations);
    let read = operations.service(&owner, "ws", "file").unwrap();
    assert_eq!((read.value.origin, read.version), (Origin::Declared, 0));
    let Provenance { created_by, .. } = read.value.provenance;
    assert_eq!(created_by, "configuration");
    let none = Precondition::None;
    for outcome in [
        put(&gateway, "file", spec(ComputeType::Aks), none).map(drop),
        operations.change_service(&owner, "ws", "file", none, &|it| Ok(it.spec.clone())).map(drop),
        operations.delete_service(&owner, "ws", "file", none),
        operations.put_deployment(&owner, "ws", "file", "blue", DeploymentSpec::default(), none).map(drop),
        operations.delete_deployment(&owner, "ws", "file", "blue", none),
    ] {
        let refusal = outcome.unwrap_err();
        assert_eq!(refusal.cause, Cause::ReadOnly);
        assert!(refusal.message.contains("configuration file"));
    }
}

#[test]
fn keys_that_come_with_a_replacement_need_the_right_to_replace_keys() {
    let gateway = Gateway::new();
    gateway.serve("iris", spec(ComputeType::Aks));
    let before = gateway.served("iris").unwrap().auth.clone();
    let keys = || SuppliedKeys { primary: Some("a-new-primary".into()), secondary: None };
    let put = |actions: &[Action]| {
        let caller = caller("ann", actions.iter().copied().collect());
        gateway.operations.put_service(
            &caller,
            "ws",
            "iris",
            spec(ComputeType::Aks),
            keys(),
            Precondition::None,
        )
    };
    let refusal = put(&[Action::AksWrite]).unwrap_err();
    assert_eq!(refusal.cause, Cause::Forbidden(Action::AksRegenerateKeys));
    assert_eq!(gateway.served("iris").unwrap().auth, before);
    put(&[Action::AksWrite, Action::AksRegenerateKeys]).unwrap();
    assert_ne!(gateway.served("iris").unwrap().auth, before);
}

#[test]
fn a_store_that_fails_leaves_nothing_half_done() {
    let gateway = Gateway::new();
    gateway.store.sparing.store(1, std::sync::atomic::Ordering::SeqCst);
    gateway.store.failing.store(1, std::sync::atomic::Ordering::SeqCst);
    let with_host = ServiceSpec { hosts: vec!["a.example".into()], ..spec(ComputeType::Aks) };
    let outcome = put(&gateway, "iris", with_host.clone(), Precondition::None);
    assert_eq!(refused(outcome).0, Cause::Unavailable);
    assert!(gateway.served("iris").is_none());
    assert_eq!(gateway.rows(Table::Services), 0);
    put(&gateway, "wine", with_host, Precondition::None).unwrap();
}

#[test]
fn owners_of_many_threads_end_with_what_is_stored_being_served() {
    let gateway = Gateway::on(Arc::new(TestStore::default()), settings());
    gateway.serve("iris", spec(ComputeType::Aks));
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let gateway = &gateway;
            scope.spawn(move || {
                for round in 0..10 {
                    let mut changed = spec(ComputeType::Aks);
                    changed.limits.body_bytes = Some(1 + writer * 100 + round);
                    put(gateway, "iris", changed, Precondition::None).unwrap();
                }
            });
        }
    });
    let stored = gateway.operations.service(&holder(BuiltInRole::Owner), "ws", "iris").unwrap();
    let served = gateway.served("iris").unwrap();
    assert_eq!(Some(served.limits.body_bytes), stored.value.spec.limits.body_bytes);
}
