//! What a query is to ask, and how it ended.
//! Knows the caller's side. Does not know whom a query visits: that is [`query`](crate::query).

use std::net::SocketAddrV4;

use super::Response;
use crate::id::Id;
use crate::message::Command;

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
