//! Whether a replica may take calls, as all workers see it: what probes say, whether it is ejected, how far its slow start
//! has come. Atomics only where calls pass; changes go through the set's lock.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ejection::{Cause, EjectionSettings, Ejections, Millis, millis};

/// What probes make of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody probes it: it serves.
    #[default]
    Unprobed,
    /// Not ready yet: it gets no calls.
    Starting,
    /// Ready: it serves.
    Ready,
    /// Not ready any more: it gets no calls.
    NotReady,
}

impl Verdict {
    const fn serves(self) -> bool {
        matches!(self, Self::Unprobed | Self::Ready)
    }
}

/// What a replica may get at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its full share.
    Full,
    /// Part of its share, in thousandths: it is in its slow start.
    Slow(u16),
    /// Its ejection is over: one call at a time, until one goes well.
    OnTrial,
    /// Nothing, but where nobody else is left.
    Ejected(Cause),
    /// Nothing: probes say so.
    Barred,
}

/// Full share, in thousandths.
pub(super) const WHOLE: u16 = 1000;
/// Least share in a slow start; without any, a replica would never be seen to work.
const LEAST_SHARE: u64 = 100;
/// Between two early trials of an ejected replica when nobody else is left.
const EARLY_TRIALS: Millis = 1000;

const BARRED: u8 = 1;
const UNREACHABLE: u8 = 2;
const FAILING: u8 = 4;
const SLOW: u8 = 8;

/// The health of one replica.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// What keeps the replica from its full share, bit by bit; 0: nothing. Written with `changing` held.
    marks: AtomicU8,
    /// Failed attempts in a row.
    failures: AtomicU32,
    /// So many eject it; 0: it is never ejected.
    threshold: AtomicU32,
    /// End of the ejection.
    ejected_until: AtomicU64,
    /// When it was ejected or last put to trial.
    tried_at: AtomicU64,
    /// Calls under way that were given to it while it was ejected.
    trials: Trials,
    /// Begin of the slow start.
    slow_since: AtomicU64,
    changing: Mutex<Changing>,
}

#[derive(Debug, Default)]
struct Changing {
    verdict: Verdict,
    ejections: Ejections,
}

impl Health {
    /// Whether it gets its full share: the one look that a call takes at a replica when all is well.
    pub fn is_sound(&self) -> bool {
        self.marks.load(Relaxed) == 0
    }

    /// Whether it is neither ejected nor barred.
    pub fn serves(&self) -> bool {
        self.marks.load(Relaxed) & (BARRED | UNREACHABLE | FAILING) == 0
    }

    /// Why it is ejected, if it is.
    pub fn ejected(&self) -> Option<Cause> {
        match self.marks.load(Relaxed) {
            marks if marks & UNREACHABLE != 0 => Some(Cause::Unreachable),
            marks if marks & FAILING != 0 => Some(Cause::Failing),
            _ => None,
        }
    }

    /// What it may get now, with a slow start of this length.
    pub fn standing(&self, slow_start: Duration, clock: &Clock) -> Standing {
        let marks = self.marks.load(Relaxed);
        if marks & BARRED != 0 {
            return Standing::Barred;
        }
        match self.ejected() {
            Some(_) if clock.now() >= self.ejected_until.load(Relaxed) => Standing::OnTrial,
            Some(cause) => Standing::Ejected(cause),
            None if marks & SLOW != 0 => self.slow(slow_start, clock),
            None => Standing::Full,
        }
    }

    fn slow(&self, slow_start: Duration, clock: &Clock) -> Standing {
        let since = self.slow_since.load(Relaxed);
        let (passed, whole) = (clock.now().saturating_sub(since), millis(slow_start));
        if passed < whole {
            let share = (passed * u64::from(WHOLE) / whole).max(LEAST_SHARE);
            return Standing::Slow(u16::try_from(share).unwrap_or(WHOLE));
        }
        // Whoever finds it over says so; if somebody else is changing things, the next one will.
        if let Ok(_changing) = self.changing.try_lock()
            && self.slow_since.load(Relaxed) == since
        {
            self.marks.fetch_and(!SLOW, Relaxed);
        }
        Standing::Full
    }

    /// Whether, with nobody else left, an ejected replica is to be tried before its time.
    pub fn is_early_trial_due(&self, clock: &Clock) -> bool {
        clock.now() >= self.tried_at.load(Relaxed) + EARLY_TRIALS
    }

    /// Begins the one trial under way; `None`: there is one.
    pub fn begin_trial(&self, clock: &Clock) -> Option<Trial> {
        let trial = self.trials.begin()?;
        self.tried_at.store(clock.now(), Relaxed);
        Some(trial)
    }

