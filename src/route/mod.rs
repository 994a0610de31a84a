//! Where a request goes: one canonical path, then host or path to a service, then a deployment by its weight.

mod host;
mod paths;
mod split;
mod table;
mod target;

pub use host::host_problem;
pub use paths::{OpenPaths, grpc_problem, score_path_problem};
pub use split::Split;
pub use table::{Route, RouteTable, Routed};
pub use target::{Host, Target};

/// What every service's path form begins with; the service's name follows.
pub const SERVICE_PREFIX: &str = "/api/v1/service/";
