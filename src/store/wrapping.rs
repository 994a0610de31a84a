//! The key that wraps all data keys: where it comes from, and making it at the first start.

mod command;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretBox};
use zeroize::{Zeroize as _, Zeroizing};

use super::file::Draft;
use super::seal::is_sealed;
use super::{Store, StoreError};

/// Name of the key file beside the store, if no other source is given.
pub const DEFAULT_FILE_NAME: &str = "wrapping.key";

/// Bytes of the key: AES-256.
pub(super) const KEY_BYTES: usize = 32;

/// Most bytes that a source may give; the key as text has 44 or 64, and a line end.
const MOST_BYTES: u64 = 4096;

/// Base64 with or without `=` at the end.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The key-encryption key: 32 bytes that are neither printed nor written anywhere but into a new key file.
pub struct WrappingKey(SecretBox<[u8; KEY_BYTES]>);

impl WrappingKey {
    /// A new random key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn generate() -> Result<Self, StoreError> {
        let mut filled = Ok(());
        let key = SecretBox::init_with_mut(|key: &mut [u8; KEY_BYTES]| filled = rand::fill(key));
        filled.map_err(|_| StoreError::Key("the system gives no random bytes".to_owned()))?;
        Ok(Self(key))
    }

    /// The key written as `text`: 64 hexadecimal digits, or base64 (both alphabets) of 32 bytes; spaces and line ends
    /// around it are not meant.
    ///
    /// # Errors
    /// What it should have been; never what it is.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = text.trim_ascii();
        let mut key = Box::new([0; KEY_BYTES]);
        if text.len() == 2 * KEY_BYTES && from_hex(text, &mut key).is_some() {
            return Ok(Self(SecretBox::new(key)));
        }
        let decoded = BASE64.decode(text).or_else(|_| BASE64_URL.decode(text)).map(Zeroizing::new);
        let length = text.len();
        match decoded {
            Ok(bytes) if bytes.len() == KEY_BYTES => {
                key.copy_from_slice(&bytes);
                Ok(Self(SecretBox::new(key)))
            }
            Ok(bytes) => Err(format!("it holds {} bytes in base64; the key has {KEY_BYTES}", bytes.len())),
            Err(_) => Err(format!(
                "its {length} characters are no key: write {KEY_BYTES} random bytes in base64 or hexadecimal \
                 (openssl rand -base64 {KEY_BYTES})"
            )),
        }
    }

    /// The bytes.
    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose_secret()
    }

    fn write(&self, file: &mut File) -> io::Result<()> {
        let mut text = STANDARD.encode(self.expose());
        let written = file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n"));
        text.zeroize();
        written
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappingKey(..)")
    }
}

fn from_hex(text: &[u8], key: &mut [u8; KEY_BYTES]) -> Option<()> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(())
}

/// Where the wrapping key is.
///
/// As text: `file:PATH`, `env:NAME`, `exec:PROGRAM ARGUMENT..` (split at spaces; a script does what needs quotes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrappingKeySource {
    /// In a file; made there, with mode 0600, if neither it nor anything sealed is there.
    File(PathBuf),
    /// In a variable of the environment.
    Env(String),
    /// A command with its arguments prints it: a vault's client, a KMS's. It has ten seconds.
    Exec(Vec<String>),
}

/// A key, and what is to be said about it.
#[derive(Debug)]
pub struct LoadedKey {
    /// The key.
    pub key: WrappingKey,
    /// How it was come by.
    pub origin: KeyOrigin,
    /// What the operator should change, if anything.
    pub warning: Option<String>,
}

/// How a key was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// It was there.
    Found,
    /// It has been made, in this file. To be said loudly: without it the store's secrets are lost.
    Generated(PathBuf),
}

impl WrappingKeySource {
    /// The source if none is given: a file beside the store in the folder `dir`.
    ///
    /// Whoever copies the whole folder has the key with the store; [`Store::backup`] copies the store alone.
    #[must_use]
    pub fn beside(dir: &Path) -> Self {
        Self::File(dir.join(DEFAULT_FILE_NAME))
    }

