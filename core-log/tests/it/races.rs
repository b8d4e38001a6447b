//! Goal: who reads while somebody else changes the core gets the state before or after, and an
//! error only if something is wrong.
//! Method: a storage that lets the change happen in the middle of a read.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::common::ready;
use crate::rig::proofs::follow;
use bytes::Bytes;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::storage::{
    CoreHeader, CoreStorage, CoreWrite, Head, OpenedCore, Storage as _, StorageError,
};
use ferrocore_log::{Core, CoreError, Corestore, Durability, Manifest};
use ferrocore_primitives::sign::KeyPair;

type Change = Box<dyn FnOnce() + Send>;
type Look = Box<dyn FnMut() + Send>;

/// Memory storage that looks at something before it reads a node, makes a change, once, before it reads a block, does something,
/// once, when a commit is written but not known, hides a node, and reads a block as zeros, once.
struct Interposed {
    inner: Arc<dyn CoreStorage>,
    before_node: Arc<Mutex<Option<Look>>>,
    before_block: Arc<Mutex<Option<Change>>>,
    after_commit: Arc<Mutex<Option<Change>>>,
    hidden: Arc<Mutex<Option<u64>>>,
    garbled: Arc<Mutex<bool>>,
}

impl CoreStorage for Interposed {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        if let Some(look) = &mut *self.before_node.lock().unwrap() {
            look();
        }
        let is_hidden = *self.hidden.lock().unwrap() == Some(index);
        Ok(self.inner.node(index)?.filter(|_| !is_hidden))
    }

    fn block(&self, byte_offset: u64, size: usize) -> Result<Bytes, StorageError> {
        let change = self.before_block.lock().unwrap().take();
        change.into_iter().for_each(|change| change());
        match std::mem::take(&mut *self.garbled.lock().unwrap()) {
            true => Ok(Bytes::from(vec![0; size])),
            false => self.inner.block(byte_offset, size),
        }
    }

    fn commit(&self, write: CoreWrite, durability: Durability) -> Result<(), StorageError> {
        self.inner.commit(write, durability)?;
        let change = self.after_commit.lock().unwrap().take();
        change.into_iter().for_each(|change| change());
        Ok(())
    }

    fn flush(&self, durability: Durability) -> Result<(), StorageError> {
        self.inner.flush(durability)
    }
}

struct Rig {
    core: Core,
    before_node: Arc<Mutex<Option<Look>>>,
    before_block: Arc<Mutex<Option<Change>>>,
    after_commit: Arc<Mutex<Option<Change>>>,
    hidden: Arc<Mutex<Option<u64>>>,
    garbled: Arc<Mutex<bool>>,
}

impl Rig {
    /// A writable core of eight blocks of one byte.
    fn new() -> Self {
        let key_pair = KeyPair::from_seed(&[1; 32]);
        let manifest = Manifest::single(key_pair.public_key());
        let header = CoreHeader {
            key: manifest.key(),
            manifest: Some(manifest),
            key_pair: Some(key_pair),
            user_data: Default::default(),
            head: Head::empty(),
        };
        let opened = Memory::new().create(header).unwrap();
        let (before_node, before_block, after_commit) = <_>::default();
        let (hidden, garbled) = (Arc::default(), Arc::default());
        let storage = Arc::new(Interposed {
            inner: opened.storage,
            before_node: Arc::clone(&before_node),
            before_block: Arc::clone(&before_block),
            after_commit: Arc::clone(&after_commit),
            hidden: Arc::clone(&hidden),
            garbled: Arc::clone(&garbled),
        });
        let opened = OpenedCore { storage, ..opened };
        let core = Core::open(opened, None, Durability::Buffered).unwrap();
        core.append_batch((0..8).map(|i| Bytes::from(vec![i])).collect())
            .unwrap();
        Self {
            core,
            before_node,
            before_block,
            after_commit,
            hidden,
            garbled,
        }
    }

    fn before_block(&self, change: impl FnOnce(&Core) + Send + 'static) {
        let core = self.core.clone();
        *self.before_block.lock().unwrap() = Some(Box::new(move || change(&core)));
    }
}

