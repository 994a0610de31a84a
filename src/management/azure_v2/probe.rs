//! `readinessProbe` and `livenessProbe` of an online deployment as its probe. The members themselves stay in the bag.

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::catalog::{DeploymentSpec, HealthSpec, ProbeSpec};
use crate::management::Refusal;
use crate::upstream::ProbeSettings;

/// Which of them says whether a container gets calls, the first before the others: readiness is that. Liveness, which makes
/// Azure restart a container, is all that some clients set.
const MEMBERS: [&str; 2] = ["readinessProbe", "livenessProbe"];

// What Azure gives a probe that does not say (documentation of `ProbeSettings`); the period and the timeout are the
// gateway's own defaults as well.
const FAILURE_THRESHOLD: u32 = 30;
const INITIAL_DELAY_MS: u64 = 10_000;

/// The probe that `properties` of a deployment ask for; `None`: they ask for none. Until `initialDelay` has passed nothing is
/// held against a container.
///
/// # Errors
/// Names the member that is wrong and what it may be.
pub(super) fn read(properties: &Map<String, Value>) -> Result<Option<ProbeSpec>, Refusal> {
    for member in MEMBERS {
        let Some(value) = properties.get(member).filter(|value| !value.is_null()) else { continue };
        let mut fields = Fields::of(format!("properties.{member}"), value.clone())?;
        let probe = ProbeSpec {
            interval_ms: fields.duration("period", &ProbeSettings::INTERVAL)?,
            timeout_ms: fields.duration("timeout", &ProbeSettings::TIMEOUT)?,
            startup_ms: fields.duration("initialDelay", &ProbeSettings::STARTUP)?.or(Some(INITIAL_DELAY_MS)),
            healthy: fields.count("successThreshold", &ProbeSettings::THRESHOLD)?,
            unhealthy: fields
                .count("failureThreshold", &ProbeSettings::THRESHOLD)?
                .or(Some(FAILURE_THRESHOLD)),
            ..ProbeSpec::default()
        };
        return Ok(Some(probe));
    }
    Ok(None)
}

/// Gives `deployment` the probe of a PUT. One that some other API has set stays where this one has never said anything.
pub(super) fn apply(probe: Option<&ProbeSpec>, before: Option<&ProbeSpec>, deployment: &mut DeploymentSpec) {
    if probe == before {
        return;
    }
    let health = deployment.health.take().unwrap_or_default();
    let health = HealthSpec { probe: probe.cloned(), ..health };
    deployment.health = (health != HealthSpec::default()).then_some(health);
}
