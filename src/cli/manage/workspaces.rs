//! `scoregate workspaces`.

use std::process::ExitCode;

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::Session;
use super::api::{Call, path};
use super::output::Column;

/// Workspaces of the gateway.
#[derive(Debug, Subcommand)]
pub(in super::super) enum WorkspacesCommand {
    /// Those that you may see
    List,
    /// One of them
    Show { name: String },
    /// Make or change one
    Set {
        name: String,
        /// Azure subscription id that SDK clients name it by
        #[arg(long)]
        subscription: String,
        /// Azure resource group that SDK clients name it by
        #[arg(long)]
        resource_group: String,
        /// Azure location
        #[arg(long, default_value = "")]
        location: String,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Delete an empty one
    Delete { name: String },
}

const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("SUBSCRIPTION", "/subscription"),
    ("RESOURCE GROUP", "/resource_group"),
    ("LOCATION", "/location"),
    ("ORIGIN", "/origin"),
    ("DESCRIPTION", "/description"),
];

impl WorkspacesCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn run(self, mut on: Session<'_>) -> anyhow::Result<ExitCode> {
        match &self {
            WorkspacesCommand::List => {
                let items = on.api.list("/v1/workspaces", &[], usize::MAX)?;
                on.out.list(&items, COLUMNS)?;
            }
            WorkspacesCommand::Show { name } => {
                on.out.item(&on.api.get(&path(&["v1", "workspaces", name]))?, COLUMNS)?;
            }
            WorkspacesCommand::Set { name, subscription, resource_group, location, description } => {
                let spec = json!({
                    "subscription": subscription, "resource_group": resource_group, "location": location,
                    "description": description,
                });
                let made = on.api.send(Method::PUT, &path(&["v1", "workspaces", name]), &spec)?;
                on.out.done(&format!("workspace {name} is set"), &made)?;
            }
            WorkspacesCommand::Delete { name } => {
                on.confirm(&format!("delete workspace {name}"))?;
                let answer = on.api.call(&Call::new(Method::DELETE, &path(&["v1", "workspaces", name])))?;
                on.out.done(&format!("workspace {name} is deleted"), &answer.value)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
