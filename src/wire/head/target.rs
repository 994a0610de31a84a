//! Request targets and hosts: the forms that are taken, out of the many that RFC 3986 has.

use bytes::Bytes;
use http::Method;
use memchr::{memchr, memchr2};

use super::{Flaw, HeadError};

/// Longest host, as in a certificate or in the DNS.
const MAX_HOST: usize = 255;

/// Checks a request target and splits an absolute one into authority, and path with query.
pub(super) fn split_target(method: &Method, target: Bytes) -> Result<(Option<Bytes>, Bytes), HeadError> {
    if !target.is_ascii() || memchr(b'#', &target).is_some() {
        return Err(HeadError::Malformed(
            Flaw::Target,
            "a fragment or a non-ASCII byte in the request target",
        ));
    }
    if *method == Method::CONNECT {
        check_authority(&target)?;
        return Ok((None, target));
    }
    if target.first() == Some(&b'/') || (*method == Method::OPTIONS && target == "*") {
        return Ok((None, target));
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else {
        return Err(HeadError::Malformed(Flaw::Target, "invalid request target"));
    };
    let rest = target.slice(scheme.len()..);
    let end = memchr2(b'/', b'?', &rest).unwrap_or(rest.len());
    let authority = rest.slice(..end);
    check_authority(&authority)?;
    let path =
        if rest.get(end) == Some(&b'/') { rest.slice(end..) } else { [b"/", &rest[end..]].concat().into() };
    Ok((Some(authority), path))
}

/// Checks `host[:port]`: a name of letters, digits and `-._~`, or an IPv6 address in brackets. RFC 3986 has more, but
/// nothing that can be resolved, and each extra is one more spelling in which a rule by host can be missed.
pub(super) fn check_authority(authority: &[u8]) -> Result<(), HeadError> {
    const INVALID: HeadError = HeadError::Malformed(Flaw::Host, "the host is not of the form host[:port]");
    let (host, port) = if authority.first() == Some(&b'[') {
        let end = memchr(b']', authority).ok_or(INVALID)?;
        let address = std::str::from_utf8(&authority[1..end]).map_err(|_| INVALID)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| INVALID)?;
        authority.split_at(end + 1)
    } else {
        let end = memchr(b':', authority).unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        if host.is_empty() || !host.iter().all(name) {
            return Err(INVALID);
        }
        (host, port)
    };
    if host.len() > MAX_HOST {
        return Err(INVALID);
    }
    match port {
        [] => Ok(()),
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            let port = std::str::from_utf8(digits).map_err(|_| INVALID)?;
            port.parse::<u16>().map(drop).map_err(|_| INVALID)
        }
        _ => Err(INVALID),
    }
}
