//! The order in which calls wait: first come first served for each principal, and the principals take turns.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

/// Whoever is to get a fair share, as a number: a hash under a secret of this process, so that nobody can choose to be
/// taken for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrincipalId(u64);

impl PrincipalId {
    /// The number of whoever `identity` stands for; the same one for as long as the process runs.
    pub fn of(identity: &impl Hash) -> Self {
        static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(SECRET.hash_one(identity))
    }
}

/// Those who wait. Every operation is logarithmic in their number.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// Never an empty one.
    lines: HashMap<PrincipalId, Line<T>>,
    /// Whose turn it is, first to last: each principal with a line, once.
    turns: BTreeMap<u64, PrincipalId>,
    /// The same principals by how many wait for each.
    lengths: BTreeSet<(usize, PrincipalId)>,
    next_turn: u64,
    next_number: u64,
    waiting: usize,
}

/// The calls of one principal.
#[derive(Debug)]
struct Line<T> {
    turn: u64,
    /// In the order of their numbers.
    calls: VecDeque<(u64, T)>,
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    principal: PrincipalId,
    number: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            turns: BTreeMap::new(),
            lengths: BTreeSet::new(),
            next_turn: 0,
            next_number: 0,
            waiting: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// How many wait.
    pub(super) const fn len(&self) -> usize {
        self.waiting
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Puts a call of `principal` behind its others. One that had none gets the last turn.
    pub(super) fn push(&mut self, principal: PrincipalId, call: T) -> Ticket {
        let number = self.next_number;
        self.next_number += 1;
        let line = self.lines.entry(principal).or_insert_with(|| {
            self.next_turn += 1;
            self.turns.insert(self.next_turn, principal);
            Line { turn: self.next_turn, calls: VecDeque::new() }
        });
        line.calls.push_back((number, call));
        self.waiting += 1;
        let length = line.calls.len();
        self.lengths.remove(&(length - 1, principal));
        self.lengths.insert((length, principal));
        Ticket { principal, number }
    }

    /// Takes out the call whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (_, principal) = self.turns.pop_first()?;
        let line = self.lines.get_mut(&principal)?;
        self.next_turn += 1;
        line.turn = self.next_turn;
        self.turns.insert(line.turn, principal);
        self.take(principal, 0)
    }

    /// Takes out the call of `ticket`, if it still waits.
    pub(super) fn remove(&mut self, ticket: &Ticket) -> Option<T> {
        let line = self.lines.get(&ticket.principal)?;
        let place = line.calls.binary_search_by_key(&ticket.number, |(number, _)| *number).ok()?;
        self.take(ticket.principal, place)
    }

    /// Takes out the last call of whoever has the most, if that makes shares more even: a principal with many calls waiting
    /// must not keep one with few out of the queue.
    pub(super) fn make_room(&mut self, newcomer: PrincipalId) -> Option<T> {
        let &(longest, principal) = self.lengths.last()?;
        self.yields_to(newcomer).then(|| self.take(principal, longest - 1))?
    }

    /// Whether [`Self::make_room`] would.
    pub(super) fn yields_to(&self, newcomer: PrincipalId) -> bool {
        let longest = self.lengths.last().map_or(0, |(length, _)| *length);
        let own = self.lines.get(&newcomer).map_or(0, |line| line.calls.len());
        longest > own + 1
    }

