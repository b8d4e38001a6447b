//! The HyperDHT over UDP: the driver of [`ferrocore_dht`].
//! Knows sockets, tasks, clocks and names of hosts. Does not know the protocol, nor connections to peers.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ferrocore_primitives::sign::KeyPair;
//! use ferrocore_swarm::dht::Dht;
//!
//! let dht = Dht::builder().bind()?;
//! let stored = dht.immutable_put(b"hello".to_vec()).await?;
//! assert_eq!(dht.immutable_get(stored.target).await?, Some(b"hello".to_vec()));
//!
//! let keys = KeyPair::generate();
//! dht.announce(stored.target, &keys, Vec::new()).await?;
//! let mut lookup = dht.lookup(stored.target)?;
//! while let Some((_, found)) = lookup.next().await {
//!     println!("{:?}", found.peers);
//! }
//! # Ok(()) }
//! ```
//!
//! A [`Dht`] is a handle: clones are the same node, which ends when the last of them is dropped. Futures may be
//! dropped at any time; what they asked for is then given up.

mod bootstrap;
mod builder;
mod error;
mod search;
mod shared;
mod sockets;
mod task;
mod verbs;

use std::net::SocketAddrV4;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use ferrocore_dht::health::Network;
use ferrocore_dht::id::Id;
use ferrocore_dht::nat::Seen;
use ferrocore_dht::node::Node;
use ferrocore_dht::rpc::{Answer, Incoming, Outgoing, Response, Socket, Stats};
use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;
use ferrocore_udx::socket::{Udx, UdxSocket};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use bootstrap::{BootstrapNode, ParseBootstrapError, public_bootstrap};
pub use builder::{Builder, PORT_DEFAULT};
pub use error::DhtError;
pub use search::{Finding, Search};
pub use sockets::ExtraSocket;
pub use verbs::{AnnounceOptions, Stored, VALUE_LEN_MAX};

use shared::{Owner, Shared};

/// A node of the HyperDHT. See the [module](self).
#[derive(Debug, Clone)]
pub struct Dht {
    owner: Arc<Owner>,
}

/// A node that is not kept alive.
#[derive(Debug, Clone)]
pub(crate) struct WeakDht(Weak<Owner>);

impl WeakDht {
    /// The node, if it is still there.
    pub(crate) fn upgrade(&self) -> Option<Dht> {
        self.0.upgrade().map(|owner| Dht { owner })
    }
}

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NodeStatus {
    /// It has looked for its neighbours.
    pub is_bootstrapped: bool,
    /// It is a mere client: others do not keep it in their tables, and it stores nothing for them.
    pub is_ephemeral: bool,
    /// Others cannot reach it unasked, as far as it knows.
    pub is_firewalled: bool,
    /// What others see of it.
    pub seen: Seen,
    /// Where everybody can reach it.
    pub remote_address: Option<SocketAddrV4>,
    /// Its id, if it stays.
    pub id: Option<Id>,
    /// How the network is doing.
    pub network: Network,
    /// It sleeps.
    pub is_suspended: bool,
    /// Nodes it knows.
    pub nodes: usize,
    /// How often it has changed networks or slept: whoever holds connections looks at them then.
    pub disruptions: u64,
}

/// What arrived for whoever makes connections.
#[derive(Debug)]
#[non_exhaustive]
pub enum Arrival {
    /// A handshake or a round of holepunching for a key of [`Dht::serve`], or a request to a plugin. Answer it by
    /// [`Dht::reply`], [`Dht::reply_to`] or [`Dht::relay`].
    Request(Incoming),
    /// A datagram of neither the DHT nor a stream, such as one byte through a NAT.
    Datagram {
        /// The socket it came to.
        socket: Socket,
        /// Who sent it.
        from: SocketAddrV4,
        /// What it holds.
        data: Bytes,
    },
}

impl Dht {
    /// A node with the defaults: the public network, port 49737 or one near it.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns once the node has looked for its neighbours, whether it found any or not.
    ///
    /// # Errors
    /// [`DhtError::Closed`].
    pub async fn bootstrapped(&self) -> Result<(), DhtError> {
        self.until(|status| status.is_bootstrapped).await
    }

    /// Returns once the node stands as `is` says.
    ///
    /// # Errors
    /// [`DhtError::Closed`].
    pub async fn until(&self, is: impl FnMut(&NodeStatus) -> bool) -> Result<(), DhtError> {
        let mut watch = self.watch();
        let found = watch.wait_for(is).await;
        found.map(drop).map_err(|_| DhtError::Closed)
    }

    /// How the node stands.
    pub fn status(&self) -> NodeStatus {
        self.shared().with(|inner, _| inner.status())
    }

    /// How the node stands, whenever that changes.
    pub fn watch(&self) -> watch::Receiver<NodeStatus> {
        self.shared().status.subscribe()
    }

    /// How often the node has changed networks or slept, for who holds connections; see [`NodeStatus::disruptions`].
    pub fn disruptions(&self) -> watch::Receiver<u64> {
        self.shared().disruptions.subscribe()
    }

    /// As if the network had changed.
    #[cfg(test)]
    pub(crate) fn disrupt(&self) {
        self.shared().disruptions.send_modify(|count| *count += 1);
    }

