//! What a service allows: sizes, waits, how many calls at once, and how many in a time.

mod admission;
mod drain;
mod places;
mod queue;
mod refusal;
mod settings;

pub use admission::{Admission, Load, Permit};
pub use queue::PrincipalId;
pub use settings::{AdmissionSettings, ChosenBy, DeploymentLimits, Limits, QueueLength};
