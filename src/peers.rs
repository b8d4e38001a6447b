//! Who is connected, and what became of connections. One connection to each key stays, whatever way it came by.
//! Knows names and counters of connections. Does not know how they come about.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;
use ferrocore_replication::misbehaviour::Verdict as Judged;
use ferrocore_replication::{PeerMisbehaved, Session, SessionReport, Stats};
use ferrocore_swarm::connections::{Candidate, Connections as OneOfEach, Verdict};
use ferrocore_swarm::transport::Via;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bans::Bans;
use crate::limits::{PEER_EVENTS_MAX, REPORT_TIMEOUT};

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
    /// A connection came up beside another to the same key, which stays, and is closed at once.
    Duplicate {
        /// Whose.
        remote_key: PublicKey,
        /// By which path it came.
        via: Via,
    },
    /// A peer broke the protocol.
    Misbehaved {
        /// Who.
        peer: PeerInfo,
        /// What it did.
        misbehaved: Arc<PeerMisbehaved>,
    },
    /// A key is kept away from now on: whoever has it told lies, or [`Node::ban`](crate::Node::ban) was called.
    Banned {
        /// Whose.
        remote_key: PublicKey,
        /// For how long.
        time: Duration,
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
    /// Somebody has come or gone, or was banned.
    changes: watch::Sender<()>,
    started: Instant,
    /// How long those who lie are kept away.
    ban_time: Duration,
}

struct Connections {
    next_id: u64,
    /// Those that stay, by the swarm's rule.
    kept: OneOfEach<ConnectionId>,
    /// Those that stay, and those that are about to end.
    open: BTreeMap<ConnectionId, Connection>,
    /// What connections that have ended carried.
    past: Stats,
    bans: Bans,
}

struct Connection {
    info: PeerInfo,
    session: Arc<Session>,
    replaced: Arc<Notify>,
}

/// A connection whose handshake is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) remote_key: PublicKey,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) is_initiator: bool,
    pub(crate) via: Via,
    pub(crate) handshake_hash: [u8; 64],
}

/// Why a connection does not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another one to the same key does.
    Duplicate,
    /// It leads to this node itself.
    Ourselves,
    /// The key is kept away.
    Banned,
}

