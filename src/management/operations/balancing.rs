//! How replicas share calls: from what the owner asks for to what is served, and back.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

use super::project::{in_millis, within};
use crate::catalog::{BalancingSpec, DeploymentSpec, EjectionSpec};
use crate::management::Refusal;
use crate::upstream::{Balancing, BalancingSettings, EjectionSettings};

/// The settings of the deployment that is at `place` in its service.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for the first field that cannot be served.
pub(super) fn settings(place: &str, spec: &DeploymentSpec) -> Result<BalancingSettings, Refusal> {
    let slow_start = spec.slow_start_ms.unwrap_or_default();
    let bounds = Duration::ZERO..=BalancingSettings::MOST_SLOW_START;
    Ok(BalancingSettings {
        policy: policy(place, &spec.balancing)?,
        slow_start: wait(&format!("{place}.slow_start_ms"), slow_start, &bounds)?,
        ejection: ejection(place, &spec.ejection)?,
    })
}

fn policy(place: &str, spec: &BalancingSpec) -> Result<Balancing, Refusal> {
    match spec {
        BalancingSpec::LeastBusy => Ok(Balancing::LeastBusy),
        BalancingSpec::RoundRobin => Ok(Balancing::RoundRobin),
        BalancingSpec::Hash(name) => match name.parse::<HeaderName>() {
            Ok(name) => Ok(Balancing::Hash(name)),
            Err(_) => Err(Refusal::invalid(
                format!("{place}.balancing.hash"),
                format!("'{name}' is no header name; correct it"),
            )),
        },
    }
}

fn ejection(place: &str, spec: &EjectionSpec) -> Result<Option<EjectionSettings>, Refusal> {
    let field = |name: &str| format!("{place}.ejection.{name}");
    let mut settings = EjectionSettings::default();
    if let Some(failures) = spec.failures {
        settings.failures = within(&field("failures"), failures, &EjectionSettings::FAILURES)?;
    }
    if let Some(millis) = spec.time_ms {
        settings.time = wait(&field("time_ms"), millis, &EjectionSettings::TIMES)?;
    }
    settings.most_time = settings.most_time.max(settings.time);
    if let Some(millis) = spec.most_time_ms {
        let bounds = settings.time..=*EjectionSettings::TIMES.end();
        settings.most_time = wait(&field("most_time_ms"), millis, &bounds)?;
    }
    if let Some(percent) = spec.keep {
        let percent = within(&field("keep"), percent, &EjectionSettings::KEEP)?;
        settings.keep = u8::try_from(percent).unwrap_or(100);
    }
    Ok(spec.enabled.then_some(settings))
}

fn wait(field: &str, millis: u64, bounds: &RangeInclusive<Duration>) -> Result<Duration, Refusal> {
    let allowed = in_millis(bounds.start())..=in_millis(bounds.end());
    within(field, millis, &allowed).map(Duration::from_millis)
}

/// What `spec` must say to get these settings; what is the default is left out.
pub(super) fn ask_for(spec: &mut DeploymentSpec, settings: &BalancingSettings) {
    spec.balancing = match &settings.policy {
        Balancing::LeastBusy => BalancingSpec::LeastBusy,
        Balancing::RoundRobin => BalancingSpec::RoundRobin,
        Balancing::Hash(name) => BalancingSpec::Hash(name.to_string()),
    };
    spec.slow_start_ms = Some(in_millis(&settings.slow_start)).filter(|millis| *millis > 0);
    spec.ejection = match &settings.ejection {
        None => EjectionSpec { enabled: false, ..EjectionSpec::default() },
        Some(own) if *own == EjectionSettings::default() => EjectionSpec::default(),
        Some(own) => EjectionSpec {
            enabled: true,
            failures: Some(own.failures),
            time_ms: Some(in_millis(&own.time)),
            most_time_ms: Some(in_millis(&own.most_time)),
            keep: Some(own.keep.into()),
        },
    };
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "literals are handed over")]
    fn asked(spec: Value) -> Result<BalancingSettings, String> {
        let spec: DeploymentSpec = serde_json::from_value(spec.clone()).unwrap();
        let settings = settings("deployments.blue", &spec).map_err(|refusal| refusal.target.unwrap())?;
        let mut back = DeploymentSpec::default();
        ask_for(&mut back, &settings);
        assert_eq!(self::settings("", &back).unwrap(), settings, "{spec:?}");
        Ok(settings)
    }

    #[test]
    fn what_is_asked_for_is_served_and_told_back() {
        assert_eq!(asked(json!({})), Ok(BalancingSettings::default()));
        assert_eq!(asked(json!({"ejection": {"enabled": false}})).unwrap().ejection, None);
        let settings = asked(json!({
            "balancing": {"hash": "X-User"},
            "slow_start_ms": 30_000,
            "ejection": {"failures": 2, "time_ms": 600_000, "keep": 0},
        }));
        let settings = settings.unwrap();
        assert_eq!(settings.policy, Balancing::Hash(HeaderName::from_static("x-user")));
        assert_eq!(settings.slow_start, Duration::from_secs(30));
        let minutes = Duration::from_secs(600);
        let expected = EjectionSettings { failures: 2, time: minutes, most_time: minutes, keep: 0 };
        assert_eq!(settings.ejection, Some(expected));
        assert_eq!(asked(json!({"balancing": "round_robin"})).unwrap().policy, Balancing::RoundRobin);
    }

    #[test]
    fn what_is_out_of_bounds_is_named_by_its_field() {
        for (spec, field) in [
            (json!({"balancing": {"hash": "no name"}}), "balancing.hash"),
            (json!({"slow_start_ms": 3_600_001}), "slow_start_ms"),
            (json!({"ejection": {"failures": 0}}), "ejection.failures"),
            (json!({"ejection": {"time_ms": 0}}), "ejection.time_ms"),
            (json!({"ejection": {"time_ms": 1000, "most_time_ms": 999}}), "ejection.most_time_ms"),
            (json!({"ejection": {"keep": 101}}), "ejection.keep"),
        ] {
            assert_eq!(asked(spec), Err(format!("deployments.blue.{field}")));
        }
    }
}
