//! Dividing traffic by weight, exactly in the long run and evenly in the short.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A division of calls among numbered shares (deployments, by their place in the list).
#[derive(Debug)]
pub struct Split {
    /// One full turn: the share that each call of a turn goes to.
    turn: Box<[u16]>,
    next: AtomicUsize,
}

impl Split {
    /// A split by percent. Shares of zero get nothing; with all of them zero nothing can be picked.
    #[must_use]
    pub fn new(percents: &[u8]) -> Self {
        Self { turn: smooth_turn(percents), next: AtomicUsize::new(0) }
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
        assert_eq!(Split::new(&[0, 0]).pick(), None);
        assert_eq!(Split::new(&[]).pick(), None);
    }
}
