//! Who may grant what where, and that nobody grants what they do not have.

use std::sync::Arc;

use super::super::fixtures::{DECLARED, Gateway, TestStore, caller, holder, holder_in, settings};
use super::super::{ActivityStatus, KeyChange, Precondition, SuppliedKeys, TokenRule};
use super::*;
use crate::catalog::{
    AuthMode, ComputeType, CustomRole, KeySlot, Origin, ServiceSpec, WorkspaceEntry, WorkspaceSpec,
};
use crate::store::Store;

use BuiltInRole::{Contributor, Owner, Reader};

fn principal(name: &str) -> Grantee {
    Grantee::Principal(name.into())
}

fn within(name: &str) -> Scope {
    Scope::Workspace(name.into())
}

fn id(number: u8) -> String {
    Uuid::from_bytes([number; 16]).to_string()
}

impl Gateway {
    #[expect(clippy::too_many_arguments, reason = "a row of a table")]
    fn assign(
        &self,
        caller: &Caller,
        number: u8,
        scope: Scope,
        grantee: &str,
        role: &str,
    ) -> Result<Written, Cause> {
        let done = self.operations.put_role_assignment(caller, &id(number), scope, principal(grantee), role);
        done.map(|(_, written)| written).map_err(|refusal| refusal.cause)
    }

    fn role(&self, caller: &Caller, name: &str, actions: &[&str], not: &[&str]) -> Result<Written, Refusal> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let done = self.operations.put_custom_role(
            caller,
            name,
            "for tests".into(),
            owned(actions),
            owned(not),
            Precondition::None,
        );
        done.map(|(_, written)| written)
    }

    fn holds(&self, principal: &str, workspace: Option<&str>) -> ActionSet {
        self.operations.current_roles().unwrap().grants(principal, &[]).within(workspace)
    }

    fn add_workspace(&self, name: &str) {
        let entry = WorkspaceEntry {
            name: name.into(),
            spec: WorkspaceSpec {
                subscription: "s".into(),
                resource_group: "r".into(),
                ..Default::default()
            },
            origin: Origin::Managed,
            provenance: made_by("test"),
        };
        let mut batch = Batch::default();
        batch.put(Table::Workspaces, name.to_ascii_lowercase(), encode(&entry).unwrap());
        self.store.commit(batch).unwrap();
    }
}

#[test]
fn a_role_counts_from_the_next_call_on_and_where_it_is_given_only() {
    let gateway = Gateway::new();
    gateway.add_workspace("Other");
    let owner = holder(Owner);
    assert_eq!(gateway.holds("ann", Some(DECLARED)), ActionSet::NONE);
    gateway.assign(&owner, 1, within("WS"), "ann", "contributor").unwrap();
    assert_eq!(gateway.holds("ann", Some("Ws")), Contributor.actions());
    assert_eq!(gateway.holds("ann", Some("other")), ActionSet::NONE);
    assert_eq!(gateway.holds("ann", None), ActionSet::NONE);
    gateway.assign(&owner, 2, Scope::Gateway, "ann", "Reader").unwrap();
    assert_eq!(gateway.holds("ann", Some("other")), Reader.actions());
    assert_eq!(gateway.holds("ann", Some(DECLARED)), Contributor.actions());
    assert_eq!(gateway.holds("Ann", Some(DECLARED)), ActionSet::NONE, "names are compared as they are");

    gateway.operations.delete_role_assignment(&owner, &within(DECLARED), &id(1)).unwrap();
    assert_eq!(gateway.holds("ann", Some(DECLARED)), Reader.actions());
}

#[test]
fn groups_add_to_what_the_principal_has() {
    let gateway = Gateway::new();
    let owner = holder(Owner);
    gateway.assign(&owner, 1, Scope::Gateway, "ann", "Reader").unwrap();
    let give = |number, scope, group: &str, role| {
        let group = Grantee::Group(group.into());
        gateway.operations.put_role_assignment(&owner, &id(number), scope, group, role).unwrap();
    };
    give(2, within(DECLARED), "deployers", "Contributor");
    give(3, Scope::Gateway, "ann", "Owner");
    let roles = gateway.operations.current_roles().unwrap();
    let held = |groups: &[&str], workspace| {
        let groups: Vec<_> = groups.iter().map(|group| (*group).to_owned()).collect();
        roles.grants("ann", &groups).within(workspace)
    };
    assert_eq!(held(&[], Some(DECLARED)), Reader.actions(), "a group called as the principal is another one");
    assert_eq!(held(&["deployers", "unknown"], Some(DECLARED)), Contributor.actions());
    assert_eq!(held(&["deployers"], None), Reader.actions());
    assert_eq!(roles.grants("nobody", &["deployers".into()]).within(None), ActionSet::NONE);
}

