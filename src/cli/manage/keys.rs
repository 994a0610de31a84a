//! `scoregate keys`.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use super::Session;
use super::output::Column;

/// The two keys of a service.
#[derive(Debug, Subcommand)]
pub(in super::super) enum KeysCommand {
    /// Both, with ids and ages
    List { service: String },
    /// Replace one; the other stays good, so that callers can be moved over
    Regenerate {
        service: String,
        slot: Slot,
        /// Read the new key from standard input instead of making one
        #[arg(long)]
        value_stdin: bool,
        /// From when on it is refused, such as 2027-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
        /// Repeating the command with the same id gives the same key and changes nothing
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
}

/// Which key.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in super::super) enum Slot {
    /// The first one
    Primary,
    /// The second one
    Secondary,
}

impl Slot {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

const COLUMNS: &[Column] = &[
    ("SLOT", "/slot"),
    ("KEY", "/value"),
    ("ID", "/id"),
    ("CREATED", "/created_at"),
    ("LAST USED", "/last_used_at"),
    ("EXPIRES", "/expires_at"),
];

impl KeysCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn run(self, mut on: Session<'_>) -> anyhow::Result<ExitCode> {
        match &self {
            KeysCommand::List { service } => {
                let pair = on.api.get(&on.in_workspace(&["services", service, "keys"])?)?;
                let items: Vec<Value> =
                    ["primary", "secondary"].iter().filter_map(|it| pair.get(it).cloned()).collect();
                on.out.list(&items, COLUMNS)?;
            }
            KeysCommand::Regenerate { service, slot, value_stdin, expires_at, request_id } => {
                on.confirm(&format!(
                    "replace the {} key of {service}; the old one is dead at once",
                    slot.as_str()
                ))?;
                let mut change = Map::new();
                if *value_stdin {
                    change.insert("value".into(), json!(super::read_secret()?.expose_secret()));
                }
                change.extend(expires_at.iter().map(|time| ("expires_at".to_owned(), json!(time))));
                change.extend(request_id.iter().map(|id| ("request_id".to_owned(), json!(id))));
                let path = on.in_workspace(&["services", service, "keys", slot.as_str(), "regenerate"])?;
                let key = on.api.send(Method::POST, &path, &Value::Object(change))?;
                on.out.list(&[key], COLUMNS)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
