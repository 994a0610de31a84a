//! Where the client has reached the management API: the one address that is sure to be good for its next call.

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

use crate::management::Refusal;

/// `https://` and the host that the request names; the management port speaks TLS only.
///
/// # Errors
/// It names none (RFC 9112 section 3.2), or one with a user name.
pub fn base_url(uri: &Uri, headers: &HeaderMap) -> Result<String, Refusal> {
    let of_header = || headers.get(header::HOST)?.to_str().ok()?.parse::<Authority>().ok();
    let authority = uri.authority().cloned().or_else(of_header);
    match authority.filter(|authority| !authority.as_str().contains('@')) {
        Some(authority) => Ok(format!("https://{authority}")),
        None => Err(Refusal::invalid("host", "the request must name the host that it is for")),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn base(uri: &'static str, host: Option<&'static str>) -> Option<String> {
        let host = host.map(|host| (header::HOST, HeaderValue::from_static(host)));
        base_url(&Uri::from_static(uri), &host.into_iter().collect()).ok()
    }

    #[test]
    fn the_host_of_the_request_is_the_base_of_links() {
        assert_eq!(base("/x", Some("gw:9443")).unwrap(), "https://gw:9443");
        assert_eq!(base("/x", Some("[::1]:9443")).unwrap(), "https://[::1]:9443");
        // HTTP/2 names it in `:authority`.
        assert_eq!(base("https://gw/x", None).unwrap(), "https://gw");
        for odd in ["", "user@gw", "gw/path", "g w"] {
            assert_eq!(base("/x", Some(odd)), None, "{odd}");
        }
        assert_eq!(base("/x", None), None);
    }
}