fn rewrite(core: &Core) {
    core.truncate(4, None).unwrap();
    core.append("longer than before").unwrap();
    core.append("and one more").unwrap();
}

/// Goal: what a cut reads, which may fail and take a while, it reads before any view is told that it is cut.
/// Method: another history, whose nodes that both share are read to tell what the cut frees.
#[test]
fn views_are_whole_while_a_cut_reads() {
    let (rig, source) = (Rig::new(), Rig::new().core);
    rewrite(&source);
    source.append_batch(vec![Bytes::new(); 8]).unwrap();
    let (view, reads) = (rig.core.snapshot(), Arc::new(AtomicUsize::new(0)));
    let (seen, count) = (view.clone(), Arc::clone(&reads));
    *rig.before_node.lock().unwrap() = Some(Box::new(move || {
        assert_eq!(seen.compat_length(), 8);
        count.fetch_add(1, Ordering::Relaxed);
    }));
    assert!(follow(&rig.core, &source, usize::MAX).unwrap());
    assert!(reads.load(Ordering::Relaxed) > 0);
    *rig.before_node.lock().unwrap() = None;
    assert_eq!((view.compat_length(), rig.core.length()), (4, 14));
}

#[test]
fn a_block_that_is_cleared_while_it_is_read_is_not_here() {
    let rig = Rig::new();
    rig.before_block(|core| core.clear(5..6).unwrap());
    assert_eq!(rig.core.get_local(5).unwrap(), None);
}

/// Goal: a block that is cleared, and fetched again, while it is read is what it always was. Where the bytes
/// lay, others lay in between.
#[test]
fn a_block_that_comes_again_while_it_is_read_is_what_it_was() {
    let rig = Rig::new();
    let block = NodeRequest { index: 5, nodes: 0 };
    let request = ProofRequest {
        block: Some(block),
        ..ProofRequest::default()
    };
    for reads_snapshot in [false, true] {
        let proof = rig.core.prove(&request).unwrap().unwrap();
        let garbled = Arc::clone(&rig.garbled);
        rig.before_block(move |core| {
            core.clear(5..6).unwrap();
            core.accept(proof).unwrap();
            *garbled.lock().unwrap() = true; // what was read was read before that
        });
        let found = match reads_snapshot {
            true => rig.core.snapshot().get_local(5),
            false => rig.core.get_local(5),
        };
        assert_eq!(found.unwrap().unwrap(), vec![5]);
        assert!(!*rig.garbled.lock().unwrap());
    }
}

#[test]
fn a_block_that_is_replaced_while_it_is_read_is_the_new_one() {
    let rig = Rig::new();
    rig.before_block(rewrite);
    assert_eq!(rig.core.get_local(5).unwrap().unwrap(), "and one more");
    assert_eq!(rig.core.get_local(7).unwrap(), None);
}

#[test]
fn a_snapshot_never_reads_a_block_of_the_history_that_comes_next() {
    let rig = Rig::new();
    let snapshot = rig.core.snapshot();
    rig.before_block(rewrite);
    let gone = snapshot.get_local(5);
    let not_available = matches!(
        gone,
        Err(CoreError::SnapshotNotAvailable {
            index: 5,
            compat_length: 4,
            ..
        })
    );
    assert!(not_available, "{gone:?}");
    assert_eq!(snapshot.get_local(3).unwrap().unwrap(), vec![3]);
    // A block of the same bytes at the same place is another one all the same.
    let snapshot = rig.core.snapshot();
    rig.before_block(|core| {
        core.truncate(5, None).unwrap();
        core.append("and one more").unwrap();
    });
    let gone = snapshot.get_local(5);
    assert!(
        matches!(gone, Err(CoreError::SnapshotNotAvailable { .. })),
        "{gone:?}"
    );
}

#[test]
fn a_snapshot_taken_between_two_histories_knows_what_both_share() {
    let rig = Rig::new();
    let (core, (sender, taken)) = (rig.core.clone(), std::sync::mpsc::channel());
    *rig.after_commit.lock().unwrap() = Some(Box::new(move || {
        sender.send(core.snapshot()).unwrap();
    }));
    rig.core.truncate(4, None).unwrap();
    let snapshot = taken.recv().unwrap();
    assert_eq!((snapshot.length(), snapshot.compat_length()), (8, 4));
    assert_eq!(snapshot.get_local(3).unwrap().unwrap(), vec![3]);
}

