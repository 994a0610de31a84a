use http::HeaderValue;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

fn watch(media_type: &str) -> UsageWatch {
    let fields = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap())]);
    UsageWatch::of(&fields).unwrap()
}

fn read<'a>(media_type: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> Usage {
    let mut watch = watch(media_type);
    pieces.into_iter().for_each(|piece| watch.see(piece));
    watch.read().unwrap_or_default()
}

fn usage(model: &str, prompt: impl Into<Option<u32>>, completion: impl Into<Option<u32>>) -> Usage {
    let model = (!model.is_empty()).then(|| model.into());
    Usage { model, prompt_tokens: prompt.into(), completion_tokens: completion.into(), overlong: false }
}

#[track_caller]
fn reads(media_type: &str, answer: &str, expected: &Usage) {
    assert_eq!(read(media_type, [answer.as_bytes()]), *expected, "{answer}");
    let single = answer.as_bytes().chunks(1);
    assert_eq!(read(media_type, single), *expected, "byte by byte: {answer}");
}

#[test]
fn answers_in_one_piece() {
    let chat = json!({
        "id": "x", "object": "chat.completion", "model": "org/name",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "\"usage\": {\"prompt_tokens\": 99}"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "prompt_tokens_details": {"cached_tokens": 0}},
    });
    reads(JSON, &chat.to_string(), &usage("org/name", 9, 12));
    reads(JSON, &serde_json::to_string_pretty(&chat).unwrap(), &usage("org/name", 9, 12));
    let embeddings =
        r#"{"data":[{"embedding":[0.1,-2e3]}],"model":"e","usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    reads(JSON, embeddings, &usage("e", 3, None));
    let response = r#"{"model":"r","output":[{"usage":{"input_tokens":1}}],"usage":{"input_tokens":4,"output_tokens":5}}"#;
    reads(JSON, response, &usage("r", 4, 5));
}

#[test]
fn streams_of_events() {
    let chat = concat!(
        ": a comment\n\n",
        "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n",
        "event: x\r\nid: 7\r\ndata: {\"model\":\"m\",\"choices\":[{\"delta\":{}}],\"usage\":null}\r\n\r\n",
        "data:{\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\n",
        "data: [DONE]\n\n",
    );
    reads(EVENTS, chat, &usage("m", 5, 7));
    reads(EVENTS, &chat.replace("\r\n", "\n").replace('\n', "\r"), &usage("m", 5, 7));
    let responses = concat!(
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"model\":\"r\",\"usage\":null}}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[{\"usage\":{\"input_tokens\":1}}],",
        "\"model\":\"r\",\"usage\":{\"input_tokens\":8,\"output_tokens\":2}},\"sequence_number\":3}\n\n",
    );
    reads(EVENTS, responses, &usage("r", 8, 2));
    let anthropic = concat!(
        "data: {\"type\":\"message_start\",\"message\":{\"model\":\"a\",\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n",
        "data: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":15}}\n\n",
    );
    reads(EVENTS, anthropic, &usage("a", 25, 15));
}

#[test]
fn an_event_may_have_its_data_in_several_lines_and_the_last_one_no_end() {
    let lines = "data: {\"model\":\ndata: \"m\",\ndata: \"usage\":{\"prompt_tokens\":1,\ndata\ndata: \"completion_tokens\":2}}";
    reads(EVENTS, lines, &usage("m", 1, 2));
    // What a blank line has cut in two are two documents, neither of which is whole.
    reads(EVENTS, &lines.replacen("\ndata: \"usage", "\n\ndata: \"usage", 1), &usage("m", None, None));
}

#[test]
fn what_is_no_count_or_no_name_is_left_out() {
    for odd in [
        "null",
        "7",
        "\"x\"",
        "[]",
        "{}",
        "{\"prompt_tokens\":-1}",
        "{\"prompt_tokens\":1.5}",
        "{\"prompt_tokens\":\"1\"}",
        "{\"prompt_tokens\":99999999999}",
        "{\"prompt_tokens\":1",
        "{\"prompt_tokens\":01}",
        "{prompt_tokens:1}",
    ] {
        reads(JSON, &format!("{{\"usage\":{odd},\"model\":null}}"), &Usage::default());
    }
    for nothing in [
        "",
        "[DONE]",
        "\"usage\":{\"prompt_tokens\":1}",
        "[{\"usage\":{\"prompt_tokens\":1}}]",
        "}{",
        "{\"model\":\"m",
    ] {
        reads(JSON, nothing, &Usage::default());
    }
    reads(JSON, "{\"model\":\"m\"} {\"usage\":{\"prompt_tokens\":1}}", &usage("m", None, None));
    reads(JSON, "{\"a\":\"\\\\\",\"model\":\"\\u0041\\n\"}", &usage("A\n", None, None));
}

