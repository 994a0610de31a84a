//! The domain, pure: what a service is, which compute types there are and what each one implies.
//!
//! Nothing here does I/O or names another module of the crate.

mod compute;
mod name;
mod role;
mod service;
mod split;
mod workspace;

pub use compute::{AuthMode, ComputeType, StatusMapping};
pub use name::{InvalidName, ServiceName};
pub use role::{Action, ActionSet, BuiltInRole};
pub use service::{AtExpiry, DeploymentSpec, KeySlot, LimitsSpec, PathsSpec, ServiceEntry, ServiceSpec};
pub use split::{MirrorSpec, UnknownDeployment};
pub use workspace::{
    CustomRole, Grantee, Origin, Provenance, RoleAssignment, Scope, WorkspaceEntry, WorkspaceSpec,
};

/// What a caller wants of a service; each maps to one path of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `score`: the model itself.
    Score,
    /// `swagger.json`: its description.
    Swagger,
    /// The service's root: is the container there?
    Health,
}