#[test]
fn a_seek_in_a_snapshot_counts_no_byte_of_the_history_that_comes_next() {
    let rig = Rig::new();
    let snapshot = rig.core.snapshot();
    assert_eq!(snapshot.seek_local(6).unwrap(), Some((6, 0)));
    rewrite(&rig.core);
    assert_eq!(snapshot.seek_local(3).unwrap(), Some((3, 0)));
    let gone = snapshot.seek_local(6);
    assert!(
        matches!(gone, Err(CoreError::SnapshotNotAvailable { .. })),
        "{gone:?}"
    );
    assert_eq!(rig.core.seek_local(6).unwrap(), Some((4, 2)));
}

#[test]
fn no_proof_is_of_two_histories() {
    let rig = Rig::new();
    rig.before_block(rewrite);
    let block = NodeRequest { index: 5, nodes: 1 };
    let request = ProofRequest {
        block: Some(block),
        ..ProofRequest::default()
    };
    assert_eq!(rig.core.prove(&request).unwrap(), None);
}

#[test]
fn no_proof_is_made_between_two_histories() {
    // Goal: storage has the new history, readers do not know it yet: nothing is proven from either.
    let rig = Rig::new();
    let block = NodeRequest { index: 1, nodes: 3 };
    let request = ProofRequest {
        block: Some(block),
        ..ProofRequest::default()
    };
    assert!(rig.core.prove(&request).unwrap().is_some());
    let (core, asked) = (rig.core.clone(), request.clone());
    let (sender, proven) = std::sync::mpsc::channel();
    *rig.after_commit.lock().unwrap() = Some(Box::new(move || {
        sender.send(core.prove(&asked)).unwrap();
    }));
    rig.core.truncate(4, None).unwrap();
    assert_eq!(proven.recv().unwrap().unwrap(), None);
}

#[test]
fn a_wait_for_a_block_ends_when_the_log_is_cut_before_it() {
    let Rig { core, .. } = Rig::new();
    core.clear(5..6).unwrap();
    let _finding = core.finding();
    let mut waiting = pin!(core.get(5));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    core.truncate(4, None).unwrap();
    let ended = waiting.as_mut().poll(&mut context);
    let out_of_bounds = matches!(
        ended,
        Poll::Ready(Err(CoreError::OutOfBounds { length: 4, .. }))
    );
    assert!(out_of_bounds, "{ended:?}");
}

#[test]
fn a_seek_through_a_damaged_tree_fails_instead_of_going_round() {
    let rig = Rig::new();
    *rig.hidden.lock().unwrap() = Some(3);
    let sought = ready(rig.core.seek(1));
    assert!(
        matches!(sought, Err(CoreError::CorruptBlock { .. })),
        "{sought:?}"
    );
}

#[test]
fn fork_and_length_are_of_one_moment() {
    // Goal: who tells a peer where the log is never tells of one fork with the length of another.
    // Method: each truncate takes one block away, so the two always make the same sum. Now and then it waits for a look.
    const LENGTH: u64 = 300;
    let core = Corestore::memory().get_named("cut").unwrap();
    core.append_batch(vec![Bytes::from_static(b"x"); 300])
        .unwrap();
    let looks = AtomicUsize::new(0);
    let (mut between, mut mixed) = (0, None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for length in (1..LENGTH).rev() {
                core.truncate(length, None).unwrap();
                let next = looks.load(Ordering::SeqCst).saturating_add(2);
                while length % 30 == 2 && looks.load(Ordering::SeqCst) < next {
                    std::thread::yield_now();
                }
            }
        });
        loop {
            let (fork, length) = core.fork_and_length();
            looks.fetch_add(1, Ordering::SeqCst);
            if fork + length != LENGTH {
                mixed = Some((fork, length));
                looks.store(usize::MAX, Ordering::SeqCst); // who waits for a look waits no more
                break;
            }
            between += usize::from(1 < length && length < LENGTH);
            if length == 1 {
                break;
            }
        }
    });
    assert_eq!(mixed, None, "fork and length");
    assert!(between >= 10);
}
