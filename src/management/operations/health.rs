//! Probes, readiness and names of a managed deployment, from what its owner asks for to settings, and back.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::uri::PathAndQuery;

use super::project::{in_millis, within};
use crate::catalog::{HealthSpec, NamesSpec, ProbeSpec, ReadinessSpec};
use crate::management::Refusal;
use crate::proxy::EndpointPaths;
use crate::upstream::{Check, HealthSettings, NamesSettings, ProbeSettings, ReadinessSettings, Statuses};

/// What the replicas of the deployment at `place` (`deployments.blue`) must prove; its own paths are `paths`.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for the first field that cannot be served.
pub(super) fn health(
    place: &str,
    spec: &HealthSpec,
    paths: &EndpointPaths,
) -> Result<HealthSettings, Refusal> {
    let place = format!("{place}.health");
    if spec.probe.is_none() && spec.readiness.is_none() {
        return Err(Refusal::invalid(
            place,
            "asks nothing of the replicas; add probe or readiness, or remove it",
        ));
    }
    let probe = spec.probe.as_ref().map(|own| probe(&format!("{place}.probe"), own, &paths.health));
    let readiness = spec.readiness.as_ref();
    let readiness =
        readiness.map(|own| self::readiness(&format!("{place}.readiness"), own, paths.score.as_ref()));
    Ok(HealthSettings { probe: probe.transpose()?, readiness: readiness.transpose()? })
}

/// How replicas that are given by name are found.
///
/// # Errors
/// As [`health`].
pub(super) fn names(place: &str, spec: &NamesSpec) -> Result<NamesSettings, Refusal> {
    let refresh = time(&format!("{place}.names"), "refresh_ms", spec.refresh_ms, NamesSettings::REFRESH)?;
    Ok(NamesSettings { refresh: refresh.unwrap_or(NamesSettings::default().refresh) })
}

fn probe(place: &str, spec: &ProbeSpec, health: &PathAndQuery) -> Result<ProbeSettings, Refusal> {
    if spec.grpc.is_some() {
        return Err(Refusal::invalid(
            format!("{place}.grpc"),
            "gRPC needs HTTP/2 to the replicas, which only a deployment of the configuration file can have; set path instead",
        ));
    }
    let statuses = spec.status.iter().enumerate().map(|(i, text)| {
        Statuses::range(text).map_err(|problem| Refusal::invalid(format!("{place}.status[{i}]"), problem))
    });
    let expected = Statuses::any_of(statuses.collect::<Result<_, _>>()?);
    let path = path(place, spec.path.as_deref())?.unwrap_or_else(|| health.clone());
    let default = ProbeSettings::default();
    let threshold = |field: &str, value: Option<u32>, default| match value {
        Some(value) => within(&format!("{place}.{field}"), value, &ProbeSettings::THRESHOLD),
        None => Ok(default),
    };
    Ok(ProbeSettings {
        check: Check::Http { path, expected },
        interval: time(place, "interval_ms", spec.interval_ms, ProbeSettings::INTERVAL)?
            .unwrap_or(default.interval),
        timeout: time(place, "timeout_ms", spec.timeout_ms, ProbeSettings::TIMEOUT)?
            .unwrap_or(default.timeout),
        healthy: threshold("healthy", spec.healthy, default.healthy)?,
        unhealthy: threshold("unhealthy", spec.unhealthy, default.unhealthy)?,
        startup: time(place, "startup_ms", spec.startup_ms, ProbeSettings::STARTUP)?
            .unwrap_or(default.startup),
    })
}

fn readiness(
    place: &str,
    spec: &ReadinessSpec,
    score: Option<&PathAndQuery>,
) -> Result<ReadinessSettings, Refusal> {
    let path = path(place, spec.path.as_deref())?.or_else(|| score.cloned());
    let content_type = spec.content_type.as_deref().unwrap_or(ReadinessSettings::DEFAULT_CONTENT_TYPE);
    ReadinessSettings::check_body(spec.body.as_bytes())
        .map_err(|problem| Refusal::invalid(format!("{place}.body"), problem))?;
    Ok(ReadinessSettings {
        path: path.ok_or_else(|| {
            Refusal::invalid(
                format!("{place}.path"),
                "is missing; which path scores depends on the model here, so write the model's own path",
            )
        })?,
        body: Bytes::copy_from_slice(spec.body.as_bytes()),
        content_type: HeaderValue::from_str(content_type).map_err(|_| {
            Refusal::invalid(
                format!("{place}.content_type"),
                "is no content type; write one such as application/json",
            )
        })?,
        timeout: time(place, "timeout_ms", spec.timeout_ms, ReadinessSettings::TIMEOUT)?
            .unwrap_or(ReadinessSettings::DEFAULT_TIMEOUT),
    })
}

fn path(place: &str, text: Option<&str>) -> Result<Option<PathAndQuery>, Refusal> {
    text.map(EndpointPaths::parse)
        .transpose()
        .map_err(|problem| Refusal::invalid(format!("{place}.path"), problem))
}

