//! The configuration: YAML in, a checked and typed [`Config`] or all that is wrong with it out.
//!
//! Raw (`raw.rs`, the serde shape with positions) -> resolve (`resolve.rs`, checks and references) -> the typed settings
//! of each module, once. Nothing behind this folder sees YAML.

mod settings;

pub use settings::{
    Config, CorsSettings, DeploymentSettings, DrainSettings, EndpointPaths, LogFormat, LogSettings,
    ObserveSettings, RuntimeSettings, ServiceSettings, Workspace,
};

/// stub
#[derive(Clone)]
pub struct Source;
/// stub
pub struct Loaded {
    /// c
    pub config: Config,
    /// w
    pub warnings: Vec<String>,
    /// h
    pub hash: String,
}
impl Source {
    /// n
    pub fn new(_: &std::path::Path) -> Self {
        Self
    }
}
/// stub
pub fn load(_: &Source) -> Result<Loaded, String> {
    Err("stub".into())
}
/// stub
pub fn needs_restart(_: &Config, _: &Config) -> Vec<String> {
    vec![]
}
/// stub
pub fn parse_duration(_: &str) -> Result<std::time::Duration, String> {
    Err("stub".into())
}
