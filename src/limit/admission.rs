//! How many calls a deployment takes at once: a place now, a bounded wait for one, or a refusal in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Kind};

use super::AdmissionSettings;

/// The places of one deployment; shared by all workers, first come first served.
#[derive(Debug)]
pub struct Admission {
    settings: AdmissionSettings,
    places: Option<Arc<Semaphore>>,
    waiting: AtomicU32,
}

/// One place, given back on drop.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Admission {
    /// Places for `replicas` replicas.
    #[must_use]
    pub fn new(settings: AdmissionSettings, replicas: usize) -> Self {
        let places = settings.per_replica.map(|limit| {
            let places = (limit as usize).saturating_mul(replicas).min(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(places))
        });
        Self { settings, places, waiting: AtomicU32::new(0) }
    }

    /// The settings it was made from.
    #[must_use]
    pub const fn settings(&self) -> &AdmissionSettings {
        &self.settings
    }

    /// Calls waiting for a place.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place now, if one is free and nobody waits before.
    #[must_use]
    pub fn try_admit(&self) -> Option<Permit> {
        match &self.places {
            None => Some(Permit(None)),
            Some(places) => Arc::clone(places).try_acquire_owned().ok().map(|permit| Permit(Some(permit))),
        }
    }

    /// A place, waiting up to `queue_wait` for it.
    ///
    /// # Errors
    /// [`Kind::QueueFull`] if `queue_length` calls wait already, [`Kind::QueueTimeout`] after `queue_wait`.
    pub async fn admit(&self) -> Result<Permit, Error> {
        if let Some(permit) = self.try_admit() {
            return Ok(permit);
        }
        let Some(places) = &self.places else {
            return Ok(Permit(None));
        };
        let _place_in_line =
            PlaceInLine::take(&self.waiting, self.settings.queue_length).ok_or_else(|| {
                self.refusal(Kind::QueueFull, "limits.queue_length", self.settings.queue_length)
            })?;
        match tokio::time::timeout(self.settings.queue_wait, Arc::clone(places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Permit(Some(permit))),
            Ok(Err(_closed)) => Err(Error::new(Kind::Internal, "the admission queue is gone")),
            Err(_elapsed) => {
                let waited = format_args!("{:?}", self.settings.queue_wait);
                Err(self.refusal(Kind::QueueTimeout, "limits.queue_wait", waited))
            }
        }
    }

    fn refusal(&self, kind: Kind, limit: &str, value: impl std::fmt::Display) -> Error {
        let per_replica = self.settings.per_replica.unwrap_or_default();
        Error::new(
            kind,
            format!(
                "too many requests: every replica is busy ({limit} is {value}, limits.concurrent_requests_per_replica is {per_replica})"
            ),
        )
    }
}

/// Being counted among the waiting, until dropped.
struct PlaceInLine<'a>(&'a AtomicU32);

impl<'a> PlaceInLine<'a> {
    fn take(waiting: &'a AtomicU32, most: u32) -> Option<Self> {
        let taken = waiting.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < most).then_some(n + 1));
        taken.is_ok().then_some(Self(waiting))
    }
}

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    fn admission(per_replica: Option<u32>, queue_length: u32) -> Admission {
        Admission::new(
            AdmissionSettings { per_replica, queue_wait: Duration::from_millis(500), queue_length },
            2,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_place_and_is_refused_after_queue_wait() {
        let admission = admission(Some(1), 10);
        let first = admission.admit().await.unwrap();
        let _second = admission.admit().await.unwrap();
        assert_eq!(admission.admit().await.unwrap_err().kind, Kind::QueueTimeout);
        drop(first);
        assert!(admission.admit().await.is_ok());
        assert_eq!(admission.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once_and_names_the_limit() {
        let admission = admission(Some(1), 0);
        let _held = (admission.admit().await.unwrap(), admission.admit().await.unwrap());
        let refused = admission.admit().await.unwrap_err();
        assert_eq!(refused.kind, Kind::QueueFull);
        assert!(refused.message.contains("limits.queue_length is 0"), "{}", refused.message);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_leaves_nothing_behind() {
        let admission = admission(Some(1), 1);
        let held = (admission.admit().await.unwrap(), admission.admit().await.unwrap());
        {
            let mut waiting = std::pin::pin!(admission.admit());
            let polled = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
            assert_eq!(admission.waiting(), 1);
        }
        assert_eq!(admission.waiting(), 0);
        drop(held);
        assert!(admission.try_admit().is_some());
    }

    #[test]
    fn without_a_limit_everybody_gets_in() {
        let admission = admission(None, 0);
        let permits: Vec<_> = (0..10_000).map(|_| admission.try_admit()).collect();
        assert!(permits.iter().all(Option::is_some));
    }
}
