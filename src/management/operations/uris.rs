//! The URIs that are given out for services.

use super::{Operations, ServiceUris};
use crate::catalog::{ComputeType, ServiceEntry};
use crate::route::SERVICE_PREFIX;

impl Operations {
    /// The URIs that are given out for `service`: by the template of its compute type, else the path form under the
    /// gateway's public URL. The description is beside the model, as the Azure SDK v1 expects: the last segment of the
    /// scoring URI replaced by `swagger.json`.
    #[must_use]
    pub fn uris(&self, service: &ServiceEntry) -> ServiceUris {
        let templates = &self.settings.uri_templates;
        let template = match service.spec.compute_type {
            ComputeType::Aci => &templates.aci,
            ComputeType::Aks => &templates.aks,
            ComputeType::Managed => &templates.managed,
        };
        let name = service.name.as_str();
        let scoring = match template {
            Some(template) => template.replace("{service}", name),
            None => {
                let base = self.settings.public_url.as_str().trim_end_matches('/');
                format!("{base}{SERVICE_PREFIX}{name}/score")
            }
        };
        ServiceUris { swagger: beside(&scoring, "swagger.json"), scoring }
    }
}

/// `uri` with another last segment of its path.
fn beside(uri: &str, segment: &str) -> String {
    let path = uri.find("://").map_or(0, |scheme| scheme + "://".len());
    match uri[path..].rfind('/') {
        Some(slash) => format!("{}/{segment}", &uri[..path + slash]),
        None => format!("{uri}/{segment}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Gateway, settings};
    use super::*;
    use crate::catalog::{Origin, ServiceName, ServiceSpec};
    use crate::management::operations::{OperationsSettings, UriTemplates};

    fn uris(settings: OperationsSettings, compute_type: ComputeType) -> [String; 2] {
        let gateway = Gateway::with(settings);
        let service = ServiceEntry {
            name: ServiceName::parse("iris").unwrap(),
            workspace: "ws".into(),
            spec: ServiceSpec::new(compute_type),
            origin: Origin::Managed,
            provenance: gateway.operations.declared_provenance(),
        };
        let ServiceUris { scoring, swagger } = gateway.operations.uris(&service);
        [scoring, swagger]
    }

    #[test]
    fn the_path_form_stands_in_for_a_template() {
        let at =
            |public_url: &str| OperationsSettings { public_url: public_url.parse().unwrap(), ..settings() };
        for base in
            ["https://score.example.org:8443", "https://example.org/base/", "https://example.org/base"]
        {
            let expected = format!("{}/api/v1/service/iris", base.trim_end_matches('/'));
            let found = uris(at(base), ComputeType::Aks);
            assert_eq!(found, [format!("{expected}/score"), format!("{expected}/swagger.json")]);
        }
    }

    #[test]
    fn a_template_is_of_one_compute_type() {
        let templates = UriTemplates {
            aci: Some("https://{service}.aci.example/score".into()),
            ..UriTemplates::default()
        };
        let settings = || OperationsSettings { uri_templates: templates.clone(), ..settings() };
        let aci = uris(settings(), ComputeType::Aci);
        assert_eq!(aci, ["https://iris.aci.example/score", "https://iris.aci.example/swagger.json"]);
        assert!(uris(settings(), ComputeType::Managed)[0].starts_with("https://score.example.org/api/v1/"));
        assert_eq!(beside("https://iris.example", "swagger.json"), "https://iris.example/swagger.json");
    }
}