    /// Begins a trial beside those under way.
    pub fn join_trial(&self) -> Trial {
        self.trials.join()
    }

    /// The call of a trial is over, however it went.
    pub fn end_trial(&self, trial: Trial) {
        self.trials.end(trial);
    }

    /// An attempt went well. `true`: it was ejected and is to be given back.
    pub fn note_success(&self) -> bool {
        if self.ejected().is_some() {
            // A call from before the ejection tells nothing new.
            return self.is_on_trial();
        }
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        false
    }

    /// A connection was made. `true`: it was ejected as unreachable and is to be given back.
    pub fn note_reachable(&self) -> bool {
        self.marks.load(Relaxed) & UNREACHABLE != 0 && self.is_on_trial()
    }

    /// An attempt failed. `true`: it is to be ejected, or its ejection to be prolonged.
    pub fn note_failure(&self) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).wrapping_add(1);
        if self.ejected().is_some() {
            return self.is_on_trial();
        }
        // Every so many, since the floor may have refused the time before.
        let threshold = self.threshold.load(Relaxed);
        threshold != 0 && failures.is_multiple_of(threshold)
    }

    /// Whether a call is under way that was given to it while it was ejected.
    pub fn is_on_trial(&self) -> bool {
        self.trials.are_under_way()
    }

    /// From now on so many failures in a row eject it; 0: none do.
    pub fn set_threshold(&self, failures: u32) {
        self.threshold.store(failures, Relaxed);
    }

    /// Ejects it, or prolongs its ejection; returns for how long.
    pub fn eject(&self, cause: Cause, settings: &EjectionSettings, clock: &Clock) -> Duration {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        let until = changing.ejections.eject(settings, now);
        self.trials.forget();
        self.ejected_until.store(until, Relaxed);
        self.tried_at.store(now, Relaxed);
        let mark = match cause {
            Cause::Unreachable => UNREACHABLE,
            Cause::Failing => FAILING,
        };
        let others = self.marks.load(Relaxed) & BARRED;
        self.marks.store(others | mark, Relaxed);
        Duration::from_millis(until.saturating_sub(now))
    }

    /// Ends its ejection and lets it start slowly.
    pub fn give_back(&self, clock: &Clock) {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.enter(&mut changing, clock.now());
    }

    /// Lets a newcomer start slowly.
    pub fn start_slowly(&self, clock: &Clock) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.slow_since.store(clock.now(), Relaxed);
        self.marks.fetch_or(SLOW, Relaxed);
    }

    fn enter(&self, changing: &mut Changing, now: Millis) {
        changing.ejections.end(now);
        self.trials.forget();
        self.failures.store(0, Relaxed);
        self.slow_since.store(now, Relaxed);
        let others = self.marks.load(Relaxed) & BARRED;
        self.marks.store(others | SLOW, Relaxed);
    }

    /// What probes say from now on. One that they find ready again enters anew: with it goes what was held against it.
    pub fn set_verdict(&self, verdict: Verdict, clock: &Clock) {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut changing.verdict, verdict);
        match (before.serves(), verdict.serves()) {
            (true, false) => {
                self.marks.fetch_or(BARRED, Relaxed);
            }
            (false, true) => {
                self.marks.fetch_and(!BARRED, Relaxed);
                self.enter(&mut changing, clock.now());
            }
            (true, true) | (false, false) => {}
        }
    }

    /// What probes said last.
    pub fn verdict(&self) -> Verdict {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner).verdict
    }
}

/// Calls under way that were given to a replica while it was ejected, since it was ejected last: what became of the trial
/// is known long before a streamed answer ends, and must not keep the next ejection from having trials of its own. The
/// ejection's number stands above their count.
#[derive(Debug, Default)]
struct Trials(AtomicU64);

/// One of them: the ejection that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial(u64);

impl Trials {
    const ONE_EJECTION: u64 = 1 << 32;

    /// The only one.
    fn begin(&self) -> Option<Trial> {
        let none = |all: u64| (all.is_multiple_of(Self::ONE_EJECTION)).then_some(all + 1);
        self.0.try_update(Relaxed, Relaxed, none).ok().map(Self::of)
    }

    /// One more.
    fn join(&self) -> Trial {
        Self::of(self.0.fetch_add(1, Relaxed))
    }

    fn end(&self, Trial(ejection): Trial) {
        let one_less = |all: u64| (all / Self::ONE_EJECTION == ejection).then(|| all.saturating_sub(1));
        // Fails for one of an ejection that is over.
        let _ = self.0.try_update(Relaxed, Relaxed, one_less);
    }

