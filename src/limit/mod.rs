//! What a service allows: sizes, waits and how many calls at once.

mod settings;

pub use settings::{AdmissionSettings, Limits};
