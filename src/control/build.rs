//! From the settings of one service to the service, ready to serve; what has not changed lives on.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;

use crate::auth::{Authenticator, JwksRegistry};
use crate::limit::Admission;
use crate::proxy::{Deployment, DeploymentSettings, PreparedCors, Service, ServiceSettings};
use crate::route::Split;
use crate::upstream::{Replica, ReplicaSet, ReplicaSettings, Verdict};

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
    let deployments = settings.deployments.iter().map(|settings| {
        let mut all = before.into_iter().flat_map(|service| &service.deployments);
        let before = all.find(|before| *before.name == *settings.name.as_str());
        deployment(settings, before)
    });
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
        deployments: deployments.collect(),
        split: Split::new(&percents),
        metrics: metrics.map_or_else(OnceLock::new, |metrics| OnceLock::from(Arc::clone(metrics))),
        settings: Arc::clone(settings),
    }))
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
fn deployment(settings: &DeploymentSettings, before: Option<&Deployment>) -> Deployment {
    let replicas = replicas(settings, before);
    let admission = match before {
        Some(before) => Arc::clone(&before.admission),
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

fn replicas(settings: &DeploymentSettings, before: Option<&Deployment>) -> Arc<ReplicaSet> {
    let wanted = &settings.replicas;
    let kept = before.map(|before| before.replicas.members());
    let kept = kept.as_deref().unwrap_or_default();
    // The hosts that one name means stand together.
    let groups = || kept.chunk_by(|one, next| one.settings() == next.settings());
    if let Some(before) = before
        && groups().map(|group| group[0].settings()).eq(wanted)
    {
        return Arc::clone(&before.replicas);
    }
    let members = wanted.iter().flat_map(|wanted| {
        let kept = groups().find(|group| group[0].settings() == wanted);
        kept.map_or_else(|| vec![new_replica(wanted, settings)], <[_]>::to_vec)
    });
    ReplicaSet::new(members.collect())
}

/// Puts into effect what of a published service is not in the snapshot: limits that outlive it.
pub(super) fn enact(service: &Service) {
    for (settings, deployment) in service.settings.deployments.iter().zip(&service.deployments) {
        deployment.admission.set_settings(settings.limits.admission);
        deployment.admission.set_replicas(deployment.replicas.serving());
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
