//! The way out. The writer thread takes records from the queue, writes them to the outputs and leaves them in the spool of
//! each exporter; the exporters are tasks of the control plane that send what their spool holds.

mod backoff;
mod exporter;
mod exporters;
mod http;
pub(super) mod insights;
pub(super) mod otlp;
mod output;
mod queue;
mod runner;

use std::sync::Arc;

#[cfg(test)]
pub(super) use output::{Tail, Target};

pub(super) use exporters::Exporters;
pub(super) use output::Output;
pub(super) use queue::{Batch, Queue};

use super::sink::RecordCounts;
use super::spool::{EntryKind, Spool};
use output::Unsynced;
use queue::Job;

/// The writer: runs on a thread of its own, since files offer nothing but calls that block.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) counts: Arc<RecordCounts>,
    /// None when they are written ahead.
    pub(super) outputs: Vec<Output>,
    /// They take everything, and count for themselves what they cannot keep.
    pub(super) spools: Vec<Arc<Spool>>,
}

impl Writer {
    /// Does what comes through the queue, until that is closed and done.
    pub(super) fn run(mut self) {
        while let Some(job) = self.queue.next() {
            match job {
                Job::Write(batch) => {
                    self.write(&batch);
                    self.queue.done(batch);
                }
                Job::Reopen => self.outputs.iter_mut().for_each(Output::reopen),
            }
        }
        self.outputs.iter_mut().filter_map(Output::take_unsynced).for_each(Unsynced::sync);
    }

    /// A record counts as written when every output has taken the whole of it. Outputs take a batch from its beginning up to
    /// where they fail, so the one that fails first decides.
    fn write(&mut self, batch: &Batch) {
        let written = self.outputs.iter_mut().map(|output| output.write(batch)).min();
        let written = written.unwrap_or_else(|| batch.records() - batch.lost());
        self.spools.iter().for_each(|spool| spool.append(EntryKind::Record, batch.lines()));
        self.counts.written(written);
        self.counts.dropped(batch.records() - written);
    }
}

/// Which gateway of several sends.
fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}
