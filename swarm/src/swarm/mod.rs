//! The swarm: topics are joined, peers found and dialled, connections given out.
//! Knows how discoveries, transports and the rules fit together. Does not know any of them from within.
//!
//! # Examples
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use ferrocore_swarm::discovery::StaticList;
//! use ferrocore_swarm::transport::memory::MemoryNetwork;
//! use ferrocore_swarm::{JoinOptions, PeerId, Swarm, Target, Topic};
//!
//! let network = MemoryNetwork::default();
//! let host = network.host(1);
//! let alice = Target { id: PeerId::Name("alice".into()), addresses: vec![host.address()] };
//! let (_alice, mut guests) = Swarm::builder().transport(host).open();
//!
//! let list = StaticList::new([alice]);
//! let (bob, mut hosts) = Swarm::builder().transport(network.host(2)).discovery(list).open();
//! let chess = Topic::from_name("chess");
//! let _session = bob.join(chess, JoinOptions::default());
//! assert_eq!(guests.next().await.unwrap().info.remote_key, bob.public_key());
//! assert_eq!(hosts.next().await.unwrap().topics, [chess]);
//! # }
//! ```

mod driver;
mod events;
mod rest;
mod shared;
mod topics;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};

use ferrocore_primitives::random;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_secret_stream::SecretStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::Topic;
use crate::dht::Dht;
use crate::discovery::Discovery;
use crate::gathering::{Gathering, Speaker};
use crate::link::{Carried, Link};
use crate::messages::Messages;
use crate::online::Online;
use crate::roster::{ConnectionId, RosterLimits};
use crate::transport::{ListenError, Transport};

pub use events::{
    ConnectionInfo, PathStatus, PeerState, PeerStatus, SearchState, Status, SwarmEvent,
    SwarmEvents, TopicStatus,
};
use shared::Shared;

/// Says whether a key is to be kept away.
pub type Firewall = Arc<dyn Fn(&PublicKey) -> bool + Send + Sync>;

/// How a swarm is to be.
#[derive(Default)]
#[must_use = "a swarm exists once it is opened"]
pub struct SwarmBuilder {
    key_pair: Option<KeyPair>,
    transports: Vec<Arc<dyn Transport>>,
    discoveries: Vec<Arc<dyn Discovery>>,
    dht: Option<Dht>,
    firewall: Option<Firewall>,
    limits: RosterLimits,
    seed: Option<u64>,
}

/// What is wanted of a topic; everything, by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinOptions {
    /// Be found by others.
    pub server: bool,
    /// Find others, and dial them.
    pub client: bool,
    /// Dial at most so many who are found under this topic.
    pub limit: Option<usize>,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self {
            server: true,
            client: true,
            limit: None,
        }
    }
}

/// Finds the peers of topics, and keeps one connection to each. A cheap clone; the last one dropped closes all.
#[derive(Clone)]
pub struct Swarm {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

/// A topic that is joined for as long as this is kept.
#[derive(Debug)]
#[must_use = "dropping it leaves the topic"]
pub struct Session {
    shared: Weak<Shared>,
    topic: Topic,
    id: u64,
}

/// The connections of a swarm, as they come up.
#[derive(Debug)]
pub struct Connections {
    receiver: mpsc::Receiver<Connection>,
}

/// An encrypted stream to a peer that has proven its key.
#[derive(Debug)]
pub struct Connection {
    /// The stream. Dropping it, or both its halves, ends the connection; the swarm may end it, too, when a better one
    /// replaces it, or its peer is banned.
    pub stream: SecretStream<Link>,
    /// Whom it leads to, and how.
    pub info: ConnectionInfo,
    /// The topics under which the peer was found. Empty if it has found us.
    pub topics: Vec<Topic>,
    /// What is said beside the stream, each for itself and perhaps lost: over the DHT's UDP; over TCP there is no such thing.
    pub messages: Option<Messages>,
}

impl SwarmBuilder {
    /// Under which key peers know this swarm; a new one, by default.
    pub fn key_pair(mut self, key_pair: KeyPair) -> Self {
        self.key_pair = Some(key_pair);
        self
    }

    /// Adds a way to reach peers. The first that can dial somebody does.
    pub fn transport(self, transport: impl Transport + 'static) -> Self {
        self.shared_transport(Arc::new(transport))
    }

    /// As [`transport`](Self::transport), for one that is also used elsewhere.
    pub fn shared_transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transports.push(transport);
        self
    }

    /// Adds a way to find peers.
    pub fn discovery(self, discovery: impl Discovery + 'static) -> Self {
        self.shared_discovery(Arc::new(discovery))
    }

    /// As [`discovery`](Self::discovery), for one that is also used elsewhere.
    pub fn shared_discovery(mut self, discovery: Arc<dyn Discovery>) -> Self {
        self.discoveries.push(discovery);
        self
    }

    /// Finds peers in the DHT by this node, reaches them and is reached. [`Online`] does the same with a blind relay, or for
    /// more than one swarm.
    pub fn dht(mut self, dht: Dht) -> Self {
        self.dht = Some(dht);
        self
    }

    /// Keeps away whoever `refuses` says, both ways. The swarm asks again about those it has forgotten, which is when
    /// [`PEERS_KNOWN_MAX`](crate::limits::PEERS_KNOWN_MAX) others were refused since.
    pub fn firewall(
        mut self,
        refuses: impl Fn(&PublicKey) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.firewall = Some(Arc::new(refuses));
        self
    }

    /// Connections sought: [`PEERS_MAX`](crate::limits::PEERS_MAX), by default.
    pub fn max_peers(mut self, peers: usize) -> Self {
        self.limits.peers_max = peers;
        self
    }

