//! The configuration: YAML in, a checked and typed [`Config`] or all that is wrong with it out.
//!
//! Raw (`raw.rs`, the serde shape with positions) -> resolve (`resolve.rs`, checks and references) -> the typed settings
//! of each module, once. Nothing behind this folder sees YAML.

mod settings;

pub use settings::{
    Config, CorsSettings, DeploymentSettings, DrainSettings, EndpointPaths, LogFormat, LogSettings,
    ObserveSettings, RuntimeSettings, ServiceSettings, Workspace,
};

mod stub;
pub use stub::*;
