//! The composition root: a checked configuration in, a running gateway with its bound addresses out.
//!
//! The only module that knows both planes.

mod events;
mod management;
mod store;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::auth::{self, JwksRegistry};
use crate::control::config::{Loaded, Source};
use crate::control::{self, Observe, Publisher, Reloader, Resolver, SystemResolver};
use crate::lifecycle::{self, Drain, Lifecycle, Phase, PhaseReceiver};
use crate::listener::{self, ConnectionLimit, Listening};
use crate::proxy::{Snapshot, Worker};
use crate::telemetry::metrics::{KeySetReading, ReplicaReading};
use crate::telemetry::trace::Tracing;
use crate::telemetry::{Metrics, RecordSink, SampleSink, Telemetry};

use events::Events;
use management::{Around, ManagementPlane, Serving};
use store::OpenStore;

/// A running gateway. Ends by [`Gateway::drain`]; dropping it leaves the data plane to the end of the process.
pub struct Gateway {
    bound: Bound,
    lifecycle: Lifecycle,
    publisher: Arc<Publisher>,
    reloader: Arc<Reloader>,
    telemetry: Telemetry,
    metrics: Arc<Metrics>,
    workers: Vec<std::thread::JoinHandle<()>>,
    limits: Vec<Arc<ConnectionLimit>>,
    management: Option<Serving>,
}

/// Where the gateway listens.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Data-plane listeners by name, in the order of the configuration.
    pub listeners: Vec<(Arc<str>, SocketAddr)>,
    /// The management plane.
    pub management: Option<SocketAddr>,
    /// Metrics and health.
    pub observe: Option<SocketAddr>,
}

impl Bound {
    /// All of them, the first listener's first.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter().map(|(_, address)| *address);
        listeners.chain(self.management).chain(self.observe).collect()
    }
}

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections still open when `drain.timeout` was over.
    pub cut: usize,
}

impl Gateway {
    /// Binds everything, starts the data plane and declares the gateway ready. Must be called on the control runtime.
    ///
    /// # Errors
    /// An address, a file or a thread cannot be had; nothing is left running.
    pub async fn start(source: Source, loaded: Loaded) -> anyhow::Result<Self> {
        Self::start_with(source, loaded, Arc::new(SystemResolver)).await
    }

