//! Goal: whatever a reader may ask, in whatever order, it ends with the writer's log, and no
//! changed byte of a proof gets in.
//! Method: property tests over memory stores, with the tree's definition as the twin.

use crate::common::ready;
use bytes::Bytes;
use ferrocore_log::core::AcceptError;
use ferrocore_log::events::Event;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, CoreError, Corestore, flat_tree};
use ferrocore_primitives::hash;
use proptest::prelude::*;

fn writer(blocks: &[Vec<u8>]) -> Core {
    let core = Corestore::memory().get_named("writer").unwrap();
    let blocks = blocks
        .iter()
        .map(|block| Bytes::from(block.clone()))
        .collect();
    core.append_batch(blocks).unwrap();
    core
}

fn reader_of(core: &Core) -> Core {
    Corestore::memory().get(&core.key()).unwrap()
}

fn upgrade(reader: &Core, to: u64) -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: reader.length(),
            length: to - reader.length(),
        }),
        manifest: true,
        ..ProofRequest::default()
    }
}

fn block(reader: &Core, index: u64) -> ProofRequest {
    let nodes = reader.missing_nodes(2 * index).unwrap();
    ProofRequest {
        block: Some(NodeRequest { index, nodes }),
        ..ProofRequest::default()
    }
}

/// The tree by its definition.
fn node_twin(blocks: &[Vec<u8>], index: u64) -> Node {
    match flat_tree::children(index) {
        None => Node::leaf(index / 2, &blocks[(index / 2) as usize]),
        Some((left, right)) => {
            let (left, right) = (node_twin(blocks, left), node_twin(blocks, right));
            Node {
                index,
                size: left.size + right.size,
                hash: hash::parent(left.size, &left.hash, right.size, &right.hash),
            }
        }
    }
}

fn blocks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_tree_equals_its_definition(blocks in blocks()) {
        let core = writer(&blocks);
        let length = blocks.len() as u64;
        let roots = flat_tree::full_roots(length).map(|root| node_twin(&blocks, root));
        prop_assert_eq!(core.tree_hash(), hash::tree(roots.map(|n| (n.index, n.size, n.hash))));
        let starts = blocks.iter().scan(0, |end, block| {
            let start = *end;
            *end += block.len() as u64;
            Some(start)
        });
        let starts: Vec<u64> = starts.chain([core.byte_length()]).collect();
        for (index, block) in blocks.iter().enumerate() {
            prop_assert_eq!(core.get_local(index as u64).unwrap().unwrap(), block.clone());
            // Among empty blocks at one place, which is found depends on the tree's shape.
            let (found, offset) = core.seek_local(starts[index]).unwrap().unwrap();
            prop_assert_eq!((starts[found as usize], offset), (starts[index], 0));
            if block.len() > 1 {
                prop_assert_eq!(core.seek_local(starts[index] + 1).unwrap(), Some((index as u64, 1)));
            }
        }
    }

    #[test]
    fn a_sparse_reader_ends_with_the_log(
        blocks in blocks(),
        order in any::<proptest::sample::Index>(),
        steps in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 0..60),
    ) {
        let writer = writer(&blocks);
        let reader = reader_of(&writer);
        let first = order.index(blocks.len()) as u64 + 1;
        reader.accept(writer.prove(&upgrade(&reader, first)).unwrap().unwrap()).unwrap();
        // The signature covers the whole log, so an upgrade to less brings all of it.
        prop_assert_eq!(reader.length(), writer.length());
        prop_assert_eq!(reader.tree_hash(), writer.tree_hash());
        for (index, two) in steps {
            let index = index.index(blocks.len()) as u64;
            let proof = writer.prove(&block(&reader, index)).unwrap().unwrap();
            let mut changeset = reader.changeset();
            let mut proofs = vec![proof.clone()];
            if two { proofs.push(proof); }
            for result in reader.verify_into(&mut changeset, proofs) { result.unwrap(); }
            reader.commit(changeset).unwrap();
            prop_assert_eq!(reader.get_local(index).unwrap().unwrap(), blocks[index as usize].clone());
        }
        for index in 0..writer.length() {
            if !reader.has(index) {
                let accepted = reader.accept(writer.prove(&block(&reader, index)).unwrap().unwrap()).unwrap();
                prop_assert_eq!(accepted.blocks, vec![index]);
            }
        }
        prop_assert_eq!(reader.contiguous_length(), writer.length());
    }

    #[test]
    fn growth_is_followed_from_any_length(blocks in blocks(), cuts in proptest::collection::vec(1usize..6, 1..10)) {
        let writer = Corestore::memory().get_named("writer").unwrap();
        let reader = reader_of(&writer);
        let mut rest = blocks.iter().cycle();
        for cut in cuts {
            let batch = rest.by_ref().take(cut).map(|b| Bytes::from(b.clone())).collect();
            writer.append_batch(batch).unwrap();
            let mut request = upgrade(&reader, writer.length());
            let newest = writer.length() - 1;
            request.block = Some(NodeRequest { index: newest, nodes: 0 });
            let accepted = reader.accept(writer.prove(&request).unwrap().unwrap()).unwrap();
            prop_assert_eq!(accepted.blocks, vec![newest]);
            prop_assert_eq!(reader.tree_hash(), writer.tree_hash());
        }
    }

    /// A change anywhere is refused, or is one that proves the same (a leaf size that nothing
    /// was derived from does not exist here: all sizes are bound by the signed roots).
    #[test]
    fn a_changed_proof_is_refused(
        blocks in blocks(),
        target in any::<proptest::sample::Index>(),
        change in any::<proptest::sample::Index>(),
    ) {
        let writer = writer(&blocks);
        let reader = reader_of(&writer);
        let mut request = upgrade(&reader, writer.length());
        let index = target.index(blocks.len()) as u64;
        request.block = Some(NodeRequest { index, nodes: 0 });
        let proof = writer.prove(&request).unwrap().unwrap();
        let changed = changes(&proof);
        let changed = change.get(&changed);
        prop_assert!(matches!(reader.accept(changed.clone()), Err(AcceptError::Verify(_))), "{changed:?}");
        prop_assert_eq!(reader.length(), 0);
        prop_assert!(!reader.has(index));
        reader.accept(proof).unwrap();
    }
}

