//! How the replicas of a deployment share its calls, and when failing ones are left out.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::super::decode::At;
use super::super::units::RawDuration;
use crate::upstream::EjectionSettings;

/// Who gets the next call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum RawBalancing {
    /// The less busy of two.
    #[default]
    LeastBusy,
    /// One after the other.
    RoundRobin,
    /// By the value of this header.
    Hash(String),
}

const BALANCING_FORM: &str = "least_busy, round_robin or {hash: HEADER}";
const LEAST_BUSY: &str = "least_busy";
const ROUND_ROBIN: &str = "round_robin";
const HASH: &str = "hash";

impl Serialize for RawBalancing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::LeastBusy => serializer.serialize_str(LEAST_BUSY),
            Self::RoundRobin => serializer.serialize_str(ROUND_ROBIN),
            Self::Hash(header) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(HASH, header)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for RawBalancing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Balancing;
        impl<'de> Visitor<'de> for Balancing {
            type Value = RawBalancing;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(BALANCING_FORM)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawBalancing, E> {
                match text {
                    LEAST_BUSY => Ok(RawBalancing::LeastBusy),
                    ROUND_ROBIN => Ok(RawBalancing::RoundRobin),
                    _ => Err(E::custom(format_args!("expected {BALANCING_FORM}, found '{text}'"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawBalancing, A::Error> {
                let mut header = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != HASH {
                        return Err(A::Error::unknown_field(&key, &[HASH]));
                    }
                    header = Some(map.next_value()?);
                }
                let missing =
                    || A::Error::custom(format_args!("expected {BALANCING_FORM}, found an empty section"));
                header.map(RawBalancing::Hash).ok_or_else(missing)
            }
        }
        deserializer.deserialize_any(Balancing)
    }
}

impl JsonSchema for RawBalancing {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Balancing".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": [LEAST_BUSY, ROUND_ROBIN] },
            {
                "type": "object",
                "properties": { "hash": {
                    "description": "Calls with the same value of this header go to the same replica.",
                    "type": "string",
                } },
                "required": [HASH],
                "additionalProperties": false,
            },
        ] })
    }
}

/// Whether and when failing replicas are left out.
#[derive(Clone, Debug)]
pub(in super::super) enum RawEjection {
    /// `off`: never.
    Off,
    /// As these say.
    On(RawEjections),
}

impl Default for RawEjection {
    fn default() -> Self {
        Self::On(RawEjections::default())
    }
}

/// When failing replicas are left out. Connections that fail, resets, timeouts and answers 5xx are failures.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Ejection")]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct RawEjections {
    /// So many failed attempts in a row, 1 to 1000000.
    pub failures: At<u32>,
    /// Length of the first ejection, 1ms to 24h; each further one in a row is longer by as much. So long in service, and one
    /// is forgotten.
    pub time: At<RawDuration>,
    /// No ejection is longer; at least `time`, at most 24h. Default: 5m, or `time` if that is longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_time: Option<At<RawDuration>>,
    /// Percent of the reachable replicas that are never ejected for their answers, 0 to 100; one is always kept. Replicas
    /// that take no connections are ejected whatever this says.
    pub keep: At<u32>,
}

impl Default for RawEjections {
    fn default() -> Self {
        let settings = EjectionSettings::default();
        Self {
            failures: At::default_value(settings.failures),
            time: At::default_value(RawDuration(settings.time)),
            most_time: None,
            keep: At::default_value(u32::from(settings.keep)),
        }
    }
}

impl Serialize for RawEjection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(on) => on.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawEjection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ejection;
        impl<'de> Visitor<'de> for Ejection {
            type Value = RawEjection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("off, or a section with failures, time, most_time, keep")
            }

            /// What YAML 1.1 makes of `off`.
            fn visit_bool<E: Error>(self, on: bool) -> Result<RawEjection, E> {
                Ok(if on { RawEjection::default() } else { RawEjection::Off })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RawEjection, E> {
                match text {
                    "off" => Ok(RawEjection::Off),
                    "on" => Ok(RawEjection::default()),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawEjection, A::Error> {
                RawEjections::deserialize(MapAccessDeserializer::new(map)).map(RawEjection::On)
            }
        }
        deserializer.deserialize_any(Ejection)
    }
}

impl JsonSchema for RawEjection {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "EjectionOrOff".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let on = generator.subschema_for::<RawEjections>();
        json_schema!({ "anyOf": [{ "enum": ["on", "off", true, false] }, on] })
    }
}
