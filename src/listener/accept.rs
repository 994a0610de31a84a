//! The accept loop of one worker on one listener, and the cap on connections that all workers of the listener share.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Pause after an accept that failed for want of descriptors or memory: the connection stays in the queue, so that the
/// next try would fail at once again.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Failures are logged at most this often per loop.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Cap on the connections of one listener over all its workers.
#[derive(Debug)]
pub struct ConnectionLimit {
    places: Arc<Semaphore>,
    max: usize,
}

/// One connection's place under the cap, given back on drop. Travels with the connection.
#[derive(Debug)]
pub struct ConnectionPermit {
    _place: OwnedSemaphorePermit,
}

/// Accepts until `stop` resolves and hands each connection to `on_connection`, which must not block (it spawns). The
/// address is the peer's, an IPv4 peer of a dual-stack socket as IPv4; TCP_NODELAY is set.
///
/// Over the cap, connections wait in the kernel's queue. Of those at most one per worker is accepted already, and these
/// get the places that come free in the order in which they came. A worker that took its place before the accept would
/// sit on it while it has nothing to accept and starve the others: the kernel decides which worker a client goes to.
pub async fn accept_loop(
    listener: TcpListener,
    connections: Arc<ConnectionLimit>,
    stop: impl Future<Output = ()>,
    on_connection: impl Fn(TcpStream, SocketAddr, ConnectionPermit),
) {
    let mut stop = pin!(stop);
    let mut failures = Failures::default();
    loop {
        let next = async {
            let (stream, peer) = listener.accept().await?;
            Ok((stream, peer, connections.place().await))
        };
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                // Fails only on a connection that is dead already; its first read will tell.
                let _ = stream.set_nodelay(true);
                on_connection(stream, canonical(peer), permit);
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                failures.note(&error, Instant::now());
                tokio::select! {
                    biased;
                    () = &mut stop => return,
                    () = tokio::time::sleep(BACK_OFF) => {}
                }
            }
        }
    }
}

impl ConnectionLimit {
    /// A cap of `max` connections at once, at least 1.
    #[must_use]
    pub fn new(max: u32) -> Arc<Self> {
        let max = usize::try_from(max).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self { places: Arc::new(Semaphore::new(max)), max })
    }

    /// Connections that hold a place now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.max - self.places.available_permits()
    }

    /// Waits for a place; first come, first served.
    async fn place(&self) -> ConnectionPermit {
        #[expect(clippy::expect_used, reason = "nothing closes the semaphore")]
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is open");
        ConnectionPermit { _place: place }
    }
}

/// Errors that concern the one connection that was to be accepted (accept(2): the others are still in the queue). All
/// else, above all EMFILE, ENFILE, ENOBUFS and ENOMEM, is ours and would repeat at once.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Counts failures and logs the first and then one line per [`LOG_INTERVAL`].
#[derive(Default)]
struct Failures {
    since_logged: u64,
    logged_at: Option<Instant>,
}

impl Failures {
    fn note(&mut self, error: &io::Error, now: Instant) {
        self.since_logged += 1;
        if self.logged_at.is_some_and(|at| now < at + LOG_INTERVAL) {
            return;
        }
        tracing::warn!(
            %error,
            failures = self.since_logged,
            "accept fails; trying again every {} ms (too few file descriptors? see ulimit -n)",
            BACK_OFF.as_millis()
        );
        self.since_logged = 0;
        self.logged_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::Ipv4Addr;
    use std::rc::Rc;

    use tokio::sync::{Notify, mpsc, oneshot};
    use tokio::task::LocalSet;

    use super::*;
    use crate::listener::bind;

    type Connection = (TcpStream, SocketAddr, ConnectionPermit);

    /// A worker's loop whose connections come out of the receiver.
    fn worker(
        listener: std::net::TcpListener,
        limit: &Arc<ConnectionLimit>,
        stop: impl Future<Output = ()> + 'static,
    ) -> mpsc::UnboundedReceiver<Connection> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::task::spawn_local(accept_loop(
            listener,
            Arc::clone(limit),
            stop,
            move |stream, peer, permit| {
                let _ = sender.send((stream, peer, permit));
            },
        ));
        receiver
    }

