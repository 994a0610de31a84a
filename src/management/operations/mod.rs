//! What the management plane can do: the one mechanism behind all faces. Every method blocks on the store.
//!
//! Each write authorises, logs its start, checks its input, changes the store in one batch together with the event of its
//! end, and hands the change to the data plane, in this order; a refused attempt is in the log too. Reads authorise and
//! leave no event.

mod activity;
mod answers;
mod balancing;
mod catalogue;
mod collection;
mod data_plane;
mod declared;
#[cfg(test)]
pub(in crate::management) mod fixtures;
mod generate;
mod health;
mod hex;
mod keyring;
mod keys;
mod metadata;
mod metrics;
mod page;
mod paths;
mod place;
mod principals;
mod project;
mod published;
mod records;
mod replicas;
mod request;
mod resource;
mod roles;
mod rows;
mod services;
mod settings;
mod signing;
mod start;
mod store;
mod tokens;
mod uris;
mod view;
mod workspaces;
mod write;

use std::sync::{Arc, Mutex};

use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::store::{Store, seal::Sealer};

use super::Refusal;

pub use activity::{EventOutlet, verify as verify_log};
pub use data_plane::DataPlane;
pub use metrics::{MetricsAnswer, MetricsQuery};
pub use request::{ActivityFilter, KeyChange, Page, Precondition, ServiceFilter, SuppliedKeys, TokenRule};
pub use settings::{OperationsSettings, UriTemplates};
pub use view::{
    ActivityEvent, ActivityStatus, ActivityVerdict, KeyPairView, KeyView, ManagementTokenView,
    OperationStatus, PageOf, ScoringToken, ServiceUris, Versioned, Written,
};

/// All operations of the management plane.
pub struct Operations {
    store: Arc<dyn Store>,
    sealer: Arc<dyn Sealer>,
    published: published::Published,
    replicas: replicas::Replicas,
    signing_keys: signing::SigningKeys,
    answers: answers::Sweep,
    persisted: keys::PersistedUse,
    settings: OperationsSettings,
    started_at: OffsetDateTime,
    configured: principals::ConfiguredToken,
    roles: roles::Roles,
    writes: write::Writes,
    /// Told when an event is in the log.
    logged: Notify,
    /// Held while events are handed out.
    handing_out: Mutex<()>,
}

impl Operations {
    /// Takes over a store: reads what is in it and hands all its services to the data plane.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start(
        store: Arc<dyn Store>,
        sealer: Arc<dyn Sealer>,
        data_plane: Arc<dyn DataPlane>,
        mut settings: OperationsSettings,
    ) -> Result<Self, Refusal> {
        let configured = principals::ConfiguredToken::take(&mut settings)?;
        let roles = roles::Roles::load(&*store)?;
        let operations = Self {
            store,
            sealer,
            published: published::Published::new(data_plane),
            replicas: replicas::Replicas::new(
                settings.replica_template.clone(),
                Arc::clone(&settings.address_policy),
            ),
            signing_keys: signing::SigningKeys::default(),
            answers: answers::Sweep::default(),
            persisted: keys::PersistedUse::default(),
            settings,
            started_at: OffsetDateTime::now_utc(),
            configured,
            roles,
            writes: write::Writes::default(),
            logged: Notify::new(),
            handing_out: Mutex::default(),
        };
        operations.serve_what_is_stored()?;
        Ok(operations)
    }
}
