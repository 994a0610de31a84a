//! The login file: which gateway, which token. Only its owner can read it.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// Where the login file is, if not in the user's configuration folder.
const FILE: &str = "SCOREGATE_LOGIN_FILE";

/// What a login leaves behind.
pub(super) struct Profile {
    /// Management address.
    pub endpoint: String,
    /// PEM text of its certificate authority.
    pub ca: Option<String>,
    /// Workspace of commands that name none.
    pub workspace: Option<String>,
    /// The management token.
    pub token: SecretString,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    endpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    token: String,
}

impl Profile {
    /// What the last login left, if there was one.
    ///
    /// # Errors
    /// The file is there but cannot be read or understood.
    pub fn load() -> anyhow::Result<Option<Self>> {
        let Some(path) = path() else { return Ok(None) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => bail!("{}: {error}", path.display()),
        };
        let stored: Stored = serde_json::from_str(&text)
            .with_context(|| format!("{} is no login file; log in again", path.display()))?;
        Ok(Some(Self {
            endpoint: stored.endpoint,
            ca: stored.ca,
            workspace: stored.workspace,
            token: stored.token.into(),
        }))
    }

    /// Keeps the login; replaces the file as a whole. Returns its path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        let path =
            path().with_context(|| format!("there is no home folder for the login file; set {FILE}"))?;
        let folder = path.parent().context("the login file needs a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let stored = Stored {
            endpoint: self.endpoint.clone(),
            ca: self.ca.clone(),
            workspace: self.workspace.clone(),
            token: self.token.expose_secret().to_owned(),
        };
        let new = path.with_extension("new");
        // A rest of an interrupted login would keep its own mode.
        let _ = std::fs::remove_file(&new);
        let mut file = owners_only(&new).with_context(|| format!("{} cannot be made", new.display()))?;
        file.write_all(&serde_json::to_vec_pretty(&stored)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path).with_context(|| format!("{} cannot be replaced", path.display()))?;
        Ok(path)
    }
}

fn owners_only(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(FILE).or_else(|| {
        let folder = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
        Some(folder.join("scoregate").join("login.json"))
    })
}
