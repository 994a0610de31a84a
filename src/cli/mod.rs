//! The command line: one file per command, arguments in, exit code out.
//!
//! Exit codes: 0 fine, 1 failed, 2 usage (clap's own).

mod check;
mod config_dump;
mod demo;
mod explain;
mod log;
mod manage;
mod records;
mod run;
mod schema;
mod store;
mod tokens;
mod top;
mod version;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::control::config::Source;

/// A gateway in front of model containers: TLS in, one auth mode per service, one record per call.
#[derive(Debug, Parser)]
#[command(name = "scoregate", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM (drain; a second one exits at once). SIGHUP reloads, SIGUSR1 reopens the record file
    Run(ConfigFile),
    /// Do all that `run` does before it binds, and print every problem with file:line:column
    Check(ConfigFile),
    /// Show a gateway at work: certificates, a real model, three services, calls and their records
    Demo {
        /// Exit after the calls: 0 only if each of them came out as it must
        #[arg(long)]
        once: bool,
    },
    /// Print the JSON Schema of the configuration
    Schema,
    /// Look into a configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Tell which listener, service, auth mode, deployment and limits a call would meet; makes no call
    Explain(explain::Call),
    /// Log in to the management API of a running gateway; later commands use the login
    Login(manage::Login),
    /// Workspaces of a running gateway
    Workspaces(Managed<manage::WorkspacesCommand>),
    /// Services of a running gateway
    Services(Managed<manage::ServicesCommand>),
    /// Deployments of a service and their traffic
    Deployments(Managed<manage::DeploymentsCommand>),
    /// The two keys of a service
    Keys(Managed<manage::KeysCommand>),
    /// Scoring tokens, signing keys, management tokens; `mint` works offline
    Tokens(Managed<TokensCommand>),
    /// Roles and who holds them
    Roles(Managed<manage::RolesCommand>),
    /// What was done through the management API, by whom
    Activity(Managed<manage::ActivityCommand>),
    /// Records of calls: of a running gateway, or (with --file) in its record file
    Records(Managed<records::RecordsCommand>),
    /// What a running gateway does at the moment, per service, refreshed in place
    Top(top::Top),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// The store of the management plane: of a running gateway, or (with --path) in its folder
    Store(Managed<store::StoreCommand>),
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration: defaults filled in, overrides applied, secrets as references
    Dump(ConfigFile),
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// Sign a token for a service in token mode, with the key of the configuration; needs no running gateway
    Mint(tokens::Mint),
    #[command(flatten)]
    Managed(manage::ManagedTokensCommand),
}

/// A command for a running gateway, and which one.
#[derive(Debug, Args)]
struct Managed<C: Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    target: manage::Target,
}

/// The configuration that a command reads.
#[derive(Debug, Args)]
struct ConfigFile {
    /// YAML file (`-` for standard input); scalars can be overridden by SCOREGATE__SECTION__KEY
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "SCOREGATE_CONFIG")]
    path: PathBuf,
}

impl ConfigFile {
    fn source(&self) -> Source {
        Source::path(&self.path)
    }
}

impl Cli {
    /// Runs the command.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        let done = match self.command {
            Command::Check(config) => check::run(&config.path, &mut out, &mut err).map_err(Into::into),
            Command::Config(ConfigCommand::Dump(config)) => {
                config_dump::run(&config.path, &mut out, &mut err).map_err(Into::into)
            }
            Command::Schema => schema::run(&mut out).map_err(Into::into),
            Command::Run(config) => run::run(&config.source()),
            Command::Demo { once } => {
                let stay = if once { demo::Stay::Exit } else { demo::Stay::UntilSignal };
                demo::run(stay)
            }
            Command::Explain(call) => explain::run(&call, &mut out),
            Command::Login(login) => manage::login(&login, &mut out),
            Command::Workspaces(it) => it.target.session(&mut out).and_then(|on| it.command.run(on)),
            Command::Services(it) => it.target.session(&mut out).and_then(|on| it.command.run(on)),
            Command::Deployments(it) => it.target.session(&mut out).and_then(|on| it.command.run(on)),
            Command::Keys(it) => it.target.session(&mut out).and_then(|on| it.command.run(on)),
            Command::Tokens(it) => match it.command {
                TokensCommand::Mint(mint) => tokens::mint(&mint, &mut out),
                TokensCommand::Managed(command) => it.target.session(&mut out).and_then(|on| command.run(on)),
            },
            Command::Roles(it) => it.target.session(&mut out).and_then(|on| it.command.run(on)),
            Command::Activity(it) => it.target.session(&mut out).and_then(|on| it.command.run(on)),
            Command::Records(it) => records::run(&it.command, &it.target, &mut out),
            Command::Top(it) => top::run(&it, &mut out),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "scoregate", &mut out);
                Ok(ExitCode::SUCCESS)
            }
            Command::Store(it) => store::run(&it.command, &it.target, &mut out, &mut err),
            Command::Version { json } => {
                let format = if json { version::Format::Json } else { version::Format::Text };
                version::run(format, &mut out).map_err(Into::into)
            }
        };
        match done {
            Ok(code) => code,
            // Whoever read the output (`| head`) has seen enough.
            Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
            Err(error) => {
                // With standard error gone there is nobody left to tell.
                let _ = writeln!(err, "scoregate: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