#[test]
fn what_is_too_long_is_given_up_and_what_comes_after_it_is_read() {
    let long = "x".repeat(100_000);
    let answer = format!(
        "{{\"pad\":\"{long}\",\"model\":\"{long}\",\"usage\":{{\"a\":[\"{long}\"],\"prompt_tokens\":1}},\"usage\":{{\"prompt_tokens\":2}}}}"
    );
    let expected = Usage { overlong: true, ..usage("", 2, None) };
    reads(JSON, &answer, &expected);
    let mut watch = watch(JSON);
    watch.see(answer.as_bytes());
    let Form::Json(document) = &watch.form else { panic!("{watch:?}") };
    assert!(document.capacity() <= 8192, "{}", document.capacity());
    // A pair of brackets a million times deep is only counted.
    let deep = format!("{{\"a\":{}{},\"model\":\"m\"}}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert_eq!(read(JSON, [deep.as_bytes()]), usage("m", None, None));
}

#[test]
fn only_plain_json_and_events_are_watched() {
    let watched = |fields: &[(HeaderName, &str)]| {
        let fields = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        UsageWatch::of(&fields.collect()).is_some()
    };
    use header::{CONTENT_ENCODING, CONTENT_TYPE};
    assert!(watched(&[(CONTENT_TYPE, "Application/JSON; charset=utf-8")]));
    assert!(watched(&[(CONTENT_TYPE, "text/event-stream"), (CONTENT_ENCODING, "identity")]));
    assert!(!watched(&[(CONTENT_TYPE, JSON), (CONTENT_ENCODING, "gzip")]));
    assert!(!watched(&[(CONTENT_TYPE, "audio/mpeg")]));
    assert!(!watched(&[]));
}

/// Any JSON, with the names that matter in every place.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("usage".to_owned()),
        Just("model".to_owned()),
        Just("response".to_owned()),
        Just("prompt_tokens".to_owned()),
        Just("output_tokens".to_owned()),
        "[a-z\"\\\\{}:,]{0,9}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0_u32..5000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[\"\\\\a-e{}\\[\\]:,\n\u{e9}]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 60, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same by reading the whole document.
fn expect(document: &Value, read: &mut Usage) {
    let look = |members: &Map<String, Value>, name: &str, read: &mut Usage| match (name, &members[name]) {
        ("model", Value::String(model)) if read.model.is_none() && !model.is_empty() => {
            read.model = Some(model.as_str().into());
        }
        ("usage", Value::Object(counts)) => {
            let names = ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"];
            let count = |name: &str| {
                counts.get(name).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok())
            };
            let fit =
                |name: &&str| counts.get(*name).is_none_or(|value| value.is_null() || count(name).is_some());
            if names.iter().all(fit) {
                read.prompt_tokens = count("prompt_tokens").or(count("input_tokens")).or(read.prompt_tokens);
                read.completion_tokens =
                    count("completion_tokens").or(count("output_tokens")).or(read.completion_tokens);
            }
        }
        _ => {}
    };
    let Value::Object(members) = document else { return };
    for (name, value) in members {
        match (name.as_str(), value) {
            ("response" | "message", Value::Object(nested)) => {
                nested.keys().for_each(|name| look(nested, name, read))
            }
            _ => look(members, name, read),
        }
    }
}

/// `whole` in pieces that end at `cuts`.
fn cut<'a>(whole: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (whole.len() + 1)).chain([whole.len()]).collect();
    ends.sort_unstable();
    let begins = std::iter::once(0).chain(ends.clone());
    begins.zip(ends).map(|(from, to)| &whole[from..to]).collect()
}

proptest! {
    #[test]
    fn pieces_do_not_matter_and_whole_documents_are_understood(
        documents in proptest::collection::vec(any_json(), 1..5),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
    ) {
        let mut expected = Usage::default();
        documents.iter().for_each(|document| expect(document, &mut expected));
        let events: String = documents.iter().map(|document| format!("data: {document}{end}{end}")).collect();
        prop_assert_eq!(&read(EVENTS, cut(events.as_bytes(), &cuts)), &expected);

        let mut expected = Usage::default();
        expect(&documents[0], &mut expected);
        let whole = documents[0].to_string();
        prop_assert_eq!(read(JSON, cut(whole.as_bytes(), &cuts)), expected);
    }

    #[test]
    fn nothing_that_passes_breaks_it(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"\"{}[]:,\\\r\n datamodelusage".to_vec())], 0..400),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        for media_type in [JSON, EVENTS] {
            let whole = read(media_type, [&*bytes]);
            prop_assert_eq!(read(media_type, cut(&bytes, &cuts)), whole);
        }
    }
}
