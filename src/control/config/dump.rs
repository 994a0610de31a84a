//! The effective configuration as text: overrides applied, defaults filled in, secrets by reference only.

use super::Loaded;
use super::decode::At;
use super::raw::Raw;
use super::settings::Config;
use crate::auth::AuthSettings;
use crate::catalog::AuthMode;
use crate::proxy::ServiceSettings;

impl Loaded {
    /// The effective configuration as YAML that [`super::load`] takes again. A secret is shown as the reference to it:
    /// the shape has no place for the secret itself.
    ///
    /// # Errors
    /// The serialiser's; none is known.
    pub fn dump(&self) -> Result<String, serde_saphyr::ser::Error> {
        let mut raw = self.raw.clone();
        fill_in(&mut raw, &self.config);
        serde_saphyr::to_string(&raw)
    }
}

/// The defaults that depend on other fields; the rest is in the raw shape already.
fn fill_in(raw: &mut Raw, config: &Config) {
    // Both lists are equally long: what was left out while resolving was an error, and there is none.
    for (raw, service) in raw.services.iter_mut().zip(&config.services) {
        let raw = &mut raw.value;
        raw.auth.get_or_insert_with(|| At::default_value(mode(service).into()));
        if let (Some(oidc), AuthSettings::Oidc(settings)) = (&mut raw.oidc, &service.auth) {
            oidc.value.audience.get_or_insert_with(|| At::default_value(settings.audience.clone()));
        }
        for (raw, deployment) in raw.deployments.iter_mut().zip(&service.deployments) {
            let raw = &mut raw.value;
            raw.traffic = Some(At::default_value(deployment.traffic.into()));
            let (own, paths) = (&mut raw.paths.value, &deployment.paths);
            own.score = paths.score.as_ref().map(|path| At::default_value(path.to_string()));
            own.swagger = paths.swagger.as_ref().map(|path| At::default_value(path.to_string()));
            own.health = Some(At::default_value(paths.health.to_string()));
        }
    }
}

const fn mode(service: &ServiceSettings) -> AuthMode {
    match service.auth {
        AuthSettings::None => AuthMode::None,
        AuthSettings::Key(_) => AuthMode::Key,
        AuthSettings::Token(_) => AuthMode::Token,
        AuthSettings::Oidc(_) => AuthMode::Oidc,
    }
}
