//! The data plane as the management plane sees it.

use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog::ServiceName;
use crate::telemetry::metrics::DestinationStats;

/// The data plane as the management plane sees it.
pub trait DataPlane: Send + Sync {
    /// Puts changed services into effect; returns when every new request sees them.
    ///
    /// # Errors
    /// What cannot be built, in words for the log.
    fn apply(&self, changes: crate::proxy::ServiceChanges) -> Result<(), String>;

    /// When the primary and the secondary key of `service` last let a call in.
    fn key_use(&self, service: &ServiceName) -> [Option<SystemTime>; 2];

    /// The services of the configuration that runs.
    fn declared(&self) -> Arc<Vec<Arc<crate::proxy::ServiceSettings>>>;

    /// What became of the records of all calls, by where they go.
    fn record_stats(&self) -> Vec<DestinationStats>;
}
