//! The control plane: reads the configuration, builds snapshots of it, publishes them, and shows how that went.

pub mod config;