    /// Dials under way at once: [`DIALS_MAX`](crate::limits::DIALS_MAX), by default.
    pub fn max_parallel(mut self, dials: usize) -> Self {
        self.limits.dials_max = dials;
        self
    }

    /// Connections accepted: [`INBOUND_MAX`](crate::limits::INBOUND_MAX), by default.
    pub fn max_inbound(mut self, connections: usize) -> Self {
        self.limits.inbound_max = connections;
        self
    }

    /// Makes choices reproducible: for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Opens the swarm. Its connections must be taken: whom nobody takes is let go.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(mut self) -> (Swarm, Connections) {
        let seed = self.seed.unwrap_or_else(random::u64);
        let key_pair = self.key_pair.take().unwrap_or_else(KeyPair::generate);
        if let Some(dht) = self.dht.take() {
            let online = Online::new(dht, key_pair.clone(), None);
            self = self.transport(online.clone()).discovery(online);
        }
        let (out, receiver) = mpsc::channel(self.limits.peers_max.max(1) + self.limits.inbound_max);
        let (mut shared, queues) = Shared::new(key_pair, self.limits, seed, out);
        shared.transports = self.transports;
        shared.discoveries = self.discoveries;
        shared.firewall = self.firewall;
        let shared = Arc::new(shared);
        let driver = tokio::spawn(driver::run(Arc::clone(&shared), queues));
        let watching = tokio::spawn(rest::watch(Arc::clone(&shared)));
        let tasks = [driver.abort_handle(), watching.abort_handle()];
        let inner = Arc::new(Inner { shared, tasks });
        (Swarm { inner }, Connections { receiver })
    }
}

impl Swarm {
    /// Starts to describe a swarm.
    pub fn builder() -> SwarmBuilder {
        SwarmBuilder::default()
    }

    /// Joins a topic, for as long as the answer is kept. Joined several times, it is served if any session serves.
    pub fn join(&self, topic: impl Into<Topic>, options: JoinOptions) -> Session {
        let topic = topic.into();
        let id = self.shared().join(topic, options);
        Session {
            shared: Arc::downgrade(self.shared()),
            topic,
            id,
        }
    }

    /// Dials this key, found or not, until [`leave_peer`](Self::leave_peer).
    pub fn join_peer(&self, key: PublicKey) {
        self.shared().with_roster(|roster, _| roster.join_peer(key));
    }

    /// Dials this key no more, unless it is found. An open connection stays.
    pub fn leave_peer(&self, key: PublicKey) {
        self.shared()
            .with_roster(|roster, _| roster.leave_peer(key));
    }

    /// Keeps a key away, both ways, and closes its connection; or lets it come again. Each key is kept until then.
    pub fn ban(&self, key: PublicKey, is_banned: bool) {
        self.shared().ban(key, is_banned);
    }

    /// Says which keys are connected by other ways than this swarm's, as by an address that was given: they are not dialled.
    /// What was said before no longer holds.
    pub fn met_elsewhere(&self, keys: HashSet<PublicKey>) {
        self.shared()
            .with_roster(|roster, _| roster.met_elsewhere(keys));
    }

    /// Waits until every topic has been looked up, and everybody found then has been tried once.
    pub async fn flush(&self) {
        self.shared().flush().await;
    }

    /// Goes to sleep, as before the program is frozen: takes announcements back, closes all connections, dials nobody and
    /// takes nobody, and lets the transports go of their sockets. Topics stay joined. It takes at most
    /// [`SUSPEND_TIMEOUT`](crate::limits::SUSPEND_TIMEOUT) and what the transports need.
    pub async fn suspend(&self) {
        self.shared().suspend().await;
    }

    /// Wakes up: everything is announced and looked up again, and whoever is found is dialled.
    ///
    /// # Errors
    /// If a transport gets no sockets: the swarm sleeps on, and this may be tried again.
    pub async fn resume(&self) -> Result<(), ListenError> {
        self.shared().resume().await
    }

    /// Looks up and announces every topic now. The swarm does so itself when the machine is on another network, or has
    /// slept.
    pub fn refresh(&self) {
        self.shared().refresh();
    }

    /// Subscribes to what happens from now on.
    pub fn events(&self) -> SwarmEvents {
        SwarmEvents {
            events: self.shared().events.subscribe(),
        }
    }

    /// What it is about now.
    pub fn status(&self) -> Status {
        self.shared().status()
    }

    /// What a connection has carried, while it is open.
    pub fn carried(&self, connection: ConnectionId) -> Option<Carried> {
        self.shared().carried(connection)
    }

    /// The key under which peers know this swarm.
    pub fn public_key(&self) -> PublicKey {
        self.shared().key_pair.public_key()
    }

    /// Leaves all topics, takes announcements back, and closes all connections.
    pub async fn close(&self) {
        self.shared().leave_all().await;
        self.inner.shut_down();
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

impl Inner {
    fn shut_down(&self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.shut_down();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl Session {
    /// The topic.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// Leaves the topic, and waits until announcements are taken back, if no other session holds it.
    pub async fn leave(self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.leave(self.topic, self.id).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.leave_later(self.topic, self.id);
        }
    }
}

impl Connections {
    /// The next connection, or `None` when the swarm is gone.
    pub async fn next(&mut self) -> Option<Connection> {
        self.receiver.recv().await
    }

    /// Takes them all, and lets the caller talk with all peers as with one.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn gather(self) -> (Speaker, Gathering) {
        Gathering::new(self)
    }
}

impl fmt::Debug for SwarmBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwarmBuilder")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarm")
            .field("key", &self.public_key())
            .finish_non_exhaustive()
    }
}
