//! The connection string as Azure writes it: `InstrumentationKey=..;IngestionEndpoint=https://..`.

use std::fmt;

use url::Url;
use zeroize::Zeroizing;

use crate::telemetry::export::http::is_plain;

/// Where to send when nothing says so (Azure's global ingestion endpoint).
const DEFAULT_ENDPOINT: &str = "https://dc.services.visualstudio.com";
/// The variables that Azure's own exporters read, the first before the second.
const STRING_VARIABLE: &str = "APPLICATIONINSIGHTS_CONNECTION_STRING";
const KEY_VARIABLE: &str = "APPINSIGHTS_INSTRUMENTATIONKEY";

/// Who sends and where to.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    key: InstrumentationKey,
    /// Without a slash at its end.
    endpoint: Url,
}

/// Names the resource that the records are for. Whoever knows it can write there: it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct InstrumentationKey(Zeroizing<String>);

/// Why there is no connection string; without anything of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionError(String);

/// What one source says.
#[derive(Default)]
struct Parts {
    key: Option<InstrumentationKey>,
    endpoint: Option<Url>,
}

impl ConnectionString {
    /// Of the configured string, or else of the environment: each field from the first of the string, of
    /// `APPLICATIONINSIGHTS_CONNECTION_STRING` and of `APPINSIGHTS_INSTRUMENTATIONKEY` that has it.
    ///
    /// # Errors
    /// One of them cannot be read, or none names an instrumentation key.
    pub fn of<'a>(
        configured: Option<&str>,
        variable: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, ConnectionError> {
        let of_string = |text: Option<&str>| text.map_or(Ok(Parts::default()), Parts::parse);
        let configured = of_string(configured)?;
        let environment = of_string(variable(STRING_VARIABLE).filter(|text| !text.is_empty()))
            .map_err(|error| ConnectionError(format!("${STRING_VARIABLE}: {}", error.0)))?;
        let lone_key = variable(KEY_VARIABLE).filter(|text| !text.is_empty()).map(InstrumentationKey::parse);
        let lone_key =
            lone_key.transpose().map_err(|error| ConnectionError(format!("${KEY_VARIABLE}: {}", error.0)))?;
        let key = configured.key.or(environment.key).or(lone_key).ok_or_else(|| {
            ConnectionError("has no InstrumentationKey; copy the whole connection string".to_owned())
        })?;
        let endpoint = match configured.endpoint.or(environment.endpoint) {
            Some(endpoint) => endpoint,
            None => endpoint("IngestionEndpoint", DEFAULT_ENDPOINT)?,
        };
        Ok(Self { key, endpoint })
    }

    /// Whether records cross the network unencrypted.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        is_plain(&self.endpoint)
    }

    pub(super) fn key(&self) -> &InstrumentationKey {
        &self.key
    }

    /// Where items are posted.
    pub(super) fn track(&self) -> Url {
        let mut track = self.endpoint.clone();
        let path = format!("{}/v2.1/track", track.path().trim_end_matches('/'));
        track.set_path(&path);
        track
    }
}

impl Parts {
    /// Keys in any case and order; those that only other features use are passed over.
    fn parse(text: &str) -> Result<Self, ConnectionError> {
        let mut parts = Self::default();
        let (mut suffix, mut location) = (None, None);
        let mut seen = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                ConnectionError(
                    "has a part without '='; write Key=Value parts with ';' between them".to_owned(),
                )
            })?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            if value.contains('=') {
                return Err(ConnectionError(format!("has a '=' in the value of {}", shown(&name))));
            }
            if seen.contains(&name) {
                return Err(ConnectionError(format!("has {} twice", shown(&name))));
            }
            match name.as_str() {
                "instrumentationkey" => parts.key = Some(InstrumentationKey::parse(value)?),
                "ingestionendpoint" => parts.endpoint = Some(endpoint("IngestionEndpoint", value)?),
                "endpointsuffix" => suffix = Some(value),
                "location" => location = Some(value),
                "authorization" if !value.eq_ignore_ascii_case("ikey") => {
                    let only = "has an Authorization other than ikey, which this version does not do";
                    return Err(ConnectionError(only.to_owned()));
                }
                _ => {}
            }
            seen.push(name);
        }
        if let (None, Some(suffix)) = (&parts.endpoint, suffix) {
            let location = location.map(|location| format!("{location}.")).unwrap_or_default();
            parts.endpoint = Some(endpoint("EndpointSuffix", &format!("https://{location}dc.{suffix}"))?);
        }
        Ok(parts)
    }
}

/// A name that came from a secret text: only known ones are repeated.
fn shown(name: &str) -> &str {
    const KNOWN: [&str; 8] = [
        "instrumentationkey",
        "ingestionendpoint",
        "liveendpoint",
        "endpointsuffix",
        "location",
        "authorization",
        "aadaudience",
        "applicationid",
    ];
    KNOWN.into_iter().find(|known| *known == name).unwrap_or("one of its parts")
}

