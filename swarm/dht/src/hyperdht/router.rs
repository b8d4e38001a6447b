//! Passing handshakes and rounds of holepunching on between peers that cannot reach each other yet.
//! Knows who gets what next (`hyperdht/lib/router.js` 6.34), and which servers we relay for. Does not know sockets, and
//! reads nothing of what it carries.
//!
//! A message travels as one request whose number stays the same over all hops, so that the answer finds the client's
//! request. With C the client, R and Q relays, S the server:
//!
//! | way | leg | carries |
//! |---|---|---|
//! | C → R | FROM_CLIENT | for rounds: where R sees S |
//! | R → S | FROM_RELAY | where R sees C |
//! | R → Q → S | FROM_RELAY, then FROM_SECOND_RELAY | where R sees C, and R; handshakes only |
//! | S → R | FROM_SERVER | where R sees C |
//! | R → C | REPLY, sent to C though S asked | where R sees S |
//! | C → S → C | FROM_CLIENT, REPLY | nothing: no relay was needed; handshakes only |

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_primitives::encoding::Decode;
use ferrocore_primitives::time::Time;

use super::connect::{Handshake, Holepunch, Mode};
use crate::id::Id;

/// Servers that a node relays for. A full table forgets its older half.
pub const FORWARDS_MAX: usize = 65_536;

/// How long a node relays for a server that does not announce itself again.
pub const FORWARD_AGE_MAX: Duration = Duration::from_secs(20 * 60);

/// The longest Noise message or round that is carried on, in bytes: what fits a datagram on every path.
pub const CARRIED_LEN_MAX: usize = 1100;

/// What this node is to the target of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// It listens under that key itself.
    Server,
    /// The server announced itself here, from this address.
    Relay(SocketAddrV4),
    /// Nothing.
    Stranger,
}

/// What becomes of a message. Requests that are passed on keep number, command and target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next<T> {
    /// Answer the sender without a value, with nodes that are closer: it may know somebody there.
    PointOnwards,
    /// Pass the request on with this value.
    Relay {
        /// The next hop.
        to: SocketAddrV4,
        /// The value.
        value: T,
    },
    /// Answer somebody else than the sender: the client, without token or closer nodes.
    ReplyTo {
        /// The client.
        to: SocketAddrV4,
        /// The value.
        value: T,
    },
    /// It is for a server of this node. Its answer goes the way that [`Return`] says.
    ToServer(T, Return),
    /// Nothing.
    Drop,
}

/// How a server's answer travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Return {
    /// As the reply to the request: the client asked the server itself.
    Direct,
    /// As a request to a relay.
    Through {
        /// The relay that the client asked.
        relay: SocketAddrV4,
        /// Where it sees the client.
        client: SocketAddrV4,
    },
}

/// Decides about a handshake from `from`.
pub fn route_handshake(value: &[u8], from: SocketAddrV4, known: Known) -> Next<Handshake> {
    let Ok(message) = Handshake::from_slice(value) else {
        return Next::Drop;
    };
    if message.noise.is_empty() || message.noise.len() > CARRIED_LEN_MAX {
        return Next::Drop;
    }
    match known {
        Known::Server => handshake_to_server(message, from),
        Known::Relay(server) => relay_handshake(message, from, Some(server)),
        Known::Stranger => relay_handshake(message, from, None),
    }
}

fn handshake_to_server(message: Handshake, from: SocketAddrV4) -> Next<Handshake> {
    let through = |relay| {
        let client = usable(message.peer_address)?;
        Some(Return::Through { relay, client })
    };
    let answer = match message.mode {
        Mode::FROM_CLIENT => Some(Return::Direct),
        Mode::FROM_RELAY => through(from),
        Mode::FROM_SECOND_RELAY => usable(message.relay_address).and_then(through),
        _ => None,
    };
    match answer {
        Some(answer) => Next::ToServer(message, answer),
        None => Next::Drop,
    }
}

