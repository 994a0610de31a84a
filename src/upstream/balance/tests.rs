//! Who gets the call, with replicas that nobody calls.

use std::collections::HashMap;

use super::*;
use crate::upstream::{InFlightGuard, Origin, ReplicaProtocol, ReplicaSettings};

pub(in crate::upstream) fn replica(number: u16) -> Arc<Replica> {
    Replica::new(ReplicaSettings {
        origin: Origin { host: "10.0.0.1".into(), port: 5000 + number },
        protocol: ReplicaProtocol::H1,
        tls: None,
        policy: None,
    })
}

fn replicas(count: u16) -> Vec<Arc<Replica>> {
    (0..count).map(replica).collect()
}

/// How often each replica was chosen, by its place.
fn counts(
    replicas: &[Arc<Replica>],
    shares: &[u16],
    draws: impl IntoIterator<Item = u64>,
    policy: &Balancing,
) -> Vec<usize> {
    let turn = AtomicUsize::new(0);
    let candidates = || replicas.iter().zip(shares.iter().copied());
    let mut counts = vec![0; replicas.len()];
    for hash in draws {
        let chosen = choose(policy, &turn, Some(hash), &candidates()).unwrap();
        counts[replicas.iter().position(|it| Arc::ptr_eq(it, chosen)).unwrap()] += 1;
    }
    counts
}

fn hold(replica: &Arc<Replica>, calls: usize) -> Vec<InFlightGuard> {
    (0..calls).map(|_| replica.start_call(None).unwrap()).collect()
}

fn by_header() -> Balancing {
    Balancing::Hash(HeaderName::from_static("x-user"))
}

#[test]
fn two_draws_are_two_replicas() {
    let replicas = replicas(5);
    let mut pairs: HashMap<(u64, u64), usize> = HashMap::new();
    for _ in 0..20_000 {
        let (one, other) = two(replicas.iter().map(|it| (it, WHOLE))).unwrap();
        assert!(!Arc::ptr_eq(one.0, other.0));
        *pairs.entry((one.0.id(), other.0.id())).or_default() += 1;
    }
    // 20 ordered pairs, 1000 times each; a deviation of 20 percent has a chance below one in a million.
    assert_eq!(pairs.len(), 20);
    assert!(pairs.values().all(|count| (800..1200).contains(count)), "{pairs:?}");
}

#[test]
fn the_busiest_of_all_is_never_chosen_and_the_idlest_most() {
    let replicas = replicas(4);
    let _held: Vec<_> =
        [0, 3, 3, 9].iter().zip(&replicas).flat_map(|(calls, replica)| hold(replica, *calls)).collect();
    let counts = counts(&replicas, &[WHOLE; 4], 0..10_000, &Balancing::LeastBusy);
    assert_eq!(counts[3], 0);
    // It wins in each pair that it is in, which is half of them.
    assert!((4700..5300).contains(&counts[0]), "{counts:?}");
}

#[test]
fn round_robin_is_exact() {
    let replicas = replicas(3);
    assert_eq!(counts(&replicas, &[WHOLE; 3], 0..300, &Balancing::RoundRobin), [100, 100, 100]);
}

#[test]
fn a_replica_in_its_slow_start_gets_its_part_of_a_share() {
    let replicas = replicas(2);
    for policy in [Balancing::LeastBusy, Balancing::RoundRobin, by_header()] {
        let counts = counts(&replicas, &[WHOLE, 250], (0..10_000).map(mix), &policy);
        // A quarter of its half.
        assert!((1000..1500).contains(&counts[1]), "{policy:?} {counts:?}");
    }
}

#[test]
fn busy_replicas_are_compared_by_their_shares() {
    let replicas = replicas(2);
    // Each has 4 calls for a whole share; less than that many would attract calls.
    let _held = (hold(&replicas[0], 8), hold(&replicas[1], 3));
    let counts = counts(&replicas, &[WHOLE, 250], 0..1000, &Balancing::LeastBusy);
    assert_eq!(counts, [1000, 0]);
}

#[test]
fn when_all_start_slowly_all_get_calls() {
    let replicas = replicas(4);
    for policy in [Balancing::LeastBusy, Balancing::RoundRobin, by_header()] {
        let counts = counts(&replicas, &[100; 4], (0..4000).map(mix), &policy);
        assert!(counts.iter().all(|count| (700..1300).contains(count)), "{policy:?} {counts:?}");
    }
}

#[test]
fn a_key_stays_with_its_replica_and_only_the_keys_of_a_replica_that_leaves_move() {
    let replicas = replicas(10);
    let turn = AtomicUsize::new(0);
    let chosen = |among: &[Arc<Replica>], key: u64| {
        let hash = stable_hash(format!("user-{key}").as_bytes());
        choose(&by_header(), &turn, Some(hash), &among.iter().map(|it| (it, WHOLE))).unwrap().id()
    };
    let before: Vec<_> = (0..10_000).map(|key| chosen(&replicas, key)).collect();
    let gone = replicas[3].id();
    let left: Vec<_> = replicas.iter().filter(|it| it.id() != gone).cloned().collect();
    let mut taken: HashMap<u64, usize> = HashMap::new();
    for (key, before) in before.iter().enumerate() {
        let after = chosen(&left, key as u64);
        if *before == gone {
            *taken.entry(after).or_default() += 1;
        } else {
            assert_eq!(after, *before, "key {key} had no reason to move");
        }
    }
    // A tenth of the keys, spread over all that are left.
    let moved: usize = taken.values().sum();
    assert!((850..1150).contains(&moved), "{moved}");
    assert_eq!(taken.len(), 9);
}

#[test]
fn keys_in_a_slow_start_move_once_and_stay() {
    let replicas = replicas(2);
    let turn = AtomicUsize::new(0);
    let goes_to_newcomer = |share: u16, hash: u64| {
        let candidates = replicas.iter().zip([WHOLE, share]);
        Arc::ptr_eq(choose(&by_header(), &turn, Some(hash), &candidates).unwrap(), &replicas[1])
    };
    for hash in (0..2000).map(mix) {
        let moves: Vec<_> =
            [100, 300, 600, 900, WHOLE].iter().map(|share| goes_to_newcomer(*share, hash)).collect();
        assert!(moves.is_sorted(), "{moves:?}");
    }
}

#[test]
fn every_gateway_and_version_hashes_the_same() {
    assert_eq!(stable_hash(b""), 0xf52a_15e9_a9b5_e89b);
    assert_eq!(stable_hash(b"user-1"), 0xc499_b5f8_a721_df58);
}

#[test]
fn nobody_can_be_chosen_of_nobody() {
    let turn = AtomicUsize::new(0);
    for policy in [Balancing::LeastBusy, Balancing::RoundRobin, by_header()] {
        assert!(choose(&policy, &turn, Some(1), &std::iter::empty()).is_none());
    }
}
