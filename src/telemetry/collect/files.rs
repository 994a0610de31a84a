//! The files of what is collected, `FOLDER/SERVICE/YYYY-MM-DD.jsonl`: their size together, and how long they stay.
//!
//! A day that grows large goes on in `YYYY-MM-DD.1.jsonl` and so on, so that room can be made without losing a whole day. The
//! folder is the only memory: what is there is looked up when it matters, so that files may be moved or deleted by others at
//! any time. Whatever has another name is left alone and not counted.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::CollectionSettings;
use crate::catalog::ServiceName;

/// Bodies of calls: for their owner and group.
const FOLDER_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
/// The whole folder is so many parts; a part is the largest file and what is looked through for at once.
const PARTS: u64 = 16;
const SUFFIX: &str = ".jsonl";
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// The folder of all services.
pub(super) struct Folder {
    path: PathBuf,
    size: u64,
    keep: Duration,
    /// Bytes that may be written before the folder is looked through again.
    room: u64,
    /// The file that was written last.
    open: Option<Part>,
}

/// A file being written.
struct Part {
    service: Arc<str>,
    day: Date,
    file: File,
    len: u64,
}

/// A file that is there.
struct Found {
    day: Date,
    number: u32,
    len: u64,
    path: PathBuf,
}

impl Folder {
    /// Makes the folder if it is not there, and removes what is too much or too old at `now`.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub(super) fn open(settings: &CollectionSettings, now: OffsetDateTime) -> io::Result<Self> {
        let CollectionSettings { path, size, keep } = settings.clone();
        let mut folder = Self { path, size, keep, room: 0, open: None };
        folder.tidy(now)?;
        Ok(folder)
    }

    /// Appends `line`, which ends with a newline, to the file of `service` and `day`, wholly or not at all.
    ///
    /// # Errors
    /// The disk's, or there is no room to be made.
    pub(super) fn append(
        &mut self,
        (service, day): (&Arc<str>, Date),
        line: &[u8],
        now: OffsetDateTime,
    ) -> io::Result<()> {
        let len = line.len() as u64;
        if self.room < len {
            self.make_room(len, now)?;
        }
        let mut part = match self.open.take().filter(|part| part.takes(service, day, len, self.part_size())) {
            Some(part) => part,
            None => self.part(service, day, len)?,
        };
        part.append(line)?;
        // After an error the file is opened anew, which ends what is torn.
        self.open = Some(part);
        self.room -= len;
        Ok(())
    }

    /// Lets go of the file that was written last, so that it may be taken away.
    pub(super) fn rest(&mut self) {
        self.open = None;
    }

    /// Removes what is too old at `now`, and what is over the size.
    ///
    /// # Errors
    /// The folder cannot be read, or something cannot be removed.
    pub(super) fn tidy(&mut self, now: OffsetDateTime) -> io::Result<()> {
        self.make_room(0, now)
    }

    fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.path)
    }

    const fn part_size(&self) -> u64 {
        self.size / PARTS
    }

    /// Looks the folder through and removes files until a part fits, or `len` if that is more. The service that has most
    /// gives its oldest, so that one with many calls does not take the place of all others.
    fn make_room(&mut self, len: u64, now: OffsetDateTime) -> io::Result<()> {
        self.open = None;
        self.room = 0;
        let mut services = self.services(now)?;
        let wanted = len.max(self.part_size());
        let total = |found: &Vec<Found>| found.iter().map(|found| found.len).sum::<u64>();
        while services.iter().map(total).sum::<u64>() + wanted > self.size {
            let largest = services.iter_mut().max_by_key(|found| total(found));
            let Some(largest) = largest.filter(|found| !found.is_empty()) else {
                return Err(io::ErrorKind::StorageFull.into());
            };
            remove(&largest.remove(0).path)?;
        }
        self.room = wanted;
        Ok(())
    }

    /// The files of each service, the oldest first; those that are too old at `now` are gone.
    fn services(&self, now: OffsetDateTime) -> io::Result<Vec<Vec<Found>>> {
        self.create()?;
        let mut services = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // A volume's own folders may not be ours to read.
            if entry.file_name().to_str().is_none_or(|name| ServiceName::parse(name).is_err()) {
                continue;
            }
            let path = entry.path();
            let (old, kept): (Vec<_>, Vec<_>) =
                list(&path)?.into_iter().partition(|found| is_over(found.day, self.keep, now));
            for found in &old {
                remove(&found.path)?;
            }
            if kept.is_empty() && !old.is_empty() {
                // Somebody else's file in it keeps it.
                let _ = fs::remove_dir(&path);
            }
            services.push(kept);
        }
        Ok(services)
    }

    /// The file that the next `len` bytes of `service` and `day` go to.
    fn part(&self, service: &Arc<str>, day: Date, len: u64) -> io::Result<Part> {
        let folder = self.path.join(&**service);
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder)?;
        let last = list(&folder)?.into_iter().rfind(|found| found.day == day);
        let number = match last {
            Some(last) if last.len > 0 && last.len + len > self.part_size() => last.number + 1,
            Some(last) => last.number,
            None => 0,
        };
        Part::open(&folder.join(name(day, number)), Arc::clone(service), day)
    }
}

