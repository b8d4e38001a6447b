//! What a swarm tells of itself, and what it says when asked.
//! Knows what may be shown to a person. Does not know how it came about.

use std::net::SocketAddr;
use std::time::Duration;

use ferrocore_primitives::sign::PublicKey;
use tokio::sync::broadcast;

use crate::Topic;
use crate::discovery::Interest;
use crate::peer_info::{Priority, Tier};
use crate::roster::ConnectionId;
use crate::target::PeerId;
use crate::transport::Via;

/// What happens in a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwarmEvent {
    /// A discovery announces and looks up a topic.
    Searching {
        /// The topic.
        topic: Topic,
        /// Which discovery.
        discovery: &'static str,
    },
    /// It is done for now.
    Searched {
        /// The topic.
        topic: Topic,
        /// Which discovery.
        discovery: &'static str,
    },
    /// It failed, and is tried again.
    SearchFailed {
        /// The topic.
        topic: Topic,
        /// Which discovery.
        discovery: &'static str,
        /// Why.
        reason: String,
        /// How soon it is tried again.
        retry_in: Duration,
    },
    /// A peer was found that was unknown under this topic.
    Found {
        /// The topic.
        topic: Topic,
        /// By which discovery.
        discovery: &'static str,
        /// Who.
        peer: PeerId,
    },
    /// A path to a peer is tried.
    Dialing {
        /// To whom.
        peer: PeerId,
        /// Which path, such as `lan 192.168.1.7:4000`.
        path: String,
    },
    /// A path led nowhere; others of the same dial may follow.
    PathFailed {
        /// To whom.
        peer: PeerId,
        /// Which path.
        path: String,
        /// Why.
        reason: String,
    },
    /// No path led to a peer.
    DialFailed {
        /// To whom.
        peer: PeerId,
        /// Why, of the last path.
        reason: String,
        /// When it is tried again, if it is before it is found again.
        retry: Option<Tier>,
    },
    /// A connection is up.
    Connected(ConnectionInfo),
    /// A connection was one too many, and is closed.
    Duplicate {
        /// To whom.
        remote_key: PublicKey,
        /// The connection that stays.
        kept: ConnectionId,
    },
    /// A connection is over.
    Disconnected(ConnectionInfo),
    /// A key is kept away from now on.
    Banned(PublicKey),
    /// The swarm sleeps: it is found by nobody, and finds nobody.
    Suspended,
    /// It is awake again.
    Resumed,
    /// The machine is on another network, or has slept: everything is announced and looked up anew.
    NetworkChanged,
    /// A transport accepts nobody any more.
    NotListening {
        /// Which, and why.
        reason: String,
    },
}

/// What is known of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its name.
    pub id: ConnectionId,
    /// The peer's key.
    pub remote_key: PublicKey,
    /// Whether we dialled.
    pub is_initiator: bool,
    /// By which path.
    pub via: Via,
    /// Where the peer is, if it is anywhere.
    pub address: Option<SocketAddr>,
}

/// What a swarm is about, when asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Each topic that is joined.
    pub topics: Vec<TopicStatus>,
    /// Everybody who is known.
    pub peers: Vec<PeerStatus>,
    /// Each connection.
    pub connections: Vec<ConnectionInfo>,
    /// Whether it sleeps.
    pub is_suspended: bool,
}

/// How it goes with one topic.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TopicStatus {
    /// The topic.
    pub topic: Topic,
    /// What is wanted of it.
    pub interest: Interest,
    /// Each discovery, by its name.
    pub searches: Vec<(&'static str, SearchState)>,
}

/// How it goes with one discovery of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SearchState {
    /// It is under way.
    Searching,
    /// It is done, and comes again.
    Done,
    /// It failed for this reason, and comes again sooner.
    Failed(String),
    /// It comes when the swarm is awake again.
    Suspended,
}

/// What is known of one peer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// How many dials have ended since one lasted.
    pub attempts: u32,
    /// How soon its turn comes.
    pub priority: Priority,
    /// What it waits for.
    pub state: PeerState,
    /// What the last dial tried, in that order; at most [`PATHS_MAX`](crate::limits::PATHS_MAX).
    pub paths: Vec<PathStatus>,
    /// Why the last dial failed, if it did.
    pub last_failure: Option<String>,
    /// How soon it is dialled again after that, if it is before it is found again.
    pub retry: Option<Tier>,
    /// Whether a blind relay is all that can help.
    pub needs_relay: bool,
}

/// What became of one path of a dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStatus {
    /// Which, such as `lan 192.168.1.7:4000`.
    pub path: String,
    /// Why it led nowhere, if that is known.
    pub failure: Option<String>,
}

/// What a peer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// A place among the dials.
    Queued,
    /// Its dial.
    Dialling,
    /// A backoff.
    Waiting,
    /// Nothing: it is connected, or was given up until it is found again.
    Idle,
    /// Being forgiven.
    Banned,
}

/// A subscription to [`SwarmEvent`]s.
#[derive(Debug)]
pub struct SwarmEvents {
    pub(super) events: broadcast::Receiver<SwarmEvent>,
}

impl SwarmEvents {
    /// The next event, or `None` when the swarm is gone.
    ///
    /// A subscriber that is more than [`EVENTS_MAX`](crate::limits::EVENTS_MAX) behind misses the oldest.
    pub async fn next(&mut self) -> Option<SwarmEvent> {
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
