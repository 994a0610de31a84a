//! What a service allows: sizes, waits, how many calls at once, and how many in a time.

mod admission;
mod drain;
mod places;
mod queue;
mod rate;
mod rates;
mod refusal;
mod settings;

pub use admission::{Admission, Load, Permit};
pub use queue::PrincipalId;
pub use rate::RateSettings;
pub use rates::{PrincipalCount, RateLimits, Rates};
pub use settings::{AdmissionSettings, ChosenBy, DeploymentLimits, Limits, QueueLength};
