//! A record's line as the export reads it, and what follows from it.

use std::borrow::Cow;
use std::ops::Deref;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::exporter::Untranslatable;
use crate::telemetry::record::RequestId;
use crate::telemetry::trace::{SampleRatio, SpanId, TraceFlags, TraceId, Tracing};

/// The line's fields, borrowed where nothing is escaped.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    time: Text<'a>,
    #[serde(borrow, rename = "HTTPMethod")]
    pub method: Option<Text<'a>>,
    #[serde(borrow)]
    pub user_agent: Option<Text<'a>>,
    #[serde(borrow)]
    pub compute_type: Option<Text<'a>>,
    #[serde(borrow)]
    request_url: Option<Text<'a>>,
    pub status_code: u16,
    #[serde(borrow)]
    pub request_id: Text<'a>,
    /// Milliseconds, as all the times below.
    pub duration: f64,
    #[serde(borrow)]
    pub service: Option<Text<'a>>,
    #[serde(borrow)]
    pub deployment: Option<Text<'a>>,
    #[serde(borrow)]
    pub replica: Option<Text<'a>>,
    #[serde(borrow)]
    pub auth_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub key_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub subject: Option<Text<'a>>,
    pub model_status_code: Option<u16>,
    #[serde(borrow)]
    pub reason: Text<'a>,
    #[serde(borrow)]
    pub ended_by: Text<'a>,
    pub attempts: u32,
    pub request_bytes: u64,
    pub response_bytes: u64,
    #[serde(borrow)]
    pub client_request_id: Option<Text<'a>>,
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    parent_span_id: Option<Text<'a>>,
    #[serde(borrow)]
    trace_flags: Option<Text<'a>>,
    #[serde(borrow)]
    pub client_address: Option<Text<'a>>,
    #[serde(borrow)]
    pub protocol: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub tries: Vec<Try<'a>>,
    pub queue_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub first_byte_ms: Option<f64>,
    pub stream_ms: Option<f64>,
    #[serde(borrow)]
    pub model: Option<Text<'a>>,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
}

/// One of several attempts.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Try<'a> {
    #[serde(borrow)]
    pub replica: Text<'a>,
    pub start_ms: f64,
    pub duration: f64,
    pub status_code: Option<u16>,
    #[serde(borrow)]
    pub error: Option<Text<'a>>,
}

/// Borrowed if it can be, which an optional `Cow` is not by itself.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A line with what follows from it.
pub(super) struct Call<'a> {
    pub line: Line<'a>,
    /// Unix time in nanoseconds.
    pub start: u64,
    pub trace_id: TraceId,
    pub parent: Option<SpanId>,
    /// What the caller decided; `None`: the trace begins here.
    pub flags: Option<TraceFlags>,
    request_id: RequestId,
}

/// One attempt at a replica.
pub(super) struct Attempt<'a> {
    /// From 1 on.
    pub number: u32,
    /// Host and port.
    pub replica: Option<&'a str>,
    /// Milliseconds from the call's start on.
    pub start: f64,
    pub duration: f64,
    pub status: Option<u16>,
    /// Why there was no answer, or not all of it.
    pub error: Option<&'a str>,
}

/// The parts of the URL that the caller named.
#[derive(Default)]
pub(super) struct Url<'a> {
    pub scheme: Option<&'a str>,
    pub host: Option<&'a str>,
    pub port: Option<u16>,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

