//! Goal: an audit reads a little at a time, however much lies below what is damaged: others append in between.
//! Method: the reads of nodes are counted from one step of progress to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rig::{header, key_pair};
use bytes::Bytes;
use ferrocore_log::audit::{Mode, Step};
use ferrocore_log::merkle::Node;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::storage::{CoreStorage, CoreWrite, Storage as _, StorageError};
use ferrocore_log::{Core, Durability};

const BLOCKS: u64 = 1 << 15;
/// Most nodes that may be read between two steps of progress.
const AT_ONCE_MAX: u64 = 5_000;

/// Counts how many nodes are read.
struct Counting {
    storage: Arc<dyn CoreStorage>,
    reads: Arc<AtomicU64>,
}

impl CoreStorage for Counting {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.storage.node(index)
    }

    fn block(&self, byte_offset: u64, size: usize) -> Result<Bytes, StorageError> {
        self.storage.block(byte_offset, size)
    }

    fn commit(&self, write: CoreWrite, durability: Durability) -> Result<(), StorageError> {
        self.storage.commit(write, durability)
    }

    fn flush(&self, durability: Durability) -> Result<(), StorageError> {
        self.storage.flush(durability)
    }
}

#[test]
fn a_damaged_node_is_searched_below_in_turns() {
    let memory = Memory::new();
    let opened = memory.create(header()).unwrap();
    let core = Core::open(opened, Some(key_pair()), Durability::Buffered).unwrap();
    let block = |i: u64| Bytes::copy_from_slice(&i.to_le_bytes()[..3]);
    core.append_batch((0..BLOCKS).map(block).collect()).unwrap();
    // A child of the root, and both of its own: all that is below has to tell what it was.
    let wrong = [BLOCKS / 2 - 1, BLOCKS / 4 - 1, BLOCKS / 4 * 3 - 1];
    let mut opened = memory.open(&core.discovery_key()).unwrap().unwrap();
    let damage = |index: u64| {
        let node = opened.storage.node(index).unwrap().unwrap();
        let hash = Node::leaf(0, b"another").hash;
        Node { hash, ..node }
    };
    let write = CoreWrite {
        nodes: wrong.map(damage).to_vec(),
        ..CoreWrite::default()
    };
    drop(core);
    opened.storage.commit(write, Durability::Buffered).unwrap();
    let reads = Arc::new(AtomicU64::new(0));
    opened.storage = Arc::new(Counting {
        storage: opened.storage,
        reads: Arc::clone(&reads),
    });
    let core = Core::open(opened, Some(key_pair()), Durability::Buffered).unwrap();
    let (mut most, mut all) = (0, 0);
    reads.store(0, Ordering::Relaxed);
    let report = core.audit(Mode::Repair, |step| {
        if let Step::Progress { .. } = step {
            let now = reads.swap(0, Ordering::Relaxed);
            (most, all) = (now.max(most), all + now);
        }
    });
    let report = report.unwrap();
    assert_eq!((report.bad, report.mendable, report.blocks), (3, 3, BLOCKS));
    assert!(most <= AT_ONCE_MAX, "{most} nodes were read at once");
    assert!(all > 2 * BLOCKS, "{all} nodes were read");
    assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
}
