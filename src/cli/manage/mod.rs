//! Commands that work on a running gateway, through its management API like any other client.
//!
//! Tables go to people; with `--output json` standard output is the API's own JSON and nothing else. What destroys
//! something asks first, or wants `--yes` where nobody can be asked.

mod activity;
mod api;
mod deployments;
mod keys;
mod login;
mod metrics;
mod output;
mod profile;
mod records;
mod roles;
mod services;
mod store;
mod tokens;
mod workspaces;

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use http::Method;
use serde_json::Value;

pub(super) use activity::ActivityCommand;
pub(super) use deployments::DeploymentsCommand;
pub(super) use keys::KeysCommand;
pub(super) use login::{Login, run as login};
pub(super) use output::{Column, Format, Output, cell};
pub(super) use roles::RolesCommand;
pub(super) use services::ServicesCommand;
pub(super) use tokens::ManagedTokensCommand;
pub(super) use workspaces::WorkspacesCommand;

use api::{Api, Call};
use profile::Profile;

/// Which gateway, as whom, and how to show what it says.
#[derive(Clone, Debug, Args)]
pub(super) struct Target {
    /// Management address, such as https://127.0.0.1:9443 [default: of the last login]
    #[arg(long, global = true, env = "SCOREGATE_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// PEM file of the certificate authority of the management address [default: of the last login, or the system's]
    #[arg(long, global = true, env = "SCOREGATE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Workspace [default: of the last login]
    #[arg(long, short = 'w', global = true, env = "SCOREGATE_WORKSPACE", value_name = "NAME")]
    workspace: Option<String>,
    /// How to show answers
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Do not ask before something is destroyed
    #[arg(long, short = 'y', global = true)]
    yes: bool,
}

/// Environment variable that a management token may come from, before the login file.
const TOKEN: &str = "SCOREGATE_TOKEN";

/// A command's hold on the gateway and on its own output.
pub(super) struct Session<'a> {
    api: Api,
    workspace: Option<String>,
    out: Output<'a>,
    yes: bool,
}

impl Target {
    /// How to show answers.
    pub(super) const fn format(&self) -> Format {
        self.output
    }

    /// Opens a session with what the arguments, the environment and the login file say, in this order.
    ///
    /// # Errors
    /// Nothing says where the gateway is or who is calling.
    pub(super) fn session<'a>(&self, out: &'a mut dyn Write) -> anyhow::Result<Session<'a>> {
        let stored = Profile::load()?;
        let endpoint = self.endpoint.clone().or_else(|| stored.as_ref().map(|it| it.endpoint.clone()));
        let endpoint = endpoint.context("no gateway is known; run 'scoregate login' or give --endpoint")?;
        let from_login = stored.as_ref().filter(|it| it.endpoint == endpoint);
        let token = match std::env::var(TOKEN) {
            Ok(token) if !token.trim().is_empty() => token.trim().into(),
            _ => from_login.map(|it| it.token.clone()).with_context(|| {
                format!("no token for {endpoint}; run 'scoregate login --endpoint {endpoint}' or set {TOKEN}")
            })?,
        };
        let ca = match &self.ca {
            Some(path) => Some(read(path)?),
            None => from_login.and_then(|it| it.ca.clone()),
        };
        let workspace = self.workspace.clone().or_else(|| from_login.and_then(|it| it.workspace.clone()));
        Ok(Session {
            api: Api::new(&endpoint, ca.as_deref(), Some(token))?,
            workspace,
            out: Output::new(self.output, out),
            yes: self.yes,
        })
    }
}

impl Session<'_> {
    /// Path of the workspace, with `rest` behind it.
    fn in_workspace(&self, rest: &[&str]) -> anyhow::Result<String> {
        let workspace = self.workspace.as_deref();
        let workspace =
            workspace.context("no workspace is named; give --workspace (or name one at login)")?;
        let mut segments = vec!["v1", "workspaces", workspace];
        segments.extend(rest);
        Ok(api::path(&segments))
    }

    /// Changes `service` by a JSON merge patch (RFC 7396); returns it as it is then.
    fn change(&self, service: &str, patch: &Value) -> anyhow::Result<Value> {
        let path = self.in_workspace(&["services", service])?;
        let call = Call {
            content_type: "application/merge-patch+json",
            ..Call::new(Method::PATCH, &path).with_body(patch)
        };
        self.api.call(&call).map(|answer| answer.value)
    }

    /// Asks before something is destroyed.
    fn confirm(&self, what: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
        if !stdin.is_terminal() {
            bail!("{what}: nobody can be asked here; add --yes");
        }
        write!(stderr, "{what}? [y/N] ")?;
        stderr.flush()?;
        let mut answer = String::new();
        stdin.read_line(&mut answer)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("nothing was changed") }
    }
}

/// A small text file.
fn read(path: &std::path::Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Standard input to its end, for secrets that must not stand in arguments.
fn read_secret() -> anyhow::Result<secrecy::SecretString> {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::stdin(), &mut text)?;
    if text.trim().is_empty() {
        bail!("standard input is empty; the secret is read from there");
    }
    Ok(text.trim().into())
}
