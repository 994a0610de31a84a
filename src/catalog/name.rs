//! Names of services and deployments: the one spelling that hosts, paths, records and metrics can all carry.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A service's or deployment's name: `^[a-z]([-a-z0-9]*[a-z0-9])?$`, 3 to 32 bytes (the rule of the Azure SDKs).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

/// A name outside the rule, with what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName(&'static str);

impl ServiceName {
    /// Shortest name, in bytes.
    pub const MIN_LEN: usize = 3;
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 32;

    /// Checks `text` against the rule.
    ///
    /// # Errors
    /// Says which part of the rule is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let bytes = text.as_bytes();
        if !(Self::MIN_LEN..=Self::MAX_LEN).contains(&bytes.len()) {
            return Err(InvalidName("a name has 3 to 32 characters"));
        }
        if !bytes[0].is_ascii_lowercase() {
            return Err(InvalidName("a name begins with a lower-case letter"));
        }
        if bytes.iter().any(|b| !matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return Err(InvalidName("a name holds lower-case letters, digits and '-' only"));
        }
        if bytes[bytes.len() - 1] == b'-' {
            return Err(InvalidName("a name does not end with '-'"));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text, for records and labels.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ServiceName {
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$",
            "minLength": Self::MIN_LEN,
            "maxLength": Self::MAX_LEN,
        })
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_sdk_rule_pass() {
        for good in ["iris", "a-1", "abc", "a0123456789012345678901234567890"] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "Iris", "1abc", "iris-", "ir_is", "ir.is", "a01234567890123456789012345678901"]
        {
            assert!(ServiceName::parse(bad).is_err(), "{bad}");
        }
    }
}
