//! Secrets by reference: read from a file or the environment, checked, never shown.

use std::os::unix::fs::MetadataExt;

use http::HeaderValue;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::decode::At;
use super::document::PlaceId;
use super::raw::RawSecret;
use super::resolve::Resolver;

/// Shortest key that is taken without a warning, in characters: 96 bits if they are base64.
const SHORT_KEY: usize = 16;
/// Longest key, in characters: what fits into a request head beside everything else.
const MAX_KEY: usize = 4096;

/// What a secret is for decides which bytes it may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Sent by callers in a header: visible ASCII.
    Key,
    /// The value of a header field.
    Header,
    /// A PEM text.
    Pem,
    /// `Key=Value` parts with `;` between them.
    ConnectionString,
}

impl Resolver<'_> {
    /// Reads the secret that `reference` names; what is wrong goes to the report.
    pub(super) fn secret(&mut self, reference: &At<RawSecret>, purpose: Purpose) -> Option<SecretString> {
        let (at, bytes) = match (&reference.file, &reference.env) {
            (Some(file), None) => (file.at, self.secret_file(file)?),
            (None, Some(env)) => (env.at, self.secret_variable(env)?),
            (Some(_), Some(_)) => {
                self.report.error(reference.at, "has both 'file' and 'env'; keep one of them");
                return None;
            }
            (None, None) => {
                self.report.error(reference.at, "names no secret; write {file: PATH} or {env: NAME}");
                return None;
            }
        };
        let text = trimmed(&bytes);
        if let Some(problem) = refusal(text, purpose) {
            self.report.error(at, problem);
            return None;
        }
        if purpose == Purpose::Key && text.len() < SHORT_KEY {
            self.report.warning(
                at,
                format!(
                    "the key has fewer than {SHORT_KEY} characters and can be guessed; use a random one of 32 or more"
                ),
            );
        }
        String::from_utf8(text.to_vec()).ok().map(SecretString::from)
    }

    fn secret_file(&mut self, file: &At<String>) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.files.locate(file);
        match self.files.read(&path) {
            Ok(bytes) => {
                self.warn_if_readable_by_everybody(file.at, &path);
                Some(bytes)
            }
            Err(error) => {
                self.report.error(
                    file.at,
                    format!(
                        "secret file {} cannot be read ({error}); check the path and that this process may read it",
                        path.display()
                    ),
                );
                None
            }
        }
    }

    fn secret_variable(&mut self, env: &At<String>) -> Option<Zeroizing<Vec<u8>>> {
        let value = self.variables.get(env.value.as_str());
        if value.is_none() {
            self.report.error(env.at, "this environment variable is not set; set it or correct the name");
        }
        value.map(|value| Zeroizing::new(value.clone().into_bytes()))
    }

    fn warn_if_readable_by_everybody(&mut self, at: PlaceId, path: &std::path::Path) {
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0) {
            self.report
                .warning(at, format!("every user of this machine can read {}; chmod o-r", path.display()));
        }
    }
}

/// Editors and `echo` end a file with a line end that is not meant.
fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'\n' | b'\r'] = bytes {
        bytes = rest;
    }
    bytes
}

fn refusal(secret: &[u8], purpose: Purpose) -> Option<String> {
    if secret.is_empty() {
        return Some("the secret is empty; write one into it".to_owned());
    }
    match purpose {
        Purpose::Key if secret.len() > MAX_KEY => Some(format!(
            "the key has {} characters; the limit is {MAX_KEY}",
            secret.len()
        )),
        Purpose::Key if !secret.iter().all(u8::is_ascii_graphic) => Some(
            "the key holds bytes that a header cannot carry; use letters, digits and signs of ASCII without spaces"
                .to_owned(),
        ),
        Purpose::Header if secret.len() > MAX_KEY || HeaderValue::from_bytes(secret).is_err() => Some(format!(
            "the secret is no value of a header field of at most {MAX_KEY} bytes; write one line without control characters"
        )),
        Purpose::Pem if std::str::from_utf8(secret).is_err() => {
            Some("the secret is not text; give a PEM file".to_owned())
        }
        Purpose::ConnectionString if secret.len() > MAX_KEY || std::str::from_utf8(secret).is_err() => Some(
            format!("the secret is no text of at most {MAX_KEY} bytes; copy the connection string as Azure shows it"),
        ),
        Purpose::Key | Purpose::Header | Purpose::Pem | Purpose::ConnectionString => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_line_ends_at_the_end_are_dropped() {
        assert_eq!(trimmed(b"secret\r\n\n"), b"secret");
        assert_eq!(trimmed(b" secret "), b" secret ");
        assert_eq!(trimmed(b"\n"), b"");
    }

    #[test]
    fn a_key_must_fit_into_a_header() {
        let refused = |key: &[u8]| refusal(key, Purpose::Key);
        assert_eq!(refused(b"abcDEF123+/=_-."), None);
        for bad in [&b""[..], b"a b", b"a\tb", "schl\u{fc}ssel".as_bytes(), b"\0", &[b'a'; 4097]] {
            assert!(refused(bad).is_some(), "{bad:?}");
        }
        assert_eq!(refusal(b"-----BEGIN\nabc", Purpose::Pem), None);
    }
}
