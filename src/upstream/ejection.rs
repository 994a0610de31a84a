//! Passive ejection: for how long a replica whose attempts keep failing gets no calls. Pure: takes the clock.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::StatusCode;

use crate::error::Kind;

/// What one attempt came to, as far as it says something about the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// A new connection was made.
    Connected,
    /// The head of an answer came, with this status.
    Answered(StatusCode),
    /// No connection within `connect_timeout`.
    ConnectFailed,
    /// It closed or reset the connection in mid-call.
    Reset,
    /// No answer within `scoring_timeout`.
    TimedOut,
    /// What it answered is no acceptable HTTP.
    ProtocolViolation,
}

impl AttemptOutcome {
    /// What a failure with `kind` says about the replica; `None`: nothing, since somebody else is to blame.
    #[must_use]
    pub const fn of_failure(kind: Kind) -> Option<Self> {
        match kind {
            Kind::ConnectFailed => Some(Self::ConnectFailed),
            Kind::UpstreamReset => Some(Self::Reset),
            Kind::UpstreamTimeout => Some(Self::TimedOut),
            Kind::UpstreamProtocol => Some(Self::ProtocolViolation),
            _ => None,
        }
    }

    /// What is to be made of it.
    pub(super) fn evidence(self) -> Evidence {
        match self {
            Self::Connected => Evidence::Reachable,
            Self::Answered(status) if status.is_server_error() => Evidence::Against(Cause::Failing),
            Self::Answered(_) => Evidence::Good,
            Self::ConnectFailed => Evidence::Against(Cause::Unreachable),
            Self::Reset | Self::TimedOut | Self::ProtocolViolation => Evidence::Against(Cause::Failing),
        }
    }
}

/// What one attempt shows about a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It answers.
    Good,
    /// It accepts connections, which says nothing of its answers.
    Reachable,
    /// Something is wrong with it.
    Against(Cause),
}

/// Why a replica is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It takes no connections: calls sent there are lost, and cost a caller up to `connect_timeout`.
    Unreachable,
    /// It takes connections and answers 5xx, resets, or does not answer: better than nobody.
    Failing,
}

impl Cause {
    /// For logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "connections fail",
            Self::Failing => "calls fail (5xx, reset, timeout)",
        }
    }
}

/// When a replica is ejected and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionSettings {
    /// `failures`: so many failed attempts in a row eject a replica.
    pub failures: u32,
    /// `time`: length of the first ejection; the next one in a row is longer by as much. So long in service without
    /// another one, and one is forgotten.
    pub time: Duration,
    /// `most_time`: no ejection is longer.
    pub most_time: Duration,
    /// `keep`: percent of the reachable replicas that is never ejected for its answers; at least one replica is kept
    /// whatever this says. Replicas that take no connections do not count and are always ejected.
    pub keep: u8,
}

impl EjectionSettings {
    /// Bounds of `failures`.
    pub const FAILURES: RangeInclusive<u32> = 1..=1_000_000;
    /// Bounds of `time` and `most_time`.
    pub const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
    /// Bounds of `keep`.
    pub const KEEP: RangeInclusive<u32> = 0..=100;

    /// Whether one more replica may be ejected for its answers, with `out` of `reachable` ones ejected for theirs.
    pub(super) const fn may_eject(&self, reachable: usize, out: usize) -> bool {
        let most = reachable * (100_usize.saturating_sub(self.keep as usize)) / 100;
        out < most && out + 1 < reachable
    }
}

/// Those of a deployment that sets none.
impl Default for EjectionSettings {
    fn default() -> Self {
        Self { failures: 5, time: Duration::from_secs(10), most_time: Duration::from_secs(5 * 60), keep: 50 }
    }
}

/// A point in time: milliseconds since some point at the start of the process.
pub(super) type Millis = u64;

/// The ejections of one replica.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    /// Ejections in a row that are not forgotten.
    row: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    InService { since: Millis },
    Ejected { until: Millis },
}

impl Default for State {
    fn default() -> Self {
        Self::InService { since: 0 }
    }
}

