//! Reads records back from the file that they are appended to: newest first in bounded pages, or as they come.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Reason;

/// What is read at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// Most bytes that one page looks at. A filter that lets few pass gives short pages with a `next` instead of keeping the disk
/// busy.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// How far the order of lines can be from the order in which calls ended: each worker's buffer, and the queue of a writer that
/// is behind.
const DISORDER: Duration = Duration::from_secs(60);

/// Which records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Of this service.
    pub service: Option<String>,
    /// With this status.
    pub status: Option<StatusFilter>,
    /// With this reason.
    pub reason: Option<Reason>,
    /// Of this request.
    pub request_id: Option<String>,
    /// Begun not before.
    pub from: Option<OffsetDateTime>,
    /// Begun before.
    pub to: Option<OffsetDateTime>,
}

/// One status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    /// Such as 503.
    Exact(u16),
    /// Such as 5 for `5xx`.
    Class(u16),
}

/// A place between two records of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordCursor {
    /// Which file: a rotation puts another one in its place.
    inode: u64,
    /// Records that begin before this byte are still to come.
    before: u64,
}

/// Some records, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordPage {
    /// Each as it was written.
    pub records: Vec<Value>,
    /// Where to go on; `None`: there are no older ones.
    pub next: Option<RecordCursor>,
}

/// Why there is no page.
#[derive(Debug)]
pub enum ReadError {
    /// The cursor is of a file that has been rotated away.
    Rotated,
    /// The file cannot be read.
    Io(io::Error),
}

/// The file that records are appended to, to be read.
#[derive(Clone, Debug)]
pub struct RecordLog {
    path: PathBuf,
}

impl RecordLog {
    /// The log at `path`, where there need not be one yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Up to `limit` records that `filter` and `accept` (told the service) let pass, newest first, from before `after`.
    /// Reads a bounded part of the file: a page may be short, or empty, and still have a `next`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn page(
        &self,
        filter: &RecordFilter,
        accept: impl Fn(Option<&str>) -> bool,
        limit: usize,
        after: Option<RecordCursor>,
    ) -> Result<RecordPage, ReadError> {
        let file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        let inode = metadata.ino();
        let before = match after {
            Some(cursor) if cursor.inode != inode || cursor.before > metadata.len() => {
                return Err(ReadError::Rotated);
            }
            Some(cursor) => cursor.before,
            None => metadata.len(),
        };
        let mut lines = Backwards::new(&file, before, BLOCK_BYTES);
        let mut records = Vec::new();
        while let Some((begins, line)) = lines.next()? {
            let facts = Facts::of(line);
            if facts.as_ref().is_some_and(|facts| facts.is_long_before(filter.from)) {
                return Ok(RecordPage { records, next: None });
            }
            if let Some(facts) = facts
                && filter.fits(&facts)
                && accept(facts.service.as_deref())
            {
                records.extend(serde_json::from_slice(line));
            }
            if begins > 0 && (records.len() == limit || before - begins > MOST_BYTES) {
                return Ok(RecordPage { records, next: Some(RecordCursor { inode, before: begins }) });
            }
        }
        Ok(RecordPage { records, next: None })
    }

    /// Follows the log from its end on.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn follow(&self) -> io::Result<Follower> {
        let file = File::open(&self.path)?;
        let read = file.metadata()?.len();
        Ok(Follower { path: self.path.clone(), file, read, line: Vec::new() })
    }
}

/// New records as they are appended, over rotations.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    file: File,
    read: u64,
    /// The beginning of a line whose end is not there yet.
    line: Vec<u8>,
}

