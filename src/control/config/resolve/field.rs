//! Checks of single values that several sections share.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::units::{RawDuration, RawSize};
use super::Resolver;
use crate::catalog::ServiceName;

/// Longest DNS name and label, in bytes (RFC 1035, section 2.3.4).
const MAX_DNS_NAME: usize = 253;
const MAX_DNS_LABEL: usize = 63;

impl Resolver<'_> {
    /// A duration within `bounds`.
    pub(super) fn duration(
        &mut self,
        field: &At<RawDuration>,
        bounds: RangeInclusive<RawDuration>,
    ) -> Duration {
        self.within(field.at, &field.value, &bounds);
        field.value.0
    }

    /// A size within `bounds`.
    pub(super) fn size(&mut self, field: &At<RawSize>, bounds: RangeInclusive<RawSize>) -> u64 {
        self.within(field.at, &field.value, &bounds);
        field.value.0
    }

    /// A number within `bounds`.
    pub(super) fn number(&mut self, field: &At<u32>, bounds: RangeInclusive<u32>) -> u32 {
        self.within(field.at, &field.value, &bounds);
        field.value
    }

    pub(super) fn within<T: PartialOrd + std::fmt::Display>(
        &mut self,
        at: PlaceId,
        value: &T,
        bounds: &RangeInclusive<T>,
    ) {
        if !bounds.contains(value) {
            self.report.error(
                at,
                format!("{value} is out of range; allowed are {} to {}", bounds.start(), bounds.end()),
            );
        }
    }

    /// The value of a field that must be there.
    pub(super) fn required<'raw, T>(
        &mut self,
        section: PlaceId,
        name: &str,
        field: &'raw Option<At<T>>,
    ) -> Option<&'raw At<T>> {
        if field.is_none() {
            self.report.missing(section, name, "is missing; add it");
        }
        field.as_ref()
    }

    /// A name of the common rule that is not in `taken` yet.
    pub(super) fn name(
        &mut self,
        section: PlaceId,
        field: &Option<At<String>>,
        taken: &mut Taken,
    ) -> Option<ServiceName> {
        let field = self.required(section, "name", field)?;
        match ServiceName::parse(field) {
            Ok(name) => {
                self.distinct(field, taken);
                Some(name)
            }
            Err(error) => {
                self.report.error(field.at, format!("{error}; choose another name"));
                None
            }
        }
    }

    /// Refuses a value that is in `taken` already.
    pub(super) fn distinct(&mut self, field: &At<String>, taken: &mut Taken) {
        match taken.get(field.value.as_str()) {
            Some(first) => {
                let message = format!(
                    "'{}' is at {} ({}) already; each may be there once",
                    field.value,
                    self.report.position(*first),
                    self.report.path(*first),
                );
                self.report.error(field.at, message);
            }
            None => {
                taken.insert(field.value.clone(), field.at);
            }
        }
    }

    /// An IP address with a port.
    pub(super) fn address(&mut self, field: &At<String>) -> Option<SocketAddr> {
        let address = field.parse().ok();
        if address.is_none() {
            self.report.error(
                field.at,
                format!(
                    "'{}' is no address; write an IP address and a port, such as 0.0.0.0:8443 or [::]:8443",
                    field.value
                ),
            );
        }
        address
    }

    /// An absolute http or https URL with a host and without credentials, query or fragment.
    pub(super) fn url(&mut self, field: &At<String>) -> Option<Url> {
        match parse_url(field) {
            Ok(url) => Some(url),
            Err(problem) => {
                self.report.error(field.at, problem);
                None
            }
        }
    }

    /// A field of text that must not be empty.
    pub(super) fn text(&mut self, field: &At<String>) -> String {
        if field.trim().is_empty() {
            self.report.error(field.at, "is empty; write a value");
        }
        field.value.clone()
    }
}

/// Where each value that may be there once was first seen.
pub(super) type Taken = HashMap<String, PlaceId>;

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            "has no scheme; write http:// or https:// before it".to_owned()
        }
        error => format!("is no usable URL ({error}); write one such as http://127.0.0.1:5001"),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("has the scheme '{}'; write http:// or https://", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds credentials; remove what stands before the '@'".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment; remove what begins with '?' or '#'".to_owned());
    }
    if url.port() == Some(0) {
        return Err("has port 0; write the port".to_owned());
    }
    Ok(url)
}

/// Why `host` cannot be the host of a service; `None` if it can.
pub(super) fn host_problem(host: &str) -> Option<String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        let canonical = address.to_string();
        return (canonical != host).then(|| format!("'{host}' is to be written {canonical}"));
    }
    let lower = host.to_ascii_lowercase();
    if lower != host {
        return Some(format!("'{host}' is not lower case; write {lower}"));
    }
    if host.contains("://") || host.contains('/') {
        return Some(format!("'{host}' is a URL; write the host alone"));
    }
    if host.contains(['[', ':']) {
        return Some(format!("'{host}' has a port or brackets; write the name or address alone"));
    }
    if host.contains('*') {
        return Some(format!("'{host}' is a pattern; list each host by its full name"));
    }
    let label_is_good = |label: &str| {
        (1..=MAX_DNS_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
    };
    let good = host.len() <= MAX_DNS_NAME && host.split('.').all(label_is_good);
    (!good).then(|| format!("'{host}' is no host name; write one such as iris.example.org"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_names_or_canonical_addresses() {
        for good in ["iris", "iris.example.org", "127.0.0.1", "::1", "a_b.local"] {
            assert_eq!(host_problem(good), None, "{good}");
        }
        for bad in [
            "",
            "Iris.example.org",
            "iris.example.org:443",
            "iris.example.org.",
            "[::1]",
            "0:0::1",
            "*.example.org",
            "https://iris.example.org",
            "-a.example",
            "a..b",
            "schl\u{fc}ssel.example",
        ] {
            assert!(host_problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn urls_are_http_with_a_host_and_nothing_behind_it() {
        for good in ["http://h", "https://h:1/base", "http://[::1]:5001"] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in [
            "h:5001",
            "//h",
            "http://",
            "ftp://h",
            "http://u:p@h",
            "http://h?a",
            "http://h#a",
            "http://h:0",
            "http://h:99999",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
