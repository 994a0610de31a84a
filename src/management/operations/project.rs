//! From what the owner of a service asks for to what the data plane serves. What cannot be served is refused by its field,
//! so that nothing is stored that could not be put into effect.

mod delivery;

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::paths;
use super::replicas::{MAX_REPLICAS, Replicas};
use super::{balancing, collection, health};
use crate::auth::AuthSettings;
use crate::catalog::{AuthMode, DeploymentSpec, LimitsSpec, RateSpec, ServiceName, ServiceSpec};
use crate::limit::{ChosenBy, DeploymentLimits, Limits, QueueLength, RateSettings};
use crate::management::Refusal;
use crate::proxy::{DeploymentSettings, ServiceSettings};
use crate::route::host_problem;

/// Most deployments of one service.
const MAX_DEPLOYMENTS: usize = 100;
/// Calls at once per replica of services that Azure's clients make without saying (both SDKs' documented default).
const AZURE_PER_REPLICA: u32 = 1;
/// Most hosts of one service.
const MAX_HOSTS: usize = 100;

/// The settings of service `name`, let in by `auth`.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for the first field that cannot be served.
pub(super) fn project(
    name: &ServiceName,
    spec: &ServiceSpec,
    auth: AuthSettings,
    replicas: &Replicas,
) -> Result<ServiceSettings, Refusal> {
    let deployments = deployments(name, spec, replicas)?;
    Ok(ServiceSettings {
        name: name.clone(),
        compute_type: spec.compute_type,
        hosts: hosts(spec)?,
        opens: Arc::new(paths::opens(spec, &deployments)?),
        auth,
        at_expiry: spec.at_expiry,
        websocket: spec.websocket,
        limits: client_limits(&spec.limits)?,
        status_mapping: spec.status_mapping,
        cors: None,
        retry: delivery::retry(spec.retry.as_ref())?,
        split: delivery::split(spec)?,
        collect: collection::settings(spec)?,
        deployments,
    })
}

/// The auth mode of `spec`, if services of its compute type can have it here.
///
/// # Errors
/// [`Cause::Invalid`](crate::management::Cause::Invalid) for `auth`.
pub(super) fn auth_mode(spec: &ServiceSpec) -> Result<AuthMode, Refusal> {
    let mode = spec.auth_mode();
    if let Some(problem) = spec.compute_type.refuses(mode) {
        return Err(Refusal::invalid("auth", problem));
    }
    if mode == AuthMode::Oidc {
        return Err(Refusal::invalid(
            "auth",
            "oidc needs an outside issuer, which only a service of the configuration file can name; use key or token",
        ));
    }
    Ok(mode)
}

fn hosts(spec: &ServiceSpec) -> Result<Vec<Arc<str>>, Refusal> {
    at_most("hosts", spec.hosts.len(), MAX_HOSTS)?;
    for (i, host) in spec.hosts.iter().enumerate() {
        let problem = host_problem(host).or_else(|| {
            spec.hosts[..i].contains(host).then(|| format!("'{host}' is in this list already; remove it"))
        });
        if let Some(problem) = problem {
            return Err(Refusal::invalid(format!("hosts[{i}]"), problem));
        }
    }
    Ok(spec.hosts.iter().map(|host| host.as_str().into()).collect())
}

fn deployments(
    name: &ServiceName,
    spec: &ServiceSpec,
    replicas: &Replicas,
) -> Result<Vec<DeploymentSettings>, Refusal> {
    at_most("deployments", spec.deployments.len(), MAX_DEPLOYMENTS)?;
    split(spec)?;
    let deployments = spec.deployments.iter();
    let deployments = deployments
        .map(|(own, deployment)| self::deployment((name, spec), own, deployment, replicas))
        .collect::<Result<Vec<_>, _>>()?;
    at_most("deployments", deployments.iter().map(|it| it.replicas.len()).sum(), MAX_REPLICAS)
        .map_err(|refusal| Refusal { message: format!("replicas of all: {}", refusal.message), ..refusal })?;
    Ok(deployments)
}

/// Either the whole traffic is divided, or none of it.
fn split(spec: &ServiceSpec) -> Result<(), Refusal> {
    for (own, deployment) in &spec.deployments {
        within(&format!("deployments.{own}.traffic"), deployment.traffic, &(0..=100))?;
    }
    let sum: u32 = spec.deployments.values().map(|deployment| u32::from(deployment.traffic)).sum();
    if sum == 0 || sum == 100 {
        return Ok(());
    }
    Err(Refusal::invalid(
        "deployments",
        format!(
            "the traffic adds up to {sum} percent; make it 100, or 0 on all to take no calls but named ones"
        ),
    ))
}

