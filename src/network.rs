//! Finding peers for what is open: the swarm of a node.
//! Knows which cores are announced and looked up, and what is done with connections. Does not know how peers are found or
//! reached: that is `ferrocore-swarm`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ferrocore_log::Core;
use ferrocore_log::corestore::StoreFinding;
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::PublicKey;
use ferrocore_swarm::dht::{BootstrapNode, Dht};
use ferrocore_swarm::lan::{Include, Lan};
use ferrocore_swarm::{Connection, Connections, JoinOptions, Online, Swarm};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout_at;

use crate::limits::TOPICS_MAX;
use crate::node::{Hold, Shared};
use crate::tcp::attend;

/// Where a node looks for peers, and is found by them. Nowhere, unless something is chosen.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Discovery {
    /// On the local network, by multicast DNS.
    pub lan: Option<Include>,
    /// Anywhere, in the DHT.
    pub dht: Option<DhtOptions>,
}

/// How a node takes part in the DHT.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DhtOptions {
    /// The nodes to ask first; those of the public network if none are named.
    pub bootstrap: Vec<BootstrapNode>,
    /// The address to bind to; all of the machine's by default.
    pub host: Option<Ipv4Addr>,
    /// The UDP port; 49737 or one near it by default, 0 for any.
    pub port: Option<u16>,
    /// A blind relay to meet those at who cannot be reached otherwise.
    pub relay: Option<PublicKey>,
}

impl Discovery {
    /// On the local network alone.
    pub fn lan() -> Self {
        Self {
            lan: Some(Include::default()),
            dht: None,
        }
    }

    /// In the DHT alone.
    pub fn dht(options: DhtOptions) -> Self {
        Self {
            lan: None,
            dht: Some(options),
        }
    }

    /// Whether anything is chosen.
    pub fn is_none(&self) -> bool {
        self.lan.is_none() && self.dht.is_none()
    }
}

impl DhtOptions {
    fn bind(&self) -> io::Result<Dht> {
        let mut builder = Dht::builder();
        if !self.bootstrap.is_empty() {
            builder = builder.bootstrap(self.bootstrap.iter().cloned());
        }
        if let Some(host) = self.host {
            builder = builder.host(host);
        }
        if let Some(port) = self.port {
            builder = builder.port(port);
        }
        builder.bind()
    }
}

/// The swarm of a node, and the tasks that keep it busy. Dropped, it ends.
pub(crate) struct Network {
    pub(crate) swarm: Swarm,
    pub(crate) dht: Option<Dht>,
    tasks: [AbortHandle; 4],
    /// Readers wait for peers from the first moment on.
    _finding: StoreFinding,
}

impl Network {
    /// Starts to look for peers of every core that is open in the store, now or later.
    pub(crate) fn start(node: &Arc<Shared>, discovery: &Discovery) -> io::Result<Self> {
        let mut builder = Swarm::builder().key_pair(node.key_pair.clone());
        if let Some(include) = discovery.lan {
            let (transport, lan) = Lan::open(include)?;
            builder = builder.transport(transport).discovery(lan);
        }
        let mut dht = None;
        if let Some(options) = &discovery.dht {
            let node_of_dht = options.bind()?;
            let online = Online::new(node_of_dht.clone(), node.key_pair.clone(), options.relay);
            builder = builder.transport(online.clone()).discovery(online);
            dht = Some(node_of_dht);
        }
        let (swarm, connections) = builder.open();
        let attending = tokio::spawn(attend_all(node.hold(), connections));
        let joining = tokio::spawn(join_all(node.hold(), swarm.clone()));
        let sparing = tokio::spawn(spare(node.hold(), swarm.clone()));
        let banning = tokio::spawn(keep_away(node.hold(), swarm.clone()));
        Ok(Self {
            swarm,
            dht,
            tasks: [attending, joining, sparing, banning].map(|task| task.abort_handle()),
            _finding: node.store.finding(),
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Replicates over every connection that comes up.
async fn attend_all(node: Hold, mut connections: Connections) {
    // Dropped with this task, it ends those of the connections.
    let mut attending = JoinSet::new();
    while let Some(connection) = connections.next().await {
        while attending.try_join_next().is_some() {}
        let node = node.clone();
        attending.spawn(async move { replicate(&node, connection).await });
    }
    while attending.join_next().await.is_some() {}
}

async fn replicate(node: &Hold, connection: Connection) {
    let info = connection.info;
    let attended = attend(node, connection.stream, info.address, info.via).await;
    if let Err(refusal) = attended {
        tracing::debug!(?info, ?refusal, "a connection of the swarm does not stay");
    }
}

/// Keeps the swarm from dialling those who are connected by an address that was given.
async fn spare(node: Hold, swarm: Swarm) {
    let mut changes = node.peers.changes();
    loop {
        swarm.met_elsewhere(node.peers.named());
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps the swarm from meeting those who are banned, for as long as they are.
async fn keep_away(node: Hold, swarm: Swarm) {
    let mut changes = node.peers.changes();
    let mut before = HashSet::new();
    loop {
        let (now, next) = node.peers.banned();
        let now: HashSet<_> = now.into_iter().collect();
        now.difference(&before)
            .for_each(|key| swarm.ban(*key, true));
        before
            .difference(&now)
            .for_each(|key| swarm.ban(*key, false));
        before = now;
        let changed = match next {
            Some(next) => timeout_at(next, changes.changed()).await.unwrap_or(Ok(())),
            None => changes.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Joins the discovery key of every core that is opened, while the node is open.
async fn join_all(node: Hold, swarm: Swarm) {
    let mut opened = node.store.watch_opened();
    let mut joined = HashMap::new();
    let mut order: VecDeque<DiscoveryKey> = VecDeque::new();
    while let Some(core) = opened.next().await {
        let key = core.discovery_key();
        let session = swarm.join(key, wishes(&core));
        if joined.insert(key, session).is_none() {
            order.push_back(key);
        }
        if order.len() > TOPICS_MAX
            && let Some(oldest) = order.pop_front()
        {
            joined.remove(&oldest);
        }
    }
}

/// Who writes a core, and has all of it, needs nobody, but to be found.
fn wishes(core: &Core) -> JoinOptions {
    let is_all_ours = core.is_writable() && !core.is_guarded();
    JoinOptions {
        client: !is_all_ours,
        ..JoinOptions::default()
    }
}
