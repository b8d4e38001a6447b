//! What the tasks of a node share: its store, its peers, its limits, and whether it is awake.
//! Knows what they need of the node. Does not know the tasks.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use ferrocore_log::Corestore;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::session::SessionOptions;
use ferrocore_secret_stream::SecretStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::known_nodes::KnownNodes;
use crate::network::DhtOptions;
use crate::peers::Peers;
use crate::throttle::{Limits, Throttled};

/// What the tasks of a node share.
pub(crate) struct Shared {
    pub(crate) store: Corestore,
    pub(crate) key_pair: KeyPair,
    pub(crate) peers: Peers,
    pub(crate) limits: Limits,
    /// Where the store may be written to.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) closing: watch::Sender<bool>,
    /// Whether the node sleeps.
    pub(crate) resting: watch::Sender<bool>,
}

/// A task's hold on its node, which [`Node::close`] waits for: then nothing keeps the store open any more.
#[derive(Clone)]
pub(crate) struct Hold {
    // Fields are dropped in this order: the store is let go before anybody hears of it.
    shared: Arc<Shared>,
    _waited_for: watch::Receiver<bool>,
}

impl Shared {
    /// For a task to keep.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        Hold {
            shared: Arc::clone(self),
            _waited_for: self.closing.subscribe(),
        }
    }

    /// Replicates the store over a stream, whatever carries it: the one place where the node's limits are put on streams.
    pub(crate) fn session<T>(&self, stream: SecretStream<T>, options: SessionOptions) -> Session
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let store = self.store.clone();
        if self.limits.is_none() {
            return Session::spawn(stream, store, options);
        }
        let stream = stream.map_io(|io| Throttled::new(io, self.limits.clone()));
        Session::spawn(stream, store, options)
    }

    /// What is known of the DHT from earlier, if the node has a directory.
    pub(crate) fn known_nodes(&self, options: &DhtOptions) -> Option<KnownNodes> {
        let dir = self.dir.as_ref()?;
        Some(KnownNodes::new(dir, &options.bootstrap))
    }

    /// Waits until the node closes.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as `self`.
        self.closing
            .subscribe()
            .wait_for(|closing| *closing)
            .await
            .ok();
    }

    /// Waits until the node closes or sleeps.
    pub(crate) async fn parted(&self) {
        let mut resting = self.resting.subscribe();
        tokio::select! {
            () = self.closed() => {}
            _ = resting.wait_for(|resting| *resting) => {}
        }
    }

    /// Waits until the node is awake, or closes.
    pub(crate) async fn awake(&self) {
        let mut resting = self.resting.subscribe();
        tokio::select! {
            () = self.closed() => {}
            _ = resting.wait_for(|resting| !*resting) => {}
        }
    }

    /// Whether the node sleeps.
    pub(crate) fn is_resting(&self) -> bool {
        *self.resting.borrow()
    }

    /// Whether the node closes, or has closed.
    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Does `work` until the node closes.
    pub(crate) async fn until_closed(&self, work: impl Future<Output = ()>) {
        tokio::select! {
            () = work => {}
            () = self.closed() => {}
        }
    }
}

impl Deref for Hold {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}
