//! A replica that the test itself plays, call by call.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::upstream::{Seen, read_request};

/// A listener on a free port whose connections the test accepts when it likes.
pub struct Replica {
    pub address: SocketAddr,
    listener: TcpListener,
}

/// One connection of the gateway to a [`Replica`].
pub struct Call {
    pub tcp: TcpStream,
    buffer: Vec<u8>,
}

impl Replica {
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The next connection.
    pub async fn accept(&self) -> Call {
        let (tcp, _) = self.listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Call { tcp, buffer: Vec::new() }
    }

    /// The next connection, with its first request read whole.
    pub async fn request(&self) -> (Call, Seen) {
        let mut call = self.accept().await;
        let seen = call.request().await;
        (call, seen)
    }
}

impl Call {
    /// Reads a whole request.
    pub async fn request(&mut self) -> Seen {
        let request = read_request(&mut self.tcp, &mut self.buffer, 0).await;
        request.expect("the gateway closed before its request was whole")
    }

    /// Reads a request's head; what follows is left to [`Call::bytes`].
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.fill().await, "the gateway closed within a head");
        }
    }

    /// Reads exactly `count` bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await, "the gateway closed early");
        }
        self.buffer.drain(..count).collect()
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Waits until the gateway has closed, and gives what came before that.
    pub async fn closed(mut self) -> Vec<u8> {
        while self.fill().await {}
        self.buffer
    }

    /// Breaks the connection off by a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    async fn fill(&mut self) -> bool {
        matches!(self.tcp.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }
}
