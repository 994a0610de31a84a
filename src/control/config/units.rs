//! Durations and sizes as people write them: `500ms`, `12h`, `100MiB`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

/// A duration: a whole number with one of the units `ms`, `s`, `m`, `h`, `d`. Which bounds apply is the field's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RawDuration(pub Duration);

/// A size in bytes: a whole number, alone or with one of the units `KiB`, `MiB`, `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RawSize(pub u64);

/// Largest first, so that a value is printed in the largest unit that leaves it whole.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

const DURATION_FORM: &str = "a duration is a whole number with a unit, such as 500ms, 60s, 10m or 12h";
const SIZE_FORM: &str = "a size is a whole number of bytes, or one with a unit such as 64KiB, 100MiB or 2GiB";

/// Reads a duration as the configuration writes it, for arguments on the command line.
///
/// # Errors
/// Says how a duration is written.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    RawDuration::parse(text).map(|duration| duration.0)
}

impl RawDuration {
    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// So many seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (number, unit) = split(text).ok_or(DURATION_FORM)?;
        // A bare 0 needs no unit.
        if number == 0 && unit.is_empty() {
            return Ok(Self(Duration::ZERO));
        }
        if unit == "d" {
            return number.checked_mul(24 * 3600).map(Self::secs).ok_or(DURATION_FORM);
        }
        scaled(number, unit, &DURATION_UNITS).map(Self::millis).ok_or(DURATION_FORM)
    }
}

impl RawSize {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (number, unit) = split(text).ok_or(SIZE_FORM)?;
        if unit.is_empty() {
            return Ok(Self(number));
        }
        scaled(number, unit, &SIZE_UNITS).map(Self).ok_or(SIZE_FORM)
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

fn scaled(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// The largest unit that leaves the value whole.
fn largest_unit(value: u64, units: &[(&'static str, u64)]) -> Option<(u64, &'static str)> {
    units
        .iter()
        .find(|(_, factor)| value != 0 && value.is_multiple_of(*factor))
        .map(|(name, factor)| (value / factor, *name))
}

impl fmt::Display for RawDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        match largest_unit(millis, &DURATION_UNITS) {
            Some((number, unit)) => write!(f, "{number}{unit}"),
            None => f.write_str("0s"),
        }
    }
}

impl fmt::Display for RawSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match largest_unit(self.0, &SIZE_UNITS) {
            Some((number, unit)) => write!(f, "{number}{unit}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for RawDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for RawSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Durations;
        impl Visitor<'_> for Durations {
            type Value = RawDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 500ms, 60s, 10m or 12h")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawDuration, E> {
                RawDuration::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<RawDuration, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Durations)
    }
}

impl<'de> Deserialize<'de> for RawSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl Visitor<'_> for Sizes {
            type Value = RawSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 65536, 64KiB, 100MiB or 2GiB")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawSize, E> {
                RawSize::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<RawSize, E> {
                Ok(RawSize(number))
            }
        }
        deserializer.deserialize_any(Sizes)
    }
}

impl JsonSchema for RawDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": DURATION_FORM,
            "type": ["string", "integer"],
            "pattern": "^([0-9]+ *(ms|s|m|h|d)|0)$",
            "maximum": 0,
        })
    }
}

impl JsonSchema for RawSize {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": SIZE_FORM,
            "type": ["string", "integer"],
            "pattern": "^[0-9]+( *(KiB|MiB|GiB))?$",
            "minimum": 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed() {
        for (text, millis, printed) in [
            ("500ms", 500, "500ms"),
            ("60s", 60_000, "1m"),
            ("90 s", 90_000, "90s"),
            ("12h", 43_200_000, "12h"),
            ("90d", 7_776_000_000, "2160h"),
            ("0", 0, "0s"),
            ("0ms", 0, "0s"),
        ] {
            let duration = RawDuration::parse(text).unwrap();
            assert_eq!(duration, RawDuration::millis(millis), "{text}");
            assert_eq!(duration.to_string(), printed);
            assert_eq!(RawDuration::parse(printed), Ok(duration));
        }
        for bad in ["", "60", "1.5s", "-1s", "s", "60 sec", "18446744073709551615h", "18446744073709551615d"]
        {
            assert!(RawDuration::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed() {
        for (text, bytes, printed) in [
            ("100MiB", 104_857_600, "100MiB"),
            ("1024 KiB", 1_048_576, "1MiB"),
            ("1000", 1000, "1000"),
            ("0", 0, "0"),
        ] {
            let size = RawSize::parse(text).unwrap();
            assert_eq!(size, RawSize(bytes), "{text}");
            assert_eq!(size.to_string(), printed);
            assert_eq!(RawSize::parse(printed), Ok(size));
        }
        for bad in ["", "MiB", "1MB", "1.5MiB", "-1", "18446744073709551615KiB"] {
            assert!(RawSize::parse(bad).is_err(), "{bad}");
        }
    }
}
