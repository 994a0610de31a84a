//! Reading the next batch: a plan is made with the log, the file is read without it, and the log takes note of what was
//! found if it is still as it was. So a slow disk holds up nobody who appends.

use std::io;
use std::sync::Arc;

use super::super::entry::Entries;
use super::super::folder::SegmentFile;
use super::super::frame::{self, FRAME_HEAD, MAX_PAYLOAD, Next};
use super::super::seal::Cipher;
use super::super::{BatchSize, Took};
use super::segment::Mark;
use super::{InHand, Log, MOST_FAILED_READS};

/// Where the next batch is.
pub(in super::super) struct Plan {
    file: Arc<dyn SegmentFile>,
    at: Mark,
    /// Of the first record.
    sequence: u64,
    /// Records and bytes that the segment has from there on.
    records: u64,
    bytes: u64,
    cipher: Option<Arc<Cipher>>,
}

/// What was found there.
pub(in super::super) struct Found {
    entries: Entries,
    offset: u64,
    end: End,
}

/// Why the reading ended.
enum End {
    /// There was enough, or no more.
    Enough,
    /// What comes next is no record.
    Damaged,
    Failed(io::Error),
}

impl Plan {
    /// Reads as much as a batch may hold; blocks on the disk.
    pub(in super::super) fn read(&self, most: BatchSize) -> Found {
        // Room for at least one record of any length.
        let room = (most.bytes.max(MAX_PAYLOAD) + FRAME_HEAD).min(usize::try_from(self.bytes).unwrap_or(0));
        let mut bytes = vec![0; room];
        match self.file.read_at(self.at.offset, &mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                self.parse(bytes, most)
            }
            Err(error) => {
                Found { entries: Entries::default(), offset: self.at.offset, end: End::Failed(error) }
            }
        }
    }

    fn parse(&self, mut bytes: Vec<u8>, most: BatchSize) -> Found {
        let mut each = Vec::new();
        let mut at = 0;
        let records = self.records.min(most.records as u64);
        let mut end = End::Enough;
        for sequence in self.sequence..self.sequence + records {
            match frame::next(&bytes[at..], sequence) {
                Next::Entry { length, .. } if at + length > most.bytes && !each.is_empty() => break,
                Next::Entry { kind, length, .. } => {
                    let payload = at + FRAME_HEAD..at + length;
                    let line = match &self.cipher {
                        None => Some(payload.len()),
                        Some(cipher) => cipher.decrypt(sequence, kind, &mut bytes[payload.clone()]),
                    };
                    let Some(line) = line else {
                        end = End::Damaged;
                        break;
                    };
                    each.push((kind, payload.start..payload.start + line));
                    at += length;
                }
                Next::Cut if !each.is_empty() => break,
                Next::Cut | Next::Broken => {
                    end = End::Damaged;
                    break;
                }
            }
        }
        Found { entries: Entries::new(bytes, each), offset: self.at.offset + at as u64, end }
    }
}

impl Log {
    /// Where the next batch is; `None`: there is none, or one is in hand.
    pub(in super::super) fn plan(&self) -> Option<Plan> {
        let segment = self.segments.iter().find(|segment| segment.end() > self.unread)?;
        if self.in_hand.is_some() {
            return None;
        }
        let offset = match self.mark {
            Mark { segment: name, offset } if name == segment.first => offset,
            _ => segment.begin,
        };
        let sequence = self.unread.max(segment.first);
        Some(Plan {
            file: Arc::clone(&segment.file),
            at: Mark { segment: segment.first, offset },
            sequence,
            records: segment.end() - sequence,
            bytes: segment.bytes.saturating_sub(offset),
            cipher: segment.cipher.clone(),
        })
    }

    /// Puts what was found into the exporter's hand. What is damaged, or cannot be read over and over, is given up to the
    /// end of its segment.
    pub(in super::super) fn take(&mut self, plan: &Plan, found: Found) -> Took {
        let still =
            self.plan().is_some_and(|now| now.sequence == plan.sequence && now.at.segment == plan.at.segment);
        if !still {
            return Took::Again;
        }
        let records = found.entries.len() as u64;
        if records > 0 {
            self.failed_reads = 0;
            self.in_hand = Some(InHand { segment: plan.at.segment, records });
            self.unread = plan.sequence + records;
            self.mark = Mark { segment: plan.at.segment, offset: found.offset };
            return Took::Batch(found.entries);
        }
        if let End::Failed(error) = &found.end {
            self.failed_reads += 1;
            tracing::error!(%error, "the spool cannot be read");
            if self.failed_reads < MOST_FAILED_READS {
                return Took::Failed;
            }
        }
        self.failed_reads = 0;
        let lost = plan.records;
        tracing::error!(records = lost, "a part of the spool is damaged; its records are dropped");
        self.counts.dropped(lost);
        self.unread = plan.sequence + lost;
        // More may be appended behind it.
        self.mark = Mark { segment: plan.at.segment, offset: plan.at.offset + plan.bytes };
        self.advance();
        Took::Again
    }
}
