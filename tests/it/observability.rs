//! deploy/observability names only what the gateway gives out: every metric, label and reason in the dashboard, the alerts and
//! their tests. (That real Prometheus takes and answers them is tested in tests/real.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use scoregate::error::Reason;
use scoregate::telemetry::metrics::LABELS;
use serde_json::Value;

/// What Prometheus itself adds to each series.
const OF_THE_TARGET: [&str; 2] = ["instance", "job"];

/// Words of PromQL that are followed by labels in brackets.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words of PromQL that stand where a metric could.
const OPERATORS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "inf"];

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '$');
        let length = match first {
            '"' => 2 + rest[1..].find('"').unwrap_or_else(|| panic!("an open string in {query}")),
            first if in_word(first) => rest.find(|c| !in_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(match first {
            '"' => Token::Text(token[1..length - 1].to_owned()),
            first if in_word(first) => Token::Word(token.to_owned()),
            _ => Token::Sign(first),
        });
        rest = after.trim_start();
    }
    tokens
}

/// The labels of a series by its name, as `_bucket`, `_sum` and `_count` too.
fn labels_of(series: &str) -> Option<BTreeSet<&'static str>> {
    let own = if series == "up" { Some(&[][..]) } else { None };
    let of_family = |name: &str| LABELS.iter().find(|(family, _)| *family == name).map(|(_, labels)| *labels);
    let mut labels: BTreeSet<_> =
        own.or_else(|| of_family(series)).unwrap_or_default().iter().copied().collect();
    if own.is_none() && of_family(series).is_none() {
        let ends = ["_bucket", "_sum", "_count"];
        let histogram =
            ends.iter().find_map(|end| series.strip_suffix(end)).filter(|it| it.ends_with("_seconds"));
        labels.extend(of_family(histogram?)?);
        labels.extend(series.ends_with("_bucket").then_some("le"));
    }
    labels.extend(OF_THE_TARGET);
    Some(labels)
}

/// Fails unless `query` names only what there is; gives the metrics it names.
fn check(query: &str) -> BTreeSet<String> {
    let tokens = tokens(query);
    let mut metrics = BTreeSet::new();
    let (mut known, mut grouped) = (BTreeSet::new(), BTreeSet::new());
    let mut place = 0;
    while place < tokens.len() {
        let next = tokens.get(place + 1);
        match &tokens[place] {
            Token::Word(word) if BEFORE_LABELS.contains(&word.as_str()) => {
                while tokens[place] != Token::Sign(')') {
                    place += 1;
                    if let Token::Word(label) = &tokens[place] {
                        grouped.insert(label.clone());
                    }
                }
            }
            Token::Word(word)
                if word.starts_with(|c: char| c.is_ascii_lowercase())
                    && next != Some(&Token::Sign('('))
                    && !OPERATORS.contains(&word.as_str())
                    // An aggregation whose labels stand before its brackets.
                    && !matches!(next, Some(Token::Word(word)) if BEFORE_LABELS.contains(&word.as_str())) =>
            {
                let labels = labels_of(word).unwrap_or_else(|| panic!("there is no metric {word}: {query}"));
                metrics.insert(word.clone());
                if next == Some(&Token::Sign('{')) {
                    place = selected(query, &tokens, place + 2, &labels);
                }
                known.extend(labels);
            }
            Token::Sign('[') => {
                while tokens[place] != Token::Sign(']') {
                    place += 1;
                }
            }
            _ => {}
        }
        place += 1;
    }
    for label in grouped {
        assert!(known.contains(label.as_str()), "no metric has a label {label}: {query}");
    }
    metrics
}

/// Checks the labels in braces from `place` on; returns the place of the closing one.
fn selected(query: &str, tokens: &[Token], mut place: usize, labels: &BTreeSet<&str>) -> usize {
    let mut label = "";
    while tokens[place] != Token::Sign('}') {
        match &tokens[place] {
            Token::Word(word) => {
                assert!(labels.contains(word.as_str()), "the metric has no label {word}: {query}");
                label = word;
            }
            Token::Text(values) if label == "reason" && query.contains("scoregate_requests_total") => {
                for value in values.split('|').filter(|_| !query.contains("malformed")) {
                    let known = Reason::ALL.iter().any(|reason| reason.as_str() == value);
                    assert!(known, "there is no reason {value}: {query}");
                }
            }
            _ => {}
        }
        place += 1;
    }
    place
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observability").join(file)).unwrap()
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&read(file)).unwrap()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_else(|| panic!("no list {field} in {value}"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}"))
}

