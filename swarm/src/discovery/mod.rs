//! How peers are found: the seam beside a swarm.
//! Knows what a swarm asks of a discovery. Does not know how to reach anybody.

mod static_list;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;
use tokio::sync::mpsc;

use crate::Topic;
use crate::target::Target;
use crate::transport::BoxFuture;

pub use static_list::StaticList;

/// What is wanted of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest {
    /// Be found under it.
    pub server: bool,
    /// Find others under it.
    pub client: bool,
}

/// Why a lookup or announcement failed; it is tried again.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct DiscoveryError(pub String);

/// Somebody whom a discovery has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) topic: Topic,
    pub(crate) discovery: &'static str,
    pub(crate) target: Target,
    pub(crate) waiting: Waiting,
}

/// Counts one who was found and has not been looked at, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Where a discovery hands in those it finds, also after its lookup is over.
#[derive(Clone)]
pub struct Finder {
    topic: Topic,
    discovery: &'static str,
    sender: mpsc::Sender<Found>,
    waiting: Arc<AtomicUsize>,
}

impl Finder {
    pub(crate) fn new(
        topic: Topic,
        discovery: &'static str,
        sender: mpsc::Sender<Found>,
        waiting: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            topic,
            discovery,
            sender,
            waiting,
        }
    }

    /// The topic that is looked up.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// Hands in a peer. Waits while the swarm is busy with others.
    pub async fn found(&self, target: Target) {
        // A swarm that is gone needs nobody.
        self.sender.send(self.entry(target)).await.ok();
    }

    /// Hands in a peer, unless the swarm is busy with others: for discoveries that will tell of it again.
    pub fn try_found(&self, target: Target) -> bool {
        self.sender.try_send(self.entry(target)).is_ok()
    }

    fn entry(&self, target: Target) -> Found {
        Found {
            topic: self.topic,
            discovery: self.discovery,
            target,
            waiting: Waiting::new(&self.waiting),
        }
    }
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finder")
            .field("topic", &self.topic)
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

/// A way to find peers, and to be found.
pub trait Discovery: Send + Sync {
    /// Its name in events.
    fn name(&self) -> &'static str;

    /// Announces and looks up a topic, as far as each is wanted; done when whoever can be found now has been.
    ///
    /// The swarm calls it again every [`REFRESH_INTERVAL`](crate::limits::REFRESH_INTERVAL), sooner while nobody who was
    /// found is connected, when the interest changes, and when the network does. Dropped, the lookup ends.
    fn refresh<'a>(
        &'a self,
        interest: Interest,
        finder: Finder,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>>;

    /// Takes announcements of a topic back, and finds nobody under it any more.
    fn leave<'a>(&'a self, topic: Topic) -> BoxFuture<'a, ()>;
}
