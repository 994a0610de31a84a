//! From the tree to the serde shape, with all that does not fit collected instead of the first.
//!
//! Serde ends at the first error. So the tree is read again after the refused node is taken out of it, until what is left
//! fits; every raw type fills what is absent with defaults, and [`Report`] keeps quiet about the absence of what was
//! refused.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::{Serialize, Serializer, forward_to_deserialize_any};

use super::document::{Entry, Mark, Node, PlaceId, Value};
use super::problem::Report;
use super::refusal::Refusal;

/// More problems than this in the shape alone and the file is not a configuration at all.
const MAX_REFUSALS: usize = 100;
/// The newtype name by which [`At`] asks for the place beside the value.
const AT: &str = "$scoregate::config::At";

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub at: PlaceId,
}

/// Reads the tree as a `T`; what does not fit goes to `report` and counts as absent.
pub(super) fn decode<T: DeserializeOwned + Default>(root: &mut Node, report: &mut Report) -> T {
    for _ in 0..MAX_REFUSALS {
        match T::deserialize(Decoder(root)) {
            Ok(decoded) => return decoded,
            Err(refusal) => {
                let at = refusal.at.unwrap_or(root.id);
                report.refuse(at, refusal.message);
                if !root.remove(at) {
                    return T::default();
                }
            }
        }
    }
    report.refuse(root.id, format!("more than {MAX_REFUSALS} problems; the rest is not shown"));
    T::default()
}

impl<T> At<T> {
    /// A value that stands nowhere: a default.
    pub const fn default_value(value: T) -> Self {
        Self { value, at: PlaceId::NONE }
    }
}

impl<T: Default> Default for At<T> {
    fn default() -> Self {
        Self::default_value(T::default())
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Placed<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Placed<T> {
            type Value = At<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
                let absent = || serde::de::Error::custom("read by another deserializer");
                let at = PlaceId(seq.next_element()?.ok_or_else(absent)?);
                let value = seq.next_element()?.ok_or_else(absent)?;
                Ok(At { value, at })
            }
        }
        deserializer.deserialize_newtype_struct(AT, Placed(PhantomData))
    }
}

struct Decoder<'de>(&'de Node);

impl<'de> Decoder<'de> {
    /// Reads the text of a variable as what the field asks for.
    fn typed<V: Visitor<'de>>(
        self,
        visitor: V,
        read: impl FnOnce(&str, V) -> Result<V::Value, Refusal>,
    ) -> Result<V::Value, Refusal> {
        match &self.0.value {
            Value::Untyped(text) => read(text, visitor).map_err(|error| error.or_at(self.0.id)),
            _ => self.deserialize_any(visitor),
        }
    }
}

fn read_bool<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Refusal> {
    match text {
        "true" => visitor.visit_bool(true),
        "false" => visitor.visit_bool(false),
        other => visitor.visit_str(other),
    }
}

fn read_number<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Refusal> {
    match (text.parse(), text.parse()) {
        (Ok(number), _) => visitor.visit_u64(number),
        (_, Ok(number)) => visitor.visit_i64(number),
        _ => visitor.visit_str(text),
    }
}

fn read_fraction<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, Refusal> {
    match text.parse() {
        Ok(number) => visitor.visit_f64(number),
        Err(_) => visitor.visit_str(text),
    }
}

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => Err(serde::de::Error::custom("this number is out of range")),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) | Value::Untyped(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(entries) => {
                visitor.visit_map(Entries { rest: entries.iter(), fields: &[], value: None })
            }
        }
        .map_err(|error| error.or_at(self.0.id))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.0.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if name == AT {
            visitor.visit_seq(PlaceAndValue { node: self.0, given: 0 })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match &self.0.value {
            Value::Map(entries) => visitor
                .visit_map(Entries { rest: entries.iter(), fields, value: None })
                .map_err(|error| error.or_at(self.0.id)),
            // A derived struct would take a list for its fields in order.
            Value::List(_) => {
                let error: Refusal = serde::de::Error::invalid_type(Unexpected::Seq, &visitor);
                Err(error.or_at(self.0.id))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let text: Cow<'_, str> = match &self.0.value {
            Value::Text(text) | Value::Untyped(text) => text.into(),
            // `min_version: 1.2` without quotes.
            Value::Float(number) => number.to_string().into(),
            _ => {
                return Err(Refusal {
                    at: Some(self.0.id),
                    message: format!("expected one of {}", variants.join(", ")),
                });
            }
        };
        let text: StrDeserializer<'_, Refusal> = text.as_ref().into_deserializer();
        visitor.visit_enum(text).map_err(|error| error.or_at(self.0.id))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.typed(visitor, read_bool)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.typed(visitor, read_number)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.typed(visitor, read_fraction)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// What [`At`] reads: the place's number, then the value.
struct PlaceAndValue<'de> {
    node: &'de Node,
    given: u8,
}

impl<'de> SeqAccess<'de> for PlaceAndValue<'de> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        self.given += 1;
        match self.given {
            1 => seed.deserialize(U32Deserializer::new(self.node.id.0)).map(Some),
            2 => seed.deserialize(Decoder(self.node)).map(Some),
            _ => Ok(None),
        }
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        match self.0.next() {
            Some(node) => seed.deserialize(Decoder(node)).map(Some),
            None => Ok(None),
        }
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    /// Names that the section knows.
    fields: &'static [&'static str],
    value: Option<&'de Node>,
}

impl Entries<'_> {
    /// The name that the section knows the entry by. Overrides come from variables, which are in upper case.
    fn known_name(&self, entry: &Entry) -> Option<&'static str> {
        self.fields.iter().copied().find(|field| {
            *field == entry.key
                || (matches!(entry.key_mark, Mark::Variable(_)) && field.eq_ignore_ascii_case(&entry.key))
        })
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        while let Some(entry) = self.rest.next() {
            let known = self.known_name(entry);
            // A key without a value is as good as no key, so that `client_ca: null` and an emptied section need no rule.
            if known.is_some() && matches!(entry.value.value, Value::Null) {
                continue;
            }
            self.value = Some(&entry.value);
            let name: StrDeserializer<'_, Refusal> = known.unwrap_or(&entry.key).into_deserializer();
            return seed.deserialize(name).map(Some).map_err(|error| error.or_at(entry.key_id));
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        match self.value.take() {
            Some(node) => seed.deserialize(Decoder(node)),
            None => Err(serde::de::Error::custom("a value without a key")),
        }
    }
}
