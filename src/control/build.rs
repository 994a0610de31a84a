//! From the settings of one service to the service, ready to serve; what has not changed lives on.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;

use crate::auth::{Authenticator, JwksRegistry};
use crate::catalog::Replay;
use crate::limit::{Admission, Rates};
use crate::proxy::{
    Deployment, DeploymentSettings, Mirror, MirrorSettings, PreparedCors, Service, ServiceSettings,
};
use crate::route::Split;
use crate::upstream::{Replica, ReplicaSet, ReplicaSettings, RetryBudget, RetrySettings, Verdict};

use super::publish::PublishError;

/// Builds a service, or takes the one that was there `before` if nothing has changed.
///
/// # Errors
/// Its auth mode cannot be built.
pub(super) fn service(
    settings: &Arc<ServiceSettings>,
    before: Option<&Arc<Service>>,
    jwks: &JwksRegistry,
) -> Result<Arc<Service>, PublishError> {
    if let Some(before) = before
        && before.settings == *settings
    {
        return Ok(Arc::clone(before));
    }
    let authenticator = authenticator(settings, before, jwks)?;
    let deployments = settings.deployments.iter().map(|deployment| {
        let before = before.and_then(|before| Before::of(before, deployment));
        self::deployment((settings, deployment), before)
    });
    let split = &settings.split;
    let percents: Vec<u8> = settings.deployments.iter().map(|deployment| deployment.traffic).collect();
    let cors = settings.cors.as_ref();
    let cors = cors.map(|cors| PreparedCors::new(cors.origins.clone(), &cors.headers, cors.max_age));
    // A service that counts goes on counting in the same place.
    let metrics = before
        .filter(|before| before.settings.compute_type == settings.compute_type)
        .and_then(|before| before.metrics.get());
    Ok(Arc::new(Service {
        authenticator,
        cors,
        rates: Rates::new(&settings.limits.rates, before.and_then(|before| before.rates.as_ref())),
        deployments: deployments.collect(),
        split: share(&percents, before),
        retry_budget: retry_budget(&settings.retry, before),
        mirror: split.mirror.as_ref().map(|mirror| self::mirror(mirror, before)),
        metrics: metrics.map_or_else(OnceLock::new, |metrics| OnceLock::from(Arc::clone(metrics))),
        settings: Arc::clone(settings),
    }))
}

/// A deployment as it runs and what it was built from.
#[derive(Clone, Copy)]
struct Before<'a> {
    settings: &'a DeploymentSettings,
    running: &'a Deployment,
}

impl<'a> Before<'a> {
    /// The deployment of the same name.
    fn of(service: &'a Service, settings: &DeploymentSettings) -> Option<Self> {
        let both = service.settings.deployments.iter().zip(&service.deployments);
        let mut both = both.map(|(settings, running)| Self { settings, running });
        both.find(|before| before.settings.name == settings.name)
    }
}

/// Shares that have not changed go on with the turn that they are in, so that they are exact over any number of changes to
/// other settings.
fn share(percents: &[u8], before: Option<&Arc<Service>>) -> Arc<Split> {
    let kept = before.filter(|before| before.split.percents() == percents);
    kept.map_or_else(|| Arc::new(Split::new(percents)), |before| Arc::clone(&before.split))
}

/// What was spent stays spent.
fn retry_budget(settings: &RetrySettings, before: Option<&Arc<Service>>) -> Option<Arc<RetryBudget>> {
    if settings.replay == Replay::Never {
        return None;
    }
    let kept = before.and_then(|before| before.retry_budget.as_ref());
    let kept = kept.filter(|kept| kept.percent() == settings.budget);
    Some(kept.map_or_else(|| Arc::new(RetryBudget::new(settings.budget)), Arc::clone))
}

fn mirror(settings: &MirrorSettings, before: Option<&Arc<Service>>) -> Arc<Mirror> {
    let kept = before.and_then(|before| before.mirror.as_ref());
    let kept = kept.filter(|kept| kept.settings() == settings);
    kept.map_or_else(|| Mirror::new(settings.clone()), Arc::clone)
}

/// What was verified under the same settings counts on; under any others everything is verified anew.
fn authenticator(
    settings: &ServiceSettings,
    before: Option<&Arc<Service>>,
    jwks: &JwksRegistry,
) -> Result<Arc<Authenticator>, PublishError> {
    if let Some(before) = before
        && before.settings.auth == settings.auth
    {
        return Ok(Arc::clone(&before.authenticator));
    }
    let before = before.map(|before| &*before.authenticator);
    Authenticator::new(&settings.auth, &settings.name, jwks, before)
        .map(Arc::new)
        .map_err(|error| PublishError::Auth(settings.name.clone(), error))
}

/// Replicas live on while their settings stay the same, and the places for as long as there is a deployment of the name, so
/// that a change neither loses count of the calls in flight nor lets in more than the limit. [`enact`] changes the places:
/// what is built may still not be published.
fn deployment(
    (service, settings): (&ServiceSettings, &DeploymentSettings),
    before: Option<Before<'_>>,
) -> Deployment {
    let replicas = replicas((service, settings), before);
    let admission = match before {
        Some(before) => Arc::clone(&before.running.admission),
        None => Arc::new(Admission::new(settings.limits.admission, replicas.serving())),
    };
    Deployment {
        name: settings.name.shared(),
        header: HeaderValue::from_str(settings.name.as_str()).unwrap_or(HeaderValue::from_static("")),
        replicas,
        admission,
        paths: settings.paths.clone(),
        deadlines: settings.limits.upstream,
    }
}

/// The set that was there, if nothing about it has changed; else a new one, with those replicas that stay.
fn replicas(
    (service, settings): (&ServiceSettings, &DeploymentSettings),
    before: Option<Before<'_>>,
) -> Arc<ReplicaSet> {
    let Some(Before { settings: old, running }) = before else {
        let members = settings.replicas.iter().map(|wanted| new_replica(wanted, settings));
        let name = format!("{}/{}", service.name, settings.name);
        return ReplicaSet::new(name, settings.balancing.clone(), members.collect());
    };
    if old.replicas == settings.replicas && old.balancing == settings.balancing {
        return Arc::clone(&running.replicas);
    }
    let kept = running.replicas.members();
    let members = settings.replicas.iter().flat_map(|wanted| {
        // Several, where a name means several hosts.
        let mut own: Vec<_> = kept.iter().filter(|kept| kept.settings() == wanted).cloned().collect();
        if own.is_empty() {
            own.push(new_replica(wanted, settings));
        }
        own
    });
    ReplicaSet::in_place_of(&running.replicas, settings.balancing.clone(), members.collect())
}

/// Puts into effect what of a published service is not in the snapshot, since it outlives that: limits, and which set of
/// replicas decides over them.
pub(super) fn enact(service: &Service) {
    for (settings, deployment) in service.settings.deployments.iter().zip(&service.deployments) {
        deployment.admission.set_settings(settings.limits.admission);
        let admission = Arc::clone(&deployment.admission);
        deployment.replicas.take_charge(move |serving| admission.set_replicas(serving));
    }
}

/// A replica that has to prove something gets no calls until it has.
fn new_replica(wanted: &ReplicaSettings, settings: &DeploymentSettings) -> Arc<Replica> {
    let replica = Replica::new(wanted.clone());
    if settings.health.is_some() {
        replica.set_verdict(Verdict::Starting);
    }
    replica
}
