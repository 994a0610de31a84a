//! Services of the configuration file as entries of the catalogue: to be read, not to be changed.

use std::time::Duration;

use http::StatusCode;

use super::{balancing, collection, health};
use crate::auth::AuthSettings;
use crate::catalog::{
    AuthMode, DeploymentSpec, LimitsSpec, MirrorSpec, NamesSpec, Origin, PathsSpec, Profile, Protocol,
    Provenance, RateSpec, RetrySpec, ServiceEntry, ServiceSpec,
};
use crate::limit::{DeploymentLimits, QueueLength, RateSettings};
use crate::proxy::{DeploymentSettings, EndpointPaths, MirrorSettings, ServiceSettings};
use crate::upstream::{NamesSettings, ReplicaProtocol, RetrySettings};

/// The entry that `settings` would have been made from.
pub(super) fn entry(settings: &ServiceSettings, workspace: &str, provenance: Provenance) -> ServiceEntry {
    // The configuration has one set of limits for all deployments of a service.
    let limits = settings.deployments.first().map(|first| first.limits);
    let spec = ServiceSpec {
        hosts: settings.hosts.iter().map(ToString::to_string).collect(),
        auth: Some(auth_mode(&settings.auth)),
        at_expiry: settings.at_expiry,
        status_mapping: settings.status_mapping,
        websocket: settings.websocket,
        profile: settings.opens.profile,
        score_paths: settings.opens.score_paths.iter().map(ToString::to_string).collect(),
        grpc: settings.opens.grpc.iter().map(ToString::to_string).collect(),
        retry: retry(&settings.retry),
        unknown_deployment: settings.split.unknown,
        sticky_header: settings.split.sticky.as_ref().map(ToString::to_string),
        mirror: settings.split.mirror.as_ref().map(mirror),
        data_collection: settings.collect.as_ref().map(collection::spec),
        limits: LimitsSpec {
            body_bytes: Some(settings.limits.body_bytes),
            answer_timeout_ms: settings.limits.answer.and_then(millis),
            rate: settings.limits.rates.service.map(rate),
            rate_per_principal: settings.limits.rates.per_principal.map(rate),
            ..limits.map(self::limits).unwrap_or_default()
        },
        deployments: settings
            .deployments
            .iter()
            .map(|it| (it.name.clone(), deployment(settings.opens.profile, it)))
            .collect(),
        ..ServiceSpec::new(settings.compute_type)
    };
    ServiceEntry {
        name: settings.name.clone(),
        workspace: workspace.to_owned(),
        spec,
        origin: Origin::Declared,
        provenance,
    }
}

fn retry(settings: &RetrySettings) -> Option<RetrySpec> {
    (*settings != RetrySettings::default()).then(|| RetrySpec {
        attempts: Some(settings.attempts),
        replay: settings.replay,
        body_bytes: Some(settings.body_bytes as u64),
        budget: Some(settings.budget),
        statuses: settings.statuses.iter().map(StatusCode::as_u16).collect(),
    })
}

fn mirror(settings: &MirrorSettings) -> MirrorSpec {
    MirrorSpec {
        deployment: settings.deployment.clone(),
        percent: settings.percent,
        body_bytes: Some(settings.body_bytes as u64),
        concurrent: Some(settings.concurrent),
    }
}

const fn auth_mode(settings: &AuthSettings) -> AuthMode {
    match settings {
        AuthSettings::None => AuthMode::None,
        AuthSettings::Key(_) => AuthMode::Key,
        AuthSettings::Token(_) => AuthMode::Token,
        AuthSettings::Oidc(_) => AuthMode::Oidc,
    }
}

