//! `RequestUrl`: the URL as the caller wrote it, but for the secrets that people put into URLs.

use super::json::Text;
use crate::telemetry::disclosure::{Disclosure, MaskedNames};
use crate::telemetry::record::RequestUrl;

/// What becomes of a URL's query.
#[derive(Clone, Copy)]
pub(super) enum Query<'a> {
    /// It stays, but for the values of the parameters that are masked, for which `***` stands.
    Masked(&'a Disclosure),
    /// It is left out, with its question mark.
    LeftOut,
}

const MASK: &[u8] = b"***";

/// Appends the URL as a JSON string of at most `cap` bytes of text, or `null` if nothing of it is known. Without a host
/// it begins with the path.
pub(super) fn write(url: &RequestUrl, query: Query<'_>, cap: usize, out: &mut Vec<u8>) {
    let authority = url.authority.as_ref().map_or(&b""[..], |authority| authority.as_bytes());
    if authority.is_empty() && url.path_and_query.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    let (path, tail) = split_at_byte(&url.path_and_query, b'?');
    let mut text = Text::open(out, cap);
    if !authority.is_empty() {
        text.push(if url.tls { b"https://" } else { b"http://" });
        push_without_user(authority, &mut text);
        if !path.is_empty() && !path.starts_with(b"/") {
            text.push(b"/");
        }
    }
    if path.starts_with(b"/") {
        text.push(path);
    } else {
        push_without_user(path, &mut text);
    }
    if let (Some(parameters), Query::Masked(disclosure)) = (tail, query) {
        text.push(b"?");
        push_masked(parameters, &disclosure.masked(), &mut text);
    }
    text.close();
}

/// `user:password@host` is a place for credentials; the gateway refuses such a target, and still records it.
fn push_without_user(authority: &[u8], text: &mut Text<'_>) {
    match memchr::memrchr(b'@', authority) {
        Some(at) => {
            text.push(MASK);
            text.push(&authority[at..]);
        }
        None => text.push(authority),
    }
}

/// Some servers take `;` for `&`. So a secret name is looked for after both, but only `&` ends a secret: more is hidden
/// rather than less.
fn push_masked(parameters: &[u8], masked: &MaskedNames, text: &mut Text<'_>) {
    for (place, between_ampersands) in parameters.split(|b| *b == b'&').enumerate() {
        if place > 0 {
            text.push(b"&");
        }
        let mut rest = between_ampersands;
        loop {
            let (parameter, further) = split_at_byte(rest, b';');
            let (name, value) = split_at_byte(parameter, b'=');
            if value.is_some() && masked.hold(name) {
                text.push(name);
                text.push(b"=");
                text.push(MASK);
                break;
            }
            text.push(parameter);
            let Some(further) = further else { break };
            text.push(b";");
            rest = further;
        }
    }
}

/// What is before and what is after the first `separator`, if there is one.
fn split_at_byte(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(separator, text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::telemetry::Privacy;

    fn disclosure() -> Disclosure {
        let mut masked = MaskedNames::default();
        masked.add("patient").unwrap();
        Disclosure::new(Privacy::Standard, masked)
    }

    fn written(authority: &str, target: &str, query: Query<'_>) -> String {
        let url = RequestUrl {
            tls: true,
            authority: HeaderValue::from_str(authority).ok(),
            path_and_query: target.to_owned().into(),
        };
        let mut out = Vec::new();
        write(&url, query, 4096, &mut out);
        serde_json::from_slice::<Option<String>>(&out).unwrap().unwrap_or("null".to_owned())
    }

    fn masked(target: &str) -> String {
        written("", target, Query::Masked(&disclosure()))
    }

    #[test]
    fn the_contracts_secret_parameters_are_masked_in_any_spelling() {
        for name in [
            "code",
            "key",
            "token",
            "access_token",
            "api_key",
            "api-key",
            "apikey",
            "sig",
            "signature",
            "password",
            "secret",
            "subscription-key",
            "API-Key",
            "%6Bey",
            "k%65y",
            "Ocp-Apim-Subscription-Key",
            "%73%49%67",
            "patient",
            "Pati%45nt",
        ] {
            assert_eq!(
                masked(&format!("/score?a=1&{name}=s3cr=et;t&b=2")),
                format!("/score?a=1&{name}=***&b=2")
            );
        }
    }

    #[test]
    fn a_secret_after_a_semicolon_is_masked_to_the_next_ampersand() {
        assert_eq!(masked("/s?a=1;key=x;y=2&b=3"), "/s?a=1;key=***&b=3");
    }

    #[test]
    fn all_else_in_a_query_stays_as_sent() {
        for target in [
            "/score",
            "/score?",
            "/score?verbose",
            "/score?key",
            "/score?keys=1&monkey=2",
            "/score?a=b?key=3",
            "/s?&&=;=&%",
            "/s?%zzkey=1",
            "/s?averyveryverylongparametername=1",
        ] {
            assert_eq!(masked(target), target);
        }
    }

    #[test]
    fn a_url_is_put_together_and_its_query_cut_off_when_private() {
        let disclosure = disclosure();
        let masked = Query::Masked(&disclosure);
        assert_eq!(written("h:8443", "/score?a=1", masked), "https://h:8443/score?a=1");
        assert_eq!(written("h:8443", "/score?a=1", Query::LeftOut), "https://h:8443/score");
        assert_eq!(written("h", "*", masked), "https://h/*");
        assert_eq!(written("h", "", masked), "https://h");
        assert_eq!(written("", "", masked), "null");
    }

    #[test]
    fn a_password_before_the_host_does_not_show() {
        assert_eq!(written("u:pw@h", "/", Query::Masked(&disclosure())), "https://***@h/");
        assert_eq!(masked("http://u:pw@h/score"), "***@h/score");
    }
}
