//! Clients that take nothing: what they are told, and the watch over HTTP/2 streams, whose window hyper waits for
//! without a limit.
//!
//! A stream's task is watched from outside, since hyper does not ask for the next piece of an answer while it waits: the
//! answer's body notes whose turn it is as it is pulled, and the watch reads that after each poll of the task. No
//! allocation, and no timer as long as the client takes what it is sent.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::wire::deadline::Deadline;

/// The client has taken nothing for `patience`.
pub(super) fn stalled(patience: Duration) -> Error {
    let message = format!("the client took nothing for {patience:?} (limits.response_write_timeout)");
    Error::new(Kind::WriteTimeout, message)
}

/// Runs a stream's task until it ends or its client has taken nothing for as long as it may; drops it then.
pub(super) async fn watched(task: impl Future) {
    let mut watch = Watch { patience: Duration::ZERO, deadline: Deadline::new() };
    {
        let mut task = pin!(task);
        if let Outcome::Stalled(patience) = poll_fn(|cx| watch.poll(cx, task.as_mut())).await {
            TURN.set(Turn::GivenUp(patience));
        }
        // The task goes here, and what it holds hears why.
    }
    TURN.set(Turn::Unknown);
}

/// To be called as a piece of an answer is handed over: the next one is asked for when the client has room for it.
pub(super) fn note_client_turn(patience: Duration) {
    TURN.set(Turn::Client(patience));
}

/// To be called when there is no next piece yet.
pub(super) fn note_replica_turn() {
    TURN.set(Turn::Replica);
}

/// Whether the stream that is being dropped is one that was given up.
pub(super) fn given_up() -> Option<Error> {
    match TURN.get() {
        Turn::GivenUp(patience) => Some(stalled(patience)),
        Turn::Unknown | Turn::Client(_) | Turn::Replica => None,
    }
}

thread_local! {
    /// What the task that is being polled or dropped has told. A worker polls one at a time.
    static TURN: Cell<Turn> = const { Cell::new(Turn::Unknown) };
}

#[derive(Clone, Copy)]
enum Turn {
    /// Nothing new.
    Unknown,
    /// The client's, for so long at most.
    Client(Duration),
    Replica,
    /// The client's, and it took too long.
    GivenUp(Duration),
}

enum Outcome {
    Ended,
    Stalled(Duration),
}

struct Watch {
    patience: Duration,
    /// Set while it is the client's turn.
    deadline: Deadline,
}

impl Watch {
    fn poll(&mut self, cx: &mut Context<'_>, task: Pin<&mut impl Future>) -> Poll<Outcome> {
        TURN.set(Turn::Unknown);
        if task.poll(cx).is_ready() {
            return Poll::Ready(Outcome::Ended);
        }
        match TURN.get() {
            Turn::Client(patience) => {
                self.patience = patience;
                self.deadline.set(Instant::now() + patience);
            }
            Turn::Replica => self.deadline.clear(),
            Turn::Unknown | Turn::GivenUp(_) => {}
        }
        self.deadline.poll_expired(cx).map(|()| Outcome::Stalled(self.patience))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Hands over a piece per item, waiting before each as the item says; notes what it hears when it is dropped.
    struct Stream {
        heard: Rc<RefCell<Vec<String>>>,
    }

    impl Drop for Stream {
        fn drop(&mut self) {
            let why = given_up().map_or_else(|| "nothing".to_owned(), |error| error.message.into_owned());
            self.heard.borrow_mut().push(why);
        }
    }

    async fn heard(task: impl Future) -> (Vec<String>, Duration) {
        let heard = Rc::default();
        let stream = Stream { heard: Rc::clone(&heard) };
        let start = Instant::now();
        watched(async move {
            let _stream = stream;
            task.await;
        })
        .await;
        (heard.take(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_in_time() {
        let task = async {
            note_client_turn(SECOND);
            std::future::pending::<()>().await;
        };
        let (heard, took) = heard(task).await;
        assert_eq!(heard, ["the client took nothing for 1s (limits.response_write_timeout)"]);
        assert_eq!(took, SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_that_is_taken_begins_a_new_wait_and_the_replicas_turn_is_none() {
        let task = async {
            for _ in 0..3 {
                note_client_turn(SECOND);
                tokio::time::sleep(SECOND * 9 / 10).await;
            }
            note_replica_turn();
            tokio::time::sleep(SECOND * 5).await;
        };
        let (heard, took) = heard(task).await;
        assert_eq!(heard, ["nothing"]);
        assert_eq!(took, SECOND * 9 / 10 * 3 + SECOND * 5);
    }

    #[tokio::test(start_paused = true)]
    async fn wake_ups_without_progress_do_not_move_the_deadline() {
        let task = async {
            note_client_turn(SECOND);
            loop {
                tokio::time::sleep(SECOND / 10).await;
            }
        };
        assert_eq!(heard(task).await.1, SECOND);
        assert!(given_up().is_none(), "it is over");
    }
}
