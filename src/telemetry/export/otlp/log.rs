//! A record as a log record, and an activity event as well.

use serde_json::{Map, Value as Json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::exporter::Untranslatable;
use super::attributes::Attributes;
use super::call::Call;
use super::protobuf::{Fields, Value};
use super::settings::GenAi;
use super::span;
use crate::telemetry::trace::SampleRatio;

/// `ScopeLogs.log_records`
const LOG_RECORDS: u32 = 2;
/// `LogRecord.attributes`
const ATTRIBUTES: u32 = 6;

/// Translates records and events into log records.
pub(super) struct Logs {
    pub gen_ai: GenAi,
    /// For the flags only: logs are not sampled.
    pub ratio: SampleRatio,
}

/// `SeverityNumber` and the text that goes with it.
#[derive(Clone, Copy)]
struct Severity(u64, &'static str);

const INFO: Severity = Severity(9, "INFO");
const WARN: Severity = Severity(13, "WARN");
const ERROR: Severity = Severity(17, "ERROR");

impl Logs {
    /// The call's log record as a field of a `ScopeLogs`. Its time is the call's end: before there was nothing to tell.
    pub(super) fn translate(&self, call: &Call<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(2048);
        Fields::new(&mut out).message(LOG_RECORDS, |log| {
            let body = format!("{} {}", span::name(call), call.line.status_code);
            head(log, call.end(), severity(call), &body);
            Attributes { fields: &mut *log, number: ATTRIBUTES }.call(call, self.gen_ai);
            log.fixed32(8, u32::from(call.trace_flags(self.ratio).bits()));
            log.bytes(9, &call.trace_id.to_bytes());
            log.bytes(10, &call.span_id(0).to_bytes());
            log.text(12, "scoregate.record");
        });
        out
    }
}

/// An activity event's log record as a field of a `ScopeLogs`: its name is the operation's, every field of the line is an
/// attribute.
pub(super) fn event(line: &[u8]) -> Result<Vec<u8>, Untranslatable> {
    let unusable = |error: serde_json::Error| Untranslatable(format!("the line is no event: {error}"));
    let event: Map<String, Json> = serde_json::from_slice(line).map_err(unusable)?;
    let field = |name: &str| {
        let text = event.get(name).and_then(Json::as_str);
        text.ok_or_else(|| Untranslatable(format!("the event has no {name}")))
    };
    let time = OffsetDateTime::parse(field("eventTimestamp")?, &Rfc3339).ok();
    let time = time.and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok());
    let time = time.ok_or_else(|| Untranslatable("the event has an unusable eventTimestamp".to_owned()))?;
    let operation = field("operationName")?;
    let failed = event.get("status").and_then(Json::as_str) == Some("Failed");
    let mut out = Vec::new();
    Fields::new(&mut out).message(LOG_RECORDS, |log| {
        head(log, time, if failed { WARN } else { INFO }, operation);
        for (name, value) in &event {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            log.attribute(
                ATTRIBUTES,
                &format!("scoregate.activity.{}", snake_case(name)),
                Value::Text(&text),
            );
        }
        log.text(12, "scoregate.activity");
    });
    Ok(out)
}

/// The line has Azure's names, attributes have OpenTelemetry's.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Both times are the same: what was observed is the event itself, however long it waited since.
fn head(log: &mut Fields<'_>, time: u64, severity: Severity, body: &str) {
    log.fixed64(1, time);
    log.fixed64(11, time);
    log.number(2, severity.0);
    log.text(3, severity.1);
    log.any_value(5, Value::Text(body));
}

fn severity(call: &Call<'_>) -> Severity {
    match call.failure() {
        None => INFO,
        Some(_) if call.line.status_code >= 500 || call.is_broken_off() => ERROR,
        Some(_) => WARN,
    }
}