impl Peers {
    pub(crate) fn new(our_key: PublicKey, ban_time: Duration) -> Self {
        let connections = Connections {
            next_id: 0,
            kept: OneOfEach::new(our_key),
            open: BTreeMap::new(),
            past: Stats::default(),
            bans: Bans::default(),
        };
        Self {
            connections: Mutex::new(connections),
            events: broadcast::Sender::new(PEER_EVENTS_MAX),
            changes: watch::Sender::new(()),
            started: Instant::now(),
            ban_time,
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

    /// Enters a connection until the guard is dropped, if it is to stay: then `open` makes its session. One that it replaces
    /// is told so.
    pub(crate) fn enter(
        &self,
        arrival: Arrival,
        open: impl FnOnce() -> Session,
    ) -> Result<Entered<'_>, Refusal> {
        let now = Time::ZERO + self.started.elapsed();
        let mut connections = self.lock();
        let info = match connections.admit(&arrival, now) {
            Ok(info) => info,
            Err(refusal) => {
                drop(connections);
                self.turned_away(&arrival, refusal);
                return Err(refusal);
            }
        };
        let connection = Connection {
            info,
            session: Arc::new(open()),
            replaced: Arc::default(),
        };
        let entered = Entered {
            peers: self,
            info,
            session: Arc::clone(&connection.session),
            replaced: Arc::clone(&connection.replaced),
        };
        connections.open.insert(info.connection, connection);
        drop(connections);
        self.tell(PeerEvent::Connected(info));
        self.changes.send_replace(());
        Ok(entered)
    }

    /// Changes whenever somebody comes or goes.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The keys that are connected by addresses that were given, and not by the swarm.
    pub(crate) fn named(&self) -> HashSet<PublicKey> {
        let connections = self.lock();
        let open = connections.open.values().map(|connection| connection.info);
        let kept =
            open.filter(|info| connections.kept.get(&info.remote_key) == Some(info.connection));
        kept.filter(|info| info.via == Via::Tcp)
            .map(|info| info.remote_key)
            .collect()
    }

    /// Tells what a peer did, and keeps it away if it lied.
    pub(crate) fn judge(&self, peer: PeerInfo, misbehaved: Arc<PeerMisbehaved>) {
        let key = peer.remote_key;
        let is_lie = match misbehaved.verdict() {
            Judged::Ban => true,
            _ if matches!(*misbehaved, PeerMisbehaved::BadProof(_)) => {
                let now = tokio::time::Instant::now();
                self.lock().bans.bad_proof(key, now, self.ban_time)
            }
            _ => false,
        };
        self.tell(PeerEvent::Misbehaved { peer, misbehaved });
        if is_lie {
            self.ban(key, self.ban_time);
        }
    }

    /// Keeps a key away for so long, and closes its connection; for no time at all, welcomes it again.
    pub(crate) fn ban(&self, remote_key: PublicKey, time: Duration) {
        let mut connections = self.lock();
        if time.is_zero() {
            connections.bans.lift(&remote_key);
        } else {
            let until = tokio::time::Instant::now() + time;
            connections.bans.ban(remote_key, until);
            let open = connections.open.values();
            open.filter(|open| open.info.remote_key == remote_key)
                .for_each(|open| open.replaced.notify_one());
        }
        drop(connections);
        if !time.is_zero() {
            self.tell(PeerEvent::Banned { remote_key, time });
        }
        self.changes.send_replace(());
    }

    /// Who is kept away now, and when that changes next unless [`changes`](Self::changes) tells.
    pub(crate) fn banned(&self) -> (Vec<PublicKey>, Option<tokio::time::Instant>) {
        self.lock().bans.all(tokio::time::Instant::now())
    }

    /// Waits until a key is not kept away.
    pub(crate) async fn pardoned(&self, key: &PublicKey) {
        let mut changes = self.changes();
        loop {
            let until = {
                let connections = self.lock();
                connections.bans.until(key, tokio::time::Instant::now())
            };
            let Some(until) = until else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Waits until no connection to this key is left.
    pub(crate) async fn gone(&self, key: &PublicKey) {
        let mut changes = self.changes();
        while self.lock().kept.get(key).is_some() && changes.changed().await.is_ok() {}
    }

    pub(crate) fn connected(&self) -> Vec<PeerInfo> {
        self.lock()
            .open
            .values()
            .map(|connection| connection.info)
            .collect()
    }

    /// What each connection carries, but for those that end meanwhile, or are too busy to say within [`REPORT_TIMEOUT`].
    pub(crate) async fn reports(&self) -> Vec<PeerReport> {
        let sessions: Vec<_> = {
            let connections = self.lock();
            let open = connections.open.values();
            open.map(|connection| (connection.info, Arc::clone(&connection.session)))
                .collect()
        };
        let mut asked = JoinSet::new();
        for (peer, session) in sessions {
            asked.spawn(async move {
                let report = timeout(REPORT_TIMEOUT, session.report()).await;
                let session = report.ok().flatten()?;
                Some(PeerReport { peer, session })
            });
        }
        let reports = asked.join_all().await.into_iter().flatten();
        let mut reports: Vec<_> = reports.collect();
        reports.sort_by_key(|report| report.peer.connection);
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

    fn turned_away(&self, arrival: &Arrival, refusal: Refusal) {
        let (remote_key, via) = (arrival.remote_key, arrival.via);
        if refusal == Refusal::Duplicate {
            self.tell(PeerEvent::Duplicate { remote_key, via });
        }
    }

    fn leave(&self, entered: &Entered<'_>) {
        let mut connections = self.lock();
        connections.past += entered.session.stats();
        let info = &entered.info;
        connections.open.remove(&info.connection);
        connections.kept.remove(&info.remote_key, info.connection);
        drop(connections);
        self.tell(PeerEvent::Disconnected(entered.info));
        self.changes.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// Applies the rule; returns the names of a connection that stays.
    fn admit(&mut self, arrival: &Arrival, now: Time) -> Result<PeerInfo, Refusal> {
        let info = PeerInfo {
            connection: ConnectionId(self.next_id),
            remote_key: arrival.remote_key,
            address: arrival.address,
            is_initiator: arrival.is_initiator,
            via: arrival.via,
        };
        let now_here = tokio::time::Instant::now();
        if self.bans.until(&info.remote_key, now_here).is_some() {
            return Err(Refusal::Banned);
        }
        self.trust_swarm(&info);
        let candidate = Candidate {
            id: info.connection,
            remote_key: arrival.remote_key,
            is_initiator: arrival.is_initiator,
            handshake_hash: arrival.handshake_hash,
        };
        match self.kept.offer(candidate, now) {
            Verdict::Only => {}
            Verdict::Replaces(older) => {
                let older = self.open.get(&older);
                older.inspect(|older| older.replaced.notify_one());
            }
            Verdict::Duplicate(_) => return Err(Refusal::Duplicate),
            Verdict::Ourselves => return Err(Refusal::Ourselves),
        }
        self.next_id += 1;
        Ok(info)
    }

    /// Of two connections of the swarm it has chosen the newer already, and ends the older: asked again a moment later, the
    /// rule might say otherwise.
    fn trust_swarm(&mut self, newer: &PeerInfo) {
        let older = self.kept.get(&newer.remote_key);
        let older = older.and_then(|id| self.open.get(&id));
        if let Some(older) = older
            && older.info.via != Via::Tcp
            && newer.via != Via::Tcp
        {
            let older = older.info;
            self.kept.remove(&older.remote_key, older.connection);
        }
    }
}

/// A connection that is listed for as long as this lives, and closed with it.
pub(crate) struct Entered<'a> {
    peers: &'a Peers,
    pub(crate) info: PeerInfo,
    pub(crate) session: Arc<Session>,
    /// Told when another connection to the same key is to stay instead.
    pub(crate) replaced: Arc<Notify>,
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
        let peers = Peers::new([1; 32].into(), Duration::ZERO);
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
