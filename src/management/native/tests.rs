//! The table of routes and its document agree, with each other and with what OpenAPI wants.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_names_every_route_once_and_nothing_that_is_not_there() {
    let table = table();
    let document = openapi::document(&table);
    let ids: BTreeSet<_> = table.iter().map(|route| route.id).collect();
    assert_eq!(ids.len(), table.len(), "an operation id is there twice");
    let operations: usize =
        document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(operations, table.len());
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
}

#[test]
fn every_route_says_what_it_does_and_how_it_ends_well() {
    for route in table() {
        assert!(route.path.starts_with("/v1/"), "{}", route.path);
        assert!(!route.summary.is_empty() && !route.answers.is_empty(), "{}", route.id);
        assert!(route.answers.iter().all(|(status, _)| (200..300).contains(status)), "{}", route.id);
    }
}
