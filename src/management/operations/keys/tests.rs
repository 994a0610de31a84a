//! Tests of keys, from the first to the last use.

use std::time::Duration;

use super::super::fixtures::{Gateway, caller, declared, holder, spec};
use super::*;
use crate::auth::{KeyDigest, KeySettings};
use crate::catalog::{Action, ActionSet, AuthMode, BuiltInRole, ComputeType, ServiceSpec};
use crate::management::operations::{ActivityStatus, Precondition, SuppliedKeys};

fn change(value: Option<&str>, request_id: Option<&str>) -> KeyChange {
    KeyChange { value: value.map(Into::into), expires_at: None, request_id: request_id.map(Into::into) }
}

fn regenerate(gateway: &Gateway, slot: KeySlot, change: KeyChange) -> Result<KeyView, Refusal> {
    gateway.operations.regenerate_key(&holder(BuiltInRole::Owner), "ws", "iris", slot, change)
}

fn keys(gateway: &Gateway) -> KeyPairView {
    gateway.operations.keys(&holder(BuiltInRole::Owner), "ws", "iris").unwrap()
}

fn text(view: &KeyView) -> &str {
    view.value.expose_secret()
}

fn digest(key: &str) -> KeyDigest {
    KeyDigest::of(&key.into()).unwrap()
}

/// The digests that the data plane judges calls by.
fn served(gateway: &Gateway) -> KeySettings {
    match &gateway.served("iris").unwrap().auth {
        AuthSettings::Key(keys) => keys.clone(),
        other => panic!("{other:?}"),
    }
}

fn gateway() -> Gateway {
    let gateway = Gateway::new();
    gateway.serve("iris", spec(ComputeType::Aks));
    gateway
}

#[test]
fn a_new_service_has_two_keys_that_are_served_and_listed_alike() {
    let gateway = gateway();
    let listed = keys(&gateway);
    assert!(text(&listed.primary).starts_with("sgk_"));
    assert_ne!(text(&listed.primary), text(&listed.secondary));
    assert_ne!(listed.primary.id, listed.secondary.id);
    let expected = KeySettings {
        primary: digest(text(&listed.primary)),
        secondary: Some(digest(text(&listed.secondary))),
    };
    assert_eq!(served(&gateway), expected);
    assert_eq!(
        gateway.events().last().unwrap().operation_name,
        Action::AksListKeys.as_str(),
        "a look is logged"
    );
}

#[test]
fn keys_can_come_with_a_new_service() {
    let gateway = Gateway::new();
    let owner = holder(BuiltInRole::Owner);
    let supplied = |primary: &str| SuppliedKeys { primary: Some(primary.into()), secondary: None };
    let put = |keys| {
        let spec = spec(ComputeType::Aks);
        gateway.operations.put_service(&owner, "ws", "iris", spec, keys, Precondition::None)
    };
    let refusal = put(supplied("foo")).unwrap_err();
    assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some("keys.primary")));
    assert!(refusal.message.contains("at least 8"), "{refusal}");
    put(supplied("mine-alone")).unwrap();
    assert_eq!(text(&keys(&gateway).primary), "mine-alone");
}

#[test]
fn a_regenerated_key_replaces_its_slot_alone_before_the_call_returns() {
    let gateway = gateway();
    let before = keys(&gateway);
    let new = regenerate(&gateway, KeySlot::Primary, KeyChange::default()).unwrap();
    assert_eq!(served(&gateway).primary, digest(text(&new)));
    assert_eq!(served(&gateway).secondary, Some(digest(text(&before.secondary))));
    let after = keys(&gateway);
    assert_eq!((&after.primary.id, text(&after.primary)), (&new.id, text(&new)));
    assert_eq!(after.secondary.id, before.secondary.id);
    assert_ne!(new.id, before.primary.id);
    assert!(!gateway.events().iter().any(|event| format!("{event:?}").contains(text(&new))));
}

#[test]
fn a_key_is_set_to_a_given_value_unless_it_is_the_one_in_place_or_empty() {
    let gateway = gateway();
    let set = regenerate(&gateway, KeySlot::Secondary, change(Some("set-by-hand"), None)).unwrap();
    assert_eq!(text(&set), "set-by-hand");
    assert_eq!(served(&gateway).secondary, Some(digest("set-by-hand")));
    // SDK v2 sends the old key to say "a new one, please", SDK v1 none at all.
    for value in ["set-by-hand", ""] {
        let new = regenerate(&gateway, KeySlot::Secondary, change(Some(value), None)).unwrap();
        assert!(text(&new).starts_with("sgk_"), "{value:?}");
    }
}

