//! One place that records are appended to, a file or standard output, and what happens when it fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::queue::Batch;

/// The record file is for its owner and group: it names callers.
const FILE_MODE: u32 = 0o640;

/// What an [`Output`] writes to.
pub(in crate::telemetry) trait Target: Write + Send {
    /// Opens it anew, for a rotation, and tells how what was opened ends; `None`: there is nothing to open, the old one goes on.
    /// On an error the old one stays in use.
    fn reopen(&mut self) -> io::Result<Option<Tail>>;

    /// The file whose sync makes what was written outlast a power cut, if that can be.
    fn file(&self) -> Option<Arc<File>>;
}

/// A target with its state.
pub(in crate::telemetry) struct Output {
    name: String,
    target: Box<dyn Target>,
    tail: Tail,
    health: Health,
    /// Whether something was written since the last sync.
    is_unsynced: bool,
}

/// A file that the disk may not have all of.
pub(in crate::telemetry) struct Unsynced {
    output: String,
    file: Arc<File>,
}

/// How a target ends.
#[derive(Clone, Copy)]
pub(in crate::telemetry) enum Tail {
    /// After a whole line.
    Whole,
    /// In the midst of a line: a newline must come before the next one.
    Torn,
}

/// The log tells changes, not every failure.
enum Health {
    Working,
    Failing,
}

impl Output {
    /// Appends to the file at `path`, made if it is not there.
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub(in crate::telemetry) fn file(path: &Path) -> io::Result<Self> {
        let (handle, tail) = open(path)?;
        let path = path.to_owned();
        let name = path.display().to_string();
        let target = Box::new(RecordFile { path, handle });
        Ok(Self { tail, ..Self::new(name, target) })
    }

    /// Standard output.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(in crate::telemetry) fn stdout() -> io::Result<Self> {
        // Past the buffer of `std::io::Stdout`, which would take bytes that it may never get rid of.
        let handle = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self::new("stdout".to_owned(), Box::new(Stdout(handle))))
    }

    pub(in crate::telemetry) fn new(name: String, target: Box<dyn Target>) -> Self {
        Self { name, target, tail: Tail::Whole, health: Health::Working, is_unsynced: false }
    }

    /// Writes the batch, up to the first error; returns how many of its records were written whole.
    pub(in crate::telemetry) fn write(&mut self, batch: &Batch) -> u64 {
        let lines = batch.lines();
        let (taken, result) = self.write_until_error(lines);
        if taken > 0 {
            self.is_unsynced = true;
            self.tail = match lines[taken - 1] {
                b'\n' => Tail::Whole,
                _ => Tail::Torn,
            };
        }
        match result {
            Ok(()) => {
                self.works();
                batch.records()
            }
            Err(error) => {
                self.fails(&error);
                whole_lines(lines, taken)
            }
        }
    }

    /// Opens the target anew; the log tells if that fails, and the old one stays in use.
    pub(in crate::telemetry) fn reopen(&mut self) {
        match self.target.reopen() {
            Ok(None) => {}
            Ok(Some(tail)) => {
                self.tail = tail;
                tracing::info!(output = self.name, "record file opened anew");
            }
            Err(error) => {
                tracing::error!(output = self.name, %error, "record file cannot be opened anew; the old one stays in use");
            }
        }
    }

    /// What is not on the disk for good yet, to be synced while others write.
    pub(in crate::telemetry) fn take_unsynced(&mut self) -> Option<Unsynced> {
        let is_unsynced = std::mem::replace(&mut self.is_unsynced, false);
        let file = is_unsynced.then(|| self.target.file()).flatten()?;
        Some(Unsynced { output: self.name.clone(), file })
    }

    /// The number of bytes of `lines` that were taken, and what ended it.
    fn write_until_error(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if matches!(self.tail, Tail::Torn) {
            if let Err(error) = self.target.write_all(b"\n") {
                return (0, Err(error));
            }
            self.tail = Tail::Whole;
        }
        let mut taken = 0;
        while taken < lines.len() {
            match self.target.write(&lines[taken..]) {
                Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
                Ok(more) => taken += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (taken, Err(error)),
            }
        }
        (taken, Ok(()))
    }

    fn works(&mut self) {
        if let Health::Failing = self.health {
            self.health = Health::Working;
            tracing::info!(output = self.name, "records can be written again");
        }
    }

    fn fails(&mut self, error: &io::Error) {
        if let Health::Working = self.health {
            self.health = Health::Failing;
            tracing::error!(output = self.name, %error, "records cannot be written; they are dropped and counted until they can");
        }
    }
}

impl Unsynced {
    /// Waits for the disk.
    pub(in crate::telemetry) fn sync(self) {
        if let Err(error) = self.file.sync_data() {
            tracing::error!(output = self.output, %error, "records may not be on the disk yet");
        }
    }
}

/// Lines within the first `taken` bytes. One that lacks nothing but its newline is whole: it gets that before the next line.
fn whole_lines(lines: &[u8], taken: usize) -> u64 {
    let ended = memchr::memchr_iter(b'\n', &lines[..taken]).count() as u64;
    let only_newline_missing = taken > 0 && lines.get(taken) == Some(&b'\n');
    ended + u64::from(only_newline_missing)
}

