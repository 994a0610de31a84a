//! `$filter` of a metrics query: `A eq 'a1' and (B eq 'b1' or B eq 'b2') and C eq '*'`. `or` is between values of one
//! dimension only, with or without parentheses (Azure Monitor, "Metrics - List").

use crate::management::Refusal;
use crate::telemetry::history::{Dimension, DimensionFilter};

/// Most values of all dimensions together.
const MOST_VALUES: usize = 100;

/// What `text` lets pass.
///
/// # Errors
/// Says what is wrong, and what a filter looks like.
pub(super) fn parse(text: &str) -> Result<Vec<DimensionFilter>, Refusal> {
    let wrong = |why: &str| {
        let message = format!("{why}; write one such as statusCodeClass eq '5xx' and reason eq '*'");
        Refusal::invalid("$filter", message)
    };
    let tokens = tokens(text).map_err(wrong)?;
    let mut filters: Vec<DimensionFilter> = Vec::new();
    let mut values = 0;
    for group in tokens.split(|token| token.is_word("and")) {
        let filter = group_of(group).map_err(|why| wrong(&why))?;
        values += filter.values.len();
        if filters.iter().any(|known| known.dimension == filter.dimension) {
            return Err(wrong(&format!("{} is there twice; use or", filter.dimension.as_str())));
        }
        filters.push(filter);
    }
    if values > MOST_VALUES {
        return Err(wrong(&format!("it has {values} values; at most {MOST_VALUES}")));
    }
    Ok(filters)
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' => {
                tokens.push(if first == '(' { Token::Open } else { Token::Close });
                1
            }
            '\'' => {
                let (value, length) = quoted(rest).ok_or("a quote is not closed")?;
                tokens.push(Token::Text(value));
                length
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '\'');
                let length = rest.find(ends).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..length].to_owned()));
                length
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// The text in quotes that `text` begins with, and its length with them; two quotes in it stand for one (OData).
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut at = 1;
    loop {
        let end = at + text[at..].find('\'')?;
        value.push_str(&text[at..end]);
        if !text[end + 1..].starts_with('\'') {
            return Some((value, end + 1));
        }
        value.push('\'');
        at = end + 2;
    }
}

/// `A eq 'a1' or A eq 'a2'`, perhaps in parentheses.
fn group_of(tokens: &[Token]) -> Result<DimensionFilter, String> {
    let inner = match tokens {
        [Token::Open, inner @ .., Token::Close] => inner,
        plain => plain,
    };
    let mut found: Option<DimensionFilter> = None;
    for clause in inner.split(|token| token.is_word("or")) {
        let [Token::Word(name), operator, Token::Text(value)] = clause else {
            return Err("it is no list of conditions".to_owned());
        };
        if !operator.is_word("eq") {
            return Err("eq is the only comparison".to_owned());
        }
        let dimension = Dimension::named(name).ok_or_else(|| {
            let known = Dimension::ALL.map(Dimension::as_str).join(", ");
            format!("there is no dimension '{name}', but {known}")
        })?;
        let filter = found.get_or_insert(DimensionFilter { dimension, values: Vec::new() });
        if filter.dimension != dimension {
            return Err("or is between values of one dimension only".to_owned());
        }
        filter.values.push(value.clone());
    }
    found.ok_or_else(|| "it is empty".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Dimension, Vec<String>)> {
        parse(text).unwrap().into_iter().map(|filter| (filter.dimension, filter.values)).collect()
    }

    #[test]
    fn conditions_are_read_with_and_without_parentheses() {
        let of = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let expected = vec![
            (Dimension::Deployment, of(&["blue"])),
            (Dimension::StatusCode, of(&["500", "503"])),
            (Dimension::Reason, of(&["*"])),
        ];
        let plain = "deployment eq 'blue' and statusCode eq '500' or statusCode eq '503' and reason eq '*'";
        assert_eq!(read(plain), expected);
        let grouped =
            "(Deployment eq 'blue')and(statuscode EQ '500' or statusCode eq '503') AND reason eq '*'";
        assert_eq!(read(grouped), expected);
        assert_eq!(read("deployment eq 'it''s (so)'"), [(Dimension::Deployment, of(&["it's (so)"]))]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "deployment",
            "deployment eq",
            "deployment eq blue",
            "deployment ne 'blue'",
            "deployment eq 'blue",
            "deployment eq 'blue' or reason eq 'ok'",
            "deployment eq 'blue' and deployment eq 'green'",
            "deployment eq 'blue' and",
            "((deployment eq 'blue'))",
            "colour eq 'blue'",
            "()",
            "é eq '1'",
        ] {
            let refusal = parse(text).unwrap_err();
            assert_eq!(refusal.target.as_deref(), Some("$filter"), "{text}");
        }
        let many = vec!["reason eq 'x'"; MOST_VALUES + 1].join(" or ");
        assert!(parse(&many).is_err());
    }
}