#[test]
fn nobody_can_grant_what_they_do_not_have() {
    let gateway = Gateway::new();
    let with = |role: BuiltInRole| {
        let more = [Action::RoleAssignmentWrite, Action::RoleDefinitionWrite];
        role.actions().and(ActionSet::from_iter(more))
    };
    for (held, granted, outcome) in [
        (Owner.actions(), "Owner", Ok(Written::Created)),
        (with(Contributor), "Contributor", Ok(Written::Created)),
        (with(Contributor), "Reader", Ok(Written::Created)),
        (with(Contributor), "Owner", Err(Cause::Escalation)),
        (with(Reader), "Contributor", Err(Cause::Escalation)),
        (Contributor.actions(), "Reader", Err(Cause::Forbidden(Action::RoleAssignmentWrite))),
    ] {
        let gateway = Gateway::new();
        let found = gateway.assign(&caller("eve", held), 1, Scope::Gateway, "eve", granted);
        assert_eq!(found, outcome, "{granted}");
    }
    // What counts is held at the scope of the grant.
    let here = holder_in(DECLARED, Owner);
    gateway.assign(&here, 1, within(DECLARED), "ann", "Owner").unwrap();
    let outcome = gateway.assign(&here, 2, Scope::Gateway, "eve", "Reader");
    assert_eq!(outcome, Err(Cause::Forbidden(Action::RoleAssignmentWrite)));
    gateway.add_workspace("other");
    let outcome = gateway.assign(&here, 2, within("other"), "eve", "Reader");
    assert_eq!(outcome, Err(Cause::Forbidden(Action::RoleAssignmentWrite)));
    assert_eq!(gateway.holds("eve", None), ActionSet::NONE);
}

#[test]
fn a_custom_role_grants_no_more_than_its_maker_has_on_the_gateway() {
    let gateway = Gateway::new();
    let owner = holder(Owner);
    gateway.role(&owner, "Key Keeper", &["*/listkeys/action"], &[]).unwrap();
    gateway.assign(&owner, 1, within(DECLARED), "ann", "key keeper").unwrap();
    let keys = ActionSet::from_iter([Action::AciListKeys, Action::AksListKeys, Action::EndpointListKeys]);
    assert_eq!(gateway.holds("ann", Some(DECLARED)), keys);

    let editor = ActionSet::from_iter([Action::RoleDefinitionWrite, Action::AksListKeys]);
    let eve = caller("eve", editor);
    let refusal = gateway.role(&eve, "key keeper", &["*/listkeys/action", "*/write"], &[]).unwrap_err();
    assert_eq!(refusal.cause, Cause::Escalation);
    assert_eq!(gateway.role(&eve, "Mine", &["*"], &["*/aks/write"]).unwrap_err().cause, Cause::Escalation);
    // Owner of the workspace where it is assigned, but of no other place.
    let refusal = gateway.role(&holder_in(DECLARED, Owner), "key keeper", &["*/read"], &[]).unwrap_err();
    assert_eq!(refusal.cause, Cause::Forbidden(Action::RoleDefinitionWrite));
    assert_eq!(gateway.holds("ann", Some(DECLARED)), keys, "nothing has changed");

    gateway.role(&eve, "key keeper", &["*/aks/listkeys/action"], &[]).unwrap();
    assert_eq!(gateway.holds("ann", Some(DECLARED)), ActionSet::from_iter([Action::AksListKeys]));
}

