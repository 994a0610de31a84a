//! Versions on the wire: `ETag` out, `If-Match` and `If-None-Match` in (RFC 9110 sections 8.8.3, 13.1.1 and 13.1.2).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::management::Refusal;
use crate::management::operations::Precondition;

/// The `ETag` of a version: a strong one, since every change of a resource makes a new version.
#[must_use]
pub fn etag(version: u64) -> HeaderValue {
    // Digits and quotes are always a header value.
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// What the request says must be true of the resource that it writes.
///
/// # Errors
/// [`crate::management::Cause::Invalid`]: a form other than `If-Match: "<version>"`, `If-Match: *` and
/// `If-None-Match: *`, or two of them.
pub fn precondition(headers: &HeaderMap) -> Result<Precondition, Refusal> {
    let matching = single(headers, &header::IF_MATCH)?;
    let none_matching = single(headers, &header::IF_NONE_MATCH)?;
    match (matching, none_matching) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Present),
        (Some(tag), None) => version(tag).map(Precondition::Version),
        (None, Some("*")) => Ok(Precondition::Absent),
        (None, Some(_)) => {
            Err(Refusal::invalid("if-none-match", "takes * only: write only if there is nothing yet"))
        }
        (Some(_), Some(_)) => {
            Err(Refusal::invalid("if-match", "stands beside if-none-match; send one of them"))
        }
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text.trim())),
        _ => Err(Refusal::invalid(name.as_str(), "must be one value")),
    }
}

fn version(tag: &str) -> Result<u64, Refusal> {
    let digits = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    // The one spelling that `etag` gives out: no sign, no leading zero.
    let version = digits.and_then(|digits| digits.parse::<u64>().ok().filter(|it| it.to_string() == digits));
    version.ok_or_else(|| {
        Refusal::invalid(
            "if-match",
            "is no version; send the etag header of the answer it was read from, or *",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Option<Precondition> {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value);
        }
        precondition(&map).ok()
    }

    #[test]
    fn what_was_given_out_comes_back() {
        for number in [0, 7, u64::MAX] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, etag(number));
            assert_eq!(precondition(&headers), Ok(Precondition::Version(number)));
        }
        assert_eq!(read(&[]), Some(Precondition::None));
        assert_eq!(read(&[("if-match", "*")]), Some(Precondition::Present));
        assert_eq!(read(&[("if-none-match", "*")]), Some(Precondition::Absent));
    }

    #[test]
    fn other_forms_are_refused_and_never_ignored() {
        for bad in [
            "7",
            "\"x\"",
            "W/\"7\"",
            "\"7\", \"8\"",
            "\"07\"",
            "\"+7\"",
            "\"\"",
            "",
            "\"18446744073709551616\"",
        ] {
            assert_eq!(read(&[("if-match", bad)]), None, "{bad}");
        }
        assert_eq!(read(&[("if-none-match", "\"7\"")]), None);
        assert_eq!(read(&[("if-match", "*"), ("if-none-match", "*")]), None);
        assert_eq!(read(&[("if-match", "\"7\""), ("if-match", "\"8\"")]), None);
    }
}