impl Follower {
    /// Records that `filter` lets pass of those that came since the last look; does not wait.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn look(&mut self, filter: &RecordFilter) -> io::Result<Vec<Value>> {
        let mut records = Vec::new();
        self.read_on(filter, &mut records)?;
        // Whatever was written to the old file before the rotation has been read by now.
        if let Ok(newest) = File::open(&self.path)
            && newest.metadata()?.ino() != self.file.metadata()?.ino()
        {
            (self.file, self.read) = (newest, 0);
            self.line.clear();
            self.read_on(filter, &mut records)?;
        }
        Ok(records)
    }

    fn read_on(&mut self, filter: &RecordFilter, records: &mut Vec<Value>) -> io::Result<()> {
        if self.file.metadata()?.len() < self.read {
            // Truncated in place, as some rotations do.
            self.read = 0;
            self.line.clear();
        }
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = self.file.read_at(&mut block, self.read)?;
            if read == 0 {
                return Ok(());
            }
            self.read += read as u64;
            let mut rest = &block[..read];
            while let Some(end) = memchr::memchr(b'\n', rest) {
                self.line.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                if Facts::of(&self.line).is_some_and(|facts| filter.fits(&facts)) {
                    records.extend(serde_json::from_slice(&self.line));
                }
                self.line.clear();
            }
            self.line.extend_from_slice(rest);
        }
    }
}

impl StatusFilter {
    /// Reads `503` or `5xx`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix("xx") {
            Some(class) => class.parse().ok().filter(|class| (1..=9).contains(class)).map(Self::Class),
            None => text.parse().ok().filter(|status| (100..=999).contains(status)).map(Self::Exact),
        }
    }

    const fn fits(self, status: u16) -> bool {
        match self {
            Self::Exact(exact) => status == exact,
            Self::Class(class) => status / 100 == class,
        }
    }
}

impl RecordCursor {
    /// As text for a caller to keep.
    #[must_use]
    pub fn to_text(self) -> String {
        format!("{:x}-{:x}", self.inode, self.before)
    }

    /// Reads what [`to_text`](Self::to_text) gave.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (inode, before) = text.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self { inode: number(inode)?, before: number(before)? })
    }
}

impl RecordFilter {
    fn fits(&self, facts: &Facts<'_>) -> bool {
        self.service.as_deref().is_none_or(|service| facts.service.as_deref() == Some(service))
            && self.status.is_none_or(|status| status.fits(facts.status))
            && self.reason.is_none_or(|reason| facts.reason == reason.as_str())
            && self.request_id.as_deref().is_none_or(|id| facts.request_id.eq_ignore_ascii_case(id))
            && self.from.is_none_or(|from| facts.time >= from)
            && self.to.is_none_or(|to| facts.time < to)
    }
}

/// What is asked of a record.
#[derive(Deserialize)]
struct Facts<'a> {
    #[serde(rename = "Time", deserialize_with = "instant")]
    time: OffsetDateTime,
    /// Milliseconds.
    #[serde(rename = "Duration")]
    duration: f64,
    #[serde(rename = "Service", borrow)]
    service: Option<Cow<'a, str>>,
    #[serde(rename = "StatusCode")]
    status: u16,
    #[serde(rename = "Reason", borrow)]
    reason: Cow<'a, str>,
    #[serde(rename = "RequestId", borrow)]
    request_id: Cow<'a, str>,
}

impl<'a> Facts<'a> {
    /// `None`: the line is no record, such as half a one that a killed gateway left.
    fn of(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Whether the call ended so long before `from` that all records before this one began before it, too.
    fn is_long_before(&self, from: Option<OffsetDateTime>) -> bool {
        let took = Duration::try_from_secs_f64(self.duration / 1000.0).unwrap_or_default();
        from.is_some_and(|from| self.time + took + DISORDER < from)
    }
}

fn instant<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)
}

/// The whole lines of a part of a file, last one first.
struct Backwards<'a> {
    file: &'a File,
    block_bytes: usize,
    /// Where `block` begins in the file.
    start: u64,
    block: Vec<u8>,
    /// How much of `block` has not been returned; ends with a newline, once there is any.
    left: usize,
}