#[test]
fn a_custom_role_is_checked_by_field() {
    let gateway = Gateway::new();
    let owner = holder(Owner);
    let many = vec!["*"; 101];
    let long = "a".repeat(65);
    for (name, actions, not, target) in [
        ("ab", &["*"][..], &[][..], "name"),
        (&long, &["*"], &[], "name"),
        (" key", &["*"], &[], "name"),
        ("a/b", &["*"], &[], "name"),
        ("clé", &["*"], &[], "name"),
        ("owner", &["*"], &[], "name"),
        ("Fine", &["*/read", "*/raed"], &[], "actions[1]"),
        ("Fine", &[""], &[], "actions[0]"),
        ("Fine", &["*"], &["Microsoft.Storage/*"], "not_actions[0]"),
        ("Fine", &[], &[], "actions"),
        ("Fine", &["*/read"], &["*"], "actions"),
        ("Fine", &many, &[], "actions"),
    ] {
        let refusal = gateway.role(&owner, name, actions, not).unwrap_err();
        assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some(target)), "{name}");
    }
    let refusal = gateway.role(&owner, "Fine", &["*/raed"], &[]).unwrap_err();
    assert!(refusal.message.contains("*/raed"), "{refusal}");
}

#[test]
fn custom_roles_have_versions_and_cannot_go_while_assigned() {
    let gateway = Gateway::new();
    let owner = holder(Owner);
    let put = |actions: &str, precondition| {
        let actions = vec![actions.to_owned()];
        gateway.operations.put_custom_role(&owner, "Calls", String::new(), actions, vec![], precondition)
    };
    let (first, written) = put("*/score/action", Precondition::Absent).unwrap();
    assert_eq!(written, Written::Created);
    assert_eq!(put("*/read", Precondition::Absent).unwrap_err().cause, Cause::AlreadyExists);
    let (second, written) = put("*/read", Precondition::Version(first.version)).unwrap();
    assert_eq!(written, Written::Replaced);
    assert!(second.version > first.version);
    assert_eq!(second.value.provenance.created_at, first.value.provenance.created_at);
    let stale = put("*", Precondition::Version(first.version)).unwrap_err();
    assert_eq!(stale.cause, Cause::PreconditionFailed);
    let listed = gateway.operations.custom_roles(&owner, &Page::default()).unwrap().items;
    assert_eq!(listed, [second]);

    gateway.assign(&owner, 1, Scope::Gateway, "ann", "calls").unwrap();
    let delete = |name: &str| gateway.operations.delete_custom_role(&owner, name);
    assert_eq!(delete("CALLS").unwrap_err().cause, Cause::Conflict);
    gateway.operations.delete_role_assignment(&owner, &Scope::Gateway, &id(1)).unwrap();
    delete("CALLS").unwrap();
    assert_eq!(delete("Calls").unwrap_err().cause, Cause::NotFound);
    let outcome = gateway.assign(&owner, 2, Scope::Gateway, "ann", "Calls");
    assert_eq!(outcome, Err(Cause::Invalid), "a role that is gone cannot be given");
}

#[test]
fn an_assignment_is_made_once_and_does_not_change() {
    let gateway = Gateway::new();
    let owner = holder(Owner);
    let assign =
        |number, grantee: &str, role: &str| gateway.assign(&owner, number, within(DECLARED), grantee, role);
    assert_eq!(assign(1, "ann", "Reader"), Ok(Written::Created));
    let rows = gateway.store.get(Table::RoleAssignments, id(1).as_bytes()).unwrap();
    assert_eq!(assign(1, "ann", "reader"), Ok(Written::Replaced));
    assert_eq!(
        gateway.store.get(Table::RoleAssignments, id(1).as_bytes()).unwrap(),
        rows,
        "not written again"
    );
    assert_eq!(assign(1, "ann", "Owner"), Err(Cause::Conflict));
    assert_eq!(assign(1, "bob", "Reader"), Err(Cause::Conflict));
    assert_eq!(assign(2, "ann", "Reader"), Err(Cause::AlreadyExists));
    assert_eq!(assign(2, "bob", "Reader"), Ok(Written::Created));
    let put = |id: &str, grantee: Grantee, role: &str, scope: Scope| {
        let refusal = gateway.operations.put_role_assignment(&owner, id, scope, grantee, role).unwrap_err();
        (refusal.cause, refusal.target.unwrap_or_default())
    };
    let here = || within(DECLARED);
    assert_eq!(put("x", principal("a"), "Reader", here()), (Cause::Invalid, "id".into()));
    assert_eq!(put(&id(3), principal(""), "Reader", here()), (Cause::Invalid, "grantee.principal".into()));
    let group = Grantee::Group("a\nb".into());
    assert_eq!(put(&id(3), group, "Reader", here()), (Cause::Invalid, "grantee.group".into()));
    assert_eq!(put(&id(3), principal("a"), "Reeder", here()), (Cause::Invalid, "role".into()));
    assert_eq!(put(&id(3), principal("a"), "Reader", within("none")), (Cause::NotFound, String::new()));
    assert_eq!(gateway.events().last().unwrap().status, ActivityStatus::Failed);
}

