//! What the management plane is told by the configuration.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

use crate::catalog::WorkspaceSpec;
use crate::management::Credentials;
use crate::telemetry::history::History;
use crate::telemetry::reader::RecordLog;
use crate::upstream::AddressPolicy;

/// What the management plane is told by the configuration.
#[derive(Clone, Debug)]
pub struct OperationsSettings {
    /// The workspace of the configuration; declared services are in it.
    pub workspace: (String, WorkspaceSpec),
    /// Base of scoring URIs.
    pub public_url: url::Url,
    /// Scoring URIs by compute type, with `{service}`; `None`: the path form under `public_url`.
    pub uri_templates: UriTemplates,
    /// Replica URL of a service that names none, with `{service}` and `{namespace}`.
    pub replica_template: Option<String>,
    /// Where replicas of managed services may be.
    pub address_policy: Arc<AddressPolicy>,
    /// Lifetime of scoring tokens of services that set none.
    pub token_lifetime: std::time::Duration,
    /// Clock difference allowed when tokens are judged.
    pub token_leeway: std::time::Duration,
    /// How long events stay in the activity log.
    pub activity_retention: std::time::Duration,
    /// A management token of the configuration, for unattended installs: stands for the principal `bootstrap`, an Owner
    /// of the gateway. 20 to 512 visible ASCII characters.
    pub bootstrap_token: Option<SecretString>,
    /// Outside issuers whose tokens are taken for callers of the API.
    pub credentials: Arc<Credentials>,
    /// Where records of calls are read back from; `None`: they go to no file.
    pub records: Option<RecordLog>,
    /// What is known of the last 24 hours of each service.
    pub history: Arc<History>,
    /// Whether inputs and outputs of calls may be collected.
    pub collects: bool,
    /// Where copies of the store are put; `None`: the store is not in a folder and has its own way to be copied.
    pub backup_folder: Option<PathBuf>,
}

/// Scoring URIs by compute type; `{service}` stands for the name.
#[derive(Clone, Debug, Default)]
pub struct UriTemplates {
    /// Of ACI services.
    pub aci: Option<String>,
    /// Of AKS services.
    pub aks: Option<String>,
    /// Of Managed services.
    pub managed: Option<String>,
}
