//! The spool as a whole: whatever is done to it and whatever the disk does, its counts add up, the order stays, and nothing
//! is lost or sent twice beyond what each mode allows.

mod folder;
mod sequences;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::seal::tests::key;
use super::*;
use crate::telemetry::settings::{SpoolEncryption, SpoolSettings};
use folder::{Fault, SimFolder};

const BATCH: BatchSize = BatchSize { records: 10, bytes: 4096 };
/// Small segments, so that there are many.
const LIMITS: Limits =
    Limits { bytes: 8192, memory_bytes: 2048, segment_bytes: 512, age: Duration::from_secs(3600) };

/// A spool over a simulated disk, at a time of its own.
struct Bench {
    folder: SimFolder,
    limits: Limits,
    encryption: SpoolEncryption,
    counts: Arc<ExporterCounts>,
    log: Log,
    now: SystemTime,
    next: u64,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self::of(limits, SpoolEncryption::None)
    }

    fn of(limits: Limits, encryption: SpoolEncryption) -> Self {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let (folder, counts) = (SimFolder::default(), Arc::default());
        folder.set_time(now);
        let log = open(&folder, limits, &counts, &with(encryption)).unwrap();
        Self { folder, limits, encryption, counts, log, now, next: 0 }
    }

    /// The next process after this one was killed.
    fn killed(self) -> Self {
        self.folder.close();
        let counts = Arc::default();
        let log = open(&self.folder, self.limits, &counts, &with(self.encryption)).unwrap();
        Self { counts, log, ..self }
    }

    fn append(&mut self, records: u64) {
        let kind = if self.next.is_multiple_of(2) { EntryKind::Record } else { EntryKind::Event };
        let lines: String = (self.next..self.next + records).map(|number| line(kind, number)).collect();
        self.next += records;
        self.log.append(kind, lines.as_bytes(), self.now);
        self.check();
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
        self.folder.set_time(self.now);
        self.log.upkeep(self.now);
        self.check();
    }

    fn take(&mut self) -> Vec<u64> {
        // More tries than there can be damaged segments and failing reads.
        for _ in 0..200 {
            let Some(plan) = self.log.plan() else { break };
            let found = plan.read(BATCH);
            let took = self.log.take(&plan, found);
            self.check();
            if let Took::Batch(entries) = took {
                return entries.iter().map(number).collect();
            }
        }
        Vec::new()
    }

    fn deliver(&mut self) -> Vec<u64> {
        let batch = self.take();
        if !batch.is_empty() {
            self.log.settle(batch.len() as u64, 0);
            self.check();
        }
        batch
    }

    fn deliver_all(&mut self) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let batch = self.deliver();
            if batch.is_empty() {
                return all;
            }
            all.extend(batch);
        }
    }

    fn sync(&mut self) {
        let _ = self.log.take_unsynced().sync();
    }

    fn reading(&self) -> Reading {
        self.counts.reading()
    }

    fn check(&self) {
        let Reading { accepted, delivered, spooled, dropped, bytes } = self.reading();
        assert_eq!(accepted, delivered + spooled + dropped, "{:?}", self.reading());
        assert!(bytes <= self.limits.bytes, "{bytes} bytes");
    }
}

fn open(
    folder: &SimFolder,
    limits: Limits,
    counts: &Arc<ExporterCounts>,
    keyring: &Keyring<'_>,
) -> io::Result<Log> {
    log::open(Some(Arc::new(folder.clone())), limits, Arc::clone(counts), keyring)
}

/// With the key of the gateway, whether it is used or not.
fn with(encryption: SpoolEncryption) -> Keyring<'static> {
    static KEY: std::sync::LazyLock<SpoolKey> = std::sync::LazyLock::new(|| key(1));
    Keyring { exporter: "sink", key: Some(&KEY), encryption }
}

fn line(kind: EntryKind, number: u64) -> String {
    format!("{{\"n\":{number},\"kind\":\"{kind:.>12}\"}}\n", kind = format!("{kind:?}"))
}

fn number(entry: Entry<'_>) -> u64 {
    let line: serde_json::Value = serde_json::from_slice(entry.line).unwrap();
    let kind = line["kind"].as_str().unwrap().trim_start_matches('.');
    assert_eq!(kind, format!("{:?}", entry.kind), "the kind comes out as it went in");
    line["n"].as_u64().unwrap()
}

