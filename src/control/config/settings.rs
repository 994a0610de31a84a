//! The checked configuration: what every other module is built from.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use crate::auth::{IssuerSettings, OutsideSettings};
use crate::listener::ListenerSettings;
use crate::proxy::ServiceSettings;
use crate::telemetry::TelemetrySettings;
use crate::tls::ServerTlsSettings;

/// A whole configuration, checked, with every secret read and every default filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// Azure-style identity of what is served here.
    pub workspace: Workspace,
    /// Base of the scoring URIs given out; `None`: the first listener's address.
    pub public_url: Option<url::Url>,
    /// Data-plane threads.
    pub runtime: RuntimeSettings,
    /// Data-plane listeners, at least one, names distinct.
    pub listeners: Vec<ListenerSettings>,
    /// Metrics and health; `None`: not served.
    pub observe: Option<ObserveSettings>,
    /// The gateway's own token issuer.
    pub tokens: Option<Arc<IssuerSettings>>,
    /// Services, names and hosts distinct.
    pub services: Vec<Arc<ServiceSettings>>,
    /// Records and privacy.
    pub telemetry: TelemetrySettings,
    /// How the process ends.
    pub drain: DrainSettings,
    /// The process's own log.
    pub log: LogSettings,
    /// The management plane; `None`: there is none.
    pub management: Option<ManagementSettings>,
    /// Scoring URIs that the management plane gives out.
    pub uri_templates: UriTemplateSettings,
    /// Replica URL of services that name none, with `{service}` and `{namespace}`.
    pub replica_template: Option<String>,
    /// Every file that this configuration was read from (itself, secrets, certificates, key sets): what to watch.
    pub files: Vec<PathBuf>,
}

/// Azure-style identity of what is served here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Subscription id.
    pub subscription: String,
    /// Resource group.
    pub resource_group: String,
    /// Workspace name.
    pub name: String,
    /// Azure location.
    pub location: String,
}

/// Data-plane threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Worker threads, at least 1; `auto` is the number of CPUs that the process may use.
    pub workers: usize,
}

/// The port for metrics and health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObserveSettings {
    /// Plain HTTP.
    pub address: SocketAddr,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// How long calls are still taken after readiness is gone, so that load balancers notice.
    pub delay: Duration,
    /// How long calls in flight may go on after that; the rest is cut and named.
    pub timeout: Duration,
}

/// The process's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Shape of a line.
    pub format: LogFormat,
    /// A level, or a filter as `tracing_subscriber::EnvFilter` reads it.
    pub level: String,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// The management plane.
#[derive(Clone, Debug)]
pub struct ManagementSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificates.
    pub tls: ServerTlsSettings,
    /// A management token with the role Owner.
    pub bootstrap_token: Option<SecretString>,
    /// Outside issuers whose tokens are taken.
    pub issuers: Vec<OutsideSettings>,
    /// Where replicas may be.
    pub address_policy: AddressPolicySettings,
    /// How long events stay in the activity log.
    pub activity_retention: Duration,
    /// Lifetime of scoring tokens of services that set none.
    pub token_lifetime: Duration,
    /// Where everything is kept.
    pub store: StoreSettings,
}

/// Where the replicas of services made through the management plane may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicySettings {
    /// Nowhere else; empty: everywhere.
    pub allow: Vec<IpNet>,
    /// Not here, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Its folder.
    pub path: PathBuf,
    /// Where the key is that wraps the keys of its secrets; `None`: in a file beside the store.
    pub key: Option<KeyReference>,
}

/// Where a key is that is read by the one who uses it, since it may have to be made first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyReference {
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// A program with its arguments, which prints it.
    Exec(Vec<String>),
}

impl fmt::Display for KeyReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            // Arguments may hold a token.
            Self::Exec(command) => write!(f, "exec:{}", command.first().map_or("", String::as_str)),
        }
    }
}

/// Scoring URIs by compute type; `{service}` stands for the name. `None`: the path form under `public_url`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UriTemplateSettings {
    /// Of ACI services.
    pub aci: Option<String>,
    /// Of AKS services.
    pub aks: Option<String>,
    /// Of Managed services.
    pub managed: Option<String>,
}
