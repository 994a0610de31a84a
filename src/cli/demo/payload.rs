//! Owns the JSON the demo's model takes and gives: `{"data": [[5.1, 3.5, 1.4, 0.2], ..]}` in, the shape of
//! the Azure ML samples, and `{"species": ["setosa", ..], "probabilities": [[0.98, 0.02, 0.0], ..]}` out, one
//! entry per flower.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::iris::Measurements;
use super::model::Prediction;

/// No flower part is longer; the bound also keeps the model's arithmetic finite.
pub(super) const MAX_CENTIMETRES: f64 = 100.0;
/// Decimals of a probability in an answer: enough to compare, short enough to read.
const DECIMALS: i32 = 6;

/// Why the caller's input cannot be scored; the text is for the caller.
#[derive(Debug)]
pub(super) enum InputError {
    /// The body is no JSON text; carries line and column.
    NotJson(serde_json::Error),
    /// JSON, but something else than expected stands at `place`, a path such as `data[3][0]`.
    Unexpected { place: String, expected: &'static str, found: String },
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(error) => write!(f, "body: expected JSON: {error}"),
            Self::Unexpected { place, expected, found } => {
                write!(f, "{place}: expected {expected}, found {found}")
            }
        }
    }
}

/// The flowers in the body of a POST.
pub(super) fn flowers_in_body(body: &str) -> Result<Vec<Measurements>, InputError> {
    let value = serde_json::from_str(body).map_err(InputError::NotJson)?;
    flowers("body", &value)
}

/// The flowers in the query of a GET. As in the stock server, each value is read as JSON, or else as text,
/// and a parameter given several times becomes an array: `?data=[[5,3,1,0]]` and
/// `?data=[5,3,1,0]&data=[6,3,5,2]` both work.
pub(super) fn flowers_in_query(query: &str) -> Result<Vec<Measurements>, InputError> {
    let mut parameters: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for (name, text) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.as_ref()));
        parameters.entry(name).or_default().push(value);
    }
    let parameters = parameters.into_iter().map(|(name, mut values)| match values.pop() {
        Some(only) if values.is_empty() => (name.into_owned(), only),
        last => (name.into_owned(), values.into_iter().chain(last).collect()),
    });
    flowers("query", &Value::Object(parameters.collect()))
}

/// The answer to a call that scored.
pub(super) fn answer(predictions: &[Prediction]) -> Value {
    let species: Vec<_> = predictions.iter().map(|prediction| prediction.species).collect();
    let probabilities: Vec<_> =
        predictions.iter().map(|prediction| prediction.probabilities.map(rounded)).collect();
    json!({ "species": species, "probabilities": probabilities })
}

fn rounded(probability: f64) -> f64 {
    let scale = 10_f64.powi(DECIMALS);
    (probability * scale).round() / scale
}

fn flowers(source: &str, input: &Value) -> Result<Vec<Measurements>, InputError> {
    let object =
        input.as_object().ok_or_else(|| unexpected(source.to_owned(), "an object with \"data\"", input))?;
    let data = object.get("data").unwrap_or(&Value::Null);
    let rows = data.as_array().filter(|rows| !rows.is_empty()).ok_or_else(|| {
        unexpected("data".to_owned(), "an array of flowers, each an array of 4 numbers", data)
    })?;
    rows.iter().enumerate().map(|(index, row)| flower(index, row)).collect()
}

fn flower(index: usize, row: &Value) -> Result<Measurements, InputError> {
    let Some(values) = row.as_array() else {
        return Err(unexpected(format!("data[{index}]"), "an array of 4 numbers", row));
    };
    let mut measurements = Measurements::default();
    if values.len() != measurements.len() {
        let place = format!("data[{index}]");
        return Err(InputError::Unexpected { place, expected: "4 numbers", found: values.len().to_string() });
    }
    for (column, (measurement, value)) in measurements.iter_mut().zip(values).enumerate() {
        *measurement =
            value.as_f64().filter(|number| (0.0..=MAX_CENTIMETRES).contains(number)).ok_or_else(|| {
                unexpected(format!("data[{index}][{column}]"), "a number of centimetres from 0 to 100", value)
            })?;
    }
    Ok(measurements)
}

