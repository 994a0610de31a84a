//! What a service is built from (placeholder of the seam).

use std::sync::Arc;

use crate::catalog::ServiceName;

/// Placeholder.
#[derive(Debug)]
pub struct ServiceSettings;

/// Placeholder.
#[derive(Clone, Debug, Default)]
pub struct ServiceChanges {
    /// To write.
    pub upsert: Vec<Arc<ServiceSettings>>,
    /// To remove.
    pub remove: Vec<ServiceName>,
}
