//! The YAML text as a tree whose every node knows its place, with the environment's overrides put in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Options, Spanned};

use super::problem::{Problem, Report};

/// Variables that begin so override a scalar of the configuration.
const OVERRIDE_PREFIX: &str = "SCOREGATE__";
/// Deepest nesting accepted; the configuration's own shape needs 8.
const MAX_DEPTH: usize = 64;

/// Where a node comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The configuration file; both from 1.
    File { line: u32, column: u32 },
    /// An override.
    Variable(Arc<str>),
}

/// A node's origin and its path, such as `services[0].name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub mark: Mark,
    pub path: String,
}

/// Names a [`Place`] of the document that is being loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceId(pub u32);

/// One node of the document.
#[derive(Debug)]
pub(super) struct Node {
    pub id: PlaceId,
    pub mark: Mark,
    pub value: Value,
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_id: PlaceId,
    pub key_mark: Mark,
    pub value: Node,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    /// The value of an environment variable: the field that reads it decides on the type.
    Untyped(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

impl PlaceId {
    /// No place: a default value.
    pub const NONE: Self = Self(u32::MAX);

    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Reads the text, puts in the overrides and makes the places known to `report`, which also gets what is wrong with keys
/// and variables. `None`: the text is not YAML.
pub(super) fn parse(
    file: &str,
    text: &str,
    variables: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<Node> {
    let mut root = match serde_saphyr::from_str_with_options::<Node>(text, options()) {
        Ok(root) => root,
        Err(error) => {
            let error = error.without_snippet();
            let (line, column) = error.location().map_or((0, 0), |at| position(&at));
            let message = format!("not valid YAML: {}", first_line_without_place(error));
            report.push(Problem::of_file(file, (line, column), message));
            return None;
        }
    };
    if matches!(root.value, Value::Null) {
        root.value = Value::Map(Vec::new());
    }
    for (name, value) in variables {
        let Some(path) = name.strip_prefix(OVERRIDE_PREFIX) else {
            continue;
        };
        let mark = Mark::Variable(name.as_str().into());
        if let Err(message) = root.put(path, &mark, value) {
            report.push(Problem::of_file(&format!("${name}"), (0, 0), message));
        }
    }
    let mut places = Vec::new();
    root.number(String::new(), &mut places);
    report.set_places(places);
    root.refuse_duplicate_keys(report);
    Some(root)
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        emit_comments: false,
    }
}

/// The parser's own sentence ends with the place, which stands at the start of our line already.
fn first_line_without_place(error: &serde_saphyr::Error) -> String {
    let text = error.render_with_options(serde_saphyr::render_options! {
        formatter: &serde_saphyr::UserMessageFormatter,
        snippets: serde_saphyr::SnippetMode::Off,
    });
    let line = text.lines().next().unwrap_or_default();
    let end = line.rfind(" at line ").unwrap_or(line.len());
    line[..end].to_owned()
}

fn position(location: &Location) -> (u32, u32) {
    let bounded = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    (bounded(location.line()), bounded(location.column()))
}

impl Mark {
    fn of(location: &Location) -> Self {
        let (line, column) = position(location);
        Self::File { line, column }
    }
}

impl Node {
    /// Takes the node or entry named by `id` out of the tree; `false` if it is the root or not there.
    pub fn remove(&mut self, id: PlaceId) -> bool {
        match &mut self.value {
            Value::List(items) => {
                let before = items.len();
                items.retain(|item| item.id != id);
                items.len() < before || items.iter_mut().any(|item| item.remove(id))
            }
            Value::Map(entries) => {
                let before = entries.len();
                entries.retain(|entry| entry.key_id != id && entry.value.id != id);
                entries.len() < before || entries.iter_mut().any(|entry| entry.value.remove(id))
            }
            _ => false,
        }
    }

    /// Sets the scalar at `path` (segments divided by `__`, in any case; list items by index) to `value`.
    fn put(&mut self, path: &str, mark: &Mark, value: &str) -> Result<(), String> {
        let mut node = self;
        for segment in path.split("__") {
            node = node.child(segment, mark)?;
        }
        if matches!(node.value, Value::Map(_) | Value::List(_)) {
            return Err(
                "names a section or a list; only single values can be overridden, name a key below it"
                    .to_owned(),
            );
        }
        node.mark = mark.clone();
        node.value = Value::Untyped(value.to_owned());
        Ok(())
    }

    /// The node below by key or index; a key that is not there yet is made.
    fn child(&mut self, segment: &str, mark: &Mark) -> Result<&mut Self, String> {
        if segment.is_empty() {
            return Err("has an empty part; write SCOREGATE__SECTION__KEY".to_owned());
        }
        if matches!(self.value, Value::Null) {
            self.value = Value::Map(Vec::new());
        }
        match &mut self.value {
            Value::Map(entries) => {
                let known = entries.iter().position(|entry| entry.key.eq_ignore_ascii_case(segment));
                let position = known.unwrap_or_else(|| {
                    entries.push(Entry {
                        key: segment.to_ascii_lowercase(),
                        key_id: PlaceId::NONE,
                        key_mark: mark.clone(),
                        value: Self { id: PlaceId::NONE, mark: mark.clone(), value: Value::Null },
                    });
                    entries.len() - 1
                });
                Ok(&mut entries[position].value)
            }
            Value::List(items) => {
                let length = items.len();
                segment.parse().ok().and_then(|index: usize| items.get_mut(index)).ok_or_else(|| {
                    format!("'{segment}' is no item of the list, which has {length}; count from 0")
                })
            }
            _ => Err(format!("'{segment}' is below a single value; name the value itself")),
        }
    }

    /// Gives every node and key a place.
    fn number(&mut self, path: String, places: &mut Vec<Place>) {
        match &mut self.value {
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.number(format!("{path}[{index}]"), places);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let below =
                        if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                    entry.key_id = add(places, &entry.key_mark, below.clone());
                    entry.value.number(below, places);
                }
            }
            _ => {}
        }
        self.id = add(places, &self.mark, path);
    }

    /// Of several entries of one key the first stays.
    fn refuse_duplicate_keys(&mut self, report: &mut Report) {
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.refuse_duplicate_keys(report)),
            Value::Map(entries) => {
                let mut seen: BTreeMap<String, PlaceId> = BTreeMap::new();
                entries.retain(|entry| match seen.get(&entry.key) {
                    Some(first) => {
                        let first = report.position(*first);
                        report.error(
                            entry.key_id,
                            format!("this key stands at {first} already; remove one of them"),
                        );
                        false
                    }
                    None => {
                        seen.insert(entry.key.clone(), entry.key_id);
                        true
                    }
                });
                entries.iter_mut().for_each(|entry| entry.value.refuse_duplicate_keys(report));
            }
            _ => {}
        }
    }
}

fn add(places: &mut Vec<Place>, mark: &Mark, path: String) -> PlaceId {
    // The parser's budget keeps documents far below this many nodes.
    let id = PlaceId(u32::try_from(places.len()).unwrap_or(u32::MAX));
    places.push(Place { mark: mark.clone(), path });
    id
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { id: PlaceId::NONE, mark: Mark::of(&spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Integer(value.try_into().unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push(Entry {
                key_mark: Mark::of(&key.referenced),
                key: key.value,
                key_id: PlaceId::NONE,
                value: map.next_value()?,
            });
        }
        Ok(Value::Map(entries))
    }
}
