//! The domain, pure: what a service is, which compute types there are and what each one implies.
//!
//! Nothing here does I/O or names another module of the crate.

mod balancing;
mod collection;
mod compute;
mod delivery;
mod endpoint;
mod health;
mod name;
mod profile;
mod role;
mod service;
mod workspace;

pub use balancing::{BalancingSpec, EjectionSpec};
pub use collection::DataCollectionSpec;
pub use compute::{AuthMode, ComputeType, StatusMapping};
pub use delivery::{MirrorSpec, Replay, RetrySpec, UnknownDeployment};
pub use endpoint::{Endpoint, Methods};
pub use health::{HealthSpec, NamesSpec, ProbeSpec, ReadinessSpec};
pub use name::{InvalidName, ServiceName};
pub use profile::{OpenPattern, Profile};
pub use role::{Action, ActionSet, BuiltInRole};
pub use service::{
    AtExpiry, DeploymentSpec, KeySlot, LimitsSpec, PathsSpec, Protocol, RateSpec, ServiceEntry, ServiceSpec,
};
pub use workspace::{
    CustomRole, Grantee, Origin, Provenance, RoleAssignment, Scope, WorkspaceEntry, WorkspaceSpec,
};
