//! What a service allows: sizes, waits and how many calls at once.

mod admission;
mod settings;

pub use admission::{Admission, Permit};
pub use settings::{AdmissionSettings, DeploymentLimits, Limits};
