//! `scoregate tokens`: scoring tokens, signing keys and management tokens of a running gateway.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::Session;
use super::api::{Call, path};
use super::output::Column;

/// Tokens of a running gateway.
#[derive(Debug, Subcommand)]
pub(in super::super) enum ManagedTokensCommand {
    /// Get a scoring token of a service in token mode, for yourself
    Get { service: String },
    /// Revoke scoring tokens of the workspace
    Revoke(Revoke),
    /// Make a new signing key; tokens of the old one stay good until they are over
    RotateSigningKey,
    /// The public keys of the workspace, a JSON Web Key Set
    Jwks,
    /// Management tokens, which let callers of this API in
    #[command(subcommand)]
    Management(ManagementTokensCommand),
}

/// Which tokens.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in super::super) struct Revoke {
    /// The one with this id (its jti)
    #[arg(long)]
    id: Option<String>,
    /// All that this principal has up to now
    #[arg(long)]
    principal: Option<String>,
}

/// Management tokens.
#[derive(Debug, Subcommand)]
pub(in super::super) enum ManagementTokensCommand {
    /// All of them, without their secrets
    List,
    /// Make one; it is shown once
    Create {
        /// Whom it stands for; give roles to this name
        principal: String,
        /// Days that it lasts, 1 to 366
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=366))]
        days: u32,
        /// For people
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Revoke one
    Revoke { id: String },
}

const SCORING: &[Column] =
    &[("token", "/token"), ("id", "/id"), ("refresh after", "/refresh_after"), ("expires", "/expires_at")];

const MANAGEMENT: &[Column] = &[
    ("ID", "/id"),
    ("PRINCIPAL", "/principal"),
    ("CREATED", "/created_at"),
    ("BY", "/created_by"),
    ("EXPIRES", "/expires_at"),
    ("DESCRIPTION", "/description"),
];

const CREATED: &[Column] =
    &[("token", "/token"), ("id", "/id"), ("principal", "/principal"), ("expires", "/expires_at")];

impl ManagedTokensCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// The API's refusal.
    pub(in super::super) fn run(self, mut on: Session<'_>) -> anyhow::Result<ExitCode> {
        match &self {
            ManagedTokensCommand::Get { service } => {
                let path = on.in_workspace(&["services", service, "token"])?;
                on.out.item(&on.api.call(&Call::new(Method::POST, &path))?.value, SCORING)?;
            }
            ManagedTokensCommand::Revoke(revoke) => {
                let (what, body) = match (&revoke.id, &revoke.principal) {
                    (Some(id), _) => (format!("token {id}"), json!({ "id": id })),
                    (None, principal) => (
                        format!("every token of {}", principal.as_deref().unwrap_or_default()),
                        json!({ "principal": principal }),
                    ),
                };
                on.confirm(&format!("revoke {what}"))?;
                let done = on.api.send(Method::POST, &on.in_workspace(&["tokens", "revoke"])?, &body)?;
                on.out.done(&format!("{what} is revoked"), &done)?;
            }
            ManagedTokensCommand::RotateSigningKey => {
                let path = on.in_workspace(&["signing-keys", "rotate"])?;
                let done = on.api.call(&Call::new(Method::POST, &path))?.value;
                let kid = done.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned();
                on.out.done(&format!("new tokens are signed by {kid}"), &done)?;
            }
            ManagedTokensCommand::Jwks => {
                let set = on.api.get(&on.in_workspace(&["jwks"])?)?;
                on.out.done(&set.to_string(), &set)?;
            }
            ManagedTokensCommand::Management(command) => management(command, &mut on)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn management(command: &ManagementTokensCommand, on: &mut Session<'_>) -> anyhow::Result<()> {
    match command {
        ManagementTokensCommand::List => {
            let items = on.api.list("/v1/management-tokens", &[], usize::MAX)?;
            on.out.list(&items, MANAGEMENT)
        }
        ManagementTokensCommand::Create { principal, days, description } => {
            let lifetime = u64::from(*days) * 24 * 60 * 60;
            let wanted =
                json!({ "principal": principal, "description": description, "lifetime_s": lifetime });
            on.out.item(&on.api.send(Method::POST, "/v1/management-tokens", &wanted)?, CREATED)
        }
        ManagementTokensCommand::Revoke { id } => {
            on.confirm(&format!("revoke management token {id}"))?;
            let path = path(&["v1", "management-tokens", id]);
            let done = on.api.call(&Call::new(Method::DELETE, &path))?.value;
            on.out.done(&format!("management token {id} is revoked"), &done)
        }
    }
}