impl Part {
    fn open(path: &Path, service: Arc<str>, day: Date) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(FILE_MODE).open(path)?;
        let len = file.metadata()?.len();
        let mut part = Self { service, day, file, len };
        let mut last = [b'\n'];
        if len > 0 {
            part.file.read_exact_at(&mut last, len - 1)?;
        }
        if last != *b"\n" {
            // Half a line, left by a process that was killed or a disk that was full.
            part.append(b"\n")?;
        }
        Ok(part)
    }

    fn takes(&self, service: &Arc<str>, day: Date, len: u64, most: u64) -> bool {
        self.day == day && self.service == *service && self.len + len <= most
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes);
        match written {
            Ok(()) => self.len += bytes.len() as u64,
            // Takes back what was written of it, if the disk lets us.
            Err(_) => self.file.set_len(self.len).unwrap_or_default(),
        }
        written
    }
}

/// The files of one service in the order in which they were written; none if `folder` is no folder.
fn list(folder: &Path) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let Some((day, number)) = entry.file_name().to_str().and_then(parse) else { continue };
        let path = entry.path();
        // Taken away meanwhile.
        let Ok(file) = fs::metadata(&path) else { continue };
        found.insert((day, number), Found { day, number, len: file.len(), path });
    }
    Ok(found.into_values().collect())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether all that was begun on `day` has been kept long enough.
fn is_over(day: Date, keep: Duration, now: OffsetDateTime) -> bool {
    let end = day.next_day().map(|next| next.midnight().assume_utc());
    end.and_then(|end| end.checked_add(keep.try_into().ok()?)).is_some_and(|over| over <= now)
}

fn name(day: Date, number: u32) -> String {
    // A day of our era in a constant form.
    let day = day.format(DAY).unwrap_or_default();
    if number == 0 { format!("{day}{SUFFIX}") } else { format!("{day}.{number}{SUFFIX}") }
}

