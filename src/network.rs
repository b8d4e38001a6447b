//! Finding peers for what is open: the swarm of a node.
//! Knows which cores are announced and looked up, and what is done with connections. Does not know how peers are found or
//! reached: that is `ferrocore-swarm`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use ferrocore_log::Core;
use ferrocore_log::corestore::StoreFinding;
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_swarm::lan::{Include, Lan};
use ferrocore_swarm::{Connection, Connections, JoinOptions, Swarm};
use tokio::task::{AbortHandle, JoinSet};

use crate::limits::TOPICS_MAX;
use crate::node::Shared;
use crate::tcp::{attend, open_session};

/// Where a node looks for peers, and is found by them. Nowhere, unless something is chosen.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Discovery {
    /// On the local network, by multicast DNS.
    pub lan: Option<Include>,
}

impl Discovery {
    /// On the local network alone.
    pub fn lan() -> Self {
        Self {
            lan: Some(Include::default()),
        }
    }

    /// Whether anything is chosen.
    pub fn is_none(&self) -> bool {
        self.lan.is_none()
    }
}

/// The swarm of a node, and the tasks that keep it busy. Dropped, it ends.
pub(crate) struct Network {
    pub(crate) swarm: Swarm,
    tasks: [AbortHandle; 2],
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
        let (swarm, connections) = builder.open();
        let attending = tokio::spawn(attend_all(node.clone(), connections));
        let joining = tokio::spawn(join_all(node.clone(), swarm.clone()));
        Ok(Self {
            swarm,
            tasks: [attending.abort_handle(), joining.abort_handle()],
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
async fn attend_all(node: Arc<Shared>, mut connections: Connections) {
    // Dropped with this task, it ends those of the connections.
    let mut attending = JoinSet::new();
    while let Some(connection) = connections.next().await {
        while attending.try_join_next().is_some() {}
        let node = Arc::clone(&node);
        attending.spawn(async move { replicate(&node, connection).await });
    }
    while attending.join_next().await.is_some() {}
}

async fn replicate(node: &Shared, connection: Connection) {
    let info = connection.info;
    let session = open_session(node, connection.stream);
    attend(node, session, info.address, info.is_initiator, info.via).await;
}

/// Joins the discovery key of every core that is opened, while the node is open.
async fn join_all(node: Arc<Shared>, swarm: Swarm) {
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
