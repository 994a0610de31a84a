//! Files that are there wholly or not at all: drafted under a name of their own, published under the name they are for.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file, readable by its owner alone, that nobody looks for yet. Dropping it removes it.
pub(super) struct Draft {
    path: PathBuf,
    target: PathBuf,
}

impl Draft {
    /// An empty file beside `target`, and it opened for reading and writing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn beside(target: &Path) -> io::Result<(Self, File)> {
        let mut name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        name.push(format!(".{:016x}.draft", fastrand::u64(..)));
        let path = target.with_file_name(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((Self { path, target: target.to_owned() }, file))
    }

    /// Gives it its name, for good: when this returns, it is there after a crash of the machine.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if there is something of that name, which stays as it is.
    pub fn publish(self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        // Unlike a rename, a link does not replace what is there.
        match fs::hard_link(&self.path, &self.target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // No links here (FAT, some network and user-space file systems).
            Err(_) if self.target.symlink_metadata().is_ok() => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Err(_) => fs::rename(&self.path, &self.target)?,
        }
        let target = self.target.clone();
        drop(self);
        sync_folder_of(&target)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It was renamed, or a leftover that harms nobody remains.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the names in the folder of `path` outlive a crash of the machine.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
