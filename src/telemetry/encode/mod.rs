//! Writes a record as one line of JSON, by hand: it runs once per call, and a serializer would cost as much as the routing.
//!
//! Always there, `null` when unknown: `Time` and the seven fields that Azure's own record has (`HTTPMethod`, `UserAgent`,
//! `ComputeType`, `RequestUrl`, `StatusCode`, `RequestId`, `Duration`), then `Service`, `Deployment`, `Replica`, `AuthType`,
//! `ModelStatusCode`, `Reason`, `EndedBy`, `Attempts`, `RequestBytes`, `ResponseBytes`, `ClientAddress`, `Protocol`.
//! Only there when known: `KeyId` or `Subject`, `ClientRequestId`, `TraceId`, `ParentSpanId`, `TraceFlags`, `Tries` (a list, only
//! of several attempts), `QueueMs`, `ConnectMs`, `FirstByteMs`, `StreamMs`, `Model`, `PromptTokens`, `CompletionTokens`.
//!
//! What a caller, a model or an operator chose is text from outside: it is escaped so that a line stays one line of UTF-8
//! without control characters, and cut at a bound of its own, the cut shown by `…`.

mod json;
pub(super) mod timestamp;
mod url;

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::disclosure::Disclosure;
#[cfg(test)]
use super::disclosure::MaskedNames;
use super::record::{Principal, Record, Try, Usage};
use super::settings::Privacy;
use super::trace::TraceParent;
pub(super) use json::Text;
use url::Query;

/// Longest `HTTPMethod`: the methods of the IANA registry have 17 letters at most.
const METHOD_CAP: usize = 32;
/// Longest `UserAgent`.
const USER_AGENT_CAP: usize = 512;
/// Longest `RequestUrl`.
const URL_CAP: usize = 4096;
/// Longest `Subject`.
const SUBJECT_CAP: usize = 256;
/// Longest `ClientRequestId`.
const CLIENT_REQUEST_ID_CAP: usize = 100;
/// Longest `Model`.
const MODEL_CAP: usize = 256;
/// Longest `Service`, `Deployment`, `Replica`: a DNS name and a port fit.
const NAME_CAP: usize = 263;

/// A line of the usual size; asked for once, so that the pieces need no growth of the buffer.
const USUAL_LINE: usize = 1024;

impl Record {
    /// Appends the record to `out` as one JSON object and a newline, leaving out what `disclosure` does not let out.
    ///
    /// Under [`Privacy::High`] `UserAgent` and `ClientAddress` are `null`, `RequestUrl` has no query, and there is no `Subject`
    /// and no `ClientRequestId`. Values of query parameters that carry secrets are masked always.
    pub(super) fn write_line(&self, disclosure: &Disclosure, out: &mut Vec<u8>) {
        out.reserve(USUAL_LINE);
        let privacy = disclosure.privacy();
        let mut line = Line { out };
        self.encode_request(disclosure, &mut line);
        self.encode_parties(privacy, &mut line);
        self.encode_end(privacy, &mut line);
        if let Some(usage) = &self.usage {
            encode_usage(usage, &mut line);
        }
        line.raw(b"}\n");
    }

    /// [`write_line`](Self::write_line) where nothing is masked but what everybody knows.
    #[cfg(test)]
    pub(crate) fn encode(&self, privacy: Privacy, out: &mut Vec<u8>) {
        self.write_line(&Disclosure::new(privacy, MaskedNames::default()), out);
    }

    /// The time, and what Azure's own record has.
    fn encode_request(&self, disclosure: &Disclosure, line: &mut Line<'_>) {
        let privacy = disclosure.privacy();
        line.raw(b"{\"Time\":\"");
        timestamp::write(self.time, line.out);
        let method = self.method.as_ref().map(http::Method::as_str);
        line.text(b"\",\"HTTPMethod\":", method, METHOD_CAP);
        let user_agent = match privacy {
            Privacy::Standard => self.user_agent.as_ref().map(http::HeaderValue::as_bytes),
            Privacy::High => None,
        };
        line.text(b",\"UserAgent\":", user_agent, USER_AGENT_CAP);
        let compute_type = self.compute_type.map(|compute| compute.as_str());
        line.word(b",\"ComputeType\":", compute_type);
        line.raw(b",\"RequestUrl\":");
        let query = match privacy {
            Privacy::Standard => Query::Masked(disclosure),
            Privacy::High => Query::LeftOut,
        };
        url::write(&self.url, query, URL_CAP, line.out);
        line.number(b",\"StatusCode\":", u64::from(self.status));
        line.raw(b",\"RequestId\":\"");
        line.raw(self.request_id.as_str().as_bytes());
        line.milliseconds(b"\",\"Duration\":", self.duration);
    }

