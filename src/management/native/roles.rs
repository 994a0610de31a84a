//! `/v1/roles` and `/v1/role-assignments`

use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;

use super::call::{CURSOR, Call, LIMIT, judged, nothing, ok, versioned, written};
use super::route::{Answer, Conditions, Parameter, ParameterKind, Route};
use super::view::{Listed, Role, RoleKind};
use crate::catalog::{Action, BuiltInRole, Grantee, RoleAssignment, Scope};
use crate::management::operations::{Page, PageOf};
use crate::management::{Caller, Operations, Refusal};

const ROLE: &str = "/v1/roles/{role}";
const ASSIGNMENT: &str = "/v1/role-assignments/{id}";

const WORKSPACE: Parameter = Parameter {
    name: "workspace",
    about: "The workspace whose assignments are meant; absent: those on the gateway as a whole.",
    kind: ParameterKind::Text,
};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/roles", "listRoles", list)
            .summary("Lists the built-in roles (on the first page) and the custom ones")
            .needs(&[Action::RoleDefinitionRead])
            .query(&[LIMIT, CURSOR])
            .gives::<Listed<Role>>(200),
        Route::new(Method::GET, ROLE, "getRole", get)
            .summary("Shows a role")
            .needs(&[Action::RoleDefinitionRead])
            .gives::<Role>(200),
        Route::new(Method::PUT, ROLE, "putRole", put)
            .summary("Makes or changes a custom role; the caller must hold all that it allows")
            .needs(&[Action::RoleDefinitionWrite])
            .conditions(Conditions::MatchOrAbsent)
            .takes::<RoleRequest>()
            .gives::<Role>(200)
            .gives::<Role>(201),
        Route::new(Method::DELETE, ROLE, "deleteRole", delete)
            .summary("Deletes a custom role that nobody holds")
            .needs(&[Action::RoleDefinitionDelete])
            .gives_nothing(204),
        Route::new(Method::GET, "/v1/role-assignments", "listRoleAssignments", list_assignments)
            .summary("Lists who holds which role in a scope")
            .needs(&[Action::RoleAssignmentRead])
            .query(&[LIMIT, CURSOR, WORKSPACE])
            .gives::<Listed<RoleAssignment>>(200),
        Route::new(Method::GET, ASSIGNMENT, "getRoleAssignment", get_assignment)
            .summary("Shows a role assignment")
            .needs(&[Action::RoleAssignmentRead])
            .query(&[WORKSPACE])
            .gives::<RoleAssignment>(200),
        Route::new(Method::PUT, ASSIGNMENT, "putRoleAssignment", put_assignment)
            .summary("Gives a role; the id is a UUID of the caller's choice, and the caller must hold all that the role allows")
            .needs(&[Action::RoleAssignmentWrite])
            .takes::<AssignmentRequest>()
            .gives::<RoleAssignment>(200)
            .gives::<RoleAssignment>(201),
        Route::new(Method::DELETE, ASSIGNMENT, "deleteRoleAssignment", delete_assignment)
            .summary("Takes a role away")
            .needs(&[Action::RoleAssignmentDelete])
            .query(&[WORKSPACE])
            .gives_nothing(204),
    ]
}

/// A custom role.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RoleRequest {
    /// For people.
    #[serde(default)]
    description: String,
    /// Patterns of Azure's action strings that it allows; `*` stands for any text.
    actions: Vec<String>,
    /// Patterns taken out of them again.
    #[serde(default)]
    not_actions: Vec<String>,
}

/// Who is to hold which role where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AssignmentRequest {
    /// `gateway`, or one workspace.
    scope: Scope,
    /// Who.
    grantee: Grantee,
    /// Name of a built-in or custom role.
    role: String,
}

async fn list(call: Call) -> Answer {
    let page = call.page()?;
    let first = page.cursor.is_none();
    let found = call.run(move |operations, caller| operations.custom_roles(caller, &page)).await?;
    let custom = found.items.into_iter().map(|role| Role::from(role.value));
    let built_in = BuiltInRole::ALL.into_iter().filter(|_| first).map(built_in);
    Ok(ok(Listed { items: built_in.chain(custom).collect(), next: found.next }))
}

