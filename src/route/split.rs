//! Dividing traffic by weight, exactly in the long run and evenly in the short.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A division of calls among numbered shares (deployments, by their place in the list).
#[derive(Debug)]
pub struct Split {
    percents: Box<[u8]>,
    /// One full turn: the share that each call of a turn goes to.
    turn: Box<[u16]>,
    next: AtomicUsize,
}

impl Split {
    /// A split by percent. Shares of zero get nothing; with all of them zero nothing can be picked.
    #[must_use]
    pub fn new(percents: &[u8]) -> Self {
        Self { percents: percents.into(), turn: smooth_turn(percents), next: AtomicUsize::new(0) }
    }

    /// What it was made from.
    #[must_use]
    pub const fn percents(&self) -> &[u8] {
        &self.percents
    }

    /// The share of the next call; `None` if none has any weight.
    pub fn pick(&self) -> Option<usize> {
        match *self.turn {
            [] => None,
            [only] => Some(only.into()),
            _ => {
                let call = self.next.fetch_add(1, Ordering::Relaxed);
                Some(self.turn[call % self.turn.len()].into())
            }
        }
    }

    /// The share of all calls with `value`: the same one as long as the weights stay, on every worker and every gateway.
    /// Where weights change, only as many values move as the change is large. `None` if no share has any weight.
    #[must_use]
    pub fn pick_for(&self, value: &[u8]) -> Option<usize> {
        let total: u64 = self.percents.iter().map(|percent| u64::from(*percent)).sum();
        // Below the total.
        let point = (u128::from(spread(value)) * u128::from(total)) >> 64;
        let mut end = 0;
        self.percents.iter().position(|percent| {
            end += u128::from(*percent);
            point < end
        })
    }
}

/// A place for `value` that is the same wherever and whenever it is asked for, and spread evenly over many values.
/// FNV-1a, with its last mixing left to MurmurHash3's finaliser: alone it leaves the upper bits of short values alike.
fn spread(value: &[u8]) -> u64 {
    let hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Smooth weighted round robin (as nginx does it): in each step every share gains its weight, the richest is picked
/// and pays the total, so that a 90/10 split is not 90 calls in a row.
fn smooth_turn(percents: &[u8]) -> Box<[u16]> {
    let divisor = percents.iter().map(|p| u64::from(*p)).fold(0, gcd).max(1);
    let weights: Vec<i64> = percents.iter().map(|p| i64::from(*p) / divisor.cast_signed()).collect();
    let total: i64 = weights.iter().sum();
    let mut gained = vec![0_i64; weights.len()];
    (0..total)
        .filter_map(|_| {
            gained.iter_mut().zip(&weights).for_each(|(gained, weight)| *gained += weight);
            let richest = (0..gained.len()).rev().max_by_key(|share| gained[*share])?;
            gained[richest] -= total;
            u16::try_from(richest).ok()
        })
        .collect()
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(percents: &[u8], calls: usize) -> Vec<usize> {
        let split = Split::new(percents);
        let mut counts = vec![0; percents.len()];
        for _ in 0..calls {
            counts[split.pick().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn weights_are_exact_over_whole_turns() {
        assert_eq!(counts(&[90, 10], 1000), [900, 100]);
        assert_eq!(counts(&[33, 33, 34], 300), [99, 99, 102]);
        assert_eq!(counts(&[100, 0], 7), [7, 0]);
        assert_eq!(counts(&[100], 3), [3]);
    }

    #[test]
    fn a_small_share_is_spread_and_not_served_in_a_row() {
        let split = Split::new(&[80, 20]);
        let picks: Vec<_> = (0..5).map(|_| split.pick().unwrap()).collect();
        assert_eq!(picks.iter().filter(|p| **p == 1).count(), 1);
        assert_ne!(picks[0], 1);
    }

    #[test]
    fn nothing_is_picked_without_weight() {
        for split in [Split::new(&[0, 0]), Split::new(&[])] {
            assert_eq!((split.pick(), split.pick_for(b"x")), (None, None));
        }
    }

    fn users() -> impl Iterator<Item = String> {
        (0..20_000).map(|number| format!("user-{number}"))
    }

    #[test]
    fn many_values_are_shared_by_weight() {
        for percents in [&[90, 10][..], &[33, 33, 34], &[1, 0, 99], &[0, 100]] {
            let split = Split::new(percents);
            let mut counts = vec![0_u32; percents.len()];
            users().for_each(|user| counts[split.pick_for(user.as_bytes()).unwrap()] += 1);
            for (count, percent) in counts.iter().zip(percents) {
                let (share, wanted) = (f64::from(*count) / 200.0, f64::from(*percent));
                assert!((share - wanted).abs() < 1.5, "{percents:?}: {counts:?}");
                assert_eq!(*count == 0, *percent == 0, "{percents:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_value_keeps_its_share_and_few_move_when_weights_change() {
        let (before, after) = (Split::new(&[90, 10]), Split::new(&[80, 20]));
        let moved = users().filter(|user| {
            let user = user.as_bytes();
            assert_eq!(before.pick_for(user), Split::new(&[90, 10]).pick_for(user));
            before.pick_for(user) != after.pick_for(user)
        });
        let moved = moved.count();
        assert!((1_700..2_300).contains(&moved), "a tenth of all: {moved}");
    }

    #[test]
    fn a_values_place_is_the_same_in_every_version() {
        // Gateways of two versions may serve side by side.
        assert_eq!(spread(b""), 0xefd0_1f60_ba99_2926);
        assert_eq!(spread(b"user-1"), 0x41a2_fca5_c684_01c5);
    }
}