fn deployment(
    service: (&ServiceName, &ServiceSpec),
    name: &ServiceName,
    spec: &DeploymentSpec,
    replicas: &Replicas,
) -> Result<DeploymentSettings, Refusal> {
    let place = format!("deployments.{name}");
    at_most(&format!("{place}.replicas"), spec.replicas.len(), MAX_REPLICAS)?;
    let paths = paths::of_container(&place, service.1.profile, spec.paths.as_ref())?;
    let health = spec.health.as_ref().map(|own| health::health(&place, own, &paths));
    Ok(DeploymentSettings {
        name: name.clone(),
        traffic: spec.traffic,
        limits: deployment_limits(&place, service.1, spec)?,
        replicas: replicas.find(&place, service, spec)?,
        balancing: balancing::settings(&place, spec)?,
        health: health.transpose()?.map(Arc::new),
        names: health::names(&place, &spec.names.clone().unwrap_or_default())?,
        paths,
    })
}

fn client_limits(spec: &LimitsSpec) -> Result<Limits, Refusal> {
    let mut limits = Limits::default();
    if let Some(size) = spec.body_bytes {
        limits.body_bytes = within("limits.body_bytes", size, &Limits::BODY_BYTES)?;
    }
    if let Some(millis) = spec.answer_timeout_ms {
        let allowed = in_millis(Limits::ANSWER.start())..=in_millis(Limits::ANSWER.end());
        let millis = within("limits.answer_timeout_ms", millis, &allowed)?;
        limits.answer = Some(Duration::from_millis(millis));
    }
    let rate = |field: &str, spec: Option<RateSpec>| spec.map(|spec| rate(field, spec)).transpose();
    limits.rates.service = rate("limits.rate", spec.rate)?;
    limits.rates.per_principal = rate("limits.rate_per_principal", spec.rate_per_principal)?;
    Ok(limits)
}

fn rate(field: &str, spec: RateSpec) -> Result<RateSettings, Refusal> {
    let per_second = format!("{field}.requests_per_second");
    let per_second = within(&per_second, spec.requests_per_second, &RateSettings::PER_SECOND)?;
    let burst = spec.burst.map(|burst| within(&format!("{field}.burst"), burst, &RateSettings::BURST));
    Ok(RateSettings::new(per_second, burst.transpose()?))
}

/// The service's limits with the deployment's own over them.
fn deployment_limits(
    place: &str,
    service: &ServiceSpec,
    own: &DeploymentSpec,
) -> Result<DeploymentLimits, Refusal> {
    if own.limits.body_bytes.is_some() {
        return Err(Refusal::invalid(
            format!("{place}.limits.body_bytes"),
            "a body is judged before its deployment is chosen; set limits.body_bytes of the service instead",
        ));
    }
    if own.limits.answer_timeout_ms.is_some() {
        return Err(Refusal::invalid(
            format!("{place}.limits.answer_timeout_ms"),
            "it is one limit for all deployments; set limits.answer_timeout_ms of the service instead",
        ));
    }
    for (field, rate) in [("rate", own.limits.rate), ("rate_per_principal", own.limits.rate_per_principal)] {
        if rate.is_some() {
            return Err(Refusal::invalid(
                format!("{place}.limits.{field}"),
                format!(
                    "a rate is judged before the deployment is chosen; set limits.{field} of the service instead"
                ),
            ));
        }
    }
    let mut limits = DeploymentLimits::default();
    limits.admission.queue_length = QueueLength::default_of(service.compute_type);
    lay_over(&mut limits, "limits", &service.limits)?;
    lay_over(&mut limits, &format!("{place}.limits"), &own.limits)?;
    let by_azure = !service.azure.is_empty() || !own.azure.is_empty();
    if by_azure && limits.admission.per_replica == Some(AZURE_PER_REPLICA) {
        limits.admission.chosen_by = ChosenBy::Azure;
    }
    Ok(limits)
}

fn lay_over(limits: &mut DeploymentLimits, place: &str, spec: &LimitsSpec) -> Result<(), Refusal> {
    let wait = |field: &str, millis: u64, bounds: RangeInclusive<Duration>| {
        let allowed = in_millis(bounds.start())..=in_millis(bounds.end());
        within(&format!("{place}.{field}"), millis, &allowed).map(Duration::from_millis)
    };
    if let Some(millis) = spec.scoring_timeout_ms {
        limits.upstream.first_byte = wait("scoring_timeout_ms", millis, DeploymentLimits::ANSWER)?;
    }
    if let Some(millis) = spec.idle_timeout_ms {
        limits.upstream.idle = wait("idle_timeout_ms", millis, DeploymentLimits::ANSWER)?;
    }
    if let Some(millis) = spec.queue_wait_ms {
        limits.admission.queue_wait = wait("queue_wait_ms", millis, DeploymentLimits::QUEUE_WAIT)?;
    }
    if let Some(length) = spec.queue_length {
        let field = format!("{place}.queue_length");
        let length = within(&field, length, &DeploymentLimits::QUEUE_LENGTH)?;
        limits.admission.queue_length = QueueLength::Fixed(length);
    }
    if let Some(count) = spec.concurrent_requests_per_replica {
        let field = format!("{place}.concurrent_requests_per_replica");
        limits.admission.per_replica = Some(within(&field, count, &DeploymentLimits::PER_REPLICA)?);
    }
    Ok(())
}