fn deployment(profile: Profile, settings: &DeploymentSettings) -> DeploymentSpec {
    let replicas = settings.replicas.iter().map(|replica| {
        let scheme = if replica.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", replica.origin)
    });
    let names = settings.names != NamesSettings::default();
    let has_own_paths = settings.paths != EndpointPaths::of_profile(profile);
    let paths = || PathsSpec {
        score: settings.paths.score.as_ref().map(ToString::to_string),
        swagger: settings.paths.swagger.as_ref().map(ToString::to_string),
        health: Some(settings.paths.health.to_string()),
    };
    let mut spec = DeploymentSpec {
        traffic: settings.traffic,
        replicas: replicas.collect(),
        protocol: settings.replicas.first().map_or(Protocol::H1, |first| match first.protocol {
            ReplicaProtocol::H1 => Protocol::H1,
            ReplicaProtocol::H2 => Protocol::H2,
        }),
        paths: has_own_paths.then(paths),
        health: settings.health.as_ref().map(|health| health::health_spec(health, &settings.paths)),
        names: names
            .then(|| NamesSpec { refresh_ms: u64::try_from(settings.names.refresh.as_millis()).ok() }),
        ..DeploymentSpec::default()
    };
    balancing::ask_for(&mut spec, &settings.balancing);
    spec
}

fn millis(wait: Duration) -> Option<u64> {
    u64::try_from(wait.as_millis()).ok()
}

fn limits(limits: DeploymentLimits) -> LimitsSpec {
    LimitsSpec {
        body_bytes: None,
        answer_timeout_ms: None,
        scoring_timeout_ms: millis(limits.upstream.first_byte),
        idle_timeout_ms: millis(limits.upstream.idle),
        concurrent_requests_per_replica: limits.admission.per_replica,
        queue_wait_ms: millis(limits.admission.queue_wait),
        queue_length: match limits.admission.queue_length {
            QueueLength::Fixed(length) => Some(length),
            QueueLength::AsPlaces => None,
        },
        rate: None,
        rate_per_principal: None,
    }
}

fn rate(settings: RateSettings) -> RateSpec {
    RateSpec { requests_per_second: settings.per_second(), burst: Some(settings.burst()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::catalog::ServiceName;
    use crate::management::operations::project::project;
    use crate::management::operations::replicas::Replicas;

    /// Reading a declared service gives what a managed one would have to be asked for.
    #[test]
    fn an_entry_says_what_its_settings_were_made_from() {
        let spec: ServiceSpec = serde_json::from_value(json!({
            "compute_type": "AKS",
            "hosts": ["iris.example.org"],
            "auth": "none",
            "status_mapping": "passthrough",
            "retry": {"attempts": 2, "replay": "always", "body_bytes": 8, "budget": 30, "statuses": [503]},
            "unknown_deployment": "ignore",
            "sticky_header": "x-session-id",
            "profile": "openai",
            "score_paths": ["/explain"],
            "grpc": ["acme.v1.Scorer"],
            "mirror": {"deployment": "green", "percent": 10, "body_bytes": 9, "concurrent": 2},
            "data_collection": {"sample": 0.25, "body_bytes": 3, "inputs": true, "outputs": false},
            "limits": {
                "body_bytes": 7, "scoring_timeout_ms": 1000, "idle_timeout_ms": 2000,
                "concurrent_requests_per_replica": 3, "queue_wait_ms": 4, "queue_length": 5,
                "rate": {"requests_per_second": 2.5, "burst": 6},
                "rate_per_principal": {"requests_per_second": 0.3, "burst": 1},
            },
            "deployments": {
                "blue": {"traffic": 90, "protocol": "h2", "replicas": ["http://127.0.0.1:5001", "http://[::1]:5001"]},
                "green": {
                    "traffic": 10, "protocol": "h2", "replicas": ["http://green:80"],
                    "paths": {"score": "/invocations", "swagger": "/swagger.json", "health": "/ping"},
                },
            },
        }))
        .unwrap();
        let name = ServiceName::parse("iris").unwrap();
        let settings =
            project(&name, &spec, AuthSettings::None, &Replicas::new(None, std::sync::Arc::default()))
                .unwrap();
        let at = datetime!(2026-11-24 12:00 UTC);
        let provenance =
            Provenance { created_at: at, created_by: "c".into(), updated_at: at, updated_by: "c".into() };
        let entry = entry(&settings, "ws", provenance);
        assert_eq!((entry.origin, entry.workspace.as_str()), (Origin::Declared, "ws"));
        assert_eq!(entry.spec, spec);
    }
}
