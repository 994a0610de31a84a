//! The one auth mode of a service and what it needs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use url::Url;

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::raw::{RawJwks, RawKeys, RawOidc, RawSecret, RawService};
use super::super::secret::Purpose;
use super::super::units::RawDuration;
use super::Resolver;
use super::service::Issuer;
use crate::auth::{AuthSettings, JwksSource, KeyDigest, KeySettings, OidcSettings};
use crate::catalog::{AuthMode, ComputeType, ServiceName};

impl Resolver<'_> {
    /// The service's auth mode; a section that belongs to another mode is refused.
    pub(super) fn auth(
        &mut self,
        raw: &At<RawService>,
        compute_type: ComputeType,
        name: Option<&ServiceName>,
        issuer: &Issuer,
    ) -> Option<AuthSettings> {
        let mode = match &raw.auth {
            Some(field) => field.value.into(),
            None if self.report.is_lost(raw.at, "auth") => return None,
            None => compute_type.default_auth(),
        };
        // A default is never refused.
        let refused = raw.auth.as_ref().zip(compute_type.refuses(mode));
        if let Some((field, reason)) = &refused {
            self.report.error(field.at, *reason);
        }
        let origin =
            if raw.auth.is_some() { String::new() } else { format!(", the default of {compute_type}") };
        if let (Some(keys), false) = (&raw.keys, mode == AuthMode::Key) {
            self.foreign(keys.at, ("keys", AuthMode::Key), mode, &origin);
        }
        if let (Some(oidc), false) = (&raw.oidc, mode == AuthMode::Oidc) {
            self.foreign(oidc.at, ("oidc", AuthMode::Oidc), mode, &origin);
        }
        if refused.is_some() {
            return None;
        }
        match mode {
            AuthMode::None => Some(AuthSettings::None),
            AuthMode::Key => {
                match &raw.keys {
                    Some(keys) => self.keys(keys).map(AuthSettings::Key),
                    None => {
                        self.report.missing(
                        raw.at,
                        "keys",
                        format!("is missing, but auth is key{origin}; add keys with a primary, or another auth"),
                    );
                        None
                    }
                }
            }
            AuthMode::Token => self.token(raw, issuer),
            AuthMode::Oidc => match &raw.oidc {
                Some(oidc) => self.oidc(oidc, name).map(AuthSettings::Oidc),
                None => {
                    self.report.missing(
                        raw.at,
                        "oidc",
                        "is missing, but auth is oidc; add oidc with issuer and jwks",
                    );
                    None
                }
            },
        }
    }

    /// Two modes at once: the section of one beside another one.
    fn foreign(
        &mut self,
        at: PlaceId,
        (section, belongs_to): (&str, AuthMode),
        mode: AuthMode,
        origin: &str,
    ) {
        self.report.error(
            at,
            format!(
                "a service has one auth mode, and this one's is {mode}{origin}; remove {section}, or write auth: {belongs_to}"
            ),
        );
    }

    fn keys(&mut self, raw: &At<RawKeys>) -> Option<KeySettings> {
        let primary =
            self.required(raw.at, "primary", &raw.primary).and_then(|reference| self.key(reference));
        let secondary = match &raw.secondary {
            Some(reference) => Some(self.key(reference)?),
            None => None,
        };
        let primary = primary?;
        if let (Some(reference), true) = (&raw.secondary, secondary == Some(primary)) {
            self.report.error(
                reference.at,
                "is the same key as primary; give each its own, so that one can be changed without a gap",
            );
        }
        Some(KeySettings { primary, secondary })
    }

    fn key(&mut self, reference: &At<RawSecret>) -> Option<KeyDigest> {
        let key = self.secret(reference, Purpose::Key)?;
        let digest = KeyDigest::of(&key);
        if let Err(error) = &digest {
            self.report.error(reference.at, error.problem.clone());
        }
        digest.ok()
    }

    fn token(&mut self, raw: &RawService, issuer: &Issuer) -> Option<AuthSettings> {
        match issuer {
            Issuer::Ready(settings) => Some(AuthSettings::Token(Arc::clone(settings))),
            Issuer::Refused => None,
            Issuer::Absent => {
                // No compute type has token for its default, so the field is there.
                let at = raw.auth.as_ref().map_or(PlaceId::NONE, |field| field.at);
                self.report.error(
                    at,
                    "needs the gateway's own token issuer; add tokens: {issuer, signing_key} at the top",
                );
                None
            }
        }
    }

    fn oidc(&mut self, raw: &At<RawOidc>, name: Option<&ServiceName>) -> Option<OidcSettings> {
        let issuer = self.required(raw.at, "issuer", &raw.issuer);
        let issuer = issuer.map(|issuer| self.text(issuer));
        let audience = match &raw.audience {
            Some(audience) => Some(self.text(audience)),
            None => name.map(|name| name.as_str().to_owned()),
        };
        let jwks = self.required(raw.at, "jwks", &raw.jwks).and_then(|jwks| self.jwks(jwks));
        let leeway = self.leeway(&raw.leeway);
        Some(OidcSettings { issuer: issuer?, audience: audience?, jwks: jwks?, leeway })
    }

    pub(super) fn jwks(&mut self, raw: &At<RawJwks>) -> Option<JwksSource> {
        match (&raw.file, &raw.url) {
            (Some(file), None) => {
                if let Some(ca) = &raw.ca {
                    self.report.error(ca.at, "goes with url, not with file; remove it");
                }
                self.jwks_file(file)
            }
            (None, Some(field)) => {
                let url = self.url(field);
                let ca = match &raw.ca {
                    Some(ca) => self.bundle(ca)?,
                    None => Vec::new(),
                };
                let url = url?;
                if url.scheme() == "http" && !is_loopback(&url) {
                    self.report.error(
                        field.at,
                        "is fetched without encryption, so that anybody on the way can put in keys; write https://",
                    );
                }
                Some(JwksSource::Url { url, ca })
            }
            (Some(_), Some(_)) => {
                self.report.error(raw.at, "has both 'file' and 'url'; keep one of them");
                None
            }
            (None, None) => {
                self.report.error(raw.at, "names no key set; write {file: PATH} or {url: URL}");
                None
            }
        }
    }

    fn jwks_file(&mut self, file: &At<String>) -> Option<JwksSource> {
        let path = self.files.locate(file);
        let problem = match self.files.read(&path) {
            Err(error) => format!(
                "{} cannot be read ({error}); check the path and that this process may read it",
                path.display()
            ),
            Ok(bytes) if !is_key_set(&bytes) => format!(
                "{} is no JSON Web Key Set; it must be a JSON object with a list 'keys'",
                path.display()
            ),
            Ok(_) => return Some(JwksSource::File(path)),
        };
        self.report.error(file.at, problem);
        None
    }

    fn bundle(&mut self, file: &At<String>) -> Option<Vec<CertificateDer<'static>>> {
        let path = self.files.locate(file);
        let problem = match self.files.read(&path) {
            Err(error) => format!("cannot be read ({error}); check the path"),
            Ok(bytes) => match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
                Ok(certificates) if !certificates.is_empty() => return Some(certificates),
                _ => "holds no certificate; give a PEM file with BEGIN CERTIFICATE".to_owned(),
            },
        };
        self.report.error(file.at, format!("{} {problem}", path.display()));
        None
    }

    pub(super) fn leeway(&mut self, field: &At<RawDuration>) -> Duration {
        self.duration(field, RawDuration::secs(0)..=RawDuration::secs(600))
    }
}

/// Each key is judged when it is used: a set may hold kinds that are not known here.
fn is_key_set(json: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(json)
        .is_ok_and(|value| value.get("keys").is_some_and(serde_json::Value::is_array))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}