    /// Those under way do not matter any more.
    fn forget(&self) {
        let next = |all: u64| Some((all / Self::ONE_EJECTION + 1) * Self::ONE_EJECTION);
        let _ = self.0.try_update(Relaxed, Relaxed, next);
    }

    fn are_under_way(&self) -> bool {
        !self.0.load(Relaxed).is_multiple_of(Self::ONE_EJECTION)
    }

    const fn of(all: u64) -> Trial {
        Trial(all / Self::ONE_EJECTION)
    }
}

/// The time, read once at most and only if somebody asks.
#[derive(Debug, Default)]
pub(super) struct Clock(std::cell::Cell<Option<Millis>>);

impl Clock {
    /// Milliseconds since the process first asked.
    pub fn now(&self) -> Millis {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let now = self.0.get().unwrap_or_else(|| millis(START.elapsed()));
        self.0.set(Some(now));
        now
    }

    #[cfg(test)]
    pub fn at(now: Millis) -> Self {
        Self(std::cell::Cell::new(Some(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW_START: Duration = Duration::from_secs(10);

    fn share(health: &Health, now: Millis) -> Standing {
        health.standing(SLOW_START, &Clock::at(now))
    }

    #[test]
    fn a_slow_start_grows_evenly_and_ends() {
        let health = Health::default();
        assert_eq!(share(&health, 5000), Standing::Full);
        health.start_slowly(&Clock::at(5000));
        for (now, thousandths) in [(5000, 100), (6000, 100), (7500, 250), (10_000, 500), (14_999, 999)] {
            assert_eq!(share(&health, now), Standing::Slow(thousandths), "at {now}");
        }
        assert!(!health.is_sound());
        assert_eq!(share(&health, 15_000), Standing::Full);
        assert!(health.is_sound(), "nobody has to look at the clock any more");
    }

    #[test]
    fn an_ejection_ends_in_a_trial_and_the_trial_in_a_slow_start() {
        let health = Health::default();
        let settings = EjectionSettings::default();
        health.eject(Cause::Failing, &settings, &Clock::at(0));
        assert_eq!(share(&health, 9999), Standing::Ejected(Cause::Failing));
        assert_eq!(share(&health, 10_000), Standing::OnTrial);
        assert!(!health.serves() && !health.note_success(), "nobody was sent there");
        let first = health.begin_trial(&Clock::at(10_000)).unwrap();
        assert_eq!(health.begin_trial(&Clock::at(10_000)), None);
        assert!(health.note_failure(), "the ejection is to be prolonged");
        assert_eq!(health.eject(Cause::Failing, &settings, &Clock::at(10_000)), Duration::from_secs(20));
        // Its answer may go on for long; the next trial is another one.
        let second = health.begin_trial(&Clock::at(30_000)).unwrap();
        health.end_trial(first);
        assert!(health.is_on_trial() && health.note_success());
        health.give_back(&Clock::at(30_000));
        assert_eq!(share(&health, 30_000), Standing::Slow(100));
        health.end_trial(second);
        assert!(!health.is_on_trial());
    }

    #[test]
    fn when_nobody_else_is_left_an_ejected_replica_is_tried_each_second() {
        let health = Health::default();
        health.eject(Cause::Unreachable, &EjectionSettings::default(), &Clock::at(500));
        let is_due = |now| health.is_early_trial_due(&Clock::at(now));
        assert!(!is_due(1499) && is_due(1500));
        let trial = health.begin_trial(&Clock::at(1500)).unwrap();
        health.end_trial(trial);
        assert!(!is_due(2499) && is_due(2500));
        assert!(!health.note_reachable(), "a connection from before tells nothing");
        assert!(health.begin_trial(&Clock::at(2500)).is_some() && health.note_reachable());
    }

    #[test]
    fn what_probes_say_stands_before_all_and_a_ready_replica_enters_anew() {
        let health = Health::default();
        let clock = Clock::at(0);
        health.eject(Cause::Unreachable, &EjectionSettings::default(), &clock);
        health.set_verdict(Verdict::NotReady, &clock);
        assert_eq!(share(&health, 1_000_000), Standing::Barred);
        health.set_verdict(Verdict::Ready, &clock);
        assert_eq!((health.verdict(), share(&health, 10_000)), (Verdict::Ready, Standing::Full));
        // Whoever is ready already does not enter.
        health.set_verdict(Verdict::Ready, &Clock::at(20_000));
        assert_eq!(share(&health, 20_000), Standing::Full);
    }
}
