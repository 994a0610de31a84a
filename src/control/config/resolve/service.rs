//! Services: names, hosts, limits, CORS.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::raw::{Raw, RawCors, RawLimits, RawProtocol, RawService};
use super::super::units::{RawDuration, RawSize};
use super::Resolver;
use super::field::Taken;
use crate::auth::{IssuerSettings, TokenSettings};
use crate::catalog::{AtExpiry, ComputeType};
use crate::limit::{AdmissionSettings, ChosenBy, DeploymentLimits, Limits, QueueLength};
use crate::proxy::{CorsSettings, ServiceSettings};
use crate::route::host_problem;
use crate::upstream::Deadlines;

/// What must not be there twice over all services.
#[derive(Default)]
struct Seen {
    names: Taken,
    hosts: Taken,
}

impl Resolver<'_> {
    pub(super) fn services(
        &mut self,
        raw: &Raw,
        root: PlaceId,
        tokens: Option<&Arc<IssuerSettings>>,
    ) -> Vec<Arc<ServiceSettings>> {
        if raw.services.is_empty() && raw.management.is_none() {
            self.report.missing_warning(
                root,
                "services",
                "lists no service: every call will be answered 404; add one",
            );
        }
        let issuer = match (&raw.tokens, tokens) {
            (None, _) if self.report.is_lost(root, "tokens") => Issuer::Refused,
            (None, _) => Issuer::Absent,
            (Some(_), None) => Issuer::Refused,
            (Some(_), Some(tokens)) => Issuer::Ready(Arc::new(tokens.verification())),
        };
        let mut seen = Seen::default();
        let services = raw.services.iter();
        services.filter_map(|service| self.service(service, &issuer, &mut seen)).map(Arc::new).collect()
    }

    fn service(&mut self, raw: &At<RawService>, issuer: &Issuer, seen: &mut Seen) -> Option<ServiceSettings> {
        let name = self.name(raw.at, &raw.name, &mut seen.names);
        let compute_type =
            self.required(raw.at, "compute_type", &raw.compute_type).map(|field| field.value.into());
        let auth = compute_type.and_then(|compute_type| self.auth(raw, compute_type, name.as_ref(), issuer));
        let hosts = self.hosts(raw, &mut seen.hosts);
        let (limits, of_deployments) = self.limits(&raw.limits, compute_type);
        let cors = raw.cors.as_ref().map(|cors| self.cors(cors));
        let retry = self.retry(&raw.retry);
        let split = self.split_settings(raw);
        let collect = raw.data_collection.as_ref().map(|section| self.collect(section));
        let deployments = self.deployments(raw, of_deployments);
        let opens = Arc::new(self.opens(raw, &deployments));
        Some(ServiceSettings {
            name: name?,
            compute_type: compute_type?,
            hosts,
            opens,
            auth: auth?,
            at_expiry: AtExpiry::Finish,
            websocket: self.websocket(raw),
            limits,
            status_mapping: raw.status_mapping.value.into(),
            cors,
            retry,
            split,
            collect,
            deployments,
        })
    }

    fn hosts(&mut self, raw: &RawService, taken: &mut Taken) -> Vec<Arc<str>> {
        for field in &raw.hosts {
            match host_problem(field) {
                Some(problem) => self.report.error(field.at, problem),
                None => self.distinct(field, taken),
            }
        }
        raw.hosts.iter().map(|field| field.as_str().into()).collect()
    }

    fn limits(&mut self, raw: &RawLimits, compute_type: Option<ComputeType>) -> (Limits, DeploymentLimits) {
        let header_bytes = self.size(&raw.header_bytes, sizes(Limits::HEADER_BYTES));
        let answer = raw.answer_timeout.as_ref();
        let per_replica = raw.concurrent_requests_per_replica.as_ref();
        let queue_length = raw.queue_length.as_ref();
        let queue_length = match queue_length.map(|field| self.number(field, DeploymentLimits::QUEUE_LENGTH))
        {
            Some(length) => QueueLength::Fixed(length),
            None => compute_type.map_or(QueueLength::DEFAULT, QueueLength::default_of),
        };
        let limits = Limits {
            body_bytes: self.size(&raw.body_bytes, sizes(Limits::BODY_BYTES)),
            header_bytes: usize::try_from(header_bytes).unwrap_or(usize::MAX),
            request_body: self.duration(&raw.request_body_timeout, durations(Limits::WAITS)),
            response_write: self.duration(&raw.response_write_timeout, durations(Limits::WAITS)),
            answer: answer.map(|field| self.duration(field, durations(Limits::ANSWER))),
            rates: self.rates(raw),
        };
        let of_deployments = DeploymentLimits {
            upstream: Deadlines {
                connect: self.duration(&raw.connect_timeout, durations(DeploymentLimits::CONNECT)),
                first_byte: self.duration(&raw.scoring_timeout, durations(DeploymentLimits::ANSWER)),
                idle: self.duration(&raw.idle_timeout, durations(DeploymentLimits::ANSWER)),
            },
            admission: AdmissionSettings {
                chosen_by: ChosenBy::Owner,
                per_replica: per_replica.map(|field| self.number(field, DeploymentLimits::PER_REPLICA)),
                queue_wait: self.duration(&raw.queue_wait, durations(DeploymentLimits::QUEUE_WAIT)),
                queue_length,
            },
        };
        (limits, of_deployments)
    }

    /// A tunnel is one connection on both legs, which HTTP/2 replicas do not give.
    fn websocket(&mut self, raw: &RawService) -> bool {
        let deployments = raw.deployments.iter();
        let shared = deployments.map(|deployment| &deployment.protocol);
        if raw.websocket.value
            && let Some(h2) = shared.into_iter().find(|protocol| matches!(protocol.value, RawProtocol::H2))
        {
            self.report
                .error(h2.at, "a service with websocket: true needs replicas of protocol h1; change one");
        }
        raw.websocket.value
    }

    fn cors(&mut self, raw: &At<RawCors>) -> CorsSettings {
        if raw.origins.is_empty() {
            self.report.missing(
                raw.at,
                "origins",
                "lists no origin; add one such as https://app.example.org, or remove cors",
            );
        }
        let origins = raw
            .origins
            .iter()
            .filter_map(|field| {
                if let Some(problem) = origin_problem(field, raw.origins.len()) {
                    self.report.error(field.at, problem);
                }
                HeaderValue::from_str(field).ok()
            })
            .collect();
        let headers = raw
            .headers
            .iter()
            .filter_map(|field| {
                let name: Option<HeaderName> = field.parse().ok();
                if name.is_none() {
                    self.report.error(field.at, format!("'{}' is no header name; correct it", field.value));
                }
                name
            })
            .collect();
        CorsSettings {
            origins,
            headers,
            max_age: self.duration(&raw.max_age, RawDuration::secs(0)..=RawDuration::secs(24 * 60 * 60)),
        }
    }
}