fn numbers(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn records_come_out_in_order_and_are_gone_when_settled() {
    let mut bench = Bench::new(LIMITS);
    (0..10).for_each(|_| bench.append(7));
    assert_eq!((bench.reading().accepted, bench.log.waiting()), (70, 70));
    assert_eq!(bench.deliver_all(), numbers(0..70));
    assert_eq!((bench.reading().delivered, bench.reading().spooled), (70, 0));
    assert_eq!(bench.folder.segments(), 1, "only the one being written to is left");
    bench.append(1);
    assert_eq!(bench.deliver_all(), [70]);
}

#[test]
fn one_batch_is_in_hand_at_a_time_and_can_be_settled_in_parts() {
    let mut bench = Bench::new(LIMITS);
    bench.append(20);
    let first = bench.take();
    assert_eq!(first, numbers(0..10));
    assert!(bench.log.plan().is_none(), "it is in hand");
    bench.log.settle(6, 4);
    bench.check();
    assert_eq!((bench.reading().delivered, bench.reading().dropped, bench.reading().spooled), (6, 4, 10));
    assert_eq!(bench.take(), numbers(10..20));
}

#[test]
fn a_killed_process_loses_nothing_and_sends_one_batch_again() {
    let mut bench = Bench::new(LIMITS);
    bench.append(35);
    assert_eq!(bench.deliver(), numbers(0..10));
    assert_eq!(bench.take(), numbers(10..20));
    let mut bench = bench.killed();
    assert_eq!((bench.reading().accepted, bench.reading().spooled), (25, 25));
    bench.append(5);
    assert_eq!(bench.deliver_all(), numbers(10..40));
    let mut bench = bench.killed();
    assert_eq!(bench.reading(), Reading::default());
    bench.append(1);
    assert_eq!(bench.deliver_all(), [40], "sequences go on where they were");
}

#[test]
fn over_the_size_limit_the_oldest_are_dropped_and_counted() {
    let mut bench = Bench::new(LIMITS);
    (0..100).for_each(|_| bench.append(5));
    let left = bench.deliver_all();
    let dropped = bench.reading().dropped;
    assert!(dropped > 0);
    assert_eq!(left, numbers(dropped..500));
}

#[test]
fn what_is_in_hand_is_settled_by_whoever_has_it_even_if_it_was_pushed_out() {
    let mut bench = Bench::new(LIMITS);
    bench.append(10);
    assert_eq!(bench.take(), numbers(0..10));
    assert!(!bench.log.is_given_up());
    (0..100).for_each(|_| bench.append(5));
    assert!(bench.log.is_given_up());
    let before = bench.reading();
    bench.log.settle(3, 7);
    let after = bench.reading();
    assert_eq!((after.delivered, after.dropped, after.spooled), (3, before.dropped + 7, before.spooled - 10));
    let left = bench.deliver_all();
    assert_eq!(after.spooled, left.len() as u64);
    assert_eq!(left, numbers(510 - left.len() as u64..510));
}

#[test]
fn what_waits_too_long_is_dropped_and_counted() {
    let mut bench = Bench::new(LIMITS);
    bench.append(10);
    bench.passes(LIMITS.age / 2);
    bench.append(10);
    bench.passes(LIMITS.age / 2 + Duration::from_secs(1));
    assert_eq!((bench.reading().dropped, bench.deliver_all()), (10, numbers(10..20)));
    bench.append(3);
    let mut bench = bench.killed();
    bench.passes(LIMITS.age + Duration::from_secs(1));
    assert_eq!((bench.reading().dropped, bench.reading().spooled), (3, 0), "age outlives the process");
}

#[test]
fn a_full_disk_drops_the_oldest_and_is_used_again_when_there_is_room() {
    let mut bench = Bench::new(LIMITS);
    bench.folder.set_room(Some(2048));
    (0..40).for_each(|_| bench.append(5));
    assert!(bench.folder.used() <= 2048);
    let dropped = bench.reading().dropped;
    assert!(dropped > 0 && bench.reading().spooled > 0);
    bench.folder.set_room(None);
    bench.passes(Duration::from_secs(2));
    assert_eq!(bench.folder.records(), bench.reading().spooled, "all is on the disk again");
    bench.append(5);
    let left = bench.deliver_all();
    assert_eq!(left.len() as u64, 205 - bench.reading().dropped);
    assert_eq!(left, numbers(205 - left.len() as u64..205));
}

#[test]
fn a_disk_that_fails_costs_no_record_while_memory_lasts() {
    let mut bench = Bench::new(LIMITS);
    bench.append(10);
    for fault in [Fault::Write, Fault::Create] {
        bench.folder.fail(fault);
        let before = bench.next;
        bench.append(10);
        bench.append(10);
        assert_eq!(bench.reading().dropped, 0);
        assert!(bench.folder.records() < bench.reading().spooled);
        bench.folder.heal();
        bench.passes(Duration::from_secs(2));
        assert_eq!(bench.folder.records(), bench.reading().spooled);
        assert_eq!(bench.next, before + 20);
    }
    let mut bench = bench.killed();
    assert_eq!(bench.deliver_all(), numbers(0..50));
}

#[test]
fn records_in_memory_are_sent_while_the_disk_is_dead() {
    let mut bench = Bench::new(LIMITS);
    bench.folder.fail(Fault::Write);
    bench.append(10);
    assert_eq!(bench.deliver_all(), numbers(0..10));
    assert_eq!(bench.reading().delivered, 10);
}

#[test]
fn a_torn_tail_is_skipped_and_known_losses_are_counted() {
    let mut bench = Bench::new(LIMITS);
    bench.append(9);
    bench.append(9);
    bench.folder.tear(0, 10);
    let mut bench = bench.killed();
    let Reading { accepted, dropped, spooled, .. } = bench.reading();
    assert_eq!((accepted, dropped, spooled), (18, 1, 17), "the next segment tells what the torn one had");
    assert_eq!(bench.deliver_all(), [numbers(0..8), numbers(9..18)].concat());

    let mut bench = Bench::new(LIMITS);
    bench.append(9);
    bench.folder.tear(0, 1);
    let mut bench = bench.killed();
    assert_eq!(bench.reading().accepted, 8, "nothing tells of the last one");
    bench.append(1);
    assert_eq!(bench.deliver_all(), [numbers(0..8), numbers(9..10)].concat());
}

#[test]
fn a_damaged_record_costs_the_rest_of_its_segment_and_no_more() {
    let mut bench = Bench::new(LIMITS);
    (0..3).for_each(|_| bench.append(9));
    bench.folder.flip(1, 32 + 100);
    let delivered = bench.deliver_all();
    assert_eq!(delivered, [numbers(0..11), numbers(18..27)].concat());
    assert_eq!(bench.reading().dropped, 7);
}

#[test]
fn a_read_that_fails_once_costs_nothing_and_one_that_fails_on_costs_its_segment() {
    let mut bench = Bench::new(LIMITS);
    (0..2).for_each(|_| bench.append(9));
    bench.folder.fail_reads(1);
    assert_eq!(bench.deliver(), numbers(0..9));
    bench.folder.fail_reads(3);
    assert_eq!(bench.deliver_all(), Vec::<u64>::new());
    assert_eq!(bench.reading().dropped, 9);
    bench.append(1);
    assert_eq!(bench.deliver_all(), [18]);
}

#[test]
fn a_foreign_file_in_the_folder_is_no_segment() {
    let bench = Bench::new(LIMITS);
    bench.folder.put(7, b"not a segment of ours, whatever it is".to_vec());
    let mut bench = bench.killed();
    assert_eq!((bench.reading(), bench.folder.segments()), (Reading::default(), 0));
    bench.append(2);
    assert_eq!(bench.deliver_all(), [0, 1]);
}

#[test]
fn what_was_synced_is_kept_over_a_power_cut() {
    let mut bench = Bench::new(LIMITS);
    bench.append(7);
    bench.sync();
    bench.append(7);
    bench.folder.cut_power();
    let mut bench = bench.killed();
    assert_eq!(bench.deliver_all(), numbers(0..7));
}

#[test]
fn in_memory_there_are_no_files_and_the_same_limits() {
    let counts = Arc::new(ExporterCounts::default());
    let limits = Limits { memory_bytes: LIMITS.bytes, ..LIMITS };
    let log = log::open(None, limits, Arc::clone(&counts), &with(SpoolEncryption::Store)).unwrap();
    let mut bench = Bench { counts, log, ..Bench::new(LIMITS) };
    (0..100).for_each(|_| bench.append(5));
    assert_eq!(bench.folder.segments(), 0);
    let left = bench.deliver_all();
    assert_eq!(left, numbers(bench.reading().dropped..500));
    assert!(bench.reading().dropped > 0 && !left.is_empty());
}

#[tokio::test]
async fn a_spool_on_a_real_disk_outlives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [SpoolMode::WriteBehind, SpoolMode::WriteAhead] {
        let path = dir.path().join(mode.as_str());
        let settings = settings(path.clone(), mode, SpoolEncryption::None);
        let open = || Spool::open("sink", &settings, None, Arc::new(ExporterCounts::default()));
        let spool = open().unwrap();
        let kind = EntryKind::Record;
        spool.append(kind, (0..3).map(|number| line(kind, number)).collect::<String>().as_bytes());
        spool.holds(1).await;
        let refused = open().err().unwrap().to_string();
        assert!(refused.contains("sink/v1 cannot be used: another process has it"), "{refused}");
        spool.upkeep();
        drop(spool);
        let spool = open().unwrap();
        assert_eq!(spool.waiting(), 3);
        let Some(Took::Batch(entries)) = spool.next_batch(BATCH) else { panic!("no batch") };
        assert_eq!(entries.iter().map(number).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(!spool.is_given_up());
        spool.settle(3, 0);
        drop(spool);
        assert_eq!(open().unwrap().waiting(), 0);
    }
}

fn settings(path: PathBuf, mode: SpoolMode, encryption: SpoolEncryption) -> SpoolSettings {
    SpoolSettings { path, mode, size: 1 << 20, age: Duration::from_secs(60), encryption }
}

fn lines(kind: EntryKind, numbers: std::ops::Range<u64>) -> Vec<u8> {
    numbers.map(|number| line(kind, number)).collect::<String>().into_bytes()
}

#[test]
fn what_is_encrypted_shows_nothing_and_needs_its_key() {
    let mut bench = Bench::of(LIMITS, SpoolEncryption::Store);
    (0..4).for_each(|_| bench.append(7));
    assert!(!bench.folder.holds(b"kind"), "no text on the disk");
    assert_eq!(bench.deliver(), numbers(0..7));
    bench.folder.close();
    let (segments, other) = (bench.folder.segments(), key(2));
    for key in [None, Some(&other)] {
        for encryption in [SpoolEncryption::None, SpoolEncryption::Store] {
            let keyring = Keyring { exporter: "sink", key, encryption };
            let refused = open(&bench.folder, LIMITS, &Arc::default(), &keyring).err().unwrap().to_string();
            assert!(refused.contains("key"), "{refused}");
            assert_eq!(bench.folder.segments(), segments, "left alone");
        }
    }
    let mut bench = bench.killed();
    assert_eq!(bench.deliver(), numbers(7..14));
}

#[test]
fn encryption_is_switched_on_and_off_over_what_waits() {
    let mut bench = Bench::new(LIMITS);
    bench.append(3);
    bench.encryption = SpoolEncryption::Store;
    let mut bench = bench.killed();
    bench.append(3);
    bench.encryption = SpoolEncryption::None;
    let mut bench = bench.killed();
    bench.append(3);
    assert!(bench.folder.holds(b"kind"));
    assert_eq!(bench.deliver_all(), numbers(0..9));
}

#[test]
fn a_spool_that_is_done_with_needs_no_key() {
    let mut bench = Bench::of(LIMITS, SpoolEncryption::Store);
    bench.append(3);
    assert_eq!(bench.deliver_all(), numbers(0..3));
    bench.folder.close();
    let keyring = Keyring { exporter: "sink", key: None, encryption: SpoolEncryption::None };
    assert!(open(&bench.folder, LIMITS, &Arc::default(), &keyring).is_ok());
}

#[test]
fn encrypted_records_that_wait_in_memory_come_out_again_and_go_to_the_disk_as_they_are() {
    let mut bench = Bench::of(LIMITS, SpoolEncryption::Store);
    bench.folder.fail(Fault::Write);
    bench.append(10);
    assert_eq!(bench.deliver(), numbers(0..10));
    bench.append(10);
    bench.folder.heal();
    bench.passes(Duration::from_secs(2));
    assert!(!bench.folder.holds(b"kind"));
    let mut bench = bench.killed();
    assert_eq!(bench.deliver_all(), numbers(0..20), "the cursor was not written either");
}

#[test]
fn after_a_panic_no_sequence_is_a_nonce_again() {
    let mut bench = Bench::of(LIMITS, SpoolEncryption::Store);
    bench.append(3);
    bench.folder.fail(Fault::Panic);
    let lines = lines(EntryKind::Record, 3..5);
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        bench.log.append(EntryKind::Record, &lines, bench.now);
    }));
    assert!(broken.is_err());
    bench.folder.heal();
    bench.next = 5;
    bench.append(3);
    assert_eq!(bench.folder.list().unwrap(), [6, 1], "those of the two that broke off are passed over");
    let mut bench = bench.killed();
    assert_eq!(bench.deliver_all(), [0, 1, 2, 5, 6, 7]);
    assert_eq!(bench.reading(), Reading { accepted: 6, delivered: 6, ..bench.reading() });
}

