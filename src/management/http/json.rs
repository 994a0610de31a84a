//! JSON bodies, read strictly: bounded size, time and depth, no member twice, no NUL, and an error that names its place.
//!
//! Two readers that disagree about one text are how checks are got around (RFC 8259 section 4 leaves the meaning of a
//! repeated member open), so whatever is open to more than one reading is refused before it gets a meaning.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use http::{HeaderMap, header};
use http_body::Body as _;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::management::{Cause, Refusal};

/// Largest request body, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// Deepest nesting; a whole service needs 7.
const MAX_DEPTH: usize = 64;
/// Longest wait for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Reads the whole JSON body of `request`, whose content type, if it names one, must be JSON. An empty body is `null`.
///
/// # Errors
/// As [`body`], and [`Cause::Invalid`] for another content type.
pub async fn request<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    content_type(request.headers())?;
    body(request.into_body()).await
}

/// Reads a whole JSON body. An empty body is `null`.
///
/// # Errors
/// [`Cause::TooLarge`] over [`MAX_BODY`], at once if the length is announced; [`Cause::Invalid`] names the place of what
/// is wrong.
pub async fn body<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    parse(&bytes(body).await?)
}

/// Refuses a content type that is not JSON (RFC 6838 section 4.2.8: `application/json` or a name that ends with `+json`).
fn content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let subtype = essence.split_once('/').map(|(_, subtype)| subtype.to_ascii_lowercase());
    let is_json =
        |subtype: String| subtype == "json" || subtype.ends_with("+json") || subtype.ends_with("-json");
    if subtype.is_some_and(is_json) {
        return Ok(());
    }
    Err(Refusal::invalid("content-type", "the body must be JSON: send content-type: application/json"))
}

async fn bytes(body: Body) -> Result<bytes::Bytes, Refusal> {
    let too_large = || Refusal::new(Cause::TooLarge, format!("the body is over {MAX_BODY} bytes"));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_over_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(Cause::Invalid, "the body broke off")),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            Err(Refusal::new(Cause::Invalid, format!("the body did not come within {seconds} s")))
        }
    }
}

fn is_over_limit(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Reads a JSON text. An empty one is `null`.
///
/// # Errors
/// [`Cause::Invalid`] with line and column, and the path of the field where there is one.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let bytes = if bytes.is_empty() { &b"null"[..] } else { bytes };
    let mut strict = serde_json::Deserializer::from_slice(bytes);
    Strict { depth: 0 }
        .deserialize(&mut strict)
        .and_then(|()| strict.end())
        .map_err(|error| refused(None, &error))?;
    let mut typed = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut typed).map_err(|error| {
        let path = error.path().to_string();
        // serde_path_to_error writes the root as `.` and an unknown place as `?`.
        let path = (!matches!(path.as_str(), "." | "?")).then_some(path);
        refused(path, error.inner())
    })
}

fn refused(target: Option<String>, error: &serde_json::Error) -> Refusal {
    Refusal { cause: Cause::Invalid, message: format!("not the JSON expected: {error}"), target }
}

/// Passes over one value and refuses what strictness forbids; the parser itself refuses numbers that no `f64` holds,
/// lone surrogates, control characters in strings and text that is not UTF-8.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        without_nul(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let deeper = self.deeper()?;
        while items.next_element_seed(deeper)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let deeper = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            without_nul(&name)?;
            if seen.contains(&name) {
                return Err(A::Error::custom(format_args!("the member '{name}' is there twice")));
            }
            seen.insert(name);
            members.next_value_seed(deeper)?;
        }
        Ok(())
    }
}

fn without_nul<E: Error>(text: &str) -> Result<(), E> {
    if text.contains('\0') { Err(E::custom("a text holds a NUL character")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    fn refusal(text: impl AsRef<[u8]>) -> Refusal {
        parse::<Value>(text.as_ref()).expect_err("it was taken")
    }

    #[test]
    fn what_has_more_than_one_reading_is_refused_with_its_place() {
        let cases: &[(&[u8], &str)] = &[
            (br#"{"a":1,"b":{"c":1,"c":2}}"#, "the member 'c' is there twice at line 1 column 21"),
            (b"{\"a\":1,\n\"a\":1}", "the member 'a' is there twice at line 2 column 3"),
            (br#"{"a":1,"\u0061":2}"#, "the member 'a' is there twice"),
            (br#"{"a\u0000":1}"#, "NUL"),
            (br#"["\u0000"]"#, "NUL"),
            (b"[1e999]", "number out of range"),
            (br#"["\ud800"]"#, "line 1 column"),
            (b"\"\xff\"", "line 1 column"),
            (b"[1] 2", "trailing characters"),
            (b"[1,]", "trailing comma"),
            (b"{'a':1}", "line 1 column 2"),
            (b"\xef\xbb\xbf1", "line 1 column 1"),
            (b"NaN", "line 1 column"),
        ];
        for (text, word) in cases {
            let refusal = refusal(text);
            assert_eq!(refusal.cause, Cause::Invalid);
            assert!(refusal.message.contains(word), "{}: {refusal}", text.escape_ascii());
        }
    }

    #[test]
    fn nesting_ends_at_its_limit_and_never_takes_the_stack() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse::<Value>(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(refusal(nested(MAX_DEPTH + 1)).message.contains("deeper than 64"));
        assert!(refusal(nested(100_000)).message.contains("deeper than 64"));
        assert!(refusal("{\"a\":".repeat(100_000)).message.contains("deeper than 64"));
    }

    #[test]
    fn a_wrong_field_is_named_by_its_path() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Spec {
            #[expect(dead_code, reason = "read for its type")]
            deployments: BTreeMap<String, Vec<u8>>,
        }
        let wrong = parse::<Spec>(br#"{"deployments":{"blue":[1,-1]}}"#).unwrap_err();
        assert_eq!(wrong.target.as_deref(), Some("deployments.blue[1]"));
        let unknown = parse::<Spec>(br#"{"deployment":{}}"#).unwrap_err();
        assert!(unknown.message.contains("unknown field `deployment`"), "{unknown}");
    }

    #[test]
    fn only_json_content_types_pass() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(value));
            content_type(&headers).is_ok()
        };
        assert!(content_type(&HeaderMap::new()).is_ok());
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json-patch+json"] {
            assert!(check(good), "{good}");
        }
        for bad in ["text/plain", "application/jsonp", "application/x-www-form-urlencoded", "json", ""] {
            assert!(!check(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_announced_length_over_the_limit_is_not_read() {
        use std::pin::Pin;
        use std::task::{Context, Poll};
        struct Announced;
        impl http_body::Body for Announced {
            type Data = bytes::Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
                panic!("it was read");
            }
            fn size_hint(&self) -> http_body::SizeHint {
                http_body::SizeHint::with_exact(64 * 1024 * 1024)
            }
        }
        let refusal = body::<Value>(Body::new(Announced)).await.unwrap_err();
        assert_eq!(refusal.cause, Cause::TooLarge);
        let refusal = body::<Value>(Body::from(vec![b' '; MAX_BODY + 1])).await.unwrap_err();
        assert_eq!(refusal.cause, Cause::TooLarge);
        assert_eq!(body::<Value>(Body::empty()).await, Ok(Value::Null));
    }
}
