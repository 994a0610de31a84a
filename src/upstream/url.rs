//! URLs that the gateway is told to call: one reading of them, whoever tells.

use rustls_pki_types::ServerName;
use url::{Host, Url};

use super::Origin;

/// The URL of a replica: scheme, host and port, nothing behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaUrl {
    /// Where it listens.
    pub origin: Origin,
    /// Whether it is `https`.
    pub encrypted: bool,
}

impl ReplicaUrl {
    /// Reads `http://host[:port]` or `https://host[:port]`.
    ///
    /// # Errors
    /// What is wrong and what to write instead, to be put behind the name of the field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = http_url(text)?;
        if url.path() != "/" {
            return Err(format!(
                "has the path {}; write scheme, host and port only and the path under paths",
                url.path()
            ));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err("has no host; write one such as http://127.0.0.1:5001".to_owned()),
        };
        let port = url.port_or_known_default().ok_or("has no port; write one")?;
        Ok(Self { origin: Origin { host: host.into(), port }, encrypted: url.scheme() == "https" })
    }
}

/// The name that a certificate must bear for `name` to be what is talked to.
///
/// # Errors
/// What is wrong and what to write instead.
pub fn certificate_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        format!("'{name}' is no name that a certificate can bear; give the name of the replica's certificate")
    })
}

/// An absolute http or https URL with a host and without credentials, query or fragment.
///
/// # Errors
/// What is wrong and what to write instead, to be put behind the name of the field.
pub fn http_url(text: &str) -> Result<Url, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_with_a_host_and_nothing_behind_it() {
        for good in ["http://h", "https://h:1/base", "http://[::1]:5001"] {
            assert!(http_url(good).is_ok(), "{good}");
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
            assert!(http_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_replica_is_an_origin_and_nothing_more() {
        let parse = |text| ReplicaUrl::parse(text).map(|url| (url.origin.to_string(), url.encrypted));
        assert_eq!(parse("http://h"), Ok(("h:80".into(), false)));
        assert_eq!(parse("https://H.example/"), Ok(("h.example:443".into(), true)));
        assert_eq!(parse("http://[0::1]:5001"), Ok(("[::1]:5001".into(), false)));
        assert!(parse("http://h/score").unwrap_err().contains("/score"));
    }
}
