//! `scoregate activity`.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::Session;
use super::output::Column;

/// What was done to the gateway, by whom.
#[derive(Debug, Subcommand)]
pub(in super::super) enum ActivityCommand {
    /// Events, newest first
    List(Filter),
    /// Read the whole log and find any edit; exit code 1 if there is one
    Verify,
}

/// Which events.
#[derive(Debug, Args)]
pub(in super::super) struct Filter {
    /// Not before, such as 2026-11-24T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Before
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// By this principal
    #[arg(long)]
    caller: Option<String>,
    /// Of this operation name (an Azure action string)
    #[arg(long)]
    operation: Option<String>,
    /// About resources whose id begins so
    #[arg(long)]
    resource: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Of the whole gateway instead of the workspace
    #[arg(long)]
    gateway: bool,
}

const COLUMNS: &[Column] = &[
    ("#", "/sequence"),
    ("TIME", "/event_timestamp"),
    ("CALLER", "/caller"),
    ("FROM", "/client_ip_address"),
    ("STATUS", "/status"),
    ("CODE", "/status_code"),
    ("OPERATION", "/operation_name"),
    ("RESOURCE", "/resource_id"),
    ("ERROR", "/error"),
];

impl ActivityCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn run(self, mut on: Session<'_>) -> anyhow::Result<ExitCode> {
        match &self {
            ActivityCommand::List(filter) => {
                let workspace = if filter.gateway { None } else { on.workspace.clone() };
                let named = [
                    ("from", &filter.from),
                    ("to", &filter.to),
                    ("caller", &filter.caller),
                    ("operation", &filter.operation),
                    ("resource", &filter.resource),
                    ("workspace", &workspace),
                ];
                let given = named.into_iter().filter_map(|(name, value)| value.clone().map(|it| (name, it)));
                let items = on.api.list("/v1/activity", &given.collect::<Vec<_>>(), filter.limit)?;
                on.out.list(&items, COLUMNS)?;
            }
            ActivityCommand::Verify => {
                let verdict = on.api.post("/v1/activity/verify")?;
                let events = verdict.get("events").and_then(Value::as_u64).unwrap_or_default();
                on.out.done(&format!("{events} events"), &verdict)?;
                if let Some(broken) = verdict.get("broken").filter(|broken| !broken.is_null()) {
                    bail!("the activity log has been changed: {broken}");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
