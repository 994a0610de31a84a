//! Any sequence of appends, reads, settlements, faults and crashes.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Take,
    Settle { dropped: u64 },
    Pass(u64),
    Sync,
    Room(Option<usize>),
    Fail(Fault),
    FailReads(u32),
    Heal,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u64..30).prop_map(Step::Append),
        4 => Just(Step::Take),
        4 => (0u64..4).prop_map(|dropped| Step::Settle { dropped }),
        2 => (0u64..1500).prop_map(Step::Pass),
        1 => Just(Step::Sync),
        1 => proptest::option::of(0usize..6000).prop_map(Step::Room),
        1 => prop_oneof![Just(Fault::Write), Just(Fault::Create), Just(Fault::Sync), Just(Fault::Remove)]
            .prop_map(Step::Fail),
        1 => (1u32..3).prop_map(Step::FailReads),
        2 => Just(Step::Heal),
        1 => Just(Step::Kill),
    ]
}

/// What a careful observer notes down.
#[derive(Default)]
struct Notes {
    in_hand: Vec<u64>,
    /// By the collector, over all processes.
    delivered: Vec<u64>,
    /// The next record that this process may be given, unless a crash has set it back.
    expected: u64,
    /// Whether the disk has refused the cursor, so that a crash brings more than one batch again.
    cursor_is_behind: bool,
    disk_refuses: bool,
}

fn run(steps: Vec<Step>, encryption: SpoolEncryption) {
    let mut bench = Bench::of(LIMITS, encryption);
    let mut notes = Notes::default();
    for step in steps {
        match step {
            Step::Append(records) => bench.append(records),
            Step::Take if notes.in_hand.is_empty() => {
                let batch = bench.take();
                assert!(batch.is_sorted_by(|a, b| a < b), "{batch:?}");
                assert!(
                    batch.first().is_none_or(|first| *first >= notes.expected),
                    "{batch:?} came too late"
                );
                notes.expected = batch.last().map_or(notes.expected, |last| last + 1);
                notes.in_hand = batch;
            }
            Step::Take => assert!(bench.log.plan().is_none(), "two batches in hand"),
            Step::Settle { dropped } if !notes.in_hand.is_empty() => {
                let batch = std::mem::take(&mut notes.in_hand);
                let dropped = dropped.min(batch.len() as u64);
                let before = bench.reading();
                bench.log.settle(batch.len() as u64 - dropped, dropped);
                let after = bench.reading();
                assert_eq!(
                    after.delivered + after.dropped - before.delivered - before.dropped,
                    batch.len() as u64
                );
                notes.delivered.extend(batch);
                notes.cursor_is_behind = notes.disk_refuses;
                bench.check();
            }
            Step::Settle { .. } => {}
            Step::Pass(seconds) => bench.passes(Duration::from_secs(seconds)),
            Step::Sync => bench.sync(),
            Step::Room(room) => bench.folder.set_room(room),
            Step::Fail(fault) => {
                bench.folder.fail(fault);
                notes.disk_refuses = fault == Fault::Write;
            }
            Step::FailReads(reads) => bench.folder.fail_reads(reads),
            Step::Heal => {
                bench.folder.heal();
                notes.disk_refuses = false;
            }
            Step::Kill => {
                // A killed process leaves a disk that can be read; whether that can be written to is another matter.
                bench.folder.fail_reads(0);
                let (on_disk, spooled) = (bench.folder.records(), bench.reading().spooled);
                bench = bench.killed();
                bench.check();
                let found = bench.reading();
                assert!(found.spooled <= on_disk, "{found:?}, {on_disk} on the disk");
                assert!(found.spooled <= spooled.max(on_disk));
                // The batch in hand comes again, and no more than that.
                notes.expected = notes.in_hand.first().copied().unwrap_or(notes.expected);
                notes.in_hand.clear();
                if std::mem::take(&mut notes.cursor_is_behind) {
                    notes.expected = 0;
                    notes.delivered.clear();
                }
            }
        }
    }
    finish(bench, &mut notes);
}

/// With a well disk and a well collector all that is spooled comes out.
fn finish(mut bench: Bench, notes: &mut Notes) {
    if !notes.in_hand.is_empty() {
        bench.log.settle(notes.in_hand.len() as u64, 0);
        notes.delivered.append(&mut notes.in_hand);
    }
    bench.folder.heal();
    let before = bench.reading();
    let rest = bench.deliver_all();
    let after = bench.reading();
    assert_eq!((after.spooled, after.dropped), (0, before.dropped), "nothing is stuck, nothing got lost");
    assert_eq!(rest.len() as u64, before.spooled);
    notes.delivered.extend(rest);
    assert!(
        notes.delivered.is_sorted_by(|a, b| a < b),
        "in order, each once: a batch not settled was not delivered"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn keeps_the_counts_and_the_order_whatever_happens(
        steps in proptest::collection::vec(step(), 0..80),
        encrypted in any::<bool>(),
    ) {
        run(steps, if encrypted { SpoolEncryption::Store } else { SpoolEncryption::None });
    }

    /// As long as no limit is met and no disk fails, whatever was appended is delivered, over any number of kills.
    #[test]
    fn loses_nothing_when_killed(batches in proptest::collection::vec((1u64..10, 0u32..3), 1..12)) {
        let mut bench = Bench::new(LIMITS);
        let mut delivered = Vec::new();
        for (records, then) in batches {
            bench.append(records);
            match then {
                0 => bench = bench.killed(),
                1 => delivered.extend(bench.deliver()),
                _ => {
                    // In hand when it is killed: it comes again.
                    let _ = bench.take();
                    bench = bench.killed();
                }
            }
        }
        delivered.extend(bench.deliver_all());
        prop_assert_eq!(delivered, numbers(0..bench.next));
    }

    /// After a power cut all is there that was synced.
    #[test]
    fn loses_nothing_that_was_synced(
        batches in proptest::collection::vec((1u64..10, any::<bool>()), 1..12),
    ) {
        let mut bench = Bench::new(LIMITS);
        let mut synced = 0;
        for (records, sync) in batches {
            bench.append(records);
            if sync {
                bench.sync();
                synced = bench.next;
            }
        }
        bench.folder.cut_power();
        bench = bench.killed();
        let delivered = bench.deliver_all();
        prop_assert!(delivered.len() as u64 >= synced);
        prop_assert_eq!(&delivered, &numbers(0..delivered.len() as u64));
    }
}
