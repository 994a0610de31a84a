//! `scoregate records`: looks at the records of calls, in the file on this machine or through the management API.

mod stats;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::manage::{Column, Format, Output, Target};
use crate::error::Reason;
use crate::telemetry::reader::{RecordFilter, RecordLog, StatusFilter};
use stats::Stats;

/// Between two questions for new records to a running gateway.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks for new records in a file.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// What to do with records.
#[derive(Debug, Subcommand)]
pub(super) enum RecordsCommand {
    /// Records, newest first
    Query {
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// The newest records, and then each one as it comes, until interrupted
    Tail {
        #[command(flatten)]
        which: Which,
        /// Begin with so many that are there already
        #[arg(long, short = 'n', default_value_t = 10)]
        lines: usize,
    },
    /// What became of them, by where they go: accepted, delivered, spooled and dropped
    Stats(Stats),
}

/// Which records, and where they are.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Record file on this machine (telemetry.records.file) [default: ask the running gateway]
    #[arg(long, value_name = "PATH")]
    pub(super) file: Option<PathBuf>,
    /// Of this service
    #[arg(long, value_name = "NAME")]
    pub(super) service: Option<String>,
    /// With this status, such as 503, or one of a class, such as 5xx
    #[arg(long, value_parser = status)]
    pub(super) status: Option<String>,
    /// With this reason, such as `queue_full`
    #[arg(long, value_parser = reason)]
    pub(super) reason: Option<String>,
    /// Of this request
    #[arg(long, value_name = "ID")]
    pub(super) request_id: Option<String>,
    /// Begun not before, such as 2026-11-24T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(super) from: Option<OffsetDateTime>,
    /// Begun before
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(super) to: Option<OffsetDateTime>,
    /// Of the whole gateway instead of the workspace
    #[arg(long, conflicts_with = "file")]
    pub(super) gateway: bool,
}

const COLUMNS: &[Column] = &[
    ("TIME", "/Time"),
    ("STATUS", "/StatusCode"),
    ("REASON", "/Reason"),
    ("SERVICE", "/Service"),
    ("DEPLOYMENT", "/Deployment"),
    ("MS", "/Duration"),
    ("METHOD", "/HTTPMethod"),
    ("URL", "/RequestUrl"),
    ("REQUEST", "/RequestId"),
];

/// Does it.
///
/// # Errors
/// The file cannot be read, or the API refuses.
pub(super) fn run(
    command: &RecordsCommand,
    target: &Target,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    match command {
        RecordsCommand::Query { which, limit } => {
            let records = match &which.file {
                Some(path) => newest(&RecordLog::new(path), &which.filter(), *limit)?,
                None => target.session(out)?.records(which, *limit)?,
            };
            Output::new(target.format(), out).list(&records, COLUMNS)?;
            Ok(ExitCode::SUCCESS)
        }
        RecordsCommand::Tail { which, lines } => match &which.file {
            Some(path) => follow(&RecordLog::new(path), &which.filter(), *lines, target.format(), out),
            None => {
                let mut new = target.session(&mut *out)?.follow_records(which, *lines)?;
                loop {
                    show_each(&new.next()?, target.format(), out)?;
                    std::thread::sleep(ASK_INTERVAL);
                }
            }
        },
        RecordsCommand::Stats(stats) => stats.run(target, out),
    }
}

impl Which {
    fn filter(&self) -> RecordFilter {
        RecordFilter {
            service: self.service.clone(),
            status: self.status.as_deref().and_then(StatusFilter::parse),
            reason: self.reason.as_deref().and_then(Reason::parse),
            request_id: self.request_id.clone(),
            from: self.from,
            to: self.to,
        }
    }
}

/// Up to `limit` records of a file, newest first.
fn newest(log: &RecordLog, filter: &RecordFilter, limit: usize) -> anyhow::Result<Vec<Value>> {
    let mut records = Vec::new();
    let mut after = None;
    while records.len() < limit {
        let page = log.page(filter, |_| true, limit - records.len(), after);
        let page = page.with_context(|| log.path().display().to_string())?;
        records.extend(page.records);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(records)
}

fn follow(
    log: &RecordLog,
    filter: &RecordFilter,
    lines: usize,
    format: Format,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    // Opened before what is there is read: a record that comes between the two is shown twice rather than never.
    let mut follower = log.follow().with_context(|| log.path().display().to_string())?;
    let mut records = newest(log, filter, lines)?;
    records.reverse();
    loop {
        show_each(&records, format, out)?;
        std::thread::sleep(LOOK_INTERVAL);
        records = follower.look(filter).with_context(|| log.path().display().to_string())?;
    }
}

/// One line per record, at once.
fn show_each(records: &[Value], format: Format, out: &mut dyn Write) -> anyhow::Result<()> {
    for record in records {
        match format {
            Format::Json => writeln!(out, "{record}")?,
            Format::Table => writeln!(out, "{}", line(record))?,
        }
    }
    Ok(out.flush()?)
}

fn line(record: &Value) -> String {
    let cells = COLUMNS.iter().map(|(_, place)| super::manage::cell(record.pointer(place)));
    cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect::<Vec<_>>().join("  ")
}

fn status(text: &str) -> Result<String, String> {
    match StatusFilter::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("neither a status such as 503 nor a class such as 5xx".to_owned()),
    }
}

fn reason(text: &str) -> Result<String, String> {
    match Reason::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("not one of {}", Reason::ALL.map(Reason::as_str).join(", "))),
    }
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("not as RFC 3339 writes a time: {error}"))
}
