//! Members of an ARM body, taken one by one: each refusal names the member, and what nobody takes is left for the bag.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::management::{Refusal, duration};

/// An object of the body with the path that leads to it. A member that is `null` counts as absent.
#[derive(Debug)]
pub struct Fields {
    path: String,
    members: Map<String, Value>,
}

impl Fields {
    /// The whole body.
    ///
    /// # Errors
    /// It is no object.
    pub fn of_body(body: Value) -> Result<Self, Refusal> {
        Self::of(String::new(), body)
    }

    /// The object `value` at `path`.
    ///
    /// # Errors
    /// It is something else.
    pub fn of(path: String, value: Value) -> Result<Self, Refusal> {
        match value {
            Value::Object(members) => Ok(Self { path, members }),
            _ if path.is_empty() => Err(Refusal::invalid("body", "must be a JSON object")),
            _ => Err(Refusal::invalid(path, "must be an object")),
        }
    }

    /// The name that a refusal gives to `member`.
    pub fn path(&self, member: &str) -> String {
        if self.path.is_empty() { member.to_owned() } else { format!("{}.{member}", self.path) }
    }

    /// Takes a member as it is.
    pub fn take(&mut self, member: &str) -> Option<Value> {
        self.members.shift_remove(member).filter(|value| !value.is_null())
    }

    /// Takes a text.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&mut self, member: &str) -> Result<Option<String>, Refusal> {
        match self.take(member) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::invalid(self.path(member), "must be a string")),
        }
    }

    /// Takes an object.
    ///
    /// # Errors
    /// It is something else.
    pub fn object(&mut self, member: &str) -> Result<Option<Self>, Refusal> {
        self.take(member).map(|value| Self::of(self.path(member), value)).transpose()
    }

    /// Takes an object of texts (tags, properties).
    ///
    /// # Errors
    /// Names the value that is no text.
    pub fn labels(&mut self, member: &str) -> Result<Option<BTreeMap<String, String>>, Refusal> {
        let Some(object) = self.object(member)? else { return Ok(None) };
        let path = object.path;
        let label = |(name, value)| match value {
            Value::String(text) => Ok((name, text)),
            _ => Err(Refusal::invalid(format!("{path}.{name}"), "must be a string")),
        };
        object
            .members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(label)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// Takes an object of whole percentages.
    ///
    /// # Errors
    /// Names the value that is not 0 to 100.
    pub fn percentages(&mut self, member: &str) -> Result<Option<BTreeMap<String, u8>>, Refusal> {
        let Some(object) = self.object(member)? else { return Ok(None) };
        let path = object.path;
        let percentage = |(name, value): (String, Value)| match value.as_u64().map(u8::try_from) {
            Some(Ok(percent @ 0..=100)) => Ok((name, percent)),
            _ => Err(Refusal::invalid(format!("{path}.{name}"), "must be a whole number from 0 to 100")),
        };
        object.members.into_iter().map(percentage).collect::<Result<_, _>>().map(Some)
    }

    /// Takes a whole number within `bounds`.
    ///
    /// # Errors
    /// It is something else.
    pub fn count(&mut self, member: &str, bounds: &RangeInclusive<u32>) -> Result<Option<u32>, Refusal> {
        let Some(value) = self.take(member) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        let wrong = || {
            let message = format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
            Refusal::invalid(self.path(member), message)
        };
        count.filter(|count| bounds.contains(count)).map(Some).ok_or_else(wrong)
    }

    /// Takes an ISO 8601 duration within `bounds`, in milliseconds.
    ///
    /// # Errors
    /// It is something else.
    pub fn duration(
        &mut self,
        member: &str,
        bounds: &RangeInclusive<Duration>,
    ) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(member)? else { return Ok(None) };
        let within = |milliseconds: &u64| bounds.contains(&Duration::from_millis(*milliseconds));
        let wrong = || {
            let format =
                |bound: &Duration| duration::format(u64::try_from(bound.as_millis()).unwrap_or(u64::MAX));
            let (least, most) = (format(bounds.start()), format(bounds.end()));
            let message = format!("'{text}' is no ISO 8601 duration from {least} to {most}, such as PT5S");
            Refusal::invalid(self.path(member), message)
        };
        duration::parse(&text).filter(within).map(Some).ok_or_else(wrong)
    }

    /// Takes away members that only answers have.
    pub fn without(mut self, members: &[&str]) -> Self {
        for member in members {
            self.members.shift_remove(*member);
        }
        self
    }

    /// What nobody has taken, for the bag.
    pub fn rest(self) -> Map<String, Value> {
        self.members.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(body: Value) -> Fields {
        Fields::of_body(body).unwrap()
    }

    #[test]
    fn a_wrong_member_is_named_with_its_path() {
        let mut body = fields(json!({ "properties": { "traffic": { "blue": 101 }, "tags": { "a": 1 } } }));
        let mut properties = body.object("properties").unwrap().unwrap();
        let target = |refusal: Refusal| refusal.target.unwrap();
        assert_eq!(target(properties.percentages("traffic").unwrap_err()), "properties.traffic.blue");
        assert_eq!(target(properties.labels("tags").unwrap_err()), "properties.tags.a");
        assert_eq!(target(Fields::of_body(json!([])).unwrap_err()), "body");
        assert_eq!(
            target(fields(json!({ "properties": [] })).object("properties").unwrap_err()),
            "properties"
        );
        let waits = Duration::from_millis(1)..=Duration::from_secs(60);
        for wait in ["5 s", "PT0S", "PT61S"] {
            let refused = fields(json!({ "wait": wait })).duration("wait", &waits).unwrap_err();
            assert!(refused.message.contains("from PT0.001S to PT60S"), "{refused}");
            assert_eq!(target(refused), "wait");
        }
        assert_eq!(fields(json!({ "wait": "PT60S" })).duration("wait", &waits), Ok(Some(60_000)));
        for count in [json!(0), json!(-1), json!(1.5), json!("1"), json!(10)] {
            assert_eq!(target(fields(json!({ "n": count })).count("n", &(1..=9)).unwrap_err()), "n");
        }
        assert_eq!(fields(json!({ "n": 9 })).count("n", &(1..=9)), Ok(Some(9)));
    }

    #[test]
    fn null_is_absent_and_what_is_left_is_kept() {
        let mut body =
            fields(json!({ "a": null, "b": "text", "id": "x", "other": { "n": 1 }, "none": null }));
        assert_eq!(body.text("a").unwrap(), None);
        assert_eq!(body.text("b").unwrap(), Some("text".to_owned()));
        assert_eq!(Value::Object(body.without(&["id"]).rest()), json!({ "other": { "n": 1 } }));
    }
}
