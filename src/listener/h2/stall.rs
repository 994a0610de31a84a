//! The write deadline of one HTTP/2 stream: a client that opens no window has its stream reset, the others go on.
//!
//! Whether a stream waits for its client is known to nobody alone: the answer's body sees only that it is not asked for
//! more, and the task around it sees only that it is not done. They tell each other through one cell per connection,
//! which is of the task that is being polled. A stream that never waits costs two writes to that cell and no timer.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::lifecycle;
use crate::wire::deadline::Deadline;

/// What the body of the stream being polled says of its own progress, and what it is told before it is dropped.
#[derive(Clone, Default)]
pub(super) struct Progress(Rc<Cell<Waits>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Waits {
    /// Nothing new: the body has not been asked.
    #[default]
    AsBefore,
    /// For the next piece of the answer.
    ForModel,
    /// For the client to make room for a piece, at most so long.
    ForClient { patience: Duration },
    /// For nothing any more: the client made no room in time.
    Ended,
}

impl Progress {
    /// A piece has been handed over; the client has `patience` to make room for it.
    pub(super) fn waits_for_client(&self, patience: Duration) {
        self.0.set(Waits::ForClient { patience });
    }

    /// The next piece is not there yet.
    pub(super) fn waits_for_model(&self) {
        self.0.set(Waits::ForModel);
    }

    /// For a body being dropped: whether that is because its client made no room in time.
    pub(super) fn is_stalled(&self) -> bool {
        self.0.get() == Waits::Ended
    }
}

/// Runs hyper's stream tasks on this worker, each under its write deadline.
#[derive(Clone)]
pub(super) struct StreamExecutor(pub Progress);

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        let progress = self.0.clone();
        lifecycle::spawn_local(StreamTask { task: Some(task), progress, deadline: Deadline::new() });
    }
}

pin_project! {
    /// hyper's task of one stream. Dropping that task resets the stream.
    struct StreamTask<F> {
        #[pin]
        task: Option<F>,
        progress: Progress,
        deadline: Deadline,
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(task) = this.task.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let cell = &this.progress.0;
        cell.set(Waits::AsBefore);
        if task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match cell.get() {
            Waits::ForClient { patience } => this.deadline.set(Instant::now() + patience),
            Waits::ForModel => this.deadline.clear(),
            Waits::AsBefore | Waits::Ended => {}
        }
        if this.deadline.poll_expired(cx).is_pending() {
            return Poll::Pending;
        }
        cell.set(Waits::Ended);
        this.task.set(None);
        cell.set(Waits::AsBefore);
        Poll::Ready(())
    }
}
