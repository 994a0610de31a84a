//! How calls are tried again, which deployment they go to beside the traffic shares, and which gets a copy.

use http::StatusCode;

use super::{at_most, within};
use crate::catalog::{MirrorSpec, Replay, RetrySpec, ServiceSpec};
use crate::management::Refusal;
use crate::proxy::{MirrorSettings, SplitSettings};
use crate::upstream::RetrySettings;

/// Most `statuses`: there are no more.
const MAX_STATUSES: usize = 100;

pub(super) fn retry(spec: Option<&RetrySpec>) -> Result<RetrySettings, Refusal> {
    let mut settings = RetrySettings::default();
    let Some(spec) = spec else { return Ok(settings) };
    settings.replay = spec.replay;
    if let Some(attempts) = spec.attempts {
        settings.attempts = within("retry.attempts", attempts, &RetrySettings::ATTEMPTS)?;
    }
    if let Some(budget) = spec.budget {
        settings.budget = within("retry.budget", budget, &RetrySettings::BUDGET)?;
    }
    if let Some(size) = spec.body_bytes {
        settings.body_bytes = bytes(within("retry.body_bytes", size, &RetrySettings::BODY_BYTES)?);
    }
    at_most("retry.statuses", spec.statuses.len(), MAX_STATUSES)?;
    for (i, status) in spec.statuses.iter().enumerate() {
        let status = within(&format!("retry.statuses[{i}]"), *status, &RetrySettings::STATUSES)?;
        settings.statuses.extend(StatusCode::from_u16(status));
    }
    if !settings.statuses.is_empty() && settings.replay == Replay::Never {
        return Err(Refusal::invalid(
            "retry.statuses",
            "a call that was answered has been run, and retry.replay says never; set replay, or leave statuses out",
        ));
    }
    Ok(settings)
}

pub(super) fn split(spec: &ServiceSpec) -> Result<SplitSettings, Refusal> {
    let sticky = spec.sticky_header.as_deref().map(SplitSettings::sticky_header).transpose();
    Ok(SplitSettings {
        unknown: spec.unknown_deployment,
        sticky: sticky.map_err(|problem| Refusal::invalid("sticky_header", problem))?,
        mirror: spec.mirror.as_ref().map(|mirror| self::mirror(spec, mirror)).transpose()?,
    })
}

fn mirror(service: &ServiceSpec, spec: &MirrorSpec) -> Result<MirrorSettings, Refusal> {
    let deployment = &spec.deployment;
    if !service.deployments.contains_key(deployment) {
        let problem =
            format!("the service has no deployment '{deployment}'; name one that it has, or take mirror out");
        return Err(Refusal::invalid("mirror.deployment", problem));
    }
    let size = spec.body_bytes.unwrap_or(MirrorSettings::DEFAULT_BODY_BYTES);
    let concurrent = spec.concurrent.unwrap_or(MirrorSettings::DEFAULT_CONCURRENT);
    Ok(MirrorSettings {
        deployment: deployment.clone(),
        percent: within("mirror.percent", spec.percent, &MirrorSettings::PERCENT)?,
        body_bytes: bytes(within("mirror.body_bytes", size, &MirrorSettings::BODY_BYTES)?),
        concurrent: within("mirror.concurrent", concurrent, &MirrorSettings::CONCURRENT)?,
    })
}

/// A size that is known to be small.
fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::auth::AuthSettings;
    use crate::catalog::{ServiceName, UnknownDeployment};
    use crate::management::operations::project::project;
    use crate::management::operations::replicas::Replicas;
    use crate::proxy::ServiceSettings;

    fn with(member: &str, value: Value) -> Result<ServiceSettings, Refusal> {
        let mut spec = json!({
            "compute_type": "AKS",
            "deployments": {
                "blue": {"traffic": 100, "replicas": ["http://127.0.0.1:5001"]},
                "green": {"replicas": ["http://127.0.0.1:5002"]},
            },
        });
        spec[member] = value;
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        project(
            &ServiceName::parse("iris").unwrap(),
            &spec,
            AuthSettings::None,
            &Replicas::new(None, Arc::default()),
        )
    }

    #[test]
    fn a_service_that_says_nothing_has_the_defaults_of_the_configuration() {
        let settings = with("description", json!("")).unwrap();
        assert_eq!(settings.retry, RetrySettings::default());
        assert_eq!(settings.split, SplitSettings::default());
    }

    #[test]
    fn what_is_asked_for_is_served() {
        let retry = with("retry", json!({"replay": "always", "budget": 9, "statuses": [503]})).unwrap().retry;
        assert_eq!((retry.attempts, retry.replay, retry.budget), (3, Replay::Always, 9));
        assert_eq!(retry.statuses, [503]);
        let split = with("unknown_deployment", json!("ignore")).unwrap().split;
        assert_eq!(split.unknown, UnknownDeployment::Ignore);
        let split = with("sticky_header", json!("X-User")).unwrap().split;
        assert_eq!(split.sticky.unwrap(), "x-user");
        let mirror =
            with("mirror", json!({"deployment": "green", "percent": 50})).unwrap().split.mirror.unwrap();
        assert_eq!((mirror.deployment.as_str(), mirror.percent), ("green", 50));
        assert_eq!((mirror.body_bytes, mirror.concurrent), (64 << 10, 16));
    }

    #[test]
    fn what_cannot_be_served_is_named_by_its_field() {
        for (member, value, target) in [
            ("retry", json!({"attempts": 11}), "retry.attempts"),
            ("retry", json!({"budget": 0}), "retry.budget"),
            ("retry", json!({"body_bytes": (16 << 20) + 1}), "retry.body_bytes"),
            ("retry", json!({"replay": "always", "statuses": [500, 404]}), "retry.statuses[1]"),
            ("retry", json!({"statuses": [503]}), "retry.statuses"),
            ("sticky_header", json!("a b"), "sticky_header"),
            ("mirror", json!({"deployment": "gray", "percent": 1}), "mirror.deployment"),
            ("mirror", json!({"deployment": "green", "percent": 51}), "mirror.percent"),
            ("mirror", json!({"deployment": "green", "percent": 1, "concurrent": 0}), "mirror.concurrent"),
        ] {
            assert_eq!(with(member, value).unwrap_err().target.as_deref(), Some(target));
        }
    }
}
