//! `scoregate store`: check it, copy it, change its wrapping key; through a running gateway, or in the folder of one that
//! is not running.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::manage::{Format, Target};
use crate::store::seal::{rekey, verify};
use crate::store::wrapping::{KeyOrigin, LoadedKey, WrappingKeySource};
use crate::store::{CheckReport, EmbeddedStore, FILE_NAME, Store as _, StoreError};

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Read every row and compare all checksums
    Check {
        /// Folder of the store (store.path of the configuration), or a copy of its file [default: ask the running gateway]
        #[arg(long, value_name = "PATH")]
        path: Option<PathBuf>,
    },
    /// Copy it, as it is at one moment, to a new file; the wrapping key is not in it and is to be kept elsewhere
    Backup {
        /// Folder of the store [default: the running gateway makes the copy, in its store's folder]
        #[arg(long, value_name = "PATH", requires = "to")]
        path: Option<PathBuf>,
        /// The copy; must not be there
        #[arg(long, value_name = "FILE", requires = "path")]
        to: Option<PathBuf>,
    },
    /// Wrap all data keys with another key, in one change; their secrets stay as they are; the gateway must not be running
    Rekey {
        /// Folder of the store
        #[arg(long, value_name = "PATH")]
        path: PathBuf,
        /// The key now: file:PATH, env:NAME or exec:COMMAND [default: wrapping.key beside the store]
        #[arg(long, value_name = "SOURCE")]
        key: Option<WrappingKeySource>,
        /// The key from now on; a file that is not there is made, with a new key
        #[arg(long, value_name = "SOURCE")]
        new_key: WrappingKeySource,
    },
}

/// Where the store is.
struct Place {
    path: PathBuf,
}

/// Does it; what is to be said goes to `out`, warnings to `err`.
///
/// # Errors
/// The store cannot be used, is damaged, or is open in a running gateway; writing failed.
pub(super) fn run(
    command: &StoreCommand,
    target: &Target,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    match command {
        StoreCommand::Check { path: None } => return target.session(out)?.check_store(),
        StoreCommand::Backup { path: None, .. } => return target.session(out)?.back_up_store(),
        StoreCommand::Check { path: Some(path) } => {
            let report = Place::of(path).open()?.check()?;
            match target.format() {
                Format::Table => table(&report, out)?,
                Format::Json => writeln!(out, "{}", document(&report))?,
            }
        }
        StoreCommand::Backup { path: Some(path), to } => {
            let to = to.as_deref().context("--to: where the copy is to go is missing")?;
            Place::of(path).open()?.backup(to)?;
            writeln!(out, "copied to {}; the wrapping key is not in it", to.display())?;
        }
        StoreCommand::Rekey { path, key, new_key } => {
            change_key(&Place::of(path), key.as_ref(), new_key, out, err)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Place {
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn file(&self) -> PathBuf {
        if self.path.is_dir() { self.path.join(FILE_NAME) } else { self.path.clone() }
    }

    /// The store that is there; makes none.
    fn open(&self) -> anyhow::Result<EmbeddedStore> {
        EmbeddedStore::open_file(&self.file()).map_err(|error| match error {
            StoreError::Locked(_) => {
                anyhow!("{error}; stop the gateway (check and backup can ask it: leave --path out)")
            }
            error => error.into(),
        })
    }
}

fn change_key(
    place: &Place,
    key: Option<&WrappingKeySource>,
    new_key: &WrappingKeySource,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<()> {
    let store = place.open()?;
    let beside = || WrappingKeySource::beside(place.file().parent().unwrap_or(&place.path));
    let old = said(key.cloned().unwrap_or_else(beside).read()?, out, err)?;
    // Only a key that is the right one makes a new one worth making.
    verify(&store, &old.key)?;
    let new = said(new_key.read_or_make()?, out, err)?;
    let count = rekey(&store, &old.key, &new.key)?;
    writeln!(
        out,
        "{count} data keys are wrapped with the key from {new_key} now: start the gateway with it. \
         Copies made before need the old key; keep it as long as them"
    )?;
    Ok(())
}

/// Says what is to be said about a key.
fn said(loaded: LoadedKey, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<LoadedKey> {
    if let Some(warning) = &loaded.warning {
        writeln!(err, "scoregate: warning: {warning}")?;
    }
    if let KeyOrigin::Generated(path) = &loaded.origin {
        writeln!(out, "made a new key in {}: without it the secrets in the store are lost", path.display())?;
    }
    Ok(loaded)
}

fn table(report: &CheckReport, out: &mut dyn Write) -> anyhow::Result<()> {
    for (name, rows) in &report.rows {
        writeln!(out, "{name:<24}{rows:>10} rows")?;
    }
    writeln!(out, "whole: {} bytes, last batch {}", report.bytes, report.version)?;
    Ok(())
}

fn document(report: &CheckReport) -> Value {
    let rows: Map<_, _> = report.rows.iter().map(|(name, rows)| ((*name).to_owned(), json!(rows))).collect();
    json!({ "rows": rows, "bytes": report.bytes, "version": report.version })
}
