//! The one canonical spelling of a request's path and host; whatever could be read in two ways is refused.
//!
//! Routing, authentication and the upstream all see what is parsed here, so they cannot disagree on it (the class of
//! CVE-2019-9901 and its many relatives).

use bytes::{Buf as _, Bytes};

use crate::error::{Error, Kind};

/// A request target in origin form, split once.
#[derive(Clone, Debug)]
pub struct Target {
    whole: Bytes,
    path_len: usize,
}

impl Target {
    /// Checks and splits `/path?query`.
    ///
    /// # Errors
    /// [`Kind::Malformed`] for a path that another reader could take for a different one: empty, dot or dot-dot
    /// segments, a backslash or `;`, and percent-escapes that are broken or hide an unreserved letter, a slash, a
    /// backslash, a percent sign or a control byte.
    pub fn parse(whole: Bytes) -> Result<Self, Error> {
        let path_len = memchr::memchr(b'?', &whole).unwrap_or(whole.len());
        match ambiguity(&whole[..path_len]).or_else(|| visible_ascii(&whole[path_len..])) {
            Some(problem) => Err(Error::new(Kind::Malformed, problem)),
            None => Ok(Self { whole, path_len }),
        }
    }

    /// The path, beginning with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        std::str::from_utf8(&self.whole[..self.path_len]).unwrap_or_default()
    }

    /// The target under `prefix` bytes of its path.
    #[must_use]
    pub fn under(mut self, prefix: usize) -> Self {
        let prefix = prefix.min(self.path_len);
        self.whole.advance(prefix);
        self.path_len -= prefix;
        self
    }

    /// Path and query.
    #[must_use]
    pub const fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// The query with its `?`; empty if there is none.
    #[must_use]
    pub fn query_with_mark(&self) -> &[u8] {
        &self.whole[self.path_len..]
    }
}

/// What makes `path` ambiguous; `None` if nothing does.
fn ambiguity(path: &[u8]) -> Option<&'static str> {
    if path.first() != Some(&b'/') {
        return Some("the path does not begin with '/'");
    }
    let mut segment_start = 1;
    let mut i = 1;
    while i <= path.len() {
        match path.get(i) {
            None | Some(b'/') => {
                let segment = &path[segment_start..i];
                if segment.is_empty() && i < path.len() {
                    return Some("the path has an empty segment ('//')");
                }
                if segment == b"." || segment == b".." {
                    return Some("the path has a dot segment");
                }
                segment_start = i + 1;
            }
            Some(b'%') => match path.get(i + 1..i + 3).and_then(decode_escape) {
                Some(byte) if hides_meaning(byte) => {
                    return Some("the path escapes a letter that has a plain form or a meaning of its own");
                }
                Some(_) => i += 2,
                None => return Some("the path has a broken percent-escape"),
            },
            Some(b'\\' | b';' | b'#') => return Some("the path holds a '\\', ';' or '#'"),
            Some(byte) if !byte.is_ascii_graphic() => {
                return Some("the path holds a blank, a control or a non-ASCII byte");
            }
            Some(_) => {}
        }
        i += 1;
    }
    None
}

fn visible_ascii(query: &[u8]) -> Option<&'static str> {
    let odd = |byte: &u8| !byte.is_ascii_graphic() || *byte == b'#';
    query.iter().any(odd).then_some("the query holds a blank, a '#', a control or a non-ASCII byte")
}

fn decode_escape(hex: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let (high, low) = (digit(hex[0])?, digit(hex[1])?);
    u8::try_from(high * 16 + low).ok()
}

/// Unreserved letters (RFC 3986 2.3) have one plain form; the others change what a path means once decoded.
const fn hides_meaning(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b'\\' | b'%' | b';' | 0..=0x1f | 0x7f)
}

/// A host as a caller named it, in the spelling that routes are kept in: lower case, no port, no trailing dot.
#[derive(Clone, Copy)]
pub struct Host {
    text: [u8; Self::MAX_LEN],
    len: usize,
}

impl Host {
    /// Longest host name of the DNS, in bytes (RFC 1035 2.3.4).
    pub const MAX_LEN: usize = 253;

