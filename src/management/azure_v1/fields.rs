//! Reads the members of a JSON object one by one, each with its place for the message; what is left over is kept.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::management::Refusal;

/// An object being read. `null` counts as absent throughout, as it does in Azure's API.
pub struct Fields {
    place: String,
    members: Map<String, Value>,
}

impl Fields {
    /// `members` of the object at `place`, such as `versions/blue`; empty: the whole document.
    pub fn new(place: impl Into<String>, members: Map<String, Value>) -> Self {
        Self { place: place.into(), members }
    }

    /// The object `value` at `place`.
    ///
    /// # Errors
    /// It is something else.
    pub fn of(place: impl Into<String>, value: Value) -> Result<Self, Refusal> {
        let place = place.into();
        match value {
            Value::Object(members) => Ok(Self::new(place, members)),
            _ if place.is_empty() => Err(Refusal::invalid("body", "must be a JSON object")),
            _ => Err(Refusal::invalid(place, "must be an object")),
        }
    }

    /// The pointer to member `name`, for messages.
    #[must_use]
    pub fn place(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}/{name}", self.place) }
    }

    /// Takes a member out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Takes `true` or `false`.
    ///
    /// # Errors
    /// It is something else.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        let value = self.take(name);
        value
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(name, "must be true or false")))
            .transpose()
    }

    /// Takes a whole number within `range`.
    ///
    /// # Errors
    /// It is something else.
    pub fn number(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = whole(&value).filter(|number| range.contains(number)).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            self.wrong(name, format!("must be a whole number from {low} to {high}"))
        });
        number.map(Some)
    }

    /// Takes a text.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "must be a text")),
        }
    }

    /// Takes an object of texts. Numbers and flags become texts, as Azure's own reader makes them.
    ///
    /// # Errors
    /// It is something else.
    pub fn texts(&mut self, name: &str) -> Result<Option<BTreeMap<String, String>>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let Value::Object(members) = value else {
            return Err(self.wrong(name, "must be an object of texts"));
        };
        let read = |(key, value): (String, Value)| {
            let text = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                Value::Bool(flag) => flag.to_string(),
                Value::Number(number) => number.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    return Err(self.wrong(&format!("{name}/{key}"), "must be a text"));
                }
            };
            Ok((key, text))
        };
        members.into_iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// What has not been taken.
    #[must_use]
    pub fn rest(self) -> Map<String, Value> {
        self.members
    }

    fn wrong(&self, name: &str, message: impl Into<String>) -> Refusal {
        Refusal::invalid(self.place(name), message)
    }
}

/// A whole number, also if it is written `20.0`, as Python's JSON writes a float.
fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: up to here every whole number is a float of its own
    value.as_u64().or_else(|| {
        let float = value.as_f64().filter(|it| it.fract() == 0.0 && (0.0..=EXACT).contains(it))?;
        format!("{float:.0}").parse().ok()
    })
}