impl<'a> Call<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, Untranslatable> {
        let line: Line<'a> = serde_json::from_slice(line)
            .map_err(|error| Untranslatable(format!("the line is no record: {error}")))?;
        let unusable = |field: &str| Untranslatable(format!("the record has an unusable {field}"));
        let request_id = RequestId::parse(&line.request_id).ok_or_else(|| unusable("RequestId"))?;
        let parse = |text: &Option<Text<'_>>| text.as_ref().and_then(|id| TraceId::parse(id.as_bytes()));
        Ok(Self {
            start: unix_nanos(&line.time).ok_or_else(|| unusable("Time"))?,
            trace_id: parse(&line.trace_id).unwrap_or_else(|| request_id.trace_id()),
            parent: line.parent_span_id.as_ref().and_then(|id| SpanId::parse(id.as_bytes())),
            flags: line.trace_flags.as_ref().and_then(|flags| TraceFlags::parse(flags.as_bytes())),
            request_id,
            line,
        })
    }

    /// The gateway's own span: 0 is the call's, from 1 on those of its attempts.
    pub(super) fn span_id(&self, number: u32) -> SpanId {
        self.request_id.span_id(number)
    }

    /// Unix time in nanoseconds, so many milliseconds after the start.
    pub(super) fn at(&self, milliseconds: f64) -> u64 {
        self.start.saturating_add(nanos(milliseconds))
    }

    pub(super) fn end(&self) -> u64 {
        self.at(self.line.duration)
    }

    /// The flags that go with the spans: what the caller decided, or else what the gateway did.
    pub(super) fn trace_flags(&self, ratio: SampleRatio) -> TraceFlags {
        self.flags.unwrap_or_else(|| Tracing { ratio }.span(None, &self.request_id, 0).flags)
    }

    /// Not `None`: why the call failed.
    pub(super) fn failure(&self) -> Option<&str> {
        Some(&*self.line.reason).filter(|reason| *reason != "ok")
    }

    /// An answer that was begun well and that the caller did not get to its end, which was not the caller's doing.
    pub(super) fn is_broken_off(&self) -> bool {
        self.line.status_code < 400 && self.failure().is_some() && &*self.line.ended_by != "client"
    }

    pub(super) fn url(&self) -> Url<'_> {
        self.line.request_url.as_deref().map_or_else(Url::default, Url::split)
    }

    /// The attempts that the record tells of, in order. Of a single one it has no list: its times are the call's.
    pub(super) fn attempts(&self) -> Vec<Attempt<'_>> {
        let line = &self.line;
        if line.tries.is_empty() && line.attempts > 0 {
            return vec![self.last_attempt()];
        }
        let before = line.attempts.saturating_sub(u32::try_from(line.tries.len()).unwrap_or(u32::MAX));
        let numbered = line.tries.iter().zip(before + 1..);
        let attempts = numbered.map(|(attempt, number)| Attempt {
            number,
            replica: Some(&*attempt.replica),
            start: attempt.start_ms,
            duration: attempt.duration,
            status: attempt.status_code,
            error: attempt.error.as_deref(),
        });
        attempts.collect()
    }

    fn last_attempt(&self) -> Attempt<'_> {
        let line = &self.line;
        let start = match (line.first_byte_ms, line.stream_ms) {
            (Some(first_byte), Some(stream)) => line.duration - stream - first_byte,
            _ => line.queue_ms.unwrap_or_default(),
        };
        let start = start.clamp(0.0, line.duration.max(0.0));
        let of_replica = |reason: &&str| reason.starts_with("upstream_") || *reason == "connect_failed";
        Attempt {
            number: line.attempts,
            replica: line.replica.as_deref(),
            start,
            duration: line.duration - start,
            status: line.model_status_code,
            error: self.failure().filter(|reason| line.model_status_code.is_none() || of_replica(reason)),
        }
    }
}

impl<'a> Url<'a> {
    fn split(url: &'a str) -> Self {
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, url),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let (host, port) = host_and_port(authority);
        Self { scheme, host, port, path, query }
    }
}

/// A host, without the brackets of an IPv6 address, and its port.
pub(super) fn host_and_port(authority: &str) -> (Option<&str>, Option<u16>) {
    let colon = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    let (host, port) = match colon {
        Some(at) => (&authority[..at], authority[at + 1..].parse().ok()),
        None => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (Some(host).filter(|host| !host.is_empty()), port)
}

fn unix_nanos(time: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos()).ok()
}

/// What floats cannot hold is cut off: a negative time is none.
fn nanos(milliseconds: f64) -> u64 {
    (milliseconds * 1e6).round().max(0.0) as u64
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
