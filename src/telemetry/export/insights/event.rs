//! An activity event's line as an `EventData` envelope (`Microsoft.ApplicationInsights.Event`).

use serde_json::{Map, Value, json};

use super::super::exporter::Untranslatable;
use super::envelope::Envelopes;

/// Plain: the name is the operation's, every field of the line is a custom property.
pub(super) fn translate(envelopes: &Envelopes, line: &[u8]) -> Result<Vec<u8>, Untranslatable> {
    let unusable = |error: serde_json::Error| Untranslatable(format!("the line is no event: {error}"));
    let event: Map<String, Value> = serde_json::from_slice(line).map_err(unusable)?;
    let field = |name| event.get(name).and_then(Value::as_str);
    let missing = |name: &str| Untranslatable(format!("the event has no {name}"));
    let time = field("eventTimestamp").ok_or_else(|| missing("eventTimestamp"))?;
    let name = field("operationName").ok_or_else(|| missing("operationName"))?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let properties: Map<String, Value> =
        event.iter().map(|(name, value)| (name.clone(), text(value).into())).collect();
    let envelope = json!({
        "ver": 1,
        "name": "Microsoft.ApplicationInsights.Event",
        "time": time,
        "sampleRate": 100.0,
        "iKey": envelopes.key.expose(),
        "tags": {
            "ai.cloud.role": "scoregate",
            "ai.cloud.roleInstance": envelopes.instance,
            "ai.operation.id": field("operationId").unwrap_or_default(),
            "ai.internal.sdkVersion": concat!("scoregate:", env!("CARGO_PKG_VERSION")),
        },
        "data": {
            "baseType": "EventData",
            "baseData": { "ver": 2, "name": name, "properties": properties },
        },
    });
    serde_json::to_vec(&envelope).map_err(unusable)
}