#[test]
fn the_last_owner_of_the_gateway_stays() {
    let gateway = Gateway::new();
    let owner = holder(Owner);
    gateway.assign(&owner, 1, Scope::Gateway, "ann", "Owner").unwrap();
    gateway.assign(&owner, 2, within(DECLARED), "bob", "Owner").unwrap();
    gateway.assign(&owner, 3, Scope::Gateway, "bob", "Contributor").unwrap();
    let delete = |number, scope: Scope| {
        gateway.operations.delete_role_assignment(&owner, &scope, &id(number)).map_err(|it| it.cause)
    };
    assert_eq!(delete(1, Scope::Gateway), Err(Cause::Conflict));
    assert_eq!(delete(1, within(DECLARED)), Err(Cause::NotFound), "not at that scope");
    assert_eq!(delete(9, Scope::Gateway), Err(Cause::NotFound));
    gateway.assign(&owner, 4, Scope::Gateway, "carl", "Owner").unwrap();
    assert_eq!(delete(1, Scope::Gateway), Ok(()));
    assert_eq!(delete(4, Scope::Gateway), Err(Cause::Conflict));
    assert_eq!(delete(3, Scope::Gateway), Ok(()));
    assert_eq!(delete(2, within(DECLARED)), Ok(()));
}

#[test]
fn assignments_are_listed_by_scope_to_those_who_may_see_them() {
    let gateway = Gateway::new();
    let owner = holder(Owner);
    for number in 1..=3 {
        gateway.assign(&owner, number, within(DECLARED), &format!("p{number}"), "Reader").unwrap();
    }
    gateway.assign(&owner, 4, Scope::Gateway, "ann", "Owner").unwrap();
    let list = |caller: &Caller, scope: &Scope, page: &Page| {
        gateway.operations.role_assignments(caller, scope, page).map_err(|refusal| refusal.cause)
    };
    let whole = Page::default();
    let reader = holder_in(DECLARED, Reader);
    assert_eq!(list(&reader, &within(DECLARED), &whole).unwrap().items.len(), 3);
    let forbidden = Cause::Forbidden(Action::RoleAssignmentRead);
    assert_eq!(list(&reader, &Scope::Gateway, &whole), Err(forbidden));
    assert_eq!(list(&reader, &within("none"), &whole), Err(forbidden), "tells nothing of what is there");
    assert_eq!(list(&owner, &within("none"), &whole), Err(Cause::NotFound));
    assert_eq!(list(&owner, &Scope::Gateway, &whole).unwrap().items[0].role, "Owner");

    let first = list(&owner, &within(DECLARED), &Page { limit: 2, cursor: None }).unwrap();
    let second = list(&owner, &within(DECLARED), &Page { limit: 2, cursor: first.next }).unwrap();
    let ids: Vec<_> = first.items.into_iter().chain(second.items).map(|it| it.id).collect();
    assert_eq!((ids, second.next), ([1, 2, 3].map(id).to_vec(), None));
}