    /// The key for `store`; makes it if its file is not there and `store` has nothing sealed yet.
    ///
    /// # Errors
    /// [`StoreError::Key`], which names the source and never the key; another one if `store` cannot be read.
    pub fn load(&self, store: &dyn Store) -> Result<LoadedKey, StoreError> {
        match self {
            Self::File(path) if is_missing(path) && is_sealed(store)? => Err(StoreError::Key(format!(
                "{} is not there, and without it the secrets in the store cannot be read; \
                 put the key of this store back, or name its place",
                path.display()
            ))),
            _ => self.read_or_make(),
        }
    }

    /// A key to change to; makes it if its file is not there.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_or_make(&self) -> Result<LoadedKey, StoreError> {
        match self {
            Self::File(path) if is_missing(path) => make(path),
            _ => self.read(),
        }
    }

    /// The key, which must be there.
    ///
    /// # Errors
    /// [`StoreError::Key`], which names the source and never the key.
    pub fn read(&self) -> Result<LoadedKey, StoreError> {
        let (bytes, warning) = match self {
            Self::File(path) => (read_file(path), warning(path)),
            Self::Env(name) => (read_variable(name), None),
            Self::Exec(command) => (command::output(command, MOST_BYTES), None),
        };
        let key = bytes.and_then(|bytes| WrappingKey::parse(&bytes));
        let key = key.map_err(|problem| StoreError::Key(format!("{self}: {problem}")))?;
        Ok(LoadedKey { key, origin: KeyOrigin::Found, warning })
    }
}

impl fmt::Display for WrappingKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            // Arguments may hold a token.
            Self::Exec(command) => write!(f, "exec:{}", command.first().map_or("", String::as_str)),
        }
    }
}

impl FromStr for WrappingKeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let source = match text.split_once(':') {
            Some(("file", path)) => Self::File(PathBuf::from(path)),
            Some(("env", name)) => Self::Env(name.to_owned()),
            Some(("exec", command)) => Self::Exec(command.split_whitespace().map(str::to_owned).collect()),
            _ => return Err("write file:PATH, env:NAME or exec:COMMAND".to_owned()),
        };
        match &source {
            Self::File(path) if path.as_os_str().is_empty() => Err("names no file after file:".to_owned()),
            Self::Env(name) if name.is_empty() => Err("names no variable after env:".to_owned()),
            Self::Exec(command) if command.is_empty() => Err("names no command after exec:".to_owned()),
            _ => Ok(source),
        }
    }
}

fn is_missing(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Writes a new key to `path`, wholly or not at all, and never over another one.
fn make(path: &Path) -> Result<LoadedKey, StoreError> {
    let key = WrappingKey::generate()?;
    let written = Draft::beside(path).and_then(|(draft, mut file)| {
        key.write(&mut file)?;
        draft.publish()
    });
    match written {
        Ok(()) => Ok(LoadedKey { key, origin: KeyOrigin::Generated(path.to_owned()), warning: None }),
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            WrappingKeySource::File(path.to_owned()).read()
        }
        Err(error) => Err(StoreError::Key(format!(
            "{} cannot be made ({error}); make it, or name another place for the key",
            path.display()
        ))),
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let read = File::open(path).and_then(|file| {
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MOST_BYTES + 1).unwrap_or(0)));
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = read.map_err(|error| format!("it cannot be read ({error})"))?;
    bounded(bytes)
}

fn bounded(bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, String> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MOST_BYTES) {
        Ok(bytes)
    } else {
        Err(format!("it has more than {MOST_BYTES} bytes and is no key"))
    }
}

fn read_variable(name: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::env::var_os(name).ok_or("this environment variable is not set")?;
    bounded(Zeroizing::new(value.into_vec()))
}

/// What is wrong with the rights to the key file.
fn warning(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode();
    (mode & 0o006 != 0).then(|| {
        format!(
            "every user of this machine can read or change {}, the wrapping key; chmod o-rw",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests;
