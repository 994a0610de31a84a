//! Listeners: addresses, certificates, PROXY peers.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::raw::{Raw, RawCertificate, RawListener, RawServerTls, RawTlsVersion};
use super::super::units::RawDuration;
use super::Resolver;
use super::field::Taken;
use crate::listener::ListenerSettings;
use crate::tls::{self, CertificateSource, CertificateWarning, ServerTlsSettings, TlsError, TlsVersionFloor};

impl Resolver<'_> {
    pub(super) fn listeners(&mut self, raw: &Raw, root: PlaceId) -> Vec<ListenerSettings> {
        if raw.listeners.is_empty() {
            self.report.missing(
                root,
                "listeners",
                "lists no listener; add one with name, address and tls (or plaintext: true)",
            );
        }
        let mut names = Taken::new();
        raw.listeners.iter().filter_map(|listener| self.listener(listener, &mut names)).collect()
    }

    fn listener(&mut self, raw: &At<RawListener>, names: &mut Taken) -> Option<ListenerSettings> {
        let name = self.name(raw.at, &raw.name, names);
        let address = self.required(raw.at, "address", &raw.address).and_then(|field| self.address(field));
        let tls = self.encryption(raw, address);
        let tenth = RawDuration::millis(100);
        let handshake_timeout = self.duration(&raw.handshake_timeout, tenth..=RawDuration::secs(300));
        let header_timeout = self.duration(&raw.header_timeout, tenth..=RawDuration::secs(600));
        let idle_timeout = self.duration(&raw.idle_timeout, RawDuration::secs(1)..=RawDuration::secs(3600));
        let max_connections = self.number(&raw.max_connections, 1..=1_000_000);
        let proxy_protocol_from = self.proxy_peers(raw);
        Some(ListenerSettings {
            name: name?.shared(),
            address: address?,
            tls,
            handshake_timeout,
            header_timeout,
            idle_timeout,
            max_connections,
            proxy_protocol_from,
        })
    }

    /// Exactly one of `tls` and `plaintext: true`.
    fn encryption(
        &mut self,
        raw: &At<RawListener>,
        address: Option<SocketAddr>,
    ) -> Option<ServerTlsSettings> {
        match (&raw.tls, raw.plaintext.value) {
            (Some(tls), false) => self.server_tls(tls),
            (Some(tls), true) => {
                self.report.error(raw.plaintext.at, "plaintext: true stands beside tls; remove one of them");
                self.server_tls(tls)
            }
            (None, true) => {
                if address.is_some_and(|address| !address.ip().is_loopback()) {
                    self.report.warning(
                        raw.plaintext.at,
                        "keys and data travel unencrypted over the network; use tls, or listen on 127.0.0.1",
                    );
                }
                None
            }
            (None, false) if self.report.is_lost(raw.at, "plaintext") => None,
            (None, false) => {
                self.report.missing(
                    raw.at,
                    "tls",
                    "is missing; add certificates, or say plaintext: true for loopback and sidecars",
                );
                None
            }
        }
    }

    pub(super) fn server_tls(&mut self, raw: &At<RawServerTls>) -> Option<ServerTlsSettings> {
        if raw.certificates.is_empty() {
            self.report.missing(
                raw.at,
                "certificates",
                "lists no certificate; add one as {cert: FILE, key: FILE}",
            );
            return None;
        }
        let certificates: Vec<_> =
            raw.certificates.iter().map(|certificate| self.certificate(certificate)).collect();
        let settings = ServerTlsSettings {
            certificates: certificates.into_iter().collect::<Option<_>>()?,
            client_ca: raw.client_ca.as_ref().map(|ca| self.files.note(ca)),
            min_version: match raw.min_version.value {
                RawTlsVersion::V1_2 => TlsVersionFloor::V1_2,
                RawTlsVersion::V1_3 => TlsVersionFloor::V1_3,
            },
        };
        match tls::server(&settings) {
            Ok(_) => Some(settings),
            Err(error) => {
                // The certificates are checked already: what is left is the bundle.
                let at = raw.client_ca.as_ref().map_or(raw.at, |ca| ca.at);
                self.report.error(at, error.to_string());
                None
            }
        }
    }

    /// A pair that can be read and belongs together.
    pub(super) fn certificate(&mut self, raw: &At<RawCertificate>) -> Option<CertificateSource> {
        let cert = self.required(raw.at, "cert", &raw.cert);
        let key = self.required(raw.at, "key", &raw.key);
        let (cert, key) = (cert?, key?);
        let source = CertificateSource { cert: self.files.note(cert), key: self.files.note(key) };
        match tls::load(&source) {
            Ok(loaded) => {
                for warning in loaded.warnings() {
                    let at = match warning {
                        CertificateWarning::KeyReadableByEverybody => key.at,
                        _ => cert.at,
                    };
                    self.report.warning(at, warning.to_string());
                }
                Some(source)
            }
            Err(error) => {
                let at = if is_about(&error, &source.key) { key.at } else { cert.at };
                self.report.error(at, error.to_string());
                None
            }
        }
    }

    fn proxy_peers(&mut self, raw: &At<RawListener>) -> Vec<IpNet> {
        let Some(proxy) = &raw.proxy_protocol else {
            return Vec::new();
        };
        if proxy.from.is_empty() {
            self.report.missing(
                proxy.at,
                "from",
                "lists nobody; add the load balancers' networks, or remove proxy_protocol",
            );
        }
        self.networks(&proxy.from)
    }

    /// No two sockets on one address.
    pub(super) fn distinct_addresses(&mut self, raw: &Raw) {
        let listeners = raw.listeners.iter().filter_map(|listener| listener.address.as_ref());
        let mut seen: Vec<(SocketAddr, PlaceId)> = Vec::new();
        let management = raw.management.as_ref().map(|management| &management.address);
        for field in listeners.chain(management).chain([&raw.observe.address]) {
            let Ok(address) = field.parse::<SocketAddr>() else {
                continue;
            };
            match seen.iter().find(|(other, _)| overlap(*other, address)) {
                // The default of observe stands nowhere; the listener that took it does.
                Some((_, first)) if field.at == PlaceId::NONE => self.report.error(
                    *first,
                    format!(
                        "{address} is the default of observe.address too; choose another port for one of them"
                    ),
                ),
                Some((_, first)) => {
                    let first = self.report.path(*first).to_owned();
                    self.report.error(
                        field.at,
                        format!("{address} is taken by {first} already; choose another port"),
                    );
                }
                None => {}
            }
            seen.push((address, field.at));
        }
    }
}

fn is_about(error: &TlsError, file: &std::path::Path) -> bool {
    error.file.as_deref() == Some(file)
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip()
            || (one.is_ipv4() == other.is_ipv4()
                && (one.ip().is_unspecified() || other.ip().is_unspecified())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_overlap_when_one_socket_would_hear_both() {
        let overlap = |one: &str, other: &str| super::overlap(one.parse().unwrap(), other.parse().unwrap());
        assert!(overlap("127.0.0.1:1", "127.0.0.1:1"));
        assert!(overlap("0.0.0.0:1", "127.0.0.1:1"));
        assert!(!overlap("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!overlap("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!overlap("127.0.0.1:1", "127.0.0.1:2"));
    }
}
