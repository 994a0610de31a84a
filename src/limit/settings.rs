//! The limits of services and deployments, as their settings give them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::catalog::ComputeType;

use crate::upstream::Deadlines;

use super::RateLimits;

/// Sizes and waits on the client, the same for all of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `body_bytes`: largest request body, in bytes.
    pub body_bytes: u64,
    /// `header_bytes`: largest request head (request line and fields), in bytes. Bounded above by the listener's own.
    pub header_bytes: usize,
    /// `request_body_timeout`: longest wait for the next 4 KiB (or the end) of a request body.
    pub request_body: Duration,
    /// `response_write_timeout`: longest wait for the client to take the next piece of the answer.
    pub response_write: Duration,
    /// `answer_timeout`: longest time from the head of an answer, or of a tunnel's 101, to its end; `None`: no limit.
    pub answer: Option<Duration>,
    /// `rate` and `rate_per_principal`: how many calls in a time.
    pub rates: RateLimits,
}

impl Limits {
    /// Bounds of `body_bytes`.
    pub const BODY_BYTES: RangeInclusive<u64> = 1..=1 << 40;
    /// Bounds of `header_bytes`; no listener reads a larger head.
    pub const HEADER_BYTES: RangeInclusive<u64> = 1 << 10..=64 << 10;
    /// Bounds of the waits on the client.
    pub const WAITS: RangeInclusive<Duration> = MILLISECOND..=minutes(60);
    /// Bounds of `answer_timeout`.
    pub const ANSWER: RangeInclusive<Duration> = MILLISECOND..=minutes(7 * 24 * 60);
}

/// Those of a service that sets none.
impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 100 << 20,
            header_bytes: 64 << 10,
            request_body: Duration::from_secs(30),
            response_write: Duration::from_secs(30),
            answer: None,
            rates: RateLimits::default(),
        }
    }
}

/// Waits on the replicas of one deployment and how many calls they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeploymentLimits {
    /// The waits on the replica.
    pub upstream: Deadlines,
    /// How many calls at once, and how the rest waits.
    pub admission: AdmissionSettings,
}

impl DeploymentLimits {
    /// Bounds of `connect_timeout`.
    pub const CONNECT: RangeInclusive<Duration> = MILLISECOND..=minutes(5);
    /// Bounds of `scoring_timeout` and of `idle_timeout`.
    pub const ANSWER: RangeInclusive<Duration> = MILLISECOND..=minutes(24 * 60);
    /// Bounds of `concurrent_requests_per_replica`.
    pub const PER_REPLICA: RangeInclusive<u32> = 1..=1_000_000;
    /// Bounds of `queue_wait`.
    pub const QUEUE_WAIT: RangeInclusive<Duration> = Duration::ZERO..=minutes(10);
    /// Bounds of `queue_length`.
    pub const QUEUE_LENGTH: RangeInclusive<u32> = 0..=1_000_000;
}

/// Those of a service that sets none.
impl Default for DeploymentLimits {
    fn default() -> Self {
        Self {
            upstream: Deadlines {
                connect: Duration::from_secs(5),
                first_byte: Duration::from_secs(60),
                idle: Duration::from_secs(60),
            },
            admission: AdmissionSettings {
                per_replica: None,
                chosen_by: ChosenBy::Owner,
                queue_wait: Duration::from_millis(500),
                queue_length: QueueLength::DEFAULT,
            },
        }
    }
}

/// How many calls a deployment takes at once and how the rest waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// `concurrent_requests_per_replica`; `None`: no limit.
    pub per_replica: Option<u32>,
    /// Who set that, for whoever is refused by it.
    pub chosen_by: ChosenBy,
    /// `queue_wait`: longest wait for a place.
    pub queue_wait: Duration,
    /// `queue_length`: how many may wait at once.
    pub queue_length: QueueLength,
}

/// Where a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// Whoever owns the service has set it.
    Owner,
    /// Nobody has: it is what Azure gives services that leave it out.
    Azure,
}

/// How many calls may wait at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueLength {
    /// This many.
    Fixed(u32),
    /// As many as there are places, so that twice as many calls as places are taken in (Managed: more than
    /// `2 x max_concurrent_requests_per_instance x instances` is answered 429, Azure's limits of online endpoints).
    AsPlaces,
}

impl QueueLength {
    /// That of a service that sets none, but for Managed ones.
    pub const DEFAULT: Self = Self::Fixed(1000);

    /// That of a service of `compute_type` that sets none.
    #[must_use]
    pub const fn default_of(compute_type: ComputeType) -> Self {
        match compute_type {
            ComputeType::Aci | ComputeType::Aks => Self::DEFAULT,
            ComputeType::Managed => Self::AsPlaces,
        }
    }

    /// The number, where there are so many places.
    #[must_use]
    pub const fn of_places(self, places: u32) -> u32 {
        match self {
            Self::Fixed(length) => length,
            Self::AsPlaces => places,
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}
