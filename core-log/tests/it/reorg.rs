//! Goal: a reader whose writer truncates ends with the writer's log, keeps every block that both
//! histories share and no other, whatever it had before; and nobody moves it but the writer.
//! Method: property tests with the plain lists of blocks as the twin; forged proofs one by one.

use bytes::Bytes;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::AcceptError;
use ferrocore_log::events::Event;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::reorg::Reorg;
use ferrocore_log::{Core, CoreOptions, Corestore, StoreOptions};
use proptest::prelude::*;

/// More levels than any tree here has.
const STEPS_MAX: usize = 8;

fn writer(length: u64) -> Core {
    let core = Corestore::memory().get_named("writer").unwrap();
    grow(&core, length);
    core
}

/// Appends until the log has `length` blocks, no two of which are alike.
fn grow(core: &Core, length: u64) {
    let block = |index| Bytes::from(format!("block {index} of fork {}", core.fork()));
    core.append_batch((core.length()..length).map(block).collect())
        .unwrap();
}

fn copy_of(core: &Core, blocks: impl IntoIterator<Item = u64>) -> Core {
    let reader = Corestore::memory().get(&core.key()).unwrap();
    catch_up(core, &reader);
    fetch(core, &reader, blocks);
    reader
}

fn catch_up(from: &Core, reader: &Core) {
    if from.fork() > reader.fork() {
        follow(from, reader);
    } else if from.length() > reader.length() {
        let request = upgrade(reader.fork(), reader.length(), from.length());
        reader.accept(prove(from, &request)).unwrap();
    }
}

fn fetch(from: &Core, reader: &Core, blocks: impl IntoIterator<Item = u64>) {
    for index in blocks {
        let nodes = reader.missing_nodes(2 * index).unwrap();
        let request = ProofRequest {
            fork: reader.fork(),
            block: Some(NodeRequest { index, nodes }),
            ..ProofRequest::default()
        };
        reader.accept(prove(from, &request)).unwrap();
    }
}

fn upgrade(fork: u64, start: u64, end: u64) -> ProofRequest {
    ProofRequest {
        fork,
        upgrade: Some(UpgradeRequest {
            start,
            length: end - start,
        }),
        manifest: true,
        ..ProofRequest::default()
    }
}

fn prove(core: &Core, request: &ProofRequest) -> Proof {
    core.prove(request).unwrap().unwrap()
}

fn fork_proof(core: &Core) -> Proof {
    prove(core, &upgrade(core.fork(), 0, core.length()))
}

/// Compares as far as it goes.
fn narrowed(from: &Core, reader: &Core) -> Reorg {
    let mut reorg = reader.reorg(fork_proof(from)).unwrap();
    for _ in 0..STEPS_MAX {
        let Some(request) = reorg.wants() else { break };
        reader.narrow(&mut reorg, &prove(from, &request)).unwrap();
    }
    assert_eq!(reorg.wants(), None, "it takes a step for each level");
    reorg
}

fn follow(from: &Core, reader: &Core) {
    reader.adopt(narrowed(from, reader)).unwrap();
}

fn assert_same_head(writer: &Core, reader: &Core) {
    assert_eq!(reader.fork(), writer.fork());
    assert_eq!(reader.length(), writer.length());
    assert_eq!(reader.byte_length(), writer.byte_length());
    assert_eq!(reader.tree_hash(), writer.tree_hash());
}

fn here(core: &Core) -> Vec<u64> {
    (0..100).filter(|index| core.has(*index)).collect()
}

