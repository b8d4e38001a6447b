//! What connections need of a DHT node.
//! Knows its requests, sockets and clock, and this machine's interfaces. Does not know connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use ferrocore_dht::hyperdht::punch::PUNCH;
use ferrocore_dht::hyperdht::punch::puncher::RandomPunches;
use ferrocore_dht::id::Id;
use ferrocore_dht::rpc::{Answer, Incoming, Outgoing, Plan, Response, Socket};
use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;
use ferrocore_udx::socket::{Udx, UdxSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::error::ConnectError;
use crate::dht::{Dht, DhtError, ExtraSocket, Search, WeakDht};

/// Punches that wait for their puncher; more are dropped.
const PUNCHES_MAX: usize = 64;

/// Nodes heard last are not asked for samples, if there are more than [`SKIP_FROM`]: they are the least proven.
const SKIPPED: usize = 5;
const SKIP_FROM: usize = 8;

/// Interfaces named to other peers at most.
const INTERFACES_MAX: usize = 16;

/// Handshakes that a socket to punch with is opened for before their client is heard of again. More wait for its first round:
/// a handshake costs a stranger one packet, and a descriptor is kept for seconds.
pub(super) const EARLY_PUNCHES_MAX: usize = 64;

/// Handshakes with an open socket beyond those; more stay without.
pub(super) const LATE_PUNCHES_MAX: usize = 192;

/// A node, and what its punches have in common.
#[derive(Debug, Clone)]
pub(super) struct Net {
    dht: Dht,
    randoms: RandomPunches,
    early: Arc<Semaphore>,
    late: Arc<Semaphore>,
}

/// The same without keeping the node, for what lasts as long as a connection.
#[derive(Debug, Clone)]
pub(super) struct WeakNet {
    dht: WeakDht,
    randoms: RandomPunches,
    early: Arc<Semaphore>,
    late: Arc<Semaphore>,
}

impl WeakNet {
    /// What there was, if the node is still there.
    pub(super) fn upgrade(&self) -> Option<Net> {
        Some(Net {
            dht: self.dht.upgrade()?,
            randoms: self.randoms.clone(),
            early: Arc::clone(&self.early),
            late: Arc::clone(&self.late),
        })
    }
}

/// A socket to punch with.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) tag: Socket,
    pub(super) socket: UdxSocket,
    /// Reads it until this is dropped.
    _reading: JoinSet<()>,
}

impl Net {
    pub(super) fn new(dht: Dht) -> Self {
        Self {
            dht,
            randoms: RandomPunches::new(),
            early: Arc::new(Semaphore::new(EARLY_PUNCHES_MAX)),
            late: Arc::new(Semaphore::new(LATE_PUNCHES_MAX)),
        }
    }

    pub(super) fn downgrade(&self) -> WeakNet {
        WeakNet {
            dht: self.dht.downgrade(),
            randoms: self.randoms.clone(),
            early: Arc::clone(&self.early),
            late: Arc::clone(&self.late),
        }
    }

    /// Room for a server to punch in, if there is; for clients that `is_heard` there is more.
    pub(super) fn room_to_punch(&self, is_heard: bool) -> Option<OwnedSemaphorePermit> {
        let early = Arc::clone(&self.early).try_acquire_owned().ok();
        let late = || Arc::clone(&self.late).try_acquire_owned().ok();
        early.or_else(|| is_heard.then(late).flatten())
    }

    pub(super) fn dht(&self) -> &Dht {
        &self.dht
    }

    pub(super) async fn request(&self, outgoing: Outgoing) -> Result<Response, DhtError> {
        self.dht.request(outgoing).await
    }

    pub(super) fn query(&self, plan: Plan) -> Result<Search, DhtError> {
        self.dht.query(plan)
    }

    pub(super) fn reply(&self, incoming: Incoming, answer: Answer) {
        self.dht.reply(incoming, answer);
    }

    pub(super) fn relay(
        &self,
        incoming: Incoming,
        value: Vec<u8>,
        to: SocketAddrV4,
        socket: Option<Socket>,
    ) {
        self.dht.relay(incoming, value, to, socket);
    }

    pub(super) fn serve(&self, key: PublicKey) -> bool {
        self.dht.serve(key)
    }

    /// Where the server of `target` is, if we pass handshakes on to it: nobody else need know it.
    pub(super) fn server_of(&self, target: &Id) -> Option<SocketAddrV4> {
        self.dht.server_of(target)
    }

    pub(super) fn unserve(&self, key: &PublicKey) {
        self.dht.unserve(key);
    }