    /// The node, without keeping it.
    pub(crate) fn downgrade(&self) -> WeakDht {
        WeakDht(Arc::downgrade(&self.owner))
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.shared().with(|inner, _| inner.node.rpc().stats())
    }

    /// Asks one node.
    ///
    /// # Errors
    /// [`DhtError::Request`], [`DhtError::Closed`].
    pub async fn request(&self, outgoing: Outgoing) -> Result<Response, DhtError> {
        self.shared().request(outgoing)?.await
    }

    /// Asks one node whether it is there. Returns its answer, with the time it took.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn ping(&self, node: SocketAddrV4) -> Result<Response, DhtError> {
        self.request(Outgoing::ping(node)).await
    }

    /// Asks one node to answer after `delay`, at most 10 s.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn delayed_ping(
        &self,
        node: SocketAddrV4,
        delay: Duration,
    ) -> Result<Response, DhtError> {
        self.shared().delayed_ping(node, delay)?.await
    }

    /// Answers a request.
    pub fn reply(&self, incoming: Incoming, answer: Answer) {
        self.rpc(|node, now| node.rpc_mut().reply(now, incoming, answer));
    }

    /// Answers a request of somebody else than its sender.
    pub fn reply_to(&self, incoming: Incoming, value: Vec<u8>, to: SocketAddrV4) {
        self.rpc(|node, now| node.rpc_mut().reply_to(now, incoming, value, to));
    }

    /// Sends a request on, with its number, command and target; from another socket than it came to, if one is named.
    pub fn relay(
        &self,
        incoming: Incoming,
        value: Vec<u8>,
        to: SocketAddrV4,
        socket: Option<Socket>,
    ) {
        self.rpc(|node, _| node.rpc_mut().relay(incoming, value, to, socket));
    }

    /// Names `key` to whoever asks this node for it, and hands out the handshakes for it. False if there are too many
    /// such keys.
    pub fn serve(&self, key: PublicKey) -> bool {
        self.rpc(|node, _| node.store_mut().serve(key))
    }

    /// Undoes [`serve`](Self::serve).
    pub fn unserve(&self, key: &PublicKey) {
        self.rpc(|node, _| node.store_mut().unserve(key));
    }

    /// Where a server is that has announced itself to this node, which passes handshakes on to it.
    pub(crate) fn server_of(&self, target: &Id) -> Option<SocketAddrV4> {
        self.shared().with(|inner, now| {
            let forward = inner.node.store_mut().forward(now, target)?;
            Some(forward.relay)
        })
    }

    /// What arrives for whoever makes connections. Only one can have it; what is not taken in time is dropped.
    pub fn arrivals(&self) -> Option<mpsc::Receiver<Arrival>> {
        self.shared().with(|inner, _| inner.take_arrivals())
    }

    /// The port of the server socket on this machine, with the address of the network it is on.
    pub fn local_address(&self) -> Option<SocketAddrV4> {
        self.shared().local_address()
    }

    /// Where everybody can reach this node, if they can.
    pub fn remote_address(&self) -> Option<SocketAddrV4> {
        self.status().remote_address
    }

    /// The nodes known, those heard last before others: give them to [`Builder::nodes`] next time.
    pub fn nodes(&self, max: usize) -> Vec<SocketAddrV4> {
        self.shared().with(|inner, _| {
            let latest = inner.node.rpc().table().latest().take(max);
            latest.map(|node| node.address()).collect()
        })
    }

    /// The streams that share the node's sockets.
    pub fn udx(&self) -> &Udx {
        &self.shared().udx
    }

    /// One of the node's sockets; none while it sleeps.
    pub fn socket(&self, socket: Socket) -> Option<UdxSocket> {
        self.shared().with(|inner, _| inner.socket(socket).cloned())
    }

    /// The socket that requests are sent from.
    pub fn usual_socket(&self) -> Socket {
        self.rpc(|node, _| node.rpc().socket())
    }

    /// Now, on the node's clock.
    pub fn now(&self) -> Time {
        self.shared().now()
    }

    /// When that is on the runtime's clock.
    pub fn instant(&self, time: Time) -> Instant {
        self.shared().instant(time)
    }

    /// Puts the node to sleep and closes its sockets, those opened to punch among them, with all streams on them. What is asked
    /// then, or still under way, fails.
    pub async fn suspend(&self) {
        let (sockets, extra) = self.shared().with(|inner, now| {
            inner.node.rpc_mut().suspend(now);
            (inner.sockets.take(), inner.extra_sockets())
        });
        self.shared().release(sockets).await;
        for socket in extra {
            socket.close().await;
        }
    }

    /// Wakes the node up, on the ports it had where they are free.
    ///
    /// # Errors
    /// [`DhtError::Io`] if no socket can be bound; the node sleeps on.
    pub async fn resume(&self) -> Result<(), DhtError> {
        self.shared().resume()
    }

    /// Says that the machine is on another network now. The node notices changes of its address by itself.
    pub fn network_changed(&self) {
        self.rpc(|node, now| node.rpc_mut().network_changed(now));
    }

    /// Ends the node for all its handles. Its port is free once this returns, and streams on it are closed.
    pub async fn close(&self) {
        let sockets = self.shared().close();
        self.shared().release(sockets).await;
    }

    fn rpc<T>(&self, f: impl FnOnce(&mut Node, Time) -> T) -> T {
        self.shared().with(|inner, now| f(&mut inner.node, now))
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}
