//! The control plane: reads the configuration, builds snapshots of it, publishes them, and shows how that went.

mod build;
pub mod config;
mod observe;
mod publish;
mod reload;
mod watch;

pub use observe::{Observe, StoreHealth, bind as bind_observe};
pub use publish::{PublishError, Publisher};
pub use reload::{Outcome, Reloader, Status};
pub use watch::watch;
