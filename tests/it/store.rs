//! The embedded store from outside: a process that is killed at any moment, and `scoregate store`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use scoregate::store::seal::{EnvelopeSealer, Sealer as _};
use scoregate::store::wrapping::WrappingKeySource;
use scoregate::store::{Batch, EmbeddedStore, FILE_NAME, Order, Range, Store, Table};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;

/// Names the folder of the store to the process that is killed.
const FOLDER: &str = "SCOREGATE_TEST_STORE";
/// In front of the number of each batch that was answered.
const ANSWERED: &str = "answered ";
/// How often it is killed.
const KILLS: usize = 30;

/// Batch `number`: three rows that belong together, one of them larger than a page.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Services, "count", number.to_string());
    batch.put(Table::Keys, "count", number.to_string());
    batch.put(Table::Activity, number.to_be_bytes(), vec![0x55; 5000]);
    batch
}

/// How many batches `store` has, each of them wholly.
fn whole_batches(store: &EmbeddedStore) -> u64 {
    let count = |table| {
        let row = store.get(table, b"count").unwrap();
        row.map_or(0, |row| String::from_utf8(row.value).unwrap().parse::<u64>().unwrap())
    };
    let last = count(Table::Services);
    assert_eq!(count(Table::Keys), last, "half a batch");
    let all =
        Range { table: Table::Activity, prefix: b"", after: None, limit: usize::MAX, order: Order::Forwards };
    let numbers: Vec<_> = store.scan(&all).unwrap().into_iter().map(|row| row.key).collect();
    let expected: Vec<_> = (1..=last).map(|number| number.to_be_bytes().to_vec()).collect();
    assert_eq!(numbers, expected);
    assert_eq!(store.check().unwrap().version, last);
    last
}

#[test]
#[ignore = "is the process that the next test kills"]
fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = EmbeddedStore::open(Path::new(&folder)).unwrap();
    for number in whole_batches(&store) + 1.. {
        store.commit(batch(number)).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{ANSWERED}{number}").unwrap();
        out.flush().unwrap();
    }
}