fn unexpected(place: String, expected: &'static str, found: &Value) -> InputError {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(values) if values.is_empty() => "an empty array".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    InputError::Unexpected { place, expected, found }
}

#[cfg(test)]
mod tests {
    use super::super::iris::Species;
    use super::*;

    const TWO: [Measurements; 2] = [[5.1, 3.5, 1.4, 0.2], [6.0, 3.0, 5.0, 2.0]];

    #[test]
    fn the_shape_of_the_azure_samples_is_read() {
        let flowers =
            flowers_in_body(r#" {"data": [[5.1, 3.5, 1.4, 0.2], [6, 3, 5, 2]], "method": "predict"} "#)
                .unwrap();
        assert_eq!(flowers, TWO);
    }

    #[test]
    fn bad_input_is_named_with_its_place() {
        for (body, message) in [
            ("", "body: expected JSON: EOF while parsing a value at line 1 column 0"),
            ("{", "body: expected JSON: EOF while parsing an object at line 1 column 1"),
            ("[1]", "body: expected an object with \"data\", found an array"),
            ("{}", "data: expected an array of flowers, each an array of 4 numbers, found nothing"),
            (
                r#"{"data": []}"#,
                "data: expected an array of flowers, each an array of 4 numbers, found an empty array",
            ),
            (
                r#"{"data": "x"}"#,
                "data: expected an array of flowers, each an array of 4 numbers, found a string",
            ),
            (r#"{"data": [5.1, 3.5, 1.4, 0.2]}"#, "data[0]: expected an array of 4 numbers, found 5.1"),
            (r#"{"data": [[1,1,1,1], [1,1,1,1], [1,1,1,1], [1,2]]}"#, "data[3]: expected 4 numbers, found 2"),
            (
                r#"{"data": [[1, 1, {}, 1]]}"#,
                "data[0][2]: expected a number of centimetres from 0 to 100, found an object",
            ),
            (
                r#"{"data": [[1, 1e300, 1, 1]]}"#,
                "data[0][1]: expected a number of centimetres from 0 to 100, found 1e+300",
            ),
            (
                r#"{"data": [[1, 1, 1, -0.1]]}"#,
                "data[0][3]: expected a number of centimetres from 0 to 100, found -0.1",
            ),
        ] {
            assert_eq!(flowers_in_body(body).unwrap_err().to_string(), message, "{body}");
        }
    }

    #[test]
    fn a_query_is_json_per_parameter_and_repeats_become_an_array() {
        assert_eq!(flowers_in_query("data=[[5.1,3.5,1.4,0.2],[6,3,5,2]]").unwrap(), TWO);
        assert_eq!(flowers_in_query("data=%5B5.1%2C3.5%2C1.4%2C0.2%5D&x=1&data=[6,3,5,2]").unwrap(), TWO);
        assert_eq!(
            flowers_in_query("x=1&x=2&data=[6,3,5,2]&data=[6,3,5,2]&data=[6,3,5,2]").unwrap().len(),
            3
        );
    }

    #[test]
    fn a_bad_query_is_named_as_bad_input_is() {
        for (query, message) in [
            ("", "data: expected an array of flowers, each an array of 4 numbers, found nothing"),
            ("data=roses", "data: expected an array of flowers, each an array of 4 numbers, found a string"),
            ("data=1&data=2", "data[0]: expected an array of 4 numbers, found 1"),
        ] {
            assert_eq!(flowers_in_query(query).unwrap_err().to_string(), message, "{query}");
        }
    }

    #[test]
    fn the_answer_has_one_entry_per_flower() {
        let prediction =
            Prediction { species: Species::Virginica, probabilities: [0.0, 0.123_456_78, 0.876_543_22] };
        assert_eq!(
            answer(&[prediction]).to_string(),
            r#"{"species":["virginica"],"probabilities":[[0.0,0.123457,0.876543]]}"#
        );
    }
}
