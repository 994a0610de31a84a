//! Reads a record's line: its fields in order, borrowed from the line where that needs no unescaping.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The fields of one record.
pub(super) struct Line<'a>(Vec<(Cow<'a, str>, Scalar<'a>)>);

/// A field's value; lists and objects count as unknown.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Unknown,
    Bool(bool),
    Whole(u64),
    Number(f64),
    Text(Cow<'a, str>),
}

impl<'a> Line<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Scalar<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Scalar::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Scalar::Whole(number) => Some(*number as f64),
            Scalar::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn get(&self, name: &str) -> Option<&Scalar<'a>> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Line<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Line<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
                let mut fields = Vec::with_capacity(32);
                while let Some(Borrowed(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Line(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Text that is borrowed if it can be, which the `Cow` of serde is not by itself.
struct Borrowed<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Borrowed<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a name is no text")),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalars)
    }
}

struct Scalars;

impl<'de> Visitor<'de> for Scalars {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Unknown)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Unknown)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_without_copies_where_nothing_is_escaped() {
        let text =
            br#"{"A":"plain","B":"tab\t","C":7,"D":1.5,"E":null,"F":[1,{"x":2}],"G":{"y":[]},"H":true}"#;
        let line = Line::parse(text).unwrap();
        let fields: Vec<_> = line.iter().collect();
        assert!(matches!(fields[0], ("A", Scalar::Text(Cow::Borrowed("plain")))));
        assert!(matches!(fields[1], ("B", Scalar::Text(Cow::Owned(text))) if text == "tab\t"));
        assert_eq!(
            (line.number("C"), line.number("D"), line.text("A")),
            (Some(7.0), Some(1.5), Some("plain"))
        );
        assert_eq!((line.text("C"), line.number("A"), line.text("Z")), (None, None, None));
        assert_eq!(fields[4..7].iter().map(|(_, value)| *value).collect::<Vec<_>>(), [&Scalar::Unknown; 3]);
        assert_eq!(fields[7].1, &Scalar::Bool(true));
        assert!(Line::parse(b"[1]").is_err() && Line::parse(br#"{"A":"#).is_err());
    }
}
