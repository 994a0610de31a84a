//! `livenessProbeRequirements` as the probe of a deployment. The member itself stays in the bag, as it was sent.

use serde_json::{Map, Value};

use crate::catalog::{DeploymentSpec, HealthSpec, ProbeSpec};
use crate::management::Refusal;
use crate::management::azure_v1::fields::Fields;
use crate::management::azure_v1::kind::Kind;
use crate::upstream::ProbeSettings;

const MEMBER: &str = "livenessProbeRequirements";

/// What becomes of the probes when the bag is `new` and was `base`, whose place in the document is `place`.
pub enum Change {
    /// They stay as they are, whoever set them.
    Nothing,
    /// They are this; `None`: there are none any more.
    To(Option<ProbeSpec>),
}

/// Compares the bags.
///
/// # Errors
/// Names the field of the requirements that is wrong and what it may be.
pub fn change(place: &str, base: &Map<String, Value>, new: &Map<String, Value>) -> Result<Change, Refusal> {
    // What is there was accepted once.
    let before = read(place, base).unwrap_or_default();
    let after = read(place, new)?;
    Ok(if before == after { Change::Nothing } else { Change::To(after) })
}

/// Takes Azure's defaults out of `document` again, which tells them where the bag has nothing set: a patch of anything else
/// would ask for a probe otherwise.
pub fn forget_defaults(bag: &Map<String, Value>, document: &mut Map<String, Value>) {
    let was_set = read("", bag).is_ok_and(|before| before.is_some());
    if was_set || document.get(MEMBER) != Kind::Aks.defaults().get(MEMBER) {
        return;
    }
    match bag.get(MEMBER) {
        Some(unset) => document.insert(MEMBER.into(), unset.clone()),
        None => document.shift_remove(MEMBER),
    };
}

impl Change {
    /// Makes it in one deployment.
    pub fn apply(&self, deployment: &mut DeploymentSpec) {
        let Self::To(probe) = self else { return };
        let health = deployment.health.take().unwrap_or_default();
        let health = HealthSpec { probe: probe.clone(), ..health };
        deployment.health = (health != HealthSpec::default()).then_some(health);
    }
}

/// The probe that a bag asks for; `None`: none of its fields is set. Azure calls the path `/` of the container; here that is
/// `paths.health` of the deployment, which is `/` unless somebody has set it. Until `initialDelaySeconds` have passed
/// nothing is held against a container.
fn read(place: &str, bag: &Map<String, Value>) -> Result<Option<ProbeSpec>, Refusal> {
    let Some(requirements) = bag.get(MEMBER).filter(|value| !value.is_null()) else { return Ok(None) };
    let place = if place.is_empty() { MEMBER.to_owned() } else { format!("{place}/{MEMBER}") };
    let mut fields = Fields::of(place, requirements.clone())?;
    let threshold = u64::from(*ProbeSettings::THRESHOLD.start())..=u64::from(*ProbeSettings::THRESHOLD.end());
    let mut count = |name: &str| -> Result<Option<u32>, Refusal> {
        let number = fields.number(name, threshold.clone())?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    };
    let (unhealthy, healthy) = (count("failureThreshold")?, count("successThreshold")?);
    let mut millis = |name: &str, least: u64, most: u64| -> Result<Option<u64>, Refusal> {
        Ok(fields.number(name, least..=most)?.map(|seconds| seconds * 1_000))
    };
    let probe = ProbeSpec {
        interval_ms: millis("periodSeconds", 1, ProbeSettings::INTERVAL.end().as_secs())?,
        timeout_ms: millis("timeoutSeconds", 1, ProbeSettings::TIMEOUT.end().as_secs())?,
        startup_ms: millis("initialDelaySeconds", 0, ProbeSettings::STARTUP.end().as_secs())?,
        healthy,
        unhealthy,
        ..ProbeSpec::default()
    };
    Ok((probe != ProbeSpec::default()).then_some(probe))
}
