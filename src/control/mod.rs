//! The control plane: reads the configuration, builds snapshots of it, publishes them, and shows how that went.

mod build;
pub mod config;
mod history;
mod keys;
mod limits;
mod names;
mod observe;
mod probe;
mod publish;
mod reload;
mod topology;
mod watch;

pub use history::keep_history;
pub use keys::read_snapshot;
pub use limits::read_limits;
pub use names::{LookUp, Resolver, SystemResolver, run as resolve_names};
pub use observe::{Observe, StoreHealth, bind as bind_observe};
pub use probe::run as probe_replicas;
pub use publish::{PublishError, Publisher, show_certificates};
pub use reload::{Outcome, Reloader, Status};
pub use watch::watch;
