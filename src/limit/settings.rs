//! The limits of services and deployments, as their settings give them.

use std::time::Duration;

use crate::upstream::Deadlines;

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
}

/// Waits on the replicas of one deployment and how many calls they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeploymentLimits {
    /// The waits on the replica.
    pub upstream: Deadlines,
    /// How many calls at once, and how the rest waits.
    pub admission: AdmissionSettings,
}

/// How many calls a deployment takes at once and how the rest waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// `concurrent_requests_per_replica`; `None`: no limit.
    pub per_replica: Option<u32>,
    /// `queue_wait`: longest wait for a place.
    pub queue_wait: Duration,
    /// `queue_length`: how many may wait at once.
    pub queue_length: u32,
}