#[test]
fn what_cannot_be_a_key_is_refused_and_changes_nothing() {
    let gateway = gateway();
    let before = keys(&gateway);
    let other = text(&before.secondary).to_owned();
    for value in ["foo", "two words", &"a".repeat(8193), &other] {
        let refusal = regenerate(&gateway, KeySlot::Primary, change(Some(value), None)).unwrap_err();
        assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some("value")), "{value}");
    }
    let past = OffsetDateTime::now_utc() - Duration::from_secs(1);
    let ended = KeyChange { expires_at: Some(past), ..KeyChange::default() };
    let refusal = regenerate(&gateway, KeySlot::Primary, ended).unwrap_err();
    assert_eq!(refusal.target.as_deref(), Some("expires_at"));
    assert_eq!(text(&keys(&gateway).primary), text(&before.primary));
}

#[test]
fn a_key_can_have_an_end_that_the_data_plane_knows() {
    let gateway = gateway();
    let end = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    let new =
        regenerate(&gateway, KeySlot::Primary, KeyChange { expires_at: Some(end), ..KeyChange::default() })
            .unwrap();
    assert_eq!(new.expires_at, Some(end));
    let expected = KeyDigest::from_parts(*digest(text(&new)).digest(), Some(end.into()));
    assert_eq!(served(&gateway).primary, expected);
}

#[test]
fn a_lost_answer_is_given_again_and_nothing_changes() {
    let gateway = gateway();
    let first = regenerate(&gateway, KeySlot::Primary, change(None, Some("r1"))).unwrap();
    let handed_over = gateway.data_plane.applied.lock().unwrap().len();
    let again = regenerate(&gateway, KeySlot::Primary, change(None, Some("r1"))).unwrap();
    assert_eq!((&again.id, text(&again)), (&first.id, text(&first)));
    assert_eq!(gateway.data_plane.applied.lock().unwrap().len(), handed_over);
    assert_eq!(keys(&gateway).primary.id, first.id);
    let other = regenerate(&gateway, KeySlot::Secondary, change(None, Some("r1"))).unwrap_err();
    assert_eq!((other.cause, other.target.as_deref()), (Cause::Conflict, Some("request_id")));
    // It is still that answer after the key has been replaced by another change.
    regenerate(&gateway, KeySlot::Primary, change(None, Some("r2"))).unwrap();
    let again = regenerate(&gateway, KeySlot::Primary, change(None, Some("r1"))).unwrap();
    assert_eq!(text(&again), text(&first));
}

#[test]
fn a_repeated_set_to_the_key_that_was_in_place_is_the_same_change() {
    let gateway = gateway();
    let old = text(&keys(&gateway).primary).to_owned();
    let first = regenerate(&gateway, KeySlot::Primary, change(Some(&old), Some("r1"))).unwrap();
    let again = regenerate(&gateway, KeySlot::Primary, change(Some(&old), Some("r1"))).unwrap();
    assert_eq!(text(&again), text(&first));
    assert_ne!(text(&first), old);
}

#[test]
fn a_key_that_is_not_asked_for_is_replaced_for_the_day_it_is() {
    let gateway = Gateway::new();
    gateway.serve("iris", ServiceSpec { auth: Some(AuthMode::None), ..spec(ComputeType::Aks) });
    let handed_over = gateway.data_plane.applied.lock().unwrap().len();
    let new = regenerate(&gateway, KeySlot::Primary, KeyChange::default()).unwrap();
    assert_eq!(gateway.data_plane.applied.lock().unwrap().len(), handed_over);
    gateway.serve("iris", spec(ComputeType::Aks));
    assert_eq!(served(&gateway).primary, digest(text(&new)));
}