pub(super) fn in_millis(duration: &Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `value`, if it is within `bounds`.
pub(super) fn within<T: PartialOrd + Display>(
    field: &str,
    value: T,
    bounds: &RangeInclusive<T>,
) -> Result<T, Refusal> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let problem = format!("{value} is out of range; allowed are {} to {}", bounds.start(), bounds.end());
    Err(Refusal::invalid(field, problem))
}

/// Refuses a list that is too long.
pub(super) fn at_most(field: &str, length: usize, most: usize) -> Result<(), Refusal> {
    if length <= most {
        return Ok(());
    }
    Err(Refusal::invalid(field, format!("has {length} entries; at most {most} are allowed")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::catalog::ComputeType;
    use crate::management::Cause;
    use crate::proxy::EndpointPaths;

    fn project_json(spec: Value) -> Result<ServiceSettings, Refusal> {
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let name = ServiceName::parse("iris").unwrap();
        project(&name, &spec, AuthSettings::None, &Replicas::new(None, Arc::default()))
    }

    #[expect(clippy::needless_pass_by_value, reason = "literals are handed over")]
    fn with(field: &str, value: Value) -> Value {
        let mut spec = json!({
            "compute_type": "AKS",
            "deployments": {"blue": {"traffic": 100, "replicas": ["http://127.0.0.1:5001"]}},
        });
        let mut place = &mut spec;
        let mut fields = field.split('.').peekable();
        while let Some(name) = fields.next() {
            let next = place.as_object_mut().unwrap().entry(name).or_insert_with(|| json!({}));
            if fields.peek().is_none() {
                *next = value.clone();
            }
            place = next;
        }
        spec
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "literals are handed over")]
    fn refused(spec: Value, target: &str) {
        let refusal = project_json(spec.clone()).unwrap_err();
        assert_eq!((refusal.cause, refusal.target.as_deref()), (Cause::Invalid, Some(target)), "{spec}");
    }

    #[test]
    fn a_bare_service_has_the_defaults_of_the_configuration() {
        let settings = project_json(json!({"compute_type": "ACI"})).unwrap();
        assert_eq!(settings.limits, Limits::default());
        assert!(settings.deployments.is_empty() && settings.hosts.is_empty() && settings.cors.is_none());
        let settings = project_json(with("hosts", json!(["iris.example.org"]))).unwrap();
        assert_eq!(*settings.hosts, ["iris.example.org".into()]);
        let blue = &settings.deployments[0];
        assert_eq!(
            (blue.traffic, blue.limits, &blue.paths),
            (100, DeploymentLimits::default(), &EndpointPaths::default())
        );
        assert_eq!(blue.limits.admission.per_replica, None, "no limit unless one is asked for");
    }

    #[test]
    fn the_limits_of_a_deployment_go_before_those_of_its_service() {
        let mut spec = with(
            "limits",
            json!({"body_bytes": 7, "scoring_timeout_ms": 1000, "idle_timeout_ms": 2000, "queue_wait_ms": 0}),
        );
        spec["deployments"]["blue"]["limits"] =
            json!({"scoring_timeout_ms": 3000, "concurrent_requests_per_replica": 1});
        let settings = project_json(spec).unwrap();
        assert_eq!(settings.limits.body_bytes, 7);
        let limits = settings.deployments[0].limits;
        assert_eq!(limits.upstream.first_byte, Duration::from_secs(3));
        assert_eq!(limits.upstream.idle, Duration::from_secs(2));
        assert_eq!(limits.admission.queue_wait, Duration::ZERO);
        assert_eq!(limits.admission.per_replica, Some(1));
    }

    #[test]
    fn whoever_is_refused_by_azures_default_is_told_so() {
        let chosen_by = |limit: u32, azure: Value| {
            let mut spec = with("limits", json!({"concurrent_requests_per_replica": limit}));
            spec["deployments"]["blue"]["azure"] = azure;
            project_json(spec).unwrap().deployments[0].limits.admission.chosen_by
        };
        assert_eq!(chosen_by(1, json!({"sku": {}})), ChosenBy::Azure);
        assert_eq!(chosen_by(2, json!({"sku": {}})), ChosenBy::Owner, "not the default");
        assert_eq!(chosen_by(1, json!({})), ChosenBy::Owner, "not made by a client of Azure's");
    }

    #[test]
    fn rates_and_queue_are_as_asked_for_or_as_the_compute_type_has_them() {
        let limits = json!({
            "rate": {"requests_per_second": 0.5},
            "rate_per_principal": {"requests_per_second": 10, "burst": 20},
            "queue_length": 7,
        });
        let settings = project_json(with("limits", limits)).unwrap();
        let rates = settings.limits.rates;
        assert_eq!(rates.service, Some(RateSettings::new(0.5, Some(1))));
        assert_eq!(rates.per_principal, Some(RateSettings::new(10.0, Some(20))));
        assert_eq!(settings.deployments[0].limits.admission.queue_length, QueueLength::Fixed(7));
        let managed = project_json(with("compute_type", json!("Managed"))).unwrap();
        assert_eq!(managed.deployments[0].limits.admission.queue_length, QueueLength::AsPlaces);
    }

    #[test]
    fn what_is_out_of_bounds_is_named_by_its_field() {
        for (field, value) in [
            ("limits.body_bytes", json!(0)),
            ("limits.scoring_timeout_ms", json!(0)),
            ("limits.scoring_timeout_ms", json!(86_400_001)),
            ("limits.queue_wait_ms", json!(600_001)),
            ("limits.concurrent_requests_per_replica", json!(0)),
            ("limits.queue_length", json!(1_000_001)),
            ("deployments.blue.limits.rate", json!({"requests_per_second": 1})),
            ("deployments.blue.limits.idle_timeout_ms", json!(u64::MAX)),
            ("deployments.blue.limits.body_bytes", json!(1)),
            ("deployments.blue.traffic", json!(101)),
        ] {
            refused(with(field, value), field);
        }
        for (path, target) in [
            (json!({"score": "score"}), "deployments.blue.paths.score"),
            (json!({"health": "/?"}), "deployments.blue.paths.health"),
        ] {
            refused(with("deployments.blue.paths", path), target);
        }
        refused(with("hosts", json!(["a", "A"])), "hosts[1]");
        refused(with("hosts", json!(["a", "a"])), "hosts[1]");
        refused(with("hosts", json!(vec!["a"; 101])), "hosts");
        refused(
            with("deployments.blue.replicas", json!(["http://h", "h:1"])),
            "deployments.blue.replicas[1]",
        );
    }

    #[test]
    fn traffic_is_divided_whole_or_not_at_all() {
        let split = |traffic: &[u8]| {
            let deployments: serde_json::Map<_, _> = traffic
                .iter()
                .enumerate()
                .map(|(i, traffic)| {
                    (format!("dep{i}"), json!({"traffic": traffic, "replicas": ["http://127.0.0.1:5001"]}))
                })
                .collect();
            with("deployments", deployments.into())
        };
        for good in [&[][..], &[0], &[0, 0], &[100], &[90, 10], &[100, 0]] {
            assert!(project_json(split(good)).is_ok(), "{good:?}");
        }
        for bad in [&[50][..], &[90, 5], &[100, 1]] {
            refused(split(bad), "deployments");
        }
    }

    #[test]
    fn counts_are_bounded() {
        let replicas: Vec<_> = (0..600).map(|port| format!("http://h:{}", port + 1)).collect();
        let deployments = |count: usize, replicas: &[String]| {
            let deployments: serde_json::Map<_, _> =
                (0..count).map(|i| (format!("dep{i}"), json!({"replicas": replicas}))).collect();
            with("deployments", deployments.into())
        };
        assert!(project_json(deployments(100, &replicas[..1])).is_ok());
        refused(deployments(101, &replicas[..1]), "deployments");
        refused(deployments(2, &replicas), "deployments");
        let many: Vec<_> = (0..1001).map(|port| format!("http://h:{}", port + 1)).collect();
        refused(deployments(1, &many), "deployments.dep0.replicas");
    }

    #[test]
    fn a_mode_that_cannot_be_had_is_refused_with_the_reason() {
        let mode = |compute_type, auth| {
            let spec = ServiceSpec { auth, ..ServiceSpec::new(compute_type) };
            auth_mode(&spec).map_err(|refusal| refusal.message)
        };
        assert_eq!(mode(ComputeType::Aci, None), Ok(AuthMode::None));
        assert_eq!(mode(ComputeType::Aks, None), Ok(AuthMode::Key));
        assert_eq!(mode(ComputeType::Managed, Some(AuthMode::Token)), Ok(AuthMode::Token));
        let refused = mode(ComputeType::Aci, Some(AuthMode::Token)).unwrap_err();
        assert!(refused.contains("not available on ACI"));
        let refused = mode(ComputeType::Managed, Some(AuthMode::Oidc)).unwrap_err();
        assert!(refused.contains("configuration file"));
    }
}