/// Bounds in the words of the configuration.
pub(super) const fn durations(bounds: RangeInclusive<Duration>) -> RangeInclusive<RawDuration> {
    RawDuration(*bounds.start())..=RawDuration(*bounds.end())
}

pub(super) const fn sizes(bounds: RangeInclusive<u64>) -> RangeInclusive<RawSize> {
    RawSize(*bounds.start())..=RawSize(*bounds.end())
}

/// The gateway's own token issuer as services see it.
pub(super) enum Issuer {
    /// Not configured.
    Absent,
    /// Configured, but what is wrong with it is reported already.
    Refused,
    /// Usable.
    Ready(Arc<TokenSettings>),
}

/// Browsers send an origin as scheme, host and, unless it is the scheme's own, port (RFC 6454, section 6.2); it is compared
/// byte for byte.
fn origin_problem(origin: &str, count: usize) -> Option<String> {
    if origin == "*" {
        return (count > 1)
            .then(|| "'*' stands beside other origins; keep '*' alone or remove it".to_owned());
    }
    let canonical = Url::parse(origin)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .map(|url| url.origin().ascii_serialization());
    match canonical {
        Some(canonical) if canonical == origin => None,
        Some(canonical) => Some(format!("'{origin}' is not how browsers send it; write {canonical}")),
        None => Some(format!("'{origin}' is no origin; write one such as https://app.example.org")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for good in ["https://app.example.org", "http://localhost:3000", "*"] {
            assert_eq!(origin_problem(good, 1), None, "{good}");
        }
        for bad in [
            "https://app.example.org/",
            "https://App.example.org",
            "https://app.example.org:443",
            "app.example.org",
            "null",
            "*.example.org",
            "ftp://app.example.org",
        ] {
            assert!(origin_problem(bad, 1).is_some(), "{bad}");
        }
        assert!(origin_problem("*", 2).is_some());
    }
}