    /// A fresh socket, and where punches that come to it are from.
    pub(super) fn open_extra(&self) -> io::Result<(Extra, mpsc::Receiver<SocketAddrV4>)> {
        let extra = self.dht.open_extra().map_err(|error| match error {
            DhtError::Io(error) => error,
            other => io::Error::other(other),
        })?;
        let (sender, punches) = mpsc::channel(PUNCHES_MAX);
        let (tag, socket) = (extra.name(), extra.socket().clone());
        let mut reading = JoinSet::new();
        reading.spawn(read(extra, sender));
        let extra = Extra {
            tag,
            socket,
            _reading: reading,
        };
        Ok((extra, punches))
    }

    /// Nodes to ask where they see a socket.
    pub(super) fn sample_nodes(&self, count: usize) -> Vec<SocketAddrV4> {
        let nodes = self.dht.nodes(count + SKIP_FROM);
        let skipped = if nodes.len() >= SKIP_FROM { SKIPPED } else { 0 };
        nodes.into_iter().skip(skipped).take(count).collect()
    }

    pub(super) fn udx(&self) -> &Udx {
        self.dht.udx()
    }

    pub(super) fn socket(&self, socket: Socket) -> Option<UdxSocket> {
        self.dht.socket(socket)
    }

    pub(super) fn server_socket(&self) -> Option<UdxSocket> {
        self.socket(Socket::Server)
    }

    /// The node's own socket at this local address.
    pub(super) fn socket_at(&self, local: SocketAddr) -> Option<UdxSocket> {
        tagged_at(&self.dht, local).map(|(_, socket)| socket)
    }

    /// # Errors
    /// [`ConnectError::Suspended`] while the node sleeps.
    pub(super) fn check(&self) -> Result<(), ConnectError> {
        match self.dht.status().is_suspended {
            true => Err(ConnectError::Suspended),
            false => Ok(()),
        }
    }

    /// Where anybody can reach our server socket.
    pub(super) fn public_address(&self) -> Option<SocketAddrV4> {
        let status = self.dht.status();
        status.remote_address.filter(|_| !status.is_firewalled)
    }

    pub(super) fn is_firewalled(&self) -> bool {
        self.dht.status().is_firewalled
    }

    pub(super) fn randoms(&self) -> RandomPunches {
        self.randoms.clone()
    }

    /// The port of our server socket; 0 while the node sleeps.
    pub(super) fn server_port(&self) -> u16 {
        let socket = self.server_socket();
        socket.map_or(0, |socket| socket.local_addr().port())
    }

    /// Our server socket on each network we are on.
    pub(super) fn lan_addresses(&self) -> Vec<SocketAddrV4> {
        let port = self.server_port();
        if port == 0 {
            return Vec::new();
        }
        let interfaces = self.interfaces().into_iter();
        interfaces.map(|ip| SocketAddrV4::new(ip, port)).collect()
    }

    /// Our addresses on the networks we are on; loopback only if there is nothing else, or we are bound to it.
    pub(super) fn interfaces(&self) -> Vec<Ipv4Addr> {
        let bound = self.server_socket().map(|socket| socket.local_addr().ip());
        if let Some(IpAddr::V4(ip)) = bound
            && !ip.is_unspecified()
        {
            return vec![ip];
        }
        let found = if_addrs::get_if_addrs().unwrap_or_default();
        let usable = found.iter().filter(|interface| !interface.is_loopback());
        let mut ips: Vec<_> = usable
            .filter_map(|interface| match interface.ip() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            })
            .take(INTERFACES_MAX)
            .collect();
        if ips.is_empty() {
            ips.push(Ipv4Addr::LOCALHOST);
        }
        ips
    }

    pub(super) fn now(&self) -> Time {
        self.dht.now()
    }

    pub(super) fn instant(&self, time: Time) -> Instant {
        self.dht.instant(time)
    }
}

/// The node's own socket at this local address, and how the node knows it.
pub(super) fn tagged_at(dht: &Dht, local: SocketAddr) -> Option<(Socket, UdxSocket)> {
    let own = [Socket::Server, Socket::Client].into_iter();
    let mut own = own.filter_map(|tag| Some((tag, dht.socket(tag)?)));
    own.find(|(_, socket)| socket.local_addr() == local)
}

/// Hands punches to their puncher and everything else to the node.
async fn read(extra: ExtraSocket, punches: mpsc::Sender<SocketAddrV4>) {
    while let Ok(datagram) = extra.socket().recv_from().await {
        if datagram.data.len() == PUNCH.len() {
            let from = v4(datagram.from);
            from.map(|from| punches.try_send(from));
        } else {
            extra.handle(datagram.from, &datagram.data);
        }
    }
}

/// The DHT speaks IPv4 only.
pub(super) fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(address),
        SocketAddr::V6(address) => {
            let ip = address.ip().to_ipv4_mapped()?;
            Some(SocketAddrV4::new(ip, address.port()))
        }
    }
}