fn parse(name: &str) -> Option<(Date, u32)> {
    let stem = name.strip_suffix(SUFFIX)?;
    let (day, number) = stem.split_once('.').map_or((stem, None), |(day, number)| (day, Some(number)));
    let number = number.map_or(Some(0), |number| number.parse().ok().filter(|number| *number > 0))?;
    let day = Date::parse(day, DAY).ok()?;
    // Only as we would write it.
    (self::name(day, number) == name).then_some((day, number))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;
    use time::macros::{date, datetime};

    use super::*;

    const SIZE: u64 = 1600;
    const KEEP: Duration = Duration::from_secs(2 * 24 * 3600);
    const NOW: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);
    const TODAY: Date = date!(2026 - 11 - 29);

    fn open(dir: &TempDir) -> Folder {
        let settings = CollectionSettings { path: dir.path().join("collected"), size: SIZE, keep: KEEP };
        Folder::open(&settings, NOW).unwrap()
    }

    /// A line of `len` bytes.
    fn line(number: usize, len: usize) -> Vec<u8> {
        format!("{number:0width$}\n", width = len - 1).into_bytes()
    }

    fn append(folder: &mut Folder, service: &str, day: Date, line: &[u8]) {
        folder.append((&service.into(), day), line, NOW).unwrap();
    }

    /// The names of all files with their sizes.
    fn files(dir: &TempDir) -> Vec<(String, u64)> {
        let root = dir.path().join("collected");
        let mut all = Vec::new();
        for service in fs::read_dir(&root).unwrap() {
            for file in fs::read_dir(service.unwrap().path()).unwrap() {
                let file = file.unwrap();
                let name = file.path().strip_prefix(&root).unwrap().display().to_string();
                all.push((name, file.metadata().unwrap().len()));
            }
        }
        all.sort();
        all
    }

    fn names(dir: &TempDir) -> Vec<String> {
        files(dir).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn each_service_and_day_has_a_file_for_owner_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(&dir);
        let tomorrow = TODAY.next_day().unwrap();
        for (service, day) in [("iris", TODAY), ("wine", TODAY), ("iris", tomorrow), ("iris", TODAY)] {
            append(&mut folder, service, day, b"{}\n");
        }
        let expected =
            [("iris/2026-11-29.jsonl", 6), ("iris/2026-11-30.jsonl", 3), ("wine/2026-11-29.jsonl", 3)];
        assert_eq!(files(&dir), expected.map(|(name, len)| (name.to_owned(), len)));
        let mode = |path: &str| {
            fs::metadata(dir.path().join("collected").join(path)).unwrap().permissions().mode() & 0o777
        };
        for (path, most) in [("", 0o750), ("iris", 0o750), ("iris/2026-11-29.jsonl", 0o640)] {
            assert_eq!(mode(path) & !most, 0, "{path}");
        }
    }

    #[test]
    fn a_large_day_goes_on_in_further_files_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(&dir);
        for number in 0..3 {
            append(&mut folder, "iris", TODAY, &line(number, 60));
        }
        let mut folder = open(&dir);
        append(&mut folder, "iris", TODAY, &line(3, 40));
        append(&mut folder, "iris", TODAY, &line(4, 2));
        assert_eq!(
            files(&dir),
            [
                ("iris/2026-11-29.1.jsonl", 60),
                ("iris/2026-11-29.2.jsonl", 100),
                ("iris/2026-11-29.3.jsonl", 2),
                ("iris/2026-11-29.jsonl", 60)
            ]
            .map(|(name, len)| (name.to_owned(), len))
        );
    }

    #[test]
    fn the_size_is_never_exceeded_and_the_service_that_has_most_makes_the_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(&dir);
        append(&mut folder, "quiet", TODAY.previous_day().unwrap(), &line(0, 90));
        for number in 0..100 {
            append(&mut folder, "hot", TODAY, &line(number, 70));
            let total: u64 = files(&dir).iter().map(|(_, len)| len).sum();
            assert!(total <= SIZE, "{total}");
        }
        let names = names(&dir);
        assert!(names.contains(&"quiet/2026-11-28.jsonl".to_owned()), "{names:?}");
        // The newest are there, and most of the room is used.
        assert!(names.contains(&"hot/2026-11-29.99.jsonl".to_owned()), "{names:?}");
        assert!(names.len() > 18, "{names:?}");
        // A line larger than a part has a file of its own; one larger than all finds no room.
        append(&mut folder, "large", TODAY, &line(0, 1000));
        let left = files(&dir);
        assert!(left.iter().map(|(_, len)| len).sum::<u64>() <= SIZE);
        assert!(left.contains(&("large/2026-11-29.jsonl".to_owned(), 1000)));
        let error = folder.append((&"large".into(), TODAY), &line(0, 1601), NOW).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_is_too_old_goes_and_what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(&dir);
        for day in [date!(2026 - 11 - 26), date!(2026 - 11 - 27), TODAY] {
            append(&mut folder, "iris", day, b"{}\n");
        }
        append(&mut folder, "wine", date!(2026 - 11 - 26), b"{}\n");
        let root = dir.path().join("collected");
        for name in ["iris/2026-11-01.txt", "iris/2026-11-01.0.jsonl", "iris/notes.jsonl"] {
            fs::write(root.join(name), "x").unwrap();
        }
        fs::write(root.join("README"), "x").unwrap();
        fs::create_dir(root.join("lost+found")).unwrap();
        fs::write(root.join("lost+found/2026-11-01.jsonl"), "x").unwrap();
        let others = ["iris/2026-11-01.0.jsonl", "iris/2026-11-01.txt"];
        // The 26th was over at midnight of the 27th.
        folder.tidy(datetime!(2026-11-28 23:59:59 UTC)).unwrap();
        fs::remove_file(root.join("README")).unwrap();
        assert_eq!(names(&dir).len(), 8);
        folder.tidy(datetime!(2026-11-29 0:00 UTC)).unwrap();
        let rest = [
            "iris/2026-11-27.jsonl",
            "iris/2026-11-29.jsonl",
            "iris/notes.jsonl",
            "lost+found/2026-11-01.jsonl",
        ];
        assert_eq!(names(&dir), [&others[..], &rest[..]].concat());
        assert!(!root.join("wine").exists());
    }

    #[test]
    fn files_may_be_taken_away_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(&dir);
        append(&mut folder, "iris", TODAY, b"{}\n");
        folder.rest();
        fs::remove_dir_all(dir.path().join("collected")).unwrap();
        append(&mut folder, "iris", TODAY, b"{}\n");
        assert_eq!(files(&dir), [("iris/2026-11-29.jsonl".to_owned(), 3)]);
    }

    #[test]
    fn half_a_line_is_ended_and_a_line_is_written_wholly_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(&dir);
        let path = dir.path().join("collected/iris/2026-11-29.jsonl");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"half").unwrap();
        append(&mut folder, "iris", TODAY, b"{}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\n{}\n");

        let full = dir.path().join("collected/wine/2026-11-29.jsonl");
        fs::create_dir(full.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();
        let error = folder.append((&"wine".into(), TODAY), b"{}\n", NOW).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        append(&mut folder, "iris", TODAY, b"{}\n");
    }

    #[test]
    fn only_names_that_we_would_write_are_ours() {
        assert_eq!(parse("2026-11-29.jsonl"), Some((TODAY, 0)));
        assert_eq!(parse("2026-11-29.12.jsonl"), Some((TODAY, 12)));
        for other in [
            "2026-11-29.0.jsonl",
            "2026-11-29.01.jsonl",
            "2026-11-31.jsonl",
            "2026-11-29",
            "x.jsonl",
            ".jsonl",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
