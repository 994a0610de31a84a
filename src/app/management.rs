//! The management plane put together: its operations over the store and the data plane, its port served.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::auth::JwksRegistry;
use crate::catalog::{ServiceName, WorkspaceSpec};
use crate::control::config::{Config, ManagementSettings};
use crate::control::{self, Publisher, StoreHealth, keep_history};
use crate::lifecycle::{self, Phase, PhaseReceiver};
use crate::management::operations::{DataPlane, OperationsSettings, UriTemplates};
use crate::management::{self, Credentials, Operations, Server};
use crate::proxy::{ServiceChanges, ServiceSettings, Snapshot};
use crate::telemetry::Metrics;
use crate::telemetry::history::History;
use crate::telemetry::metrics::{DestinationStats, MANAGEMENT_LISTENER, StoreState};
use crate::telemetry::reader::RecordLog;
use crate::tls::{self, ServerTls};
use crate::upstream::AddressPolicy;

use super::events::Events;
use super::store::OpenStore;

/// Holds, in the folder of the store, the secret that the first owner logs in with.
const BOOTSTRAP_FILE: &str = "bootstrap-token";
/// Clock difference allowed when scoring tokens are judged, where `tokens.leeway` says nothing.
const LEEWAY: Duration = Duration::from_secs(60);
/// Between two looks at the store.
const STORE_INTERVAL: Duration = Duration::from_secs(5);
/// Looks at the store between two writings of when keys were last used: about once a minute.
const LOOKS_PER_WRITING: u32 = 12;

/// A management plane that is ready to be served.
pub(super) struct ManagementPlane {
    operations: Arc<Operations>,
    listener: TcpListener,
    address: SocketAddr,
    history: Arc<History>,
    published: Arc<ArcSwap<Snapshot>>,
    tls: Arc<ArcSwap<ServerTls>>,
    health: StoreHealth,
    events: Events,
}

/// What it stands between.
pub(super) struct Around<'a> {
    pub store: OpenStore,
    pub publisher: &'a Arc<Publisher>,
    pub jwks: &'a JwksRegistry,
    pub metrics: &'a Arc<Metrics>,
    /// Where events of its activity log go.
    pub events: Events,
    /// The addresses of the other ports.
    pub bound: &'a [SocketAddr],
}