    /// Who called whom, and as whom.
    fn encode_parties(&self, privacy: Privacy, line: &mut Line<'_>) {
        line.text(b",\"Service\":", self.service.as_deref(), NAME_CAP);
        line.text(b",\"Deployment\":", self.deployment.as_deref(), NAME_CAP);
        line.text(b",\"Replica\":", self.replica.as_deref(), NAME_CAP);
        line.word(b",\"AuthType\":", self.auth.map(|mode| mode.as_str()));
        match (&self.principal, privacy) {
            (Principal::Key(id), _) => line.text(b",\"KeyId\":", Some(id), NAME_CAP),
            (Principal::Subject(subject), Privacy::Standard) => {
                line.text(b",\"Subject\":", Some(subject.as_ref()), SUBJECT_CAP);
            }
            (Principal::Subject(_), Privacy::High) | (Principal::Anonymous, _) => {}
        }
    }

    /// How it ended, how much went through, and where the time went.
    fn encode_end(&self, privacy: Privacy, line: &mut Line<'_>) {
        match self.model_status {
            Some(status) => line.number(b",\"ModelStatusCode\":", u64::from(status)),
            None => line.raw(b",\"ModelStatusCode\":null"),
        }
        line.word(b",\"Reason\":", Some(self.reason.as_str()));
        line.word(b",\"EndedBy\":", Some(self.ended_by.as_str()));
        line.number(b",\"Attempts\":", u64::from(self.attempts));
        line.number(b",\"RequestBytes\":", self.request_bytes);
        line.number(b",\"ResponseBytes\":", self.response_bytes);
        if let (Some(id), Privacy::Standard) = (&self.client_request_id, privacy) {
            let id = Some(id.as_bytes());
            line.text(b",\"ClientRequestId\":", id, CLIENT_REQUEST_ID_CAP);
        }
        if let Some(parent) = &self.parent {
            encode_parent(parent, line);
        }
        if self.tries.len() > 1 {
            encode_tries(&self.tries, line);
        }
        match privacy {
            Privacy::Standard => line.address(b",\"ClientAddress\":", self.client_address),
            Privacy::High => line.raw(b",\"ClientAddress\":null"),
        }
        line.word(b",\"Protocol\":", protocol(self.protocol));
        let split: [(&[u8], _); 4] = [
            (b",\"QueueMs\":", self.queue),
            (b",\"ConnectMs\":", self.connect),
            (b",\"FirstByteMs\":", self.first_byte),
            (b",\"StreamMs\":", self.stream),
        ];
        for (key, took) in split {
            if let Some(took) = took {
                line.milliseconds(key, took);
            }
        }
    }
}

/// Whose span called.
fn encode_parent(parent: &TraceParent, line: &mut Line<'_>) {
    line.raw(b",\"TraceId\":\"");
    line.raw(parent.trace_id.as_str().as_bytes());
    line.raw(b"\",\"ParentSpanId\":\"");
    line.raw(parent.span_id.as_str().as_bytes());
    line.raw(b"\",\"TraceFlags\":\"");
    line.raw(&parent.flags.to_text());
    line.raw(b"\"");
}

/// Each attempt of several.
fn encode_tries(tries: &[Try], line: &mut Line<'_>) {
    line.raw(b",\"Tries\":[");
    for (place, attempt) in tries.iter().enumerate() {
        if place > 0 {
            line.raw(b",");
        }
        line.text(b"{\"Replica\":", Some(&*attempt.replica), NAME_CAP);
        line.milliseconds(b",\"StartMs\":", attempt.start);
        line.milliseconds(b",\"Duration\":", attempt.duration);
        match attempt.end.status {
            Some(status) => line.number(b",\"StatusCode\":", u64::from(status)),
            None => line.raw(b",\"StatusCode\":null"),
        }
        line.word(b",\"Error\":", attempt.end.error.map(|reason| reason.as_str()));
        line.raw(b"}");
    }
    line.raw(b"]");
}

