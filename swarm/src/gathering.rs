//! Talking with everybody at once: what is sent goes to every peer, what any of them says comes in one row.
//! Knows messages and their bounds. Does not know who is found, or what is said.

use std::fmt;

use bytes::Bytes;
use ferrocore_primitives::sign::PublicKey;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::limits::{GATHERED_LEN_MAX, GATHERED_QUEUED_MAX};
use crate::link::Link;
use crate::swarm::{Connection, Connections};

type Sender = ferrocore_secret_stream::Sender<WriteHalf<Link>>;
type Receiver = ferrocore_secret_stream::Receiver<ReadHalf<Link>>;

/// What all peers of a swarm say. Dropped, it hangs up.
///
/// What a message means is between the callers at both ends; in a frame of its own each goes over the encrypted stream. There
/// is no order between peers, and no receipt: who connects later has not heard what was said before.
pub struct Gathering {
    heard: mpsc::Receiver<(PublicKey, Bytes)>,
    task: AbortHandle,
}

/// Speaks to all peers of a swarm. A cheap clone.
#[derive(Clone)]
pub struct Speaker {
    said: broadcast::Sender<Bytes>,
}

impl Gathering {
    pub(crate) fn new(connections: Connections) -> (Speaker, Self) {
        let said = broadcast::Sender::new(GATHERED_QUEUED_MAX);
        let (tell, heard) = mpsc::channel(GATHERED_QUEUED_MAX);
        let task = tokio::spawn(attend(connections, said.clone(), tell)).abort_handle();
        (Speaker { said }, Self { heard, task })
    }

    /// The next message of anybody, and whose it is; `None` once the swarm is gone. While nobody takes them, peers wait.
    pub async fn next(&mut self) -> Option<(PublicKey, Bytes)> {
        self.heard.recv().await
    }
}

impl Speaker {
    /// Sends a message to everybody who is connected now, and returns to how many. It does not wait for them: a peer that is
    /// more than [`GATHERED_QUEUED_MAX`] messages behind misses the oldest.
    ///
    /// A message has at most [`GATHERED_LEN_MAX`] bytes: peers hang up on longer ones.
    pub fn send(&self, message: impl Into<Bytes>) -> usize {
        self.said.send(message.into()).unwrap_or(0)
    }

    /// How many peers are connected.
    pub fn audience(&self) -> usize {
        self.said.receiver_count()
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathering").finish_non_exhaustive()
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Speaker")
            .field("audience", &self.audience())
            .finish()
    }
}

async fn attend(
    mut connections: Connections,
    said: broadcast::Sender<Bytes>,
    tell: mpsc::Sender<(PublicKey, Bytes)>,
) {
    // Dropped with this task, it ends all conversations.
    let mut talking = JoinSet::new();
    while let Some(connection) = connections.next().await {
        while talking.try_join_next().is_some() {}
        talking.spawn(talk(connection, said.subscribe(), tell.clone()));
    }
}

/// Talks with one peer until it goes.
async fn talk(
    connection: Connection,
    said: broadcast::Receiver<Bytes>,
    tell: mpsc::Sender<(PublicKey, Bytes)>,
) {
    let peer = connection.info.remote_key;
    let (sender, receiver) = connection.stream.split();
    tokio::select! {
        () = speak(sender, said) => {}
        () = listen(receiver, peer, tell) => {}
    }
}

async fn speak(mut sender: Sender, mut said: broadcast::Receiver<Bytes>) {
    loop {
        let message = tokio::select! {
            message = said.recv() => message,
            _ = sender.keep_alive() => return,
        };
        let sent = match message {
            Ok(message) => sender.send(&[message]).await,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if sent.is_err() || said.is_empty() && sender.flush().await.is_err() {
            return;
        }
    }
}

async fn listen(mut receiver: Receiver, peer: PublicKey, tell: mpsc::Sender<(PublicKey, Bytes)>) {
    receiver.set_message_len_max(GATHERED_LEN_MAX);
    while let Ok(Some(message)) = receiver.recv().await {
        // A copy: a small message would keep all the memory it was read with.
        let message = Bytes::copy_from_slice(&message);
        if tell.send((peer, message)).await.is_err() {
            return;
        }
    }
}
