//! What is counted of calls that were tried again, of copies of calls and of samples of them: rare, and so apart from what each call counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus::proto::MetricFamily;

use super::family::{self, Samples};

/// Why a call was tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// There was no connection to the replica.
    ConnectFailed,
    /// A pooled connection was closed at the moment of its use.
    Unsent,
    /// The replica closed or reset the connection before its answer.
    Reset,
    /// The replica's answer has a status of `retry.statuses`.
    Status,
}

/// What became of a copy of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mirrored {
    /// It was answered, whatever the status, and the answer read to its end.
    Sent,
    /// It had no answer, or one that broke off.
    Failed,
    /// Not made: the body is larger than the setting allows.
    TooLarge,
    /// Not made: as many copies as the setting allows are under way.
    Behind,
    /// Not made: all places of the deployment are taken.
    Busy,
    /// Not made: the call's own body never came to its end.
    Incomplete,
}

/// What became of the copy of a call's input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// It is in its file.
    Written,
    /// There was no room for it: too much is under way or waits to be written, or the process ended before.
    Behind,
    /// Its file cannot be written.
    Failed,
}

/// The counts of one service on one thread.
#[derive(Default)]
pub(super) struct Delivery {
    retried: [AtomicU64; Retried::ALL.len()],
    exhausted: AtomicU64,
    mirrored: [AtomicU64; Mirrored::ALL.len()],
    collected: [AtomicU64; Collected::ALL.len()],
}

impl Retried {
    const ALL: [Self; 4] = [Self::ConnectFailed, Self::Unsent, Self::Reset, Self::Status];

    const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailed => "connect_failed",
            Self::Unsent => "unsent",
            Self::Reset => "reset",
            Self::Status => "status",
        }
    }
}

impl Mirrored {
    const ALL: [Self; 6] =
        [Self::Sent, Self::Failed, Self::TooLarge, Self::Behind, Self::Busy, Self::Incomplete];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::TooLarge => "too_large",
            Self::Behind => "behind",
            Self::Busy => "busy",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Collected {
    const ALL: [Self; 3] = [Self::Written, Self::Behind, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Behind => "behind",
            Self::Failed => "failed",
        }
    }
}

impl Delivery {
    pub(super) fn retried(&self, why: Retried) {
        self.retried[why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn exhausted(&self) {
        self.exhausted.fetch_add(1, Relaxed);
    }

    pub(super) fn mirrored(&self, outcome: Mirrored) {
        self.mirrored[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn collected(&self, outcome: Collected) {
        self.collected[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Adds what `other` has counted.
    pub(super) fn absorb(&self, other: &Self) {
        for (ours, theirs) in self.all().zip(other.all()) {
            ours.fetch_add(theirs.load(Relaxed), Relaxed);
        }
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.retried.iter().chain([&self.exhausted]).chain(&self.mirrored).chain(&self.collected)
    }
}

/// The families of all services.
pub(super) struct DeliverySamples {
    retried: Samples,
    exhausted: Samples,
    mirrored: Samples,
    collected: Samples,
}

impl DeliverySamples {
    pub(super) fn new() -> Self {
        Self {
            retried: Samples::of_counter(family::RETRIES),
            exhausted: Samples::of_counter(family::RETRY_BUDGET_EXHAUSTED),
            mirrored: Samples::of_counter(family::MIRRORED),
            collected: Samples::of_counter(family::COLLECTED),
        }
    }

    /// Adds what the threads have counted for `service`. What never happened to it has no series: most services neither
    /// retry nor mirror.
    pub(super) fn add<'a>(&mut self, service: &str, threads: impl Iterator<Item = &'a Delivery>) {
        let sum = Delivery::default();
        threads.for_each(|thread| sum.absorb(thread));
        let add = |samples: &mut Samples, labels: &[&str], count: &AtomicU64| {
            let count = count.load(Relaxed);
            if count > 0 {
                samples.add(labels, count as f64);
            }
        };
        for why in Retried::ALL {
            add(&mut self.retried, &[service, why.as_str()], &sum.retried[why as usize]);
        }
        add(&mut self.exhausted, &[service], &sum.exhausted);
        for outcome in Mirrored::ALL {
            add(&mut self.mirrored, &[service, outcome.as_str()], &sum.mirrored[outcome as usize]);
        }
        for outcome in Collected::ALL {
            add(&mut self.collected, &[service, outcome.as_str()], &sum.collected[outcome as usize]);
        }
    }

    pub(super) fn into_families(self) -> [MetricFamily; 4] {
        [self.retried, self.exhausted, self.mirrored, self.collected].map(Samples::into_family)
    }
}
