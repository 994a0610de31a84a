//! The export to OpenTelemetry: each field from the configuration, or else from the environment.

mod environment;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use url::Url;

use super::super::decode::At;
use super::super::document::PlaceId;
use super::super::raw::{RawCompression, RawOtlp, RawOtlpProtocol, RawSampling, RawTelemetry};
use super::super::secret::Purpose;
use super::super::units::RawDuration;
use super::Resolver;
use crate::telemetry::otlp::{
    CollectorSettings, Failed, GenAi, LogsSettings, MetricsSettings, OtlpCompression, OtlpHeaders,
    OtlpProtocol, OtlpSettings, SamplingSettings, TracesSettings,
};
use crate::telemetry::trace::SampleRatio;
use environment::{Endpoint, Environment, Found, Problem};

const TIMEOUTS: RangeInclusive<RawDuration> = RawDuration::millis(100)..=RawDuration::secs(60);
const INTERVALS: RangeInclusive<RawDuration> = RawDuration::secs(1)..=RawDuration::secs(3600);
const SLOW: RangeInclusive<RawDuration> = RawDuration::millis(1)..=RawDuration::secs(3600);
/// What the specification has where nobody says anything.
const TIMEOUT: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_secs(60);
/// The registered port of OTLP/gRPC.
const GRPC_PORT: u16 = 4317;
/// Fields that say what a message is.
const OURS: [&str; 8] = [
    "content-type",
    "content-encoding",
    "content-length",
    "transfer-encoding",
    "host",
    "te",
    "connection",
    "user-agent",
];

/// What is exported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signal {
    Traces,
    Logs,
    Metrics,
}

/// What the section says for all signals; `None`: nothing.
struct Configured {
    endpoint: Option<Url>,
    protocol: Option<OtlpProtocol>,
    headers: Vec<(HeaderName, HeaderValue)>,
    ca: Option<PathBuf>,
    compression: Option<OtlpCompression>,
    timeout: Option<Duration>,
}

/// The environment, whose mistakes are told once at the section.
struct Variables<'a> {
    environment: Environment<'a>,
    section: PlaceId,
    told: BTreeSet<String>,
}

impl Signal {
    /// As it stands in the names of variables.
    const fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }

    /// Behind an endpoint of all signals (OTLP/HTTP).
    const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Logs => "/v1/logs",
            Self::Metrics => "/v1/metrics",
        }
    }
}

