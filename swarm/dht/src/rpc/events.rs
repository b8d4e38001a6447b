//! What comes out of a node beside answers: datagrams, news, counts.
//! Knows values. Does not know when they are due.

use std::net::SocketAddrV4;

use super::{Incoming, Outcome, QueryId, RequestError, RequestId, Response, Socket};
use crate::health::Network;
use crate::nat::Seen;

/// A datagram to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// From which socket.
    pub socket: Socket,
    /// To whom.
    pub to: SocketAddrV4,
    /// How many hops it may take, if not as many as usual.
    pub ttl: Option<u32>,
    /// What it holds.
    pub datagram: Vec<u8>,
}

/// What the application should know.
#[derive(PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Somebody wants something.
    Incoming(Incoming),
    /// A request ended.
    Response(RequestId, Result<Response, RequestError>),
    /// A node answered a query, without error. The query goes on.
    QueryResponse(QueryId, Response),
    /// A query ended.
    QueryEnded(QueryId, Result<Outcome, RequestError>),
    /// The node has looked for its neighbours, whether it found any or not.
    Bootstrapped,
    /// The node is one of the network now: others keep it in their tables, and it stores for them.
    Persistent,
    /// It is no longer.
    Ephemeral,
    /// What others see of us has changed.
    Address(Seen),
    /// Whether a firewall keeps others from reaching us.
    Firewalled(bool),
    /// The network came or went.
    Network(Network),
    /// The machine slept: everything known is old.
    WokeUp,
    /// Nobody is known: the bootstrap nodes are being asked again. Their names may stand for other addresses now.
    Alone,
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Requests of ours.
    pub requests: u64,
    /// Of them, those answered.
    pub responses: u64,
    /// Of them, those never answered.
    pub timeouts: u64,
    /// How often one was sent again.
    pub retries: u64,
    /// Queries of ours.
    pub queries: u64,
    /// Of them, those whose target had far more nodes around it than there should be.
    pub crowded: u64,
    /// Requests of others that were looked at.
    pub incoming: u64,
    /// Requests of others that came too often, and were dropped.
    pub refused: u64,
    /// Handshakes that were passed on to a server, or to another relay of it.
    pub handshakes_relayed: u64,
    /// Of them, those that another relay had passed on to us.
    pub handshakes_second: u64,
    /// Rounds of holepunching that were passed on to a server.
    pub rounds_relayed: u64,
}
