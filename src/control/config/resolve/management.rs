//! The management plane: its address, its store, who may log in, what it gives out.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::raw::{
    Raw, RawAddressPolicy, RawIssuer, RawManagement, RawSecret, RawStore, RawStoreKind, RawUriTemplates,
    RawWrappingKey,
};
use super::super::secret::Purpose;
use super::super::settings::{
    AddressPolicySettings, KeyReference, ManagementSettings, StoreSettings, UriTemplateSettings,
};
use super::super::units::RawDuration;
use super::Resolver;
use crate::auth::{IssuerSettings, OidcSettings, OutsideSettings};

/// Shortest bootstrap token, in characters; it opens everything.
const MIN_BOOTSTRAP_TOKEN: usize = 20;
/// Longest one.
const MAX_BOOTSTRAP_TOKEN: usize = 512;
const DAY: u64 = 24 * 60 * 60;

impl Resolver<'_> {
    pub(super) fn management(&mut self, raw: &Raw) -> Option<ManagementSettings> {
        let store = raw.store.as_ref().and_then(|store| self.store(store));
        let Some(management) = &raw.management else {
            if let (Some(field), true) = (&raw.store, store.is_some()) {
                self.report.warning(field.at, "is not opened without a management plane; add management");
            }
            return None;
        };
        if store.is_none() {
            self.needs_a_store(management.at, raw.store.as_ref());
        }
        let address = self.address(&management.address);
        let tls = self.required(management.at, "tls", &management.tls).and_then(|tls| self.server_tls(tls));
        let bootstrap_token =
            management.bootstrap_token.as_ref().and_then(|reference| self.bootstrap_token(reference));
        let issuers: Vec<_> = management.issuers.iter().map(|issuer| self.issuer(issuer)).collect();
        let address_policy = self.address_policy(&management.address_policy);
        let (activity_retention, token_lifetime) = self.management_times(management);
        Some(ManagementSettings {
            address: address?,
            tls: tls?,
            bootstrap_token,
            issuers: issuers.into_iter().collect::<Option<_>>()?,
            address_policy,
            activity_retention,
            token_lifetime,
            store: store?,
        })
    }

    /// A management plane without a store, said once.
    fn needs_a_store(&mut self, management: PlaceId, store: Option<&At<RawStore>>) {
        let none = store.is_none_or(|store| store.kind.value == RawStoreKind::None);
        if none {
            self.report.error(
                management,
                "needs a store, and store.kind is none; write store: {kind: embedded, path: DIRECTORY}",
            );
        }
    }

    fn management_times(&mut self, raw: &RawManagement) -> (Duration, Duration) {
        let retention = RawDuration::secs(DAY)..=RawDuration::secs(3650 * DAY);
        let (shortest, longest) = IssuerSettings::LIFETIMES.into_inner();
        (
            self.duration(&raw.activity_retention, retention),
            self.duration(&raw.token_lifetime, RawDuration(shortest)..=RawDuration(longest)),
        )
    }

    fn bootstrap_token(&mut self, reference: &At<RawSecret>) -> Option<SecretString> {
        let token = self.secret(reference, Purpose::Key)?;
        let length = token.expose_secret().len();
        if (MIN_BOOTSTRAP_TOKEN..=MAX_BOOTSTRAP_TOKEN).contains(&length) {
            return Some(token);
        }
        self.report.error(
            reference.at,
            format!(
                "the token has {length} characters; allowed are {MIN_BOOTSTRAP_TOKEN} to {MAX_BOOTSTRAP_TOKEN}, random ones"
            ),
        );
        None
    }

    fn issuer(&mut self, raw: &At<RawIssuer>) -> Option<OutsideSettings> {
        let issuer = self.required(raw.at, "issuer", &raw.issuer);
        let issuer = issuer.map(|issuer| self.text(issuer));
        let audience = self.required(raw.at, "audience", &raw.audience);
        let audience = audience.and_then(|audience| {
            let text = self.text(audience);
            match OutsideSettings::audience_problem(&text) {
                None => Some(text),
                Some(problem) => {
                    self.report.error(audience.at, format!("'{text}' {problem}"));
                    None
                }
            }
        });
        let jwks = self.required(raw.at, "jwks", &raw.jwks).and_then(|jwks| self.jwks(jwks));
        let prefix = raw.prefix.value.clone();
        let subject_claim = self.text(&raw.subject_claim);
        let groups_claim = self.text(&raw.groups_claim);
        let leeway = self.leeway(&raw.leeway);
        let oidc = OidcSettings { issuer: issuer?, audience: audience?, jwks: jwks?, leeway };
        Some(OutsideSettings { oidc, subject_claim, groups_claim, prefix })
    }

    fn address_policy(&mut self, raw: &RawAddressPolicy) -> AddressPolicySettings {
        AddressPolicySettings { allow: self.networks(&raw.allow), deny: self.networks(&raw.deny) }
    }

    pub(super) fn networks(&mut self, fields: &[At<String>]) -> Vec<IpNet> {
        let mut networks = Vec::with_capacity(fields.len());
        for field in fields {
            match network(field) {
                Some(network) => networks.push(network),
                None => self.report.error(
                    field.at,
                    format!(
                        "'{}' is no network; write one such as 10.0.0.0/8, or an IP address",
                        field.value
                    ),
                ),
            }
        }
        networks
    }

    fn store(&mut self, raw: &At<RawStore>) -> Option<StoreSettings> {
        if let Some(reference) = &raw.url {
            self.reference(reference);
            self.no_effect(reference.at);
        }
        match raw.kind.value {
            RawStoreKind::None => None,
            RawStoreKind::Embedded => {
                let path = self.required(raw.at, "path", &raw.path);
                let path = path.map(|path| {
                    self.text(path);
                    self.files.locate(path)
                });
                let key = raw.key.as_ref().map(|key| self.wrapping_key(key));
                Some(StoreSettings { path: path?, key: key.map_or(Some(None), |key| key.map(Some))? })
            }
            RawStoreKind::Postgres => {
                self.report.error(raw.kind.at, "postgres is not in this version; write embedded, or none");
                None
            }
        }
    }

    /// Names the key; it is read when the store is opened, since it may have to be made.
    fn wrapping_key(&mut self, raw: &At<RawWrappingKey>) -> Option<KeyReference> {
        match (&raw.file, &raw.env, &raw.exec) {
            (Some(file), None, None) => Some(KeyReference::File(self.files.locate(file))),
            (None, Some(env), None) => {
                if !self.variables.contains_key(env.value.as_str()) {
                    let unset = "this environment variable is not set; set it or correct the name";
                    self.report.error(env.at, unset);
                }
                Some(KeyReference::Env(env.value.clone()))
            }
            (None, None, Some(command)) => {
                if command.first().is_none_or(|program| program.trim().is_empty()) {
                    self.report.error(command.at, "names no program; write [PROGRAM, ARGUMENT]");
                }
                Some(KeyReference::Exec(command.value.clone()))
            }
            _ => {
                let form = "must be exactly one of {file: PATH}, {env: NAME} and {exec: [PROGRAM, ARGUMENT]}";
                self.report.error(raw.at, form);
                None
            }
        }
    }

    pub(super) fn uri_templates(&mut self, raw: &RawUriTemplates) -> UriTemplateSettings {
        let mut template =
            |field: &Option<At<String>>| field.as_ref().map(|field| self.template(field, &["{service}"]));
        UriTemplateSettings {
            aci: template(&raw.aci),
            aks: template(&raw.aks),
            managed: template(&raw.managed),
        }
    }

    pub(super) fn replica_template(&mut self, field: &At<String>) -> String {
        self.template(field, &["{service}", "{namespace}"])
    }

    fn template(&mut self, field: &At<String>, placeholders: &[&str]) -> String {
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
        field.value.clone()
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_prefixes_or_single_addresses() {
        assert_eq!(network("10.0.0.1"), "10.0.0.1/32".parse().ok());
        assert_eq!(network("fd00::/8"), "fd00::/8".parse().ok());
        assert_eq!(network("10.0.0.0/33"), None);
        assert_eq!(network("balancer"), None);
    }
}
