//! One HTTP/1 connection's bytes: what has arrived and is not yet used, what is to be sent and is not yet gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listener::io::DownstreamIo;
use crate::wire::framing::Decoder;
use crate::wire::{Duplex as _, Peer};

/// Bytes read at once; also what is taken in ahead of need (pipelined requests) before reading stops.
pub(super) const READ_SIZE: usize = 16 * 1024;

/// A connection's two directions. Shared by the connection loop and the body of the request under way, both on one
/// task; neither keeps it borrowed across a wait.
pub(super) struct Wire {
    io: DownstreamIo,
    /// Received and not yet used. Without capacity of its own while the connection rests.
    pub inbox: BytesMut,
    /// To be sent, in order.
    pub outbox: BytesMut,
    /// Whether something of the outbox has gone out since this was last set to `false`.
    pub has_sent: bool,
    /// Reads the body of the request under way; `None`: wholly taken.
    pub decoder: Option<Decoder>,
}

impl Wire {
    pub fn new(io: DownstreamIo) -> Self {
        Self { io, inbox: BytesMut::new(), outbox: BytesMut::new(), has_sent: false, decoder: None }
    }

    /// Whether nothing more has to be read for the request under way.
    pub fn request_is_whole(&self) -> bool {
        self.decoder.as_ref().is_none_or(Decoder::is_done)
    }

    /// Reads once; 0 is the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Read on the stack and keep what came: a connection at rest holds no buffer, and a head gets an allocation of
        // its own size, which its field values then share.
        let mut scratch = [std::mem::MaybeUninit::<u8>::uninit(); READ_SIZE];
        let mut read = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        if self.inbox.is_empty() {
            self.inbox = BytesMut::with_capacity(read.filled().len());
        }
        self.inbox.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Completes when the client has closed its side (or the connection broke). Keeps what it pipelines meanwhile;
    /// with a full inbox it just waits.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.inbox.len() < READ_SIZE {
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Sends the outbox and whatever TLS holds back.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outbox.has_remaining() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.outbox))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_sent = true;
            self.outbox.advance(sent);
        }
        // A connection at rest holds no buffer; taking one anew is cheaper than many holding one.
        self.outbox = BytesMut::new();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Sends the outbox, then `data` without copying it; leaves in `data` what is not yet gone.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<()>> {
        while self.outbox.has_remaining() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.outbox))?;
            self.has_sent = true;
            self.outbox.advance(sent);
        }
        while data.has_remaining() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, data))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            data.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// The connection as it is, for whoever speaks something else on it than HTTP.
    pub fn into_peer(self) -> Peer {
        Peer { io: Box::new(self.io), received: self.inbox }
    }

    /// Says goodbye (TLS `close_notify`, then FIN).
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Makes the drop of this connection a reset, so that a cut answer cannot be taken for a whole one.
    pub fn abort(&self) {
        self.io.abort();
    }
}
