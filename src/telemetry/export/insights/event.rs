//! An activity event's line as an `EventData` envelope.
//!
//! Made of the line alone, as with records: its name is Azure's action string, all its fields are custom properties. The
//! start and the end of one operation have the same operation id.

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::super::exporter::Untranslatable;
use super::envelope::{Context, Data, Envelopes, PROPERTY_CAP, PROPERTY_NAME_CAP, cut};
use super::line::{Line, Scalar};

/// Longest name, in characters (Application Insights data model).
const NAME_CAP: usize = 512;
/// Fields that have a place of their own and would only be there twice.
const STANDARD_ONLY: [&str; 3] = ["eventTimestamp", "operationName", "clientIpAddress"];

#[derive(Serialize)]
struct EventData<'a> {
    ver: u8,
    name: &'a str,
    properties: Properties<'a>,
}

/// Every field of a line as text.
struct Properties<'a>(&'a Line<'a>);

impl Data for EventData<'_> {
    const NAME: &'static str = "Microsoft.ApplicationInsights.Event";
    const TYPE: &'static str = "EventData";
}

impl Envelopes {
    /// The envelope of the line of one activity event.
    ///
    /// # Errors
    /// The line is none, or its envelope is too large.
    pub(super) fn of_event(&self, line: &[u8]) -> Result<Vec<u8>, Untranslatable> {
        let line =
            Line::parse(line).map_err(|error| Untranslatable(format!("the line is no event: {error}")))?;
        let missing = |field: &str| Untranslatable(format!("the event has no {field}"));
        let time = line.text("eventTimestamp").ok_or_else(|| missing("eventTimestamp"))?;
        let name = line.text("operationName").ok_or_else(|| missing("operationName"))?;
        let operation_id = line.text("operationId").map(|id| id.replace('-', ""));
        let context = Context {
            operation_id: operation_id.as_deref(),
            operation_name: Some(name),
            address: line.text("clientIpAddress"),
            user_id: line.text("caller").filter(|caller| !caller.is_empty()),
            ..Context::default()
        };
        let data = EventData { ver: 2, name: cut(name, NAME_CAP), properties: Properties(&line) };
        self.item(time, context, &data)
    }
}

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter().filter(|(name, _)| !STANDARD_ONLY.contains(name)) {
            let text: Cow<'_, str> = match value {
                Scalar::Text(text) => cut(text, PROPERTY_CAP).into(),
                Scalar::Bool(value) => value.to_string().into(),
                Scalar::Whole(number) => number.to_string().into(),
                Scalar::Number(number) => number.to_string().into(),
                Scalar::Unknown => continue,
            };
            map.serialize_entry(cut(name, PROPERTY_NAME_CAP), &text)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const LINE: &str = r#"{"eventTimestamp":"2026-11-24T10:28:52.1Z","sequence":7,
        "operationId":"11111111-2222-4333-8444-555555555555","correlationId":"mine",
        "operationName":"Microsoft.MachineLearningServices/workspaces/services/aks/write","caller":"alice",
        "clientIpAddress":"192.0.2.7","method":"PUT","resourceId":"/subscriptions/sub","status":"Failed",
        "statusCode":409,"error":"Conflict: iris exists","previousHash":"00ff"}"#;

    fn translated(line: &str) -> Value {
        serde_json::from_slice(&Envelopes::sample().of_event(line.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn an_event_becomes_an_item_of_the_schema() {
        let expected = json!({
            "name": "Microsoft.ApplicationInsights.Event",
            "time": "2026-11-24T10:28:52.1Z",
            "iKey": "99999999-8888-4777-8666-555555555555",
            "tags": {
                "ai.cloud.role": "scoregate",
                "ai.cloud.roleInstance": "host-1",
                "ai.internal.sdkVersion": concat!("scoregate:", env!("CARGO_PKG_VERSION")),
                "ai.operation.id": "11111111222243338444555555555555",
                "ai.operation.name": "Microsoft.MachineLearningServices/workspaces/services/aks/write",
                "ai.location.ip": "192.0.2.7",
                "ai.user.authUserId": "alice",
            },
            "data": { "baseType": "EventData", "baseData": {
                "ver": 2,
                "name": "Microsoft.MachineLearningServices/workspaces/services/aks/write",
                "properties": {
                    "sequence": "7",
                    "operationId": "11111111-2222-4333-8444-555555555555",
                    "correlationId": "mine",
                    "caller": "alice",
                    "method": "PUT",
                    "resourceId": "/subscriptions/sub",
                    "status": "Failed",
                    "statusCode": "409",
                    "error": "Conflict: iris exists",
                    "previousHash": "00ff",
                },
            } },
        });
        assert_eq!(translated(LINE), expected);
    }

    #[test]
    fn what_is_left_out_of_the_line_is_nowhere_in_the_item() {
        let line = LINE.replace(r#""caller":"alice","#, "").replace(r#""clientIpAddress":"192.0.2.7","#, "");
        let value = translated(&line.replace("409", "null"));
        assert_eq!(
            (value["tags"].get("ai.user.authUserId"), value["tags"].get("ai.location.ip")),
            (None, None)
        );
        let properties = value["data"]["baseData"]["properties"].as_object().unwrap();
        assert!(!properties.contains_key("caller") && !properties.contains_key("statusCode"));
        assert!(!translated(&LINE.replace("alice", "")).to_string().contains("authUserId"));
    }

    #[test]
    fn a_line_that_is_no_event_makes_no_item() {
        for bad in ["", "{}", "7", r#"{"eventTimestamp":"t"}"#, r#"{"operationName":"o"}"#] {
            assert!(Envelopes::sample().of_event(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
