//! A record's line as a `RequestData` envelope.
//!
//! Made of the line alone: what privacy leaves out of that can be in no envelope. The seven fields that Azure's own record
//! of a scoring call has, and every other text of the record, are custom properties; numbers are measurements. So a new
//! field of the record needs nothing here.

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::super::exporter::Untranslatable;
use super::envelope::{Context, Data, Envelopes, PROPERTY_CAP, PROPERTY_NAME_CAP, cut};
use super::line::{Line, Scalar};

/// Longest values, in characters (Application Insights data model).
const NAME_CAP: usize = 1024;
const URL_CAP: usize = 2048;
const SOURCE_CAP: usize = 1024;
/// Numbers that are no quantities, and the one that the seven fields have as well as the standard ones.
const NUMBERS_AS_TEXT: [&str; 3] = ["StatusCode", "ModelStatusCode", "Duration"];
/// Fields that have a place of their own and would only be there twice.
const STANDARD_ONLY: [&str; 4] = ["Time", "TraceId", "ParentSpanId", "ClientAddress"];
/// Durations end here: 1,000 days.
const MOST_MICROS: u64 = 1_000 * 24 * 3_600 * 1_000_000 - 1;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestData<'a> {
    ver: u8,
    id: &'a str,
    name: &'a str,
    duration: &'a str,
    success: bool,
    response_code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    properties: Properties<'a>,
    measurements: Measurements<'a>,
}

/// The texts of a line.
struct Properties<'a>(&'a Line<'a>);
/// The numbers of a line.
struct Measurements<'a>(&'a Line<'a>);

impl Data for RequestData<'_> {
    const NAME: &'static str = "Microsoft.ApplicationInsights.Request";
    const TYPE: &'static str = "RequestData";
}

impl Envelopes {
    /// The envelope of the line of one record.
    ///
    /// # Errors
    /// The line is none, or its envelope is too large.
    pub(super) fn of_record(&self, line: &[u8]) -> Result<Vec<u8>, Untranslatable> {
        let line =
            Line::parse(line).map_err(|error| Untranslatable(format!("the line is no record: {error}")))?;
        let missing = |field: &str| Untranslatable(format!("the record has no {field}"));
        let time = line.text("Time").ok_or_else(|| missing("Time"))?;
        let request_id = line.text("RequestId").ok_or_else(|| missing("RequestId"))?;
        let status = line.number("StatusCode").ok_or_else(|| missing("StatusCode"))?;
        let derived_id = request_id.replace('-', "");
        let name = name(&line);
        let name = cut(&name, NAME_CAP);
        let address = line.text("ClientAddress");
        let url = line.text("RequestUrl").filter(|url| url.starts_with("http"));
        let context = Context {
            operation_id: Some(line.text("TraceId").unwrap_or(&derived_id)),
            parent_id: line.text("ParentSpanId"),
            operation_name: Some(name),
            address,
            user_agent: line.text("UserAgent"),
            user_id: None,
        };
        let data = RequestData {
            ver: 2,
            // Not the span's, which has 16 digits and is unique within its trace only: this one is what the caller was told,
            // and it makes a resend harmless.
            id: request_id,
            name,
            duration: &duration(line.number("Duration").unwrap_or_default()),
            // An answer that was begun well and broken off has its status, and a reason that is not "ok".
            success: status < 400.0 && line.text("Reason").is_none_or(|reason| reason == "ok"),
            response_code: &status.to_string(),
            source: address.map(|address| cut(address, SOURCE_CAP)),
            url: url.map(|url| cut(url, URL_CAP)),
            properties: Properties(&line),
            measurements: Measurements(&line),
        };
        self.item(time, context, &data)
    }
}

/// Method and path. Where no service was found the path is anybody's guess, and each would make a name of its own.
fn name(line: &Line<'_>) -> String {
    let method = line.text("HTTPMethod").unwrap_or("UNKNOWN");
    let path = line.text("RequestUrl").filter(|_| line.text("Service").is_some()).map(path);
    format!("{method} {}", path.unwrap_or("(no service)"))
}