#[test]
#[should_panic(expected = "there is no metric scoregate_made_up_total")]
fn a_metric_that_is_made_up_does_not_pass() {
    check(r#"sum by (service) (rate(scoregate_made_up_total{service="a"}[5m]))"#);
}

#[test]
fn labels_and_reasons_that_are_made_up_do_not_pass() {
    for bad in [
        r#"scoregate_requests_total{services="a"}"#,
        r#"sum by (exporter) (rate(scoregate_requests_total[5m])) > 0"#,
        r#"scoregate_requests_total{reason=~"ok|made_up"}"#,
        "scoregate_requests_total_bucket",
        "scoregate_request_duration_seconds_count{le=\"1\"}",
    ] {
        assert!(std::panic::catch_unwind(|| check(bad)).is_err(), "{bad}");
    }
    let good = r#"histogram_quantile(0.99, sum by (service, le) (rate(scoregate_request_duration_seconds_bucket{service="a"}[1m])))"#;
    assert_eq!(check(good), BTreeSet::from(["scoregate_request_duration_seconds_bucket".to_owned()]));
}

#[test]
fn the_dashboard_asks_only_for_what_there_is_and_shows_all_there_is() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let mut asked = BTreeSet::new();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice: {panel}");
        let at = &panel["gridPos"];
        assert!(places.insert((at["y"].as_u64(), at["x"].as_u64())), "two panels at one place: {panel}");
        assert!(at["x"].as_u64().unwrap() + at["w"].as_u64().unwrap() <= 24, "too wide: {panel}");
        if panel["type"] == "row" {
            continue;
        }
        for target in list(panel, "targets") {
            asked.append(&mut check(text(target, "expr")));
        }
    }
    for annotation in list(&dashboard["annotations"], "list") {
        asked.append(&mut check(text(annotation, "expr")));
    }
    for variable in list(&dashboard["templating"], "list") {
        let Some(query) = variable["definition"].as_str() else { continue };
        let of = query.strip_prefix("label_values(").and_then(|query| query.strip_suffix(')')).unwrap();
        let (series, label) = of.rsplit_once(", ").unwrap();
        for metric in check(series) {
            assert!(labels_of(&metric).unwrap().contains(label), "{query}");
        }
    }
    // What the dashboard has no room for: numbers of labels, and what others tell as well.
    let elsewhere = [
        "scoregate_config_generation",
        "scoregate_config_info",
        "scoregate_jwks_keys",
        "scoregate_rate_limit_principals",
    ];
    let shown = |family: &str| {
        asked.iter().any(|name| name == family || name.strip_suffix("_bucket") == Some(family))
    };
    let missing: Vec<_> = LABELS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !shown(name) && !elsewhere.contains(name))
        .collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
}

#[test]
fn each_alert_asks_only_for_what_there_is_says_what_to_do_and_is_tested() {
    let mut alerts = BTreeMap::new();
    for group in list(&yaml("rules.yaml"), "groups") {
        for rule in list(group, "rules") {
            let name = text(rule, "alert");
            let metrics = check(text(rule, "expr"));
            assert!(["critical", "warning"].contains(&text(&rule["labels"], "severity")), "{name}");
            assert!(text(&rule["annotations"], "summary").contains("{{ $"), "{name} does not say whose");
            assert!(text(&rule["annotations"], "runbook").len() > 60, "{name} does not say what to do");
            assert!(alerts.insert(name.to_owned(), metrics).is_none(), "{name} twice");
        }
    }
    let tests = yaml("rules_test.yaml");
    let mut fired = BTreeSet::new();
    for test in list(&tests, "tests") {
        for series in list(test, "input_series") {
            check(text(series, "series"));
        }
        for query in list(test, "promql_expr_test") {
            let samples = list(query, "exp_samples").iter().map(|sample| text(sample, "labels"));
            fired.extend(samples.map(|labels| labels.split('"').nth(1).unwrap().to_owned()));
        }
    }
    assert_eq!(fired, alerts.into_keys().collect(), "alerts that no test has fire");
}

#[test]
fn what_the_readme_says_of_metrics_is_all_of_them() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("## Every metric").unwrap();
    let listed: BTreeSet<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(|series| series.split('{').next().unwrap())
        .collect();
    let families: BTreeSet<_> = LABELS.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, families);
    for (name, labels) in LABELS {
        let with_labels = format!("| `{name}{}`", braces(labels));
        assert!(
            readme.contains(&with_labels),
            "deploy/observability/README.md has other labels than {with_labels}"
        );
    }
}

fn braces(labels: &[&str]) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(", ")) }
}