impl ManagementPlane {
    /// Binds the port and hands the services of the store to the data plane.
    ///
    /// # Errors
    /// Names what cannot be had.
    pub async fn start(
        config: &Config,
        settings: &ManagementSettings,
        around: Around<'_>,
    ) -> anyhow::Result<Self> {
        let Around { store, publisher, jwks, metrics, events, bound } = around;
        let (listener, address) = bind(settings.address).await?;
        let tls = tls::server(&settings.tls).context("management.tls")?;
        let credentials = Credentials::new(settings.issuers.clone(), jwks)
            .map_err(|error| anyhow!("management.issuers: {error}"))?;
        let own: Vec<SocketAddr> = bound.iter().copied().chain([address]).collect();
        let policy = &settings.address_policy;
        let policy = AddressPolicy::new(own).with_networks(policy.allow.clone(), policy.deny.clone());
        let told = told(config, settings, Arc::new(credentials), policy, bound);
        let history = Arc::clone(&told.history);
        let data_plane = Published { publisher: Arc::clone(publisher), metrics: Arc::clone(metrics) };
        let handed = events.clone();
        let started = tokio::task::spawn_blocking(move || start(store, data_plane, told, &handed));
        let operations = started.await.context("the management plane could not be started")??;
        Ok(Self {
            operations: Arc::new(operations),
            listener,
            address,
            history,
            published: publisher.published(),
            tls: Arc::new(ArcSwap::from_pointee(tls)),
            health: StoreHealth::default(),
            events,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its certificates, for reloads to swap.
    pub fn tls(&self) -> Arc<ArcSwap<ServerTls>> {
        Arc::clone(&self.tls)
    }

    /// How the store is.
    pub fn health(&self) -> StoreHealth {
        self.health.clone()
    }

    /// Serves until the drain is over.
    pub fn serve(self, phases: PhaseReceiver, metrics: Arc<Metrics>) -> Serving {
        let Self { operations, listener, history, published, tls, health, events, .. } = self;
        control::show_certificates(&metrics, MANAGEMENT_LISTENER, Some(&tls.load()));
        let router = management::routes(Arc::clone(&operations));
        lifecycle::spawn("history", keep_history(history, Arc::clone(&metrics), published));
        lifecycle::spawn("store", watch_store(Arc::clone(&operations), health, metrics, phases.clone()));
        lifecycle::spawn("activity", events.clone().follow(Arc::clone(&operations), phases.clone()));
        let port = lifecycle::spawn("management", Server { router, tls, phases }.serve(listener));
        Serving { operations, port, events }
    }
}

/// A management plane that is served.
pub(super) struct Serving {
    operations: Arc<Operations>,
    port: JoinHandle<()>,
    events: Events,
}

impl Serving {
    /// Whether calls may be under way.
    pub fn is_busy(&self) -> bool {
        !self.port.is_finished()
    }

    /// Writes down what is only known in memory, and hands out the last events. Blocks; to be called when the data plane has
    /// ended, and before telemetry does.
    pub fn finish(self) {
        persist_key_use(&self.operations);
        hand_out(&self.operations, &self.events);
    }
}

fn persist_key_use(operations: &Operations) {
    if let Err(refusal) = operations.persist_key_use() {
        tracing::warn!(%refusal, "when keys were last used has not been written down");
    }
}

fn forget_expired_tokens(operations: &Operations) {
    if let Err(refusal) = operations.forget_expired_tokens() {
        tracing::warn!(%refusal, "signing keys and revocations whose time is over are still there");
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.with_context(|| format!("management.address: {address} cannot be bound"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// What the operations are told by the configuration.
fn told(
    config: &Config,
    settings: &ManagementSettings,
    credentials: Arc<Credentials>,
    policy: AddressPolicy,
    bound: &[SocketAddr],
) -> OperationsSettings {
    let workspace = WorkspaceSpec {
        subscription: config.workspace.subscription.clone(),
        resource_group: config.workspace.resource_group.clone(),
        location: config.workspace.location.clone(),
        ..WorkspaceSpec::default()
    };
    let templates = config.uri_templates.clone();
    OperationsSettings {
        workspace: (config.workspace.name.clone(), workspace),
        public_url: config.public_url.clone().unwrap_or_else(|| default_url(config, bound)),
        uri_templates: UriTemplates { aci: templates.aci, aks: templates.aks, managed: templates.managed },
        replica_template: config.replica_template.clone(),
        address_policy: Arc::new(policy),
        token_lifetime: settings.token_lifetime,
        token_leeway: config.tokens.as_ref().map_or(LEEWAY, |tokens| tokens.leeway),
        activity_retention: settings.activity_retention,
        bootstrap_token: settings.bootstrap_token.clone(),
        credentials,
        history: Arc::default(),
        records: config.telemetry.record_file.clone().map(RecordLog::new),
        collects: config.telemetry.collection.is_some(),
        backup_folder: Some(settings.store.path.clone()),
    }
}

/// The first listener's own address; the loopback one where it listens on all.
fn default_url(config: &Config, bound: &[SocketAddr]) -> url::Url {
    let encrypted = config.listeners.first().is_some_and(|listener| listener.tls.is_some());
    let scheme = if encrypted { "https" } else { "http" };
    let mut address = bound.first().copied().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 443)));
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::from(Ipv4Addr::LOCALHOST));
        tracing::warn!(
            "public_url is not set: scoring URIs that the APIs give out name this machine as {address}"
        );
    }
    let url = format!("{scheme}://{address}");
    // An address after a scheme is always a URL.
    url.parse().unwrap_or_else(|_| unreachable!("{url}"))
}

/// Starts the operations over the store, hands out the events that a killed process left behind, and leaves the first
/// owner's secret if it is needed.
fn start(
    store: OpenStore,
    data_plane: Published,
    told: OperationsSettings,
    events: &Events,
) -> anyhow::Result<Operations> {
    let folder = told.backup_folder.clone().unwrap_or_default();
    let operations = Operations::start(store.store, store.sealer, Arc::new(data_plane), told)
        .map_err(|refusal| anyhow!("the management plane cannot start: {refusal}"))?;
    hand_out(&operations, events);
    leave_bootstrap_secret(&operations, &folder)?;
    Ok(operations)
}

fn hand_out(operations: &Operations, events: &Events) {
    if let Err(error) = events.hand_out(operations) {
        tracing::error!(error, "events wait in the activity log and are not sent out");
    }
}

fn leave_bootstrap_secret(operations: &Operations, folder: &Path) -> anyhow::Result<()> {
    // Before the secret is made: one that cannot be written down would lock everybody out.
    let file = folder.join(BOOTSTRAP_FILE);
    let draft = Draft::create(&file).with_context(|| format!("{} cannot be written", file.display()))?;
    let begun = operations.begin_bootstrap().map_err(|refusal| anyhow!("no first owner: {refusal}"))?;
    if let Some(secret) = begun {
        draft.keep(&secret, &file).with_context(|| format!("{} cannot be written", file.display()))?;
        tracing::warn!(
            file = %file.display(),
            "nobody owns this gateway yet: whoever has the secret in this file becomes its first owner (scoregate login --bootstrap)"
        );
    }
    Ok(())
}

/// A file for a secret, gone again unless it is kept.
struct Draft {
    path: PathBuf,
    file: std::fs::File,
}

impl Draft {
    fn create(target: &Path) -> std::io::Result<Self> {
        let path = target.with_extension("new");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, file })
    }

