//! What the gateway tells about itself: one record per call, metrics, and where they go.
//!
//! [`Telemetry::start`] starts the writer thread and the exporters; each worker thread leaves its
//! [`Record`](record::Record)s in a [`WorkerSink`] made of [`Telemetry::sink`]. A record is encoded once, as the line of the
//! record file: exporters get that line out of their [`spool`] and nothing else. [`Metrics`] are counted in place and read
//! by `/metrics`.

mod ahead;
mod collect;
mod counter;
mod disclosure;
mod encode;
mod export;
pub mod history;
pub mod metrics;
pub mod reader;
pub mod record;
mod settings;
mod sink;
pub mod spool;
pub mod trace;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{fmt, io};

pub use collect::{CollectionSettings, Payload, Sample, SampleSink, Ticket};
pub use disclosure::{Disclosure, MaskedNames};
pub use export::insights::{ConnectionError, ConnectionString};
pub use export::otlp::settings as otlp;
pub use metrics::{InFlight, InTunnel, Metrics, ServiceMetrics};
pub use settings::{
    Activity, InsightsSettings, Privacy, SpoolEncryption, SpoolMode, SpoolSettings, TelemetrySettings,
    WriteOrder,
};
pub use sink::{FLUSH_INTERVAL, RecordCounts, RecordSink, WorkerSink};

use crate::lifecycle;
use ahead::Ahead;
use collect::Collection;
use export::{Exporters, Output, Queue, Writer};
use sink::Destination;
use spool::{Spool, SpoolError, SpoolKey};

/// The running telemetry: owns the thread that writes records. Dropped without [`shutdown`](Self::shutdown), it lets that
/// thread finish by itself.
pub struct Telemetry {
    sink: RecordSink,
    /// Closes when the writer thread has ended.
    writer: Option<Receiver<()>>,
    exporters: Exporters,
    activity: Activity,
    /// Of inputs and outputs.
    collection: Option<Collection>,
}

/// The spool of an exporter, for events of the activity log. Any number of threads may use it.
#[derive(Clone)]
pub struct EventSpool(Arc<Spool>);

impl EventSpool {
    /// The sequence of the last event that it took, in this process or an earlier one; `None`: it never took one.
    #[must_use]
    pub fn reached(&self) -> Option<u64> {
        self.0.events_reached()
    }

    /// Takes events as lines of JSON, up to the one with the sequence `reached`; blocks on the disk. They count like
    /// records. A kill in the midst of it has the next process take them once more.
    pub fn append(&self, lines: &[u8], reached: u64) {
        self.0.append_events(lines, reached);
    }
}

impl Telemetry {
    /// Opens what the settings name and starts the writer thread and the exporters, which are tasks of the runtime that
    /// this is called on; with nothing for it to do there is no such thread. Without a file, standard output or exporter
    /// records count as written. What becomes of records shows in `metrics`. `key` is the gateway's key for spools, if it
    /// has one.
    ///
    /// # Errors
    /// The record file, standard output or a spool cannot be opened, or there is no thread to be had.
    pub fn start(
        settings: &TelemetrySettings,
        key: Option<&SpoolKey>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let outputs = outputs(settings)?;
        let exporters = Exporters::start(settings, key, metrics)?;
        let disclosure = Disclosure::new(settings.privacy, settings.masked.clone());
        let mut started = Self::with_outputs(outputs, exporters, disclosure, metrics.records())
            .map_err(StartError::Thread)?;
        started.activity = settings.activity;
        started.collection = settings.collection.as_ref().map(collection).transpose()?;
        if let Some(ahead) = started.sink.to.ahead() {
            lifecycle::spawn("records", ahead::sync_in_time(Arc::downgrade(ahead)));
        }
        Ok(started)
    }

    /// Where events of the activity log are to go; none if the configuration wants them nowhere, or has no exporter for them.
    #[must_use]
    pub fn event_spools(&self) -> Vec<EventSpool> {
        match self.activity {
            Activity::Exported => self.exporters.event_spools().map(EventSpool).collect(),
            Activity::Kept => Vec::new(),
        }
    }

    fn with_outputs(
        outputs: Outputs,
        exporters: Exporters,
        disclosure: Disclosure,
        counts: Arc<RecordCounts>,
    ) -> io::Result<Self> {
        let (outputs, outputs_ahead) = match outputs.order {
            WriteOrder::Behind => (outputs.all, Vec::new()),
            WriteOrder::Ahead => (Vec::new(), outputs.all),
        };
        let is_ahead = |spool: &Arc<Spool>| spool.mode() == SpoolMode::WriteAhead;
        let (spools_ahead, spools) = exporters.spools().into_iter().partition(is_ahead);
        let (queue, writer) = start_writer(outputs, spools, &counts)?.unzip();
        let to = match (Ahead::of(outputs_ahead, spools_ahead), queue) {
            (Some(ahead), rest) => Destination::Ahead { ahead, rest },
            (None, Some(queue)) => Destination::Writer(queue),
            (None, None) => Destination::Nowhere,
        };
        let sink = RecordSink { to, disclosure, counts };
        Ok(Self { sink, writer, exporters, activity: Activity::default(), collection: None })
    }

