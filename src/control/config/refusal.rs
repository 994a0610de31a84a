//! Why a node does not fit, in the words of people who write YAML.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::document::PlaceId;

/// Longest piece of the user's text that a message repeats, in characters.
const MAX_ECHO: usize = 40;

/// Why a node does not fit.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The innermost node at fault.
    pub at: Option<PlaceId>,
    pub message: String,
}

impl Refusal {
    /// Blames `at` unless something inside it is to blame already.
    pub fn or_at(mut self, at: PlaceId) -> Self {
        self.at.get_or_insert(at);
        self
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl serde::de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { at: None, message: message.to_string() }
    }

    /// Names the kind of what was found and never its content, which may be a secret at the wrong place.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "true or false",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) | Unexpected::Char(_) => "text",
            Unexpected::Unit | Unexpected::Option => "nothing",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a section (key: value)",
            _ => "something else",
        };
        Self::custom(format!("expected {}, found {found}", in_words(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Unsigned(number) => {
                Self::custom(format!("{number} is out of range; expected {}", in_words(expected)))
            }
            Unexpected::Signed(number) => {
                Self::custom(format!("{number} is out of range; expected {}", in_words(expected)))
            }
            other => Self::invalid_type(other, expected),
        }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::custom(match nearest(field, known) {
            Some(name) => format!("unknown field; did you mean '{name}'?"),
            None => format!("unknown field; known here: {}", known.join(", ")),
        })
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let echo: String = variant.chars().take(MAX_ECHO).collect();
        let choice = known.join(", ");
        Self::custom(match nearest(variant, known) {
            _ if known.len() == 1 => format!("must be {choice}, not '{echo}'"),
            Some(name) => format!("'{echo}' is not one of {choice}; did you mean '{name}'?"),
            None => format!("'{echo}' is not one of {choice}"),
        })
    }
}

/// Serde's names of what it expects, for readers of YAML.
fn in_words(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a string" => "text (in quotes if it looks like a number)".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        // The field's own bounds are checked by `resolve`.
        "u32" => "a whole number, 0 or more".to_owned(),
        other if other.starts_with("struct ") => "a section (key: value)".to_owned(),
        _ => text,
    }
}

/// The known name that was most likely meant.
fn nearest(name: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_lowercase()), *known))
        .filter(|(distance, known)| *distance <= 1 + known.len().min(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
