//! Data collection: copies of inputs and outputs of calls, as lines in files by service and day.
//!
//! It knows neither calls nor services: whoever has a call asks for a [`Ticket`], lets [`Payload`]s see what passes, and hands
//! over a [`Sample`]. All that is kept of calls under way and all that waits to be written shares one bound; what finds no
//! room in it is given up and counted. Lines are made and written on a thread of their own.

mod files;
mod line;
mod room;
mod sample;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{fmt, io};

use http::HeaderMap;
use time::{Date, OffsetDateTime};

pub use sample::{Payload, Sample, Ticket};

use super::metrics::{Collected, ServiceMetrics};
use files::Folder;
use room::Rooms;

/// Most memory for calls under way and samples that wait.
const MOST_BYTES: usize = 16 << 20;
/// Samples that are written together, so that those of one file come one after the other.
const MOST_TOGETHER: usize = 256;
/// Between two looks at what has become too old.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// Where collected data goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionSettings {
    /// Its folder, which is made if it is not there; each service has one of its own in it.
    pub path: PathBuf,
    /// Most bytes of all files, at least 16 MiB. The oldest are removed to keep it.
    pub size: u64,
    /// How long a file stays when its day is over.
    pub keep: Duration,
}

/// The way to the files; cheap to clone.
#[derive(Clone)]
pub struct SampleSink {
    jobs: Sender<Job>,
    rooms: Arc<Rooms>,
}

/// What the thread is asked to do, in order.
enum Job {
    Write(Box<Sample>),
    End,
}

impl SampleSink {
    /// Begins to collect a call that is counted in `counts`; `None` if there is no room, which is counted already.
    #[must_use]
    pub fn begin(&self, counts: &Arc<ServiceMetrics>) -> Option<Ticket> {
        Ticket::take(counts, &self.rooms)
    }

    /// The body that comes with `fields`, of which at most `most` bytes are to be kept.
    #[must_use]
    pub fn payload(&self, fields: &HeaderMap, most: usize) -> Payload {
        Payload::of(fields, most, &self.rooms)
    }

    /// Hands a sample over to be written. Never waits; after the end it is counted and gone.
    pub fn hand_over(&self, sample: Sample) {
        if sample.is_whole() {
            let _ = self.jobs.send(Job::Write(Box::new(sample)));
        }
    }
}

/// The running collection: owns its thread, which is let finish by itself on drop.
pub(super) struct Collection {
    sink: SampleSink,
    /// Closes when the thread has ended.
    ended: Receiver<()>,
}

impl Collection {
    /// Opens the folder and starts the thread.
    ///
    /// # Errors
    /// The folder cannot be made or read, or there is no thread to be had.
    pub(super) fn start(settings: &CollectionSettings) -> io::Result<Self> {
        let folder = Folder::open(settings, OffsetDateTime::now_utc())?;
        let (jobs, queue) = channel();
        let (ending, ended) = channel();
        std::thread::Builder::new().name("samples".to_owned()).spawn(move || {
            let _ending: Sender<()> = ending;
            Writer { folder, queue, line: Vec::new(), health: Health::Working }.run();
        })?;
        let sink = SampleSink { jobs, rooms: Rooms::new(MOST_BYTES) };
        Ok(Self { sink, ended })
    }

    /// Where calls are handed over.
    pub(super) fn sink(&self) -> SampleSink {
        self.sink.clone()
    }

    /// Writes all that was handed over; blocks up to `within`. What is not written then may be lost.
    ///
    /// # Errors
    /// It took longer.
    pub(super) fn finish(self, within: Duration) -> Result<(), Unfinished> {
        let _ = self.sink.jobs.send(Job::End);
        match self.ended.recv_timeout(within) {
            Err(RecvTimeoutError::Timeout) => Err(Unfinished),
            _ => Ok(()),
        }
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        let _ = self.sink.jobs.send(Job::End);
    }
}

/// Not all samples were written in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfinished;

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("collected inputs and outputs were not all written before the time was up")
    }
}

/// What the thread works with.
struct Writer {
    folder: Folder,
    queue: Receiver<Job>,
    line: Vec<u8>,
    health: Health,
}

/// The log tells changes, not every failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Working,
    Failing,
}

/// Whether there is more to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Ended,
}

impl Writer {
    fn run(mut self) {
        let mut looked = Instant::now();
        let mut flow = Flow::Open;
        while flow == Flow::Open {
            match self.queue.recv_timeout(LOOK_INTERVAL) {
                Ok(Job::Write(first)) => flow = self.write_with(first),
                Ok(Job::End) | Err(RecvTimeoutError::Disconnected) => flow = Flow::Ended,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if looked.elapsed() >= LOOK_INTERVAL {
                looked = Instant::now();
                let tidied = self.folder.tidy(OffsetDateTime::now_utc());
                self.tell(tidied.err().as_ref());
            }
        }
    }

    /// Writes `first` and what has come after it.
    fn write_with(&mut self, first: Box<Sample>) -> Flow {
        let mut flow = Flow::Open;
        let mut samples = vec![first];
        while samples.len() < MOST_TOGETHER {
            match self.queue.try_recv() {
                Ok(Job::Write(sample)) => samples.push(sample),
                Ok(Job::End) => {
                    flow = Flow::Ended;
                    break;
                }
                Err(_none_now) => break,
            }
        }
        samples.sort_by(|a, b| a.service.cmp(&b.service).then_with(|| day(a).cmp(&day(b))));
        let now = OffsetDateTime::now_utc();
        samples.into_iter().for_each(|sample| self.write(*sample, now));
        self.folder.rest();
        flow
    }

    fn write(&mut self, sample: Sample, now: OffsetDateTime) {
        self.line.clear();
        sample.encode(&mut self.line);
        let written = self.folder.append((&sample.service, day(&sample)), &self.line, now);
        self.tell(written.as_ref().err());
        sample.ticket.settle(if written.is_ok() { Collected::Written } else { Collected::Failed });
        // One enormous line does not keep its memory.
        self.line.shrink_to(LARGEST_SPARE);
    }

    fn tell(&mut self, error: Option<&io::Error>) {
        match (self.health, error) {
            (Health::Working, Some(error)) => {
                self.health = Health::Failing;
                tracing::error!(
                    %error,
                    "collected inputs and outputs cannot be written; they are dropped and counted until they can"
                );
            }
            (Health::Failing, None) => {
                self.health = Health::Working;
                tracing::info!("collected inputs and outputs can be written again");
            }
            (Health::Working, None) | (Health::Failing, Some(_)) => {}
        }
    }
}

/// A line's buffer that is kept for the next one.
const LARGEST_SPARE: usize = 256 << 10;

/// The day whose file a sample belongs to: that on which its call began.
fn day(sample: &Sample) -> Date {
    let since = sample.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = since.try_into().ok().and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since));
    at.unwrap_or(OffsetDateTime::UNIX_EPOCH).date()
}

#[cfg(test)]
mod tests;
