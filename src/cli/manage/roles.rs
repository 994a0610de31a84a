//! `scoregate roles`: definitions and who holds them.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::Session;
use super::api::{Call, path};
use super::output::Column;

/// Roles and who holds them.
#[derive(Debug, Subcommand)]
pub(in super::super) enum RolesCommand {
    /// Built-in and custom roles
    List,
    /// Make or change a custom role
    Define {
        name: String,
        /// Azure action string that it allows, `*` stands for anything; several: all of them
        #[arg(long, value_name = "PATTERN", required = true)]
        action: Vec<String>,
        /// Taken out of them again
        #[arg(long, value_name = "PATTERN")]
        not_action: Vec<String>,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Delete a custom role that nobody holds
    Undefine { name: String },
    /// Who holds which role in the workspace (or on the gateway)
    Assignments {
        #[command(flatten)]
        place: Place,
    },
    /// Give a role
    Assign {
        role: String,
        #[command(flatten)]
        grantee: Grantee,
        #[command(flatten)]
        place: Place,
    },
    /// Take a role away
    Unassign {
        /// Id of the assignment
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Where a role is held: in the workspace, unless said otherwise.
#[derive(Debug, Args)]
pub(in super::super) struct Place {
    /// On the gateway, every workspace included, instead of in the workspace
    #[arg(long)]
    gateway: bool,
}

/// Whom a role is given to.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in super::super) struct Grantee {
    /// Subject of a management token or of an outside issuer's token
    #[arg(long)]
    principal: Option<String>,
    /// Everybody whose outside token names this group
    #[arg(long)]
    group: Option<String>,
}

const ROLES: &[Column] =
    &[("NAME", "/name"), ("KIND", "/kind"), ("ACTIONS", "/actions"), ("DESCRIPTION", "/description")];

const ASSIGNMENTS: &[Column] =
    &[("ID", "/id"), ("ROLE", "/role"), ("GRANTEE", "/grantee"), ("SCOPE", "/scope")];

impl RolesCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn run(self, mut on: Session<'_>) -> anyhow::Result<ExitCode> {
        match &self {
            RolesCommand::List => {
                let items = on.api.list("/v1/roles", &[], usize::MAX)?;
                on.out.list(&items, ROLES)?;
            }
            RolesCommand::Define { name, action, not_action, description } => {
                let role =
                    json!({ "description": description, "actions": action, "not_actions": not_action });
                let made = on.api.send(Method::PUT, &path(&["v1", "roles", name]), &role)?;
                on.out.done(&format!("role {name} is defined"), &made)?;
            }
            RolesCommand::Undefine { name } => {
                on.confirm(&format!("delete role {name}"))?;
                let done = on.api.call(&Call::new(Method::DELETE, &path(&["v1", "roles", name])))?.value;
                on.out.done(&format!("role {name} is deleted"), &done)?;
            }
            RolesCommand::Assignments { place } => {
                let query: Vec<_> = place.workspace(&on)?.map(|it| ("workspace", it)).into_iter().collect();
                let items = on.api.list("/v1/role-assignments", &query, usize::MAX)?;
                on.out.list(&items, ASSIGNMENTS)?;
            }
            RolesCommand::Assign { role, grantee, place } => {
                let grantee = match (&grantee.principal, &grantee.group) {
                    (Some(principal), _) => json!({ "principal": principal }),
                    (None, group) => json!({ "group": group }),
                };
                let scope = place.workspace(&on)?.map_or(json!("gateway"), |it| json!({ "workspace": it }));
                let id = uuid::Uuid::new_v4().to_string();
                let wanted = json!({ "role": role, "grantee": grantee, "scope": scope });
                let made = on.api.send(Method::PUT, &path(&["v1", "role-assignments", &id]), &wanted)?;
                on.out.done(&format!("role {role} is given ({id})"), &made)?;
            }
            RolesCommand::Unassign { id, place } => {
                on.confirm(&format!("take role assignment {id} away"))?;
                let query = place.workspace(&on)?;
                let query = query.map(|it| {
                    let mut pair = url::form_urlencoded::Serializer::new(String::from("?"));
                    pair.append_pair("workspace", &it).finish()
                });
                let place = format!("{}{}", path(&["v1", "role-assignments", id]), query.unwrap_or_default());
                let done = on.api.call(&Call::new(Method::DELETE, &place))?.value;
                on.out.done(&format!("role assignment {id} is gone"), &done)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Place {
    /// The workspace that a role is about; none for the gateway as a whole.
    fn workspace(&self, on: &Session<'_>) -> anyhow::Result<Option<String>> {
        match (self.gateway, &on.workspace) {
            (true, _) => Ok(None),
            (false, Some(name)) => Ok(Some(name.clone())),
            (false, None) => bail!("no workspace is named; give --workspace or --gateway"),
        }
    }
}
