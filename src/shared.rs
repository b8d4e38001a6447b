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
    pub(crate) fn session<T>(&self, stream: SecretStream<T>, mut options: SessionOptions) -> Session
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let store = self.store.clone();
        if self.limits.is_none() {
            return Session::spawn(stream, store, options);
        }
        self.limits.excuse(&mut options.frame_budgets);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BAN_TIME;
    use crate::throttle::Bucket;
    use ferrocore_log::Core;
    use ferrocore_secret_stream::budget::FRAME_BUDGET;
    use ferrocore_secret_stream::{FrameBudgets, Options, Role};
    use tokio::time::Instant;

    const RATE: u64 = 80_000;
    const LEN: usize = 10 << 20;

    /// A node with a limit for each direction.
    fn node(up: Option<u64>, down: Option<u64>) -> Shared {
        let key_pair = KeyPair::generate();
        let bucket = |rate: Option<u64>| rate.map(|rate| Arc::new(Bucket::new(rate)));
        Shared {
            store: Corestore::memory(),
            peers: Peers::new(key_pair.public_key(), BAN_TIME),
            key_pair,
            limits: Limits {
                up: bucket(up),
                down: bucket(down),
            },
            dir: None,
            closing: watch::Sender::new(false),
            resting: watch::Sender::new(false),
        }
    }

    fn long_blocks(node: &Shared, count: usize) -> Core {
        let core = node.store.get_named("long").unwrap();
        let blocks = (0..count).map(|_| vec![7; LEN].into()).collect();
        core.append_batch(blocks).unwrap();
        core
    }

    /// Connects two nodes that have `budgets` of their own for long frames.
    async fn connect(here: &Shared, there: &Shared, budgets: [&FrameBudgets; 2]) -> [Session; 2] {
        let (near, far) = tokio::io::duplex(1 << 16);
        let pair = [(); 2].map(|()| KeyPair::generate());
        let (near, far) = tokio::join!(
            SecretStream::handshake(near, Role::Responder, &pair[0], Options::default()),
            SecretStream::handshake(far, Role::Initiator, &pair[1], Options::default()),
        );
        let options = budgets.map(|budgets| SessionOptions {
            frame_budgets: budgets.clone(),
            ..SessionOptions::default()
        });
        let [ours, theirs] = options;
        [
            here.session(near.unwrap(), ours),
            there.session(far.unwrap(), theirs),
        ]
    }

    fn seconds_for(blocks: usize) -> f64 {
        (blocks * LEN) as f64 / RATE as f64
    }

    /// Goal: blocks of 10 MiB get through a slow limit also to several at once, whether there is room for one of them at a time or
    /// for all, which then share it. Method: virtual time.
    #[tokio::test(start_paused = true)]
    async fn long_blocks_get_to_several_through_a_slow_limit() {
        for budget in [0, FRAME_BUDGET] {
            let writer = node(Some(RATE), None);
            let core = long_blocks(&writer, 1);
            let budgets = FrameBudgets::new(budget);
            let fetch = || fetch(&writer, &core, &budgets, None);
            let start = Instant::now();
            let (a, b, c) = tokio::join!(fetch(), fetch(), fetch());
            for stats in [a, b, c] {
                assert_eq!(stats.bytes_downloaded, LEN as u64);
                assert!(stats.long_bytes_received < 2 * LEN as u64, "{stats:?}");
            }
            let seconds = start.elapsed().as_secs_f64();
            let expected = seconds_for(3);
            assert!(
                (expected - 1.0..expected + 5.0).contains(&seconds),
                "{seconds}"
            );
        }
    }

    /// Goal: a long block gets through a limit that others with short ones share, too.
    #[tokio::test(start_paused = true)]
    async fn a_long_block_gets_through_beside_short_ones() {
        let writer = node(Some(RATE), None);
        let core = long_blocks(&writer, 1);
        let short = writer.store.get_named("short").unwrap();
        let blocks = (0..1000).map(|_| vec![8; 30_000].into()).collect();
        short.append_batch(blocks).unwrap();
        let budgets = FrameBudgets::new(FRAME_BUDGET);
        let others = || fetch(&writer, &short, &budgets, None);
        let (stats, _, _, _) = tokio::join!(
            fetch(&writer, &core, &budgets, None),
            others(),
            others(),
            others()
        );
        assert!(stats.long_bytes_received < 2 * LEN as u64, "{stats:?}");
    }

    /// Has a reader of its own, with a limit perhaps, fetch all of `core`; returns what came.
    async fn fetch(
        writer: &Shared,
        core: &Core,
        budgets: &FrameBudgets,
        down: Option<u64>,
    ) -> ferrocore_replication::stats::Stats {
        let reader = node(None, down);
        let own = FrameBudgets::new(0);
        let [_ours, session] = connect(writer, &reader, [budgets, &own]).await;
        let core = reader.store.get(&core.key()).unwrap();
        session.attach(&core);
        core.download_all().caught_up().await.unwrap();
        session.stats()
    }

    /// Goal: whoever downloads slowly, by its own choice or the writer's, asks for no block twice: one takes longer than a silent
    /// peer is waited for, and several that are in flight longer than a request may take in all. Method: virtual time.
    #[tokio::test(start_paused = true)]
    async fn a_long_block_that_is_arriving_is_waited_for() {
        const BLOCKS: usize = 4;
        for rate in [RATE, RATE / 6] {
            for (up, down) in [(Some(rate), None), (None, Some(rate))] {
                let writer = node(up, None);
                let core = long_blocks(&writer, BLOCKS);
                let start = Instant::now();
                let stats = fetch(&writer, &core, &FrameBudgets::new(0), down).await;
                assert_eq!(stats.blocks_downloaded, BLOCKS as u64);
                assert_eq!(stats.requests_timed_out, 0);
                assert!(stats.long_bytes_received >= (BLOCKS * LEN) as u64);
                let seconds = start.elapsed().as_secs_f64();
                let expected = seconds_for(BLOCKS) * RATE as f64 / rate as f64;
                assert!(seconds <= expected + 5.0, "{seconds}");
            }
        }
    }

    /// Goal: peers with slow lines do not cost each other their connections, though more want long blocks than there is room for.
    /// Method: virtual time, and the budget of a process.
    #[tokio::test(start_paused = true)]
    async fn slow_readers_of_long_blocks_wait_for_each_other() {
        const BLOCKS: usize = 2;
        let writer = node(None, None);
        let core = long_blocks(&writer, BLOCKS);
        let budgets = FrameBudgets::new(FRAME_BUDGET);
        let fetch = || fetch(&writer, &core, &budgets, Some(3 * RATE));
        let (a, b, c, d, e) = tokio::join!(fetch(), fetch(), fetch(), fetch(), fetch());
        for stats in [a, b, c, d, e] {
            assert!(stats.long_bytes_received < ((BLOCKS + 1) * LEN) as u64);
        }
    }
}