/// Every proof that differs from `proof` in one place.
fn changes(proof: &Proof) -> Vec<Proof> {
    let mut all = Vec::new();
    let mut change = |edit: &dyn Fn(&mut Proof)| {
        let mut changed = proof.clone();
        edit(&mut changed);
        all.push(changed);
    };
    change(&|p| p.fork += 1);
    change(&|p| p.manifest = None);
    change(&|p| p.manifest.as_mut().unwrap().quorum = 0);
    change(&|p| {
        let block = p.block.as_mut().unwrap();
        block.value = [block.value.as_ref(), b"x"].concat().into();
    });
    change(&|p| p.block.as_mut().unwrap().index += 1);
    change(&|p| p.upgrade.as_mut().unwrap().start += 1);
    change(&|p| p.upgrade.as_mut().unwrap().length += 1);
    change(&|p| p.upgrade.as_mut().unwrap().length -= 1);
    change(&|p| p.upgrade.as_mut().unwrap().signature = None);
    // Byte 66 is the patch, which a manifest that allows none makes nothing of.
    for byte in (0..68).filter(|byte| *byte != 66) {
        change(&|p| {
            let upgrade = p.upgrade.as_mut().unwrap();
            let mut signature = upgrade.signature.clone().unwrap().to_vec();
            signature[byte] ^= 1;
            upgrade.signature = Some(signature.into());
        });
    }
    let block_nodes = proof.block.as_ref().unwrap().nodes.len();
    for at in 0..block_nodes {
        change(&|p| p.block.as_mut().unwrap().nodes[at].size ^= 1);
        change(&|p| p.block.as_mut().unwrap().nodes[at].index ^= 2);
        change(&|p| p.block.as_mut().unwrap().nodes[at].hash = hash::leaf(b"other"));
        change(&|p| {
            p.block.as_mut().unwrap().nodes.remove(at);
        });
    }
    let upgrade_nodes = proof.upgrade.as_ref().unwrap().nodes.len();
    for at in 0..upgrade_nodes {
        change(&|p| p.upgrade.as_mut().unwrap().nodes[at].size ^= 1);
        change(&|p| p.upgrade.as_mut().unwrap().nodes[at].index ^= 2);
        change(&|p| p.upgrade.as_mut().unwrap().nodes[at].hash = hash::leaf(b"other"));
        change(&|p| {
            p.upgrade.as_mut().unwrap().nodes.remove(at);
        });
    }
    all
}

