//! Who is connected, and what became of connections.
//! Knows names and counters of connections. Does not know how they come about.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrocore_primitives::sign::PublicKey;
use ferrocore_replication::{PeerMisbehaved, Session, SessionReport, Stats};
use ferrocore_swarm::transport::Via;
use tokio::sync::broadcast;

use crate::limits::PEER_EVENTS_MAX;

/// Names one connection of a node, for as long as the node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// Whom a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The connection.
    pub connection: ConnectionId,
    /// The peer's key on this connection. Peers may use another each time.
    pub remote_key: PublicKey,
    /// Where it is, if it is anywhere.
    pub address: Option<SocketAddr>,
    /// Whether we dialled it.
    pub is_initiator: bool,
    /// By which path it was reached.
    pub via: Via,
}

/// What a connection carries.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerReport {
    /// Whom it leads to.
    pub peer: PeerInfo,
    /// How much, how fast, of which cores.
    pub session: SessionReport,
}

/// What happened between a node and its peers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A peer is connected, and has proven its key.
    Connected(PeerInfo),
    /// A connection has ended.
    Disconnected(PeerInfo),
    /// A peer broke the protocol.
    Misbehaved {
        /// Who.
        peer: PeerInfo,
        /// What it did.
        misbehaved: Arc<PeerMisbehaved>,
    },
    /// A peer that is to be dialled could not be reached; it is tried again.
    Unreachable {
        /// The address as it was given.
        address: String,
        /// Why.
        reason: String,
    },
}

/// A subscription to [`PeerEvent`]s.
#[derive(Debug)]
pub struct PeerEvents {
    events: broadcast::Receiver<PeerEvent>,
}

impl PeerEvents {
    /// The next event, or `None` when the node is gone.
    ///
    /// A subscriber that is more than [`PEER_EVENTS_MAX`] behind misses the oldest.
    pub async fn next(&mut self) -> Option<PeerEvent> {
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// The connections of a node.
pub(crate) struct Peers {
    connections: Mutex<Connections>,
    events: broadcast::Sender<PeerEvent>,
}

#[derive(Default)]
struct Connections {
    next_id: u64,
    open: BTreeMap<ConnectionId, Connection>,
    /// What connections that have ended carried.
    past: Stats,
}

struct Connection {
    info: PeerInfo,
    session: Arc<Session>,
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self {
            connections: Mutex::default(),
            events: broadcast::Sender::new(PEER_EVENTS_MAX),
        }
    }

    pub(crate) fn subscribe(&self) -> PeerEvents {
        PeerEvents {
            events: self.events.subscribe(),
        }
    }

    /// Tells all subscribers, if there are any.
    pub(crate) fn tell(&self, event: PeerEvent) {
        tracing::debug!(?event, "peer");
        self.events.send(event).ok();
    }

    /// Enters a connection, until the guard is dropped.
    pub(crate) fn enter(
        &self,
        session: Session,
        address: Option<SocketAddr>,
        is_initiator: bool,
        via: Via,
    ) -> Entered<'_> {
        let session = Arc::new(session);
        let mut connections = self.lock();
        let info = PeerInfo {
            connection: ConnectionId(connections.next_id),
            remote_key: session.remote_public_key(),
            address,
            is_initiator,
            via,
        };
        connections.next_id += 1;
        let connection = Connection {
            info,
            session: Arc::clone(&session),
        };
        connections.open.insert(info.connection, connection);
        drop(connections);
        self.tell(PeerEvent::Connected(info));
        Entered {
            peers: self,
            info,
            session,
        }
    }

    pub(crate) fn connected(&self) -> Vec<PeerInfo> {
        self.lock()
            .open
            .values()
            .map(|connection| connection.info)
            .collect()
    }

    /// What each connection carries, but for those that end meanwhile.
    pub(crate) async fn reports(&self) -> Vec<PeerReport> {
        let sessions: Vec<_> = {
            let connections = self.lock();
            let open = connections.open.values();
            open.map(|connection| (connection.info, Arc::clone(&connection.session)))
                .collect()
        };
        let mut reports = Vec::new();
        for (peer, session) in sessions {
            if let Some(session) = session.report().await {
                reports.push(PeerReport { peer, session });
            }
        }
        reports
    }

    /// What all connections have carried, past and present.
    pub(crate) fn stats(&self) -> Stats {
        let connections = self.lock();
        let mut total = connections.past;
        for connection in connections.open.values() {
            total += connection.session.stats();
        }
        total
    }

    fn leave(&self, entered: &Entered<'_>) {
        let mut connections = self.lock();
        connections.past += entered.session.stats();
        connections.open.remove(&entered.info.connection);
        drop(connections);
        self.tell(PeerEvent::Disconnected(entered.info));
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is listed for as long as this lives, and closed with it.
pub(crate) struct Entered<'a> {
    peers: &'a Peers,
    pub(crate) info: PeerInfo,
    pub(crate) session: Arc<Session>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.session.close();
        self.peers.leave(self);
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("connected", &self.connected())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_misses_the_oldest_events() {
        let peers = Peers::new();
        let mut events = peers.subscribe();
        for number in 0..PEER_EVENTS_MAX + 3 {
            peers.tell(PeerEvent::Unreachable {
                address: number.to_string(),
                reason: String::new(),
            });
        }
        let first = events.next().await;
        assert!(matches!(first, Some(PeerEvent::Unreachable { address, .. }) if address == "3"));
        drop(peers);
        while events.next().await.is_some() {}
    }
}
