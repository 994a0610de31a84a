//! What the gateway tells about itself: one record per call, metrics, and where they go.

pub mod record;
mod settings;

pub use settings::{Privacy, TelemetrySettings};
