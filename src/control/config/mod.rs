//! The configuration: YAML in, a checked and typed [`Config`] or all that is wrong with it out.
//!
//! Text -> tree with places (`document`, overrides put in) -> serde shape (`raw`, by `decode`, which collects what does not
//! fit) -> checks and references (`resolve`) -> the typed settings of each module, once. Nothing behind this folder sees
//! YAML.

mod changes;
mod decode;
mod document;
mod dump;
mod problem;
mod raw;
mod refusal;
mod resolve;
mod schema;
mod secret;
mod settings;
mod source;
mod units;

#[cfg(test)]
mod tests;

pub use changes::needs_restart;
pub use problem::{Problem, Problems, Severity};
pub use schema::json_schema;
pub use settings::{
    AddressPolicySettings, Config, DrainSettings, KeyReference, LogFormat, LogSettings, ManagementSettings,
    ObserveSettings, RuntimeSettings, StoreSettings, UriTemplateSettings, Workspace,
};
pub use source::{Source, content_hash};
pub use units::parse_duration;

use problem::Report;
use raw::Raw;
use resolve::Resolver;

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Checked, every secret read, every default filled in.
    pub config: Config,
    /// What is worth telling about it; none of severity [`Severity::Error`].
    pub warnings: Vec<Problem>,
    /// SHA-256 in hex over the configuration file and every file that it names.
    pub hash: String,
    raw: Raw,
}

/// Reads, overrides and checks a configuration, with every file that it names. Blocking; opens no port and sends nothing.
///
/// # Errors
/// All that is wrong, at once.
pub fn load(source: &Source) -> Result<Loaded, Problems> {
    let name = source.name();
    let (text, mut files) = source.read().map_err(|error| {
        let message = format!("cannot be read ({error}); check the path");
        Problems(vec![Problem::of_file(&name, (0, 0), message)])
    })?;
    let mut report = Report::new(&name);
    let Some(mut root) = document::parse(&name, &text, source.variables(), &mut report) else {
        return Err(Problems(report.into_problems()));
    };
    let raw: Raw = decode::decode(&mut root, &mut report);
    let config = Resolver { report: &mut report, files: &mut files, variables: source.variables() }
        .resolve(&raw, root.id);
    if report.has_errors() {
        return Err(Problems(report.into_problems()));
    }
    let hash = files.hash();
    Ok(Loaded {
        config: Config { files: files.into_paths(), ..config },
        warnings: report.into_problems(),
        hash,
        raw,
    })
}
