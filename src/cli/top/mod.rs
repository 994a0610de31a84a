//! `scoregate top`: what a running gateway does at the moment, per service, refreshed in place.

mod scrape;
mod view;

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

pub(super) use scrape::Scrape;
use view::Interval;

/// Longest wait for the metrics.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest page of metrics that is read, in bytes.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Clears the terminal and goes to its upper left corner (ECMA-48, ED and CUP).
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Which gateway, and how often.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Observe address of the gateway
    #[arg(long, env = "SCOREGATE_OBSERVE", value_name = "URL", default_value = "http://127.0.0.1:9090")]
    observe: String,
    /// Seconds between two looks, 0.1 to 3600
    #[arg(long, short = 'i', value_name = "SECONDS", default_value = "2", value_parser = interval)]
    interval: Duration,
    /// Show one interval and exit
    #[arg(long)]
    once: bool,
}

/// Shows what happens until interrupted.
///
/// # Errors
/// The metrics cannot be had at the beginning, or with `--once`; later ones are waited for.
pub(super) fn run(top: &Top, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (agent, url) = (agent(), metrics_of(&top.observe));
    let mut before = (Instant::now(), fetch(&agent, &url)?);
    loop {
        std::thread::sleep(top.interval);
        let text = match fetch(&agent, &url) {
            Ok(scrape) => {
                let now = (Instant::now(), scrape);
                let interval = Interval { before: &before.1, after: &now.1, took: now.0 - before.0 };
                let text = interval.to_string();
                before = now;
                text
            }
            Err(error) if top.once => return Err(error),
            Err(error) => format!("{error:#}\n"),
        };
        let clear = if !top.once && std::io::stdout().is_terminal() { CLEAR } else { "" };
        write!(out, "{clear}{text}")?;
        out.flush()?;
        if top.once {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// One page of the metrics of the gateway with this observe address.
///
/// # Errors
/// It cannot be had.
pub(super) fn look(observe: &str) -> anyhow::Result<Scrape> {
    fetch(&agent(), &metrics_of(observe))
}

fn metrics_of(observe: &str) -> String {
    format!("{}/metrics", observe.trim_end_matches('/'))
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("scoregate-cli/", env!("CARGO_PKG_VERSION")))
        .build();
    config.new_agent()
}

fn fetch(agent: &ureq::Agent, url: &str) -> anyhow::Result<Scrape> {
    let advice = || format!("{url} cannot be read; is the gateway running, and is this its observe address?");
    let mut answer = agent.get(url).call().with_context(advice)?;
    let text = answer.body_mut().with_config().limit(MOST_BYTES).read_to_string().with_context(advice)?;
    Ok(Scrape::parse(&text))
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "not a number from 0.1 to 3600".to_owned())
}
