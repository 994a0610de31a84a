//! What waits in spools, counted from outside: nothing is locked, changed or decrypted, so that it may be done to the spools
//! of a running gateway as well as to those of one that is gone.

use std::io;
use std::path::Path;

use super::FORMAT_FOLDER;
use super::cursor;
use super::entry::EntryKind;
use super::folder::{CURSOR, segment_of};
use super::frame::{self, Header, Next};

/// What waits in the spool of one exporter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolSurvey {
    /// Its name.
    pub exporter: String,
    /// Records of calls that are not settled.
    pub records: u64,
    /// Events of the activity log that are not settled.
    pub events: u64,
    /// Bytes of all segments.
    pub bytes: u64,
}

/// Counts what waits in each spool of the folder `path` (`telemetry.spool.path`), by the exporters' names.
///
/// While a gateway works on them it is no single moment that is seen.
///
/// # Errors
/// A folder or a file in it cannot be read.
pub fn survey(path: &Path) -> io::Result<Vec<SpoolSurvey>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let folder = entry.path().join(FORMAT_FOLDER);
        if folder.is_dir() {
            found.push(of_folder(&folder, entry.file_name().to_string_lossy().into_owned())?);
        }
    }
    found.sort_by(|one, other| one.exporter.cmp(&other.exporter));
    Ok(found)
}

fn of_folder(folder: &Path, exporter: String) -> io::Result<SpoolSurvey> {
    let mut survey = SpoolSurvey { exporter, records: 0, events: 0, bytes: 0 };
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        segments.extend(segment_of(&name).map(|segment| (segment, name)));
    }
    segments.sort_unstable();
    // Before the segments: one that is settled meanwhile is gone, and not counted.
    let settled = read(&folder.join(CURSOR))?.and_then(|bytes| cursor::read(&bytes)).unwrap_or(0);
    for (at, (_, name)) in segments.iter().enumerate() {
        // What a write that was told as failed left behind stands in the next segment again.
        let end = segments.get(at + 1).map_or(u64::MAX, |(next, _)| *next);
        if let Some(bytes) = read(&folder.join(name))? {
            survey.count(&bytes, settled..end);
        }
    }
    Ok(survey)
}

impl SpoolSurvey {
    /// Adds the entries of a segment whose sequences are within `waiting`.
    fn count(&mut self, bytes: &[u8], waiting: std::ops::Range<u64>) {
        self.bytes += bytes.len() as u64;
        let Some(header) = Header::decode(bytes) else { return };
        let mut at = header.length();
        for sequence in header.first.. {
            let Next::Entry { kind, length, .. } = frame::next(&bytes[at..], sequence) else { return };
            at += length;
            match kind {
                _ if !waiting.contains(&sequence) => {}
                EntryKind::Record => self.records += 1,
                EntryKind::Event => self.events += 1,
            }
        }
    }
}

/// `None`: it is not there any more.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