fn path(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("/", |at| &after_scheme[at..]);
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// `d.hh:mm:ss.ffffff`, the form of .NET's TimeSpan.
fn duration(milliseconds: f64) -> String {
    let micros = ((milliseconds * 1000.0).round().max(0.0) as u64).min(MOST_MICROS);
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{days}.{hours:02}:{minutes:02}:{:02}.{micros:06}", seconds % 60)
}

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter().filter(|(name, _)| !STANDARD_ONLY.contains(name)) {
            let text = match value {
                Scalar::Text(text) => Cow::Borrowed(cut(text, PROPERTY_CAP)),
                Scalar::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
                Scalar::Whole(number) if NUMBERS_AS_TEXT.contains(&name) => number.to_string().into(),
                Scalar::Number(number) if NUMBERS_AS_TEXT.contains(&name) => number.to_string().into(),
                Scalar::Whole(_) | Scalar::Number(_) | Scalar::Unknown => continue,
            };
            map.serialize_entry(cut(name, PROPERTY_NAME_CAP), &text)?;
        }
        map.end()
    }
}

impl Serialize for Measurements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter().filter(|(name, _)| !NUMBERS_AS_TEXT.contains(name)) {
            let name = cut(name, PROPERTY_NAME_CAP);
            match value {
                Scalar::Whole(number) => map.serialize_entry(name, number)?,
                Scalar::Number(number) => map.serialize_entry(name, number)?,
                Scalar::Unknown | Scalar::Bool(_) | Scalar::Text(_) => {}
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Privacy;
    use crate::telemetry::record::{Principal, Record, RequestUrl};
    use serde_json::{Value, json};

    fn translated(record: &Record, privacy: Privacy) -> Value {
        let mut line = Vec::new();
        record.encode(privacy, &mut line);
        let item = Envelopes::sample().of_record(line.strip_suffix(b"\n").unwrap()).unwrap();
        serde_json::from_slice(&item).unwrap()
    }

    #[test]
    fn the_envelope_of_a_whole_record() {
        let expected = json!({
            "name": "Microsoft.ApplicationInsights.Request",
            "time": "2026-11-24T10:28:52.123456Z",
            "iKey": "99999999-8888-4777-8666-555555555555",
            "tags": {
                "ai.cloud.role": "scoregate",
                "ai.cloud.roleInstance": "host-1",
                "ai.operation.id": "0af7651916cd43dd8448eb211c80319c",
                "ai.operation.parentId": "b7ad6b7169203331",
                "ai.operation.name": "POST /api/v1/service/iris/score",
                "ai.internal.sdkVersion": concat!("scoregate:", env!("CARGO_PKG_VERSION")),
                "ai.location.ip": "192.0.2.7",
                "ai.user.userAgent": "curl/8.0",
            },
            "data": { "baseType": "RequestData", "baseData": {
                "ver": 2,
                "id": "11111111-2222-4333-8444-555555555555",
                "name": "POST /api/v1/service/iris/score",
                "duration": "0.00:00:00.012045",
                "success": true,
                "responseCode": "200",
                "source": "192.0.2.7",
                "url": "https://score.example.org:8443/api/v1/service/iris/score?code=***",
                "properties": {
                    "HTTPMethod": "POST",
                    "UserAgent": "curl/8.0",
                    "ComputeType": "AKS",
                    "RequestUrl": "https://score.example.org:8443/api/v1/service/iris/score?code=***",
                    "StatusCode": "200",
                    "RequestId": "11111111-2222-4333-8444-555555555555",
                    "Duration": "12.045",
                    "Service": "iris",
                    "Deployment": "blue",
                    "Replica": "127.0.0.1:5001",
                    "AuthType": "key",
                    "KeyId": "primary",
                    "ModelStatusCode": "200",
                    "Reason": "ok",
                    "EndedBy": "upstream",
                    "ClientRequestId": "abc",
                    "TraceFlags": "01",
                    "Protocol": "HTTP/1.1",
                    "Model": "org/name",
                },
                "measurements": {
                    "Attempts": 1, "RequestBytes": 1024, "ResponseBytes": 130,
                    "QueueMs": 0.0, "ConnectMs": 0.25, "FirstByteMs": 11.0, "StreamMs": 1.0,
                    "PromptTokens": 9, "CompletionTokens": 12,
                },
            } },
        });
        assert_eq!(translated(&Record::sample(), Privacy::Standard), expected);
    }

    #[test]
    fn what_privacy_leaves_out_is_in_no_envelope() {
        let record = Record {
            principal: Principal::Subject("alice-the-caller".into()),
            user_agent: Some(http::HeaderValue::from_static("agent-of-alice")),
            url: RequestUrl {
                path_and_query: bytes::Bytes::from_static(b"/score?patient=4711"),
                ..Record::sample().url
            },
            ..Record::sample()
        };
        let shown = ["alice-the-caller", "agent-of-alice", "patient", "4711", "192.0.2.7", "\"abc\""];
        let standard = translated(&record, Privacy::Standard).to_string();
        assert!(shown.iter().all(|part| standard.contains(part)), "{standard}");
        let private = translated(&record, Privacy::High).to_string();
        assert!(!shown.iter().any(|part| private.contains(part)), "{private}");
        assert!(private.contains("\"name\":\"POST /score\""), "{private}");
    }

    #[test]
    fn a_call_of_which_little_is_known_still_makes_an_envelope() {
        let record = Record {
            method: None,
            url: RequestUrl::default(),
            service: None,
            parent: None,
            status: 400,
            ..Record::sample()
        };
        let value = translated(&record, Privacy::High);
        let data = &value["data"]["baseData"];
        assert_eq!(value["tags"]["ai.operation.id"], "11111111222243338444555555555555");
        assert_eq!((&data["name"], &data["success"]), (&json!("UNKNOWN (no service)"), &json!(false)));
        assert_eq!((data.get("url"), data.get("source")), (None, None));
        for bad in ["", "{}", "7", r#"{"Time":"t","RequestId":"r"}"#] {
            assert!(Envelopes::sample().of_record(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn success_is_a_status_below_400_and_a_whole_answer() {
        use crate::error::Reason;
        let success = |status, reason| {
            let record = Record { status, reason, ..Record::sample() };
            translated(&record, Privacy::Standard)["data"]["baseData"]["success"] == true
        };
        assert!(success(200, Reason::Ok) && success(302, Reason::Ok));
        assert!(!success(200, Reason::UpstreamReset) && !success(401, Reason::AuthMissing));
        assert!(!success(499, Reason::ClientGone) && !success(500, Reason::Internal));
    }

    #[test]
    fn everything_is_cut_at_its_limit_and_at_a_character() {
        let long = "é".repeat(PROPERTY_CAP + 1);
        let texts: String =
            (0..10).map(|number| format!(r#","Text{number}":"{}""#, "x".repeat(9_000))).collect();
        let huge = format!(r#"{{"Time":"t","StatusCode":200,"RequestId":"r"{texts}}}"#);
        let error = Envelopes::sample().of_record(huge.as_bytes()).map(|item| item.len()).unwrap_err();
        assert!(error.0.ends_with("the limit is 65536"), "{}", error.0);
        let line = format!(
            r#"{{"Time":"t","StatusCode":200,"RequestId":"r","Service":"s","HTTPMethod":"GET",
            "RequestUrl":"https://h/{}","{long}":"{}"}}"#,
            "u".repeat(9_000),
            "x".repeat(9_000)
        );
        let value: Value =
            serde_json::from_slice(&Envelopes::sample().of_record(line.as_bytes()).unwrap()).unwrap();
        let data = &value["data"]["baseData"];
        let length = |value: &Value| value.as_str().unwrap().chars().count();
        assert_eq!((length(&data["name"]), length(&data["url"])), (NAME_CAP, URL_CAP));
        let properties = data["properties"].as_object().unwrap();
        assert_eq!(length(&properties["RequestUrl"]), PROPERTY_CAP);
        assert_eq!(length(&properties[&"é".repeat(PROPERTY_NAME_CAP)]), PROPERTY_CAP);
    }

    #[test]
    fn durations_are_time_spans() {
        for (milliseconds, text) in [
            (0.0, "0.00:00:00.000000"),
            (12.045, "0.00:00:00.012045"),
            (61_000.5, "0.00:01:01.000500"),
            (86_400_000.0 + 3_600_000.0, "1.01:00:00.000000"),
            (f64::MAX, "999.23:59:59.999999"),
            (-1.0, "0.00:00:00.000000"),
        ] {
            assert_eq!(duration(milliseconds), text);
        }
    }
}
