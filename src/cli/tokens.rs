//! `scoregate tokens mint`: signs a token offline with the key of the configuration.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use secrecy::ExposeSecret;

use crate::auth::{self, AuthSettings, IssuerSettings, MintRequest};
use crate::control::config::{self, Config};
use crate::proxy::ServiceSettings;

use super::ConfigFile;

/// What to sign.
#[derive(Debug, Args)]
pub(super) struct Mint {
    #[command(flatten)]
    config: ConfigFile,
    /// Service that the token is for; its audience
    #[arg(long)]
    service: String,
    /// Whom the token stands for; shows as Subject in the records
    #[arg(long)]
    subject: String,
    /// How long it is valid, such as 10m or 12h, 1s to 720h [default: tokens.lifetime of the configuration]
    #[arg(long, value_parser = parse_lifetime)]
    lifetime: Option<Duration>,
}

/// Writes one token on a line of its own to `out`.
///
/// # Errors
/// The configuration is not usable, has no such service in token mode, or writing failed.
pub(super) fn mint(mint: &Mint, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(&mint.config.source()) {
        Ok(loaded) => loaded,
        Err(problems) => bail!("the configuration is not usable:\n{problems}"),
    };
    let service = find(&loaded.config, &mint.service)?;
    let (AuthSettings::Token(_), Some(issuer)) = (&service.auth, &loaded.config.tokens) else {
        bail!("--service: {} does not take tokens of this gateway (auth: token)", mint.service);
    };
    let request = MintRequest {
        issuer: &issuer.issuer,
        audience: service.name.as_str(),
        subject: &mint.subject,
        lifetime: mint.lifetime.unwrap_or(issuer.lifetime),
        now: SystemTime::now(),
    };
    let minted = auth::mint(&issuer.signing_key, &request).context("the token cannot be signed")?;
    writeln!(out, "{}", minted.token.expose_secret())?;
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a ServiceSettings> {
    let names = || config.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>().join(", ");
    let found =
        config.services.iter().map(|service| &**service).find(|service| service.name.as_str() == name);
    found.with_context(|| format!("--service: the configuration has no service {name:?}; it has {}", names()))
}

/// A lifetime within the bounds of `tokens.lifetime`.
fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = config::parse_duration(text)?;
    if IssuerSettings::LIFETIMES.contains(&lifetime) {
        Ok(lifetime)
    } else {
        Err("out of range; allowed are 1s to 720h".to_owned())
    }
}
