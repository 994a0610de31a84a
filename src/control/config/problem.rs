//! What is wrong with a configuration and where: collected over the whole load, reported together.

use std::collections::HashSet;
use std::fmt;

use super::document::{Mark, Place, PlaceId};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It works, but perhaps not as meant.
    Warning,
}

/// One thing that is wrong, with its place. Displays as `FILE:LINE:COLUMN: FIELD: MESSAGE` (a warning as
/// `FILE:LINE:COLUMN: warning: FIELD: MESSAGE`), or as `$VARIABLE: FIELD: MESSAGE` for an environment override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as the user named it, `-` for standard input, `$NAME` for an environment variable.
    pub file: String,
    /// From 1; 0 where there is no line (the file cannot be read, or it is a variable).
    pub line: u32,
    /// In characters, from 1; 0 where there is no line.
    pub column: u32,
    /// Path of the field, such as `services[0].limits.body_bytes`; empty for the whole.
    pub field: String,
    /// What is wrong and how to fix it. Never a secret.
    pub message: String,
    /// Whether the configuration is refused for it.
    pub severity: Severity,
}

/// All that is wrong with a refused configuration, in the order of the file; warnings are among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// Collects problems during one load and knows where each node of the document stands.
pub(super) struct Report {
    file: String,
    places: Vec<Place>,
    /// Paths already refused: what is missing below or instead of them is no further problem.
    refused: HashSet<String>,
    problems: Vec<Problem>,
}

impl Problems {
    /// Whether the certificate or key of a listener or of the management plane is to blame.
    #[must_use]
    pub fn concern_certificates(&self) -> bool {
        let is_certificate = |problem: &Problem| {
            problem.severity == Severity::Error
                && ["listeners", "management"].iter().any(|place| problem.field.starts_with(place))
                && problem.field.contains(".tls")
        };
        self.0.iter().any(is_certificate)
    }
}

impl Problem {
    /// An error of the file as a whole, or at a place that is no node of the document.
    pub(super) fn of_file(file: &str, position: (u32, u32), message: String) -> Self {
        Self {
            file: file.to_owned(),
            line: position.0,
            column: position.1,
            field: String::new(),
            message,
            severity: Severity::Error,
        }
    }
}

impl Report {
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), places: Vec::new(), refused: HashSet::new(), problems: Vec::new() }
    }

    /// Makes the places of a document known; before that, nothing can be reported by place.
    pub fn set_places(&mut self, places: Vec<Place>) {
        self.places = places;
    }

    /// An error in the value at `at`.
    pub fn error(&mut self, at: PlaceId, message: impl Into<String>) {
        self.add(at, None, message.into(), Severity::Error);
    }

    /// A warning about the value at `at`.
    pub fn warning(&mut self, at: PlaceId, message: impl Into<String>) {
        self.add(at, None, message.into(), Severity::Warning);
    }

    /// An error about the field `name` of the section at `section`, which the section does not have.
    pub fn missing(&mut self, section: PlaceId, name: &str, message: impl Into<String>) {
        self.add(section, Some(name), message.into(), Severity::Error);
    }

    /// A warning about the field `name` of the section at `section`.
    pub fn missing_warning(&mut self, section: PlaceId, name: &str, message: impl Into<String>) {
        self.add(section, Some(name), message.into(), Severity::Warning);
    }

    /// An error that makes the node at `at` unreadable: from here on the node counts as absent, and nothing more is said
    /// about its absence.
    pub fn refuse(&mut self, at: PlaceId, message: impl Into<String>) {
        self.error(at, message);
        if let Some(place) = self.places.get(at.index()) {
            self.refused.insert(place.path.clone());
        }
    }

    /// An error without a place in the document.
    pub fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// `FILE:LINE:COLUMN` of a place, to point from one problem to another.
    pub fn position(&self, at: PlaceId) -> String {
        match self.places.get(at.index()).map(|place| &place.mark) {
            Some(Mark::File { line, column }) => format!("{}:{line}:{column}", self.file),
            Some(Mark::Variable(name)) => format!("${name}"),
            None => self.file.clone(),
        }
    }

    /// Path of a place, to point from one problem to another.
    pub fn path(&self, at: PlaceId) -> &str {
        self.places.get(at.index()).map_or("", |place| place.path.as_str())
    }

    /// Everything reported, in the order of the file.
    pub fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    /// Whether the field `name` of the section at `section` is there, but refused: nothing follows from its absence.
    pub fn is_lost(&self, section: PlaceId, name: &str) -> bool {
        self.is_refused(&self.field(section, Some(name)))
    }

    fn field(&self, at: PlaceId, below: Option<&str>) -> String {
        match (self.path(at), below) {
            (path, None) => path.to_owned(),
            ("", Some(name)) => name.to_owned(),
            (path, Some(name)) => format!("{path}.{name}"),
        }
    }

    fn add(&mut self, at: PlaceId, below: Option<&str>, message: String, severity: Severity) {
        let field = self.field(at, below);
        if self.is_refused(&field) {
            return;
        }
        let (file, line, column) = match self.places.get(at.index()).map(|place| &place.mark) {
            Some(Mark::File { line, column }) => (self.file.clone(), *line, *column),
            Some(Mark::Variable(name)) => (format!("${name}"), 0, 0),
            None => (self.file.clone(), 0, 0),
        };
        self.problems.push(Problem { file, line, column, field, message, severity });
    }

    /// Whether `field` or a section around it is refused already.
    fn is_refused(&self, field: &str) -> bool {
        let around =
            field.char_indices().filter(|(_, c)| matches!(c, '.' | '[')).map(|(end, _)| &field[..end]);
        !self.refused.is_empty() && around.chain([field, ""]).any(|path| self.refused.contains(path))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str(": warning")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