    fn take(&mut self, principal: PrincipalId, place: usize) -> Option<T> {
        let line = self.lines.get_mut(&principal)?;
        let before = line.calls.len();
        let (_, call) = line.calls.remove(place)?;
        self.waiting -= 1;
        self.lengths.remove(&(before, principal));
        if before > 1 {
            self.lengths.insert((before - 1, principal));
        } else {
            self.turns.remove(&line.turn);
            self.lines.remove(&principal);
        }
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: PrincipalId = PrincipalId(1);
    const BOB: PrincipalId = PrincipalId(2);
    const CAT: PrincipalId = PrincipalId(3);

    fn rest<T>(queue: &mut FairQueue<T>) -> Vec<T> {
        let all = std::iter::from_fn(|| queue.pop()).collect();
        assert!(queue.is_empty() && queue.lines.is_empty(), "nothing is left behind");
        assert!(queue.turns.is_empty() && queue.lengths.is_empty(), "nothing is left behind");
        all
    }

    #[test]
    fn one_principal_is_served_in_the_order_of_arrival() {
        let mut queue = FairQueue::default();
        for number in 0..5 {
            queue.push(ANN, number);
        }
        assert_eq!(queue.len(), 5);
        assert_eq!(rest(&mut queue), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_thousand_calls_of_one_delay_the_one_call_of_another_by_one() {
        let mut queue = FairQueue::default();
        for _ in 0..1000 {
            queue.push(ANN, 'a');
        }
        queue.push(BOB, 'b');
        queue.push(CAT, 'c');
        let served: String = (0..4).filter_map(|_| queue.pop()).collect();
        assert_eq!(served, "abca");
    }

    #[test]
    fn principals_take_turns_also_when_they_come_back() {
        let mut queue = FairQueue::default();
        for name in ["a1", "a2", "a3"] {
            queue.push(ANN, name);
        }
        queue.push(BOB, "b1");
        assert_eq!(queue.pop(), Some("a1"));
        assert_eq!(queue.pop(), Some("b1"));
        // Bob is behind Ann again, not before her.
        queue.push(BOB, "b2");
        queue.push(BOB, "b3");
        assert_eq!(rest(&mut queue), ["a2", "b2", "a3", "b3"]);
    }

    #[test]
    fn whoever_leaves_is_missed_by_nobody() {
        let mut queue = FairQueue::default();
        let tickets: Vec<_> = (0..6).map(|n| queue.push(if n % 2 == 0 { ANN } else { BOB }, n)).collect();
        assert_eq!(queue.remove(&tickets[2]), Some(2));
        assert_eq!(queue.remove(&tickets[2]), None, "only once");
        assert_eq!(queue.pop(), Some(0));
        assert_eq!(queue.remove(&tickets[0]), None, "served already");
        for n in [1, 3, 5] {
            assert_eq!(queue.remove(&tickets[n]), Some(n));
        }
        assert_eq!(queue.len(), 1);
        assert_eq!(rest(&mut queue), [4]);
    }

    #[test]
    fn room_is_made_at_the_expense_of_whoever_has_the_most() {
        let mut queue = FairQueue::default();
        for name in ["a1", "a2", "a3"] {
            queue.push(ANN, name);
        }
        queue.push(BOB, "b1");
        assert_eq!(queue.make_room(ANN), None, "not for its own newer call");
        assert_eq!(queue.make_room(CAT), Some("a3"), "the newest of the longest line");
        queue.push(CAT, "c1");
        assert_eq!(queue.make_room(BOB), None, "shares would be no more even");
        assert_eq!(rest(&mut queue), ["a1", "b1", "c1", "a2"]);
    }

    #[test]
    fn random_calls_keep_every_promise() {
        fastrand::seed(7);
        let mut queue = FairQueue::default();
        let mut waiting: Vec<(PrincipalId, u32, Ticket)> = Vec::new();
        for call in 0..20_000 {
            match fastrand::u8(..4) {
                0 | 1 => {
                    let principal = PrincipalId(fastrand::u64(..5));
                    let ticket = queue.push(principal, call);
                    waiting.push((principal, call, ticket));
                }
                2 if !waiting.is_empty() => {
                    let (_, call, ticket) = waiting.remove(fastrand::usize(..waiting.len()));
                    assert_eq!(queue.remove(&ticket), Some(call));
                }
                _ => {
                    let Some(served) = queue.pop() else {
                        assert!(waiting.is_empty());
                        continue;
                    };
                    let place = waiting.iter().position(|(_, call, _)| *call == served).unwrap();
                    let (principal, ..) = waiting.remove(place);
                    let first = waiting[..place].iter().all(|(earlier, ..)| *earlier != principal);
                    assert!(first, "an earlier call of the same principal still waits");
                }
            }
            assert_eq!(queue.len(), waiting.len());
            assert_eq!(queue.turns.len(), queue.lines.len());
            assert_eq!(queue.lengths.len(), queue.lines.len());
        }
        assert_eq!(rest(&mut queue).len(), waiting.len());
    }

    #[test]
    fn an_identity_keeps_its_number() {
        assert_eq!(PrincipalId::of(&"ann"), PrincipalId::of(&"ann"));
        assert_ne!(PrincipalId::of(&"ann"), PrincipalId::of(&"bob"));
    }
}
