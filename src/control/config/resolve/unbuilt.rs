//! Parts of the contract that this version does not act on: checked for shape, and said so.

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::raw::{Raw, RawManagement, RawSecret, RawStore, RawStoreKind};
use super::Resolver;

impl Resolver<'_> {
    pub(super) fn unbuilt(&mut self, raw: &Raw) {
        if let Some(templates) = &raw.uri_templates {
            for field in [&templates.aci, &templates.aks, &templates.managed].into_iter().flatten() {
                self.template(field, &["{service}"]);
            }
            self.no_effect(templates.at);
        }
        if let Some(field) = &raw.replica_template {
            self.template(field, &["{service}", "{namespace}"]);
            self.no_effect(field.at);
        }
        if let Some(management) = &raw.management {
            self.management(management);
            self.no_effect(management.at);
        }
        if let Some(store) = &raw.store {
            self.store(store);
        }
        if let Some(insights) = &raw.telemetry.application_insights {
            let reference = self.required(insights.at, "connection_string", &insights.connection_string);
            if let Some(reference) = reference {
                self.reference(reference);
            }
            self.no_effect(insights.at);
        }
        if let Some(otlp) = &raw.telemetry.otlp {
            if let Some(field) = self.required(otlp.at, "endpoint", &otlp.endpoint) {
                self.url(field);
            }
            self.no_effect(otlp.at);
        }
    }

    fn no_effect(&mut self, at: PlaceId) {
        self.report.warning(at, "has no effect in this version of scoregate");
    }

    fn management(&mut self, raw: &At<RawManagement>) {
        self.address(&raw.address);
        if let Some(tls) = self.required(raw.at, "tls", &raw.tls) {
            for certificate in &tls.certificates {
                self.required(certificate.at, "cert", &certificate.cert);
                self.required(certificate.at, "key", &certificate.key);
            }
        }
        if let Some(reference) = &raw.bootstrap_token {
            self.reference(reference);
        }
    }

    fn store(&mut self, raw: &At<RawStore>) {
        if let Some(reference) = &raw.url {
            self.reference(reference);
        }
        match raw.kind.value {
            RawStoreKind::None => return,
            RawStoreKind::Embedded => {
                self.required(raw.at, "path", &raw.path);
            }
            RawStoreKind::Postgres => {
                self.required(raw.at, "url", &raw.url);
            }
        }
        self.no_effect(raw.at);
    }

    /// The secret itself is not read: nothing would use it.
    fn reference(&mut self, raw: &At<RawSecret>) {
        if raw.file.is_some() == raw.env.is_some() {
            self.report.error(raw.at, "must be exactly one of {file: PATH} and {env: NAME}");
        }
    }

    fn template(&mut self, field: &At<String>, placeholders: &[&str]) {
        let mut text = field.value.clone();
        for placeholder in placeholders {
            text = text.replace(placeholder, "name");
        }
        if !field.contains("{service}") {
            self.report.error(field.at, "does not contain {service}; put it in");
        } else if text.contains(['{', '}']) {
            self.report.error(
                field.at,
                format!("has a placeholder that is not known; known are {}", placeholders.join(" and ")),
            );
        } else {
            self.url(&At { value: text, at: field.at });
        }
    }
}
