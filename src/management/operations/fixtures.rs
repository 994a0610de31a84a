//! What tests of operations need: a gateway on a store in memory, a data plane that records, callers of every role.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use secrecy::SecretBox;
use uuid::Uuid;

use super::project::project;
use super::replicas::Replicas;
use super::{
    ActivityEvent, ActivityStatus, DataPlane, Operations, OperationsSettings, Precondition, SuppliedKeys,
    UriTemplates, Versioned,
};
use crate::auth::AuthSettings;
use crate::catalog::{
    ActionSet, BuiltInRole, ComputeType, DeploymentSpec, ServiceEntry, ServiceName, ServiceSpec,
    WorkspaceSpec,
};
use crate::management::{Caller, Credentials, Grants, RequestFacts};
use crate::proxy::{ServiceChanges, ServiceSettings};
use crate::store::seal::Sealer;
use crate::store::{Batch, CheckReport, MemoryStore, Order, Range, Row, Store, StoreError, Table};
use crate::telemetry::metrics::DestinationStats;

/// The workspace of the configuration.
pub(in crate::management) const DECLARED: &str = "ws";

/// A data plane that keeps what it is told.
#[derive(Default)]
pub(in crate::management) struct Recorder {
    pub(in crate::management) applied: Mutex<Vec<ServiceChanges>>,
    /// Whether the next changes cannot be built.
    pub(in crate::management) fails: AtomicBool,
    /// The services of the configuration.
    pub(in crate::management) declared: Mutex<Vec<Arc<ServiceSettings>>>,
    /// When the keys of each service were last used.
    pub(in crate::management) used: Mutex<HashMap<ServiceName, [Option<SystemTime>; 2]>>,
}

impl DataPlane for Recorder {
    fn apply(&self, changes: ServiceChanges) -> Result<(), String> {
        if self.fails.load(Ordering::Relaxed) {
            return Err("it cannot be built".into());
        }
        self.applied.lock().unwrap().push(changes);
        Ok(())
    }

    fn key_use(&self, service: &ServiceName) -> [Option<SystemTime>; 2] {
        self.used.lock().unwrap().get(service).copied().unwrap_or_default()
    }

    fn declared(&self) -> Arc<Vec<Arc<ServiceSettings>>> {
        Arc::new(self.declared.lock().unwrap().clone())
    }

    fn record_stats(&self) -> Vec<DestinationStats> {
        Vec::new()
    }
}

/// A sealer for stores that nobody else reads: keeps the place beside the secret.
pub(in crate::management) struct OpenSealer;

impl Sealer for OpenSealer {
    fn seal(&self, workspace: &str, place: &str, secret: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok([format!("{workspace}|{place}|").as_bytes(), secret].concat())
    }

    fn open(&self, workspace: &str, place: &str, sealed: &[u8]) -> Result<SecretBox<Vec<u8>>, StoreError> {
        let secret = sealed.strip_prefix(format!("{workspace}|{place}|").as_bytes());
        let secret = secret.ok_or_else(|| StoreError::Key("sealed for another place".into()))?;
        Ok(SecretBox::new(Box::new(secret.to_vec())))
    }

    fn forget(&self, workspace: &str, batch: &mut Batch) {
        batch.remove(Table::Meta, format!("data key of {workspace}"));
    }
}

/// What another process does to the rows.
type Rival = Box<dyn Fn(&MemoryStore) + Send>;

/// A store that fails or is raced when a test says so.
#[derive(Default)]
pub(in crate::management) struct TestStore {
    pub(in crate::management) rows: MemoryStore,
    /// So many commits fail from now on.
    pub(in crate::management) failing: AtomicU32,
    /// So many commits succeed before that.
    pub(in crate::management) sparing: AtomicU32,
    /// What another process does right before each of the next commits.
    pub(in crate::management) rivals: Mutex<Vec<Rival>>,
}

impl Store for TestStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.rows.get(table, key)
    }

    fn scan(&self, range: &Range<'_>) -> Result<Vec<Row>, StoreError> {
        self.rows.scan(range)
    }

    fn commit(&self, batch: Batch) -> Result<u64, StoreError> {
        let counted_down = |count: &AtomicU32| {
            count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        };
        if !counted_down(&self.sparing) && counted_down(&self.failing) {
            return Err(StoreError::Io("gone".into()));
        }
        if let Some(rival) = self.rivals.lock().unwrap().pop() {
            rival(&self.rows);
        }
        self.rows.commit(batch)
    }

    fn backup(&self, path: &std::path::Path) -> Result<(), StoreError> {
        std::fs::write(path, "a copy").map_err(|error| StoreError::Io(error.to_string()))
    }

    fn check(&self) -> Result<CheckReport, StoreError> {
        self.rows.check()
    }
}

/// A gateway under test.
pub(in crate::management) struct Gateway {
    pub(in crate::management) operations: Operations,
    pub(in crate::management) store: Arc<TestStore>,
    pub(in crate::management) data_plane: Arc<Recorder>,
}

