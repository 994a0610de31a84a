//! Where a worker leaves its records: a buffer of its own, handed to the writer thread when it is full or 20 ms old.
//!
//! On the request path this costs the encoding and two additions. The hand-over (a short lock, a wake-up) happens once per
//! [`BATCH_BYTES`]; when the writer cannot keep up it is refused, and the records are dropped and counted: a slow disk slows
//! no call. What is to be [written ahead](super::ahead) the worker writes itself, at once. Every record that was accepted is at any time either queued, written or dropped ([`RecordCounts`]).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

use super::ahead::Ahead;
use super::counter::Spread;
use super::disclosure::Disclosure;
use super::export::{Batch, Queue};
use super::record::Record;

/// A worker's buffer is handed over once it holds this much.
pub(super) const BATCH_BYTES: usize = 64 * 1024;
/// Longest rest of a record in a worker's buffer.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

/// The way to the writer thread; cheap to clone, one [`worker`](Self::worker) is made of it per worker thread.
#[derive(Clone)]
pub struct RecordSink {
    pub(super) to: Destination,
    pub(super) disclosure: Disclosure,
    pub(super) counts: Arc<RecordCounts>,
}

/// What becomes of records.
#[derive(Clone)]
pub(super) enum Destination {
    /// They go to the writer thread.
    Writer(Arc<Queue>),
    /// The worker writes them itself; then they go to the writer thread, if that has something to do with them.
    Ahead { ahead: Arc<Ahead>, rest: Option<Arc<Queue>> },
    /// The configuration wants them nowhere: they count as written, since nothing that was asked for got lost.
    Nowhere,
}

/// What became of the records. `accepted = written + dropped + queued` at every moment at which no thread is between two of
/// the counts; each is counted where it happens, none is computed from the others.
pub struct RecordCounts {
    accepted: Spread,
    queued: Spread,
    written: AtomicU64,
    dropped: AtomicU64,
}

impl RecordSink {
    /// The sink of one worker thread.
    #[must_use]
    pub fn worker(&self) -> WorkerSink {
        let (open, line) = (RefCell::default(), RefCell::default());
        WorkerSink(Rc::new(Buffer { sink: self.clone(), open, line, filling: Notify::new() }))
    }
}

impl Destination {
    /// The way to the writer thread.
    pub(super) fn queue(&self) -> Option<&Queue> {
        match self {
            Self::Writer(queue) => Some(queue),
            Self::Ahead { rest, .. } => rest.as_deref(),
            Self::Nowhere => None,
        }
    }

    /// What is written ahead.
    pub(super) fn ahead(&self) -> Option<&Arc<Ahead>> {
        match self {
            Self::Ahead { ahead, .. } => Some(ahead),
            Self::Writer(_) | Self::Nowhere => None,
        }
    }
}

/// One worker's records on their way; for that thread only. Clones share the buffer, the last one gone hands it over.
#[derive(Clone)]
pub struct WorkerSink(Rc<Buffer>);

struct Buffer {
    sink: RecordSink,
    open: RefCell<Batch>,
    /// The record that is being written ahead.
    line: RefCell<Batch>,
    /// Told when the first record comes into an empty buffer.
    filling: Notify,
}

