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

/// Replicas and the places of a deployment live on while their settings stay the same, so that a change neither loses
/// count of the calls in flight nor lets in more than the limit.
fn deployment(settings: &DeploymentSettings, before: Option<&Deployment>) -> Deployment {
    let replicas = replicas(settings, before);
    let members = replicas.members().len();
    let kept = before.filter(|before| {
        before.admission.settings() == &settings.limits.admission
            && before.replicas.members().len() == members
    });
    let admission = match kept {
        Some(before) => Arc::clone(&before.admission),
        None => Arc::new(Admission::new(settings.limits.admission, members)),
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
    if let Some(before) = before
        && kept.iter().map(|replica| replica.settings()).eq(wanted)
    {
        return Arc::clone(&before.replicas);
    }
    let members = wanted.iter().map(|wanted| {
        let kept = kept.iter().find(|kept| kept.settings() == wanted);
        kept.map_or_else(|| Replica::new(wanted.clone()), Arc::clone)
    });
    ReplicaSet::new(members.collect())
}
