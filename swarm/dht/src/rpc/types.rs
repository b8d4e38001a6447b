//! What goes into a node and what comes out of it.
//! Knows values. Does not know behaviour.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::health::Network;
use crate::id::Id;
use crate::message::{Command, ErrorCode, Token};
use crate::nat::Seen;
use crate::query::CONCURRENCY;
use crate::window::WINDOW_MAX;

/// One of a node's sockets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Socket {
    /// The one that others send requests to, on the port that they know.
    Server,
    /// The one that a node behind a firewall sends its requests from: the firewall then lets nobody in through the
    /// other, and whether it would can be found out.
    Client,
    /// One that the application opened, for holes in NATs.
    Extra(u32),
}

/// How a node behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Nodes to ask first.
    pub bootstrap: Vec<SocketAddrV4>,
    /// Nodes known from earlier, the best first.
    pub nodes: Vec<SocketAddrV4>,
    /// `None`: starts as a mere client, and stays as a node of the network once it has been reachable for 20 minutes.
    /// `Some(false)`: does so as soon as its address is known. `Some(true)`: never does.
    pub ephemeral: Option<bool>,
    /// Whether a firewall is to be suspected. If not, nobody is asked to try.
    pub firewalled: bool,
    /// Our public address, where it is known: for the first nodes of a network, which nobody can tell them.
    pub address: Option<SocketAddrV4>,
    /// Nodes asked at a time by one query.
    pub concurrency: usize,
    /// Requests sent and not answered in 750 ms; others wait.
    pub window: usize,
    /// Whether one node is asked while bootstrapping to try our firewall.
    pub quick_firewall: bool,
    /// How many nodes are told in 5 seconds that others are down.
    pub down_hints_max: u32,
    /// Nodes never to be asked.
    pub may_ask: fn(&SocketAddrV4) -> bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            nodes: Vec::new(),
            ephemeral: None,
            firewalled: true,
            address: None,
            concurrency: CONCURRENCY,
            window: WINDOW_MAX,
            quick_firewall: true,
            down_hints_max: 50,
            may_ask: |_| true,
        }
    }
}

impl Config {
    /// A node at `address`, the first of its network or one of them, that others are given as bootstrap.
    pub fn bootstrapper(address: SocketAddrV4) -> Self {
        Self {
            ephemeral: Some(false),
            firewalled: false,
            address: Some(address),
            ..Self::default()
        }
    }
}

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

/// A request of ours.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Whom to ask.
    pub to: SocketAddrV4,
    /// What to do.
    pub command: Command,
    /// About what.
    pub target: Option<Id>,
    /// The token that the node gave us, for writes.
    pub token: Option<Token>,
    /// The command's argument.
    pub value: Option<Vec<u8>>,
    /// How often it is sent again.
    pub retries: u32,
    /// How long it waits each time.
    pub timeout: Duration,
    /// Another socket than the usual one.
    pub socket: Option<Socket>,
    /// How many hops it may take, if not as many as usual.
    pub ttl: Option<u32>,
    /// Whether it is sent at once, however many are under way.
    pub is_forced: bool,
}

impl Outgoing {
    /// How long an answer may take.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// How often a request is sent again.
    pub const RETRIES: u32 = 3;

    /// A request without arguments.
    pub fn new(to: SocketAddrV4, command: Command) -> Self {
        Self {
            to,
            command,
            target: None,
            token: None,
            value: None,
            retries: Self::RETRIES,
            timeout: Self::TIMEOUT,
            socket: None,
            ttl: None,
            is_forced: false,
        }
    }

    /// Asks whether somebody is there.
    pub fn ping(to: SocketAddrV4) -> Self {
        Self::new(to, Command::PING)
    }

    /// A write to the node that sent `response`, which gave us its token.
    pub fn write(response: &Response, command: Command, target: Id, value: Vec<u8>) -> Self {
        Self {
            target: Some(target),
            token: response.token,
            value: Some(value),
            ..Self::new(response.from, command)
        }
    }
}

/// An answer to a request of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// Who answered.
    pub from: SocketAddrV4,
    /// Its id, if it is one that stays.
    pub id: Option<Id>,
    /// Where it sees us.
    pub to: SocketAddrV4,
    /// Which socket the answer came to.
    pub socket: Socket,
    /// For a write to that node within the next 7.5 seconds.
    pub token: Option<Token>,
    /// Nodes closer to the target.
    pub closer_nodes: Vec<SocketAddrV4>,
    /// What went wrong, or [`ErrorCode::NONE`].
    pub error: ErrorCode,
    /// The result.
    pub value: Option<Vec<u8>>,
    /// Time since the request was first sent.
    pub rtt: Duration,
}

