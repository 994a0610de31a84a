//! How answers are shown: tables for people, the API's own JSON for programs.

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

/// Shape of what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in super::super) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// The API's JSON, and nothing else on standard output
    Json,
}

/// A column: its head, and where its value is in an item (a JSON pointer, RFC 6901).
pub(in super::super) type Column = (&'static str, &'static str);

/// Where and how a command shows what it got.
pub(in super::super) struct Output<'a> {
    format: Format,
    out: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    /// Shows to `out`.
    pub fn new(format: Format, out: &'a mut dyn Write) -> Self {
        Self { format, out }
    }

    /// Shows a list.
    pub fn list(&mut self, items: &[Value], columns: &[Column]) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.json(&Value::from(items.to_vec())),
            Format::Table => {
                let mut table = comfy_table::Table::new();
                table.load_style(comfy_table::presets::NOTHING);
                table.set_header(columns.iter().map(|(head, _)| *head));
                for item in items {
                    table.add_row(columns.iter().map(|(_, place)| cell(item.pointer(place))));
                }
                Ok(writeln!(self.out, "{}", table.trim_fmt())?)
            }
        }
    }

    /// Shows `rows`, which `item` is taken apart into; programs get `item`.
    pub fn rows(&mut self, item: &Value, rows: &[Value], columns: &[Column]) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.json(item),
            Format::Table => self.list(rows, columns),
        }
    }

    /// Shows one thing: each field on a line of its own.
    pub fn item(&mut self, item: &Value, columns: &[Column]) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.json(item),
            Format::Table => {
                let width = columns.iter().map(|(head, _)| head.len()).max().unwrap_or_default();
                for (head, place) in columns {
                    let value = cell(item.pointer(place));
                    if !value.is_empty() {
                        writeln!(self.out, "{head:width$}  {value}")?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Says what was done; programs get `item`.
    pub fn done(&mut self, said: &str, item: &Value) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.json(item),
            Format::Table => Ok(writeln!(self.out, "{said}")?),
        }
    }

    fn json(&mut self, value: &Value) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{}", serde_json::to_string_pretty(value)?)?)
    }
}

/// A value in one cell. Control characters cannot play with the terminal.
pub(in super::super) fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(" "),
        Some(Value::Object(fields)) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name}={}", cell(Some(value))));
            pairs.collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(format: Format, items: &[Value]) -> String {
        let mut out = Vec::new();
        Output::new(format, &mut out).list(items, &[("NAME", "/name"), ("TAGS", "/tags")]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn people_get_columns_and_programs_the_answer() {
        let items = [json!({"name": "iris", "tags": {"a": "1"}, "more": 1}), json!({"name": "w\u{1b}[2J"})];
        let table = shown(Format::Table, &items);
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines, [vec!["NAME", "TAGS"], vec!["iris", "a=1"], vec!["w", "[2J"]]);
        let parsed: Value = serde_json::from_str(&shown(Format::Json, &items)).unwrap();
        assert_eq!(parsed, Value::from(items.to_vec()));
    }
}
