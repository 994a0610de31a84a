//! From the settings of one service to the service, ready to serve; what has not changed lives on.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;

use crate::auth::{Authenticator, JwksRegistry};
use crate::limit::Admission;
use crate::proxy::{Deployment, DeploymentSettings, PreparedCors, Service, ServiceSettings};
use crate::route::Split;
use crate::upstream::{Replica, ReplicaSet};

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

/// The sets of replicas of a service that is published now decide over their replicas.
pub(super) fn take_charge(service: &Service) {
    for deployment in &service.deployments {
        deployment.replicas.take_charge(|_serving| {});
    }
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

/// Replicas and the places of a deployment live on while their settings stay the same, so that a change neither loses
/// count of the calls in flight nor lets in more than the limit.
fn deployment(
    (service, settings): (&ServiceSettings, &DeploymentSettings),
    before: Option<Before<'_>>,
) -> Deployment {
    let replicas = replicas((service, settings), before);
    let kept = before.filter(|before| before.running.admission.settings() == &settings.limits.admission);
    let kept = kept.filter(|before| before.settings.replicas.len() == settings.replicas.len());
    let admission = match kept {
        Some(before) => Arc::clone(&before.running.admission),
        None => Arc::new(Admission::new(settings.limits.admission, settings.replicas.len())),
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
        let members = settings.replicas.iter().cloned().map(Replica::new);
        let name = format!("{}/{}", service.name, settings.name);
        return ReplicaSet::new(name, settings.balancing.clone(), members.collect());
    };
    if old.replicas == settings.replicas && old.balancing == settings.balancing {
        return Arc::clone(&running.replicas);
    }
    let kept = running.replicas.members();
    let members = settings.replicas.iter().map(|wanted| {
        let kept = kept.iter().find(|kept| kept.settings() == wanted);
        kept.map_or_else(|| Replica::new(wanted.clone()), Arc::clone)
    });
    ReplicaSet::in_place_of(&running.replicas, settings.balancing.clone(), members.collect())
}