    /// Where workers leave their records.
    #[must_use]
    pub fn sink(&self) -> RecordSink {
        self.sink.clone()
    }

    /// What is told of calls.
    #[must_use]
    pub fn disclosure(&self) -> Disclosure {
        self.sink.disclosure.clone()
    }

    /// Where inputs and outputs of calls are collected; `None`: they are not.
    #[must_use]
    pub fn samples(&self) -> Option<SampleSink> {
        self.collection.as_ref().map(Collection::sink)
    }

    /// Opens the record file anew (SIGUSR1, after a rotation), once all that is queued is written to the old one. Does not
    /// wait for it. If it cannot be opened, the log says so and the old one stays in use. To be called on the runtime that
    /// the telemetry was started on.
    pub fn reopen(&self) {
        if let Some(queue) = self.sink.to.queue() {
            queue.push_reopen();
        }
        if let Some(ahead) = self.sink.to.ahead().cloned() {
            drop(tokio::task::spawn_blocking(move || ahead.reopen()));
        }
    }

    /// Writes all that was handed over and makes it durable, and lets the exporters deliver what they can; blocks up to
    /// `within`, and for the last sync of what is written ahead. To be called when the workers have ended: what they hand over from now on is dropped, and counted. What
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
        if let Some(ahead) = self.sink.to.ahead() {
            ahead.sync();
        }
        let (Some(writer), Some(queue)) = (self.writer.take(), self.sink.to.queue()) else {
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
        if let Some(queue) = self.sink.to.queue() {
            queue.close();
        }
    }
}

/// The queue, and what closes when the writer thread behind it has ended; `None`: there is nothing for it to do.
fn start_writer(
    outputs: Vec<Output>,
    spools: Vec<Arc<Spool>>,
    counts: &Arc<RecordCounts>,
) -> io::Result<Option<(Arc<Queue>, Receiver<()>)>> {
    if outputs.is_empty() && spools.is_empty() {
        return Ok(None);
    }
    let queue = Arc::new(Queue::new());
    let writer = Writer { queue: Arc::clone(&queue), counts: Arc::clone(counts), outputs, spools };
    let (ended, writer_ended) = channel();
    std::thread::Builder::new().name("records".to_owned()).spawn(move || {
        let _ended: std::sync::mpsc::Sender<()> = ended;
        writer.run();
    })?;
    Ok(Some((queue, writer_ended)))
}

/// The record file and standard output, as far as they are wanted.
struct Outputs {
    all: Vec<Output>,
    order: WriteOrder,
}

fn collection(settings: &CollectionSettings) -> Result<Collection, StartError> {
    let failed = |error| StartError::Collection { path: settings.path.clone(), error };
    Collection::start(settings).map_err(failed)
}

fn outputs(settings: &TelemetrySettings) -> Result<Outputs, StartError> {
    let mut outputs = Vec::new();
    if let Some(path) = &settings.record_file {
        let file = Output::file(path).map_err(|error| StartError::File { path: path.clone(), error })?;
        outputs.push(file);
    }
    if settings.record_stdout {
        outputs.push(Output::stdout().map_err(StartError::Stdout)?);
    }
    Ok(Outputs { all: outputs, order: settings.record_order })
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
    Collection {
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
            Self::Spool { exporter, error } => {
                // Spans and logs have spools of their own, in one section.
                let section = exporter.split_once('_').filter(|(first, _)| *first == "otlp");
                let section = section.map_or(*exporter, |(first, _)| first);
                write!(f, "telemetry.{section}.spool.path: {error}")
            }
            Self::Collection { path, error } => {
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
        Telemetry::start(&settings, None, &Metrics::new()).unwrap()
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

    #[tokio::test]
    async fn a_file_written_ahead_is_opened_anew_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("records"), folder.path().join("old"));
        let settings = TelemetrySettings {
            record_file: Some(path.clone()),
            record_order: WriteOrder::Ahead,
            ..TelemetrySettings::default()
        };
        let telemetry = Telemetry::start(&settings, None, &Metrics::new()).unwrap();
        record_of(&telemetry, 201);
        fs::rename(&path, &old).unwrap();
        telemetry.reopen();
        let patience = Instant::now() + Duration::from_secs(60);
        while !path.exists() && Instant::now() < patience {
            tokio::task::yield_now().await;
        }
        record_of(&telemetry, 202);
        assert_eq!((statuses(&old), statuses(&path)), (vec![201], vec![202]), "before any shutdown");
        telemetry.shutdown(Duration::from_secs(60)).unwrap();
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
        let error = Telemetry::start(&settings, None, &Metrics::new()).err().unwrap().to_string();
        assert!(
            error.starts_with("telemetry.records.file.path: /nonexistent/records cannot be opened"),
            "{error}"
        );
    }
}