    async fn settle() {
        // Loopback connects are complete when they return; this gives the loops their turn at them.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_third_connection_waits_until_one_closes() {
        LocalSet::new()
            .run_until(async {
                let (address, mut listeners) = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
                let limit = ConnectionLimit::new(2);
                let mut accepted = worker(listeners.remove(0), &limit, std::future::pending());
                let mut clients = Vec::new();
                for _ in 0..3 {
                    clients.push(TcpStream::connect(address).await.unwrap());
                }
                let first = accepted.recv().await.unwrap();
                let _second = accepted.recv().await.unwrap();
                assert_eq!(limit.in_use(), 2);
                settle().await;
                assert!(accepted.try_recv().is_err(), "over the cap");

                assert!(first.0.nodelay().unwrap());
                drop(first);
                let (_, peer, _permit) = accepted.recv().await.unwrap();
                assert_eq!(peer, clients[2].local_addr().unwrap());
                assert_eq!(limit.in_use(), 2);
            })
            .await;
    }

    #[tokio::test]
    async fn a_worker_without_connections_does_not_keep_the_others_from_theirs() {
        LocalSet::new()
            .run_until(async {
                // Two listeners under one cap of 1: the idle one must hold no place.
                let (_, mut idle) = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
                let (address, mut busy) = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
                let limit = ConnectionLimit::new(1);
                let _idle = worker(idle.remove(0), &limit, std::future::pending());
                let mut busy = worker(busy.remove(0), &limit, std::future::pending());
                settle().await;
                for _ in 0..3 {
                    let _client = TcpStream::connect(address).await.unwrap();
                    drop(busy.recv().await.unwrap());
                }
            })
            .await;
    }

    #[tokio::test]
    async fn places_go_round_between_workers_that_all_have_clients_waiting() {
        LocalSet::new()
            .run_until(async {
                let limit = ConnectionLimit::new(1);
                let blocker = limit.place().await;
                let order = Rc::new(RefCell::new(Vec::new()));
                let done = Rc::new(Notify::new());
                let mut clients = Vec::new();
                for name in ["a", "b"] {
                    let (address, mut listeners) = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
                    for _ in 0..4 {
                        clients.push(TcpStream::connect(address).await.unwrap());
                    }
                    let mut accepted = worker(listeners.remove(0), &limit, std::future::pending());
                    let (order, done) = (Rc::clone(&order), Rc::clone(&done));
                    tokio::task::spawn_local(async move {
                        while let Some(connection) = accepted.recv().await {
                            order.borrow_mut().push(name);
                            drop(connection);
                            done.notify_one();
                        }
                    });
                }
                settle().await;
                drop(blocker);
                while order.borrow().len() < 8 {
                    done.notified().await;
                }
                let order = order.borrow();
                assert_eq!(*order, ["a", "b", "a", "b", "a", "b", "a", "b"]);
            })
            .await;
    }

    #[tokio::test]
    async fn stop_ends_the_loop_and_frees_the_address_even_at_the_cap() {
        LocalSet::new()
            .run_until(async {
                let (address, mut listeners) = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
                let limit = ConnectionLimit::new(1);
                let (stop, stopped) = oneshot::channel::<()>();
                let stopped = async { drop(stopped.await) };
                let mut accepted = worker(listeners.remove(0), &limit, stopped);
                let _clients =
                    [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
                let _first = accepted.recv().await.unwrap();
                settle().await;
                stop.send(()).unwrap();
                assert!(accepted.recv().await.is_none());
                TcpStream::connect(address).await.unwrap_err();
            })
            .await;
    }

    #[test]
    fn failures_are_told_at_once_and_then_at_intervals() {
        let error = io::Error::from_raw_os_error(24);
        let start = Instant::now();
        let mut failures = Failures::default();
        failures.note(&error, start);
        assert_eq!(failures.since_logged, 0);
        failures.note(&error, start + Duration::from_secs(1));
        failures.note(&error, start + Duration::from_secs(2));
        assert_eq!(failures.since_logged, 2);
        failures.note(&error, start + LOG_INTERVAL);
        assert_eq!(failures.since_logged, 0);
    }

    #[test]
    fn only_errors_of_the_one_connection_are_passed_over_at_once() {
        // EMFILE, ENFILE and ENOMEM of Linux and the BSDs.
        for code in [24, 23, 12] {
            assert!(!is_of_the_connection(&io::Error::from_raw_os_error(code)));
        }
        let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert!(is_of_the_connection(&aborted));
    }
}
