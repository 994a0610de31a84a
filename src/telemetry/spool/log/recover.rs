//! Opening a spool: what a former process left behind is found, counted, and whatever is torn is skipped.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::super::counts::ExporterCounts;
use super::super::cursor::Cursor;
use super::super::folder::{self, Folder, SegmentFile};
use super::super::frame::{self, FRAME_HEAD, Header, MAX_PAYLOAD, MOST_HEADER, Next};
use super::super::seal::{Cipher, Keyring};
use super::segment::{Disk, Health, Limits, Mark, Place, Segment, Sync};
use super::{Beginning, Log};

/// Read at once; holds a record of any length.
const WINDOW: usize = 2 * (MAX_PAYLOAD + FRAME_HEAD);

/// Opens the spool in `folder`, or one in memory.
///
/// # Errors
/// The folder cannot be listed, or its cursor not be read; what waits there, or what is to come, is encrypted and the key
/// is not at hand. What waits is left as it is.
pub(in super::super) fn open(
    folder: Option<Arc<dyn Folder>>,
    limits: Limits,
    counts: Arc<ExporterCounts>,
    keyring: &Keyring<'_>,
) -> io::Result<Log> {
    let Some(folder) = folder else {
        let (segments, mark) = (VecDeque::new(), Mark { segment: 0, offset: 0 });
        let beginning = Beginning { disk: None, segments, next: 1, settled: 1, mark, cipher: None };
        return Ok(Log::new(beginning, limits, counts));
    };
    let cipher = keyring.writing()?.map(Arc::new);
    let (cursor, settled) = Cursor::open(folder.cursor()?)?;
    let mut names = folder.list()?;
    names.sort_unstable();
    let mut recovery = Recovery {
        folder: &*folder,
        keyring,
        settled,
        segments: VecDeque::new(),
        end: settled.unwrap_or(0),
        mark: Mark { segment: 0, offset: 0 },
        lost: 0,
    };
    names.into_iter().try_for_each(|name| recovery.take_in(name))?;
    let Recovery { segments, end, mark, lost, .. } = recovery;
    let next = end.max(1);
    let settled = settled.unwrap_or_else(|| segments.front().map_or(next, |segment| segment.first));
    let found: u64 = segments.iter().map(|segment| segment.end() - segment.first.max(settled)).sum();
    counts.accepted(found + lost);
    counts.dropped(lost);
    if found + lost > 0 {
        tracing::info!(records = found, lost, "the spool holds records of a former run");
    }
    let (entries, cursor_sync) = (Sync::Due, Sync::Due);
    let disk = Disk { folder, cursor, end: next, health: Health::Working, entries, cursor_sync };
    Ok(Log::new(Beginning { disk: Some(disk), segments, next, settled, mark, cipher }, limits, counts))
}

struct Recovery<'a> {
    folder: &'a dyn Folder,
    keyring: &'a Keyring<'a>,
    /// `None`: the cursor tells nothing, all that is found counts.
    settled: Option<u64>,
    segments: VecDeque<Segment>,
    /// Where what is known of so far ends.
    end: u64,
    mark: Mark,
    /// Records that were written and cannot be read.
    lost: u64,
}

/// What a file holds.
struct Scanned {
    header: Header,
    records: u64,
    bytes: u64,
    /// Where the first record that is not settled stands.
    unsettled: u64,
}

impl Recovery<'_> {
    fn take_in(&mut self, name: u64) -> io::Result<()> {
        let settled = self.settled.unwrap_or(0);
        let opened = self.folder.open(name).and_then(|found| Ok((scan(&found, settled)?, found)));
        match opened {
            Ok((Some(scanned), found)) if scanned.header.first == name => {
                return self.add(&scanned, found, settled);
            }
            Ok(_) => self.discard(name, "has no header that this version reads"),
            // It may be read another time; the segment after it tells what is missing.
            Err(error) => tracing::error!(%error, segment = name, "a segment of the spool cannot be read"),
        }
        Ok(())
    }

    fn add(&mut self, scanned: &Scanned, found: folder::Found, settled: u64) -> io::Result<()> {
        let Header { first, follows, .. } = scanned.header;
        let torn = found.length.saturating_sub(scanned.bytes);
        if torn > 0 {
            tracing::warn!(
                segment = first,
                bytes = torn,
                "the torn end of a segment of the spool is skipped"
            );
        }
        if self.end > 0 {
            self.lost += follows.saturating_sub(self.end.max(settled));
        }
        // A write that was told as failed may have left records behind that were then written again to the next segment.
        if let Some(before) = self.segments.back_mut().filter(|before| before.end() > first) {
            before.records = first.saturating_sub(before.first);
        }
        let end = first + scanned.records;
        self.end = self.end.max(end).max(follows);
        if scanned.records == 0 || end <= settled {
            self.discard(first, "is done with");
            return Ok(());
        }
        let cipher = self.cipher(scanned)?;
        if (first..end).contains(&settled) {
            self.mark = Mark { segment: first, offset: scanned.unsettled };
        }
        let folder::Found { file, written, .. } = found;
        let (records, bytes, place, sync) = (scanned.records, scanned.bytes, Place::Disk, Sync::Done);
        let begin = scanned.header.length() as u64;
        self.segments.push_back(Segment {
            first,
            records,
            begin,
            cipher,
            bytes,
            file,
            place,
            sync,
            opened: written,
            written,
        });
        Ok(())
    }

    /// What decrypts a segment.
    fn cipher(&self, scanned: &Scanned) -> io::Result<Option<Arc<Cipher>>> {
        let Some(seal) = scanned.header.seal else { return Ok(None) };
        let cipher = self.keyring.reading(seal).ok_or_else(|| {
            io::Error::other(
                "what waits in it is encrypted under a key that is not at hand; start with the store that it was \
                 written with (store.path), or move the folder away",
            )
        })?;
        Ok(Some(Arc::new(cipher)))
    }

    fn discard(&self, name: u64, why: &str) {
        match self.folder.remove(name) {
            Ok(()) => tracing::debug!(segment = name, why, "a segment of the spool is removed"),
            Err(error) => {
                tracing::error!(%error, segment = name, why, "a segment of the spool cannot be removed")
            }
        }
    }
}

/// `None`: not a segment.
fn scan(found: &folder::Found, settled: u64) -> io::Result<Option<Scanned>> {
    let mut head = [0; MOST_HEADER];
    let length = found.file.read_at(0, &mut head)?;
    let Some(header) = Header::decode(&head[..length]) else {
        return Ok(None);
    };
    let begin = header.length() as u64;
    let mut scanned = Scanned { header, records: 0, bytes: begin, unsettled: begin };
    let mut window = vec![0; WINDOW];
    while scan_window(&*found.file, &mut window, settled, &mut scanned)? > 0 {}
    Ok(Some(scanned))
}

/// Goes over the records of one window; returns their number.
fn scan_window(
    file: &dyn SegmentFile,
    window: &mut [u8],
    settled: u64,
    scanned: &mut Scanned,
) -> io::Result<u64> {
    let length = file.read_at(scanned.bytes, window)?;
    let (mut at, before) = (0, scanned.records);
    while let Next::Entry { length, .. } =
        frame::next(&window[at..length], scanned.header.first + scanned.records)
    {
        at += length;
        scanned.records += 1;
        scanned.bytes += length as u64;
        if scanned.header.first + scanned.records <= settled {
            scanned.unsettled = scanned.bytes;
        }
    }
    Ok(scanned.records - before)
}
