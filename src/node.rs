//! The node: a store of cores, and the peers it replicates them with.
//! Knows how the parts fit together. Does not know any protocol itself.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferrocore_drive::{Drive, DriveError, DriveOptions};
use ferrocore_log::{Core, Corestore, Durability, StoreError, StoreOptions};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_replication::session::SessionOptions;
use ferrocore_replication::{Session, Stats};
use ferrocore_secret_stream::SecretStream;
use ferrocore_swarm::Swarm;
use ferrocore_swarm::dht::Dht;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::limits::{BAN_TIME, GOODBYE_TIMEOUT};
use crate::network::{DhtOptions, Discovery, Network};
use crate::peers::{PeerEvents, PeerInfo, PeerReport, Peers};
use crate::shared::Shared;
use crate::tcp::{self, Dialing, Listening};
use crate::throttle::{Bucket, Limits};

/// A store of cores, and the peers it replicates them with. A cheap clone.
///
/// Peers get whatever they ask for by its discovery key, if they know the key itself. Every core
/// that is opened is asked of every peer.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
    /// The addresses given to the builder.
    links: Arc<Mutex<Links>>,
    network: Arc<Mutex<Option<Network>>>,
}

#[derive(Default)]
struct Links {
    listening: Vec<Listening>,
    dialing: Vec<Dialing>,
}

/// A node could not be opened or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The store cannot be opened, or a core in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The drive cannot be opened.
    #[error(transparent)]
    Drive(#[from] DriveError),
    /// Peers cannot be accepted there; use another address or port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Peers cannot be looked for; addresses of peers still work.
    #[error("cannot look for peers: {0}")]
    Discovery(std::io::Error),
}

/// How a node is to be. Without a directory, it keeps its cores in memory.
#[derive(Debug, Clone, Default)]
#[must_use = "a node exists once it is opened"]
pub struct NodeBuilder {
    dir: Option<PathBuf>,
    durability: Durability,
    read_only: bool,
    listen: Vec<String>,
    peers: Vec<String>,
    discovery: Discovery,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
    ban_time: Option<Duration>,
}

impl NodeBuilder {
    /// Keeps cores and keys in this directory, which is created if it is not there.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What written data survives; a kill of the process by default.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Changes nothing in the directory, which must be a store, and takes no lock: another program
    /// may have it open. See [`StoreOptions::read_only`].
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Accepts peers at this TCP address; port 0 lets the system choose one. `ws://HOST:PORT` accepts WebSockets
    /// instead, with feature `websocket`.
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.listen.push(address.to_string());
        self
    }

    /// Dials this TCP peer, a `HOST:PORT`, whenever it is not connected. With feature `websocket` it may be a
    /// `ws://HOST:PORT/PATH`.
    pub fn peer(mut self, address: impl ToString) -> Self {
        self.peers.push(address.to_string());
        self
    }

    /// Finds peers on the local network, and lets them find this node, for every core that is open.
    ///
    /// Who is on that network can tell that there is a node, but not what it has: see `docs/NETWORK.md`.
    pub fn lan(mut self) -> Self {
        self.discovery.lan = Discovery::lan().lan;
        self
    }

    /// Finds peers in the DHT, and lets them find this node, for every core that is open.
    pub fn dht(mut self, options: DhtOptions) -> Self {
        self.discovery.dht = Some(options);
        self
    }

    /// Finds peers, and lets them find this node, for every core that is open.
    pub fn discovery(mut self, discovery: Discovery) -> Self {
        self.discovery = discovery;
        self
    }

    /// Sends at most so many bytes a second, to all peers together.
    pub fn upload_limit(mut self, bytes_per_second: u64) -> Self {
        self.upload_limit = Some(bytes_per_second);
        self
    }

    /// Receives at most so many bytes a second, from all peers together.
    pub fn download_limit(mut self, bytes_per_second: u64) -> Self {
        self.download_limit = Some(bytes_per_second);
        self
    }

    /// Keeps the keys of peers that lied away for so long, instead of [`BAN_TIME`]; not at all if it is zero.
    pub fn ban_time(mut self, time: Duration) -> Self {
        self.ban_time = Some(time);
        self
    }

    /// Opens the node. Must be called within a tokio runtime with IO and time.
    ///
    /// # Errors
    /// [`NodeError::Store`] if the store is damaged or in use by another program,
    /// [`NodeError::Listen`] if an address cannot be listened on, [`NodeError::Discovery`] if peers cannot be looked for.
    pub async fn open(self) -> Result<Node, NodeError> {
        let options = StoreOptions {
            read_only: self.read_only,
            ..StoreOptions::from(self.durability)
        };
        let store = match &self.dir {
            Some(dir) => Corestore::open(dir, options)?,
            None => Corestore::memory(),
        };
        let bucket = |rate: Option<u64>| rate.map(|rate| Arc::new(Bucket::new(rate)));
        let key_pair = KeyPair::generate();
        let shared = Shared {
            store,
            peers: Peers::new(key_pair.public_key(), self.ban_time.unwrap_or(BAN_TIME)),
            key_pair,
            limits: Limits {
                up: bucket(self.upload_limit),
                down: bucket(self.download_limit),
            },
            dir: self.dir.filter(|_| !self.read_only),
            closing: watch::Sender::new(false),
            resting: watch::Sender::new(false),
        };
        let node = Node {
            shared: Arc::new(shared),
            links: Arc::default(),
            network: Arc::default(),
        };
        node.discover(&self.discovery)?;
        for address in &self.listen {
            let listening = node.listen(address).await?;
            node.with_links(|links| links.listening.push(listening));
        }
        for address in self.peers {
            let dialing = node.dial(address);
            node.with_links(|links| links.dialing.push(dialing));
        }
        Ok(node)
    }
}