fn endpoint(field: &str, text: &str) -> Result<Url, ConnectionError> {
    let wrong = |what: &str| ConnectionError(format!("has an {field} that {what}"));
    let url = Url::parse(text).map_err(|_| wrong("is no URL"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("is no https or http URL with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(wrong("holds more than scheme, host and path"));
    }
    Ok(url)
}

impl InstrumentationKey {
    fn parse(text: &str) -> Result<Self, ConnectionError> {
        match uuid::Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 => Ok(Self(Zeroizing::new(id.hyphenated().to_string()))),
            _ => Err(ConnectionError("has an InstrumentationKey that is no UUID".to_owned())),
        }
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString").field("endpoint", &self.endpoint.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectionError {}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "11111111-2222-4333-8444-555555555555";
    const OTHER: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

    fn of(configured: Option<&str>, variables: &[(&str, &str)]) -> Result<(String, String), String> {
        let variable = |name: &str| variables.iter().find(|(found, _)| *found == name).map(|(_, text)| *text);
        let read = ConnectionString::of(configured, variable).map_err(|error| error.to_string())?;
        Ok((read.key.expose().to_owned(), read.track().to_string()))
    }

    fn track(text: &str) -> String {
        of(Some(text), &[]).unwrap().1
    }

    #[test]
    fn azures_own_forms_are_read_in_any_case_and_order() {
        let global = "https://dc.services.visualstudio.com/v2.1/track";
        assert_eq!(of(Some(&format!("InstrumentationKey={KEY}")), &[]), Ok((KEY.into(), global.into())));
        let regional = "https://westeurope-5.in.applicationinsights.azure.com/v2.1/track";
        for text in [
            format!(
                "InstrumentationKey={KEY};IngestionEndpoint=https://westeurope-5.in.applicationinsights.azure.com/;LiveEndpoint=https://x/;ApplicationId={OTHER}"
            ),
            format!(
                " ingestionENDPOINT = https://westeurope-5.in.applicationinsights.azure.com ; instrumentationkey = {} ;",
                KEY.to_uppercase()
            ),
            format!(
                "InstrumentationKey={KEY};EndpointSuffix=x.example;IngestionEndpoint=https://westeurope-5.in.applicationinsights.azure.com;Authorization=IKEY"
            ),
        ] {
            assert_eq!(of(Some(&text), &[]), Ok((KEY.into(), regional.into())), "{text}");
        }
        let suffix = format!("InstrumentationKey={KEY};EndpointSuffix=applicationinsights.us");
        assert_eq!(track(&suffix), "https://dc.applicationinsights.us/v2.1/track");
        let located = format!("{suffix};Location=usgov");
        assert_eq!(track(&located), "https://usgov.dc.applicationinsights.us/v2.1/track");
        let plain = format!("InstrumentationKey={KEY};IngestionEndpoint=http://127.0.0.1:8080/base/");
        assert_eq!(track(&plain), "http://127.0.0.1:8080/base/v2.1/track");
    }

    #[test]
    fn each_field_comes_from_the_first_source_that_has_it() {
        let own = format!("InstrumentationKey={KEY}");
        let variables = [
            (
                STRING_VARIABLE,
                "InstrumentationKey=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee;IngestionEndpoint=https://e/",
            ),
            (KEY_VARIABLE, "99999999-2222-4333-8444-555555555555"),
        ];
        let sent_to = "https://e/v2.1/track".to_owned();
        assert_eq!(of(Some(&own), &variables), Ok((KEY.to_owned(), sent_to.clone())));
        assert_eq!(of(None, &variables), Ok((OTHER.to_owned(), sent_to)));
        assert_eq!(of(None, &variables[1..]).unwrap().0, "99999999-2222-4333-8444-555555555555");
        assert!(of(None, &[]).unwrap_err().starts_with("has no InstrumentationKey"));
        let error = of(None, &[(KEY_VARIABLE, "x")]).unwrap_err();
        assert_eq!(error, "$APPINSIGHTS_INSTRUMENTATIONKEY: has an InstrumentationKey that is no UUID");
    }

    #[test]
    fn what_is_wrong_is_told_without_the_content() {
        for (text, expected) in [
            ("", "has no InstrumentationKey"),
            ("s3cret", "has a part without '='"),
            ("InstrumentationKey=s3cret", "that is no UUID"),
            ("InstrumentationKey=11111111222243338444555555555555", "that is no UUID"),
            ("s3cret=a=b", "in the value of one of its parts"),
            ("Location=a;location=s3cret", "has location twice"),
            ("IngestionEndpoint=s3cret", "IngestionEndpoint that is no URL"),
            ("IngestionEndpoint=ftp://s3cret", "no https or http URL"),
            ("IngestionEndpoint=https://s3cret:x@h", "holds more than"),
            ("Authorization=aad", "other than ikey"),
        ] {
            let error = of(Some(text), &[]).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{text}: {error}");
        }
        let whole = format!("InstrumentationKey={KEY}");
        let shown = format!("{:?}", ConnectionString::of(Some(&whole), |_| None).unwrap());
        assert!(!shown.contains(KEY), "{shown}");
    }

    #[test]
    fn plain_http_is_noticed_but_on_loopback() {
        let plain = |endpoint: &str| {
            let text = format!("InstrumentationKey={KEY};IngestionEndpoint={endpoint}");
            ConnectionString::of(Some(&text), |_| None).unwrap().is_plain()
        };
        assert!(plain("http://collector/") && plain("http://10.0.0.1/"));
        assert!(!plain("https://collector/") && !plain("http://localhost:1/") && !plain("http://[::1]/"));
    }
}
