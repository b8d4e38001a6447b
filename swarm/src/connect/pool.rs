//! One connection to each peer.
//! Knows which of two stays. Does not know how they are made.
//!
//! Of two that cross, that which the larger key dialled. `hyperdht/lib/connection-pool.js` 6.34 comes to the same where each side
//! meets the other's dial first, as it mostly is; where both meet them in one order, it loses both, and two of ours none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrocore_primitives::sign::PublicKey;
use ferrocore_udx::socket::StreamHandle;

use super::dial::ConnectOptions;
use super::error::ConnectError;
use super::peers::Peers;
use super::stream::Connection;

/// Keeps one connection to each peer: of two that were made at once, both sides keep the same one.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    known: Arc<Mutex<HashMap<PublicKey, Known>>>,
}

#[derive(Debug)]
struct Known {
    handle: StreamHandle,
    is_initiator: bool,
}

impl Pool {
    /// Without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects to `key` unless there is a connection.
    ///
    /// # Errors
    /// [`ConnectError::Duplicate`] if there is one already, or one that was made meanwhile stays; else as
    /// [`Peers::connect`].
    pub async fn connect(
        &self,
        peers: &Peers,
        key: PublicKey,
        options: ConnectOptions,
    ) -> Result<Connection, ConnectError> {
        if self.has(&key) {
            return Err(ConnectError::Duplicate);
        }
        let own = options.key_pair.as_ref().map(|pair| pair.public_key());
        let own = own.unwrap_or_else(|| peers.key_pair().public_key());
        let connection = peers.connect(key, options).await?;
        self.admit(connection, &own).ok_or(ConnectError::Duplicate)
    }

    /// Takes a connection in, ours being `own`. If there is one to that peer, one of the two is destroyed: the older, if both were
    /// dialled by the same side, else the one that the smaller key dialled. If that is this one, there is nothing to return.
    pub fn admit(&self, connection: Connection, own: &PublicKey) -> Option<Connection> {
        let remote = connection.remote_public_key();
        let new = Known {
            handle: connection.handle(),
            is_initiator: connection.stream.is_initiator(),
        };
        let mut known = self.lock();
        if let Some(old) = known.get(&remote) {
            let is_larger = own.as_bytes() > remote.as_bytes();
            let is_kept = old.is_initiator == new.is_initiator || new.is_initiator == is_larger;
            let loser = if is_kept { &old.handle } else { &new.handle };
            loser.destroy();
            if !is_kept {
                return None;
            }
        }
        tokio::spawn(self.clone().forget_at_end(remote, new.handle.clone()));
        known.insert(remote, new);
        Some(connection)
    }

    /// Whether there is a connection to that peer.
    pub fn has(&self, key: &PublicKey) -> bool {
        self.lock().contains_key(key)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    async fn forget_at_end(self, remote: PublicKey, handle: StreamHandle) {
        handle.closed().await;
        let mut known = self.lock();
        let is_its = |known: &Known| known.handle.local_id() == handle.local_id();
        if known.get(&remote).is_some_and(is_its) {
            known.remove(&remote);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicKey, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
