//! A timer that is cheap to move, for waits that mostly end long before it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// One point in time after which a wait is over; made once per connection and moved for each wait.
///
/// Setting it touches no timer. It costs a registration only when a wait is polled that is not over at once, and moving
/// it later leaves the registered timer where it is: that one fires early, and is then moved to where it should be.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// A deadline that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self { at: None, timer: None }
    }

    /// Lets the wait end at `at`, whatever was set before. Takes effect at the next poll.
    pub const fn set(&mut self, at: Instant) {
        self.at = Some(at);
    }

    /// Lets the wait last for ever.
    pub const fn clear(&mut self) {
        self.at = None;
    }

    /// Whether a point in time is set, passed or not.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready once the set time has passed, and until it is moved or cleared. If no time is set: pending, without a wake-up.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn expired(deadline: &mut Deadline) {
        poll_fn(|cx| deadline.poll_expired(cx)).await;
    }

    fn poll_once(deadline: &mut Deadline) -> Poll<()> {
        deadline.poll_expired(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn expires_at_the_set_time_and_stays_expired() {
        let start = Instant::now();
        let mut deadline = Deadline::new();
        deadline.set(start + SECOND);
        assert!(poll_once(&mut deadline).is_pending());
        expired(&mut deadline).await;
        assert_eq!(start.elapsed(), SECOND);
        assert!(poll_once(&mut deadline).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn moves_both_ways_after_it_was_armed() {
        let start = Instant::now();
        let mut deadline = Deadline::new();
        deadline.set(start + SECOND);
        assert!(poll_once(&mut deadline).is_pending());
        deadline.set(start + 5 * SECOND);
        expired(&mut deadline).await;
        assert_eq!(start.elapsed(), 5 * SECOND);
        deadline.set(start + 20 * SECOND);
        assert!(poll_once(&mut deadline).is_pending());
        deadline.set(start + 6 * SECOND);
        expired(&mut deadline).await;
        assert_eq!(start.elapsed(), 6 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_has_passed_is_expired_at_once() {
        let mut deadline = Deadline::new();
        let past = Instant::now();
        tokio::time::advance(SECOND).await;
        deadline.set(past);
        assert!(poll_once(&mut deadline).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn never_expires_when_cleared() {
        let mut deadline = Deadline::new();
        assert!(poll_once(&mut deadline).is_pending());
        deadline.set(Instant::now() + SECOND);
        assert!(poll_once(&mut deadline).is_pending());
        deadline.clear();
        assert!(!deadline.is_set());
        tokio::time::advance(60 * SECOND).await;
        assert!(poll_once(&mut deadline).is_pending());
    }
}
