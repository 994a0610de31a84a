//! One minute of one service: what happened in it, and how it looked at each look.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::telemetry::metrics::{BUCKETS, CallKind, LoadReading, ServiceReading};

/// Most kinds of calls of one service that are told apart by deployment and exact status; beyond that the class of the
/// status and the reason remain, and with these at most some two hundred more.
const MOST_KINDS: usize = 256;

/// The deployment of calls that are not told apart by it any more; no deployment can have this name.
const OTHERS: &str = "_other";

/// The kinds of calls that a service has had; minutes name them by their place.
#[derive(Default)]
pub(super) struct Kinds(Vec<CallKind>);

impl Kinds {
    pub(super) fn all(&self) -> &[CallKind] {
        &self.0
    }

    /// Forgets kinds that none of `minutes` names any more, once there is no room for new ones.
    pub(super) fn keep_used(&mut self, minutes: &mut VecDeque<Minute>) {
        if self.0.len() < MOST_KINDS {
            return;
        }
        let mut kept = Vec::new();
        let mut places: Vec<Option<u16>> = vec![None; self.0.len()];
        for (place, _) in minutes.iter_mut().flat_map(|minute| &mut minute.kinds) {
            let old = usize::from(*place);
            *place = *places[old].get_or_insert_with(|| {
                kept.push(self.0[old].clone());
                small_place(kept.len() - 1)
            });
        }
        self.0 = kept;
    }

    fn place(&mut self, kind: &CallKind) -> u16 {
        let found = self.0.iter().position(|known| known == kind);
        let place = match found {
            Some(place) => place,
            None if self.0.len() >= MOST_KINDS && kind.deployment.as_deref() != Some(OTHERS) => {
                let others = CallKind {
                    deployment: Some(Arc::from(OTHERS)),
                    code: kind.code.class(),
                    reason: kind.reason,
                };
                return self.place(&others);
            }
            None => {
                self.0.push(kind.clone());
                self.0.len() - 1
            }
        };
        small_place(place)
    }
}

