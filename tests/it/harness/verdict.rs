//! What a call came to: its answer and its record held against each other.

use serde_json::Value;

use super::{Answer, Gateway, eventually};

/// Reasons whose answers say when to come back; no other may, since the v2 SDK retries whatever carries the field.
const RETRYABLE: [&str; 6] =
    ["auth_unavailable", "queue_full", "queue_timeout", "rate_limited", "no_ready_replica", "draining"];

impl Gateway {
    /// The one record of the call that got `answer`, found by its request id. Its status is the answer's.
    pub async fn record(&self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id");
        assert_eq!(id.len(), 36, "an answer without a request id: {answer:?}");
        assert_eq!(answer.header("x-ms-request-id"), id);
        let record = eventually(&format!("the record of {answer:?}"), async || {
            let text = std::fs::read_to_string(self.path("records.jsonl")).unwrap_or_default();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let mut of_call = whole.lines().filter(|line| line.contains(id));
            let found = of_call.next().map(|line| serde_json::from_str::<Value>(line).unwrap());
            assert_eq!(of_call.next(), None, "a second record of one call");
            found
        })
        .await;
        assert_eq!(record["RequestId"], id);
        assert_eq!(record["StatusCode"], answer.status, "{record}");
        record
    }

    /// Checks that a replica's answer was passed on with `status`; gives the record.
    #[track_caller]
    pub fn passed<'a>(&'a self, answer: &'a Answer, status: u16) -> impl Future<Output = Value> + 'a {
        assert_eq!(answer.status, status, "{answer:?} {}", answer.text());
        assert_eq!(answer.reason(), "", "only the gateway's own answers bear a reason");
        async move {
            let record = self.record(answer).await;
            assert_eq!(record["EndedBy"], "upstream", "{record}");
            assert!(record["ModelStatusCode"].is_u64(), "{record}");
            assert!(record["Attempts"].as_u64() >= Some(1), "{record}");
            record
        }
    }

    /// Checks that the gateway refused with `status` and `reason`, in the contract's shape and with the fields that go
    /// with it and no others; gives the record.
    #[track_caller]
    pub fn refused<'a>(
        &'a self,
        answer: &'a Answer,
        status: u16,
        reason: &'a str,
    ) -> impl Future<Output = Value> + 'a {
        check_refusal(answer, status, reason);
        async move {
            let record = self.record(answer).await;
            assert_eq!(record["Reason"], reason, "{record}");
            assert_eq!(record["ModelStatusCode"], Value::Null, "{record}");
            record
        }
    }
}

/// Checks that `answer` refuses what is malformed. Whether that leaves a record depends on where it was noticed: a head
/// that could not be read never became a call.
#[track_caller]
pub fn assert_malformed(answer: &Answer) {
    check_refusal(answer, 400, "bad_request");
}

#[track_caller]
fn check_refusal(answer: &Answer, status: u16, reason: &str) {
    assert_eq!((answer.status, answer.reason()), (status, reason), "{answer:?} {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(keys(&body), ["error"]);
    let error = &body["error"];
    assert_eq!(keys(error), ["code", "message", "reason", "requestId"]);
    assert_eq!(error["reason"], reason);
    assert_eq!(error["requestId"], answer.header("x-request-id"));
    assert!(error["code"].as_str().is_some_and(|code| !code.is_empty()), "{error}");
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 5), "{error}");
    check_advice(answer, reason);
}

/// Asserts that `record` has each field of `expected`; `null` there means absent or null.
#[track_caller]
pub fn assert_record(record: &Value, expected: &Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(record.get(field).unwrap_or(&Value::Null), value, "{field} of {record}");
    }
}

/// The fields that tell a client what to do about a refusal.
#[track_caller]
fn check_advice(answer: &Answer, reason: &str) {
    let has = |name: &str| answer.headers.contains_key(name);
    assert_eq!(has("retry-after"), RETRYABLE.contains(&reason), "{answer:?}");
    assert_eq!(has("www-authenticate"), answer.status == 401, "{answer:?}");
    assert!(
        !has("www-authenticate") || answer.header("www-authenticate").starts_with("Bearer"),
        "{answer:?}"
    );
    let allowed = matches!(answer.header("allow"), "GET" | "POST" | "GET, POST");
    assert_eq!(allowed, answer.status == 405, "{answer:?}");
    assert!(!has("location"), "{answer:?}");
}

#[track_caller]
fn keys(object: &Value) -> Vec<&String> {
    object.as_object().unwrap_or_else(|| panic!("not an object: {object}")).keys().collect()
}