impl Node {
    /// Starts to describe a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Accepts peers at another address, for as long as the answer is kept.
    ///
    /// # Errors
    /// [`NodeError::Listen`] if the address is malformed, taken, or not of this machine.
    pub async fn listen(&self, address: impl ToString) -> Result<Listening, NodeError> {
        let address = address.to_string();
        let listening = tcp::listen(self.shared.hold(), &address).await;
        listening.map_err(|source| NodeError::Listen { address, source })
    }

    /// Dials another peer whenever it is not connected, for as long as the answer is kept.
    ///
    /// A peer that cannot be reached is no error: it may come up. [`Node::peers`] tells.
    pub fn dial(&self, address: impl ToString) -> Dialing {
        tcp::dial(self.shared.hold(), address.to_string())
    }

    /// Replicates the store over a stream that the caller has brought up, within this node's limits: two pipes, a TLS stream, a
    /// WebSocket that somebody else has accepted.
    ///
    /// The session is the caller's. It is not among [`Node::connected`] nor in [`Node::stats`], nobody is turned away from it,
    /// and [`Node::close`] neither ends nor waits for it: close it before, and wait for its end.
    /// Reads wait until the peer was offered their core and has answered; for others that it may bring later, only while somebody
    /// looks for peers: see [`Corestore::finding`].
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use ferrocore::Node;
    /// use ferrocore::primitives::sign::KeyPair;
    /// use ferrocore::replication::session::SessionOptions;
    /// use ferrocore::secret_stream::{Options, Role, SecretStream};
    ///
    /// let alice = Node::builder().upload_limit(1_000_000).open().await?;
    /// let notes = alice.create_core("notes")?;
    /// notes.append("hello")?;
    /// let bob = Node::builder().open().await?;
    /// let copy = bob.core(&notes.key())?;
    ///
    /// let (keys, others) = (KeyPair::generate(), KeyPair::generate());
    /// let (near, far) = tokio::io::duplex(64 * 1024);
    /// let (near, far) = tokio::try_join!(
    ///     SecretStream::handshake(near, Role::Initiator, &keys, Options::default()),
    ///     SecretStream::handshake(far, Role::Responder, &others, Options::default()),
    /// )?;
    /// let _serving = alice.replicate(near, SessionOptions::default());
    /// let _fetching = bob.replicate(far, SessionOptions::default());
    /// let _finding = bob.store().finding();
    /// assert_eq!(copy.get(0).await?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn replicate<T>(&self, stream: SecretStream<T>, options: SessionOptions) -> Session
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.shared.session(stream, options)
    }

    /// Finds peers, and lets them find this node, from now on; nothing changes if it does so already.
    ///
    /// # Errors
    /// [`NodeError::Discovery`] if the system does not let it.
    pub fn discover(&self, discovery: &Discovery) -> Result<(), NodeError> {
        let mut network = self.network();
        if network.is_none() && !discovery.is_none() {
            let started = Network::start(&self.shared, discovery);
            *network = Some(started.map_err(NodeError::Discovery)?);
        }
        Ok(())
    }

    /// This node's place in the DHT, if it takes part.
    pub fn dht(&self) -> Option<Dht> {
        self.network()
            .as_ref()
            .and_then(|network| network.dht.clone())
    }

    /// What finds peers for this node, if anything does: its events, its status, topics of the caller's own.
    pub fn swarm(&self) -> Option<Swarm> {
        self.network().as_ref().map(|network| network.swarm.clone())
    }

    /// Opens the core with this key, to read it or, if it was created here, to write it.
    ///
    /// # Errors
    /// [`NodeError::Store`] if it cannot be opened.
    pub fn core(&self, key: &Key) -> Result<Core, NodeError> {
        Ok(self.shared.store.get(key)?)
    }

    /// Opens the core called `name` in this store, creating it if there is none.
    ///
    /// # Errors
    /// [`NodeError::Store`] if it cannot be opened.
    pub fn create_core(&self, name: &str) -> Result<Core, NodeError> {
        Ok(self.shared.store.get_named(name)?)
    }

    /// Opens the drive with this key, to read it. [`Drive::update`] finds out what is new in it.
    /// [`Node::create_drive`] opens one to write.
    ///
    /// # Errors
    /// [`NodeError::Drive`] if it cannot be opened.
    pub async fn drive(&self, key: &Key) -> Result<Drive, NodeError> {
        self.drive_with(key, DriveOptions::default()).await
    }

    /// As [`Node::drive`], with options: an encrypted drive needs its encryption key.
    ///
    /// # Errors
    /// As for [`Drive::open_with`].
    pub async fn drive_with(&self, key: &Key, options: DriveOptions) -> Result<Drive, NodeError> {
        Ok(Drive::open_with(&self.shared.store, key, options).await?)
    }

    /// Opens the drive called `name` in this store, creating it if there is none.
    ///
    /// # Errors
    /// [`NodeError::Drive`] if it cannot be opened.
    pub async fn create_drive(&self, name: &str) -> Result<Drive, NodeError> {
        self.create_drive_with(name, DriveOptions::default()).await
    }

    /// As [`Node::create_drive`], with options: with an encryption key, peers can keep the drive
    /// but not read it.
    ///
    /// # Errors
    /// As for [`Drive::create_with`].
    pub async fn create_drive_with(
        &self,
        name: &str,
        options: DriveOptions,
    ) -> Result<Drive, NodeError> {
        Ok(Drive::create_with(&self.shared.store.namespace(name), options).await?)
    }

    /// The store, for everything else.
    pub fn store(&self) -> &Corestore {
        &self.shared.store
    }

    /// Subscribes to what happens with peers from now on.
    pub fn peers(&self) -> PeerEvents {
        self.shared.peers.subscribe()
    }

    /// The peers connected now.
    pub fn connected(&self) -> Vec<PeerInfo> {
        self.shared.peers.connected()
    }

    /// What each connection carries: how much, how fast, of which cores.
    pub async fn peer_reports(&self) -> Vec<PeerReport> {
        self.shared.peers.reports().await
    }

    /// What all connections have carried so far.
    pub fn stats(&self) -> Stats {
        self.shared.peers.stats()
    }

    /// Keeps a key away for so long, however it comes or is found, and closes its connection; [`Duration::ZERO`] welcomes it
    /// again. At most [`BANS_MAX`](crate::limits::BANS_MAX) keys are kept away.
    ///
    /// Peers that lied are kept away so by the node itself: see [`NodeBuilder::ban_time`].
    pub fn ban(&self, key: PublicKey, time: Duration) {
        self.shared.peers.ban(key, time);
    }

    /// The first address given to the builder to listen on, with the port that was chosen.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.with_links(|links| links.listening.first().map(Listening::address))
    }

    /// The key under which peers know this node. It is made anew each time, so that nobody can
    /// tell where a node was before.
    pub fn public_key(&self) -> PublicKey {
        self.shared.key_pair.public_key()
    }

    /// Says goodbye to all peers, and ends everything that the node does by itself.
    ///
    /// The store stays open as long as any handle on it is kept, this one among them. Once they are dropped it can be
    /// opened again at once.
    pub async fn close(&self) {
        let mut events = self.peers();
        self.shared.closing.send_replace(true);
        // Each connection ends within `GOODBYE_TIMEOUT`, and says so.
        while !self.connected().is_empty() && events.next().await.is_some() {}
        let network = self.network().take();
        if let Some(network) = network {
            network.close().await;
        }
        self.with_links(|links| *links = Links::default());
        // What was aborted lets go when it is next looked at.
        let let_go = self.shared.closing.closed();
        timeout(GOODBYE_TIMEOUT, let_go).await.ok();
    }

    /// Puts the node to sleep, as before a phone freezes the program: says goodbye to all peers, takes announcements back,
    /// and lets the DHT's sockets go. Cores stay open, and reading them waits. What was given to listen on refuses everybody.
    pub async fn suspend(&self) {
        let mut events = self.peers();
        self.shared.resting.send_replace(true);
        // Each connection ends within `GOODBYE_TIMEOUT`, and says so.
        while !self.connected().is_empty() && events.next().await.is_some() {}
        if let Some(swarm) = self.swarm() {
            swarm.suspend().await;
        }
    }

    /// Wakes the node up: it is found again, and finds and dials its peers.
    ///
    /// # Errors
    /// [`NodeError::Discovery`] if the system does not let it; the node sleeps on, and this may be tried again.
    pub async fn resume(&self) -> Result<(), NodeError> {
        if let Some(swarm) = self.swarm() {
            let resumed = swarm.resume().await;
            resumed.map_err(|error| NodeError::Discovery(std::io::Error::other(error)))?;
        }
        self.shared.resting.send_replace(false);
        Ok(())
    }

    /// Whether the node sleeps.
    pub fn is_suspended(&self) -> bool {
        *self.shared.resting.borrow()
    }

    fn network(&self) -> MutexGuard<'_, Option<Network>> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_links<T>(&self, change: impl FnOnce(&mut Links) -> T) -> T {
        change(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("peers", &self.shared.peers)
            .finish_non_exhaustive()
    }
}
