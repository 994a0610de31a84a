//! What the gateway tells about itself: one record per call, metrics, and where they go.
//!
//! [`Telemetry::start`] starts the writer thread and the exporters; each worker thread leaves its
//! [`Record`](record::Record)s in a [`WorkerSink`] made of [`Telemetry::sink`]. A record is encoded once, as the line of the
//! record file: exporters get that line out of their [`spool`] and nothing else. [`Metrics`] are counted in place and read
//! by `/metrics`.

mod collect;
mod counter;
mod encode;
mod export;
pub mod metrics;
pub mod reader;
pub mod record;
mod settings;
mod sink;
pub mod spool;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{fmt, io};

pub use collect::{Collector, CollectorSettings, Payload, Sample, Ticket};
pub use export::insights::{ConnectionError, ConnectionString};
pub use metrics::{InFlight, InTunnel, Metrics, ServiceMetrics};
pub use settings::{InsightsSettings, Privacy, SpoolMode, SpoolSettings, TelemetrySettings};
pub use sink::{FLUSH_INTERVAL, RecordCounts, RecordSink, WorkerSink};

use collect::Collection;
use export::{Exporters, Output, Queue, Writer};
use sink::Destination;
use spool::SpoolError;

/// The running telemetry: owns the thread that writes records. Dropped without [`shutdown`](Self::shutdown), it lets that
/// thread finish by itself.
pub struct Telemetry {
    sink: RecordSink,
    /// Closes when the writer thread has ended.
    writer: Option<Receiver<()>>,
    exporters: Exporters,
    /// Of inputs and outputs.
    collection: Option<Collection>,
}

impl Telemetry {
    /// Opens what the settings name and starts the writer thread and the exporters, which are tasks of the runtime that
    /// this is called on; with no file, standard output or exporter there is none, and records count as written. What
    /// becomes of records shows in `metrics`.
    ///
    /// # Errors
    /// The record file, standard output or a spool cannot be opened, or there is no thread to be had.
    pub fn start(settings: &TelemetrySettings, metrics: &Metrics) -> Result<Self, StartError> {
        let outputs = outputs(settings)?;
        let exporters = Exporters::start(settings, metrics)?;
        let collection = settings.collector.as_ref().map(collection).transpose()?;
        let started = Self::with_outputs(outputs, exporters, settings.privacy, metrics.records());
        let mut telemetry = started.map_err(StartError::Thread)?;
        telemetry.collection = collection;
        Ok(telemetry)
    }

    fn with_outputs(
        outputs: Vec<Output>,
        exporters: Exporters,
        privacy: Privacy,
        counts: Arc<RecordCounts>,
    ) -> io::Result<Self> {
        let spools = exporters.spools();
        if outputs.is_empty() && spools.is_empty() {
            let to = Destination::Nowhere;
            let sink = RecordSink { to, privacy, counts };
            return Ok(Self { sink, writer: None, exporters, collection: None });
        }
        let queue = Arc::new(Queue::new());
        let writer = Writer { queue: Arc::clone(&queue), counts: Arc::clone(&counts), outputs, spools };
        let (ended, writer_ended) = channel();
        std::thread::Builder::new().name("records".to_owned()).spawn(move || {
            let _ended: std::sync::mpsc::Sender<()> = ended;
            writer.run();
        })?;
        let to = Destination::Writer(queue);
        Ok(Self {
            sink: RecordSink { to, privacy, counts },
            writer: Some(writer_ended),
            exporters,
            collection: None,
        })
    }

    /// Where workers leave their records.
    #[must_use]
    pub fn sink(&self) -> RecordSink {
        self.sink.clone()
    }

    /// Where inputs and outputs of calls are collected; `None`: they are not.
    #[must_use]
    pub fn collector(&self) -> Option<Collector> {
        self.collection.as_ref().map(Collection::collector)
    }

    /// Opens the record file anew (SIGUSR1, after a rotation), once all that is queued is written to the old one. Does not
    /// wait for it. If it cannot be opened, the log says so and the old one stays in use.
    pub fn reopen(&self) {
        if let Destination::Writer(queue) = &self.sink.to {
            queue.push_reopen();
        }
    }

    /// Writes all that was handed over and makes it durable, and lets the exporters deliver what they can; blocks up to
    /// `within`. To be called when the workers have ended: what they hand over from now on is dropped, and counted. What
    /// exporters have not delivered stays in their spools for the next process, but for those in memory.
    ///
    /// # Errors
    /// The writing took longer. What is still queued is dropped, and counted.
    pub fn shutdown(mut self, within: Duration) -> Result<(), Unfinished> {
        let deadline = Instant::now() + within;
        let written = self.finish_writing(within);
        let left = deadline.saturating_duration_since(Instant::now());
        if let Some(Err(unfinished)) =
            self.collection.take().map(|it| it.finish(left.min(COLLECTION_PATIENCE)))
        {
            tracing::error!(%unfinished, "the end of the collection failed");
        }
        self.exporters.finish(deadline.saturating_duration_since(Instant::now()));
        written
    }

