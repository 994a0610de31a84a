//! `scoregate login`: proves who is calling, and remembers it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use secrecy::SecretString;
use serde_json::Value;

use super::api::Api;
use super::profile::Profile;
use super::{read, read_secret};

/// Where to log in, and with what.
#[derive(Debug, Args)]
pub(in super::super) struct Login {
    /// Management address, such as https://127.0.0.1:9443
    #[arg(long, env = "SCOREGATE_ENDPOINT", value_name = "URL")]
    endpoint: String,
    /// PEM file of the certificate authority of the management address [default: the system's]
    #[arg(long, env = "SCOREGATE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Workspace of later commands that name none
    #[arg(long, short = 'w', env = "SCOREGATE_WORKSPACE", value_name = "NAME")]
    workspace: Option<String>,
    #[command(flatten)]
    credential: Credential,
}

/// Exactly one. Tokens are never arguments: other users could read them there.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Credential {
    /// File with the bootstrap secret that the gateway wrote at its first start: makes you the first Owner, once
    #[arg(long, value_name = "FILE")]
    bootstrap: Option<PathBuf>,
    /// File with a management token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read a management token from standard input
    #[arg(long)]
    token_stdin: bool,
}

/// Logs in.
///
/// # Errors
/// The gateway cannot be reached or does not know the credential; the login before stays.
pub(in super::super) fn run(login: &Login, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let ca = login.ca.as_deref().map(read).transpose()?;
    let token = match &login.credential {
        Credential { bootstrap: Some(path), .. } => {
            bootstrap(login, ca.as_deref(), read(path)?.trim().into())?
        }
        Credential { token_file: Some(path), .. } => read(path)?.trim().into(),
        _ => read_secret()?,
    };
    let api = Api::new(&login.endpoint, ca.as_deref(), Some(token.clone()))?;
    let me = api.get("/v1/whoami")?;
    let profile = Profile { endpoint: login.endpoint.clone(), ca, workspace: login.workspace.clone(), token };
    let path = profile.save()?;
    let principal = me.get("principal").and_then(Value::as_str).unwrap_or_default();
    writeln!(out, "logged in to {} as {principal}; kept in {}", login.endpoint, path.display())?;
    Ok(ExitCode::SUCCESS)
}

fn bootstrap(login: &Login, ca: Option<&str>, secret: SecretString) -> anyhow::Result<SecretString> {
    let api = Api::new(&login.endpoint, ca, Some(secret))?;
    let made = api.post("/v1/bootstrap")?;
    match made.get("token").and_then(Value::as_str) {
        Some(token) => Ok(token.into()),
        None => bail!("the gateway gave no token; is --endpoint its management address?"),
    }
}
