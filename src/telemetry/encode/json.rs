//! Text from outside as a JSON string: valid UTF-8 on one line, without a character that a terminal would act on.

/// What stands for the rest of a text that was cut.
const CUT: &str = "…";

/// A JSON string being written, from its opening to its closing quote.
pub(in crate::telemetry) struct Text<'a> {
    out: &'a mut Vec<u8>,
    /// Bytes of text, before escapes, that still fit.
    left: usize,
    length: Length,
}

enum Length {
    Fits,
    Cut,
}

impl<'a> Text<'a> {
    /// Opens a string that holds at most `cap` bytes of text (as UTF-8, before escapes), the mark of a cut not counted.
    pub(in crate::telemetry) fn open(out: &'a mut Vec<u8>, cap: usize) -> Self {
        out.push(b'"');
        Self { out, left: cap, length: Length::Fits }
    }

    /// Adds text. What is not UTF-8 becomes U+FFFD; a character never spans two calls.
    pub(in crate::telemetry) fn push(&mut self, text: &[u8]) {
        if matches!(self.length, Length::Cut) {
            return;
        }
        let fitting = &text[..boundary_at_most(text, self.left)];
        if is_plain(fitting) {
            self.out.extend_from_slice(fitting);
            self.left -= fitting.len();
        } else {
            self.push_escaped(fitting);
        }
        if fitting.len() < text.len() {
            self.length = Length::Cut;
        }
    }

    /// Closes the string, with the mark of a cut if there was one.
    pub(in crate::telemetry) fn close(self) {
        if matches!(self.length, Length::Cut) {
            self.out.extend_from_slice(CUT.as_bytes());
        }
        self.out.push(b'"');
    }

    fn push_escaped(&mut self, text: &[u8]) {
        for chunk in text.utf8_chunks() {
            let replaced = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
            for c in chunk.valid().chars().chain(replaced) {
                // A replacement can be longer than what it replaces.
                let Some(left) = self.left.checked_sub(c.len_utf8()) else {
                    self.length = Length::Cut;
                    return;
                };
                self.left = left;
                self.push_char(c);
            }
        }
    }

    fn push_char(&mut self, c: char) {
        match c {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            c if must_not_show(c) => {
                const HEX: [u8; 16] = *b"0123456789abcdef";
                // All of them are in the basic plane: four digits do.
                let digit = |shift: u32| HEX[(u32::from(c) >> shift & 0xf) as usize];
                let digits = [digit(12), digit(8), digit(4), digit(0)];
                self.out.extend_from_slice(b"\\u");
                self.out.extend_from_slice(&digits);
            }
            c => {
                let mut utf8 = [0; 4];
                self.out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            }
        }
    }
}

/// Whether all of `text` stands for itself in JSON: printable ASCII without quote and backslash.
fn is_plain(text: &[u8]) -> bool {
    // No early exit: so the compiler turns it into a few vector instructions.
    text.iter().fold(true, |plain, b| plain & (b.wrapping_sub(b' ') < 0x5f) & (*b != b'"') & (*b != b'\\'))
}

/// Control characters (C0, DEL, C1), the line separators that JavaScript and some log readers split at, and the marks that
/// make a terminal show text in another order than it has.
fn must_not_show(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of the longest beginning of `text` that has at most `most` bytes and does not end within a character.
fn boundary_at_most(text: &[u8], most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    let is_continuation = |at: usize| text[at] & 0xc0 == 0x80;
    // A character has at most three continuation bytes; more of them are no UTF-8, and may be cut anywhere.
    (most.saturating_sub(3)..=most).rev().find(|at| !is_continuation(*at)).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(text: &[u8], cap: usize) -> String {
        let mut out = Vec::new();
        let mut string = Text::open(&mut out, cap);
        string.push(text);
        string.close();
        String::from_utf8(out).unwrap()
    }

    fn decoded(json: &str) -> String {
        serde_json::from_str(json).unwrap()
    }

    proptest! {
        #[test]
        fn any_text_reads_back_the_same(text in any::<String>()) {
            prop_assert_eq!(decoded(&encoded(text.as_bytes(), usize::MAX)), text);
        }

        #[test]
        fn any_bytes_read_back_as_rust_would_replace_them(bytes in any::<Vec<u8>>()) {
            let json = encoded(&bytes, usize::MAX);
            prop_assert!(!json.chars().any(must_not_show));
            prop_assert_eq!(decoded(&json), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_cut_leaves_a_beginning_of_the_text_within_the_cap(text in any::<String>(), cap in 0usize..40) {
            let read = decoded(&encoded(text.as_bytes(), cap));
            match read.strip_suffix(CUT) {
                Some(kept) if text != read => {
                    prop_assert!(text.starts_with(kept));
                    prop_assert!(kept.len() <= cap && text.len() > cap && kept.len() + 4 > cap);
                }
                _ => prop_assert_eq!(read, text),
            }
        }

        #[test]
        fn a_cut_of_any_bytes_is_valid_and_within_the_cap(bytes in any::<Vec<u8>>(), cap in 0usize..40) {
            prop_assert!(decoded(&encoded(&bytes, cap)).len() <= cap + CUT.len());
        }
    }

    #[test]
    fn nothing_that_a_terminal_or_a_line_reader_acts_on_is_left() {
        let hostile = "a\"\\\n\r\t\0\u{1b}[31m\u{7f}\u{9b}\u{2028}\u{2029}\u{202e}é";
        assert_eq!(
            encoded(hostile.as_bytes(), 100),
            r#""a\"\\\n\r\t\u0000\u001b[31m\u007f\u009b\u2028\u2029\u202eé""#
        );
        assert_eq!(encoded(b"\xff\xfe", 100), "\"\u{fffd}\u{fffd}\"");
    }

    #[test]
    fn a_character_is_never_cut_in_two() {
        assert_eq!(encoded("aé".as_bytes(), 2), r#""a…""#);
        assert_eq!(encoded("aé".as_bytes(), 3), r#""aé""#);
        assert_eq!(encoded("a😀b".as_bytes(), 4), r#""a…""#);
    }
}
