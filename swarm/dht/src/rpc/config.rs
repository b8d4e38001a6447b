//! What a node is made with: its sockets, and how it behaves.
//! Knows the choices. Does not know what follows from them.

use std::net::SocketAddrV4;

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
