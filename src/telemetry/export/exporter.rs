//! What an exporter is: a translation of spooled entries into the items of a protocol, and a way to send them.

use std::future::Future;
use std::time::Duration;

use crate::telemetry::spool::{BatchSize, Entry, EntryKind};

/// One protocol towards one collector. Waiting, repeating and counting is the [`Runner`](super::runner::Runner)'s.
pub(in crate::telemetry) trait Exporter: Send + Sync + 'static {
    /// As in the configuration, in metrics, logs and the name of its spool's folder.
    fn name(&self) -> &'static str;

    /// The most that one batch may hold.
    fn batch(&self) -> BatchSize;

    /// Whether it has any use for entries of this kind: others do not come into its spool, nor into its counts.
    fn takes(&self, kind: EntryKind) -> bool {
        match kind {
            EntryKind::Record | EntryKind::Event => true,
        }
    }

    /// The item of one entry: of a record its line is what the record file has. Privacy is applied to it already, so that
    /// nothing else can get out.
    ///
    /// # Errors
    /// The entry can be sent in no form; it is dropped.
    fn translate(&self, entry: Entry<'_>) -> Result<Vec<u8>, Untranslatable>;

    /// Sends the items once, in bounded time.
    fn send(&mut self, items: &[Vec<u8>]) -> impl Future<Output = Outcome> + Send;
}

/// Why an entry cannot be sent, for the log; without anything of its content.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::telemetry) struct Untranslatable(pub String);

/// What became of items that were sent.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Outcome {
    /// All of them were taken.
    Delivered,
    /// Each of them has a fate of its own, in their order.
    Each { fates: Vec<Fate>, again: Again },
    /// None was taken, and none ever will be.
    Refused { cause: String },
    /// None was taken, as far as is known; they may be later.
    Later(Again),
}

/// What became of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Fate {
    /// The collector has it.
    Delivered,
    /// The collector will never take it.
    Dropped,
    /// The collector may take it later.
    Again,
}

/// Why and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::telemetry) struct Again {
    /// For the log.
    pub cause: String,
    /// The collector's own wish, not to be fallen short of.
    pub after: Option<Duration>,
}
