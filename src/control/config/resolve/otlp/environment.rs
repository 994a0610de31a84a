//! The `OTEL_*` variables of the environment that are read (OpenTelemetry's environment variable specification and the OTLP
//! exporter's). An empty one is none.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::Signal;
use crate::telemetry::otlp::{OtlpCompression, OtlpProtocol};
use crate::upstream;

/// The variables.
#[derive(Clone, Copy)]
pub(super) struct Environment<'a>(pub &'a BTreeMap<String, String>);

/// What is wrong with a variable.
#[derive(PartialEq, Eq)]
pub(super) enum Problem {
    /// It is passed over, as the specification wants it.
    Ignored(String),
    /// Passing over it would send to somebody else, or as somebody else.
    Unusable(String),
}

/// What a variable says, if it is there.
pub(super) type Found<T> = Result<Option<T>, Problem>;

/// Where a signal is sent.
pub(super) enum Endpoint {
    /// Posted to as it is.
    OfSignal(Url),
    /// The signals' paths are put behind it.
    OfAll(Url),
}

impl<'a> Environment<'a> {
    fn get(self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The variable of a signal, or else that of all signals.
    fn of_signal(self, signal: Signal, what: &str) -> Option<(String, &'a str)> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.variable());
        let shared = format!("OTEL_EXPORTER_OTLP_{what}");
        [own, shared].into_iter().find_map(|name| Some((name.clone(), self.get(&name)?)))
    }

    /// `OTEL_SDK_DISABLED`
    pub(super) fn is_disabled(self) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// `OTEL_{TRACES,LOGS,METRICS}_EXPORTER`: whether this is among them.
    pub(super) fn exports(self, signal: Signal) -> Found<bool> {
        let name = format!("OTEL_{}_EXPORTER", signal.variable());
        let Some(value) = self.get(&name) else { return Ok(None) };
        let named = |exporter: &str| value.split(',').any(|named| named.trim() == exporter);
        match (named("otlp"), named("none")) {
            (true, _) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            (false, false) => Err(Problem::Ignored(format!("${name}: is neither otlp nor none"))),
        }
    }

    pub(super) fn endpoint(self, signal: Signal) -> Found<Endpoint> {
        let Some((name, text)) = self.of_signal(signal, "ENDPOINT") else { return Ok(None) };
        let url = upstream::http_url(text).map_err(|error| Problem::Unusable(format!("${name}: {error}")))?;
        let of_signal = name != "OTEL_EXPORTER_OTLP_ENDPOINT";
        Ok(Some(if of_signal { Endpoint::OfSignal(url) } else { Endpoint::OfAll(url) }))
    }

    pub(super) fn protocol(self, signal: Signal) -> Found<OtlpProtocol> {
        self.word(signal, "PROTOCOL", &[("grpc", OtlpProtocol::Grpc), ("http/protobuf", OtlpProtocol::Http)])
    }

    pub(super) fn compression(self, signal: Signal) -> Found<OtlpCompression> {
        self.word(signal, "COMPRESSION", &[("gzip", OtlpCompression::Gzip), ("none", OtlpCompression::None)])
    }

    fn word<T: Copy>(self, signal: Signal, what: &str, words: &[(&str, T)]) -> Found<T> {
        let Some((name, text)) = self.of_signal(signal, what) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        let choice = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.map_or_else(
            || Err(Problem::Ignored(format!("${name}: is not one of {}", choice()))),
            |it| Ok(Some(it)),
        )
    }

    /// Milliseconds.
    pub(super) fn timeout(self, signal: Signal) -> Found<Duration> {
        match self.of_signal(signal, "TIMEOUT") {
            Some((name, text)) => milliseconds(&name, text),
            None => Ok(None),
        }
    }

    /// `OTEL_METRIC_EXPORT_INTERVAL`, milliseconds.
    pub(super) fn interval(self) -> Found<Duration> {
        let name = "OTEL_METRIC_EXPORT_INTERVAL";
        self.get(name).map_or(Ok(None), |text| milliseconds(name, text))
    }

    /// A path.
    pub(super) fn certificate(self, signal: Signal) -> Option<(String, &'a str)> {
        self.of_signal(signal, "CERTIFICATE")
    }

    pub(super) fn headers(self, signal: Signal) -> Found<Vec<(HeaderName, HeaderValue)>> {
        let Some((name, text)) = self.of_signal(signal, "HEADERS") else { return Ok(None) };
        // Nothing of the text is repeated: it is a secret.
        let unusable = || Problem::Unusable(format!("${name}: is no list of name=value,name=value"));
        let field = |(name, value): (String, String)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            Ok((name, HeaderValue::from_str(&value).map_err(|_| unusable())?))
        };
        pairs(text).ok_or_else(unusable)?.into_iter().map(field).collect::<Result<_, _>>().map(Some)
    }

