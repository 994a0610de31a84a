//! Replicas that die, come back and close connections, always at the same address.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::upstream::{Seen, ok, read_request};

type Answer = Arc<dyn Fn(Seen) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send>> + Send + Sync>;

/// A replica with a life of its own.
pub struct Mortal {
    pub address: SocketAddr,
    /// Keeps the port while nobody listens: whoever connects then is refused.
    _holder: TcpSocket,
    answer: Answer,
    idle: Option<Duration>,
    counts: Arc<Counts>,
    life: Option<Life>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    seen: AtomicUsize,
    busy: AtomicUsize,
}

/// From one start to the next death; dropped, it is killed.
struct Life {
    tasks: tokio::task::JoinHandle<()>,
    retiring: watch::Sender<bool>,
}

impl Mortal {
    /// Bound to a free port, but not listening.
    pub fn dead<F>(answer: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<u8>> + Send + 'static,
    {
        let holder = socket();
        holder.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = holder.local_addr().unwrap();
        let answer: Answer = Arc::new(move |seen| Box::pin(answer(seen)));
        Self { address, _holder: holder, answer, idle: None, counts: Arc::default(), life: None }
    }

    /// One that answers each call with its body.
    pub fn echo() -> Self {
        let mut mortal = Self::dead(|seen: Seen| async move { ok(&seen.body) });
        mortal.start();
        mortal
    }

    /// One that answers each call with its body after `time`.
    pub fn slow(time: Duration) -> Self {
        let mut mortal = Self::dead(move |seen: Seen| async move {
            tokio::time::sleep(time).await;
            ok(&seen.body)
        });
        mortal.start();
        mortal
    }

    /// From now on a connection that rests for `idle` is closed.
    pub fn closing_after(mut self, idle: Duration) -> Self {
        self.kill();
        self.idle = Some(idle);
        self.start();
        self
    }

    /// Listens.
    pub fn start(&mut self) {
        let socket = socket();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let (retiring, retired) = watch::channel(false);
        let serving = serve(listener, retired, Arc::clone(&self.answer), self.idle, Arc::clone(&self.counts));
        self.life = Some(Life { tasks: tokio::spawn(serving), retiring });
    }

    /// Ends at once, with whatever is under way.
    pub fn kill(&mut self) {
        self.life = None;
    }

    /// Ends as well-behaved servers do: takes no new connections, says goodbye on those that are there with the next answer,
    /// and is gone with the last of them.
    pub async fn retire(&mut self) {
        let Some(mut life) = self.life.take() else { return };
        life.retiring.send_replace(true);
        super::in_time("the last connection of a retiring replica ends", &mut life.tasks).await.unwrap();
    }

    /// Requests that arrived whole.
    pub fn seen(&self) -> usize {
        self.counts.seen.load(SeqCst)
    }

    /// Requests that are being answered.
    pub fn busy(&self) -> usize {
        self.counts.busy.load(SeqCst)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(SeqCst)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket
}

/// The tasks of all connections are this one's: they end with it.
async fn serve(
    listener: TcpListener,
    mut retired: watch::Receiver<bool>,
    answer: Answer,
    idle: Option<Duration>,
    counts: Arc<Counts>,
) {
    let mut connections = JoinSet::new();
    let retiring = retired.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { break };
                counts.accepted.fetch_add(1, SeqCst);
                let (answer, counts) = (Arc::clone(&answer), Arc::clone(&counts));
                connections.spawn(connection(tcp, retiring.clone(), answer, idle, counts));
            }
            _ = retired.wait_for(|retired| *retired) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    mut tcp: TcpStream,
    retired: watch::Receiver<bool>,
    answer: Answer,
    idle: Option<Duration>,
    counts: Arc<Counts>,
) {
    let mut buffer = Vec::new();
    tcp.set_nodelay(true).unwrap();
    loop {
        let request = read_request(&mut tcp, &mut buffer, 0);
        let request = match idle {
            Some(idle) => tokio::time::timeout(idle, request).await.ok().flatten(),
            None => request.await,
        };
        let Some(request) = request else { return };
        counts.seen.fetch_add(1, SeqCst);
        let busy = Counted::new(&counts.busy);
        let mut bytes = answer(request).await;
        drop(busy);
        let goodbye = *retired.borrow();
        if goodbye {
            let line_end = bytes.windows(2).position(|end| end == b"\r\n").unwrap() + 2;
            bytes.splice(line_end..line_end, *b"Connection: close\r\n");
        }
        if tcp.write_all(&bytes).await.is_err() || goodbye {
            return;
        }
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