/// A request of somebody else for the application.
///
/// It is answered at most once: by [`Rpc::reply`](super::Rpc::reply), [`Rpc::reply_to`](super::Rpc::reply_to),
/// [`Rpc::relay`](super::Rpc::relay) or [`Rpc::refuse`](super::Rpc::refuse). Dropping it is silence.
#[derive(PartialEq, Eq, Debug)]
pub struct Incoming {
    /// The sender's number for it.
    pub tid: u16,
    /// Who asks.
    pub from: SocketAddrV4,
    /// Where it sees us.
    pub to: SocketAddrV4,
    /// Which socket it came to.
    pub socket: Socket,
    /// The sender's id, if it is a node that stays.
    pub id: Option<Id>,
    /// The token it showed. It is one of ours for that host, and not too old: otherwise the request does not get here.
    pub token: Option<Token>,
    /// What it wants.
    pub command: Command,
    /// About what.
    pub target: Option<Id>,
    /// The command's argument.
    pub value: Option<Vec<u8>>,
}

/// An answer of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The result.
    pub value: Option<Vec<u8>>,
    /// What went wrong, or [`ErrorCode::NONE`].
    pub error: ErrorCode,
    /// Whether a token goes with it.
    pub has_token: bool,
    /// Whether nodes closer to the target go with it.
    pub has_closer_nodes: bool,
    /// Another socket than the one the request came to.
    pub socket: Option<Socket>,
}

impl Answer {
    /// The result of a question, with a token and closer nodes.
    pub fn value(value: Option<Vec<u8>>) -> Self {
        Self {
            value,
            error: ErrorCode::NONE,
            has_token: true,
            has_closer_nodes: true,
            socket: None,
        }
    }

    /// The result of a write, or of what needs none: without token and closer nodes.
    pub fn bare(value: Option<Vec<u8>>) -> Self {
        Self {
            has_token: false,
            has_closer_nodes: false,
            ..Self::value(value)
        }
    }

    /// A refusal, with closer nodes.
    pub fn error(error: ErrorCode) -> Self {
        Self {
            error,
            has_token: false,
            ..Self::value(None)
        }
    }

    /// The same from another socket.
    pub fn from_socket(self, socket: Socket) -> Self {
        Self {
            socket: Some(socket),
            ..self
        }
    }
}

/// Names a request of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub(super) u64);

/// Names a query of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueryId(pub(super) u64);

/// What to ask the nodes closest to a target.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Near what.
    pub target: Id,
    /// What to ask each node.
    pub command: Command,
    /// The command's argument.
    pub value: Option<Vec<u8>>,
    /// Nodes to start from, such as the closest of an earlier query.
    pub nodes: Vec<SocketAddrV4>,
    /// Whether only those are asked.
    pub only_nodes: bool,
    /// Nodes asked at a time; `None` for the node's own number.
    pub concurrency: Option<usize>,
    /// How often a request is sent again.
    pub retries: u32,
    /// Whether requests are sent at once and only once, however many are under way.
    pub is_forced: bool,
}

impl Plan {
    /// How often the request of a query is sent again.
    pub const RETRIES: u32 = 5;

    /// A query without arguments.
    pub fn new(target: Id, command: Command) -> Self {
        Self {
            target,
            command,
            value: None,
            nodes: Vec::new(),
            only_nodes: false,
            concurrency: None,
            retries: Self::RETRIES,
            is_forced: false,
        }
    }
}

/// How a query ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// The answers of the closest nodes, closest first.
    pub closest: Vec<Response>,
    /// Nodes that answered without error.
    pub successes: usize,
    /// Nodes that answered with an error, or not at all.
    pub errors: usize,
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Nobody answered; it may be gone, or behind a firewall.
    #[error("no answer in time")]
    TimedOut,
    /// The node was put to sleep. Resume it and ask again.
    #[error("the node is suspended")]
    Suspended,
    /// Wait for some of those under way.
    #[error("too many requests are under way")]
    TooMany,
    /// The address is nobody's, or the value is larger than a datagram.
    #[error("it cannot be sent there")]
    NotSendable,
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

/// Why a request was sent, and so who wants the answer.
#[derive(Debug)]
pub(super) enum Purpose {
    Application,
    Query(QueryId),
    Check(crate::routing_table::Check),
    /// A node was asked, while bootstrapping, to reach us at our server socket.
    QuickNat,
    /// The same, to find out for good.
    NatTest,
    /// Nobody wants to know.
    Hint,
}
