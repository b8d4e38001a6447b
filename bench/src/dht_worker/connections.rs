//! Whole connections over the DHT: dialled by key, a byte there and back, and then closed or kept.
//! Knows both ends. Does not know the network below them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_swarm::connect::{ConnectOptions, Connection, ListenOptions, Peers, Server};
use ferrocore_swarm::dht::Dht;
use serde_json::{Value, json};

use super::{Failure, Job, guest, memory, often, processor_seconds};

/// Dials `count` times, `at_once` at a time, each of `peers` clients each of as many servers in turn.
pub(super) async fn connects(job: &Job, first: &Dht) -> Result<Value, Failure> {
    let ends = Ends::start(job.peers, first).await?;
    often(job, move |number| {
        let (client, key) = ends.pair(number);
        async move {
            let connection = client.connect(key, ConnectOptions::default()).await?;
            let (mut sender, mut receiver) = connection.stream.split();
            sender.send(&[b"x"]).await?;
            sender.flush().await?;
            Ok(receiver.recv().await?.is_some())
        }
    })
    .await
}

/// Makes `count` connections likewise and keeps them for `seconds`; answers by how much the process has grown, and what
/// processor time it has spent on them since the last was made.
pub(super) async fn idle(job: &Job, first: &Dht) -> Result<Value, Failure> {
    let ends = Ends::start(job.peers, first).await?;
    let (before, ended) = (memory()?, Arc::<AtomicU64>::default());
    let count = Arc::clone(&ended);
    let made = often(job, move |number| {
        let (client, key) = ends.pair(number);
        let ended = Arc::clone(&count);
        async move {
            let connection = client.connect(key, ConnectOptions::default()).await?;
            hold(connection, ended).await?;
            Ok(true)
        }
    })
    .await?;
    let spent = processor_seconds()?;
    tokio::time::sleep(Duration::from_secs(job.seconds)).await;
    let spent = processor_seconds()? - spent;
    let bytes = memory()?.saturating_sub(before);
    let ended = ended.load(Ordering::Relaxed);
    Ok(json!({ "made": made, "bytes": bytes, "processor": spent, "ended": ended }))
}

/// Who dials whom.
#[derive(Clone)]
struct Ends {
    clients: Arc<Vec<Peers>>,
    keys: Arc<Vec<PublicKey>>,
}

impl Ends {
    async fn start(count: usize, first: &Dht) -> Result<Self, Failure> {
        let (mut clients, mut keys) = (Vec::new(), Vec::new());
        for _ in 0..count {
            clients.push(Peers::new(guest(first).await?, KeyPair::generate()));
            let listening = Peers::new(guest(first).await?, KeyPair::generate());
            let mut server = listening.listen(KeyPair::generate(), ListenOptions::default())?;
            server.announced().await;
            keys.push(server.public_key());
            tokio::spawn(serve(listening, server));
        }
        Ok(Self {
            clients: Arc::new(clients),
            keys: Arc::new(keys),
        })
    }

    /// The ends of dial `number`: every client meets every server.
    fn pair(&self, number: u64) -> (Peers, PublicKey) {
        let (number, count) = (number as usize, self.keys.len());
        let server = (number + number / count) % count;
        (self.clients[number % count].clone(), self.keys[server])
    }
}

/// Takes connections in as long as the process lives.
async fn serve(_node: Peers, mut server: Server) {
    while let Some(connection) = server.accept().await {
        tokio::spawn(answer(connection));
    }
}

/// Says what it hears, until the other end leaves.
async fn answer(connection: Connection) {
    let (mut sender, mut receiver) = connection.stream.split();
    loop {
        let message = tokio::select! {
            message = receiver.recv() => message,
            _ = sender.keep_alive() => return,
        };
        let Ok(Some(message)) = message else {
            return;
        };
        if sender.send(&[message]).await.is_err() || sender.flush().await.is_err() {
            return;
        }
    }
}

/// Proves the connection, and keeps it in the background; counts it once it has ended.
async fn hold(connection: Connection, ended: Arc<AtomicU64>) -> Result<(), Failure> {
    let (mut sender, mut receiver) = connection.stream.split();
    sender.send(&[b"x"]).await?;
    sender.flush().await?;
    receiver.recv().await?.ok_or("the other end has left")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = receiver.recv() => {}
            _ = sender.keep_alive() => {}
        }
        ended.fetch_add(1, Ordering::Relaxed);
    });
    Ok(())
}