    fn keep(mut self, secret: &SecretString, target: &Path) -> std::io::Result<()> {
        self.file.write_all(secret.expose_secret().as_bytes())?;
        self.file.write_all(b"\n")?;
        self.file.sync_all()?;
        std::fs::rename(&self.path, target)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Kept, it has another name by now.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Looks after the store until the drain begins: whether it answers, when keys were last used, what is over.
async fn watch_store(
    operations: Arc<Operations>,
    health: StoreHealth,
    metrics: Arc<Metrics>,
    mut phases: PhaseReceiver,
) {
    for look in 1_u32.. {
        let asked = Arc::clone(&operations);
        let answer = tokio::task::spawn_blocking(move || {
            if look.is_multiple_of(LOOKS_PER_WRITING) {
                persist_key_use(&asked);
                forget_expired_tokens(&asked);
            }
            asked.is_ready()
        });
        let answer = answer.await;
        let state = if matches!(answer, Ok(Ok(()))) { StoreState::Up } else { StoreState::Down };
        match (health.set(state), state) {
            (StoreState::Down, StoreState::Up) => tracing::info!("the store answers again"),
            (StoreState::Up, StoreState::Down) => {
                tracing::error!("the store does not answer: changes are refused, scoring goes on");
            }
            (StoreState::Up, StoreState::Up) | (StoreState::Down, StoreState::Down) => {}
        }
        metrics.store(state);
        tokio::select! {
            () = tokio::time::sleep(STORE_INTERVAL) => {}
            _ = phases.wait_for(|phase| *phase >= Phase::Draining) => return,
        }
    }
}

/// The data plane, as the management plane sees it.
struct Published {
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
}

impl DataPlane for Published {
    fn apply(&self, changes: ServiceChanges) -> Result<(), String> {
        self.publisher.apply(changes).map(|_| ()).map_err(|error| error.to_string())
    }

    fn key_use(&self, service: &ServiceName) -> [Option<SystemTime>; 2] {
        self.publisher.key_use(service).unwrap_or_default()
    }

    fn declared(&self) -> Arc<Vec<Arc<ServiceSettings>>> {
        Arc::new(self.publisher.declared())
    }

    fn record_stats(&self) -> Vec<DestinationStats> {
        self.metrics.record_stats()
    }
}