    /// The same with a `resolver` that knows what the names of replicas mean.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        source: Source,
        loaded: Loaded,
        resolver: Arc<dyn Resolver>,
    ) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let metrics = Metrics::new();
        let store = OpenStore::of(config).await?;
        let spool_key = store.as_ref().map(|store| store.spool_key(config)).transpose()?.flatten();
        let telemetry = Telemetry::start(&config.telemetry, spool_key.as_ref(), &metrics)?;
        let jwks = JwksRegistry::default();
        show_key_sets(&metrics, jwks.clone());
        let publisher = Arc::new(Publisher::start(config, Arc::clone(&metrics), jwks.clone())?);
        show_replicas(&metrics, publisher.published());
        show_limits(&metrics, &publisher);
        show_snapshot(&metrics, &publisher);
        let observe = match config.observe {
            Some(observe) => {
                let address = observe.address;
                let bound = control::bind_observe(address).await;
                Some(bound.with_context(|| format!("observe.address: {address} cannot be bound"))?)
            }
            None => None,
        };
        let sockets = Sockets::bind(&loaded, &metrics)?;
        let mut bound = Bound {
            listeners: sockets.addresses.clone(),
            management: None,
            observe: observe.as_ref().map(|(address, _)| *address),
        };
        let management = match (&config.management, store) {
            (Some(settings), Some(store)) => {
                let events = Events::new(telemetry.event_spools(), config.telemetry.privacy);
                let (publisher, jwks, metrics) = (&publisher, &jwks, &metrics);
                let around = Around { store, publisher, jwks, metrics, events, bound: &bound.addresses() };
                let started = ManagementPlane::start(config, settings, around).await?;
                bound.management = Some(started.address());
                Some(started)
            }
            _ => None,
        };
        let limits = sockets.limits.clone();
        let lifecycle = Lifecycle::new();
        let plane = DataPlane {
            published: publisher.published(),
            records: telemetry.sink(),
            samples: telemetry.samples(),
            metrics: Arc::clone(&metrics),
            tracing: config.telemetry.tracing,
            phases: lifecycle.watch(),
        };
        let workers = plane.start(sockets.per_worker)?;
        let reloader = Reloader::new(source, loaded, Arc::clone(&publisher), Arc::clone(&metrics))
            .with_management(management.as_ref().map(ManagementPlane::tls))
            .with_disclosure(telemetry.disclosure());
        let reloader = Arc::new(reloader);

        lifecycle::spawn("key sets", auth::run_key_sets(jwks.clone(), std::future::pending()));
        lifecycle::spawn("prober", control::probe_replicas(Arc::clone(&publisher), Arc::clone(&metrics)));
        lifecycle::spawn(
            "names",
            control::resolve_names(Arc::clone(&publisher), resolver, Arc::clone(&metrics)),
        );
        lifecycle::spawn("retired snapshots", reap(Arc::clone(&publisher)));
        lifecycle::spawn("config watch", control::watch(Arc::clone(&reloader)));
        if let Some((_, listener)) = observe {
            let observe = Observe {
                metrics: Arc::clone(&metrics),
                reloader: Arc::clone(&reloader),
                publisher: Arc::clone(&publisher),
                phases: lifecycle.watch(),
                store: management.as_ref().map(ManagementPlane::health),
            };
            lifecycle::spawn("observe", observe.serve(listener));
        }
        let management = management.map(|plane| plane.serve(lifecycle.watch(), Arc::clone(&metrics)));
        lifecycle.advance(Phase::Running);
        Ok(Self { bound, lifecycle, publisher, reloader, telemetry, metrics, workers, limits, management })
    }

    /// Where the gateway listens.
    #[must_use]
    pub const fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The one who reloads; blocks on files, so call it from `spawn_blocking`.
    #[must_use]
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    /// The one who publishes what the data plane serves.
    #[must_use]
    pub fn publisher(&self) -> Arc<Publisher> {
        Arc::clone(&self.publisher)
    }

    /// Opens the record file anew, after a rotation.
    pub fn reopen_records(&self) {
        self.telemetry.reopen();
    }

    /// The metrics page as `/metrics` shows it.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.metrics.render()
    }

    /// Ends the gateway: readiness goes, `drain.delay` passes, connections are brought to an end, calls in flight finish
    /// within `drain.timeout`, the rest is cut and named, records are written.
    pub async fn drain(self) -> Drained {
        let drain = self.reloader.drain();
        self.lifecycle.advance(Phase::Unready);
        tokio::time::sleep(drain.delay).await;
        self.lifecycle.advance(Phase::Draining);
        let deadline = Instant::now() + drain.timeout;
        while self.is_busy() && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let cut = self.open_connections();
        if self.management.as_ref().is_some_and(Serving::is_busy) {
            tracing::warn!("drain.timeout is over, calls of the management plane are cut");
        }
        if cut > 0 {
            let timeout = drain.timeout;
            tracing::warn!(connections = cut, ?timeout, "drain.timeout is over, what is still there is cut");
        }
        self.lifecycle.advance(Phase::Cut);
        let Self { workers, telemetry, management, .. } = self;
        let ended = tokio::task::spawn_blocking(move || {
            for worker in workers {
                // A worker that panicked has said so; its records are with the writer.
                let _ = worker.join();
            }
            if let Some(management) = management {
                management.finish();
            }
            telemetry.shutdown(RECORDS_DEADLINE)
        });
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(unfinished)) => tracing::error!(%unfinished, "records were lost at the end"),
            Err(error) => tracing::error!(%error, "the end of the data plane failed"),
        }
        Drained { cut }
    }

    /// Whether calls may be under way.
    fn is_busy(&self) -> bool {
        self.management.as_ref().is_some_and(Serving::is_busy) || self.open_connections() > 0
    }

    fn open_connections(&self) -> usize {
        self.limits.iter().map(|limit| limit.in_use()).sum()
    }
}

/// Has `metrics` show how the replicas of what is published stand.
fn show_replicas(metrics: &Metrics, published: Arc<ArcSwap<Snapshot>>) {
    metrics.show_replicas(move || {
        let snapshot = published.load();
        let services = snapshot.services.iter();
        let readings = services.flat_map(|service| {
            service.deployments.iter().map(|deployment| ReplicaReading {
                service: service.settings.name.shared(),
                deployment: Arc::clone(&deployment.name),
                states: deployment.replicas.states().named().to_vec(),
                ejections: deployment.replicas.ejections(),
            })
        });
        readings.collect()
    });
}

/// Has `metrics` show how the key sets of outside issuers stand.
fn show_key_sets(metrics: &Metrics, jwks: JwksRegistry) {
    metrics.show_key_sets(move || {
        let sets = jwks.status().into_iter();
        sets.map(|set| KeySetReading { source: set.source, keys: set.keys.unwrap_or(0), age: set.age })
            .collect()
    });
}

/// Has `metrics` show how the limits of the services stand that run.
fn show_limits(metrics: &Metrics, publisher: &Publisher) {
    let published = publisher.published();
    metrics.show_limits(move || control::read_limits(&published.load()));
}

