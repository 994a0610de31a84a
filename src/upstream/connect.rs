//! A new connection to a replica: name look-up, TCP, TLS.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::replica::Replica;
use super::settings::{ReplicaProtocol, ReplicaTls};
use crate::error::{Error, Kind};
use crate::wire::Duplex;

/// Bytes to and from a replica.
#[derive(Debug)]
pub enum Io {
    /// In the clear.
    Tcp(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to `replica` for something that is no call: neither pooled nor counted, on whatever runtime the caller is.
///
/// # Errors
/// [`Kind::ConnectFailed`]; where the replica may be is judged as for calls.
pub async fn connect_apart(replica: &Replica) -> Result<Io, Error> {
    dial(replica).await
}

/// Bounds what it takes to get a connection by `limit`, which callers know as `connect_timeout`.
pub(super) async fn within<T>(
    limit: Duration,
    replica: &Replica,
    connecting: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
        let message = format!("no connection to the replica within connect_timeout ({limit:?})");
        Err(Error::new(Kind::ConnectFailed, message).with_detail(replica.label()))
    })
}

/// Connects; takes as long as it takes.
pub(super) async fn dial(replica: &Replica) -> Result<Io, Error> {
    let failed = |message: &'static str, error: io::Error| {
        let detail = format_args!("{}: {error}", replica.label()).to_string();
        Error::new(Kind::ConnectFailed, message).with_detail(detail)
    };
    let tcp = match replica.addresses() {
        [] => connect_by_name(replica, system_lookup).await,
        known => connect(replica, known.to_vec()).await,
    }
    .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
    .map_err(|error| failed("the replica could not be reached", error))?;
    let Some(tls) = &replica.settings().tls else {
        return Ok(Io::Tcp(tcp));
    };
    let stream = encrypt(tcp, tls, replica.settings().protocol)
        .await
        .map_err(|error| failed("the TLS handshake with the replica failed", error))?;
    Ok(Io::Tls(Box::new(stream)))
}

async fn system_lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    lookup_host((host, port)).await.map(Iterator::collect)
}

async fn connect_by_name(
    replica: &Replica,
    lookup: impl AsyncFnOnce(&str, u16) -> io::Result<Vec<SocketAddr>>,
) -> io::Result<TcpStream> {
    let origin = &replica.settings().origin;
    connect(replica, lookup(&origin.host, origin.port).await?).await
}

/// Connects to the first of `addresses` that answers. The policy judges the very addresses that are connected to: a name is
/// looked up for each connection, and once.
async fn connect(replica: &Replica, mut addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    if let Some(policy) = &replica.settings().policy {
        let mut refused = None;
        addresses.retain(|address| {
            let verdict = policy.permits(address.ip(), address.port());
            refused = verdict
                .err()
                .map(|why| format!("{} is not permitted: {why}", address.ip()))
                .or(refused.take());
            verdict.is_ok()
        });
        if let (true, Some(refused)) = (addresses.is_empty(), refused) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused));
        }
    }
    TcpStream::connect(&addresses[..]).await
}

async fn encrypt(
    tcp: TcpStream,
    tls: &ReplicaTls,
    protocol: ReplicaProtocol,
) -> io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::clone(&tls.client.config));
    let stream = connector.connect(tls.server_name.clone(), tcp).await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    let fits = match protocol {
        ReplicaProtocol::H1 => agreed.is_none_or(|name| name == b"http/1.1"),
        ReplicaProtocol::H2 => agreed == Some(b"h2"),
    };
    if fits {
        Ok(stream)
    } else {
        Err(io::Error::other(format!(
            "ALPN agreed on {:?}, not on the replica's configured protocol",
            agreed.map(String::from_utf8_lossy)
        )))
    }
}

impl Io {
    /// Whether the peer has sent nothing, not even a close, since it was last read. No system call in the clear unless
    /// something has happened.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Self::Tcp(tcp) => {
                matches!(tcp.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // What arrives under TLS can be a session ticket, which is nothing to HTTP.
            Self::Tls(tls) => Pin::new(tls)
                .poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte))
                .is_pending(),
        }
    }

    /// The same, also of what has arrived since the reactor last looked: a close is known to the kernel before it is
    /// known here, for as long as other tasks keep this thread busy. Costs a system call. Of TLS, what has arrived
    /// meanwhile cannot be told from a close, so it counts as one.
    pub(super) fn is_surely_quiet(&mut self) -> bool {
        if !self.is_quiet() {
            return false;
        }
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        // The socket does not block.
        let peeked = SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Duplex for Io {
    fn abort(&self) {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        // Fails on a socket that is gone already, which is as good.
        let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::upstream::{AddressPolicy, Origin, ReplicaSettings};

    /// A listener whose `accept` fails if nobody has connected.
    fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn replica(host: &str, port: u16, policy: Option<AddressPolicy>) -> Arc<Replica> {
        Replica::new(ReplicaSettings {
            origin: Origin { host: host.into(), port },
            protocol: ReplicaProtocol::H1,
            tls: None,
            policy: policy.map(Arc::new),
        })
    }

    fn own(address: SocketAddr) -> Option<AddressPolicy> {
        Some(AddressPolicy::new(vec![address]))
    }

    /// Refused before anything is sent: nobody was called.
    async fn assert_refused(replica: &Replica, listener: &TcpListener) {
        let error = dial(replica).await.unwrap_err();
        assert_eq!((error.kind, &*error.message), (Kind::ConnectFailed, "the replica could not be reached"));
        let detail = error.detail.unwrap();
        assert!(detail.contains("127.0.0.1 is not permitted: it is the gateway itself"), "{detail}");
        assert!(listener.accept().is_err());
    }

    #[tokio::test]
    async fn a_forbidden_literal_is_not_called_and_a_declared_replica_may_be_anywhere() {
        let (listener, address) = listen();
        assert_refused(&replica("127.0.0.1", address.port(), own(address)), &listener).await;
        assert!(dial(&replica("127.0.0.1", address.port(), None)).await.is_ok());
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_means() {
        let (listener, address) = listen();
        let everywhere = AddressPolicy::new(vec![SocketAddr::new([0, 0, 0, 0].into(), address.port())]);
        let refused = dial(&replica("localhost", address.port(), Some(everywhere))).await.unwrap_err();
        assert!(refused.detail.unwrap().contains("the gateway itself"));
        assert!(listener.accept().is_err());
        assert!(dial(&replica("localhost", address.port(), Some(AddressPolicy::default()))).await.is_ok());
    }

    #[tokio::test]
    async fn of_several_addresses_the_forbidden_ones_are_skipped() {
        let (_listener, address) = listen();
        let replica = replica("model.test", address.port(), Some(AddressPolicy::default()));
        let metadata = SocketAddr::new([169, 254, 169, 254].into(), 80);
        let answer = async |_: &str, _: u16| Ok(vec![metadata, address]);
        let connected = connect_by_name(&replica, answer).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn a_name_that_changes_its_meaning_after_the_first_connection_is_judged_anew() {
        let (listener, address) = listen();
        let (_other, elsewhere) = listen();
        let replica = replica("rebound.test", address.port(), own(elsewhere));
        connect_by_name(&replica, async |_: &str, _: u16| Ok(vec![address])).await.unwrap();
        listener.accept().unwrap();
        let rebound = connect_by_name(&replica, async |_: &str, _: u16| Ok(vec![elsewhere])).await;
        assert_eq!(rebound.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