#[test]
fn a_workspace_takes_its_assignments_with_it() {
    let gateway = Gateway::new();
    gateway.add_workspace("Gone");
    let owner = holder(Owner);
    gateway.assign(&owner, 1, within("gone"), "ann", "Owner").unwrap();
    gateway.assign(&owner, 2, Scope::Gateway, "ann", "Reader").unwrap();
    let workspace = Resource::workspace("Gone", &WorkspaceSpec::default());
    let removed = gateway.operations.write(&owner, Action::WorkspaceDelete, &workspace, |batch| {
        gateway.operations.drop_roles_of("GONE", batch)?;
        batch.remove(Table::Workspaces, "gone");
        Ok(((), ServiceChanges::default()))
    });
    removed.unwrap();
    gateway.add_workspace("Gone");
    assert_eq!(gateway.holds("ann", Some("gone")), Reader.actions());
}

#[test]
fn roles_changed_by_another_process_count_at_once() {
    let store = Arc::<TestStore>::default();
    let [here, there] = [(); 2].map(|()| Gateway::on(Arc::clone(&store), settings()));
    let owner = holder(Owner);
    here.assign(&owner, 1, Scope::Gateway, "ann", "Owner").unwrap();
    assert_eq!(there.holds("ann", None), Owner.actions());
    there.assign(&owner, 2, Scope::Gateway, "bob", "Owner").unwrap();
    there.operations.delete_role_assignment(&owner, &Scope::Gateway, &id(1)).unwrap();
    assert_eq!(here.holds("ann", None), ActionSet::NONE);
    let outcome = here.operations.delete_role_assignment(&owner, &Scope::Gateway, &id(2));
    assert_eq!(outcome.unwrap_err().cause, Cause::Conflict, "the last one, whoever made it");
    let restarted = Gateway::on(store, settings());
    assert_eq!(restarted.holds("bob", None), Owner.actions());
}

#[test]
fn two_processes_do_not_take_the_last_two_owners_away_at_once() {
    let store = Arc::<TestStore>::default();
    let [here, there] = [(); 2].map(|()| Gateway::on(Arc::clone(&store), settings()));
    let owner = holder(Owner);
    here.assign(&owner, 1, Scope::Gateway, "ann", "Owner").unwrap();
    here.assign(&owner, 2, Scope::Gateway, "bob", "Owner").unwrap();
    let ends = std::thread::scope(|scope| {
        let delete = |gateway: &Gateway, number| {
            gateway.operations.delete_role_assignment(&holder(Owner), &Scope::Gateway, &id(number)).is_ok()
        };
        let (here, there) = (&here, &there);
        let first = scope.spawn(move || delete(here, 1));
        let second = scope.spawn(move || delete(there, 2));
        [first.join().unwrap(), second.join().unwrap()]
    });
    assert_eq!(ends.iter().filter(|ok| **ok).count(), 1);
    assert!(here.operations.current_roles().unwrap().has_owner(None));
}

#[test]
fn a_pattern_that_means_nothing_any_more_allows_nothing_and_breaks_nothing() {
    let gateway = Gateway::new();
    let role = CustomRole {
        name: "Old".into(),
        description: String::new(),
        actions: vec!["*/read".into(), "Microsoft.Gone/*".into()],
        not_actions: vec!["Microsoft.Gone/x".into(), "Scoregate/*".into()],
        provenance: made_by("test"),
    };
    let mut batch = Batch::default();
    batch.put(Table::CustomRoles, "old", encode(&role).unwrap());
    gateway.store.commit(batch).unwrap();
    let gateway = Gateway::on(gateway.store, settings());
    gateway.assign(&holder(Owner), 1, Scope::Gateway, "ann", "old").unwrap();
    let held = gateway.holds("ann", None);
    assert!(held.allows(Action::ServiceRead) && !held.allows(Action::ManagementTokenRead));
}

