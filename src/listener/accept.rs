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
        let max = usize::try_from(max)
            .unwrap_or(usize::MAX)
            .clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            places: Arc::new(Semaphore::new(max)),
            max,
        })
    }

    /// Connections that hold a place now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.max - self.places.available_permits()
    }

    /// Waits for a place; first come, first served.
    async fn place(&self) -> ConnectionPermit {
        #[expect(clippy::expect_used, reason = "nothing closes the semaphore")]
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .expect("the semaphore is open");
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
