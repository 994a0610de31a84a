//! Notices that a file of the configuration has changed, however it was changed.
//!
//! By looking, not by listening: `stat` follows the symlinks that Kubernetes swaps, sees a rename as well as an
//! overwrite, and works on the network volumes that send no events. A few dozen `stat` calls a second cost nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reload::Reloader;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// A refused configuration is tried again at every so many looks.
const LOOKS_PER_RETRY: u32 = 10;

/// Reloads whenever the files have changed and then stayed the same for half a second: a certificate and its key are
/// written one after the other. Never returns.
pub async fn watch(reloader: Arc<Reloader>) {
    // As if nothing had been loaded: what changed between the start and the first look is found by the first reload, which
    // mostly finds nothing new.
    let mut loaded = BTreeMap::new();
    let mut last = look(&reloader.files());
    let mut looks = 0_u32;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = look(&reloader.files());
        let settled = now == last;
        last = now;
        looks += 1;
        // A refused configuration may name a file that nobody watches yet, and that comes only now.
        let retries = looks.is_multiple_of(LOOKS_PER_RETRY) && reloader.status().error.is_some();
        if settled && (last != loaded || retries) {
            // As it looked before the reload: what changes while that reads is seen at the next look. So is another list
            // of files, at the price of one reload that finds nothing new.
            loaded.clone_from(&last);
            let reloader = Arc::clone(&reloader);
            if let Err(error) = tokio::task::spawn_blocking(move || reloader.reload()).await {
                tracing::error!(%error, "the reload failed");
            }
        }
    }
}

/// What tells one state of a file from another; `None`: it is not there.
type Look = Option<(u64, u64, u64, i64, i64)>;

fn look(files: &[PathBuf]) -> BTreeMap<PathBuf, Look> {
    let look = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    files.iter().map(|path| (path.clone(), look(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (file, data) = (dir.path().join("config.yaml"), dir.path().join("..data"));
        std::fs::create_dir(dir.path().join("v1")).unwrap();
        std::fs::create_dir(dir.path().join("v2")).unwrap();
        for version in ["v1", "v2"] {
            std::fs::write(dir.path().join(version).join("config.yaml"), "same").unwrap();
        }
        std::os::unix::fs::symlink("v1", &data).unwrap();
        std::os::unix::fs::symlink("..data/config.yaml", &file).unwrap();
        let files = [file.clone()];
        let before = look(&files);
        assert_eq!(before, look(&files));

        // The symlink swap of a Kubernetes ConfigMap.
        std::os::unix::fs::symlink("v2", dir.path().join("..tmp")).unwrap();
        std::fs::rename(dir.path().join("..tmp"), &data).unwrap();
        let swapped = look(&files);
        assert_ne!(before, swapped);

        std::fs::write(&file, "overwritten").unwrap();
        let overwritten = look(&files);
        assert_ne!(swapped, overwritten);

        std::fs::write(dir.path().join("new"), "overwritten").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        let renamed = look(&files);
        assert_ne!(overwritten, renamed);

        std::fs::remove_file(&file).unwrap();
        assert_ne!(renamed, look(&files));
    }
}
