//! The downstream leg: bind, accept, handshake, and the HTTP connection loops.
//!
//! Each worker runs [`run`] once per listener on a socket of its own (`SO_REUSEPORT`); a connection stays on the worker
//! that accepted it.

mod accept;
mod bind;
mod h1;
mod h2;
mod handshake;
mod io;
mod proxy_protocol;
mod settings;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::lifecycle::{self, Phase};
use crate::proxy::{ConnectionFacts, TlsFacts, Worker};
use crate::telemetry::metrics::{ListenerMetrics, Refusal};

pub use accept::{ConnectionLimit, ConnectionPermit};
pub use bind::bind;
pub use handshake::{Alpn, handshake};
pub use settings::ListenerSettings;

use io::DownstreamIo;

/// One listener as one worker serves it.
pub struct Listening {
    /// Its place in the snapshot's list.
    pub place: usize,
    /// This worker's socket.
    pub socket: std::net::TcpListener,
    /// Connections at once, all workers together.
    pub limit: Arc<ConnectionLimit>,
    /// Where its connections are counted.
    pub metrics: Arc<ListenerMetrics>,
}

/// Accepts and serves connections until the drain begins; those accepted go on.
///
/// # Errors
/// The socket cannot be registered with the worker's reactor.
pub async fn run(listening: Listening, worker: Rc<Worker>) -> std::io::Result<()> {
    let Listening { place, socket, limit, metrics } = listening;
    let socket = TcpListener::from_std(socket)?;
    let stop = Rc::clone(&worker);
    accept::accept_loop(socket, limit, stop.drain.reached(Phase::Draining), |tcp, peer, permit| {
        let accepted =
            Accepted { tcp, peer, place, metrics: Arc::clone(&metrics), worker: Rc::clone(&worker) };
        lifecycle::spawn_local(async move {
            let _counted = accepted.metrics.opened();
            serve(accepted).await;
            drop(permit);
        });
    })
    .await;
    Ok(())
}

/// One connection, just accepted.
struct Accepted {
    tcp: TcpStream,
    peer: SocketAddr,
    place: usize,
    metrics: Arc<ListenerMetrics>,
    worker: Rc<Worker>,
}

/// From the first byte to the last: PROXY header if one is due, TLS handshake if there is TLS, then HTTP.
async fn serve(accepted: Accepted) {
    let Accepted { mut tcp, peer, place, metrics, worker } = accepted;
    let snapshot = worker.snapshot();
    let listener = &snapshot.listeners[place];
    let deadline = Instant::now() + listener.settings.handshake_timeout;
    let trusted = &listener.settings.proxy_protocol_from;
    let client = match proxy_protocol::client_address(&mut tcp, peer, trusted, deadline).await {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(%peer, %error, "PROXY header refused");
            return metrics.refused(Refusal::ProxyHeader);
        }
    };
    let Some(tls) = &listener.tls else {
        drop(snapshot);
        let facts = ConnectionFacts::new(client, None);
        return h1::Connection::new(DownstreamIo::Plain(tcp), facts, worker, place).serve().await;
    };
    let certificates = Arc::clone(&tls.certificates);
    let handshake = handshake::handshake(tcp, Arc::clone(&tls.config), deadline);
    // The new connection keeps its certificates, not the whole snapshot that they came with.
    drop(snapshot);
    let established = match handshake.await {
        Ok(established) => established,
        Err(error) => {
            tracing::debug!(%client, %error, "TLS handshake failed");
            return metrics.handshake_failed(error.failure());
        }
    };
    let facts = ConnectionFacts::new(client, Some(TlsFacts { server_name: established.sni, certificates }));
    let io = DownstreamIo::Tls(established.stream);
    match established.alpn {
        Alpn::H1 => h1::Connection::new(io, facts, worker, place).serve().await,
        Alpn::H2 => h2::serve(io, facts, worker, place).await,
    }
}

/// What a client is that stopped reading its answer, over either protocol.
fn client_stalled(patience: Duration) -> Error {
    let message = format!("the client took nothing for {patience:?} (limits.response_write_timeout)");
    Error::new(Kind::WriteTimeout, message)
}