    fn finish_writing(&mut self, within: Duration) -> Result<(), Unfinished> {
        let (Some(writer), Destination::Writer(queue)) = (self.writer.take(), &self.sink.to) else {
            return Ok(());
        };
        queue.close();
        let in_time = writer.recv_timeout(within) != Err(RecvTimeoutError::Timeout);
        let records = self.sink.counts.queued_now();
        self.sink.counts.dropped(queue.abandon());
        if in_time && records == 0 { Ok(()) } else { Err(Unfinished { records }) }
    }
}

/// Longest wait for collected inputs and outputs: exporters need the rest of the time.
const COLLECTION_PATIENCE: Duration = Duration::from_secs(1);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Destination::Writer(queue) = &self.sink.to {
            queue.close();
        }
    }
}

fn collection(settings: &CollectorSettings) -> Result<Collection, StartError> {
    let failed = |error| StartError::Collector { path: settings.path.clone(), error };
    Collection::start(settings).map_err(failed)
}

fn outputs(settings: &TelemetrySettings) -> Result<Vec<Output>, StartError> {
    let mut outputs = Vec::new();
    if let Some(path) = &settings.record_file {
        let file = Output::file(path).map_err(|error| StartError::File { path: path.clone(), error })?;
        outputs.push(file);
    }
    if settings.record_stdout {
        outputs.push(Output::stdout().map_err(StartError::Stdout)?);
    }
    Ok(outputs)
}

/// Records cannot be written from the start.
#[derive(Debug)]
pub enum StartError {
    /// The record file cannot be opened for appending.
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Standard output cannot be used.
    Stdout(io::Error),
    /// The spool of an exporter cannot be opened.
    Spool {
        /// Name of the exporter, as in the configuration.
        exporter: &'static str,
        /// What is wrong.
        error: SpoolError,
    },
    /// The folder of collected inputs and outputs cannot be used.
    Collector {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No thread to write on.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => {
                let path = path.display();
                write!(f, "telemetry.records.file.path: {path} cannot be opened for appending: {error}")
            }
            Self::Stdout(error) => {
                write!(f, "telemetry.records.stdout: standard output cannot be used: {error}")
            }
            Self::Spool { exporter, error } => write!(f, "telemetry.{exporter}.spool.path: {error}"),
            Self::Collector { path, error } => {
                let path = path.display();
                write!(f, "telemetry.data_collection.path: {path} cannot be used: {error}")
            }
            Self::Thread(error) => write!(f, "no thread to write records on: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Not all records were on the disk in time.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Records not written when time was up; 0: only the last flush to the disk was missing.
    pub records: u64,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records were not written before the time was up", self.records)
    }
}

impl std::error::Error for Unfinished {}

#[cfg(test)]
mod tests {
    use super::record::Record;
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn start(path: &Path) -> Telemetry {
        let settings =
            TelemetrySettings { record_file: Some(path.to_owned()), ..TelemetrySettings::default() };
        Telemetry::start(&settings, &Metrics::new()).unwrap()
    }

    fn record_of(telemetry: &Telemetry, status: u16) {
        let record = Record { status, ..Record::sample() };
        telemetry.sink().worker().write(&record);
    }

    fn statuses(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["StatusCode"].as_u64().unwrap()
        });
        lines.collect()
    }

    #[test]
    fn after_a_rotation_and_a_reopen_records_go_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("records"), folder.path().join("old"));
        let telemetry = start(&path);
        record_of(&telemetry, 201);
        fs::rename(&path, &old).unwrap();
        record_of(&telemetry, 202);
        telemetry.reopen();
        record_of(&telemetry, 203);
        telemetry.shutdown(Duration::from_secs(60)).unwrap();
        assert_eq!(statuses(&old), [201, 202]);
        assert_eq!(statuses(&path), [203]);
        let others = fs::metadata(&path).unwrap().permissions().mode() & 0o037;
        assert_eq!(others, 0, "only the owner writes, others do not read");
    }

    #[test]
    fn a_reopen_that_fails_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("records"), folder.path().join("old"));
        let telemetry = start(&path);
        fs::rename(&path, &old).unwrap();
        fs::create_dir(&path).unwrap();
        telemetry.reopen();
        record_of(&telemetry, 201);
        telemetry.shutdown(Duration::from_secs(60)).unwrap();
        assert_eq!(statuses(&old), [201]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told_with_field_and_path() {
        let settings = TelemetrySettings {
            record_file: Some("/nonexistent/records".into()),
            ..TelemetrySettings::default()
        };
        let error = Telemetry::start(&settings, &Metrics::new()).err().unwrap().to_string();
        assert!(
            error.starts_with("telemetry.records.file.path: /nonexistent/records cannot be opened"),
            "{error}"
        );
    }
}