#[test]
fn the_place_in_the_activity_log_outlives_the_process_where_the_spool_does() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path().to_owned(), SpoolMode::WriteBehind, SpoolEncryption::None);
    let open = || Spool::open("sink", &settings, None, Arc::default()).unwrap();
    let spool = open();
    assert_eq!(spool.events_reached(), None);
    spool.append_events(&[], 4);
    drop(spool);
    let spool = open();
    assert_eq!(spool.events_reached(), Some(4), "where to begin is written down at once");
    spool.append_events(&lines(EntryKind::Event, 5..7), 6);
    assert_eq!(spool.events_reached(), Some(6));
    drop(spool);
    let spool = open();
    assert_eq!(spool.events_reached(), Some(4), "they were not synced: rather twice than never");
    spool.append_events(&lines(EntryKind::Event, 5..7), 6);
    spool.upkeep();
    drop(spool);
    let spool = open();
    assert_eq!((spool.events_reached(), spool.waiting()), (Some(6), 4));
    let memory = SpoolSettings { mode: SpoolMode::Memory, ..settings.clone() };
    let spool = Spool::open("sink", &memory, None, Arc::default()).unwrap();
    spool.append_events(&[], 4);
    assert_eq!(spool.events_reached(), Some(4));
}

#[test]
fn a_survey_counts_what_waits_by_kind_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let key = key(1);
    let open = |name, encryption| {
        let settings = settings(path.clone(), SpoolMode::WriteBehind, encryption);
        Spool::open(name, &settings, Some(&key), Arc::default()).unwrap()
    };
    let (one, two) = (open("b", SpoolEncryption::None), open("a", SpoolEncryption::Store));
    for spool in [&one, &two] {
        spool.append(EntryKind::Record, &lines(EntryKind::Record, 0..5));
        spool.append_events(&lines(EntryKind::Event, 5..8), 3);
    }
    let Some(Took::Batch(_)) = one.next_batch(BatchSize { records: 3, bytes: 4096 }) else { panic!() };
    one.settle(3, 0);
    let counted = || {
        let spools = survey(&path).unwrap().into_iter();
        spools.map(|it| (it.exporter, it.records, it.events)).collect::<Vec<_>>()
    };
    let expected = [("a".to_owned(), 5, 3), ("b".to_owned(), 2, 3)];
    assert_eq!(counted(), expected, "of a running gateway");
    drop((one, two));
    assert_eq!(counted(), expected, "of one that is gone");
    assert!(survey(&path.join("none")).is_err());
}

#[test]
fn many_threads_append_and_nothing_is_lost_or_torn_apart() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path().to_owned(), SpoolMode::WriteBehind, SpoolEncryption::Store);
    let key = key(1);
    let spool = Spool::open("sink", &settings, Some(&key), Arc::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let spool = &spool;
            scope.spawn(move || {
                let kind = if thread == 0 { EntryKind::Event } else { EntryKind::Record };
                (0..50).for_each(|at| {
                    let first = thread * 1000 + at * 2;
                    spool.append(kind, &lines(kind, first..first + 2));
                });
            });
        }
    });
    let mut all = Vec::new();
    while let Some(Took::Batch(entries)) = spool.next_batch(BatchSize { records: 1000, bytes: 1 << 20 }) {
        all.extend(entries.iter().map(number));
        spool.settle(entries.len() as u64, 0);
    }
    assert!(all.chunks(2).all(|pair| pair[0] + 1 == pair[1]), "what one call brings stays together");
    all.sort_unstable();
    let expected: Vec<_> = (0..4).flat_map(|thread| thread * 1000..thread * 1000 + 100).collect();
    assert_eq!(all, expected);
}
