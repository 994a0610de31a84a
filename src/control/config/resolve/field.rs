//! Checks of single values that several sections share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::units::{RawDuration, RawSize};
use super::Resolver;
use crate::catalog::ServiceName;
use crate::upstream;

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
        match upstream::http_url(field) {
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
