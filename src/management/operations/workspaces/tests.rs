//! Tests of workspaces.

use super::super::fixtures::{DECLARED, Gateway, caller, holder, holder_in, settings, spec};
use super::*;
use crate::catalog::{ActionSet, BuiltInRole, ComputeType, Grantee, Scope};
use crate::management::operations::OperationsSettings;
use crate::store::Store;

fn owner() -> Caller {
    holder(BuiltInRole::Owner)
}

fn put(
    gateway: &Gateway,
    name: &str,
    precondition: Precondition,
) -> Result<(Versioned<WorkspaceEntry>, Written), Refusal> {
    gateway.operations.put_workspace(&owner(), name, WorkspaceSpec::default(), precondition)
}

fn names(list: &PageOf<Versioned<WorkspaceEntry>>) -> Vec<&str> {
    list.items.iter().map(|workspace| workspace.value.name.as_str()).collect()
}

#[test]
fn the_workspace_of_the_configuration_is_there_and_read_only() {
    let gateway = Gateway::new();
    let found = gateway.operations.workspace(&owner(), "WS").unwrap();
    assert_eq!(
        (found.value.origin, found.version, found.value.name.as_str()),
        (Origin::Declared, 0, DECLARED)
    );
    assert_eq!(put(&gateway, "Ws", Precondition::None).unwrap_err().cause, Cause::ReadOnly);
    let deleted = gateway.operations.delete_workspace(&owner(), "ws", Precondition::None);
    assert_eq!(deleted.unwrap_err().cause, Cause::ReadOnly);
}

#[test]
fn a_workspace_is_made_changed_read_and_deleted_by_its_name_in_any_case() {
    let gateway = Gateway::new();
    let operations = &gateway.operations;
    let (made, written) = put(&gateway, "Lab_1", Precondition::Absent).unwrap();
    assert_eq!(written, Written::Created);
    assert_eq!(made.value.spec.subscription, "sub", "an identity that is left out is the declared one's");
    let (changed, written) = put(&gateway, "LAB_1", Precondition::Version(made.version)).unwrap();
    assert_eq!((written, changed.value.name.as_str()), (Written::Replaced, "Lab_1"));
    assert_eq!(operations.workspace(&owner(), "lab_1").unwrap(), changed);
    assert_eq!(put(&gateway, "lab_1", Precondition::Absent).unwrap_err().cause, Cause::AlreadyExists);
    let late = Precondition::Version(made.version);
    assert_eq!(put(&gateway, "lab_1", late).unwrap_err().cause, Cause::PreconditionFailed);
    let deleted = operations.delete_workspace(&owner(), "lab_1", late);
    assert_eq!(deleted.unwrap_err().cause, Cause::PreconditionFailed);
    operations.delete_workspace(&owner(), "LAB_1", Precondition::Version(changed.version)).unwrap();
    assert_eq!(operations.workspace(&owner(), "lab_1").unwrap_err().cause, Cause::NotFound);
    let again = operations.delete_workspace(&owner(), "lab_1", Precondition::None);
    assert_eq!(again.unwrap_err().cause, Cause::NotFound);
}

#[test]
fn names_and_identities_are_checked() {
    let gateway = Gateway::new();
    for bad in ["ab", "a b", "a/b", "a.b", &"a".repeat(34), "\u{e9}\u{e9}\u{e9}"] {
        let refusal = put(&gateway, bad, Precondition::None).unwrap_err();
        assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some("name")), "{bad}");
    }
    let spec = WorkspaceSpec { resource_group: "a/b".into(), ..WorkspaceSpec::default() };
    let refusal = gateway.operations.put_workspace(&owner(), "lab", spec, Precondition::None).unwrap_err();
    assert_eq!(refusal.target.as_deref(), Some("resource_group"));
}

#[test]
fn azure_clients_find_a_workspace_by_all_parts_of_its_identity() {
    let gateway = Gateway::new();
    let find = |subscription, resource_group, name| {
        let found = gateway.operations.azure_workspace(&owner(), subscription, resource_group, name);
        found.map(drop).map_err(|refusal| refusal.cause)
    };
    assert_eq!(find("SUB", "Rg", "wS"), Ok(()));
    assert_eq!(find("other", "rg", "ws"), Err(Cause::NotFound));
    assert_eq!(find("sub", "other", "ws"), Err(Cause::NotFound));
    assert_eq!(find("sub", "rg", "other"), Err(Cause::NotFound));
}