/// One change of the writer: the length it is cut to and that it then grows by.
fn cut() -> impl Strategy<Value = (prop::sample::Index, u64)> {
    (any::<prop::sample::Index>(), 0..20u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_sparse_reader_keeps_what_is_shared_and_nothing_else(
        length in 1..40u64,
        had in prop::collection::btree_set(0..40u64, 0..40),
        cuts in prop::collection::vec(cut(), 1..3),
    ) {
        let writer = writer(length);
        let reader = copy_of(&writer, had.iter().copied().filter(|index| *index < length));
        let mut shared = length;
        for (at, more) in cuts {
            let at = at.index(writer.length() as usize + 1) as u64;
            shared = shared.min(at);
            writer.truncate(at, None).unwrap();
            grow(&writer, at + more);
        }
        if writer.length() == 0 { grow(&writer, 1); } // nothing proves a log without blocks

        let kept: Vec<u64> = here(&reader).into_iter().filter(|index| *index < shared).collect();
        follow(&writer, &reader);
        assert_same_head(&writer, &reader);
        prop_assert_eq!(here(&reader), kept.clone());
        for index in kept {
            prop_assert_eq!(reader.get_local(index).unwrap(), writer.get_local(index).unwrap());
        }
        // And it can go on: what is missing comes, and can be passed on.
        let missing: Vec<u64> = (0..writer.length()).filter(|index| !reader.has(*index)).collect();
        fetch(&writer, &reader, missing);
        let third = copy_of(&reader, 0..reader.length());
        for index in 0..writer.length() {
            prop_assert_eq!(third.get_local(index).unwrap(), writer.get_local(index).unwrap());
        }
    }

    #[test]
    fn a_full_reader_finds_exactly_the_common_blocks(
        length in 1..40u64,
        at in any::<prop::sample::Index>(),
        new_length in 1..40u64,
    ) {
        let writer = writer(length);
        let reader = copy_of(&writer, 0..length);
        let at = at.index(length as usize + 1) as u64;
        writer.truncate(at, None).unwrap();
        grow(&writer, at.max(new_length));
        prop_assert_eq!(narrowed(&writer, &reader).ancestors(), at);
    }

    #[test]
    fn a_reorg_may_be_adopted_before_it_is_finished(
        at in 0..40u64,
        steps in 0..STEPS_MAX,
    ) {
        // Goal: when nobody can answer any more, what is kept is less, but never wrong.
        let writer = writer(40);
        let reader = copy_of(&writer, 0..40);
        writer.truncate(at, None).unwrap();
        grow(&writer, 30.max(at));
        let mut reorg = reader.reorg(fork_proof(&writer)).unwrap();
        for _ in 0..steps {
            let Some(request) = reorg.wants() else { break };
            reader.narrow(&mut reorg, &prove(&writer, &request)).unwrap();
        }
        let ancestors = reorg.ancestors();
        prop_assert!(ancestors <= at);
        reader.adopt(reorg).unwrap();
        assert_same_head(&writer, &reader);
        prop_assert_eq!(reader.contiguous_length(), ancestors);
        fetch(&writer, &reader, ancestors..writer.length());
        prop_assert_eq!(reader.contiguous_length(), writer.length());
    }
}

#[test]
fn a_new_history_is_there_after_reopening() {
    for at in 0..=12 {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(12);
        let key = writer.key();
        let open = || {
            let store = Corestore::open(dir.path(), StoreOptions::default()).unwrap();
            store.get(&key).unwrap()
        };
        let reader = open();
        catch_up(&writer, &reader);
        fetch(&writer, &reader, 0..12);
        writer.truncate(at, None).unwrap();
        grow(&writer, 10.max(at));
        follow(&writer, &reader);
        drop(reader);

        let reader = open();
        assert_same_head(&writer, &reader);
        assert_eq!(reader.contiguous_length(), at);
        fetch(&writer, &reader, at..writer.length());
        drop(reader);
        let reader = open();
        for index in 0..writer.length() {
            let block = reader.get_local(index).unwrap();
            assert_eq!(block, writer.get_local(index).unwrap(), "cut at {at}");
        }
    }
}

#[test]
fn a_reader_that_knows_nothing_comes_to_a_fork_at_once() {
    for compat in [false, true] {
        let options = CoreOptions {
            name: Some("core".into()),
            compat,
            ..CoreOptions::default()
        };
        let writer = Corestore::memory().get_with(options).unwrap();
        grow(&writer, 5);
        writer.truncate(2, Some(7)).unwrap();
        grow(&writer, 9);
        let reader = Corestore::memory().get(&writer.key()).unwrap();
        let events = reader.events();
        follow(&writer, &reader);
        assert_same_head(&writer, &reader);
        assert_eq!(reader.is_compat(), compat);
        let told: Vec<Event> = std::iter::from_fn(|| events.try_next()).collect();
        let truncate = Event::Truncate { length: 0, fork: 7 };
        let append = Event::Append { length: 9 };
        assert_eq!(told, [Event::Manifest, truncate, append]);
    }
}

#[test]
fn what_was_cut_off_is_told_before_what_is_new() {
    let writer = writer(5);
    let reader = copy_of(&writer, 0..5);
    let events = reader.events();
    writer.truncate(2, None).unwrap();
    follow(&writer, &reader);
    let truncate = |fork| Event::Truncate { length: 2, fork };
    assert_eq!(events.try_next(), Some(truncate(1)));
    assert_eq!(events.try_next(), None);
    writer.truncate(2, None).unwrap();
    grow(&writer, 4);
    follow(&writer, &reader);
    assert_eq!(events.try_next(), Some(truncate(2)));
    assert_eq!(events.try_next(), Some(Event::Append { length: 4 }));
}

#[test]
fn only_the_writer_moves_a_reader_to_another_fork() {
    let ours = writer(6);
    let reader = copy_of(&ours, 0..6);
    // The same blocks, signed by somebody else.
    let theirs = writer(6);
    theirs.truncate(3, None).unwrap();
    let mut foreign = fork_proof(&theirs);
    assert!(matches!(
        reader.reorg(foreign.clone()),
        Err(VerifyError::Manifest)
    ));
    foreign.manifest = None;
    let refused = reader.reorg(foreign);
    assert!(matches!(refused, Err(VerifyError::Signature { .. })));
    // What the writer signed, said to be of another fork.
    let mut renamed = fork_proof(&ours);
    renamed.fork = 1;
    let refused = reader.reorg(renamed);
    assert!(matches!(refused, Err(VerifyError::Signature { .. })));
    // No tree at all.
    ours.truncate(4, None).unwrap();
    let mut bare = fork_proof(&ours);
    bare.upgrade = None;
    let refused = reader.reorg(bare);
    assert!(matches!(refused, Err(VerifyError::Signature { .. })));
    assert_eq!((reader.fork(), reader.length()), (0, 6));
}

#[test]
fn a_reader_never_goes_back() {
    let writer = writer(6);
    let old = fork_proof(&writer);
    writer.truncate(5, None).unwrap();
    let first = fork_proof(&writer);
    let reader = copy_of(&writer, 0..5);
    writer.truncate(3, None).unwrap();
    let waiting = narrowed(&writer, &reader);
    let other = narrowed(&writer, &reader);
    reader.adopt(other).unwrap();
    for proof in [old, first, fork_proof(&writer)] {
        assert!(matches!(reader.reorg(proof), Err(VerifyError::Stale)));
    }
    // Another supplier was faster.
    let late = reader.adopt(waiting);
    let is_stale = matches!(late, Err(AcceptError::Verify(VerifyError::Stale)));
    assert!(is_stale);
    assert_eq!((reader.fork(), reader.length()), (2, 3));
}

#[test]
fn nodes_that_are_not_the_new_trees_are_refused() {
    let writer = writer(16);
    let reader = copy_of(&writer, 0..16);
    let old = writer.prove(&ProofRequest {
        hash: Some(NodeRequest { index: 7, nodes: 1 }),
        ..ProofRequest::default()
    });
    writer.truncate(9, None).unwrap();
    grow(&writer, 16);
    let mut reorg = reader.reorg(fork_proof(&writer)).unwrap();
    let request = reorg.wants().unwrap();
    let good = prove(&writer, &request);
    type Forge = fn(&mut Proof);
    let forgeries: [(&str, Forge); 6] = [
        ("hash", |p| {
            p.hash.as_mut().unwrap().nodes[1].hash = [7; 32].into()
        }),
        ("size", |p| p.hash.as_mut().unwrap().nodes[0].size += 1),
        ("order", |p| p.hash.as_mut().unwrap().nodes.reverse()),
        ("surplus", |p| {
            let hash = p.hash.as_mut().unwrap();
            hash.nodes.push(hash.nodes[0]);
        }),
        ("nothing", |p| p.hash = None),
        ("fork", |p| p.fork += 1),
    ];
    for (what, forge) in forgeries {
        let mut forged = good.clone();
        forge(&mut forged);
        assert!(reader.narrow(&mut reorg, &forged).is_err(), "{what}");
    }
    let mut old = old.unwrap().unwrap();
    old.fork = 1;
    let refused = reader.narrow(&mut reorg, &old);
    assert!(matches!(refused, Err(VerifyError::Checksum { .. })));
    reader.narrow(&mut reorg, &good).unwrap();
}

#[test]
fn sizes_that_only_add_up_are_not_believed() {
    // Goal: two siblings of which one is said to be longer at the other's cost hash to the same
    // parent. Whatever comes of it, no block is ever looked for in the wrong place.
    let writer = writer(16);
    for steps in 0..STEPS_MAX {
        let reader = copy_of(&writer, 0..16);
        let fork = writer.fork() + 1;
        writer.truncate(3, Some(fork)).unwrap();
        grow(&writer, 16);
        let mut reorg = reader.reorg(fork_proof(&writer)).unwrap();
        for step in 0..STEPS_MAX {
            let Some(request) = reorg.wants() else { break };
            let mut proof = prove(&writer, &request);
            if step == steps {
                let nodes = &mut proof.hash.as_mut().unwrap().nodes;
                nodes[0].size += 1;
                nodes[1].size -= 1;
            }
            if reader.narrow(&mut reorg, &proof).is_err() {
                break;
            }
        }
        reader.adopt(reorg).unwrap();
        let missing: Vec<u64> = (0..16).filter(|index| !reader.has(*index)).collect();
        fetch(&writer, &reader, missing);
        for index in 0..16 {
            let block = reader.get_local(index).unwrap();
            assert_eq!(block, writer.get_local(index).unwrap(), "step {steps}");
        }
    }
}