    /// `OTEL_RESOURCE_ATTRIBUTES`, and `OTEL_SERVICE_NAME`, which goes before.
    pub(super) fn resource(self) -> Result<Vec<(String, String)>, Problem> {
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let listed = self.get(name).map_or(Some(Vec::new()), pairs);
        let unread = || Problem::Ignored(format!("${name}: is no list of name=value,name=value"));
        let mut attributes = listed.ok_or_else(unread)?;
        if let Some(service) = self.get("OTEL_SERVICE_NAME") {
            attributes.push(("service.name".to_owned(), service.to_owned()));
        }
        Ok(attributes)
    }

    /// `OTEL_TRACES_SAMPLER` with its `_ARG`. What a caller decided is followed always, as the names with `parentbased_` say.
    pub(super) fn ratio(self) -> Found<f64> {
        let name = "OTEL_TRACES_SAMPLER";
        let Some(sampler) = self.get(name) else { return Ok(None) };
        match sampler.strip_prefix("parentbased_").unwrap_or(sampler) {
            "always_on" => Ok(Some(1.0)),
            "always_off" => Ok(Some(0.0)),
            "traceidratio" => self.argument(),
            _ => Err(Problem::Ignored(format!(
                "${name}: is not one of always_on, always_off, traceidratio, with or without parentbased_"
            ))),
        }
    }

    fn argument(self) -> Found<f64> {
        let name = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = self.get(name) else { return Ok(Some(1.0)) };
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map_or_else(
            || Err(Problem::Ignored(format!("${name}: is no number from 0 to 1"))),
            |it| Ok(Some(it)),
        )
    }
}

fn milliseconds(name: &str, text: &str) -> Found<Duration> {
    match text.parse() {
        Ok(milliseconds) => Ok(Some(Duration::from_millis(milliseconds))),
        Err(_) => Err(Problem::Ignored(format!("${name}: is no number of milliseconds"))),
    }
}

/// `name=value,name=value` with percent-escapes in the values (W3C Baggage, without properties).
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let pair = |item: &str| {
        let (name, value) = item.split_once('=')?;
        let name = name.trim();
        Some((Some(name.to_owned()).filter(|name| !name.is_empty())?, decoded(value.trim())?))
    };
    items.map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let (byte, left) = match (first, more) {
            (b'%', [high, low, left @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?, left)
            }
            (b'%', _) => return None,
            (byte, left) => (*byte, left),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_pairs_with_escapes_in_their_values() {
        let owned = |list: &[(&str, &str)]| {
            Some(
                list.iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(pairs("a=1, b = x%20y%2C ,,c="), owned(&[("a", "1"), ("b", "x y,"), ("c", "")]));
        assert_eq!(pairs("auth=Basic YQ=="), owned(&[("auth", "Basic YQ==")]));
        for bad in ["a", "=1", "a=%2", "a=%zz", "a=%ff"] {
            assert_eq!(pairs(bad), None, "{bad}");
        }
    }
}
