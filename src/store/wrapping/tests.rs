//! The wrapping key from each of its places, and each way not to get it.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::store::MemoryStore;
use crate::store::seal::EnvelopeSealer;

const HEX: &str = "000102030405060708090a0b0c0d0e0fF0f1F2f3f4f5f6f7f8f9fafbfcfdfeff";
const TEXT: &str = "AAECAwQFBgcICQoLDA0OD/Dx8vP09fb3+Pn6+/z9/v8=";

fn exec(script: &str) -> WrappingKeySource {
    WrappingKeySource::Exec(vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()])
}

fn problem(source: &WrappingKeySource) -> String {
    match source.read() {
        Err(StoreError::Key(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_read_in_hexadecimal_and_base64() {
    let key = WrappingKey::parse(HEX.as_bytes()).unwrap();
    let url = TEXT.replace('/', "_").replace('+', "-");
    for text in [TEXT, TEXT.trim_end_matches('='), &url, &format!("  {HEX}\r\n"), &format!("{TEXT}\n")] {
        assert_eq!(WrappingKey::parse(text.as_bytes()).unwrap().expose(), key.expose(), "{text:?}");
    }
    let short = TEXT[4..].to_owned();
    for text in ["", "secret", &HEX[1..], &format!("{HEX}00"), &short, &TEXT.replace('A', "!")] {
        let refused = WrappingKey::parse(text.as_bytes()).unwrap_err();
        assert!(text.is_empty() || !refused.contains(text), "{refused}");
    }
    assert_eq!(format!("{key:?}"), "WrappingKey(..)");
    assert_ne!(WrappingKey::generate().unwrap().expose(), WrappingKey::generate().unwrap().expose());
}

#[test]
fn the_first_start_makes_a_key_that_the_second_one_finds() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(MemoryStore::default());
    let source = WrappingKeySource::beside(dir.path());
    let path = dir.path().join("wrapping.key");
    let made = source.load(&*store).unwrap();
    assert_eq!(made.origin, KeyOrigin::Generated(path.clone()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a draft was left");
    EnvelopeSealer::new(store.clone(), &made.key).unwrap();

    let found = source.load(&*store).unwrap();
    assert_eq!((found.origin, found.warning), (KeyOrigin::Found, None));
    assert_eq!(found.key.expose(), made.key.expose());

    // Lost: a new one would not open anything.
    fs::remove_file(&path).unwrap();
    match source.load(&*store) {
        Err(StoreError::Key(problem)) => assert!(problem.contains("wrapping.key is not there"), "{problem}"),
        other => panic!("{other:?}"),
    }
    assert!(!path.exists());
}

#[test]
fn a_key_is_never_made_over_what_is_there() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("wrapping.key");
    for content in ["", "half a k"] {
        fs::write(&path, content).unwrap();
        let refused = WrappingKeySource::File(path.clone()).load(&MemoryStore::default());
        assert!(matches!(refused, Err(StoreError::Key(_))), "{refused:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let missing = WrappingKeySource::File(dir.path().join("no/folder.key"));
    match missing.load(&MemoryStore::default()) {
        Err(StoreError::Key(problem)) => assert!(problem.contains("cannot be made"), "{problem}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_that_everybody_can_read_is_warned_about() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, TEXT).unwrap();
    for (mode, warned) in [(0o600, false), (0o440, false), (0o604, true), (0o602, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = WrappingKeySource::File(path.clone()).read().unwrap();
        assert_eq!(loaded.warning.is_some(), warned, "{mode:o}");
    }
}

#[test]
fn what_is_no_key_is_refused_without_being_shown() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, "hunter2".repeat(2000)).unwrap();
    let refused = problem(&WrappingKeySource::File(path.clone()));
    assert!(refused.contains("more than 4096 bytes") && !refused.contains("hunter2"), "{refused}");
    fs::write(&path, "hunter2").unwrap();
    let refused = problem(&WrappingKeySource::File(path.clone()));
    assert!(refused.contains("7 characters") && !refused.contains("hunter2"), "{refused}");
    assert!(problem(&WrappingKeySource::File(dir.path().to_owned())).contains("cannot be read"));
    let refused = problem(&WrappingKeySource::Env("SCOREGATE_NO_SUCH_VARIABLE".to_owned()));
    assert!(refused.contains("SCOREGATE_NO_SUCH_VARIABLE") && refused.contains("not set"), "{refused}");
}

#[test]
fn a_command_prints_the_key() {
    let key = exec(&format!("echo {TEXT}")).read().unwrap();
    assert_eq!(key.key.expose(), WrappingKey::parse(HEX.as_bytes()).unwrap().expose());
}

#[test]
fn a_command_that_fails_is_named_and_not_quoted() {
    let refused = problem(&exec("echo hunter2; exit 3"));
    assert!(refused.contains("exec:sh") && refused.contains("exit status: 3"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
    let refused = problem(&exec("kill -TERM $$"));
    assert!(refused.contains("signal: 15"), "{refused}");
    let refused = problem(&exec("echo hunter2"));
    assert!(refused.contains("no key") && !refused.contains("hunter2"), "{refused}");
    let refused =
        problem(&WrappingKeySource::Exec(vec!["/no/such/vault".to_owned(), "--token=hunter2".to_owned()]));
    assert!(refused.contains("/no/such/vault") && !refused.contains("hunter2"), "{refused}");
    assert!(problem(&WrappingKeySource::Exec(vec![])).contains("no command"));
}

#[test]
fn a_command_that_writes_on_is_stopped() {
    let refused = problem(&exec("exec yes"));
    assert!(refused.contains("more than 4096 bytes"), "{refused}");
}

#[test]
fn a_command_that_does_not_end_is_stopped() {
    // The second one closes its output and stays.
    for script in ["exec sleep 600", "exec sleep 600 >&-"] {
        let command = ["sh", "-c", script].map(str::to_owned);
        let refused = command::output_within(&command, MOST_BYTES, Duration::from_millis(50)).unwrap_err();
        assert!(refused.contains("not done within"), "{refused}");
    }
}

#[test]
fn a_source_is_written_with_its_kind_in_front() {
    let sources = [
        ("file:/run/kek", WrappingKeySource::File("/run/kek".into())),
        ("env:KEK", WrappingKeySource::Env("KEK".to_owned())),
        ("exec:vault  kv get", WrappingKeySource::Exec(["vault", "kv", "get"].map(str::to_owned).to_vec())),
    ];
    for (text, source) in sources {
        assert_eq!(text.parse(), Ok(source), "{text}");
    }
    for text in ["", "file:", "env:", "exec: ", "/run/kek", "vault:x"] {
        assert!(text.parse::<WrappingKeySource>().is_err(), "{text}");
    }
    assert_eq!(exec("echo secret").to_string(), "exec:sh");
}