/// The issue's table, by the actions that each operation asks for, run through the wrapper that every write goes through
/// and the check that every read begins with.
#[test]
fn each_role_may_do_what_the_table_says() {
    use Action::*;
    let table: &[(&str, &[Action], [bool; 3])] = &[
        ("create workspace", &[WorkspaceWrite, WorkspaceDelete], [true, true, false]),
        ("share workspace", &[RoleAssignmentWrite, RoleAssignmentDelete], [true, false, false]),
        (
            "deploy, update, delete service",
            &[AciWrite, AciDelete, AksWrite, AksDelete, EndpointWrite, EndpointDelete],
            [true, true, false],
        ),
        (
            "view services, models, metrics",
            &[WorkspaceRead, ServiceRead, EndpointRead, ModelRead, MetricsRead],
            [true, true, true],
        ),
        (
            "list and regenerate keys",
            &[
                AciListKeys,
                AksListKeys,
                EndpointListKeys,
                AciRegenerateKeys,
                AksRegenerateKeys,
                EndpointRegenerateKeys,
            ],
            [true, true, false],
        ),
        ("call a web service; token, v1", &[Score, WorkspaceRead], [true, true, true]),
        ("token, v2", &[EndpointToken], [true, true, false]),
        ("edit custom roles", &[RoleDefinitionWrite, RoleDefinitionDelete], [true, false, false]),
        (
            "see roles and the log",
            &[RoleAssignmentRead, RoleDefinitionRead, ActivityRead, RecordsRead, MetricsRead],
            [true, true, true],
        ),
        ("revoke scoring tokens, rotate keys", &[TokenRevoke, SigningKeyRotate], [true, true, false]),
        (
            "management tokens, backup",
            &[ManagementTokenRead, ManagementTokenWrite, ManagementTokenDelete, StoreBackup],
            [true, false, false],
        ),
    ];
    let gateway = Gateway::new();
    let nothing = |_: &mut Batch| Ok(((), ServiceChanges::default()));
    let workspace = Resource::workspace(DECLARED, &WorkspaceSpec::default());
    for (operation, actions, allowed) in table {
        for (role, allowed) in BuiltInRole::ALL.into_iter().zip(allowed) {
            for action in *actions {
                let everywhere = gateway.operations.write(&holder(role), *action, &workspace, nothing);
                let here = gateway.operations.write(&holder_in(DECLARED, role), *action, &workspace, nothing);
                let elsewhere =
                    gateway.operations.write(&holder_in("other", role), *action, &workspace, nothing);
                let place = format!("{operation}: {action} by {}", role.as_str());
                assert_eq!((everywhere.is_ok(), here.is_ok()), (*allowed, *allowed), "{place}");
                assert_eq!(elsewhere.unwrap_err().cause, Cause::Forbidden(*action), "{place}");
            }
        }
    }
    let covered: std::collections::BTreeSet<_> = table.iter().flat_map(|(_, actions, _)| *actions).collect();
    assert_eq!(covered.len(), Action::ALL.len(), "each action is in the table");
}

/// What one row of the table does: for a caller, on a gateway where an owner has made what it needs.
type Operation = fn(&Operations, &Caller) -> Result<(), Refusal>;

fn put(operations: &Operations, caller: &Caller, name: &str, spec: ServiceSpec) -> Result<(), Refusal> {
    let keys = SuppliedKeys::default();
    operations.put_service(caller, DECLARED, name, spec, keys, Precondition::None).map(drop)
}

fn with_tokens(compute_type: ComputeType) -> ServiceSpec {
    ServiceSpec { auth: Some(AuthMode::Token), ..ServiceSpec::new(compute_type) }
}

