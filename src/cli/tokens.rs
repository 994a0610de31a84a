//! `scoregate tokens mint`: signs a token offline with the key of the configuration.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use crate::auth::{self, AuthSettings};
use crate::control::config;

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
    /// How long it is valid, such as 10m or 12h [default: tokens.lifetime of the configuration]
    #[arg(long, value_parser = config::parse_duration)]
    lifetime: Option<Duration>,
}

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) fn mint(mint: &Mint) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(&mint.config.source()) {
        Ok(loaded) => loaded,
        Err(problems) => bail!("the configuration is not usable:\n{problems}"),
    };
    let wanted = loaded.config.services.iter().find(|service| service.name.as_str() == mint.service);
    let service =
        wanted.ok_or_else(|| anyhow!("--service: the configuration has no service {:?}", mint.service))?;
    let AuthSettings::Token(tokens) = &service.auth else {
        bail!("--service: {} does not take tokens of this gateway; set `auth: token`", mint.service);
    };
    let token = auth::mint(tokens, &service.name, &mint.subject, mint.lifetime, SystemTime::now())
        .context("the token cannot be signed")?;
    println!("{token}");
    Ok(ExitCode::SUCCESS)
}