fn time(
    place: &str,
    field: &str,
    millis: Option<u64>,
    bounds: RangeInclusive<Duration>,
) -> Result<Option<Duration>, Refusal> {
    let allowed = in_millis(bounds.start())..=in_millis(bounds.end());
    let within = |millis| within(&format!("{place}.{field}"), millis, &allowed).map(Duration::from_millis);
    millis.map(within).transpose()
}

/// What `settings` would have been made from, for a deployment whose own paths are `paths`.
pub(super) fn health_spec(settings: &HealthSettings, paths: &EndpointPaths) -> HealthSpec {
    HealthSpec {
        probe: settings.probe.as_ref().map(|probe| probe_spec(probe, paths)),
        readiness: settings.readiness.as_ref().map(|readiness| ReadinessSpec {
            path: (paths.score.as_ref() != Some(&readiness.path)).then(|| readiness.path.to_string()),
            body: String::from_utf8_lossy(&readiness.body).into_owned(),
            content_type: readiness.content_type.to_str().ok().map(str::to_owned),
            timeout_ms: Some(in_millis(&readiness.timeout)),
        }),
    }
}

fn probe_spec(settings: &ProbeSettings, paths: &EndpointPaths) -> ProbeSpec {
    let (path, grpc, status) = match &settings.check {
        Check::Http { path, expected } => {
            let own = (*path != paths.health).then(|| path.to_string());
            (own, None, expected.to_string().split(", ").map(str::to_owned).collect())
        }
        Check::Grpc { service } => (None, Some(service.to_string()), Vec::new()),
    };
    ProbeSpec {
        path,
        grpc,
        status,
        interval_ms: Some(in_millis(&settings.interval)),
        timeout_ms: Some(in_millis(&settings.timeout)),
        healthy: Some(settings.healthy),
        unhealthy: Some(settings.unhealthy),
        startup_ms: Some(in_millis(&settings.startup)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> Result<HealthSettings, Refusal> {
        let spec: HealthSpec = serde_json::from_value(spec).unwrap();
        health("deployments.blue", &spec, &EndpointPaths::default())
    }

    #[test]
    fn unset_fields_are_the_defaults_of_the_configuration() {
        let settings = read(json!({ "probe": {}, "readiness": { "body": "{}" } })).unwrap();
        assert_eq!(settings.probe.unwrap(), ProbeSettings::default());
        let readiness = settings.readiness.unwrap();
        assert_eq!((readiness.path.as_str(), &*readiness.body), ("/score", &b"{}"[..]));
        assert_eq!(readiness.content_type, "application/json");
        assert_eq!(names("deployments.blue", &NamesSpec::default()), Ok(NamesSettings::default()));
    }

    #[test]
    fn what_is_asked_for_is_served_and_told_back() {
        let spec = json!({
            "probe": {
                "path": "/ping", "status": ["200-299", "401"], "interval_ms": 100, "timeout_ms": 50,
                "healthy": 2, "unhealthy": 4, "startup_ms": 0,
            },
            "readiness": {
                "path": "/invocations", "body": "a", "content_type": "text/csv", "timeout_ms": 7,
            },
        });
        let settings = read(spec.clone()).unwrap();
        let told = health_spec(&settings, &EndpointPaths::default());
        assert_eq!(serde_json::to_value(told).unwrap(), spec);
    }

    #[test]
    fn what_cannot_be_served_is_named_by_its_field() {
        for (spec, field) in [
            (json!({}), "health"),
            (json!({ "probe": { "path": "ping" } }), "health.probe.path"),
            (json!({ "probe": { "grpc": "" } }), "health.probe.grpc"),
            (json!({ "probe": { "status": ["200", "2xx"] } }), "health.probe.status[1]"),
            (json!({ "probe": { "interval_ms": 99 } }), "health.probe.interval_ms"),
            (json!({ "probe": { "timeout_ms": 300_001 } }), "health.probe.timeout_ms"),
            (json!({ "probe": { "healthy": 0 } }), "health.probe.healthy"),
            (json!({ "probe": { "unhealthy": 101 } }), "health.probe.unhealthy"),
            (json!({ "probe": { "startup_ms": 86_400_001 } }), "health.probe.startup_ms"),
            (json!({ "readiness": {} }), "health.readiness.body"),
            (json!({ "readiness": { "body": "{}", "path": "?" } }), "health.readiness.path"),
            (
                json!({ "readiness": { "body": "{}", "content_type": "a\nb" } }),
                "health.readiness.content_type",
            ),
            (json!({ "readiness": { "body": "{}", "timeout_ms": 0 } }), "health.readiness.timeout_ms"),
        ] {
            let refusal = read(spec.clone()).unwrap_err();
            assert_eq!(refusal.target, Some(format!("deployments.blue.{field}")), "{spec}");
        }
        let never = NamesSpec { refresh_ms: Some(0) };
        let refusal = names("deployments.blue", &never).unwrap_err();
        assert_eq!(refusal.target.as_deref(), Some("deployments.blue.names.refresh_ms"));
    }
}
