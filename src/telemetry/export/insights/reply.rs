//! What an answer of the ingestion endpoint means for the items (Azure Monitor exporters' rules).

use serde::Deserialize;

use super::super::exporter::{Again, Fate, Outcome};
use super::super::http::{Answer, echo};

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
    Again { cause: cause(answer), after: answer.retry_after() }
}

fn cause(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    format!("status {}: {}", answer.status.as_u16(), echo(&body))
}

#[cfg(test)]
mod tests {
    use super::super::super::http::MAX_ECHO;
    use super::*;
    use http::{HeaderMap, StatusCode};

    fn answer(status: u16, body: &str) -> Answer {
        let body = body.to_owned().into();
        let (headers, trailers) = (HeaderMap::new(), HeaderMap::new());
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body, trailers }
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
    fn what_the_log_repeats_is_bounded_and_without_control_characters() {
        let Outcome::Refused { cause } = outcome(&answer(400, &"\u{1b}a".repeat(1000)), 1) else {
            panic!("not refused")
        };
        assert_eq!(cause, format!("status 400: {}", "a".repeat(MAX_ECHO)));
    }
}
