//! Hyperswarm: find the peers of a topic, connect to each, keep one connection to each.
//!
//! Knows the rules of `hyperswarm` 4.17: who is dialled when, how often, and which of two connections stays. Does not know
//! what is said over a connection: that is the caller's, who gets an encrypted stream and its peer's key.
//!
//! [`Swarm`] drives it: it asks each [`discovery`](discovery::Discovery) for peers and dials them by each
//! [`transport`](transport::Transport). The rules are state machines without IO; time and randomness are passed in.
//!
//! - [`dht`] is a node of the HyperDHT, where topics are looked up and announced.
//! - [`roster`] is everybody a swarm has heard of, and whose turn it is. It is made of the following.
//! - [`peer_info`] is what is remembered of one peer: how often it was tried, and how soon it is worth another try.
//! - [`queue`] says who is dialled next, [`retry`] when a peer that was lost comes back into it.
//! - [`connections`] is the duplicate rule: of two connections to one peer, both sides keep the same one.

#![deny(missing_docs)]
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod connect;
pub mod connections;
pub mod dht;
pub mod discovery;
mod gathering;
pub mod lan;
mod latest;
pub mod limits;
mod link;
mod messages;
mod online;
pub mod peer_info;
pub mod queue;
pub mod retry;
mod rng;
pub mod roster;
mod shares;
mod surroundings;
mod swarm;
mod target;
mod topic;
pub mod transport;

pub use gathering::{Gathering, Speaker};
pub use link::{BoxIo, Carried, Io, Link};
pub use messages::{MessageError, Messages, UNTAKEN_MAX};
pub use online::Online;
pub use roster::ConnectionId;
pub use swarm::{
    Connection, ConnectionInfo, Connections, Firewall, JoinOptions, PathStatus, PeerState,
    PeerStatus, SearchState, Session, Status, Swarm, SwarmBuilder, SwarmEvent, SwarmEvents,
    TopicStatus,
};
pub use target::{Address, PeerId, Target};
pub use topic::Topic;
