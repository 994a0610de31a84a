//! The bounded queue between the workers and the writer thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::telemetry::sink::BATCH_BYTES;

/// Most memory that records may hold on their way to the writer: about 20,000 of them, half a second of a fast gateway.
pub(in crate::telemetry) const QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Empty buffers kept for the workers.
const SPARE_BUFFERS: usize = 8;
/// Room of a new buffer: a batch and the record that fills it.
const BUFFER_BYTES: usize = BATCH_BYTES + 8 * 1024;
/// A buffer that one enormous record made larger than this is not kept.
const LARGEST_SPARE: usize = 2 * BUFFER_BYTES;

/// Whole lines, and how many.
#[derive(Default)]
pub(in crate::telemetry) struct Batch {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that are whole lines; more only if an encoder broke off in a panic.
    whole: usize,
    records: u64,
    /// Of the records, those that an output written ahead did not take: they are dropped, whoever takes them yet.
    lost: u64,
}

impl Batch {
    /// Adds the one line that `write` appends.
    pub(in crate::telemetry) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.truncate(self.whole);
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(BUFFER_BYTES);
        }
        write(&mut self.bytes);
        self.whole = self.bytes.len();
        self.records += 1;
    }

    /// The last record was lost on an output written ahead.
    pub(in crate::telemetry) fn lose_last(&mut self) {
        self.lost += 1;
    }

    pub(in crate::telemetry) fn len(&self) -> usize {
        self.whole
    }

    pub(in crate::telemetry) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(in crate::telemetry) fn lines(&self) -> &[u8] {
        &self.bytes[..self.whole]
    }

    pub(in crate::telemetry) fn clear(&mut self) {
        self.bytes.clear();
        self.whole = 0;
        self.records = 0;
        self.lost = 0;
    }
}

/// What the writer thread is asked to do, in order.
pub(super) enum Job {
    /// Write these lines.
    Write(Batch),
    /// Open the files anew.
    Reopen,
}

/// The queue: [`QUEUE_BYTES`] at most, and never a wait for those who push.
pub(in crate::telemetry) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    /// Room of all batches in `jobs` and of the one being written: what they take of memory, full or not.
    held: usize,
    spare: Vec<Vec<u8>>,
    flow: Flow,
    phase: Phase,
}

/// Whether batches find room. The log tells the begin and the end of a spell of refusals.
enum Flow {
    Free,
    Refusing { records: u64, log: Log },
}

#[derive(Clone, Copy)]
enum Log {
    Owes,
    Knows,
}

/// What the log is to be told, by the writer thread and without the lock: a log that is stuck must hold up no worker.
enum News {
    RefusalsBegan,
    RefusalsEnded { records: u64 },
}

#[derive(PartialEq)]
enum Phase {
    Open,
    Closed,
}