    /// Reads `host[:port]`; an empty authority is an empty host.
    ///
    /// # Errors
    /// [`Kind::Malformed`] for anything but a DNS name, an IPv4 address or a bracketed IPv6 address with an optional
    /// port up to 65535.
    pub fn parse(authority: &[u8]) -> Result<Self, Error> {
        let malformed =
            || Error::new(Kind::Malformed, "the host is not a name or address with an optional port");
        let (host, port) = split_port(authority).ok_or_else(malformed)?;
        let host = host.strip_suffix(b".").unwrap_or(host);
        let name_byte =
            |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
        if host.len() > Self::MAX_LEN || !host.iter().all(name_byte) || !port_is_valid(port) {
            return Err(malformed());
        }
        let mut text = [0; Self::MAX_LEN];
        for (to, from) in text.iter_mut().zip(host) {
            *to = from.to_ascii_lowercase();
        }
        Ok(Self { text, len: host.len() })
    }

    /// The host as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }
}

fn split_port(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    let after_bracket = match authority.first() {
        Some(b'[') => memchr::memchr(b']', authority)? + 1,
        _ => 0,
    };
    match memchr::memchr(b':', &authority[after_bracket..]) {
        Some(colon) => Some((&authority[..after_bracket + colon], &authority[after_bracket + colon + 1..])),
        None => Some((authority, b"")),
    }
}

fn port_is_valid(port: &[u8]) -> bool {
    port.len() <= 5
        && port.iter().all(u8::is_ascii_digit)
        && port.iter().fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0')) <= u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &'static str) -> Option<(String, String)> {
        let target = Target::parse(Bytes::from_static(target.as_bytes())).ok()?;
        Some((target.path().to_owned(), String::from_utf8(target.query_with_mark().to_vec()).unwrap()))
    }

    #[test]
    fn plain_paths_are_split_from_their_query() {
        assert_eq!(parse("/score"), Some(("/score".into(), String::new())));
        assert_eq!(parse("/"), Some(("/".into(), String::new())));
        assert_eq!(parse("/a/b/?x=/../%2e"), Some(("/a/b/".into(), "?x=/../%2e".into())));
        assert_eq!(parse("/a%20b"), Some(("/a%20b".into(), String::new())));
        assert_eq!(parse("/.well-known/a..b"), Some(("/.well-known/a..b".into(), String::new())));
    }

    #[test]
    fn every_ambiguous_spelling_is_refused() {
        for target in [
            "",
            "score",
            "*",
            "//score",
            "/a//b",
            "/.",
            "/..",
            "/./score",
            "/a/../score",
            "/a/..",
            "/%2e%2e/score",
            "/%2E/score",
            "/..%2fscore",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a;x",
            "/a#b",
            "/a%00b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%73core",
            "/a%252fb",
            "/a%c0",
            "/sc\u{f6}re",
            "/a b",
            "/a?b#c",
            "/a?b c",
            "/a\r\n",
            "/a?\x7f",
        ] {
            // %c0 alone is a legal escape of a non-ASCII byte: it has no second reading.
            assert_eq!(parse(target).is_some(), target == "/a%c0", "{target:?}");
        }
    }

    #[test]
    fn hosts_are_folded_to_one_spelling() {
        let host = |authority: &str| Host::parse(authority.as_bytes()).ok().map(|h| h.as_str().to_owned());
        assert_eq!(host("Iris.Example.ORG:8443").as_deref(), Some("iris.example.org"));
        assert_eq!(host("iris.example.org.").as_deref(), Some("iris.example.org"));
        assert_eq!(host("127.0.0.1:1").as_deref(), Some("127.0.0.1"));
        assert_eq!(host("[::1]:443").as_deref(), Some("[::1]"));
        assert_eq!(host("").as_deref(), Some(""));
        for bad in
            ["u@h", "h/p", "h?x", "a, b", "h:99999", "h:1x", "h:1:2", "[::1", "h h", "h\0", &"a".repeat(300)]
        {
            assert_eq!(host(bad), None, "{bad:?}");
        }
    }
}