#[test]
fn each_compute_type_asks_for_its_own_right_to_keys() {
    let gateway = Gateway::new();
    for (name, compute_type, list, regenerate) in [
        ("aci", ComputeType::Aci, Action::AciListKeys, Action::AciRegenerateKeys),
        ("aks", ComputeType::Aks, Action::AksListKeys, Action::AksRegenerateKeys),
        ("managed", ComputeType::Managed, Action::EndpointListKeys, Action::EndpointRegenerateKeys),
    ] {
        gateway.serve(name, spec(compute_type));
        let may = |action: Action| caller("ann", ActionSet::from_iter([action]));
        let operations = &gateway.operations;
        assert!(operations.keys(&may(list), "ws", name).is_ok());
        assert_eq!(operations.keys(&may(regenerate), "ws", name).unwrap_err().cause, Cause::Forbidden(list));
        let change = |action| {
            operations.regenerate_key(&may(action), "ws", name, KeySlot::Primary, KeyChange::default())
        };
        assert!(change(regenerate).is_ok());
        assert_eq!(change(list).unwrap_err().cause, Cause::Forbidden(regenerate));
    }
    let reader = holder(BuiltInRole::Reader);
    let refusal = gateway.operations.keys(&reader, "ws", "nobody").unwrap_err();
    assert_eq!(refusal.cause, Cause::Forbidden(Action::AksListKeys), "a stranger learns nothing");
    let failed = gateway.events().pop().unwrap();
    assert_eq!((failed.status, failed.status_code), (ActivityStatus::Failed, Some(403)));
}

#[test]
fn keys_of_declared_services_are_where_the_configuration_says() {
    let gateway = gateway();
    let file = declared("file", &spec(ComputeType::Aks), AuthSettings::None);
    gateway.data_plane.declared.lock().unwrap().push(file);
    let owner = holder(BuiltInRole::Owner);
    let listed = gateway.operations.keys(&owner, "ws", "file").unwrap_err();
    let changed = gateway
        .operations
        .regenerate_key(&owner, "ws", "file", KeySlot::Primary, KeyChange::default())
        .unwrap_err();
    for refusal in [listed, changed] {
        assert_eq!(refusal.cause, Cause::ReadOnly);
        assert!(refusal.message.contains("'keys' names there"), "{refusal}");
    }
    let missing = gateway.operations.keys(&owner, "ws", "nobody").unwrap_err();
    assert_eq!(missing.cause, Cause::NotFound);
}

#[test]
fn the_last_use_is_seen_at_once_and_written_down_in_time() {
    let gateway = gateway();
    let name = ServiceName::parse("iris").unwrap();
    let second = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() + Duration::from_secs(10);
    gateway.data_plane.used.lock().unwrap().insert(name.clone(), [Some(second.into()), None]);
    assert_eq!(keys(&gateway).primary.last_used_at, Some(second));
    assert_eq!(keys(&gateway).secondary.last_used_at, None);

    let (events, handed_over) = (gateway.events().len(), gateway.data_plane.applied.lock().unwrap().len());
    gateway.operations.persist_key_use().unwrap();
    let version = gateway.operations.stored_keys(&name).unwrap().version;
    gateway.operations.persist_key_use().unwrap();
    assert_eq!(gateway.operations.stored_keys(&name).unwrap().version, version, "no news, no write");
    assert_eq!(gateway.events().len(), events);
    assert_eq!(gateway.data_plane.applied.lock().unwrap().len(), handed_over);

    // After a restart the data plane has seen nothing yet.
    gateway.data_plane.used.lock().unwrap().clear();
    assert_eq!(keys(&gateway).primary.last_used_at, Some(second));
    let new = regenerate(&gateway, KeySlot::Primary, KeyChange::default()).unwrap();
    assert_eq!(new.last_used_at, None);
}

#[test]
fn keys_changed_by_many_at_once_are_served_as_they_are_stored() {
    let gateway = gateway();
    std::thread::scope(|scope| {
        for slot in [KeySlot::Primary, KeySlot::Secondary, KeySlot::Primary, KeySlot::Secondary] {
            let gateway = &gateway;
            scope.spawn(move || {
                for _ in 0..10 {
                    regenerate(gateway, slot, KeyChange::default()).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..10 {
                gateway.serve("iris", spec(ComputeType::Aks));
            }
        });
    });
    let stored = keys(&gateway);
    let expected = KeySettings {
        primary: digest(text(&stored.primary)),
        secondary: Some(digest(text(&stored.secondary))),
    };
    assert_eq!(served(&gateway), expected);
}
