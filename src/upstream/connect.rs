//! A new connection to a replica: name look-up, TCP, TLS.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::replica::Replica;
use super::settings::{ReplicaProtocol, ReplicaTls};
use crate::error::{Error, Kind};

/// Bytes to and from a replica.
#[derive(Debug)]
pub enum Io {
    /// In the clear.
    Tcp(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
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
    let tcp = match replica.address() {
        Some(address) => TcpStream::connect(address).await,
        None => connect_by_name(replica).await,
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

async fn connect_by_name(replica: &Replica) -> io::Result<TcpStream> {
    let origin = &replica.settings().origin;
    let addresses: Vec<_> = lookup_host((&*origin.host, origin.port)).await?.collect();
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