fn writer(folder: &Path) -> Child {
    let mut writer = Command::new(std::env::current_exe().unwrap());
    writer.args(["--exact", "store::writes_until_it_is_killed", "--ignored", "--nocapture"]);
    writer.env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

#[test]
fn a_process_killed_at_any_moment_leaves_all_answered_batches_and_no_half_one() {
    let dir = TempDir::new().unwrap();
    let mut answered = 0;
    for kill in 0..KILLS {
        let mut child = writer(dir.path());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut note = |line: &str| {
            if let Some(number) = line.trim_end().strip_prefix(ANSWERED) {
                answered = number.parse::<u64>().unwrap();
            }
        };
        // Some while they open the store, most after a few answers, all a little later than that.
        let mut line = String::new();
        for _ in 0..if kill % 5 == 0 { 0 } else { fastrand::usize(4..12) } {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended by itself");
            note(&line);
        }
        std::thread::sleep(Duration::from_micros(fastrand::u64(
            0..if kill % 5 == 0 { 60_000 } else { 3_000 },
        )));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        rest.lines().for_each(&mut note);

        let found = whole_batches(&EmbeddedStore::open(dir.path()).unwrap());
        assert!(
            (answered..=answered + 1).contains(&found),
            "kill {kill}: {answered} answered, {found} there"
        );
        answered = found;
    }
    assert!(answered > 50, "only {answered} batches were made");
}

/// What a command left behind.
#[derive(Debug)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

/// One call of the binary in `dir`; knows `KEY` and where programs are.
fn scoregate(dir: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoregate"));
    command.args(arguments).current_dir(dir).env_clear().stdin(Stdio::null());
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.env("KEY", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// Opens the store in `dir/data` with the key of `source`.
fn sealer(dir: &Path, source: &WrappingKeySource) -> EnvelopeSealer {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&dir.join("data")).unwrap());
    let key = source.load(&*store).unwrap().key;
    EnvelopeSealer::new(store, &key).unwrap()
}

/// A folder with a store in `data` that has one secret, and the secret sealed.
fn folder() -> (TempDir, Vec<u8>) {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let sealed =
        sealer(dir.path(), &WrappingKeySource::beside(&data)).seal("ws", "place", b"secret").unwrap();
    (dir, sealed)
}

#[test]
fn store_check_reads_the_store_and_its_copy() {
    let (dir, _) = folder();
    let done = scoregate(dir.path(), &["store", "check", "--path", "data", "--output", "json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let report: Value = serde_json::from_str(&done.out).unwrap();
    // The row of the wrapping key and one data key, in two batches.
    assert_eq!((&report["rows"]["meta"], &report["version"]), (&2.into(), &2.into()));
    assert_eq!(report["bytes"], fs::metadata(dir.path().join("data").join(FILE_NAME)).unwrap().len());

    let done = scoregate(dir.path(), &["store", "backup", "--path", "data", "--to", "copy"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(fs::metadata(dir.path().join("copy")).unwrap().permissions().mode() & 0o777, 0o600);
    let done = scoregate(dir.path(), &["store", "check", "--path", "copy"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("meta") && done.out.contains("last batch 2"), "{done:?}");

    let done = scoregate(dir.path(), &["store", "backup", "--path", "data", "--to", "copy"]);
    assert!(done.code == 1 && done.err.contains("copy") && done.out.is_empty(), "{done:?}");
}

#[test]
fn store_check_makes_no_store_and_finds_damage() {
    let (dir, _) = folder();
    let done = scoregate(dir.path(), &["store", "check", "--path", "dat"]);
    assert!(done.code == 1 && done.err.contains("dat"), "{done:?}");
    assert!(!dir.path().join("dat").exists());

    let file = dir.path().join("data").join(FILE_NAME);
    let mut bytes = fs::read(&file).unwrap();
    let secret = bytes.windows(11).position(|window| window == b"data-key/ws").unwrap();
    bytes[secret] ^= 1;
    fs::write(&file, bytes).unwrap();
    let done = scoregate(dir.path(), &["store", "check", "--path", "data"]);
    assert!(
        done.code == 1 && done.err.contains("damaged") && done.err.contains("restore a backup"),
        "{done:?}"
    );
}

#[test]
fn store_commands_tell_that_the_gateway_has_it_open() {
    let (dir, _) = folder();
    let _running = EmbeddedStore::open(&dir.path().join("data")).unwrap();
    let commands: [&[&str]; 3] = [
        &["store", "check", "--path", "data"],
        &["store", "backup", "--path", "data", "--to", "copy"],
        &["store", "rekey", "--path", "data", "--new-key", "file:new.key"],
    ];
    for arguments in commands {
        let done = scoregate(dir.path(), arguments);
        assert!(done.code == 1 && done.err.contains("stop the gateway"), "{done:?}");
    }
    assert!(!dir.path().join("copy").exists() && !dir.path().join("new.key").exists());
}

#[test]
fn store_rekey_goes_from_file_to_variable_to_command_to_file() {
    let (dir, sealed) = folder();
    let text = fs::read_to_string(dir.path().join("data/wrapping.key")).unwrap();
    fs::write(dir.path().join("vault"), "echo AAECAwQFBgcICQoLDA0OD/Dx8vP09fb3+Pn6+/z9/v8=").unwrap();
    let wrong = scoregate(
        dir.path(),
        &["store", "rekey", "--path", "data", "--key", "env:KEY", "--new-key", "file:new.key"],
    );
    assert!(wrong.code == 1 && wrong.err.contains("not the key"), "{wrong:?}");
    assert!(!dir.path().join("new.key").exists(), "a key was made for nothing");

    let steps = [
        ("file:data/wrapping.key", "env:KEY"),
        ("env:KEY", "exec:sh vault"),
        ("exec:sh vault", "file:new.key"),
    ];
    for (old, new) in steps {
        let done =
            scoregate(dir.path(), &["store", "rekey", "--path", "data", "--key", old, "--new-key", new]);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.out.contains("1 data keys"), "{done:?}");
        let again =
            scoregate(dir.path(), &["store", "rekey", "--path", "data", "--key", old, "--new-key", new]);
        assert_eq!(again.code, 1, "{again:?}");
        for output in [&done.out, &done.err, &again.err] {
            let keys = [text.trim_end(), "000102030405", "AAECAwQFBgcICQoLDA0OD"];
            assert!(keys.iter().all(|key| !output.contains(key)), "a key is shown: {output}");
        }
    }
    assert_eq!(fs::metadata(dir.path().join("new.key")).unwrap().permissions().mode() & 0o777, 0o600);
    let now = sealer(dir.path(), &WrappingKeySource::File(dir.path().join("new.key")));
    assert_eq!(now.open("ws", "place", &sealed).unwrap().expose_secret(), b"secret");
}
