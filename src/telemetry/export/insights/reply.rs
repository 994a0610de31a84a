//! What an answer of the ingestion endpoint means for the items (Azure Monitor exporters' rules).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use serde::Deserialize;

use super::super::exporter::{Again, Fate, Outcome};
use super::super::http::Answer;

/// Longest piece of an answer that the log repeats, in characters.
const MAX_ECHO: usize = 200;

/// The answer's body; all of it may be missing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Track {
    errors: Vec<ItemError>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ItemError {
    /// Missing: no item in particular.
    index: Option<usize>,
    status_code: u16,
    message: Option<String>,
}

/// The outcome for `items` items; redirects are not for here.
pub(super) fn outcome(answer: &Answer, items: usize) -> Outcome {
    let status = answer.status.as_u16();
    match status {
        200 => Outcome::Delivered,
        206 => partly(answer, items),
        status if is_temporary(status) => Outcome::Later(again(answer)),
        // 402 and 439 are quotas for the day or longer, 400 and 404 mistakes that no repetition mends.
        _ => Outcome::Refused { cause: cause(answer) },
    }
}

/// Whether the same item may be taken later.
const fn is_temporary(status: u16) -> bool {
    matches!(status, 401 | 403 | 408 | 429 | 500 | 502 | 503 | 504)
}

/// Items without an error were taken; of the others, those with a temporary one are sent again.
fn partly(answer: &Answer, items: usize) -> Outcome {
    let Ok(track) = serde_json::from_slice::<Track>(&answer.body) else {
        // Which were taken is not known. Their ids make it harmless to send those once more.
        return Outcome::Later(again(answer));
    };
    let mut fates = vec![Fate::Delivered; items];
    for error in &track.errors {
        let fate = if is_temporary(error.status_code) { Fate::Again } else { Fate::Dropped };
        if let Some(place) = error.index.and_then(|index| fates.get_mut(index)) {
            *place = fate;
        }
    }
    let first = track.errors.first();
    let cause = first.map_or_else(String::new, |error| {
        format!("status {}: {}", error.status_code, echo(error.message.as_deref().unwrap_or_default()))
    });
    Outcome::Each { fates, again: Again { cause, ..again(answer) } }
}

fn again(answer: &Answer) -> Again {
    Again { cause: cause(answer), after: retry_after(&answer.headers, SystemTime::now()) }
}

fn cause(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    format!("status {}: {}", answer.status.as_u16(), echo(&body))
}

fn echo(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_ECHO).collect()
}

/// `Retry-After` in both of its forms (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, StatusCode};

    fn answer(status: u16, body: &str) -> Answer {
        let body = body.to_owned().into();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body }
    }

    #[test]
    fn each_status_has_its_outcome() {
        assert_eq!(outcome(&answer(200, "{}"), 3), Outcome::Delivered);
        for status in [401, 403, 408, 429, 500, 502, 503, 504] {
            assert!(matches!(outcome(&answer(status, ""), 3), Outcome::Later(_)), "{status}");
        }
        for status in [400, 402, 404, 405, 413, 439, 501] {
            assert!(matches!(outcome(&answer(status, ""), 3), Outcome::Refused { .. }), "{status}");
        }
    }

    #[test]
    fn of_a_206_only_the_retryable_items_are_sent_again() {
        let body = r#"{"itemsReceived":4,"itemsAccepted":2,"errors":[
            {"index":1,"statusCode":500,"message":"later"},
            {"index":3,"statusCode":400,"message":"never"},
            {"index":9,"statusCode":500,"message":"no such item"},
            {"statusCode":500}]}"#;
        let Outcome::Each { fates, again } = outcome(&answer(206, body), 4) else { panic!("no fates") };
        assert_eq!(fates, [Fate::Delivered, Fate::Again, Fate::Delivered, Fate::Dropped]);
        assert_eq!(again, Again { cause: "status 500: later".to_owned(), after: None });
        assert!(matches!(outcome(&answer(206, "no JSON"), 4), Outcome::Later(_)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 10:00:00 GMT").unwrap();
        for (value, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("Tue, 24 Nov 2026 10:00:09 GMT", Some(9)),
            ("Tue, 24 Nov 2026 09:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn what_the_log_repeats_is_bounded_and_without_control_characters() {
        let Outcome::Refused { cause } = outcome(&answer(400, &"\u{1b}a".repeat(1000)), 1) else {
            panic!("not refused")
        };
        assert_eq!(cause, format!("status 400: {}", "a".repeat(MAX_ECHO)));
    }
}
