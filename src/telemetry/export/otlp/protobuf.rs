//! Writes Protocol Buffers straight into bytes (<https://protobuf.dev/programming-guides/encoding/>): it runs for every record,
//! and the generated messages would have each key and value copied into a string of its own first. What is written here is
//! read back with the generated messages by the tests.

/// Wire types.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

/// Longest varint.
const MOST_VARINT: usize = 10;

/// Appends fields of one message.
pub(super) struct Fields<'a>(&'a mut Vec<u8>);

/// The value of an attribute.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Whole(u64),
    Number(f64),
}

impl<'a> Fields<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        self.varint(value);
    }

    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A message, whose fields `fill` writes.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Fields<'_>)) {
        self.tag(field, LENGTH);
        let start = self.0.len();
        // Room for a short message's length; a longer one is moved.
        self.0.push(0);
        fill(&mut Fields(self.0));
        let end = self.0.len();
        let (length, width) = varint((end - start - 1) as u64);
        self.0.resize(end + width - 1, 0);
        self.0.copy_within(start + 1..end, start + width);
        self.0[start..start + width].copy_from_slice(&length[..width]);
    }

    /// Fields that are written already.
    pub(super) fn written(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    /// A `KeyValue` (common.proto) in the repeated `field`.
    pub(super) fn attribute(&mut self, field: u32, key: &str, value: Value<'_>) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.any_value(2, value);
        });
    }

    /// An `AnyValue` (common.proto).
    pub(super) fn any_value(&mut self, field: u32, value: Value<'_>) {
        self.message(field, |any| match value {
            Value::Text(text) => any.text(1, text),
            Value::Whole(number) => any.number(3, number),
            Value::Number(number) => any.fixed64(4, number.to_bits()),
        });
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn varint(&mut self, value: u64) {
        let (bytes, width) = varint(value);
        self.0.extend_from_slice(&bytes[..width]);
    }
}

/// Seven bits a byte, the least significant first; all but the last byte have their top bit set.
fn varint(mut value: u64) -> ([u8; MOST_VARINT], usize) {
    let mut bytes = [0; MOST_VARINT];
    let mut width = 0;
    loop {
        bytes[width] = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return (bytes, width + 1);
        }
        bytes[width] |= 0x80;
        width += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
    use opentelemetry_proto::tonic::trace::v1::Span;
    use proptest::prelude::*;
    use prost::Message as _;

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            text in ".{0,400}", whole in any::<u32>(), number in any::<f64>(), time in any::<u64>(), flags in any::<u32>(),
        ) {
            let mut out = Vec::new();
            let mut span = Fields::new(&mut out);
            span.bytes(1, &[7; 16]);
            span.number(6, 2);
            span.fixed64(7, time);
            span.fixed32(16, flags);
            span.attribute(9, "text", Value::Text(&text));
            span.attribute(9, "whole", Value::Whole(u64::from(whole)));
            span.attribute(9, "number", Value::Number(number));
            let read = Span::decode(&out[..]).unwrap();
            prop_assert_eq!((read.trace_id, read.kind), (vec![7; 16], 2));
            prop_assert_eq!((read.start_time_unix_nano, read.flags), (time, flags));
            let value = |pair: &KeyValue| pair.value.clone().unwrap().value.unwrap();
            prop_assert_eq!(value(&read.attributes[0]), any_value::Value::StringValue(text));
            prop_assert_eq!(value(&read.attributes[1]), any_value::Value::IntValue(i64::from(whole)));
            let any_value::Value::DoubleValue(found) = value(&read.attributes[2]) else { panic!("no number") };
            prop_assert_eq!(found.to_bits(), number.to_bits());
        }
    }
}
