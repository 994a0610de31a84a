//! Who of those that may take a call gets it: the less busy of two, one after the other, or by the hash of a header.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderName;

use super::health::WHOLE;
use super::replica::Replica;

/// How the replicas of a deployment share its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancing {
    /// Of two drawn at random the one with fewer calls in flight (the power of two choices).
    #[default]
    LeastBusy,
    /// One after the other, counted over all workers.
    RoundRobin,
    /// Calls with the same value of this header go to the same replica, as long as it takes calls and is below its cap;
    /// only the keys of one that leaves move. Every gateway chooses the same. Calls without the header go to the least busy.
    Hash(HeaderName),
}

/// A replica that may take a call, and its share in thousandths of a full one.
pub(super) type Candidate<'a> = (&'a Arc<Replica>, u16);

/// The one of `candidates` whose turn it is; `None`: there are none.
pub(super) fn choose<'a>(
    balancing: &Balancing,
    turn: &AtomicUsize,
    hash: Option<u64>,
    candidates: &(impl Iterator<Item = Candidate<'a>> + Clone),
) -> Option<&'a Arc<Replica>> {
    match (balancing, hash) {
        (Balancing::RoundRobin, _) => in_turn(turn, candidates),
        (Balancing::Hash(_), Some(hash)) => by_rank(hash, candidates),
        (Balancing::LeastBusy | Balancing::Hash(_), _) => least_busy(candidates),
    }
}

/// Of two different candidates the less busy one, measured by their shares. A candidate in its slow start takes part only
/// so often: where nobody is busy, the count of calls alone would keep it out until it had its whole share.
fn least_busy<'a>(candidates: &(impl Iterator<Item = Candidate<'a>> + Clone)) -> Option<&'a Arc<Replica>> {
    let drawn = |candidate: &Candidate<'_>| candidate.1 >= WHOLE || fastrand::u16(..WHOLE) < candidate.1;
    let pair = two(candidates.clone().filter(drawn)).or_else(|| two(candidates.clone()))?;
    let ((one, share), (other, other_share)) = pair;
    // In flight per share, without a division.
    let busy = u64::from(one.in_flight()) * u64::from(other_share);
    let other_busy = u64::from(other.in_flight()) * u64::from(share);
    Some(if busy <= other_busy { one } else { other })
}

/// Two different ones at random, in random order (a reservoir of two); the same one twice if there is only one.
fn two<'a>(candidates: impl Iterator<Item = Candidate<'a>>) -> Option<(Candidate<'a>, Candidate<'a>)> {
    let mut drawn: Option<(Candidate<'a>, Candidate<'a>)> = None;
    for (seen, candidate) in candidates.enumerate() {
        drawn = match drawn {
            None => Some((candidate, candidate)),
            Some((first, _)) if seen == 1 && fastrand::bool() => Some((first, candidate)),
            Some((first, _)) if seen == 1 => Some((candidate, first)),
            Some((first, second)) => Some(match fastrand::usize(..=seen) {
                0 => (candidate, second),
                1 => (first, candidate),
                _ => (first, second),
            }),
        };
    }
    drawn
}

/// The next one; one in its slow start lets the turn pass as often as its share says.
fn in_turn<'a>(
    turn: &AtomicUsize,
    candidates: &(impl Iterator<Item = Candidate<'a>> + Clone),
) -> Option<&'a Arc<Replica>> {
    let count = candidates.clone().count();
    if count == 0 {
        return None;
    }
    let first = turn.fetch_add(1, Ordering::Relaxed) % count;
    let from_first = candidates.clone().skip(first).chain(candidates.clone().take(first));
    let mut takes =
        from_first.clone().filter(|(_, share)| *share >= WHOLE || fastrand::u16(..WHOLE) < *share);
    takes.next().or_else(|| from_first.clone().next()).map(|(replica, _)| replica)
}

/// The one that ranks highest for the key (rendezvous hashing): when one leaves, each of its keys goes to the next in that
/// key's own order, and no other key moves. One in its slow start takes its keys bit by bit, the same ones first.
fn by_rank<'a>(
    hash: u64,
    candidates: &(impl Iterator<Item = Candidate<'a>> + Clone),
) -> Option<&'a Arc<Replica>> {
    let rank = |candidate: &Candidate<'_>| candidate.0.rank(hash);
    let takes = |candidate: &Candidate<'_>| {
        candidate.1 >= WHOLE || mix(rank(candidate)) % u64::from(WHOLE) < u64::from(candidate.1)
    };
    let all = || candidates.clone();
    all().filter(takes).max_by_key(rank).or_else(|| all().max_by_key(rank)).map(|(replica, _)| replica)
}

/// A hash that is the same in every process and version: FNV-1a, 64 bits, mixed since the high bits of short texts are
/// poor. No defence against callers who look for collisions: a key that many share is only a hot key.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of `x`.
pub(super) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
pub(super) mod tests;
