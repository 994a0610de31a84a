//! What the control plane asks about replicas: probes, scoring calls before traffic, look-ups of names.

use prometheus::{IntCounterVec, Registry};

use super::family;

/// Questions about replicas.
pub struct HealthMetrics {
    probes: IntCounterVec,
    names: IntCounterVec,
}

/// How a probe or a scoring call of the gateway's own ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The probe was answered well.
    Passed,
    /// There was no connection.
    Unreachable,
    /// No whole answer came in time.
    TimedOut,
    /// It was answered otherwise, or broken off.
    Failed,
    /// The scoring call was answered 200.
    ScorePassed,
    /// The scoring call was not.
    ScoreFailed,
}

impl ProbeOutcome {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Passed, Self::Unreachable, Self::TimedOut, Self::Failed, Self::ScorePassed, Self::ScoreFailed];

    /// The word of the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::ScorePassed => "score_passed",
            Self::ScoreFailed => "score_failed",
        }
    }
}

/// How a look-up of a name ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUpOutcome {
    /// The name means the same as before.
    Unchanged,
    /// It means something else now, or was looked up for the first time.
    Changed,
    /// It means nothing (any more); the last good answer stays.
    Empty,
    /// There was no answer; the last good one stays.
    Failed,
}

impl LookUpOutcome {
    const ALL: [Self; 4] = [Self::Unchanged, Self::Changed, Self::Empty, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Empty => "empty",
            Self::Failed => "failed",
        }
    }
}

impl HealthMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Self {
            probes: family::PROBES.counters(registry),
            names: family::NAME_LOOK_UPS.counters(registry),
        };
        for outcome in LookUpOutcome::ALL {
            let _ = metrics.names.with_label_values(&[outcome.as_str()]);
        }
        metrics
    }

    /// Counts a probe or a scoring call.
    pub fn probed(&self, service: &str, deployment: &str, outcome: ProbeOutcome) {
        self.probes.with_label_values(&[service, deployment, outcome.as_str()]).inc();
    }

    /// Shows nothing any more about a deployment that is not asked: whoever makes services and deletes them must not make
    /// series without end.
    pub fn forget_probes(&self, service: &str, deployment: &str) {
        for outcome in ProbeOutcome::ALL {
            // Fails where there was no such outcome.
            let _ = self.probes.remove_label_values(&[service, deployment, outcome.as_str()]);
        }
    }

    /// Counts a look-up of a name.
    pub fn looked_up(&self, outcome: LookUpOutcome) {
        self.names.with_label_values(&[outcome.as_str()]).inc();
    }
}
