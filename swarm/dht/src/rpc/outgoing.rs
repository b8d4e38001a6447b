//! What a node asks others, and what it hears.
//! Knows one request and its answer as the caller sees them. Does not know their bytes: those are
//! [`message`](crate::message)'s, whose fields the node fills in that no caller chooses.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::{QueryId, Socket};
use crate::id::Id;
use crate::message::{Command, ErrorCode, Token};

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

/// Names a request of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub(super) u64);

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
