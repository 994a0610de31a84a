//! One JSON document read in pieces, for the values of `model` and `usage` alone. Only these are parsed; of the rest just the
//! strings and brackets are followed, so that a document may be of any size.

use serde::Deserialize;

use crate::telemetry::record::Usage;

/// Longest `model` that is read, in bytes of JSON.
const MAX_MODEL: usize = 1024;
/// Longest `usage` that is read, in bytes of JSON. The OpenAI API's, with all its details, has some 400.
const MAX_USAGE: usize = 4096;

/// A place in a document.
#[derive(Debug)]
pub(super) struct Document {
    /// Open brackets.
    depth: u32,
    /// The depth of the members that are looked at.
    level: Level,
    text: Text,
    member: Member,
    key: Key,
    /// The value being read.
    value: Vec<u8>,
}

/// Which members are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// None as yet.
    Before,
    /// Those of the document.
    Top,
    /// Those of its `response` (events of the Responses API) or `message` (of Anthropic's).
    Nested,
    /// None any more.
    Over,
}

/// Whether the place is inside a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

/// Where the place is in a member of the object that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    BeforeKey,
    InKey,
    AfterKey,
    /// In a value that nobody asks for.
    Passed,
    /// In the value of `model`.
    Model,
    /// In the value of `usage`.
    Usage,
    /// Before the value of a member that may hold both.
    Wrapper,
}

/// The first bytes of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Key {
    bytes: [u8; 8],
    /// May be more than fits.
    len: usize,
}

/// The counts of the OpenAI API, under the names of either of its two interfaces (the newer ones are Anthropic's as well).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawUsage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
}

impl Document {
    pub const fn new() -> Self {
        Self {
            depth: 0,
            level: Level::Before,
            text: Text::Outside,
            member: Member::Passed,
            key: Key { bytes: [0; 8], len: 0 },
            value: Vec::new(),
        }
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.value.capacity()
    }

    /// Goes on with `piece` and notes in `read` what it completes.
    pub fn see(&mut self, piece: &[u8], read: &mut Usage) {
        let mut rest = piece;
        while !rest.is_empty() && self.level != Level::Over {
            let passed = match self.text {
                Text::Outside => rest.iter().position(|byte| STRUCTURAL[usize::from(*byte)]),
                Text::Inside => memchr::memchr2(b'"', b'\\', rest),
                Text::Escaped => Some(0),
            };
            let (run, after) = rest.split_at(passed.unwrap_or(rest.len()));
            self.take(run, read);
            rest = match after {
                [byte, after @ ..] => {
                    self.turn(*byte, read);
                    after
                }
                [] => after,
            };
        }
    }

    /// A byte that may change where the place is.
    fn turn(&mut self, byte: u8, read: &mut Usage) {
        match (self.text, byte) {
            (Text::Escaped, _) => {
                self.text = Text::Inside;
                self.take(&[byte], read);
            }
            (Text::Inside, b'\\') => {
                self.text = Text::Escaped;
                self.take(b"\\", read);
            }
            (Text::Inside, _) => {
                self.text = Text::Outside;
                if self.member == Member::InKey {
                    self.member = Member::AfterKey;
                } else {
                    self.take(b"\"", read);
                }
            }
            (Text::Outside, b'"') => {
                self.text = Text::Inside;
                if self.member == Member::BeforeKey && self.is_at_level() {
                    self.member = Member::InKey;
                    self.key.len = 0;
                } else {
                    self.take(b"\"", read);
                }
            }
            (Text::Outside, _) => self.turn_outside(byte, read),
        }
    }

    fn turn_outside(&mut self, byte: u8, read: &mut Usage) {
        match byte {
            b':' if self.is_at_level() && self.member == Member::AfterKey => {
                self.member = self.key.member(self.level, read);
                self.value.clear();
            }
            b',' if self.is_at_level() => {
                self.end_value(read);
                self.member = Member::BeforeKey;
            }
            b'}' if self.is_at_level() => {
                self.end_value(read);
                self.member = Member::Passed;
                self.depth -= 1;
                self.level = if self.level == Level::Nested { Level::Top } else { Level::Over };
            }
            b'{' if self.level == Level::Before && self.depth == 0 => self.descend(Level::Top),
            b'{' if self.member == Member::Wrapper && self.is_at_level() => self.descend(Level::Nested),
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.take(&[byte], read);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.take(&[byte], read);
            }
            _ => self.take(&[byte], read),
        }
    }

    fn descend(&mut self, level: Level) {
        self.depth += 1;
        self.level = level;
        self.member = Member::BeforeKey;
    }

    /// Whether the next member is one of those that are looked at.
    const fn is_at_level(&self) -> bool {
        match self.level {
            Level::Top => self.depth == 1,
            Level::Nested => self.depth == 2,
            Level::Before | Level::Over => false,
        }
    }

    /// Bytes of the key or value at hand.
    fn take(&mut self, bytes: &[u8], read: &mut Usage) {
        let most = match self.member {
            Member::InKey => return self.key.push(bytes),
            Member::Model => MAX_MODEL,
            Member::Usage => MAX_USAGE,
            Member::BeforeKey | Member::AfterKey | Member::Passed | Member::Wrapper => return,
        };
        if self.value.len() + bytes.len() > most {
            self.member = Member::Passed;
            read.overlong = true;
        } else {
            self.value.extend_from_slice(bytes);
        }
    }

    fn end_value(&mut self, read: &mut Usage) {
        match self.member {
            Member::Model => {
                let model = serde_json::from_slice::<Box<str>>(&self.value).ok();
                read.model = model.filter(|model| !model.is_empty());
            }
            Member::Usage => {
                // `null` in every event but the last one. A list would be taken for the fields in their order.
                if self.value.trim_ascii_start().starts_with(b"{")
                    && let Ok(raw) = serde_json::from_slice::<RawUsage>(&self.value)
                {
                    read.prompt_tokens = raw.prompt_tokens.or(raw.input_tokens).or(read.prompt_tokens);
                    read.completion_tokens =
                        raw.completion_tokens.or(raw.output_tokens).or(read.completion_tokens);
                }
            }
            _ => {}
        }
    }
}

impl Key {
    fn push(&mut self, bytes: &[u8]) {
        let free = self.bytes.get_mut(self.len..).unwrap_or_default();
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.len = self.len.saturating_add(bytes.len());
    }

    /// What the value behind this key is. The model is asked for once, since every event repeats it.
    fn member(&self, level: Level, read: &Usage) -> Member {
        match self.bytes.get(..self.len) {
            Some(b"model") if read.model.is_none() => Member::Model,
            Some(b"usage") => Member::Usage,
            Some(b"response" | b"message") if level == Level::Top => Member::Wrapper,
            _ => Member::Passed,
        }
    }
}

/// Bytes that mean something outside of strings.
const STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut i = 0;
    while i < b"\"{}[],:".len() {
        table[b"\"{}[],:"[i] as usize] = true;
        i += 1;
    }
    table
};
