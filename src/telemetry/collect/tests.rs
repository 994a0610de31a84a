//! The collection with its thread and its files: what is written, what is given up, and that each call is counted once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::catalog::ComputeType;
use crate::telemetry::Metrics;
use crate::telemetry::record::Record;

const LONG: Duration = Duration::from_secs(60);

/// A running collection with a folder of its own, and where its calls are counted.
struct Set {
    dir: TempDir,
    collection: Collection,
    metrics: Arc<Metrics>,
    counts: Arc<ServiceMetrics>,
}

impl Set {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keep = Duration::from_secs(36_500 * 24 * 3600);
        let settings = CollectionSettings { path: dir.path().join("a/b"), size: 16 << 20, keep };
        let collection = Collection::start(&settings).unwrap();
        let metrics = Metrics::new();
        let counts = metrics.service(&"iris".into(), ComputeType::Aks);
        Self { dir, collection, metrics, counts }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("a/b").join(name)
    }

    /// Collects a call that began at `time`, with `input`.
    fn call(&self, time: SystemTime, input: &[u8]) {
        let sink = self.collection.sink();
        let Some(ticket) = sink.begin(&self.counts) else { return };
        let mut payload = sink.payload(&HeaderMap::new(), 1 << 30);
        payload.see(input);
        let record = Record { time, ..Record::sample() };
        sink.hand_over(Sample::of(&record, ticket, Some(payload), None));
    }

    /// How many calls have each outcome: written, behind, failed.
    fn outcomes(&self) -> [u64; 3] {
        outcomes(&self.metrics)
    }
}

fn outcomes(metrics: &Metrics) -> [u64; 3] {
    let page = metrics.render();
    ["written", "behind", "failed"].map(|outcome| {
        let series = format!("scoregate_collected_total{{service=\"iris\",outcome=\"{outcome}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
    })
}

fn inputs(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["Input"].as_str().unwrap().to_owned()
    });
    lines.collect()
}

/// Seconds after midnight of 2026-11-25, UTC.
fn at(seconds: i64) -> SystemTime {
    (time::macros::datetime!(2026-11-25 0:00 UTC) + time::Duration::seconds(seconds)).into()
}

#[test]
fn a_call_goes_to_the_file_of_the_day_that_it_began_on() {
    let set = Set::start();
    for (number, seconds) in [-1, 0, -2, 1].into_iter().enumerate() {
        set.call(at(seconds), number.to_string().as_bytes());
    }
    let Set { dir, collection, metrics, .. } = set;
    collection.finish(LONG).unwrap();
    let path = |day: &str| dir.path().join("a/b/iris").join(day);
    assert_eq!(inputs(&path("2026-11-24.jsonl")), ["0", "2"]);
    assert_eq!(inputs(&path("2026-11-25.jsonl")), ["1", "3"]);
    assert_eq!(outcomes(&metrics), [4, 0, 0]);
}

#[test]
fn a_clock_gone_wild_harms_nothing() {
    let set = Set::start();
    set.call(SystemTime::UNIX_EPOCH - LONG, b"early");
    set.call(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40), b"late");
    let Set { dir, collection, metrics, .. } = set;
    collection.finish(LONG).unwrap();
    assert_eq!(inputs(&dir.path().join("a/b/iris/1970-01-01.jsonl")), ["early", "late"]);
    assert_eq!(outcomes(&metrics), [2, 0, 0]);
}

#[test]
fn what_finds_no_room_is_given_up_at_once_and_counted() {
    let set = Set::start();
    let sink = set.collection.sink();
    // A call that keeps more than there is.
    set.call(at(0), &vec![b'x'; MOST_BYTES]);
    assert_eq!(set.outcomes(), [0, 1, 0]);
    // As many calls under way as there can be, and one more.
    let mut tickets = Vec::new();
    while let Some(ticket) = sink.begin(&set.counts) {
        tickets.push(ticket);
        assert!(tickets.len() <= MOST_BYTES);
    }
    assert_eq!(set.outcomes(), [0, 2, 0]);
    // When they are over, the next one has its place.
    tickets.clear();
    set.call(at(0), b"fits");
    let Set { collection, metrics, .. } = set;
    collection.finish(LONG).unwrap();
    assert_eq!(outcomes(&metrics)[0], 1);
}

#[test]
fn a_body_of_many_pieces_takes_no_more_room_than_is_kept_of_it() {
    let set = Set::start();
    let sink = set.collection.sink();
    let mut payload = sink.payload(&HeaderMap::new(), 4096);
    (0..4 * MOST_BYTES / 4096).for_each(|_| payload.see(&[b'x'; 4096]));
    assert_eq!((payload.kept.len(), payload.passed, payload.is_truncated()), (4096, 64 << 20, true));
    let ticket = sink.begin(&set.counts).unwrap();
    assert!(Sample::of(&Record::sample(), ticket, Some(payload), None).is_whole());
}

#[test]
fn a_disk_that_fails_costs_the_copies_alone_and_is_used_again_when_it_works() {
    let set = Set::start();
    fs::create_dir(set.path("iris")).unwrap();
    symlink("/dev/full", set.path("iris/2026-11-25.jsonl")).unwrap();
    set.call(at(0), b"lost");
    set.call(at(-1), b"another file");
    let failed = |set: &Set| set.outcomes() == [1, 0, 1];
    let begun = Instant::now();
    while !failed(&set) {
        assert!(begun.elapsed() < LONG, "{:?}", set.outcomes());
        std::thread::yield_now();
    }
    fs::remove_file(set.path("iris/2026-11-25.jsonl")).unwrap();
    set.call(at(0), b"kept");
    let Set { dir, collection, metrics, .. } = set;
    collection.finish(LONG).unwrap();
    assert_eq!(inputs(&dir.path().join("a/b/iris/2026-11-25.jsonl")), ["kept"]);
    assert_eq!(outcomes(&metrics), [2, 0, 1]);
}

#[test]
fn what_comes_after_the_end_is_counted_too() {
    let set = Set::start();
    let (sink, counts, metrics) = (set.collection.sink(), Arc::clone(&set.counts), Arc::clone(&set.metrics));
    let ticket = sink.begin(&counts).unwrap();
    set.call(at(0), b"in time");
    set.collection.finish(LONG).unwrap();
    sink.hand_over(Sample::of(&Record::sample(), ticket, None, None));
    assert_eq!(outcomes(&metrics), [1, 1, 0]);
}

#[test]
fn a_folder_that_cannot_be_is_told_with_its_field() {
    let settings = crate::telemetry::TelemetrySettings {
        collection: Some(CollectionSettings { path: "/dev/null/x".into(), size: 16 << 20, keep: LONG }),
        ..Default::default()
    };
    let error =
        crate::telemetry::Telemetry::start(&settings, None, &Metrics::new()).err().unwrap().to_string();
    assert!(error.starts_with("telemetry.data_collection.path: /dev/null/x cannot be used"), "{error}");
}
