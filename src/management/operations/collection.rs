//! Samples of inputs and outputs: from what the owner asks for to what is served, and back.

use super::Operations;
use super::project::within;
use crate::catalog::{DataCollectionSpec, ServiceSpec};
use crate::management::Refusal;
use crate::proxy::CollectSettings;

/// The settings of `spec`.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for the first field that cannot be served.
pub(super) fn settings(spec: &DataCollectionSpec) -> Result<CollectSettings, Refusal> {
    let default = CollectSettings::default();
    let sample = spec.sample.unwrap_or(default.sample);
    let size = spec.body_bytes.unwrap_or(default.body_bytes as u64);
    let size = within("data_collection.body_bytes", size, &CollectSettings::BODY_BYTES)?;
    let settings = CollectSettings {
        sample: within("data_collection.sample", sample, &CollectSettings::SAMPLE)?,
        body_bytes: usize::try_from(size).unwrap_or(usize::MAX),
        inputs: spec.inputs.unwrap_or(default.inputs),
        outputs: spec.outputs.unwrap_or(default.outputs),
    };
    if !settings.inputs && !settings.outputs {
        return Err(Refusal::invalid("data_collection", CollectSettings::NOTHING));
    }
    Ok(settings)
}

/// What `settings` were made from.
pub(super) const fn spec(settings: &CollectSettings) -> DataCollectionSpec {
    DataCollectionSpec {
        sample: Some(settings.sample),
        body_bytes: Some(settings.body_bytes as u64),
        inputs: Some(settings.inputs),
        outputs: Some(settings.outputs),
    }
}

impl Operations {
    /// Whether this gateway keeps what `spec` asks for: that is for whoever writes its configuration to say.
    ///
    /// # Errors
    /// [`Cause::Invalid`](crate::management::Cause::Invalid) if it does not.
    pub(super) fn check_collection(&self, spec: &ServiceSpec) -> Result<(), Refusal> {
        if spec.data_collection.is_none() || self.settings.collects {
            return Ok(());
        }
        Err(Refusal::invalid(
            "data_collection",
            "the configuration of this gateway has no telemetry.data_collection, so that inputs and outputs are not kept; leave it out",
        ))
    }
}
