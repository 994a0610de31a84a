//! Whether a replica may take calls: what probes say of it and what its last attempts came to.

use std::sync::atomic::{AtomicU8, Ordering};

use http::StatusCode;

use crate::error::Kind;

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
    /// What a failure with `kind` after the connection was made says about the replica; `None`: nothing, since it is not
    /// to blame.
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
}

/// The health of one replica.
#[derive(Debug, Default)]
pub(super) struct Health {
    verdict: AtomicU8,
}

impl Health {
    /// Tells how an attempt went.
    #[expect(clippy::unused_self, reason = "ejection comes with the next commit")]
    pub const fn report(&self, _outcome: AttemptOutcome) {}

    /// What probes say from now on.
    pub fn set_verdict(&self, verdict: Verdict) {
        self.verdict.store(verdict as u8, Ordering::Relaxed);
    }

    /// What probes said last.
    pub fn verdict(&self) -> Verdict {
        let all = [Verdict::Unprobed, Verdict::Starting, Verdict::Ready, Verdict::NotReady];
        all[usize::from(self.verdict.load(Ordering::Relaxed)) % all.len()]
    }

    /// Whether it may take calls.
    pub fn serves(&self) -> bool {
        matches!(self.verdict(), Verdict::Unprobed | Verdict::Ready)
    }
}
