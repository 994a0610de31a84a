//! What callers are told whom a limit keeps out: which setting it was, its value, and when to come back.

use std::time::Duration;

use crate::error::{Error, Kind};

use super::{AdmissionSettings, ChosenBy, QueueLength};

/// A deployment that is too busy, as a caller found it.
pub(super) struct Crowd {
    pub(super) settings: AdmissionSettings,
    pub(super) replicas: usize,
    /// When the queue will have drained.
    pub(super) retry_in: Duration,
}

/// The refusal of a call that found no place.
pub(super) fn crowded(kind: Kind, crowd: &Crowd) -> Error {
    let Crowd { settings, replicas, retry_in } = *crowd;
    let AdmissionSettings { per_replica, chosen_by, queue_wait, queue_length } = settings;
    let per_replica = per_replica.unwrap_or_default();
    let places = if replicas == 1 {
        "its one replica takes".to_owned()
    } else {
        format!("its {replicas} replicas take")
    };
    let bit = match (kind, queue_length) {
        (Kind::QueueTimeout, _) => format!("no place came free within limits.queue_wait, {queue_wait:?}"),
        (_, QueueLength::Fixed(length)) => format!("limits.queue_length, {length}, is used up"),
        (_, QueueLength::AsPlaces) => {
            "as many calls wait as are under way, which is the most without limits.queue_length".to_owned()
        }
    };
    let origin = match chosen_by {
        ChosenBy::Owner => "",
        ChosenBy::Azure => {
            ", Azure's default where max_concurrent_requests_per_container (SDK v1) or \
             max_concurrent_requests_per_instance (SDK v2) is not set"
        }
    };
    let message = format!(
        "too many requests: {places} {per_replica} at once each (limits.concurrent_requests_per_replica{origin}), and {bit}"
    );
    Error::new(kind, message).retry_in(retry_in)
}