/// Has `metrics` show the snapshot that runs.
fn show_snapshot(metrics: &Metrics, publisher: &Publisher) {
    let published = publisher.published();
    metrics.show_snapshot(move || control::read_snapshot(&published.load()));
}

/// Between two looks at the connections still open in a drain.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Longest wait for the last records to reach the disk.
const RECORDS_DEADLINE: Duration = Duration::from_secs(5);

/// All data-plane sockets, sorted by worker.
struct Sockets {
    addresses: Vec<(Arc<str>, SocketAddr)>,
    limits: Vec<Arc<ConnectionLimit>>,
    per_worker: Vec<Vec<Listening>>,
}

impl Sockets {
    fn bind(loaded: &Loaded, metrics: &Metrics) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let workers = config.runtime.workers;
        let mut sockets = Self { addresses: vec![], limits: vec![], per_worker: vec![] };
        sockets.per_worker.resize_with(workers, Vec::new);
        for (place, settings) in config.listeners.iter().enumerate() {
            let (address, bound) = listener::bind(settings.address, workers).with_context(|| {
                format!("listeners.{}.address: {} cannot be bound", settings.name, settings.address)
            })?;
            if settings.tls.is_none() {
                tracing::warn!(listener = %settings.name, %address, "PLAINTEXT: keys and bodies cross this listener unencrypted");
            }
            let limit = ConnectionLimit::new(settings.max_connections);
            let listener_metrics = Arc::new(metrics.listener(&settings.name));
            listener_metrics.limited(settings.max_connections);
            for (worker, socket) in bound.into_iter().enumerate() {
                let limit = Arc::clone(&limit);
                let metrics = Arc::clone(&listener_metrics);
                sockets.per_worker[worker].push(Listening { place, socket, limit, metrics });
            }
            sockets.addresses.push((Arc::clone(&settings.name), address));
            sockets.limits.push(limit);
        }
        Ok(sockets)
    }
}

/// What the data plane is made of.
struct DataPlane {
    published: Arc<ArcSwap<Snapshot>>,
    records: RecordSink,
    samples: Option<SampleSink>,
    metrics: Arc<Metrics>,
    tracing: Option<Tracing>,
    phases: PhaseReceiver,
}

impl DataPlane {
    /// One thread per entry of `per_worker`, each with its own runtime and its own sockets.
    fn start(self, per_worker: Vec<Vec<Listening>>) -> anyhow::Result<Vec<std::thread::JoinHandle<()>>> {
        let mut workers = Vec::new();
        for (number, listening) in per_worker.into_iter().enumerate() {
            let (published, records) = (Arc::clone(&self.published), self.records.clone());
            let (metrics, phases) = (Arc::clone(&self.metrics), self.phases.clone());
            let (tracing, samples) = (self.tracing, self.samples.clone());
            let runtime = move || {
                let worker = Worker::new(published, records.worker(), metrics, Drain::default());
                let worker = worker.with_tracing(tracing).with_samples(samples);
                run_worker(&Rc::new(worker), listening, phases)
            };
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            workers.push(thread.spawn(move || {
                if let Err(error) = runtime() {
                    tracing::error!(%error, number, "a data-plane worker failed");
                }
            })?);
        }
        if workers.is_empty() {
            return Err(anyhow!("runtime.workers is 0"));
        }
        Ok(workers)
    }
}

/// Runs one worker until the process is cut. What is still under way then is dropped with the runtime, and every call
/// leaves its record in the worker's buffer, which is handed over last.
fn run_worker(worker: &Rc<Worker>, listening: Vec<Listening>, phases: PhaseReceiver) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        lifecycle::spawn_local(worker.records.clone().flush_in_time());
        lifecycle::spawn_local(sweep(Rc::clone(worker)));
        for listening in listening {
            let worker = Rc::clone(worker);
            lifecycle::spawn_local(async move {
                if let Err(error) = listener::run(listening, worker).await {
                    tracing::error!(%error, "a listener failed");
                }
            });
        }
        worker.drain.follow(phases).await;
    });
    drop(runtime);
    worker.records.flush();
    Ok(())
}

/// Tasks polled before the reactor is asked again (tokio's default).
const EVENT_INTERVAL: u32 = 61;

/// Frees snapshots that the data plane has let go of.
async fn reap(publisher: Arc<Publisher>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        publisher.reap();
    }
}

/// Closes upstream connections that have rested too long, and lets go of a snapshot that another one has replaced, which
/// without calls nobody else would.
async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        drop(worker.snapshot());
        worker.pools.sweep(Instant::now());
    }
}

/// Also the step of the pools' coarse clock.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
