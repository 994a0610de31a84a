//! Where a permanent redirect may lead: to another host of the same registered domain, as Azure's exporters have it, and
//! never from https to http. Records tell of callers; whoever can answer once must not get all that follow.

use http::HeaderValue;
use url::{Host, Url};

/// The address to use from now on.
pub(super) fn target(from: &Url, location: Option<&HeaderValue>) -> Result<Url, &'static str> {
    let location = location.and_then(|value| value.to_str().ok()).ok_or("it names no location")?;
    let target = from.join(location).map_err(|_| "its location is no URL")?;
    let safe = target.scheme() == "https" || target.scheme() == from.scheme();
    if !safe || !matches!(target.scheme(), "https" | "http") {
        return Err("its location is not as safe as the configured endpoint");
    }
    if !same_domain(from, &target) {
        return Err("its location is of another domain than the configured endpoint");
    }
    Ok(target)
}

fn same_domain(one: &Url, other: &Url) -> bool {
    match (one.host(), other.host()) {
        (Some(Host::Domain(one)), Some(Host::Domain(other))) => {
            one == other || (registered(one).is_some() && registered(one) == registered(other))
        }
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// What somebody has registered: the public suffix and one label more.
fn registered(domain: &str) -> Option<&str> {
    psl::domain_str(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(from: &str, location: &str) -> Result<String, &'static str> {
        let location = HeaderValue::from_str(location).unwrap();
        target(&Url::parse(from).unwrap(), Some(&location)).map(String::from)
    }

    #[test]
    fn a_redirect_stays_in_the_registered_domain() {
        let from = "https://dc.services.visualstudio.com/v2.1/track";
        for good in ["https://eu.services.visualstudio.com/v2.1/track", "https://visualstudio.com/x"] {
            assert_eq!(redirected(from, good).as_deref(), Ok(good));
        }
        assert_eq!(redirected(from, "/v3").as_deref(), Ok("https://dc.services.visualstudio.com/v3"));
        for bad in [
            "https://visualstudio.com.evil.example/",
            "https://example.com/",
            "http://dc.services.visualstudio.com/v2.1/track",
            "ftp://dc.services.visualstudio.com/",
            "https://10.0.0.1/",
        ] {
            assert!(redirected(from, bad).is_err(), "{bad}");
        }
        assert!(redirected("https://a.co.uk/", "https://b.co.uk/").is_err(), "a public suffix is nobody's");
        assert!(redirected("https://a.b.co.uk/", "https://c.b.co.uk/").is_ok());
    }

    #[test]
    fn an_address_is_its_own_domain() {
        assert!(redirected("http://127.0.0.1:1/", "http://127.0.0.1:2/v2.1/track").is_ok());
        assert!(redirected("http://127.0.0.1:1/", "http://127.0.0.2:1/").is_err());
        assert!(redirected("http://localhost:1/", "http://localhost:2/").is_ok());
        assert!(redirected("http://localhost:1/", "http://other:2/").is_err());
        assert!(target(&Url::parse("http://h/").unwrap(), None).is_err());
    }
}