#[test]
fn callers_see_the_workspaces_that_they_have_a_role_in() {
    let gateway = Gateway::new();
    for name in ["alpha", "Lab", "zulu"] {
        put(&gateway, name, Precondition::None).unwrap();
    }
    let operations = &gateway.operations;
    let list = |caller: &Caller| operations.workspaces(caller, &Page::default()).unwrap();
    assert_eq!(names(&list(&owner())), ["alpha", "Lab", "ws", "zulu"]);
    assert_eq!(names(&list(&holder_in("lab", BuiltInRole::Reader))), ["Lab"]);
    assert!(list(&caller("nobody", ActionSet::NONE)).items.is_empty());
    let elsewhere = holder_in("lab", BuiltInRole::Owner);
    let refusal = operations.workspace(&elsewhere, "alpha").unwrap_err();
    assert_eq!(refusal.cause, Cause::Forbidden(Action::WorkspaceRead));

    let first = operations.workspaces(&owner(), &Page { limit: 3, cursor: None }).unwrap();
    assert_eq!(names(&first), ["alpha", "Lab", "ws"]);
    let second = operations.workspaces(&owner(), &Page { limit: 3, cursor: first.next }).unwrap();
    assert_eq!((names(&second), second.next.is_none()), (vec!["zulu"], true));
}

#[test]
fn a_workspace_that_has_been_declared_since_hides_the_stored_one() {
    let gateway = Gateway::new();
    put(&gateway, "lab", Precondition::None).unwrap();
    let declared = OperationsSettings { workspace: ("Lab".into(), settings().workspace.1), ..settings() };
    let again = Gateway::on(std::sync::Arc::clone(&gateway.store), declared);
    let list = again.operations.workspaces(&owner(), &Page::default()).unwrap();
    assert_eq!(names(&list), ["Lab"]);
    assert_eq!(list.items[0].value.origin, Origin::Declared);
}

#[test]
fn a_workspace_with_services_stays() {
    let gateway = Gateway::new();
    put(&gateway, "lab", Precondition::None).unwrap();
    put(&gateway, "lab-2", Precondition::None).unwrap();
    gateway.serve_in("lab-2", "iris", spec(ComputeType::Aks));
    let operations = &gateway.operations;
    let refusal = operations.delete_workspace(&owner(), "lab-2", Precondition::None).unwrap_err();
    assert_eq!(refusal.cause, Cause::Conflict);
    operations.delete_workspace(&owner(), "lab", Precondition::None).unwrap();
    operations.delete_service(&owner(), "lab-2", "iris", Precondition::None).unwrap();
    operations.delete_workspace(&owner(), "lab-2", Precondition::None).unwrap();
}

#[test]
fn nothing_of_a_deleted_workspace_waits_for_its_successor() {
    let gateway = Gateway::new();
    let operations = &gateway.operations;
    for name in ["lab", "other"] {
        put(&gateway, name, Precondition::None).unwrap();
        operations.rotate_signing_key(&owner(), name).unwrap();
        operations.revoke_principal(&owner(), name, "ann").unwrap();
        let id = uuid::Uuid::new_v4().to_string();
        let scope = Scope::Workspace(name.into());
        operations
            .put_role_assignment(&owner(), &id, scope, Grantee::Principal("ann".into()), "Reader")
            .unwrap();
    }
    let mut data_key = crate::store::Batch::default();
    data_key.put(Table::Meta, "data key of lab", "x").put(Table::Meta, "data key of other", "x");
    gateway.store.commit(data_key).unwrap();
    let has_data_key = |name: &str| {
        gateway.store.get(Table::Meta, format!("data key of {name}").as_bytes()).unwrap().is_some()
    };
    let ann = || operations.outside_caller("ann", &[], super::super::fixtures::request()).unwrap();
    assert!(ann().grants.within(Some("lab")).allows(Action::ServiceRead));
    operations.delete_workspace(&owner(), "lab", Precondition::None).unwrap();
    for table in [Table::SigningKeys, Table::Revocations, Table::RoleAssignments] {
        assert_eq!(gateway.rows(table), 1, "{}", table.as_str());
    }
    assert!(!has_data_key("lab") && has_data_key("other"));
    put(&gateway, "lab", Precondition::None).unwrap();
    assert!(!ann().grants.within(Some("lab")).allows(Action::ServiceRead));
    assert!(ann().grants.within(Some("other")).allows(Action::ServiceRead));
}
