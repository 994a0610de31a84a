//! `scoregate check`: does all that a start does with the configuration, opens no port and sends nothing.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::control::config::{Source, load};

/// Checks the configuration at `path` (`-`: standard input). Problems and warnings go to `err`, one a line; `OK` with
/// what was found goes to `out`. Exit code 0 if it may be used, with warnings or not; else 1.
///
/// # Errors
/// Writing failed.
pub(super) fn run(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    match load(&Source::path(path)) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(err, "{warning}")?;
            }
            writeln!(
                out,
                "OK: {} (listeners: {}, services: {}, warnings: {})",
                path.display(),
                loaded.config.listeners.len(),
                loaded.config.services.len(),
                loaded.warnings.len(),
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            writeln!(err, "{problems}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit code, standard output and standard error, file names without their folder.
    fn check(text: &str) -> (ExitCode, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway.yaml");
        std::fs::write(&file, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&file, &mut out, &mut err).unwrap();
        let text = |bytes: Vec<u8>| {
            let folder = format!("{}/", dir.path().display());
            String::from_utf8(bytes).unwrap().replace(&folder, "")
        };
        (code, text(out), text(err))
    }

    #[test]
    fn a_good_file_is_ok_and_its_warnings_are_told() {
        let (code, out, err) = check(
            "version: scoregate/v1\nlisteners: [{name: one, address: '127.0.0.1:0', plaintext: true}]\n",
        );
        assert_eq!(code, ExitCode::SUCCESS);
        assert_eq!(out, "OK: gateway.yaml (listeners: 1, services: 0, warnings: 1)\n");
        assert_eq!(
            err,
            "gateway.yaml:1:1: warning: services: lists no service: every call will be answered 404; add one\n"
        );
    }

    #[test]
    fn a_bad_file_fails_with_every_problem() {
        let (code, out, err) = check("version: scoregate/v1\nlisteners: []\nservice: []\n");
        assert_eq!(code, ExitCode::FAILURE);
        assert_eq!(out, "");
        assert_eq!(err.lines().count(), 3, "{err}");
    }
}
