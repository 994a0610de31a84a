//! Model and token usage of an OpenAI-style answer, read from its pieces as they pass: no piece is held back, changed or kept.

mod document;
#[cfg(test)]
mod tests;

use http::{HeaderMap, HeaderName, header};

use crate::telemetry::record::Usage;

use document::Document;

/// Watches the pieces of one answer. Its memory is bounded whatever passes: it keeps a place in the text and the one value
/// that is just being read.
#[derive(Debug)]
pub(super) struct UsageWatch {
    form: Form,
    read: Usage,
}

/// The two forms of an answer.
#[derive(Debug)]
enum Form {
    /// One JSON document.
    Json(Document),
    /// Server-sent events, each with a JSON document.
    Events(Events),
}

impl UsageWatch {
    /// A watch for an answer with `fields`; `None` for one that tells nothing or that is encoded.
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let encoding = text(fields, &header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return None;
        }
        let media_type = text(fields, &header::CONTENT_TYPE)?.split(';').next()?.trim();
        let form = if media_type.eq_ignore_ascii_case("application/json") {
            Form::Json(Document::new())
        } else if media_type.eq_ignore_ascii_case("text/event-stream") {
            Form::Events(Events::new())
        } else {
            return None;
        };
        Some(Self { form, read: Usage::default() })
    }

    /// The next piece passes.
    pub fn see(&mut self, piece: &[u8]) {
        match &mut self.form {
            Form::Json(document) => document.see(piece, &mut self.read),
            Form::Events(events) => events.see(piece, &mut self.read),
        }
    }

    /// What was read of the answer until now; `None`: nothing.
    pub fn read(self) -> Option<Usage> {
        (self.read != Usage::default()).then_some(self.read)
    }
}

fn text<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    fields.get(name)?.to_str().ok()
}

/// A place in a stream of events (HTML standard, 9.2.6 "Interpreting an event stream"). An event that the end of the stream
/// cuts short counts as well: what it says of usage is true all the same.
#[derive(Debug)]
struct Events {
    line: Line,
    /// The last byte was a carriage return, which ends a line with or without a line feed.
    after_return: bool,
    /// The event's data.
    document: Document,
}

/// What the line turned out to be so far.
#[derive(Clone, Copy, Debug)]
enum Line {
    /// So many bytes of [`FIELD`].
    Field(usize),
    /// The first byte of the value, where one blank does not count.
    Lead,
    /// The value of `data`.
    Data,
    /// Something else.
    Other,
}

const FIELD: &[u8] = b"data:";

impl Events {
    fn new() -> Self {
        Self { line: Line::Field(0), after_return: false, document: Document::new() }
    }

    fn see(&mut self, piece: &[u8], read: &mut Usage) {
        let mut rest = piece;
        if std::mem::take(&mut self.after_return) {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            // A piece without a byte says nothing about what follows the return.
            self.after_return = piece.is_empty();
        }
        while !rest.is_empty() {
            let end = memchr::memchr2(b'\n', b'\r', rest);
            let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
            self.see_line(line, read);
            rest = after;
            if end.is_some() {
                self.end_line(read);
                rest = match after {
                    [b'\r', b'\n', rest @ ..] => rest,
                    [_, rest @ ..] => {
                        self.after_return = after == b"\r";
                        rest
                    }
                    [] => after,
                };
            }
        }
    }

    /// Goes on with a line.
    fn see_line(&mut self, part: &[u8], read: &mut Usage) {
        let mut rest = part;
        while let (Line::Field(matched), [byte, after @ ..]) = (self.line, rest) {
            self.line = match FIELD.get(matched) {
                Some(letter) if letter == byte && matched + 1 == FIELD.len() => Line::Lead,
                Some(letter) if letter == byte => Line::Field(matched + 1),
                _ => Line::Other,
            };
            rest = after;
        }
        if matches!(self.line, Line::Lead) && !rest.is_empty() {
            self.line = Line::Data;
            rest = rest.strip_prefix(b" ").unwrap_or(rest);
        }
        if matches!(self.line, Line::Data) {
            self.document.see(rest, read);
        }
    }

    fn end_line(&mut self, read: &mut Usage) {
        match self.line {
            Line::Field(0) => self.document = Document::new(),
            Line::Data => self.document.see(b"\n", read),
            Line::Field(_) | Line::Lead | Line::Other => {}
        }
        self.line = Line::Field(0);
    }
}