/// Places are few: bounded by the kinds, see [`MOST_KINDS`].
fn small_place(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

/// One minute of one service.
pub(super) struct Minute {
    /// Counted from 1970.
    pub(super) at: u32,
    /// Calls that ended, by the place of their kind.
    pub(super) kinds: Vec<(u16, u32)>,
    /// Their times, by bucket.
    pub(super) durations: [u32; BUCKETS],
    /// Their times added up, in seconds.
    pub(super) seconds: f64,
    pub(super) bytes: u64,
    /// Of prompts and completions.
    pub(super) tokens: [u64; 2],
    pub(super) in_flight: Sampled,
    pub(super) waiting: Sampled,
    pub(super) utilisation: Sampled,
}

/// What was seen at the looks of a minute.
#[derive(Clone, Copy, Default)]
pub(super) struct Sampled {
    pub(super) count: u32,
    pub(super) sum: f32,
    pub(super) least: f32,
    pub(super) most: f32,
}

impl Sampled {
    fn add(&mut self, value: f32) {
        self.least = if self.count == 0 { value } else { self.least.min(value) };
        self.most = if self.count == 0 { value } else { self.most.max(value) };
        self.count += 1;
        self.sum += value;
    }
}

impl Minute {
    pub(super) fn at(at: u32) -> Self {
        Self {
            at,
            kinds: Vec::new(),
            durations: [0; BUCKETS],
            seconds: 0.0,
            bytes: 0,
            tokens: [0; 2],
            in_flight: Sampled::default(),
            waiting: Sampled::default(),
            utilisation: Sampled::default(),
        }
    }

    /// Adds what was counted between two readings.
    pub(super) fn add(&mut self, kinds: &mut Kinds, before: &ServiceReading, now: &ServiceReading) {
        for (kind, count) in &now.calls {
            let more = more(before.calls.get(kind).copied().unwrap_or(0), *count);
            if more > 0 {
                let (place, more) = (kinds.place(kind), small(more));
                match self.kinds.iter_mut().find(|(known, _)| *known == place) {
                    Some((_, count)) => *count = count.saturating_add(more),
                    None => self.kinds.push((place, more)),
                }
            }
        }
        for ((sum, before), now) in
            self.durations.iter_mut().zip(before.duration.counts).zip(now.duration.counts)
        {
            *sum = sum.saturating_add(small(more(before, now)));
        }
        let seconds = now.duration.sum.checked_sub(before.duration.sum).unwrap_or(now.duration.sum);
        self.seconds += seconds.as_secs_f64();
        self.bytes += more(before.bytes, now.bytes);
        for ((sum, before), now) in self.tokens.iter_mut().zip(before.tokens).zip(now.tokens) {
            *sum += more(before, now);
        }
    }

    /// Notes how the service looks now.
    pub(super) fn sample(&mut self, in_flight: u64, load: Option<LoadReading>) {
        self.in_flight.add(in_flight as f32);
        self.waiting.add(load.map_or(0, |load| load.waiting) as f32);
        if let Some(load) = load.filter(|load| load.slots > 0) {
            self.utilisation.add((load.busy + load.waiting) as f32 / load.slots as f32);
        }
    }

    pub(super) fn calls(&self) -> u64 {
        self.kinds.iter().map(|(_, count)| u64::from(*count)).sum()
    }
}

/// What a counter has gained; one that has lost began anew.
fn more(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{GROWTH, MINUTES, MOST_MINUTES};
    use super::*;
    use crate::error::Reason;
    use crate::telemetry::metrics::Code;

    #[test]
    fn a_minute_is_as_small_as_the_bounds_say() {
        let kinds = 4 * size_of::<(u16, u32)>();
        let places = MINUTES as usize + GROWTH;
        let day = places * size_of::<Minute>() + MINUTES as usize * kinds;
        assert!(day <= 315 << 10, "{day}");
        assert!(day * (MOST_MINUTES / MINUTES as usize) <= 62 << 20, "{day}");
    }

    #[test]
    fn past_the_bound_calls_are_told_apart_by_class_and_reason() {
        let mut kinds = Kinds::default();
        let kind = |number: usize, status| CallKind {
            deployment: Some(format!("blue-{number}").into()),
            code: Code::Exact(status),
            reason: Reason::Ok,
        };
        let mut now = ServiceReading::default();
        now.calls.extend((0..1000).map(|number| (kind(number, if number % 2 == 0 { 200 } else { 404 }), 3)));
        let mut minute = Minute::at(7);
        minute.add(&mut kinds, &ServiceReading::default(), &now);
        assert_eq!(minute.calls(), 3000);
        assert!(kinds.all().len() <= MOST_KINDS + 2);
        let others = kinds.all().iter().filter(|kind| kind.deployment.as_deref() == Some(OTHERS));
        assert!(
            others.clone().count() >= 1 && others.clone().all(|kind| matches!(kind.code, Code::Class(_)))
        );
    }

    #[test]
    fn kinds_that_no_minute_names_make_room_and_the_others_keep_their_calls() {
        let mut kinds = Kinds::default();
        let kind = |number: usize| CallKind {
            deployment: Some(format!("blue-{number}").into()),
            code: Code::Exact(200),
            reason: Reason::Ok,
        };
        let mut minutes = VecDeque::from([Minute::at(7)]);
        for number in 0..MOST_KINDS {
            kinds.place(&kind(number));
        }
        minutes[0].kinds = vec![(kinds.place(&kind(200)), 4), (kinds.place(&kind(3)), 5)];
        kinds.keep_used(&mut minutes);
        assert_eq!(kinds.all(), [kind(200), kind(3)]);
        assert_eq!(minutes[0].kinds, [(0, 4), (1, 5)]);
    }

    #[test]
    fn a_counter_that_began_anew_counts_from_nothing() {
        assert_eq!((more(5, 8), more(8, 5), more(0, 0)), (3, 5, 0));
    }
}
