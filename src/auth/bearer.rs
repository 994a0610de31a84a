//! The `Authorization` header: the credential in it, or why there is none.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::error::{Error, Kind};

/// Longest `Authorization` value that is looked at, in bytes: the largest tokens of common issuers have about 8 KiB.
const MAX_LEN: usize = 16 * 1024;

/// The credential of a request: what follows `Bearer` and its blanks (RFC 6750, section 2.1; RFC 9110, section 11.4).
///
/// Returned as sent. Its letters are not judged here: a key that holds something odd matches no digest, a token that
/// does is no base64, and so both look to the caller like any other wrong credential.
pub(super) fn credential(headers: &HeaderMap) -> Result<&[u8], Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?.as_bytes();
    if values.next().is_some() {
        return Err(Error::new(
            Kind::AuthInvalid,
            "the request has more than one Authorization header; send one",
        ));
    }
    if value.len() > MAX_LEN {
        return Err(Error::new(Kind::AuthInvalid, "the Authorization header is longer than 16384 bytes"));
    }
    let end_of_scheme = value.iter().position(|b| *b == b' ');
    let (scheme, rest) = value.split_at(end_of_scheme.unwrap_or(value.len()));
    let blanks = rest.iter().take_while(|b| **b == b' ').count();
    let credential = &rest[blanks..];
    if !scheme.eq_ignore_ascii_case(b"bearer") || credential.is_empty() {
        return Err(missing());
    }
    Ok(credential)
}

fn missing() -> Error {
    Error::new(Kind::AuthMissing, "no credential: send the header 'Authorization: Bearer KEY-OR-TOKEN'")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_scheme_is_read_as_rfc_9110_has_it() {
        for (value, credential) in [
            (&b"Bearer abc"[..], &b"abc"[..]),
            (b"bearer abc", b"abc"),
            (b"BEARER   abc", b"abc"),
            (b"Bearer abc ", b"abc "),
            (b"Bearer a b", b"a b"),
            (b"Bearer \xffa", b"\xffa"),
        ] {
            assert_eq!(super::credential(&headers(&[value])).unwrap(), credential);
        }
    }

    #[test]
    fn what_is_no_bearer_credential_is_missing() {
        for values in [
            &[][..],
            &[&b""[..]],
            &[b"Bearer"],
            &[b"Bearer "],
            &[b"Bearer    "],
            &[b"Basic abc"],
            &[b"abc"],
            &[b" Bearer abc"],
            &[b"Bearer\tabc"],
            &[b"Bearerabc"],
            &[b"BearerX abc"],
        ] {
            let error = credential(&headers(values)).unwrap_err();
            assert_eq!(error.kind, Kind::AuthMissing, "{values:?}");
        }
    }

    #[test]
    fn two_headers_or_a_huge_one_are_refused() {
        let huge = [b"Bearer ".as_slice(), &[b'a'; MAX_LEN]].concat();
        for values in
            [&[&b"Bearer abc"[..], b"Bearer abc"][..], &[b"Bearer abc", b"Basic abc"], &[b"", b""], &[&huge]]
        {
            let error = credential(&headers(values)).unwrap_err();
            assert_eq!(error.kind, Kind::AuthInvalid);
        }
        let largest = &huge[..MAX_LEN];
        assert_eq!(credential(&headers(&[largest])).unwrap().len(), MAX_LEN - 7);
    }
}
