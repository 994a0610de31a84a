//! Samples of inputs and outputs: from what the owner asks for to what is served, and back.

use super::Operations;
use super::project::within;
use crate::catalog::{DataCollectionSpec, ServiceSpec};
use crate::management::Refusal;
use crate::proxy::CollectSettings;

/// The settings of the service of `spec`; `None`: nothing is to be collected.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for the first field that cannot be served.
pub(super) fn settings(spec: &ServiceSpec) -> Result<Option<CollectSettings>, Refusal> {
    match &spec.data_collection {
        Some(own) => of(own).map(Some),
        None => Ok(is_asked_by_azure(spec).then(CollectSettings::default)),
    }
}

/// Whether a client of SDK v1 has said `collect_model_data`. That is no reason to refuse it where nothing may be collected:
/// Azure takes it wherever it goes.
fn is_asked_by_azure(spec: &ServiceSpec) -> bool {
    let asked = spec.azure.get("dataCollection").and_then(|asked| asked.get("storageEnabled"));
    asked.is_some_and(|asked| *asked == true)
}

fn of(spec: &DataCollectionSpec) -> Result<CollectSettings, Refusal> {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "literals are handed over")]
    fn asked(more: Value) -> Result<Option<CollectSettings>, String> {
        let mut spec = json!({ "compute_type": "AKS" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings(&serde_json::from_value(spec).unwrap()).map_err(|refusal| refusal.target.unwrap())
    }

    #[test]
    fn what_is_asked_for_is_served() {
        assert_eq!(asked(json!({})), Ok(None));
        assert_eq!(asked(json!({ "data_collection": {} })), Ok(Some(CollectSettings::default())));
        let some = json!({ "data_collection": { "sample": 0.5, "body_bytes": 7, "inputs": false } });
        let expected = CollectSettings { sample: 0.5, body_bytes: 7, inputs: false, outputs: true };
        assert_eq!(asked(some), Ok(Some(expected)));
    }

    #[test]
    fn azures_own_word_stands_where_there_is_no_other() {
        let azure = |enabled: bool| json!({ "dataCollection": { "storageEnabled": enabled } });
        assert_eq!(asked(json!({ "azure": azure(true) })), Ok(Some(CollectSettings::default())));
        assert_eq!(asked(json!({ "azure": azure(false) })), Ok(None));
        let both = json!({ "azure": azure(true), "data_collection": { "sample": 0.0 } });
        assert_eq!(asked(both).unwrap().unwrap().sample, 0.0);
    }

    #[test]
    fn what_cannot_be_served_is_named_by_its_field() {
        for (own, field) in [
            (json!({ "sample": -0.1 }), "data_collection.sample"),
            (json!({ "body_bytes": 0 }), "data_collection.body_bytes"),
            (json!({ "body_bytes": (1 << 20) + 1 }), "data_collection.body_bytes"),
            (json!({ "inputs": false, "outputs": false }), "data_collection"),
        ] {
            assert_eq!(asked(json!({ "data_collection": own })), Err(field.to_owned()));
        }
    }
}
