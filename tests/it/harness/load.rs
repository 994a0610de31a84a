//! Clients that call without a pause on connections of their own, and without retrying, until they are told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::task::JoinSet;

use super::{Answer, Connection, Gateway};

/// Keep-alive clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    /// `clients` clients that send `request` and judge each answer by `problem`.
    pub fn start(
        gateway: &Gateway,
        clients: usize,
        request: String,
        problem: impl Fn(&Answer) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let mut load = Self { stop: Arc::default(), answered: Arc::default(), clients: JoinSet::new() };
        let (address, ca) = (gateway.address, gateway.ca().to_owned());
        let (request, problem) = (Arc::new(request), Arc::new(problem));
        for _ in 0..clients {
            let (stop, answered) = (Arc::clone(&load.stop), Arc::clone(&load.answered));
            let (ca, request, problem) = (ca.clone(), Arc::clone(&request), Arc::clone(&problem));
            load.clients.spawn(async move {
                let mut client = Client::connect(address, ca).await;
                let mut problems = Vec::new();
                while !stop.load(SeqCst) {
                    match client.call(&request).await {
                        Some(answer) => problems.extend(problem(&answer)),
                        None => problems.push("no answer".to_owned()),
                    }
                    answered.fetch_add(1, SeqCst);
                }
                problems
            });
        }
        load
    }

    /// Waits until this many further calls are over.
    pub async fn further(&self, count: usize) {
        let goal = self.answered.load(SeqCst) + count;
        super::eventually("further calls under load", async || {
            (self.answered.load(SeqCst) >= goal).then_some(())
        })
        .await;
    }

    /// Ends the clients; how many calls there were, and what was wrong with some.
    pub async fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, SeqCst);
        let problems = super::in_time("the clients end", self.clients.join_all()).await;
        (self.answered.load(SeqCst), problems.into_iter().flatten().collect())
    }
}

struct Client {
    address: SocketAddr,
    ca: PathBuf,
    connection: Connection,
}

impl Client {
    async fn connect(address: SocketAddr, ca: PathBuf) -> Self {
        let connection = connect(address, &ca).await;
        Self { address, ca, connection }
    }

    async fn call(&mut self, request: &str) -> Option<Answer> {
        let answer = match self.connection.try_send(request).await {
            true => self.connection.try_answer().await,
            false => None,
        };
        if answer.as_ref().is_none_or(|answer| answer.header("connection") == "close") {
            self.connection = connect(self.address, &self.ca).await;
        }
        answer
    }
}

async fn connect(address: SocketAddr, ca: &Path) -> Connection {
    Connection::tls(address, "localhost", ca).await
}