#[test]
fn a_wrong_manifest_is_refused() {
    let core = writer(&[b"a".to_vec()]);
    let other = Corestore::memory().get_named("other").unwrap();
    other.append(&b"a"[..]).unwrap();
    let reader = reader_of(&core);
    let proof = other.prove(&upgrade(&reader, 1)).unwrap().unwrap();
    assert!(reader.accept(proof).is_err());
    assert_eq!(reader.length(), 0);
}

#[test]
fn events_tell_what_was_committed() {
    let core = writer(&[b"a".to_vec(), b"b".to_vec()]);
    let reader = reader_of(&core);
    let events = reader.events();
    reader
        .accept(core.prove(&upgrade(&reader, 2)).unwrap().unwrap())
        .unwrap();
    reader
        .accept(core.prove(&block(&reader, 1)).unwrap().unwrap())
        .unwrap();
    assert_eq!(events.try_next(), Some(Event::Manifest));
    assert_eq!(events.try_next(), Some(Event::Append { length: 2 }));
    assert_eq!(events.try_next(), Some(Event::Have(1..2)));
    assert_eq!(events.try_next(), None);
    reader.clear(1..9).unwrap();
    reader.clear(5..9).unwrap();
    assert_eq!(events.try_next(), Some(Event::Clear(1..2)));
    assert_eq!(events.try_next(), None);
}

#[test]
fn reading_without_peers_ends_at_once() {
    let core = writer(&[b"a".to_vec()]);
    assert_eq!(ready(core.get(0)).unwrap(), "a");
    assert!(matches!(
        ready(core.get(1)),
        Err(CoreError::OutOfBounds { length: 1, .. })
    ));
    let reader = reader_of(&core);
    assert!(matches!(
        ready(reader.get(0)),
        Err(CoreError::NoPeers { .. })
    ));
    reader
        .accept(core.prove(&upgrade(&reader, 1)).unwrap().unwrap())
        .unwrap();
    assert!(matches!(
        ready(reader.get(0)),
        Err(CoreError::NoPeers { .. })
    ));
    let download = reader.download_all();
    assert!(matches!(
        ready(download.caught_up()),
        Err(CoreError::NoPeers { .. })
    ));
}

#[test]
fn a_waiting_reader_gets_the_block_when_it_arrives() {
    let core = writer(&[b"a".to_vec(), b"b".to_vec()]);
    let reader = reader_of(&core);
    reader
        .accept(core.prove(&upgrade(&reader, 2)).unwrap().unwrap())
        .unwrap();
    let supplier = reader.supply().attach(std::sync::Arc::new(|| {}));
    let waiting = {
        let reader = reader.clone();
        std::thread::spawn(move || block_on(reader.get(1)))
    };
    let claim = loop {
        let claims = reader
            .supply()
            .claim(supplier, &ferrocore_log::supply::All, 1);
        if let Some(claim) = claims.first() {
            break *claim;
        }
        std::thread::yield_now();
    };
    assert!(claim.urgent && claim.index == 1);
    reader
        .accept(core.prove(&block(&reader, 1)).unwrap().unwrap())
        .unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), "b");
    assert!(!reader.supply().is_wanting());
}

fn block_on<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_writer_asks_nobody_for_a_longer_log() {
    let core = writer(&[b"a".to_vec()]);
    let _finding = core.finding();
    assert!(!block_on(core.update()).unwrap());
    assert!(matches!(
        block_on(core.get(1)),
        Err(CoreError::OutOfBounds { length: 1, .. })
    ));
}

#[test]
fn only_the_owner_appends() {
    let core = writer(&[b"a".to_vec()]);
    let reader = reader_of(&core);
    assert!(!reader.is_writable());
    assert!(matches!(
        reader.append(&b"b"[..]),
        Err(CoreError::NotWritable { .. })
    ));
    let huge = vec![0; ferrocore_log::limits::BLOCK_BYTES_MAX + 1];
    assert!(matches!(
        core.append(huge),
        Err(CoreError::BlockTooLarge { .. })
    ));
    assert_eq!(core.length(), 1);
}
