//! What the gateway tells about itself: one record per call, metrics, and where they go.

mod encode;
pub mod record;
mod settings;

pub use settings::{Privacy, TelemetrySettings};
