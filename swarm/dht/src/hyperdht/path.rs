//! After the handshake: which ways to the other peer are tried.
//! Knows the rules of `hyperdht/lib/{connect,server}.js` 6.34 as pure functions. Does not know sockets or time.
//!
//! The client's ways, in the order in which the rules are looked at:
//!
//! | what it knows | way |
//! |---|---|
//! | the server answered itself | [`Way::Direct`] to where it was asked |
//! | the server is open, or has no relays that punch | [`Way::Direct`] to its first public address, else to where the relay sees it |
//! | we are open | [`Way::Await`] its packets |
//! | both have the same public host, and the server listed addresses | [`Way::Lan`] to the nearest of them |
//! | the server has relays | [`Way::Punch`], beside the above |
//! | one of both named a blind relay | [`Way::Relay`], beside all of the above |

use std::net::{Ipv4Addr, SocketAddrV4};

use super::noise::{Firewall, NoisePayload, RelayInfo, RelayThrough};
use super::reach::{is_bogon, is_private, is_reserved, match_address};

/// A way to try. The first that carries a packet wins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Send to this address at once.
    Direct(SocketAddrV4),
    /// The other side will send to us.
    Await,
    /// Ping this address, and send there if it answers.
    Lan(SocketAddrV4),
    /// Punch, with the rounds going through this relay of the server.
    Punch(RelayInfo),
    /// Meet at a blind relay.
    Relay {
        /// The relay and the token to show.
        through: RelayThrough,
        /// Whether it was we who chose it.
        is_initiator: bool,
    },
}

/// What a client knows when its handshake was answered.
#[derive(Clone, Debug)]
pub struct Answered<'a> {
    /// The node that was asked.
    pub asked: SocketAddrV4,
    /// Whether that node passed the handshake on.
    pub is_relayed: bool,
    /// Where that node sees the server.
    pub server_address: SocketAddrV4,
    /// Where that node sees us.
    pub client_address: SocketAddrV4,
    /// What the server said.
    pub payload: &'a NoisePayload,
}

/// What a peer knows about itself.
#[derive(Clone, Debug)]
pub struct Ours<'a> {
    /// Our firewall: [`Firewall::OPEN`] or unknown.
    pub firewall: Firewall,
    /// Addresses of our interfaces.
    pub interfaces: &'a [Ipv4Addr],
    /// The port of our server socket.
    pub port: u16,
    /// Whether the other peer may be looked for on local networks.
    pub lan: bool,
    /// Whether we may punch.
    pub punch: bool,
    /// The blind relay that we named.
    pub relay_through: Option<RelayThrough>,
}

/// The ways to the server. None means that there is none: without punching and without relay it cannot be reached.
pub fn client_ways(answered: &Answered<'_>, ours: &Ours<'_>) -> Vec<Way> {
    let theirs = answered.payload.relay_through;
    let relay = relay_way(theirs, ours.relay_through);
    if !answered.is_relayed {
        return vec![Way::Direct(answered.asked)];
    }
    let mut ways: Vec<_> = relay.into_iter().collect();
    let server_relay = server_relay(answered);
    let differs = answered.server_address != answered.asked;
    if answered.payload.firewall == Firewall::OPEN || (differs && server_relay.is_none()) {
        ways.push(Way::Direct(first_public(answered)));
        return ways;
    }
    if ours.firewall == Firewall::OPEN {
        ways.push(Way::Await);
        return ways;
    }
    ways.extend(lan_way(answered, ours).map(Way::Lan));
    if ours.punch {
        ways.extend(server_relay.map(Way::Punch));
    }
    ways
}

/// The server's choice of a relay wins, and whoever chose is the initiator there.
fn relay_way(theirs: Option<RelayThrough>, ours: Option<RelayThrough>) -> Option<Way> {
    let through = theirs.or(ours)?;
    let is_initiator = theirs.is_none();
    Some(Way::Relay {
        through,
        is_initiator,
    })
}

/// The relay that both sides know if there is one, else the server's first.
fn server_relay(answered: &Answered<'_>) -> Option<RelayInfo> {
    let relays = &answered.payload.holepunch.as_ref()?.relays;
    let same = relays
        .iter()
        .find(|relay| relay.relay_address == answered.asked);
    same.or(relays.first()).copied()
}

fn first_public(answered: &Answered<'_>) -> SocketAddrV4 {
    let addresses = answered.payload.addresses4.iter();
    let mut public = addresses.filter(|address| !is_bogon(*address.ip()) && address.port() != 0);
    public.next().copied().unwrap_or(answered.server_address)
}

fn lan_way(answered: &Answered<'_>, ours: &Ours<'_>) -> Option<SocketAddrV4> {
    let is_same_host = answered.client_address.ip() == answered.server_address.ip();
    if !ours.lan || !is_same_host {
        return None;
    }
    // The same address may be ours here and theirs elsewhere: it would be us who answer.
    let is_ours = |address: &SocketAddrV4| {
        address.port() == ours.port && ours.interfaces.contains(address.ip())
    };
    let addresses = answered.payload.addresses4.iter().copied();
    let addresses = addresses.filter(|address| !is_ours(address));
    let theirs: Vec<_> = addresses
        .filter(|address| !is_reserved(*address.ip()) && address.port() != 0)
        .collect();
    match_address(ours.interfaces, &theirs).or_else(|| theirs.first().copied())
}

/// What a server does after it has answered a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerWay {
    /// Send to the client at once, over the socket that its request came in by if it came by itself.
    Direct(SocketAddrV4),
    /// Wait for the client's packets; it knows where we are.
    Await,
    /// Wait for them, and for rounds of holepunching too: the client is probably on our network. The answer leaves from
    /// the server's socket.
    AwaitLan,
    /// Wait for rounds of holepunching. The answer leaves from the socket that will punch, so that the relay sees that
    /// one's address.
    Punch,
}

/// What a server knows about a handshake.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Whether the client asked the server itself.
    pub is_direct: bool,
    /// Where the client is, as whoever passed its handshake on sees it.
    pub client_address: SocketAddrV4,
    /// Where the server is, as that node sees it.
    pub server_address: SocketAddrV4,
    /// What the client said.
    pub payload: &'a NoisePayload,
}

/// The server's way; a blind relay may be tried beside each but the first.
pub fn server_way(asked: &Asked<'_>, ours: &Ours<'_>) -> ServerWay {
    if asked.is_direct || asked.payload.firewall == Firewall::OPEN {
        return ServerWay::Direct(asked.client_address);
    }
    if ours.lan && is_on_our_network(asked, ours.interfaces) {
        return ServerWay::AwaitLan;
    }
    if ours.firewall == Firewall::OPEN || !ours.punch {
        return ServerWay::Await;
    }
    ServerWay::Punch
}

fn is_on_our_network(asked: &Asked<'_>, interfaces: &[Ipv4Addr]) -> bool {
    if asked.client_address.ip() != asked.server_address.ip() {
        return false;
    }
    let addresses = asked.payload.addresses4.iter().copied();
    let private: Vec<_> = addresses.filter(|a| is_private(*a.ip())).collect();
    match_address(interfaces, &private).is_some()
}

/// The relay that a server meets a client at: its own choice, else the client's; and whether it was its own.
pub fn server_relay_way(
    ours: Option<RelayThrough>,
    client: &NoisePayload,
) -> Option<(RelayThrough, bool)> {
    ours.map(|through| (through, true))
        .or(client.relay_through.map(|through| (through, false)))
}