fn relay_handshake(
    message: Handshake,
    from: SocketAddrV4,
    server: Option<SocketAddrV4>,
) -> Next<Handshake> {
    let pass = |to, mode, peer_address, relay_address| Next::Relay {
        to,
        value: Handshake {
            mode,
            noise: message.noise.clone(),
            peer_address,
            relay_address,
        },
    };
    match message.mode {
        Mode::FROM_CLIENT => match usable(message.relay_address).or(server) {
            Some(to) => pass(to, Mode::FROM_RELAY, Some(from), None),
            None => Next::PointOnwards,
        },
        Mode::FROM_RELAY => match (server, usable(message.peer_address)) {
            (Some(to), Some(client)) => pass(to, Mode::FROM_SECOND_RELAY, Some(client), Some(from)),
            _ => Next::Drop,
        },
        Mode::FROM_SERVER => match usable(message.peer_address) {
            Some(to) => Next::ReplyTo {
                to,
                value: handshake_reply(message.noise, Some(from)),
            },
            None => Next::Drop,
        },
        _ => Next::Drop,
    }
}

/// Decides about a round of holepunching from `from`.
pub fn route_holepunch(value: &[u8], from: SocketAddrV4, known: Known) -> Next<Holepunch> {
    let Ok(message) = Holepunch::from_slice(value) else {
        return Next::Drop;
    };
    if message.payload.len() > CARRIED_LEN_MAX {
        return Next::Drop;
    }
    let peer = usable(message.peer_address);
    match (message.mode, known) {
        (Mode::FROM_CLIENT, _) => {
            let server = match known {
                Known::Relay(server) => Some(server),
                _ => None,
            };
            relay_round(message, from, peer.or(server))
        }
        (Mode::FROM_RELAY, Known::Server) => match peer {
            Some(client) => Next::ToServer(
                message,
                Return::Through {
                    relay: from,
                    client,
                },
            ),
            None => Next::Drop,
        },
        (Mode::FROM_SERVER, _) => match peer {
            Some(to) => Next::ReplyTo {
                to,
                value: Holepunch {
                    mode: Mode::REPLY,
                    peer_address: Some(from),
                    ..message
                },
            },
            None => Next::Drop,
        },
        _ => Next::Drop,
    }
}

fn relay_round(
    message: Holepunch,
    from: SocketAddrV4,
    server: Option<SocketAddrV4>,
) -> Next<Holepunch> {
    match server {
        Some(to) => Next::Relay {
            to,
            value: Holepunch {
                mode: Mode::FROM_RELAY,
                peer_address: Some(from),
                ..message
            },
        },
        None => Next::Drop,
    }
}

impl Return {
    /// The server's Noise message, and where to send it on to; without an address it is the reply.
    pub fn handshake(self, noise: Vec<u8>) -> (Handshake, Option<SocketAddrV4>) {
        match self {
            Self::Direct => (handshake_reply(noise, None), None),
            Self::Through { relay, client } => {
                let value = Handshake {
                    mode: Mode::FROM_SERVER,
                    noise,
                    peer_address: Some(client),
                    relay_address: None,
                };
                (value, Some(relay))
            }
        }
    }

    /// The server's round, and where to send it on to. Clients do not punch through to a server that answers them
    /// itself: `None` then.
    pub fn holepunch(self, payload: Vec<u8>) -> Option<(Holepunch, SocketAddrV4)> {
        let Self::Through { relay, client } = self else {
            return None;
        };
        let value = Holepunch {
            mode: Mode::FROM_SERVER,
            id: 0,
            payload,
            peer_address: Some(client),
        };
        Some((value, relay))
    }

    /// Where the client is, as whoever spoke to it sees it.
    pub fn client(self, from: SocketAddrV4) -> SocketAddrV4 {
        match self {
            Self::Direct => from,
            Self::Through { client, .. } => client,
        }
    }
}

/// What a client learns from the reply to its handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandshakeReply {
    /// The server's Noise message.
    pub noise: Vec<u8>,
    /// Where the server is, as the asked node sees it; that node itself if it is the server.
    pub server_address: SocketAddrV4,
    /// Whether the asked node passed the handshake on.
    pub is_relayed: bool,
}

