//! What a configuration is read from: its text, the environment, and the files that it names.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

/// Largest file read, in bytes; a configuration of ten thousand services has about 5 MiB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Where a configuration comes from.
#[derive(Clone)]
pub struct Source {
    input: Input,
    variables: BTreeMap<String, String>,
}

#[derive(Clone)]
enum Input {
    File(PathBuf),
    Stdin,
    Text { name: String, folder: PathBuf, text: String },
}

impl Source {
    /// A file, or standard input for `-`, with the environment of this process. Standard input can be read once only.
    #[must_use]
    pub fn path(path: &Path) -> Self {
        let input = if path == Path::new("-") { Input::Stdin } else { Input::File(path.to_owned()) };
        // A variable that is not Unicode can neither override nor be a secret.
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { input, variables }
    }

    /// A text at hand, called `name` in problems, with relative paths in `folder` and an empty environment.
    #[must_use]
    pub fn text(name: &str, folder: &Path, text: impl Into<String>) -> Self {
        Self {
            input: Input::Text { name: name.to_owned(), folder: folder.to_owned(), text: text.into() },
            variables: BTreeMap::new(),
        }
    }

    /// The same with another environment.
    #[must_use]
    pub fn with_variables(mut self, variables: BTreeMap<String, String>) -> Self {
        self.variables = variables;
        self
    }

    /// The file, if it is one that can be read again.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.input {
            Input::File(path) => Some(path),
            Input::Stdin | Input::Text { .. } => None,
        }
    }

    /// What problems call it.
    pub(super) fn name(&self) -> String {
        match &self.input {
            Input::File(path) => path.display().to_string(),
            Input::Stdin => "-".to_owned(),
            Input::Text { name, .. } => name.clone(),
        }
    }

    pub(super) const fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The text, and the ledger of files that starts with it.
    pub(super) fn read(&self) -> io::Result<(String, Files)> {
        match &self.input {
            Input::File(path) => {
                let mut files = Files::new(path.parent().unwrap_or(Path::new("")));
                let bytes = files.read(path)?;
                Ok((utf8(&bytes)?, files))
            }
            Input::Stdin => {
                let bytes = bounded(io::stdin().lock())?;
                let mut files = Files::new(Path::new(""));
                files.text = Some(sha256(&bytes));
                Ok((utf8(&bytes)?, files))
            }
            Input::Text { folder, text, .. } => {
                let mut files = Files::new(folder);
                files.text = Some(sha256(text.as_bytes()));
                Ok((text.clone(), files))
            }
        }
    }
}

/// Without the environment, which holds secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.name()).finish()
    }
}

/// SHA-256 over the contents of `files`, in hex, to notice changes. A file that cannot be read counts with that fact, so
/// that its appearance is a change too. Of the
/// files of a configuration that was read from a file it is [`super::Loaded::hash`] as long as nothing changed.
#[must_use]
pub fn content_hash(files: &[PathBuf]) -> String {
    let digests = files.iter().map(|path| (path.clone(), digest_of(path))).collect();
    hash(None, &digests)
}

type Digest = Option<[u8; 32]>;

/// The files that one load reads, each with the digest of its content. The digest is taken before (or of) the read that
/// counts: a change in between is then seen as a change later and never missed.
pub(super) struct Files {
    folder: PathBuf,
    /// The configuration itself where it is no file.
    text: Digest,
    digests: BTreeMap<PathBuf, Digest>,
}

impl Files {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), text: None, digests: BTreeMap::new() }
    }

    /// The path that the configuration means by `path`.
    pub fn locate(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Takes a file into the ledger that somebody else is about to read.
    pub fn note(&mut self, path: &str) -> PathBuf {
        let path = self.locate(path);
        if !self.digests.contains_key(&path) {
            self.digests.insert(path.clone(), digest_of(&path));
        }
        path
    }

    /// Takes a file into the ledger and reads it.
    pub fn read(&mut self, path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
        let content = File::open(path).and_then(bounded);
        self.digests.entry(path.to_owned()).or_insert_with(|| {
            let content = content.as_ref().ok()?;
            Some(sha256(content))
        });
        content
    }

    pub fn hash(&self) -> String {
        hash(self.text, &self.digests)
    }

    pub fn into_paths(self) -> Vec<PathBuf> {
        self.digests.into_keys().collect()
    }
}

fn bounded(reader: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    reader.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(content)
}

fn utf8(bytes: &[u8]) -> io::Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| io::Error::other("it is not UTF-8"))
}

fn digest_of(path: &Path) -> Digest {
    let content = File::open(path).and_then(bounded).ok()?;
    Some(sha256(&content))
}

fn hash(text: Digest, digests: &BTreeMap<PathBuf, Digest>) -> String {
    let mut context = Context::new(&SHA256);
    if let Some(text) = text {
        context.update(&text);
    }
    for (path, digest) in digests {
        // Both parts have a length of their own or a fixed one, so that no two ledgers are the same bytes.
        context.update(&sha256(path.as_os_str().as_encoded_bytes()));
        context.update(&digest.unwrap_or_default());
    }
    let mut text = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_hash_follows_every_file_and_its_appearance() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("gateway.yaml");
        fs::write(&config, "text").unwrap();
        let (text, mut files) = Source::path(&config).read().unwrap();
        assert_eq!(text, "text");
        let key = files.note("key");
        let hash = files.hash();
        let paths = files.into_paths();
        assert_eq!(paths, [config, key.clone()]);
        assert_eq!(content_hash(&paths), hash);
        fs::write(&key, "").unwrap();
        let appeared = content_hash(&paths);
        fs::write(&key, "secret").unwrap();
        let written = content_hash(&paths);
        assert!(hash != appeared && appeared != written && hash != written);
        assert_eq!(hash.len(), 64);
    }
}