impl Ejections {
    /// Ejects the replica, or prolongs an ejection after a trial has failed; returns when it ends. A trial before that end
    /// prolongs nothing: it was made only because nobody else was left.
    pub fn eject(&mut self, settings: &EjectionSettings, now: Millis) -> Millis {
        let time = millis(settings.time).max(1);
        let most = millis(settings.most_time).max(time);
        match self.state {
            State::Ejected { until } if now < until => return until,
            State::Ejected { .. } => {}
            State::InService { since } => {
                let forgotten = now.saturating_sub(since) / time;
                self.row = self.row.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
            }
        }
        // Counting past the longest ejection would only make forgetting slower.
        let longest = u32::try_from(most.div_ceil(time)).unwrap_or(u32::MAX);
        self.row = self.row.saturating_add(1).min(longest);
        let until = now + (time * u64::from(self.row)).min(most);
        self.state = State::Ejected { until };
        until
    }

    /// The replica is back in service.
    pub const fn end(&mut self, now: Millis) {
        self.state = State::InService { since: now };
    }
}

pub(super) fn millis(duration: Duration) -> Millis {
    // 500 million years fit; what is added to it must not overflow.
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(time: u64, most_time: u64) -> EjectionSettings {
        let (time, most_time) = (Duration::from_secs(time), Duration::from_secs(most_time));
        EjectionSettings { time, most_time, ..EjectionSettings::default() }
    }

    #[test]
    fn ejections_in_a_row_grow_up_to_the_longest() {
        let settings = settings(10, 35);
        let mut ejections = Ejections::default();
        let mut now = 0;
        for length in [10_000, 20_000, 30_000, 35_000, 35_000] {
            let until = ejections.eject(&settings, now);
            assert_eq!(until - now, length);
            // The trial at its end fails.
            now = until;
        }
    }

    #[test]
    fn good_behaviour_lets_ejections_be_forgotten_one_by_one() {
        let settings = settings(10, 300);
        let mut ejections = Ejections::default();
        let mut now = 0;
        for _ in 0..4 {
            now = ejections.eject(&settings, now);
        }
        // Two are forgotten in 25 seconds.
        ejections.end(now);
        now += 25_000;
        assert_eq!(ejections.eject(&settings, now), now + 30_000);
        now += 30_000;
        ejections.end(now);
        now += 1_000_000;
        assert_eq!(ejections.eject(&settings, now), now + 10_000);
    }

    #[test]
    fn an_early_trial_that_fails_prolongs_nothing() {
        let settings = settings(10, 300);
        let mut ejections = Ejections::default();
        assert_eq!(ejections.eject(&settings, 0), 10_000);
        assert_eq!(ejections.eject(&settings, 1000), 10_000);
        assert_eq!(ejections.eject(&settings, 10_000), 30_000);
    }

    #[test]
    fn the_floor_keeps_a_share_and_always_one() {
        let most_out = |keep, reachable| {
            let settings = EjectionSettings { keep, ..EjectionSettings::default() };
            (0..=reachable).find(|out| !settings.may_eject(reachable, *out)).unwrap()
        };
        for (keep, reachable, out) in [
            (50, 0, 0),
            (50, 1, 0),
            (50, 2, 1),
            (50, 3, 1),
            (50, 4, 2),
            (0, 1, 0),
            (0, 4, 3),
            (100, 4, 0),
            (90, 10, 1),
        ] {
            assert_eq!(most_out(keep, reachable), out, "keep {keep} of {reachable}");
        }
    }

    #[test]
    fn only_what_the_replica_did_is_held_against_it() {
        let answered = |status| AttemptOutcome::Answered(StatusCode::from_u16(status).unwrap()).evidence();
        for status in [200, 302, 400, 404, 429, 499] {
            assert_eq!(answered(status), Evidence::Good, "{status}");
        }
        for status in [500, 502, 503, 599] {
            assert_eq!(answered(status), Evidence::Against(Cause::Failing), "{status}");
        }
        assert_eq!(AttemptOutcome::of_failure(Kind::ClientGone), None);
        assert_eq!(AttemptOutcome::of_failure(Kind::BodyTimeout), None);
        let connect = AttemptOutcome::of_failure(Kind::ConnectFailed).unwrap();
        assert_eq!(connect.evidence(), Evidence::Against(Cause::Unreachable));
    }
}