/// What the answer says of model and tokens. Under [`Privacy::High`] as well: it tells nothing of the caller.
fn encode_usage(usage: &Usage, line: &mut Line<'_>) {
    if let Some(model) = &usage.model {
        line.text(b",\"Model\":", Some(&**model), MODEL_CAP);
    }
    if let Some(tokens) = usage.prompt_tokens {
        line.number(b",\"PromptTokens\":", tokens.into());
    }
    if let Some(tokens) = usage.completion_tokens {
        line.number(b",\"CompletionTokens\":", tokens.into());
    }
}

/// The word of the contract; `None` for a version that the gateway does not speak.
fn protocol(version: http::Version) -> Option<&'static str> {
    match version {
        http::Version::HTTP_10 => Some("HTTP/1.0"),
        http::Version::HTTP_11 => Some("HTTP/1.1"),
        http::Version::HTTP_2 => Some("HTTP/2"),
        _ => None,
    }
}

/// The line being written. A `key` is a literal with all that stands before the value: comma, quotes and colon.
struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn raw(&mut self, literal: &[u8]) {
        self.out.extend_from_slice(literal);
    }

    /// Text from outside: escaped, and cut after `cap` bytes.
    fn text<T: AsRef<[u8]> + ?Sized>(&mut self, key: &[u8], value: Option<&T>, cap: usize) {
        self.raw(key);
        match value {
            Some(value) => {
                let mut text = Text::open(self.out, cap);
                text.push(value.as_ref());
                text.close();
            }
            None => self.raw(b"null"),
        }
    }

    /// A word of our own, which needs no escapes.
    fn word(&mut self, key: &[u8], value: Option<&'static str>) {
        self.raw(key);
        match value {
            Some(word) => {
                self.out.push(b'"');
                self.raw(word.as_bytes());
                self.out.push(b'"');
            }
            None => self.raw(b"null"),
        }
    }

    fn number(&mut self, key: &[u8], value: u64) {
        self.raw(key);
        self.raw(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A time in milliseconds, down to the microsecond (what is below is cut off): `12.345`.
    fn milliseconds(&mut self, key: &[u8], took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.number(key, micros / 1000);
        let [.., hundreds, tens, ones] = timestamp::six_digits((micros % 1000) as u32);
        self.raw(&[b'.', hundreds, tens, ones]);
    }

    /// An address; IPv4 in its own form also where it came over a socket for both families.
    fn address(&mut self, key: &[u8], address: IpAddr) {
        self.raw(key);
        self.out.push(b'"');
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                for (place, octet) in v4.octets().into_iter().enumerate() {
                    if place > 0 {
                        self.out.push(b'.');
                    }
                    self.raw(itoa::Buffer::new().format(octet).as_bytes());
                }
            }
            IpAddr::V6(v6) => {
                // Writing to a vector cannot fail.
                let _ = write!(self.out, "{v6}");
            }
        }
        self.out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Method};
    use proptest::prelude::*;
    use serde_json::Value;

    fn line(record: &Record, privacy: Privacy) -> String {
        let mut out = Vec::new();
        record.encode(privacy, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn parsed(record: &Record, privacy: Privacy) -> Value {
        let line = line(record, privacy);
        assert_eq!(line.matches('\n').count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    /// A call of which nothing is known but that it was made.
    fn bare() -> Record {
        Record {
            method: None,
            user_agent: None,
            compute_type: None,
            url: crate::telemetry::record::RequestUrl::default(),
            service: None,
            deployment: None,
            replica: None,
            auth: None,
            principal: Principal::Anonymous,
            model_status: None,
            client_request_id: None,
            parent: None,
            queue: None,
            connect: None,
            first_byte: None,
            stream: None,
            usage: None,
            ..Record::sample()
        }
    }

    fn usage(model: &str) -> Option<Box<Usage>> {
        Some(Box::new(Usage { model: Some(model.into()), ..Usage::default() }))
    }

    #[test]
    fn what_an_answer_says_of_tokens_is_no_secret() {
        let line = line(&Record::sample(), Privacy::High);
        let end = r#","StreamMs":1.000,"Model":"org/name","PromptTokens":9,"CompletionTokens":12}"#;
        assert!(line.trim_end().ends_with(end), "{line}");
    }

    #[test]
    fn of_tokens_there_is_what_is_known() {
        let embedding = Usage { prompt_tokens: Some(0), ..Usage::default() };
        let line = line(&Record { usage: Some(Box::new(embedding)), ..bare() }, Privacy::Standard);
        assert!(line.ends_with("\"Protocol\":\"HTTP/1.1\",\"PromptTokens\":0}\n"), "{line}");
    }

    #[test]
    fn the_line_of_a_whole_record() {
        let record = Record::sample();
        let expected = concat!(
            r#"{"Time":"2026-11-24T10:28:52.123456Z","HTTPMethod":"POST","UserAgent":"curl/8.0","ComputeType":"AKS","#,
            r#""RequestUrl":"https://score.example.org:8443/api/v1/service/iris/score?code=***","StatusCode":200,"#,
            r#""RequestId":"11111111-2222-4333-8444-555555555555","Duration":12.045,"Service":"iris","Deployment":"blue","#,
            r#""Replica":"127.0.0.1:5001","AuthType":"key","KeyId":"primary","ModelStatusCode":200,"Reason":"ok","#,
            r#""EndedBy":"upstream","Attempts":1,"RequestBytes":1024,"ResponseBytes":130,"ClientRequestId":"abc","#,
            r#""TraceId":"0af7651916cd43dd8448eb211c80319c","ParentSpanId":"b7ad6b7169203331","TraceFlags":"01","#,
            r#""ClientAddress":"192.0.2.7","Protocol":"HTTP/1.1","#,
            r#""QueueMs":0.000,"ConnectMs":0.250,"FirstByteMs":11.000,"StreamMs":1.000,"#,
            r#""Model":"org/name","PromptTokens":9,"CompletionTokens":12}"#,
            "\n"
        );
        assert_eq!(line(&record, Privacy::Standard), expected);
    }

    #[test]
    fn the_line_of_a_call_of_which_nothing_is_known() {
        let expected = concat!(
            r#"{"Time":"2026-11-24T10:28:52.123456Z","HTTPMethod":null,"UserAgent":null,"ComputeType":null,"#,
            r#""RequestUrl":null,"StatusCode":200,"RequestId":"11111111-2222-4333-8444-555555555555","#,
            r#""Duration":12.045,"Service":null,"Deployment":null,"Replica":null,"AuthType":null,"#,
            r#""ModelStatusCode":null,"Reason":"ok","EndedBy":"upstream","Attempts":1,"RequestBytes":1024,"#,
            r#""ResponseBytes":130,"ClientAddress":"192.0.2.7","Protocol":"HTTP/1.1"}"#,
            "\n"
        );
        assert_eq!(line(&bare(), Privacy::Standard), expected);
    }

    #[test]
    fn several_attempts_are_told_one_by_one_and_a_single_one_is_not() {
        use crate::error::Reason;
        use crate::telemetry::record::TryEnd;
        let attempt = |replica: &str, start, duration, end| Try {
            replica: replica.into(),
            start: Duration::from_micros(start),
            duration: Duration::from_micros(duration),
            end,
        };
        let reset = TryEnd { status: None, error: Some(Reason::UpstreamReset) };
        let answered = TryEnd { status: Some(503), error: None };
        let tries = vec![attempt("a:1", 42, 1_234, reset), attempt("b:2", 1_300, 10_000, answered)];
        let told = line(&Record { tries: tries.clone(), ..Record::sample() }, Privacy::High);
        let expected = concat!(
            r#""TraceFlags":"01","#,
            r#""Tries":[{"Replica":"a:1","StartMs":0.042,"Duration":1.234,"StatusCode":null,"Error":"upstream_reset"},"#,
            r#"{"Replica":"b:2","StartMs":1.300,"Duration":10.000,"StatusCode":503,"Error":null}],"ClientAddress":null"#,
        );
        assert!(told.contains(expected), "{told}");
        serde_json::from_str::<Value>(&told).unwrap();
        let single = Record { tries: tries[..1].to_vec(), ..Record::sample() };
        assert!(!line(&single, Privacy::Standard).contains("Tries"));
    }

    #[test]
    fn high_privacy_leaves_out_all_that_tells_the_caller() {
        let record = Record { principal: Principal::Subject("alice".into()), ..Record::sample() };
        assert_eq!(parsed(&record, Privacy::Standard)["Subject"], "alice");
        let private = parsed(&record, Privacy::High);
        assert_eq!(private["UserAgent"], Value::Null);
        assert_eq!(private["ClientAddress"], Value::Null);
        assert_eq!(private["RequestUrl"], "https://score.example.org:8443/api/v1/service/iris/score");
        for absent in ["Subject", "ClientRequestId"] {
            assert_eq!(private.get(absent), None, "{absent}");
        }
    }

    #[test]
    fn every_text_from_outside_is_cut_at_its_cap() {
        let long = "x".repeat(64 * 1024);
        let header = || HeaderValue::from_maybe_shared(bytes::Bytes::from(long.clone())).ok();
        let record = Record {
            method: Method::from_bytes(long.as_bytes()).ok(),
            user_agent: header(),
            url: crate::telemetry::record::RequestUrl {
                path_and_query: format!("/{long}").into(),
                ..Default::default()
            },
            principal: Principal::Subject(long.as_str().into()),
            client_request_id: header(),
            usage: usage(&long),
            ..Record::sample()
        };
        let value = parsed(&record, Privacy::Standard);
        for (field, cap) in [
            ("HTTPMethod", METHOD_CAP),
            ("UserAgent", USER_AGENT_CAP),
            ("RequestUrl", URL_CAP),
            ("Subject", SUBJECT_CAP),
            ("ClientRequestId", CLIENT_REQUEST_ID_CAP),
            ("Model", MODEL_CAP),
        ] {
            let text = value[field].as_str().unwrap();
            assert!(text.ends_with("x…"), "{field}");
            assert_eq!(text.chars().count(), cap + 1, "{field}");
        }
    }

    #[test]
    fn ipv4_over_a_socket_for_both_families_is_ipv4() {
        for (address, shown) in
            [("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8::1", "2001:db8::1"), ("255.0.10.1", "255.0.10.1")]
        {
            let record = Record { client_address: address.parse().unwrap(), ..Record::sample() };
            assert_eq!(parsed(&record, Privacy::Standard)["ClientAddress"], shown);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_from_outside_gives_one_line_of_json(
            agent in proptest::collection::vec(prop_oneof![Just(b'\t'), 0x20u8..0x7f, 0x80u8..=0xff], 0..300),
            host in any::<Vec<u8>>(),
            path in any::<Vec<u8>>(),
            subject in any::<String>(),
            model in any::<String>(),
            micros in any::<u32>(),
        ) {
            let record = Record {
                user_agent: HeaderValue::from_bytes(&agent).ok(),
                url: crate::telemetry::record::RequestUrl { tls: true, authority: HeaderValue::from_bytes(&host).ok(), path_and_query: path.into() },
                principal: Principal::Subject(subject.as_str().into()),
                duration: Duration::from_micros(micros.into()),
                usage: usage(&model),
                ..Record::sample()
            };
            let value = parsed(&record, Privacy::Standard);
            let read = String::from_utf8_lossy(&agent).into_owned();
            if read.len() <= USER_AGENT_CAP {
                prop_assert_eq!(value["UserAgent"].as_str(), Some(read.as_str()));
            }
            if subject.len() <= SUBJECT_CAP {
                prop_assert_eq!(value["Subject"].as_str(), Some(subject.as_str()));
            }
            if model.len() <= MODEL_CAP {
                prop_assert_eq!(value["Model"].as_str(), Some(model.as_str()));
            }
            prop_assert_eq!(value["Duration"].as_f64(), Some(f64::from(micros) / 1000.0));
        }
    }
}
