//! A sample as one line of JSON.
//!
//! Always there: `Time`, `RequestId`, `Service`, `Deployment`, `StatusCode`, `Reason`, each as in the call's record. Of an
//! input that is kept: `InputType` (its `Content-Type` or null), `InputCoding` (its `Content-Encoding`, only if it has one),
//! `InputBytes` (that have passed), `InputTruncated` (whether fewer are kept), and the bytes: as text in `Input` where they
//! are UTF-8, else as base64 in `InputBase64`. The same of an output.
//!
//! A body is a string whatever its type, also if it is JSON: so it reads back byte for byte, and a column has one type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::sample::{Payload, Sample};
use crate::telemetry::encode::{Text, timestamp};

/// Longest type and coding.
const FIELD_CAP: usize = 256;

impl Sample {
    /// Appends the sample to `out` as one JSON object and a newline.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"Time\":\"");
        timestamp::write(self.time, out);
        out.push(b'"');
        for (name, value) in [
            ("RequestId", self.request_id.as_str()),
            ("Service", &*self.service),
            ("Deployment", &*self.deployment),
        ] {
            text(name, value.as_bytes(), out);
        }
        number("StatusCode", self.status.into(), out);
        text("Reason", self.reason.as_str().as_bytes(), out);
        if let Some(input) = &self.input {
            input.encode("Input", out);
        }
        if let Some(output) = &self.output {
            output.encode("Output", out);
        }
        out.extend_from_slice(b"}\n");
    }
}

impl Payload {
    fn encode(&self, side: &str, out: &mut Vec<u8>) {
        let field = |name: &str, value: &HeaderValue, out: &mut Vec<u8>| {
            key(&format!("{side}{name}"), out);
            let mut text = Text::open(out, FIELD_CAP);
            text.push(value.as_bytes());
            text.close();
        };
        match &self.media_type {
            Some(value) => field("Type", value, out),
            None => literal(&format!("{side}Type"), b"null", out),
        }
        if let Some(value) = &self.coding {
            field("Coding", value, out);
        }
        number(&format!("{side}Bytes"), self.passed, out);
        let truncated: &[u8] = if self.is_truncated() { b"true" } else { b"false" };
        literal(&format!("{side}Truncated"), truncated, out);
        match self.as_text() {
            Some(bytes) => text(side, bytes, out),
            None => text(&format!("{side}Base64"), STANDARD.encode(&self.kept).as_bytes(), out),
        }
    }

    /// What is kept, if it is UTF-8; a character that the cut has torn is left out.
    fn as_text(&self) -> Option<&[u8]> {
        match std::str::from_utf8(&self.kept) {
            Ok(_) => Some(&self.kept),
            Err(torn) if torn.error_len().is_none() && self.is_truncated() => {
                Some(&self.kept[..torn.valid_up_to()])
            }
            Err(_) => None,
        }
    }
}

fn key(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn literal(name: &str, value: &[u8], out: &mut Vec<u8>) {
    key(name, out);
    out.extend_from_slice(value);
}

fn number(name: &str, value: u64, out: &mut Vec<u8>) {
    literal(name, itoa::Buffer::new().format(value).as_bytes(), out);
}

fn text(name: &str, value: &[u8], out: &mut Vec<u8>) {
    key(name, out);
    let mut text = Text::open(out, usize::MAX);
    text.push(value);
    text.close();
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::room::Rooms;
    use super::super::sample::Ticket;
    use super::*;
    use crate::catalog::ComputeType;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::record::Record;

    fn payload(media_type: &'static str, most: usize, pieces: &[&[u8]]) -> Payload {
        let mut fields = HeaderMap::new();
        if !media_type.is_empty() {
            fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        let mut payload = Payload::of(&fields, most, &Rooms::new(1 << 20));
        pieces.iter().for_each(|piece| payload.see(piece));
        payload
    }

    fn line(input: Option<Payload>, output: Option<Payload>) -> Value {
        let counts = Metrics::new().service(&"iris".into(), ComputeType::Aks);
        let ticket = Ticket::take(&counts, &Rooms::new(1 << 20)).unwrap();
        let mut out = Vec::new();
        Sample::of(&Record::sample(), ticket, input, output).encode(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!((text.matches('\n').count(), text.ends_with('\n')), (1, true));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_line_of_a_call() {
        let input = payload("application/json", 100, &[b"[[1,\n", b"\"\xc3\xa9\"]]"]);
        let mut output = payload("", 4, &[b"\x1f\x8b\0\0\0\0"]);
        output.coding = Some(HeaderValue::from_static("gzip"));
        assert_eq!(
            line(Some(input), Some(output)),
            json!({
                "Time": "2026-11-24T10:28:52.123456Z",
                "RequestId": "11111111-2222-4333-8444-555555555555",
                "Service": "iris", "Deployment": "blue", "StatusCode": 200, "Reason": "ok",
                "InputType": "application/json", "InputBytes": 11, "InputTruncated": false, "Input": "[[1,\n\"é\"]]",
                "OutputType": null, "OutputCoding": "gzip", "OutputBytes": 6, "OutputTruncated": true,
                "OutputBase64": "H4sAAA==",
            })
        );
    }

    #[test]
    fn what_is_not_kept_has_no_fields() {
        let line = line(None, Some(payload("text/plain", 1, &[])));
        let fields: Vec<_> = line.as_object().unwrap().keys().skip(6).map(String::as_str).collect();
        assert_eq!(fields, ["OutputType", "OutputBytes", "OutputTruncated", "Output"]);
        assert_eq!(line["Output"], "");
    }

    #[test]
    fn a_character_torn_by_the_cut_is_left_out_but_a_torn_body_is_none_of_text() {
        let cut = line(Some(payload("", 3, &["aéé".as_bytes()])), Some(payload("", 9, &[b"a\xc3"])));
        assert_eq!(cut["Input"], "aé");
        let torn = line(Some(payload("", 2, &["aéé".as_bytes()])), Some(payload("", 9, &[b"a\xc3"])));
        assert_eq!((&torn["Input"], &torn["InputTruncated"]), (&json!("a"), &json!(true)));
        assert_eq!((&torn["Output"], &torn["OutputBase64"]), (&Value::Null, &json!("YcM=")));
    }

    proptest! {
        #[test]
        fn any_body_reads_back_byte_for_byte(pieces in any::<Vec<Vec<u8>>>(), most in 1usize..64) {
            let whole = pieces.concat();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let line = line(Some(payload("", most, &pieces)), None);
            prop_assert_eq!(&line["InputBytes"], &json!(whole.len()));
            prop_assert_eq!(&line["InputTruncated"], &json!(whole.len() > most));
            let read = match line["InputBase64"].as_str() {
                Some(base64) => STANDARD.decode(base64).unwrap(),
                None => line["Input"].as_str().unwrap().as_bytes().to_vec(),
            };
            let kept = &whole[..whole.len().min(most)];
            prop_assert!(kept.starts_with(&read));
            prop_assert!(read.len() == kept.len() || (read.len() + 4 > kept.len() && whole.len() > most));
        }
    }
}