/// What a client learns from the reply to a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HolepunchReply {
    /// The server's round, sealed.
    pub payload: Vec<u8>,
    /// Where the server is, as the asked node sees it.
    pub peer_address: SocketAddrV4,
}

/// The value of a client's handshake request.
pub fn handshake_request(noise: Vec<u8>) -> Handshake {
    Handshake {
        mode: Mode::FROM_CLIENT,
        noise,
        peer_address: None,
        relay_address: None,
    }
}

/// Reads the reply to a handshake request. `None` means that the node asked, `asked`, knows no way to the server, or
/// that somebody else answered, from `from`.
pub fn read_handshake_reply(
    value: Option<&[u8]>,
    asked: SocketAddrV4,
    from: SocketAddrV4,
) -> Option<HandshakeReply> {
    let message = Handshake::from_slice(value?).ok()?;
    let is_ours = message.mode == Mode::REPLY && asked == from && !message.noise.is_empty();
    is_ours.then(|| HandshakeReply {
        server_address: usable(message.peer_address).unwrap_or(asked),
        is_relayed: message.peer_address.is_some(),
        noise: message.noise,
    })
}

/// Reads the reply to a round, as [`read_handshake_reply`].
pub fn read_holepunch_reply(
    value: Option<&[u8]>,
    asked: SocketAddrV4,
    from: SocketAddrV4,
) -> Option<HolepunchReply> {
    let message = Holepunch::from_slice(value?).ok()?;
    let is_ours = message.mode == Mode::REPLY && asked == from;
    is_ours.then(|| HolepunchReply {
        peer_address: usable(message.peer_address).unwrap_or(asked),
        payload: message.payload,
    })
}

fn handshake_reply(noise: Vec<u8>, peer_address: Option<SocketAddrV4>) -> Handshake {
    Handshake {
        mode: Mode::REPLY,
        noise,
        peer_address,
        relay_address: None,
    }
}

/// An address that a packet can be sent to.
fn usable(address: Option<SocketAddrV4>) -> Option<SocketAddrV4> {
    address.filter(|address| address.port() != 0 && !address.ip().is_unspecified())
}

/// A server that announced itself here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Where it announced itself from.
    pub relay: SocketAddrV4,
    /// Its record, as [`FIND_PEER`](super::FIND_PEER) hands it out.
    pub record: Vec<u8>,
}

/// The servers that a node relays for, by target. Two generations, of which the older is dropped every two thirds of
/// [`FORWARD_AGE_MAX`]: an entry lives for 0.67 to 1.33 of it.
#[derive(Debug, Default)]
pub struct Forwards {
    fresh: HashMap<Id, Forward>,
    old: HashMap<Id, Forward>,
    turned_at: Time,
}

impl Forwards {
    /// Nobody yet.
    pub fn new(now: Time) -> Self {
        Self {
            turned_at: now,
            ..Self::default()
        }
    }

    /// Relays for a server from now on.
    pub fn insert(&mut self, now: Time, target: Id, forward: Forward) {
        self.turn(now);
        if self.fresh.len() >= FORWARDS_MAX / 2 && !self.fresh.contains_key(&target) {
            self.old = std::mem::take(&mut self.fresh);
        }
        self.old.remove(&target);
        self.fresh.insert(target, forward);
    }

    /// The server of `target`, if we relay for it.
    pub fn get(&mut self, now: Time, target: &Id) -> Option<&Forward> {
        self.turn(now);
        self.fresh.get(target).or_else(|| self.old.get(target))
    }

    /// Relays for that server no longer.
    pub fn remove(&mut self, target: &Id) {
        self.fresh.remove(target);
        self.old.remove(target);
    }

    /// How many servers.
    pub fn len(&self) -> usize {
        self.fresh.len() + self.old.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn turn(&mut self, now: Time) {
        let generation = FORWARD_AGE_MAX * 2 / 3;
        let age = now.saturating_since(self.turned_at);
        if age < generation {
            return;
        }
        self.old = std::mem::take(&mut self.fresh);
        if age >= generation * 2 {
            self.old.clear();
        }
        self.turned_at = now;
    }
}
