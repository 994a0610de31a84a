//! The upstream leg: replicas, the connections to them, and one attempt to have a request answered.

mod settings;

pub use settings::{Deadlines, Origin, ReplicaProtocol, ReplicaSettings, ReplicaTls};