impl<'a> Backwards<'a> {
    /// Lines that end before the byte `before`.
    fn new(file: &'a File, before: u64, block_bytes: usize) -> Self {
        Self { file, block_bytes, start: before, block: Vec::new(), left: 0 }
    }

    /// The line before the one returned last, without its newline, and where it begins.
    fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        if self.left == 0 {
            // What follows the last newline is no whole line.
            self.left = self.after_newline(0)?;
            if self.left == 0 {
                return Ok(None);
            }
        }
        let begins = self.after_newline(1)?;
        let line = begins..self.left - 1;
        self.left = begins;
        Ok(Some((self.start + begins as u64, &self.block[line])))
    }

    /// The place after the last newline in what is left but its last `but` bytes; 0 if the file begins before there is one.
    fn after_newline(&mut self, but: usize) -> io::Result<usize> {
        loop {
            if let Some(newline) = memchr::memrchr(b'\n', &self.block[..self.left.saturating_sub(but)]) {
                return Ok(newline + 1);
            }
            if self.start == 0 {
                return Ok(0);
            }
            self.read_before()?;
        }
    }

    fn read_before(&mut self) -> io::Result<()> {
        let more = self.start.min(self.block_bytes as u64);
        let mut block = vec![0; usize::try_from(more).unwrap_or_default()];
        self.start -= more;
        self.file.read_exact_at(&mut block, self.start)?;
        block.extend_from_slice(&self.block[..self.left]);
        self.left = block.len();
        self.block = block;
        Ok(())
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rotated => {
                f.write_str("the record file is another one by now; begin anew without a cursor")
            }
            Self::Io(error) => write!(f, "the record file cannot be read: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::Privacy;
    use crate::telemetry::record::Record;

    fn line(status: u16, second: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second);
        Record { status, time, ..Record::sample() }.encode(Privacy::Standard, &mut out);
        out
    }

    fn log(lines: &[Vec<u8>]) -> (tempfile::TempDir, RecordLog) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        std::fs::write(&path, lines.concat()).unwrap();
        (folder, RecordLog::new(path))
    }

    fn statuses(records: &[Value]) -> Vec<u64> {
        records.iter().map(|record| record["StatusCode"].as_u64().unwrap()).collect()
    }

    fn all() -> RecordFilter {
        RecordFilter::default()
    }

    #[test]
    fn pages_follow_each_other_newest_first_and_what_is_no_record_is_passed_over() {
        let mut lines: Vec<_> = (0..5).map(|n| line(200 + n, u64::from(n))).collect();
        lines.insert(2, b"{\"half\n\n[1]\n".to_vec());
        lines.push(b"{\"Time\":\"torn".to_vec());
        let (_folder, log) = log(&lines);
        let first = log.page(&all(), |_| true, 2, None).unwrap();
        assert_eq!(statuses(&first.records), [204, 203]);
        let cursor = RecordCursor::parse(&first.next.unwrap().to_text());
        let second = log.page(&all(), |_| true, 2, cursor).unwrap();
        assert_eq!(statuses(&second.records), [202, 201]);
        let third = log.page(&all(), |_| true, 2, second.next).unwrap();
        assert_eq!((statuses(&third.records), third.next), (vec![200], None));
        let unread = RecordCursor { inode: 1, before: 0 };
        assert!(matches!(log.page(&all(), |_| true, 2, Some(unread)), Err(ReadError::Rotated)));
    }

    #[test]
    fn each_part_of_a_filter_counts() {
        let lines = [line(200, 0), line(503, 10), line(502, 20), line(401, 30)];
        let (_folder, log) = log(&lines);
        let found = |filter: RecordFilter| {
            statuses(&log.page(&filter, |service| service == Some("iris"), 9, None).unwrap().records)
        };
        let at = |second: i64| Some(OffsetDateTime::from_unix_timestamp(1_800_000_000 + second).unwrap());
        assert_eq!(found(RecordFilter { status: StatusFilter::parse("5xx"), ..all() }), [502, 503]);
        assert_eq!(found(RecordFilter { status: StatusFilter::parse("401"), ..all() }), [401]);
        assert_eq!(found(RecordFilter { from: at(10), to: at(30), ..all() }), [502, 503]);
        assert_eq!(found(RecordFilter { service: Some("wine".into()), ..all() }), [0; 0]);
        assert_eq!(found(RecordFilter { reason: Some(Reason::QueueFull), ..all() }), [0; 0]);
        let id = Some("11111111-2222-4333-8444-555555555555".to_owned());
        assert_eq!(
            found(RecordFilter { request_id: id, status: StatusFilter::parse("200"), ..all() }),
            [200]
        );
        assert_eq!(log.page(&all(), |_| false, 9, None).unwrap().records, [Value::Null; 0]);
        assert_eq!(
            StatusFilter::parse("0xx").or(StatusFilter::parse("99")).or(StatusFilter::parse("x")),
            None
        );
    }

    #[test]
    fn reading_ends_where_all_is_older_than_asked_for() {
        let lines: Vec<_> = (0..200).map(|n| line(200, n)).collect();
        let (_folder, log) = log(&lines);
        let from = OffsetDateTime::from_unix_timestamp(1_800_000_000 + 190).ok();
        let page = log.page(&RecordFilter { from, ..all() }, |_| true, 100, None).unwrap();
        assert_eq!((page.records.len(), page.next), (10, None));
        let seen = std::cell::Cell::new(0);
        let filter = RecordFilter { from, ..all() };
        let count = |_: Option<&str>| {
            seen.set(seen.get() + 1);
            true
        };
        log.page(&filter, count, 100, None).unwrap();
        assert_eq!(seen.get(), 10);
    }

    #[test]
    fn a_follower_sees_each_new_record_once_over_a_rotation() {
        let (folder, log) = log(&[line(200, 0)]);
        let mut follower = log.follow().unwrap();
        assert_eq!(follower.look(&all()).unwrap(), [Value::Null; 0]);
        let mut file = std::fs::OpenOptions::new().append(true).open(log.path()).unwrap();
        let next = line(201, 1);
        file.write_all(&next[..40]).unwrap();
        assert_eq!(follower.look(&all()).unwrap(), [Value::Null; 0]);
        file.write_all(&next[40..]).unwrap();
        assert_eq!(statuses(&follower.look(&all()).unwrap()), [201]);
        std::fs::rename(log.path(), folder.path().join("old")).unwrap();
        file.write_all(&line(202, 2)).unwrap();
        std::fs::write(log.path(), [line(203, 3), line(500, 4)].concat()).unwrap();
        let filter = RecordFilter { status: StatusFilter::parse("2xx"), ..all() };
        assert_eq!(statuses(&follower.look(&filter).unwrap()), [202, 203]);
        std::fs::write(log.path(), line(204, 5)).unwrap();
        assert_eq!(statuses(&follower.look(&all()).unwrap()), [204]);
    }

    proptest! {
        #[test]
        fn lines_come_backwards_whatever_the_blocks(
            text in "[ab\n]{0,60}",
            block in 1_usize..9,
            before in 0_usize..=60,
        ) {
            let before = before.min(text.len());
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("lines");
            std::fs::write(&path, &text).unwrap();
            let file = File::open(path).unwrap();
            let mut lines = Backwards::new(&file, before as u64, block);
            let mut read = Vec::new();
            while let Some((begins, line)) = lines.next().unwrap() {
                read.push((usize::try_from(begins).unwrap(), String::from_utf8(line.to_vec()).unwrap()));
            }
            let mut wanted = Vec::new();
            let mut begins = 0;
            for line in text[..before].split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                wanted.push((begins, line.trim_end_matches('\n').to_owned()));
                begins += line.len();
            }
            wanted.reverse();
            prop_assert_eq!(read, wanted);
        }
    }
}