impl Queue {
    pub(in crate::telemetry) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                held: 0,
                spare: Vec::new(),
                flow: Flow::Free,
                phase: Phase::Open,
            }),
            changed: Condvar::new(),
        }
    }

    /// Takes the lines of `batch`, which is empty afterwards. Returns the number of records refused for want of room: none or all.
    pub(in crate::telemetry) fn push(&self, batch: &mut Batch) -> u64 {
        let mut state = self.lock();
        let refused = state.take_in(batch);
        drop(state);
        if refused == 0 {
            self.changed.notify_one();
        }
        refused
    }

    /// Asks for the files to be opened anew once all that is queued by now is written.
    pub(in crate::telemetry) fn push_reopen(&self) {
        let mut state = self.lock();
        let asked_already = matches!(state.jobs.back(), Some(Job::Reopen));
        if state.phase == Phase::Open && !asked_already {
            state.jobs.push_back(Job::Reopen);
            self.changed.notify_one();
        }
    }

    /// Takes no more; the writer ends once it has done what is queued.
    pub(in crate::telemetry) fn close(&self) {
        self.lock().phase = Phase::Closed;
        self.changed.notify_one();
    }

    /// Throws away what is queued; returns the number of records.
    pub(in crate::telemetry) fn abandon(&self) -> u64 {
        let jobs = std::mem::take(&mut self.lock().jobs);
        jobs.iter()
            .map(|job| match job {
                Job::Write(batch) => batch.records,
                Job::Reopen => 0,
            })
            .sum()
    }

    /// Waits for the next job; `None`: closed and done.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(news) = state.news() {
                drop(state);
                news.log();
                state = self.lock();
                continue;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.phase == Phase::Closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives back a batch that was taken with [`next`](Self::next): its room is free again.
    pub(super) fn done(&self, mut batch: Batch) {
        let room = batch.bytes.capacity();
        batch.clear();
        let mut state = self.lock();
        state.held -= room;
        if room <= LARGEST_SPARE && state.spare.len() < SPARE_BUFFERS {
            state.spare.push(batch.bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_in(&mut self, batch: &mut Batch) -> u64 {
        let records = batch.records;
        let room = batch.bytes.capacity();
        if self.phase == Phase::Closed {
            batch.clear();
            return records;
        }
        if self.joined_last(batch) {
            batch.clear();
            return 0;
        }
        if self.held + room > QUEUE_BYTES {
            batch.clear();
            self.refused(records);
            return records;
        }
        self.held += room;
        let spare = Batch { bytes: self.spare.pop().unwrap_or_default(), ..Batch::default() };
        self.jobs.push_back(Job::Write(std::mem::replace(batch, spare)));
        0
    }

    /// Copies a small batch behind the last one if that has the room: what waits long (the writer is stuck, and every worker
    /// hands over a few lines each 20 ms) must not wait in nearly empty buffers.
    fn joined_last(&mut self, batch: &Batch) -> bool {
        match self.jobs.back_mut() {
            Some(Job::Write(last)) if last.bytes.capacity() - last.whole >= batch.whole => {
                last.bytes.truncate(last.whole);
                last.bytes.extend_from_slice(batch.lines());
                last.whole = last.bytes.len();
                last.records += batch.records;
                last.lost += batch.lost;
                true
            }
            _ => false,
        }
    }

    fn refused(&mut self, more: u64) {
        let (before, log) = match self.flow {
            Flow::Free => (0, Log::Owes),
            Flow::Refusing { records, log } => (records, log),
        };
        let records = before + more;
        self.flow = Flow::Refusing { records, log };
    }

    /// A spell of refusals ends when the queue is empty: at most one per 16 MiB.
    fn news(&mut self) -> Option<News> {
        match self.flow {
            Flow::Refusing { records, log } => match log {
                Log::Owes => {
                    let log = Log::Knows;
                    self.flow = Flow::Refusing { records, log };
                    Some(News::RefusalsBegan)
                }
                Log::Knows if self.jobs.is_empty() => {
                    self.flow = Flow::Free;
                    Some(News::RefusalsEnded { records })
                }
                Log::Knows => None,
            },
            Flow::Free => None,
        }
    }
}

impl News {
    fn log(self) {
        match self {
            Self::RefusalsBegan => tracing::warn!(
                "records come faster than they can be written; those without room are dropped and counted"
            ),
            Self::RefusalsEnded { records } => {
                tracing::warn!(records, "the queue of records has room again; dropped until now")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lines: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for line in lines {
            batch.append(|out| out.extend_from_slice(line.as_bytes()));
        }
        batch
    }

    fn next_lines(queue: &Queue) -> Option<(Vec<u8>, u64)> {
        match queue.next() {
            Some(Job::Write(batch)) => {
                let taken = (batch.lines().to_vec(), batch.records());
                queue.done(batch);
                Some(taken)
            }
            Some(Job::Reopen) => Some((b"reopen".to_vec(), 0)),
            None => None,
        }
    }

    #[test]
    fn small_batches_that_wait_share_a_buffer_but_not_over_a_reopen() {
        let queue = Queue::new();
        for _ in 0..100 {
            assert_eq!(queue.push(&mut batch(&["a\n", "b\n"])), 0);
        }
        queue.push_reopen();
        queue.push_reopen();
        queue.push(&mut batch(&["c\n"]));
        queue.close();
        assert_eq!(next_lines(&queue), Some((b"a\nb\n".repeat(100), 200)));
        assert_eq!(next_lines(&queue), Some((b"reopen".to_vec(), 0)));
        assert_eq!(next_lines(&queue), Some((b"c\n".to_vec(), 1)));
        assert_eq!(next_lines(&queue), None);
    }

    #[test]
    fn a_full_queue_refuses_until_there_is_room_and_a_closed_one_for_good() {
        let queue = Queue::new();
        let line = "x".repeat(BATCH_BYTES);
        let batches = QUEUE_BYTES / BUFFER_BYTES;
        for _ in 0..batches {
            assert_eq!(queue.push(&mut batch(&[&line])), 0);
        }
        let mut late = batch(&[&line, "y\n"]);
        assert_eq!(queue.push(&mut late), 2);
        assert_eq!((late.len(), late.records()), (0, 0));
        assert!(next_lines(&queue).is_some());
        assert_eq!(queue.push(&mut batch(&[&line])), 0);
        queue.close();
        assert_eq!(queue.push(&mut batch(&["z\n"])), 1);
        assert_eq!(queue.abandon(), batches as u64);
        assert_eq!(next_lines(&queue), None);
    }

    #[test]
    fn a_line_broken_off_by_a_panic_leaves_no_trace() {
        let mut batch = batch(&["a\n"]);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            batch.append(|out| {
                out.extend_from_slice(b"half");
                panic!("an encoder with a fault");
            });
        }));
        assert!(broken.is_err());
        assert_eq!(batch.lines(), b"a\n");
        batch.append(|out| out.extend_from_slice(b"b\n"));
        assert_eq!((batch.lines(), batch.records()), (&b"a\nb\n"[..], 2));
    }
}
