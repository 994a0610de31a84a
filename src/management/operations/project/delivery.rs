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
