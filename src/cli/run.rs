//! `scoregate run`: the gateway as a process, from the ready line to the last signal.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{Bound, Gateway};
use crate::control::config::{self, Source};
use crate::lifecycle;

use super::log;

/// Control-plane threads. They wait for most of the time.
const CONTROL_THREADS: usize = 2;

/// Runs until a signal ends it.
pub(super) fn run(source: &Source) -> anyhow::Result<ExitCode> {
    let loaded = match config::load(source) {
        Ok(loaded) => loaded,
        Err(problems) => {
            writeln!(std::io::stderr(), "{problems}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    log::start(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    control_runtime()?.block_on(async {
        // Before the ready line: whoever waits for it may signal at once.
        let signals = Signals::new()?;
        let gateway = Gateway::start(source.clone(), loaded).await?;
        announce(gateway.bound())?;
        lifecycle::spawn("watchdog", watchdog());
        serve(gateway, signals).await
    })
}

/// The runtime of the control plane.
pub(super) fn control_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
}

/// The one line on standard output that says where everything listens.
fn announce(bound: &Bound) -> anyhow::Result<()> {
    let listeners: serde_json::Map<_, _> = bound
        .listeners
        .iter()
        .map(|(name, address)| (name.to_string(), address.to_string().into()))
        .collect();
    let mut ready = serde_json::json!({ "event": "ready", "listeners": listeners });
    if let Some(management) = bound.management {
        ready["management"] = management.to_string().into();
    }
    if let Some(observe) = bound.observe {
        ready["observe"] = observe.to_string().into();
    }
    ready["pid"] = std::process::id().into();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{ready}").and_then(|()| stdout.flush()).context("the ready line cannot be written")?;
    notify(&[NotifyState::Ready]);
    Ok(())
}

/// The signals that steer the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn serve(gateway: Gateway, mut signals: Signals) -> anyhow::Result<ExitCode> {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => reload(&gateway).await,
            _ = signals.user1.recv() => gateway.reopen_records(),
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    notify(&[NotifyState::Stopping]);
    tracing::info!("draining");
    tokio::select! {
        drained = gateway.drain() => {
            tracing::info!(cut = drained.cut, "stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = signals.end() => {
            tracing::warn!("second signal: leaving at once");
            std::process::exit(1);
        }
    }
}

async fn reload(gateway: &Gateway) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no monotonic clock for systemd"),
    }
    let reloader = gateway.reloader();
    if let Err(error) = tokio::task::spawn_blocking(move || Arc::clone(&reloader).reload()).await {
        tracing::error!(%error, "the reload failed");
    }
    notify(&[NotifyState::Ready]);
}

/// Tells systemd that the control plane is alive, twice as often as it asks for.
async fn watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero()) else { return };
    loop {
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep((interval / 2).max(Duration::from_millis(10))).await;
    }
}

/// Does nothing where no service manager listens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
