//! The domain, pure: what a service is, which compute types there are and what each one implies.
//!
//! Nothing here does I/O or names another module of the crate.

mod compute;
mod name;

pub use compute::{AuthMode, ComputeType, StatusMapping};
pub use name::{InvalidName, ServiceName};

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
