//! Which fields cross the gateway: what is dropped, what is ours, and the ids of azureml-fe.

use std::time::SystemTime;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::catalog::AuthMode;
use crate::telemetry::record::RequestId;
use crate::telemetry::trace::TraceParent;
use crate::wire::Interim;

use super::ConnectionFacts;
use super::context::Exchange;

/// Server tracing id: ours always wins, also towards the replica (the managed front end does the same).
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What old clients read; equals the request id, as azureml-fe's does.
pub(super) const MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
/// The caller's own id, cleaned.
pub(super) const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
/// Asks for a deployment; on an answer, names the one that served.
pub const DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");
/// Why the gateway answered by itself.
pub(super) const REASON: HeaderName = HeaderName::from_static("x-scoregate-reason");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Longest client request id that is kept (the managed front end's limit, in letters).
const CLIENT_REQUEST_ID_LEN: usize = 40;

/// Fields that say who the caller is, what the gateway decided or how a message is framed: never taken from a client, in
/// no spelling. What the model reads in them must be true.
const OURS: [&str; 14] = [
    "x-request-id",
    "x-ms-request-id",
    "x-ms-client-request-id",
    "x-scoregate-reason",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-client-cert",
    "x-real-ip",
    "true-client-ip",
    "forwarded",
    "content-length",
    "transfer-encoding",
];

/// Turns a client's fields into those that the replica sees.
pub(super) fn prepare_request(
    headers: &mut HeaderMap,
    connection: &ConnectionFacts,
    exchange: &Exchange,
    mode: AuthMode,
) {
    remove_ours(headers);
    if mode != AuthMode::None {
        // The credential is the gateway's business; the model must not be able to log or leak it.
        headers.remove(header::AUTHORIZATION);
    }
    headers.insert(REQUEST_ID, exchange.answer.request_id.clone());
    if let Some(id) = &exchange.record.client_request_id {
        headers.insert(CLIENT_REQUEST_ID, id.clone());
    }
    if exchange.begins_trace() {
        // It belongs to the trace that it came with, of which nothing can be known (Trace Context level 1, 4.3).
        headers.remove(TRACESTATE);
    }
    headers.insert(X_FORWARDED_FOR, connection.forwarded_for.clone());
    let scheme = if connection.tls.is_some() { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
}

/// Tells the replica which host the caller named.
pub(super) fn set_forwarded_host(headers: &mut HeaderMap, authority: Option<HeaderValue>) {
    if let Some(host) = authority {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// The span that calls; `None` if none is named, or not as it must be, or several are.
pub(super) fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut named = headers.get_all(TRACEPARENT).iter();
    let only = named.next().filter(|_| named.next().is_none())?;
    TraceParent::parse(only.as_bytes())
}

/// Names the `span` that calls. Without one the request keeps what its caller wrote.
pub(super) fn set_trace_parent(headers: &mut HeaderMap, span: Option<TraceParent>) {
    if let Some(span) = span
        && let Ok(mut value) = HeaderValue::from_bytes(&span.to_header())
    {
        // As with the request id.
        value.set_sensitive(true);
        headers.insert(TRACEPARENT, value);
    }
}

/// Names the replica that the request goes to.
pub(super) fn set_host(headers: &mut HeaderMap, host: &HeaderValue) {
    headers.insert(header::HOST, host.clone());
}

/// Passes a replica's interim answers on without the fields that are the gateway's alone to say.
pub(super) struct PassedOn<'a>(pub &'a dyn Interim);

impl Interim for PassedOn<'_> {
    fn pass(&self, status: StatusCode, mut headers: HeaderMap) {
        for name in [REASON, REQUEST_ID, MS_REQUEST_ID, CLIENT_REQUEST_ID, DEPLOYMENT] {
            headers.remove(name);
        }
        self.0.pass(status, headers);
    }
}

/// Sets what every answer of the gateway carries, whoever made it.
pub(super) fn finish_answer(headers: &mut HeaderMap, exchange: &Exchange) {
    set_request_id(headers, &exchange.answer.request_id);
    set_date(headers);
    match &exchange.record.client_request_id {
        Some(id) => headers.insert(CLIENT_REQUEST_ID, id.clone()),
        None => headers.remove(CLIENT_REQUEST_ID),
    };
    if let Some(deployment) = &exchange.answer.deployment {
        headers.insert(DEPLOYMENT, deployment.clone());
    }
    if exchange.service().is_some_and(|service| service.cors.is_some()) {
        set_cors(headers, exchange);
    }
}

/// Who may read the answer is the service's rule alone: what the replica says of it (the stock container has a switch
/// for that) could only widen it. Caches are told that it depends on the asking origin, whoever asked.
fn set_cors(headers: &mut HeaderMap, exchange: &Exchange) {
    headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    match &exchange.answer.allowed_origin {
        Some(origin) => headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        None => headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN),
    };
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

/// Dates an answer that has no date yet, as a server with a clock must (RFC 9110 6.6.1).
pub(super) fn set_date(headers: &mut HeaderMap) {
    if let Entry::Vacant(date) = headers.entry(header::DATE)
        && let Some(now) = date_value(SystemTime::now())
    {
        date.insert(now);
    }
}

/// A time as HTTP writes it (RFC 9110 5.6.7).
fn date_value(time: SystemTime) -> Option<HeaderValue> {
    const IMF_FIXDATE: &[BorrowedFormatItem<'_>] = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let text = OffsetDateTime::from(time).format(IMF_FIXDATE).ok()?;
    HeaderValue::try_from(text).ok()
}

/// Sets the ids by which an answer can be found again.
pub(super) fn set_request_id(headers: &mut HeaderMap, id: &HeaderValue) {
    headers.insert(MS_REQUEST_ID, id.clone());
    headers.insert(REQUEST_ID, id.clone());
}

/// The caller's `x-ms-client-request-id`, reduced to letters, digits, `-` and `_` and to 40 of them; `None` if nothing
/// is left.
pub(super) fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(CLIENT_REQUEST_ID)?;
    let keeps = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if value.len() <= CLIENT_REQUEST_ID_LEN && value.as_bytes().iter().all(keeps) {
        return (!value.is_empty()).then(|| value.clone());
    }
    let clean: Vec<u8> = value.as_bytes().iter().copied().filter(keeps).take(CLIENT_REQUEST_ID_LEN).collect();
    HeaderValue::from_maybe_shared(Bytes::from(clean)).ok().filter(|clean| !clean.is_empty())
}

/// A request id as a header value.
pub(super) fn id_value(id: &RequestId) -> HeaderValue {
    let mut value = HeaderValue::from_str(id.as_str()).unwrap_or(HeaderValue::from_static("-"));
    // Not secret, but never to be seen again: in HPACK this keeps it out of the table, where it would only cost a place.
    value.set_sensitive(true);
    value
}

/// Servers that map field names to variables read `x_request_id` as `x-request-id` (CVE-2026-52845): such twins of
/// [`OURS`] go with them.
fn remove_ours(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    let same = |(theirs, ours): (u8, u8)| theirs == ours || (theirs == b'_' && ours == b'-');
    OURS.iter().any(|ours| ours.len() == name.len() && name.bytes().zip(ours.bytes()).all(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(value: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(CLIENT_REQUEST_ID, HeaderValue::from_static(value));
        client_request_id(&headers).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_answer_is_dated_unless_it_is_already() {
        let mut headers = HeaderMap::new();
        set_date(&mut headers);
        assert!(headers["date"].to_str().unwrap().ends_with(" GMT"));
        // The example of RFC 9110 5.6.7.
        let past = date_value(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777)).unwrap();
        assert_eq!(past, "Sun, 06 Nov 1994 08:49:37 GMT");
        headers.insert(header::DATE, past.clone());
        set_date(&mut headers);
        assert_eq!(headers["date"], past);
    }

    #[test]
    fn a_client_request_id_is_cleaned_and_cut() {
        assert_eq!(cleaned("abc-DEF_1").as_deref(), Some("abc-DEF_1"));
        assert_eq!(cleaned("a b\"c<d>").as_deref(), Some("abcd"));
        assert_eq!(cleaned("{}"), None);
        assert_eq!(cleaned(""), None);
        assert_eq!(cleaned("0123456789012345678901234567890123456789tail").map(|id| id.len()), Some(40));
    }

    #[test]
    fn our_own_names_are_dropped_in_every_spelling() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-request-id",
            "x_request_id",
            "x-forwarded_for",
            "x_real-ip",
            "content_length",
            "x_custom",
            "content_type",
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        remove_ours(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content_type", "x_custom"]);
    }
}