fn built_in(role: BuiltInRole) -> Role {
    Role {
        name: role.as_str().to_owned(),
        kind: RoleKind::BuiltIn,
        description: String::new(),
        actions: role.actions().iter().map(|action| action.as_str().to_owned()).collect(),
        not_actions: vec![],
        provenance: None,
    }
}

async fn get(call: Call) -> Answer {
    let name = call.path("role");
    if let Some(role) = BuiltInRole::named(&name) {
        call.caller().check(Action::RoleDefinitionRead, None)?;
        return Ok(ok(built_in(role)));
    }
    let found = call.run(move |operations: &Operations, caller: &Caller| {
        let found = find(
            |page| operations.custom_roles(caller, page),
            |role| role.value.name.eq_ignore_ascii_case(&name),
        )?;
        found.ok_or_else(|| Refusal::not_found(format_args!("role {name}")))
    });
    let found = found.await?;
    Ok(versioned(ok(Role::from(found.value)), found.version))
}

/// The first item of all pages that is `wanted`.
fn find<T>(
    list: impl Fn(&Page) -> Result<PageOf<T>, Refusal>,
    wanted: impl Fn(&T) -> bool,
) -> Result<Option<T>, Refusal> {
    let mut page = Page { limit: 1000, cursor: None };
    loop {
        let found = list(&page)?;
        if let Some(item) = found.items.into_iter().find(&wanted) {
            return Ok(Some(item));
        }
        match found.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(None),
        }
    }
}

async fn put(mut call: Call) -> Answer {
    let (name, precondition) = (call.path("role"), call.precondition()?);
    let RoleRequest { description, actions, not_actions } = call.body().await?;
    let made = call.run(move |operations, caller| {
        operations.put_custom_role(caller, &name, description, actions, not_actions, precondition)
    });
    let (made, how) = made.await.map_err(judged(precondition))?;
    Ok(versioned(written(Role::from(made.value), how), made.version))
}

async fn delete(call: Call) -> Answer {
    let name = call.path("role");
    call.run(move |operations, caller| operations.delete_custom_role(caller, &name)).await?;
    Ok(nothing())
}

fn scope(call: &Call) -> Scope {
    call.parameter("workspace").map_or(Scope::Gateway, |name| Scope::Workspace(name.to_ascii_lowercase()))
}

async fn list_assignments(call: Call) -> Answer {
    let (page, scope) = (call.page()?, scope(&call));
    let found =
        call.run(move |operations, caller| operations.role_assignments(caller, &scope, &page)).await?;
    Ok(ok(Listed::of(found, |assignment| assignment)))
}

async fn get_assignment(call: Call) -> Answer {
    let (id, scope) = (call.path("id"), scope(&call));
    let found = call.run(move |operations: &Operations, caller: &Caller| {
        let list = |page: &Page| operations.role_assignments(caller, &scope, page);
        let found = find(list, |assignment| assignment.id.eq_ignore_ascii_case(&id))?;
        found.ok_or_else(|| Refusal::not_found(format_args!("role assignment {id} in this scope")))
    });
    Ok(ok(found.await?))
}

async fn put_assignment(mut call: Call) -> Answer {
    let id = call.path("id");
    let AssignmentRequest { scope, grantee, role } = call.body().await?;
    let scope = match scope {
        Scope::Gateway => Scope::Gateway,
        Scope::Workspace(name) => Scope::Workspace(name.to_ascii_lowercase()),
    };
    let made = call
        .run(move |operations, caller| operations.put_role_assignment(caller, &id, scope, grantee, &role));
    let (made, how) = made.await?;
    Ok(written(made, how))
}

async fn delete_assignment(call: Call) -> Answer {
    let (id, scope) = (call.path("id"), scope(&call));
    call.run(move |operations, caller| operations.delete_role_assignment(caller, &scope, &id)).await?;
    Ok(nothing())
}