struct RecordFile {
    path: PathBuf,
    handle: Arc<File>,
}

fn open(path: &Path) -> io::Result<(Arc<File>, Tail)> {
    let handle = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?;
    let tail = match handle.metadata() {
        Ok(file) if file.is_file() && file.len() > 0 => tail_of(path, file.len()),
        // New, or a pipe or device, which must not be read from.
        _ => Tail::Whole,
    };
    Ok((Arc::new(handle), tail))
}

/// A gateway that was killed may have left half a line. A file that we may not read gets the benefit of the doubt.
fn tail_of(path: &Path, len: u64) -> Tail {
    let mut last = [b'\n'];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, len - 1));
    match (read, last) {
        (Ok(()), [byte]) if byte != b'\n' => Tail::Torn,
        _ => Tail::Whole,
    }
}

impl Target for RecordFile {
    fn reopen(&mut self) -> io::Result<Option<Tail>> {
        let (handle, tail) = open(&self.path)?;
        self.handle = handle;
        Ok(Some(tail))
    }

    fn file(&self) -> Option<Arc<File>> {
        // A pipe or device has no disk.
        let is_file = self.handle.metadata().is_ok_and(|facts| facts.is_file());
        is_file.then(|| Arc::clone(&self.handle))
    }
}

impl Write for RecordFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.handle).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stdout(File);

impl Target for Stdout {
    fn reopen(&mut self) -> io::Result<Option<Tail>> {
        Ok(None)
    }

    fn file(&self) -> Option<Arc<File>> {
        None
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Takes what its script says, then everything.
    struct Scripted {
        script: VecDeque<Step>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        AtMost(usize),
        Interrupted,
        Full,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = match self.script.pop_front() {
                Some(Step::AtMost(most)) => most.min(bytes.len()),
                Some(Step::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
                Some(Step::Full) => return Err(io::ErrorKind::StorageFull.into()),
                None => bytes.len(),
            };
            self.taken.lock().unwrap().extend_from_slice(&bytes[..most]);
            Ok(most)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Target for Scripted {
        fn reopen(&mut self) -> io::Result<Option<Tail>> {
            Ok(None)
        }

        fn file(&self) -> Option<Arc<File>> {
            None
        }
    }

    fn scripted(script: &[Step]) -> (Output, Arc<Mutex<Vec<u8>>>) {
        let taken = Arc::default();
        let target = Scripted { script: script.iter().copied().collect(), taken: Arc::clone(&taken) };
        (Output::new("scripted".to_owned(), Box::new(target)), taken)
    }

    fn batch(numbers: std::ops::Range<u64>) -> Batch {
        let mut batch = Batch::default();
        for number in numbers {
            batch.append(|out| out.extend_from_slice(format!("{{\"n\":{number}}}\n").as_bytes()));
        }
        batch
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next_record() {
        let (mut output, taken) = scripted(&[Step::AtMost(12), Step::Full, Step::Full]);
        assert_eq!(output.write(&batch(0..3)), 1);
        assert_eq!(output.write(&batch(3..4)), 0);
        assert_eq!(output.write(&batch(4..5)), 1);
        let taken = taken.lock().unwrap();
        assert_eq!(*taken, b"{\"n\":0}\n{\"n\"\n{\"n\":4}\n");
    }

    #[test]
    fn a_record_that_lacks_only_its_newline_is_written() {
        let (mut output, taken) = scripted(&[Step::AtMost(7), Step::Full]);
        assert_eq!(output.write(&batch(0..2)), 1);
        assert_eq!(output.write(&batch(2..3)), 1);
        assert_eq!(*taken.lock().unwrap(), b"{\"n\":0}\n{\"n\":2}\n");
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..40).prop_map(Step::AtMost),
            1 => Just(Step::Interrupted),
            2 => Just(Step::Full),
        ]
    }

    proptest! {
        #[test]
        fn whatever_fails_the_count_of_records_written_is_the_count_of_whole_lines(
            script in proptest::collection::vec(step(), 0..30),
            sizes in proptest::collection::vec(1u64..6, 1..15),
        ) {
            let (mut output, taken) = scripted(&script);
            let mut first = 0;
            let mut written = 0;
            for size in sizes {
                written += output.write(&batch(first..first + size));
                first += size;
            }
            let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
            let read: Vec<u64> = text
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["n"].as_u64())
                .collect();
            prop_assert_eq!(read.len() as u64, written);
            prop_assert!(read.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn half_a_line_left_by_a_killed_gateway_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        std::fs::write(&path, "{\"n\":7}\n{\"n").unwrap();
        let mut output = Output::file(&path).unwrap();
        assert_eq!(output.write(&batch(0..1)), 1);
        drop(output);
        let mut output = Output::file(&path).unwrap();
        assert_eq!(output.write(&batch(1..2)), 1);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"n\":7}\n{\"n\n{\"n\":0}\n{\"n\":1}\n");
    }
}
