//! The structure of the code, kept by a test: who may name whom, module docs, no fixed ports, sizes.

use std::fs;
use std::path::{Path, PathBuf};

/// For each place, what it must not name (src/ARCHITECTURE.md).
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "error.rs",
        &[
            "catalog",
            "wire",
            "listener",
            "tls",
            "proxy",
            "auth",
            "limit",
            "route",
            "upstream",
            "telemetry",
            "store",
            "management",
            "control",
            "app",
            "cli",
        ],
    ),
    (
        "catalog",
        &[
            "error",
            "wire",
            "listener",
            "tls",
            "proxy",
            "auth",
            "limit",
            "route",
            "upstream",
            "telemetry",
            "store",
            "management",
            "control",
            "app",
            "cli",
        ],
    ),
    (
        "store",
        &[
            "wire",
            "listener",
            "tls",
            "proxy",
            "auth",
            "limit",
            "route",
            "upstream",
            "telemetry",
            "lifecycle",
            "management",
            "control",
            "app",
            "cli",
        ],
    ),
    (
        "wire",
        &[
            "listener",
            "tls",
            "proxy",
            "auth",
            "limit",
            "route",
            "upstream",
            "telemetry",
            "store",
            "management",
            "control",
            "app",
            "cli",
        ],
    ),
    (
        "tls",
        &[
            "listener",
            "proxy",
            "auth",
            "limit",
            "route",
            "upstream",
            "store",
            "management",
            "control",
            "app",
            "cli",
        ],
    ),
    (
        "auth",
        &["listener", "proxy", "limit", "route", "upstream", "store", "management", "control", "app", "cli"],
    ),
    ("limit", &["listener", "proxy", "auth", "route", "store", "management", "control", "app", "cli"]),
    (
        "route",
        &["listener", "proxy", "auth", "limit", "upstream", "store", "management", "control", "app", "cli"],
    ),
    (
        "upstream",
        &["listener", "proxy", "auth", "limit", "route", "store", "management", "control", "app", "cli"],
    ),
    (
        "telemetry",
        &[
            "listener",
            "proxy",
            "auth",
            "limit",
            "route",
            "upstream",
            "store",
            "management",
            "control",
            "app",
            "cli",
        ],
    ),
    ("listener", &["auth", "limit", "route", "upstream", "store", "management", "control", "app", "cli"]),
    ("proxy", &["store", "management", "control", "app", "cli"]),
    // The configuration reads the settings of the store; it never opens one.
    ("control", &["management", "app", "cli"]),
    ("app.rs", &["cli"]),
];

/// Lines of code in one file, tests at its end apart.
const MOST_LINES: usize = 450;

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The file without its tests.
    fn code(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod ").next().unwrap()
    }

    fn is_test(&self) -> bool {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        in_src(&self.path).contains("/tests/")
            || ["tests.rs", "fixtures.rs", "fit.rs", "issuer.rs"].contains(&name)
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(), &mut found);
    assert!(found.len() > 50, "the sources have moved");
    found
}

fn collect(dir: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path, text });
        }
    }
}

fn in_src(path: &Path) -> String {
    path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().display().to_string()
}

#[test]
fn no_module_names_what_it_must_not_know() {
    let mut wrong = Vec::new();
    for source in sources() {
        let path = in_src(&source.path);
        let place =
            FORBIDDEN.iter().find(|(place, _)| path == *place || path.starts_with(&format!("{place}/")));
        let Some((_, forbidden)) = place else { continue };
        for (number, line) in source.code().lines().enumerate() {
            let line = line.split("//").next().unwrap();
            let names = |module: &&&str| {
                line.contains(&format!("crate::{module}::")) || line.contains(&format!("crate::{module};"))
            };
            if let Some(module) = forbidden.iter().find(names) {
                wrong.push(format!("{path}:{}: names {module}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!") && !source.text.starts_with("#![doc"))
        .map(|source| in_src(&source.path))
        .collect();
    assert!(silent.is_empty(), "no module docs: {silent:?}");
}

#[test]
fn no_file_has_grown_past_reading() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.is_test() && source.code().lines().count() > MOST_LINES)
        .map(|source| format!("{} ({} lines)", in_src(&source.path), source.code().lines().count()))
        .collect();
    assert!(long.is_empty(), "split along meaning: {long:?}");
}

#[test]
fn tests_bind_no_fixed_port() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut files = Vec::new();
    collect(&dir, &mut files);
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let fixed = line.split("127.0.0.1:").skip(1).any(|rest| {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                !port.is_empty() && port != "0" && line.contains("bind")
            });
            assert!(!fixed, "{}:{}: a fixed port", file.path.display(), number + 1);
        }
    }
}

#[test]
fn tasks_are_spawned_by_lifecycle_alone() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|source| !source.is_test()) {
        let path = in_src(&source.path);
        let spawns = |line: &&str| {
            ["tokio::spawn(", "task::spawn(", "task::spawn_local("].iter().any(|call| line.contains(call))
        };
        if path != "lifecycle.rs" && source.code().lines().any(|line| spawns(&line)) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "spawn through lifecycle: {wrong:?}");
}

#[test]
fn metric_names_used_under_deploy_exist() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![fs::read_to_string(dir.join("README.md")).unwrap_or_default()];
    texts.push(fs::read_to_string(dir.join("src/ARCHITECTURE.md")).unwrap());
    let mut pending = vec![dir.join("deploy")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                texts.push(text);
            }
        }
    }
    let mut unknown = Vec::new();
    for text in &texts {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let ends = [
                "_total",
                "_seconds",
                "_bytes",
                "_bucket",
                "_count",
                "_sum",
                "_queued",
                "_in_flight",
                "_generation",
            ];
            if word.starts_with("scoregate_") && ends.iter().any(|end| word.ends_with(end)) {
                let base = ["_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|end| word.strip_suffix(end))
                    .unwrap_or(word);
                let known = scoregate::telemetry::metrics::NAMES;
                if !known.contains(&word) && !known.contains(&base) {
                    unknown.push(word.to_owned());
                }
            }
        }
    }
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
}
