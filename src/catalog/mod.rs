//! The domain, pure: what a service is, which compute types there are and what each one implies.
//!
//! Nothing here does I/O or names another module of the crate.

mod compute;
mod endpoint;
mod name;
mod profile;
mod role;
mod service;
mod split;
mod workspace;

pub use compute::{AuthMode, ComputeType, StatusMapping};
pub use endpoint::{Endpoint, Methods};
pub use name::{InvalidName, ServiceName};
pub use profile::{OpenPattern, Profile};
pub use role::{Action, ActionSet, BuiltInRole};
pub use service::{
    AtExpiry, DeploymentSpec, KeySlot, LimitsSpec, PathsSpec, RateSpec, ServiceEntry, ServiceSpec,
};
pub use split::{MirrorSpec, UnknownDeployment};
pub use workspace::{
    CustomRole, Grantee, Origin, Provenance, RoleAssignment, Scope, WorkspaceEntry, WorkspaceSpec,
};
