//! Tests of taking over a store.

use std::sync::atomic::Ordering;

use super::super::fixtures::{Gateway, Recorder, declared, holder, settings, spec};
use super::*;
use crate::catalog::{BuiltInRole, ComputeType, KeySlot, ServiceSpec};
use crate::management::operations::{KeyChange, OperationsSettings};
use crate::store::{Batch, Store};

fn names(gateway: &Gateway) -> Vec<String> {
    let applied = gateway.data_plane.applied.lock().unwrap();
    let mut names: Vec<_> =
        applied.iter().flat_map(|it| &it.upsert).map(|service| service.name.to_string()).collect();
    names.sort();
    names
}

/// A gateway that holds a service of each mode.
fn gateway() -> Gateway {
    let gateway = Gateway::new();
    gateway.serve("keyed", spec(ComputeType::Aks));
    gateway.serve("open", spec(ComputeType::Aci));
    gateway.serve("tokens", ServiceSpec { auth: Some(AuthMode::Token), ..spec(ComputeType::Aks) });
    gateway
}

#[test]
fn all_that_is_stored_is_served_again_by_one_change() {
    let gateway = gateway();
    let owner = holder(BuiltInRole::Owner);
    gateway.operations.regenerate_key(&owner, "ws", "keyed", KeySlot::Primary, KeyChange::default()).unwrap();
    gateway.operations.rotate_signing_key(&owner, "ws").unwrap();
    let again = Gateway::on(Arc::clone(&gateway.store), settings());
    assert_eq!(again.data_plane.applied.lock().unwrap().len(), 1);
    for name in ["keyed", "open", "tokens"] {
        let (before, after) = (gateway.served(name).unwrap(), again.served(name).unwrap());
        assert_eq!((&after.auth, &after.deployments), (&before.auth, &before.deployments), "{name}");
    }
}

#[test]
fn a_service_whose_name_or_host_is_declared_by_now_is_left_out() {
    let gateway = gateway();
    let with_host = ServiceSpec { hosts: vec!["a.example".into()], ..spec(ComputeType::Aks) };
    gateway.serve("hosted", with_host.clone());
    let data_plane = Arc::new(Recorder::default());
    data_plane.declared.lock().unwrap().extend([
        declared("file", &with_host, AuthSettings::None),
        declared("open", &spec(ComputeType::Aci), AuthSettings::None),
    ]);
    let again = Gateway::between(Arc::clone(&gateway.store), data_plane, settings());
    assert_eq!(names(&again), ["keyed", "tokens"]);
}

#[test]
fn a_service_that_cannot_be_served_any_more_is_left_out() {
    let gateway = gateway();
    let mut batch = Batch::default();
    batch.put(Table::Services, "broken", "{");
    batch.remove(Table::Keys, "keyed");
    gateway.store.commit(batch).unwrap();
    let again = Gateway::on(Arc::clone(&gateway.store), settings());
    assert_eq!(names(&again), ["open", "tokens"]);
}

#[test]
fn a_replica_template_of_now_decides_where_unnamed_replicas_are() {
    let with = |template: Option<&str>| OperationsSettings {
        replica_template: template.map(Into::into),
        ..settings()
    };
    let gateway = Gateway::with(with(Some("http://{service}.one")));
    let mut unnamed = spec(ComputeType::Aks);
    unnamed.deployments.values_mut().for_each(|blue| blue.replicas.clear());
    gateway.serve("iris", unnamed);
    let replica =
        |gateway: &Gateway| gateway.served("iris").map(|it| it.deployments[0].replicas[0].origin.to_string());
    assert_eq!(replica(&gateway).as_deref(), Some("iris.one:80"));
    let moved = Gateway::on(Arc::clone(&gateway.store), with(Some("http://{service}.two")));
    assert_eq!(replica(&moved).as_deref(), Some("iris.two:80"));
    let without = Gateway::on(Arc::clone(&gateway.store), with(None));
    assert_eq!(replica(&without), None);
}

#[test]
fn one_that_the_data_plane_refuses_is_not_counted_as_served() {
    let gateway = gateway();
    let data_plane = Arc::new(Recorder::default());
    data_plane.fails.store(true, Ordering::Relaxed);
    let again = Gateway::between(Arc::clone(&gateway.store), data_plane, settings());
    assert!(names(&again).is_empty());
    again.data_plane.fails.store(false, Ordering::Relaxed);
    again.serve("keyed", spec(ComputeType::Aks));
    assert!(again.served("keyed").is_some(), "the next write serves it");
}