impl WorkerSink {
    /// Takes one record. Never waits, but for the system to take what is written ahead.
    pub fn write(&self, record: &Record) {
        let RecordSink { to, disclosure, counts } = &self.0.sink;
        match to {
            Destination::Writer(_) => {
                self.0.queue(|open| open.append(|line| record.write_line(disclosure, line)));
            }
            Destination::Ahead { ahead, .. } => self.0.write_ahead(record, ahead),
            Destination::Nowhere => {
                counts.accepted.add(1);
                counts.written.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether a record is to be written before the last byte of its call's answer is handed over.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        matches!(self.0.sink.to, Destination::Ahead { .. })
    }

    /// Hands over what the buffer holds.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Hands records over before they are older than [`FLUSH_INTERVAL`]; never returns. To be spawned once on the worker.
    ///
    /// One timer per interval whatever the load, none while there are no records.
    pub async fn flush_in_time(self) {
        loop {
            self.0.filling.notified().await;
            tokio::time::sleep(FLUSH_INTERVAL).await;
            self.flush();
        }
    }
}

impl Buffer {
    /// Has `add` put one record into what goes to the writer thread.
    fn queue(&self, add: impl FnOnce(&mut Batch)) {
        let (first, filled) = {
            let mut open = self.open.borrow_mut();
            add(&mut open);
            (open.records() == 1, open.len() >= BATCH_BYTES)
        };
        self.sink.counts.accepted.add(1);
        self.sink.counts.queued.add(1);
        if filled {
            self.flush();
        } else if first {
            self.filling.notify_one();
        }
    }

    fn write_ahead(&self, record: &Record, ahead: &Ahead) {
        let RecordSink { to, disclosure, counts } = &self.sink;
        let line = &mut *self.line.borrow_mut();
        line.clear();
        line.append(|out| record.write_line(disclosure, out));
        let is_written = ahead.write(line) == line.records();
        if to.queue().is_some() {
            return self.queue(|open| {
                open.append(|out| out.extend_from_slice(line.lines()));
                if !is_written {
                    open.lose_last();
                }
            });
        }
        counts.accepted.add(1);
        counts.queued.add(1);
        match is_written {
            true => counts.written(1),
            false => counts.dropped(1),
        }
    }

    fn flush(&self) {
        let Some(queue) = self.sink.to.queue() else {
            return;
        };
        let mut open = self.open.borrow_mut();
        if open.records() > 0 {
            let dropped = queue.push(&mut open);
            self.sink.counts.dropped(dropped);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl RecordCounts {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            accepted: Spread::new(),
            queued: Spread::new(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Records taken from workers.
    #[must_use]
    pub fn accepted_total(&self) -> u64 {
        self.accepted.sum()
    }

    /// Records in buffers, in the queue or being written.
    #[must_use]
    pub fn queued_now(&self) -> u64 {
        self.queued.sum()
    }

    /// Records wholly written to everything that the configuration names.
    #[must_use]
    pub fn written_total(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Records that the queue had no room for, or that could not be written.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    pub(super) fn written(&self, records: u64) {
        self.written.fetch_add(records, Relaxed);
        self.queued.sub(records);
    }

    pub(super) fn dropped(&self, records: u64) {
        if records > 0 {
            self.dropped.fetch_add(records, Relaxed);
            self.queued.sub(records);
        }
    }
}

impl Default for RecordCounts {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::export::{Output, Tail, Target};
    use crate::telemetry::{MaskedNames, Outputs, Privacy, Telemetry, WriteOrder};
    use std::io::{self, Write};
    use std::sync::{Condvar, Mutex};

    const LONG: Duration = Duration::from_secs(60);

    /// A target whose writes wait until it is opened, and fail for as long as it is told to.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<Gated>, Condvar)>);

    #[derive(Default)]
    struct Gated {
        passage: Passage,
        taken: Vec<u8>,
    }

    #[derive(Clone, Copy, Default, PartialEq)]
    enum Passage {
        #[default]
        Shut,
        Failing,
        Open,
    }

    impl Gate {
        fn set(&self, passage: Passage) {
            self.0.0.lock().unwrap().passage = passage;
            self.0.1.notify_all();
        }

        fn lines(&self) -> u64 {
            let state = self.0.0.lock().unwrap();
            memchr::memchr_iter(b'\n', &state.taken).count() as u64
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let shut = |state: &mut Gated| state.passage == Passage::Shut;
            let mut state = self.0.1.wait_while(self.0.0.lock().unwrap(), shut).unwrap();
            if state.passage == Passage::Failing {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.taken.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Target for Gate {
        fn reopen(&mut self) -> io::Result<Option<Tail>> {
            Ok(None)
        }

        fn file(&self) -> Option<Arc<std::fs::File>> {
            None
        }
    }

    fn start(gates: &[Gate]) -> (Telemetry, Arc<RecordCounts>) {
        start_in_order(WriteOrder::Behind, gates)
    }

    fn start_in_order(order: WriteOrder, gates: &[Gate]) -> (Telemetry, Arc<RecordCounts>) {
        let counts = Arc::new(RecordCounts::new());
        let output = |gate: &Gate| Output::new("gate".to_owned(), Box::new(gate.clone()));
        let telemetry = Telemetry::with_outputs(
            Outputs { all: gates.iter().map(output).collect(), order },
            crate::telemetry::export::Exporters::none(),
            Disclosure::new(Privacy::Standard, MaskedNames::default()),
            Arc::clone(&counts),
        );
        (telemetry.unwrap(), counts)
    }

    fn assert_adds_up(counts: &RecordCounts) {
        assert_eq!(
            counts.accepted_total(),
            counts.written_total() + counts.dropped_total() + counts.queued_now()
        );
    }

    #[test]
    fn a_stuck_writer_costs_records_but_no_waiting_and_no_count() {
        let gate = Gate::default();
        let (telemetry, counts) = start(std::slice::from_ref(&gate));
        let worker = telemetry.sink().worker();
        let record = Record::sample();
        let mut calls = 0;
        while counts.dropped_total() == 0 {
            worker.write(&record);
            calls += 1;
            assert!(calls < 100_000, "the queue has no bound");
        }
        assert_adds_up(&counts);
        assert_eq!(counts.written_total(), 0);
        drop(worker);
        gate.set(Passage::Open);
        assert_eq!(telemetry.shutdown(LONG), Ok(()));
        assert_adds_up(&counts);
        assert_eq!((counts.accepted_total(), counts.queued_now()), (calls, 0));
        assert_eq!(counts.written_total(), gate.lines());
    }

    #[test]
    fn records_that_cannot_be_written_count_as_dropped() {
        let gate = Gate::default();
        gate.set(Passage::Failing);
        let (telemetry, counts) = start(std::slice::from_ref(&gate));
        let worker = telemetry.sink().worker();
        (0..10).for_each(|_| worker.write(&Record::sample()));
        worker.flush();
        let patience = std::time::Instant::now() + LONG;
        while counts.queued_now() > 0 && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        assert_eq!(counts.dropped_total(), 10);
        gate.set(Passage::Open);
        (0..5).for_each(|_| worker.write(&Record::sample()));
        drop(worker);
        assert_eq!(telemetry.shutdown(LONG), Ok(()));
        assert_eq!((counts.written_total(), gate.lines()), (5, 5));
        assert_adds_up(&counts);
    }

    #[test]
    fn a_record_is_written_when_all_outputs_have_it() {
        let (well, ill) = (Gate::default(), Gate::default());
        well.set(Passage::Open);
        ill.set(Passage::Failing);
        let (telemetry, counts) = start(&[well.clone(), ill]);
        telemetry.sink().worker().write(&Record::sample());
        assert_eq!(telemetry.shutdown(LONG), Ok(()));
        assert_eq!((counts.written_total(), counts.dropped_total(), well.lines()), (0, 1, 1));
    }

    #[test]
    fn what_is_written_ahead_is_there_when_the_worker_goes_on() {
        let gates = [Gate::default(), Gate::default()];
        gates.iter().for_each(|gate| gate.set(Passage::Open));
        let (telemetry, counts) = start_in_order(WriteOrder::Ahead, &gates);
        let worker = telemetry.sink().worker();
        for records in 1..=3 {
            worker.write(&Record::sample());
            assert_eq!(gates.each_ref().map(Gate::lines), [records; 2]);
            assert_eq!((counts.written_total(), counts.queued_now()), (records, 0));
        }
        gates[1].set(Passage::Failing);
        worker.write(&Record::sample());
        assert_eq!((counts.accepted_total(), counts.written_total(), counts.dropped_total()), (4, 3, 1));
        gates[1].set(Passage::Open);
        worker.write(&Record::sample());
        assert_eq!((counts.accepted_total(), counts.written_total(), counts.dropped_total()), (5, 4, 1));
        assert_adds_up(&counts);
        assert_eq!(telemetry.shutdown(LONG), Ok(()));
    }

    #[test]
    fn many_workers_and_a_writer_add_up() {
        let gate = Gate::default();
        gate.set(Passage::Open);
        many_workers_add_up(&gate, start(std::slice::from_ref(&gate)));
    }

    #[test]
    fn many_workers_that_write_ahead_add_up() {
        let gate = Gate::default();
        gate.set(Passage::Open);
        many_workers_add_up(&gate, start_in_order(WriteOrder::Ahead, std::slice::from_ref(&gate)));
    }

    fn many_workers_add_up(gate: &Gate, (telemetry, counts): (Telemetry, Arc<RecordCounts>)) {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let sink = telemetry.sink();
                scope.spawn(move || {
                    let worker = sink.worker();
                    (0..1000).for_each(|_| worker.write(&Record::sample()));
                });
            }
        });
        assert_eq!(telemetry.shutdown(LONG), Ok(()));
        assert_eq!((counts.accepted_total(), counts.queued_now()), (4000, 0));
        assert_eq!(counts.written_total() + counts.dropped_total(), 4000);
        assert_eq!(counts.written_total(), gate.lines());
    }

    #[test]
    fn a_shutdown_that_takes_too_long_says_what_was_not_written() {
        let gate = Gate::default();
        let (telemetry, counts) = start(std::slice::from_ref(&gate));
        let worker = telemetry.sink().worker();
        (0..3).for_each(|_| worker.write(&Record::sample()));
        worker.flush();
        let unfinished = crate::telemetry::Unfinished { records: 3 };
        assert_eq!(telemetry.shutdown(Duration::ZERO), Err(unfinished));
        worker.write(&Record::sample());
        worker.flush();
        assert!(counts.dropped_total() >= 1);
        assert_adds_up(&counts);
        gate.set(Passage::Open);
    }

    #[test]
    fn records_that_nobody_wants_count_as_written() {
        let (telemetry, counts) = start(&[]);
        telemetry.sink().worker().write(&Record::sample());
        assert_eq!(telemetry.shutdown(LONG), Ok(()));
        assert_eq!((counts.accepted_total(), counts.written_total()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_record_is_handed_over_when_its_interval_is_over() {
        let gate = Gate::default();
        gate.set(Passage::Open);
        let (telemetry, counts) = start(std::slice::from_ref(&gate));
        let worker = telemetry.sink().worker();
        let in_time = worker.clone().flush_in_time();
        worker.write(&Record::sample());
        assert!(tokio::time::timeout(FLUSH_INTERVAL * 2, in_time).await.is_err());
        // The worker still lives: nothing else can have handed the record over.
        assert_eq!(telemetry.shutdown(LONG), Ok(()));
        assert_eq!(counts.written_total(), 1);
        drop(worker);
    }

    /// CPU time per record; to be read, not judged: `cargo test --release --lib -- --ignored --nocapture price`.
    #[test]
    #[ignore = "a measurement"]
    fn price_of_a_record() {
        price(WriteOrder::Behind);
    }

    /// The same, written ahead.
    #[tokio::test]
    #[ignore = "a measurement"]
    async fn price_of_a_record_written_ahead() {
        price(WriteOrder::Ahead);
    }

    fn price(record_order: WriteOrder) {
        const TIMES: u64 = 100_000;
        let folder = tempfile::tempdir().unwrap();
        let settings = crate::telemetry::TelemetrySettings {
            record_file: Some(folder.path().join("records.jsonl")),
            record_order,
            ..Default::default()
        };
        let metrics = crate::telemetry::Metrics::new();
        let telemetry = Telemetry::start(&settings, None, &metrics).unwrap();
        let service = metrics.service(&"iris".into(), crate::catalog::ComputeType::Aks);
        let worker = telemetry.sink().worker();
        let record = Record::sample();
        let mut out = Vec::new();
        let disclosure = Disclosure::new(Privacy::Standard, MaskedNames::default());
        let time = |name: &str, step: &mut dyn FnMut()| {
            let start = cpu_nanoseconds("/proc/thread-self/schedstat");
            (0..TIMES).for_each(|_| step());
            let took = cpu_nanoseconds("/proc/thread-self/schedstat") - start;
            eprintln!("{name}: {} ns", took / TIMES);
        };
        time("encode", &mut || {
            out.clear();
            record.write_line(&disclosure, &mut out);
        });
        time("start and observe", &mut || {
            let _in_flight = service.start();
            service.observe(&record);
        });
        time("write, on the worker", &mut || worker.write(&record));
        drop(worker);
        telemetry.shutdown(LONG).unwrap();
        let counts = metrics.records();
        eprintln!("written {}, dropped {}", counts.written_total(), counts.dropped_total());
    }

    /// First field of schedstat: time on a CPU.
    fn cpu_nanoseconds(path: &str) -> u64 {
        let text = std::fs::read_to_string(path).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }
}