/// The same table by the operations themselves: the name, what is done, and whether Owner, Contributor and Reader may.
#[test]
fn each_role_may_do_the_operations_that_the_table_says() {
    let table: &[(&str, Operation, [bool; 3])] = &[
        (
            "create workspace",
            |it, caller| {
                it.put_workspace(caller, "fresh", WorkspaceSpec::default(), Precondition::None).map(drop)
            },
            [true, true, false],
        ),
        ("see workspace", |it, caller| it.workspace(caller, DECLARED).map(drop), [true; 3]),
        (
            "share workspace",
            |it, caller| {
                it.put_role_assignment(caller, &id(7), within(DECLARED), principal("x"), "Reader").map(drop)
            },
            [true, false, false],
        ),
        (
            "unshare workspace",
            |it, caller| it.delete_role_assignment(caller, &Scope::Gateway, &id(9)),
            [true, false, false],
        ),
        (
            "see roles",
            |it, caller| it.role_assignments(caller, &Scope::Gateway, &Page::default()).map(drop),
            [true; 3],
        ),
        (
            "deploy, ACI",
            |it, caller| put(it, caller, "new", ServiceSpec::new(ComputeType::Aci)),
            [true, true, false],
        ),
        (
            "deploy, AKS",
            |it, caller| put(it, caller, "new", ServiceSpec::new(ComputeType::Aks)),
            [true, true, false],
        ),
        (
            "deploy, Managed",
            |it, caller| put(it, caller, "new", ServiceSpec::new(ComputeType::Managed)),
            [true, true, false],
        ),
        ("update", |it, caller| put(it, caller, "aks", with_tokens(ComputeType::Aks)), [true, true, false]),
        (
            "delete",
            |it, caller| it.delete_service(caller, DECLARED, "aks", Precondition::None),
            [true, true, false],
        ),
        ("see service", |it, caller| it.service(caller, DECLARED, "aks").map(drop), [true; 3]),
        ("see endpoint", |it, caller| it.service(caller, DECLARED, "managed").map(drop), [true; 3]),
        ("list keys", |it, caller| it.keys(caller, DECLARED, "aks").map(drop), [true, true, false]),
        (
            "list keys, Managed",
            |it, caller| it.keys(caller, DECLARED, "managed").map(drop),
            [true, true, false],
        ),
        (
            "regenerate key",
            |it, caller| {
                it.regenerate_key(caller, DECLARED, "aks", KeySlot::Primary, KeyChange::default()).map(drop)
            },
            [true, true, false],
        ),
        (
            "token, v1",
            |it, caller| it.issue_token(caller, DECLARED, "aks", TokenRule::V1).map(drop),
            [true; 3],
        ),
        (
            "token, v2",
            |it, caller| it.issue_token(caller, DECLARED, "managed", TokenRule::V2).map(drop),
            [true, true, false],
        ),
        ("revoke token", |it, caller| it.revoke_token(caller, DECLARED, &id(5)), [true, true, false]),
        (
            "rotate signing key",
            |it, caller| it.rotate_signing_key(caller, DECLARED).map(drop),
            [true, true, false],
        ),
        (
            "edit custom role",
            |it, caller| {
                let actions = vec!["*/read".to_owned()];
                let none = Precondition::None;
                it.put_custom_role(caller, "Spare", String::new(), actions, vec![], none).map(drop)
            },
            [true, false, false],
        ),
        ("delete custom role", |it, caller| it.delete_custom_role(caller, "Spare"), [true, false, false]),
        ("see custom roles", |it, caller| it.custom_roles(caller, &Page::default()).map(drop), [true; 3]),
        (
            "see the log",
            |it, caller| it.activity(caller, &Default::default(), &Page::default()).map(drop),
            [true; 3],
        ),
        ("check the store", |it, caller| it.check_store(caller).map(drop), [true, false, false]),
        (
            "see management tokens",
            |it, caller| it.management_tokens(caller, &Page::default()).map(drop),
            [true, false, false],
        ),
        (
            "make a management token",
            |it, caller| {
                let day = std::time::Duration::from_secs(86_400);
                it.create_management_token(caller, "x", String::new(), day).map(drop)
            },
            [true, false, false],
        ),
    ];
    for (name, operation, allowed) in table {
        for (role, allowed) in BuiltInRole::ALL.into_iter().zip(allowed) {
            let gateway = Gateway::new();
            let (operations, owner) = (&gateway.operations, holder(Owner));
            put(operations, &owner, "aks", with_tokens(ComputeType::Aks)).unwrap();
            put(operations, &owner, "managed", with_tokens(ComputeType::Managed)).unwrap();
            gateway.role(&owner, "Spare", &["*/read"], &[]).unwrap();
            gateway.assign(&owner, 9, Scope::Gateway, "somebody", "Reader").unwrap();
            let before = gateway.events().len();
            let outcome = operation(operations, &holder(role));
            let place = format!("{name} by {}", role.as_str());
            match outcome {
                Ok(()) => assert!(allowed, "{place}"),
                Err(Refusal { cause: Cause::Forbidden(_), .. }) => assert!(!allowed, "{place}"),
                Err(other) => panic!("{place}: {other}"),
            }
            let last = gateway.events().split_off(before);
            assert!(last.is_empty() || last.iter().any(|it| it.status != ActivityStatus::Started), "{place}");
        }
    }
}
