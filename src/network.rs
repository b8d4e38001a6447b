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
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{timeout, timeout_at};

use crate::known_nodes::KnownNodes;
use crate::limits::{LEAVE_TIMEOUT, TOPICS_MAX};
use crate::shared::{Hold, Shared};
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
    fn bind(&self, known: Option<&KnownNodes>) -> io::Result<Dht> {
        let mut builder = Dht::builder();
        if let Some(known) = known {
            builder = builder.nodes(known.load());
        }
        if !self.bootstrap.is_empty() {
            builder = builder.bootstrap(self.bootstrap.iter().cloned());
        }
        if let Some(host) = self.host {
            builder = builder.host(host);
        }
        if let Some(port) = self.port {
            builder = builder.port(port).any_port(false);
        }
        builder.bind()
    }
}

/// The swarm of a node, and the tasks that keep it busy. Dropped, it ends.
pub(crate) struct Network {
    pub(crate) swarm: Swarm,
    pub(crate) dht: Option<Dht>,
    /// Where the nodes of the DHT are remembered, if there is a store to do so.
    known: Option<KnownNodes>,
    tasks: Vec<AbortHandle>,
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
        let (mut dht, mut known) = (None, None);
        if let Some(options) = &discovery.dht {
            known = node.known_nodes(options);
            let bound = options.bind(known.as_ref())?;
            let online = Online::new(bound.clone(), node.key_pair.clone(), options.relay);
            builder = builder.transport(online.clone()).discovery(online);
            dht = Some(bound);
        }
        let (swarm, connections) = builder.open();
        let attending = tokio::spawn(attend_all(node.hold(), connections));
        let joining = tokio::spawn(join_all(node.hold(), swarm.clone()));
        let sparing = tokio::spawn(spare(node.hold(), swarm.clone()));
        let banning = tokio::spawn(keep_away(node.hold(), swarm.clone()));
        let mut tasks = vec![attending, joining, sparing, banning];
        if let (Some(dht), Some(known)) = (dht.clone(), known.clone()) {
            tasks.push(tokio::spawn(async move { known.keep(&dht).await }));
        }
        Ok(Self {
            swarm,
            dht,
            known,
            tasks: tasks.iter().map(JoinHandle::abort_handle).collect(),
            _finding: node.store.finding(),
        })
    }

    /// Takes announcements back, and notes which nodes of the DHT there are for the next time.
    pub(crate) async fn close(&self) {
        if let (Some(dht), Some(known)) = (&self.dht, &self.known) {
            known.save(dht).await;
        }
        timeout(LEAVE_TIMEOUT, self.swarm.close()).await.ok();
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
    let mut joined = Joined::new();
    while let Some(core) = opened.next().await {
        let key = core.discovery_key();
        joined.enter(key, swarm.join(key, wishes(&core)));
    }
}

/// The topics of the cores that were opened last.
struct Joined<S> {
    sessions: HashMap<DiscoveryKey, S>,
    /// By when they were opened the last time.
    order: VecDeque<DiscoveryKey>,
}

impl<S> Joined<S> {
    fn new() -> Self {
        Self {
            sessions: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Leaves the topic of the core that was opened longest ago, if this one is one too many.
    fn enter(&mut self, key: DiscoveryKey, session: S) {
        if self.sessions.insert(key, session).is_some() {
            self.order.retain(|other| *other != key);
        }
        self.order.push_back(key);
        if self.order.len() > TOPICS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_opened_again_is_among_those_opened_last() {
        let key = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            DiscoveryKey::from(bytes)
        };
        let mut joined = Joined::new();
        for n in (0..TOPICS_MAX).chain([0, TOPICS_MAX]) {
            joined.enter(key(n), ());
        }
        assert_eq!(joined.sessions.len(), TOPICS_MAX);
        let is_joined = [0, 1, TOPICS_MAX].map(|n| joined.sessions.contains_key(&key(n)));
        assert_eq!(is_joined, [true, false, true]);
    }
}