pub(in crate::management) fn settings() -> OperationsSettings {
    let spec = WorkspaceSpec {
        subscription: "sub".into(),
        resource_group: "rg".into(),
        location: "westeurope".into(),
        ..WorkspaceSpec::default()
    };
    OperationsSettings {
        workspace: (DECLARED.into(), spec),
        public_url: "https://score.example.org".parse().unwrap(),
        uri_templates: UriTemplates::default(),
        replica_template: None,
        address_policy: Arc::default(),
        token_lifetime: Duration::from_secs(3600),
        token_leeway: Duration::from_secs(60),
        activity_retention: Duration::from_secs(90 * 24 * 3600),
        bootstrap_token: None,
        credentials: Arc::new(Credentials::default()),
        records: None,
        history: Arc::default(),
        collects: false,
        backup_folder: None,
    }
}

impl Gateway {
    pub(in crate::management) fn new() -> Self {
        Self::with(settings())
    }

    pub(in crate::management) fn with(settings: OperationsSettings) -> Self {
        Self::on(Arc::default(), settings)
    }

    /// A gateway on a store that may already hold something.
    pub(in crate::management) fn on(store: Arc<TestStore>, settings: OperationsSettings) -> Self {
        Self::between(store, Arc::default(), settings)
    }

    /// A gateway on a store, before a data plane that may already serve something.
    pub(in crate::management) fn between(
        store: Arc<TestStore>,
        data_plane: Arc<Recorder>,
        settings: OperationsSettings,
    ) -> Self {
        let operations = Operations::start(
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::new(OpenSealer),
            Arc::clone(&data_plane) as Arc<dyn DataPlane>,
            settings,
        );
        Self { operations: operations.unwrap(), store, data_plane }
    }

    /// The activity log, oldest first, as it is stored.
    pub(in crate::management) fn events(&self) -> Vec<ActivityEvent> {
        let all =
            Range { table: Table::Activity, prefix: &[], after: None, limit: 10_000, order: Order::Forwards };
        let rows = self.store.scan(&all).unwrap();
        rows.iter().map(|row| serde_json::from_slice(&row.value).unwrap()).collect()
    }

    /// Status and caller of each event, oldest first.
    pub(in crate::management) fn statuses(&self) -> Vec<ActivityStatus> {
        self.events().iter().map(|event| event.status).collect()
    }
}

pub(in crate::management) fn request() -> RequestFacts {
    RequestFacts {
        client: Ipv4Addr::LOCALHOST.into(),
        method: "PUT".into(),
        operation_id: Uuid::now_v7(),
        client_request_id: None,
    }
}

/// A caller who may do `actions` on the whole gateway.
pub(in crate::management) fn caller(principal: &str, actions: ActionSet) -> Caller {
    let grants = Grants { gateway: actions, ..Grants::default() };
    Caller { principal: principal.into(), grants: Arc::new(grants), request: request() }
}

/// A caller with a built-in role on the gateway.
pub(in crate::management) fn holder(role: BuiltInRole) -> Caller {
    caller(&role.as_str().to_lowercase(), role.actions())
}

/// A caller with a built-in role in one workspace only.
pub(in crate::management) fn holder_in(workspace: &str, role: BuiltInRole) -> Caller {
    let workspaces = [(workspace.to_lowercase(), role.actions())].into();
    let grants = Grants { workspaces, ..Grants::default() };
    let principal = format!("{workspace}-{}", role.as_str().to_lowercase());
    Caller { principal: principal.into(), grants: Arc::new(grants), request: request() }
}

/// A service with one deployment that takes all traffic.
pub(super) fn spec(compute_type: ComputeType) -> ServiceSpec {
    let blue = DeploymentSpec {
        traffic: 100,
        replicas: vec!["http://127.0.0.1:5001".into()],
        ..DeploymentSpec::default()
    };
    let deployments = [(ServiceName::parse("blue").unwrap(), blue)].into();
    ServiceSpec { deployments, ..ServiceSpec::new(compute_type) }
}

/// The settings of a service of the configuration.
pub(super) fn declared(name: &str, spec: &ServiceSpec, auth: AuthSettings) -> Arc<ServiceSettings> {
    let replicas = Replicas::new(None, Arc::default());
    Arc::new(project(&ServiceName::parse(name).unwrap(), spec, auth, &replicas).unwrap())
}

impl Gateway {
    /// Makes service `name` in the declared workspace, as its owner.
    pub(super) fn serve(&self, name: &str, spec: ServiceSpec) -> Versioned<ServiceEntry> {
        self.serve_in(DECLARED, name, spec)
    }

    /// Makes service `name` in `workspace`, as its owner.
    pub(super) fn serve_in(&self, workspace: &str, name: &str, spec: ServiceSpec) -> Versioned<ServiceEntry> {
        let owner = holder(BuiltInRole::Owner);
        let keys = SuppliedKeys::default();
        let done = self.operations.put_service(&owner, workspace, name, spec, keys, Precondition::None);
        done.unwrap().0
    }

    /// Service `name` as the data plane was last told of it; `None`: it is not there.
    pub(super) fn served(&self, name: &str) -> Option<Arc<ServiceSettings>> {
        let applied = self.data_plane.applied.lock().unwrap();
        applied.iter().rev().find_map(|changes| {
            let upsert = changes.upsert.iter().find(|service| service.name.as_str() == name).cloned();
            let removed = changes.remove.iter().any(|removed| removed.as_str() == name);
            upsert.map(Some).or(removed.then_some(None))
        })?
    }

    /// How many rows `table` has.
    pub(super) fn rows(&self, table: Table) -> usize {
        let all = Range { table, prefix: &[], after: None, limit: usize::MAX, order: Order::Forwards };
        self.store.scan(&all).unwrap().len()
    }
}