impl Resolver<'_> {
    pub(super) fn otlp(&mut self, raw: &RawTelemetry) -> Option<OtlpSettings> {
        let section = raw.otlp.as_ref()?;
        let configured = self.configured(section);
        let spool = self.spool(&raw.spool, section.spool.as_ref());
        let variables = self.variables;
        let mut variables =
            Variables { environment: Environment(variables), section: section.at, told: BTreeSet::new() };
        let sampling = self.sampling(&section.sampling, &mut variables);
        let interval = self.interval(section, &mut variables);
        let resource = self.resource(section, &mut variables);
        let mut collector = |signal, wanted: Option<&At<bool>>| {
            let wanted = match wanted {
                Some(wanted) => wanted.value,
                None => self.found(variables.environment.exports(signal), &mut variables).unwrap_or(true),
            };
            wanted.then(|| self.collector(&configured, signal, &mut variables)).flatten()
        };
        let traces = collector(Signal::Traces, section.traces.as_ref());
        let logs = collector(Signal::Logs, section.logs.as_ref());
        let metrics = collector(Signal::Metrics, section.metrics.as_ref());
        if variables.environment.is_disabled() {
            self.report.warning(section.at, "nothing is exported: $OTEL_SDK_DISABLED is true");
            return None;
        }
        Some(OtlpSettings {
            resource,
            gen_ai: if section.gen_ai.value { GenAi::Shown } else { GenAi::LeftOut },
            traces: traces.map(|collector| TracesSettings { collector, sampling, spool: spool.clone() }),
            logs: logs.map(|collector| LogsSettings { collector, spool }),
            metrics: metrics.map(|collector| MetricsSettings { collector, interval }),
        })
    }

    fn configured(&mut self, raw: &RawOtlp) -> Configured {
        Configured {
            endpoint: raw.endpoint.as_ref().and_then(|endpoint| self.url(endpoint)),
            protocol: raw.protocol.as_ref().map(|protocol| match protocol.value {
                RawOtlpProtocol::Grpc => OtlpProtocol::Grpc,
                RawOtlpProtocol::Http => OtlpProtocol::Http,
            }),
            headers: self.headers(raw),
            ca: raw.ca.as_ref().and_then(|ca| self.collector_ca(ca)),
            compression: raw.compression.as_ref().map(|compression| match compression.value {
                RawCompression::Gzip => OtlpCompression::Gzip,
                RawCompression::None => OtlpCompression::None,
            }),
            timeout: raw.timeout.as_ref().map(|timeout| self.duration(timeout, TIMEOUTS)),
        }
    }

    fn headers(&mut self, raw: &RawOtlp) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, reference) in &raw.headers {
            let known = HeaderName::from_bytes(name.as_bytes()).ok();
            let Some(name) = known.filter(is_free) else {
                self.report.error(reference.at, "is no header field that can be set here; take another name");
                continue;
            };
            let secret = self.secret(reference, Purpose::Header);
            let value = secret.and_then(|secret| HeaderValue::from_str(secret.expose_secret()).ok());
            headers.extend(value.map(|value| (name, value)));
        }
        headers
    }

    fn sampling(&mut self, raw: &RawSampling, variables: &mut Variables<'_>) -> SamplingSettings {
        let ratio = match &raw.ratio {
            Some(ratio) => {
                self.within(ratio.at, &ratio.value, &(0.0..=1.0));
                Some(ratio.value)
            }
            None => self.found(variables.environment.ratio(), variables),
        };
        SamplingSettings {
            ratio: ratio.and_then(SampleRatio::new).unwrap_or(SampleRatio::ALL),
            failed: if raw.keep_failed.value { Failed::Kept } else { Failed::Sampled },
            slower_than: raw.slower_than.as_ref().map(|most| self.duration(most, SLOW)),
        }
    }

    fn interval(&mut self, raw: &RawOtlp, variables: &mut Variables<'_>) -> Duration {
        match &raw.metrics_interval {
            Some(interval) => self.duration(interval, INTERVALS),
            None => {
                let found = self.found(variables.environment.interval(), variables);
                clamped(found.unwrap_or(INTERVAL), &INTERVALS)
            }
        }
    }

    /// Later ones replace earlier ones of the same name.
    fn resource(&mut self, raw: &RawOtlp, variables: &mut Variables<'_>) -> Vec<(String, String)> {
        let found = self.found(variables.environment.resource().map(Some), variables).unwrap_or_default();
        let configured = raw.resource.iter().map(|(name, value)| (name.clone(), self.text(value)));
        let mut attributes: Vec<(String, String)> = vec![("service.name".to_owned(), "scoregate".to_owned())];
        for (name, value) in found.into_iter().chain(configured) {
            attributes.retain(|(known, _)| *known != name);
            attributes.push((name, value));
        }
        attributes
    }

    fn collector(
        &mut self,
        configured: &Configured,
        signal: Signal,
        variables: &mut Variables<'_>,
    ) -> Option<CollectorSettings> {
        let environment = variables.environment;
        let endpoint = match &configured.endpoint {
            Some(url) => Some(Endpoint::OfAll(url.clone())),
            None => self.found(environment.endpoint(signal), variables),
        };
        let protocol = match configured.protocol {
            Some(protocol) => protocol,
            None => {
                let found = self.found(environment.protocol(signal), variables);
                found.unwrap_or_else(|| usual_protocol(endpoint.as_ref()))
            }
        };
        let compression = match configured.compression {
            Some(compression) => Some(compression),
            None => self.found(environment.compression(signal), variables),
        };
        let timeout = match configured.timeout {
            Some(timeout) => timeout,
            None => {
                let found = self.found(environment.timeout(signal), variables);
                clamped(found.unwrap_or(TIMEOUT), &TIMEOUTS)
            }
        };
        let mut headers = OtlpHeaders::default();
        let found = self.found(environment.headers(signal), variables).unwrap_or_default();
        let free = found.into_iter().filter(|(name, _)| is_free(name));
        free.chain(configured.headers.iter().cloned()).for_each(|(name, value)| headers.set(name, value));
        let settings = CollectorSettings {
            endpoint: address(endpoint, protocol, signal)?,
            protocol,
            headers,
            ca: self.ca(configured, signal, variables),
            timeout,
            compression: compression.unwrap_or_default(),
        };
        if settings.is_plain() {
            let message =
                "sends over plain http: what is exported crosses the network unencrypted; use https";
            self.tell(Problem::Ignored(message.to_owned()), variables);
        }
        Some(settings)
    }

    fn ca(&mut self, configured: &Configured, signal: Signal, variables: &Variables<'_>) -> Option<PathBuf> {
        if configured.ca.is_some() {
            return configured.ca.clone();
        }
        let (_, path) = variables.environment.certificate(signal)?;
        self.collector_ca(&At { value: path.to_owned(), at: variables.section })
    }

    /// What a variable says; what is wrong with it goes to the report.
    fn found<T>(&mut self, found: Found<T>, variables: &mut Variables<'_>) -> Option<T> {
        found.unwrap_or_else(|problem| {
            self.tell(problem, variables);
            None
        })
    }

    fn tell(&mut self, problem: Problem, variables: &mut Variables<'_>) {
        let (Problem::Ignored(message) | Problem::Unusable(message)) = &problem;
        if !variables.told.insert(message.clone()) {
            return;
        }
        match problem {
            Problem::Ignored(message) => self.report.warning(variables.section, message),
            Problem::Unusable(message) => self.report.error(variables.section, message),
        }
    }
}

fn is_free(name: &HeaderName) -> bool {
    !OURS.contains(&name.as_str()) && !name.as_str().starts_with("grpc-")
}

fn usual_protocol(endpoint: Option<&Endpoint>) -> OtlpProtocol {
    match endpoint {
        Some(Endpoint::OfAll(url) | Endpoint::OfSignal(url)) if url.port() == Some(GRPC_PORT) => {
            OtlpProtocol::Grpc
        }
        _ => OtlpProtocol::Http,
    }
}

/// `None` cannot be: the defaults are URLs.
fn address(endpoint: Option<Endpoint>, protocol: OtlpProtocol, signal: Signal) -> Option<Url> {
    let endpoint = match (endpoint, protocol) {
        (Some(endpoint), _) => endpoint,
        (None, OtlpProtocol::Grpc) => Endpoint::OfAll(Url::parse("http://localhost:4317").ok()?),
        (None, OtlpProtocol::Http) => Endpoint::OfAll(Url::parse("http://localhost:4318").ok()?),
    };
    Some(match (endpoint, protocol) {
        (Endpoint::OfAll(mut url), OtlpProtocol::Http) => {
            let path = format!("{}{}", url.path().trim_end_matches('/'), signal.path());
            url.set_path(&path);
            url
        }
        (Endpoint::OfSignal(url), _) | (Endpoint::OfAll(url), OtlpProtocol::Grpc) => url,
    })
}

fn clamped(value: Duration, bounds: &RangeInclusive<RawDuration>) -> Duration {
    value.clamp(bounds.start().0, bounds.end().0)
}
