//! What others ask a node, and what it answers.
//! Knows one request and its answer as the application sees them. Does not know their bytes: those are
//! [`message`](crate::message)'s, and a request gets here only if its token is good.

use std::net::SocketAddrV4;

use super::Socket;
use crate::id::Id;
use crate::message::{Command, ErrorCode, Token};

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
