//! Goal: a reader whose tree was damaged on its disk gets what it asks for all the same, from honest peers, whom it does not
//! blame; what comes takes the place of what was damaged.
//! Method: two connections on virtual time; the reader's files are changed while nobody has them open.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::common::script::{Script, range, sync_of};
use crate::common::{Pair, blocks};
use crate::hostile::block_requests;
use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_log::push::PushMode;
use ferrocore_log::{Core, Corestore, Durability, StoreOptions};
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_replication::limits::{BAD_PUSHES_MAX, DENIALS_MAX};
use ferrocore_replication::messages::{Data, Message};

const BLOCKS: usize = 16;
/// As `tree` has them: an u64 size, and a hash.
const NODE_BYTES: usize = 40;

/// A reader of `key` in `folder`.
fn reader(folder: &Path, writer: &Core) -> (Corestore, Core) {
    let store = Corestore::open(folder, StoreOptions::default()).unwrap();
    let core = store.get(&writer.key()).unwrap();
    (store, core)
}

/// Brings `range` to a reader, and returns how many proofs it refused.
fn fetch(here: &Corestore, there: &Corestore, reader: &Core, range: Range<u64>) -> u64 {
    let mut pair = Pair::new(here, there);
    pair.b.connection.attach(reader);
    let _wanted = reader.download(range);
    pair.drive();
    pair.b.stats().proofs_refused
}

/// Changes a byte of a node of `core`, which nobody has open.
fn damage(folder: &Path, core: &DiscoveryKey, node: usize, at: usize) {
    let name = core.to_hex();
    let path = format!("corestore/cores/{}/{}/{name}/tree", &name[..2], &name[2..4]);
    let path = folder.join(path);
    let mut tree = fs::read(&path).unwrap();
    tree[node * NODE_BYTES + at] ^= 1;
    fs::write(path, tree).unwrap();
}

#[test]
fn what_is_damaged_is_brought_again_with_what_is_asked_for() {
    let blocks = blocks(BLOCKS);
    let here = Corestore::memory();
    let writer = here.get_named("log").unwrap();
    writer.append_batch(blocks.clone()).unwrap();
    // What the reader knows below the root: the ways to blocks 0 and 8.
    for node in [0, 2, 1, 5, 3, 11, 7, 23, 16, 18, 17, 21, 19, 27] {
        for at in [0, 6, 9] {
            let folder = tempfile::tempdir().unwrap();
            {
                let (there, reader) = reader(folder.path(), &writer);
                fetch(&here, &there, &reader, 0..1);
                fetch(&here, &there, &reader, 8..9);
                assert_eq!(reader.count(0..BLOCKS as u64), 2);
            }
            damage(folder.path(), &writer.discovery_key(), node, at);
            let (there, reader) = reader(folder.path(), &writer);
            for index in [1, 15, 9, 4] {
                let refused = fetch(&here, &there, &reader, index..index + 1);
                assert!(reader.has(index), "block {index}, byte {at} of node {node}");
                assert_eq!(refused, 0, "a peer was blamed for node {node}");
            }
            fetch(&here, &there, &reader, 0..BLOCKS as u64);
            for (index, block) in (0..).zip(&blocks) {
                match reader.get_local(index) {
                    Ok(found) => assert_eq!(found.as_ref(), Some(block)),
                    // Its own leaf; reading tells it.
                    Err(error) => assert!(node == 2 * index as usize, "{error}, node {node}"),
                }
            }
        }
    }
}

/// Lets both ends work, a millisecond at a time, until that `is_over`. Returns the most requests that were in flight.
fn drive_until(pair: &mut Pair, is_over: impl Fn() -> bool) -> usize {
    let mut most = 0;
    for _ in 0..20_000 {
        if is_over() {
            return most;
        }
        pair.now += Duration::from_millis(1);
        pair.step();
        most = most.max(pair.b.connection.backlog().requests);
    }
    panic!("it does not come");
}

/// What the reader says of its peer.
fn told(pair: &mut Pair) -> Vec<String> {
    let poll = || pair.b.connection.poll_misbehaviour();
    std::iter::from_fn(poll).map(|m| m.to_string()).collect()
}

/// Goal: all that is asked for comes, however many places are damaged that are met at once, and nobody is blamed for them.
#[test]
fn more_damage_than_is_remembered_is_mended_too() {
    const GROUPS: usize = 192;
    let half = GROUPS as u64 * 16;
    let here = Corestore::memory();
    let writer = here.get_named("log").unwrap();
    writer.append_batch(blocks(2 * half as usize)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    {
        let (there, reader) = reader(folder.path(), &writer);
        let mut pair = Pair::new(&here, &there);
        pair.b.connection.attach(&reader);
        for first in (0..half).step_by(16) {
            let _wanted = reader.download(first..first + 1);
            pair.drive();
        }
        assert_eq!(reader.count(0..half), GROUPS as u64);
    }
    // Above the second half of each group.
    for group in 0..GROUPS {
        let node = (2 * (2 * group + 1) + 1) * 8 - 1;
        damage(folder.path(), &writer.discovery_key(), node, 9);
    }
    let (there, reader) = reader(folder.path(), &writer);
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    {
        // So that it is asked for a lot at once.
        let _sound = reader.download(half..2 * half);
        drive_until(&mut pair, || reader.count(half..2 * half) == half);
    }
    let eighths = || (8..half).step_by(16);
    let download = |index: u64| reader.download(index..index + 1);
    let _wanted: Vec<_> = eighths().map(download).collect();
    let most = drive_until(&mut pair, || eighths().all(|index| reader.has(index)));
    assert!(most > 128, "{most} in flight");
    assert_eq!(told(&mut pair), [""; 0]);
    assert_eq!(pair.b.stats().proofs_refused, 0);
}

/// Goal: a peer whose log ends below what is damaged here is neither blamed for what it cannot prove, nor asked for it without end;
/// once another has brought what mends the tree, it is.
#[test]
fn a_shorter_peer_is_asked_for_what_it_can_prove() {
    const SHORTER: u64 = 96;
    const COUNT: u64 = 128;
    let all = blocks(COUNT as usize);
    let (here, between) = (Corestore::memory(), Corestore::memory());
    let writer = here.get_named("log").unwrap();
    writer
        .append_batch(all[..SHORTER as usize].to_vec())
        .unwrap();
    let relay = between.get(&writer.key()).unwrap();
    {
        let mut pair = Pair::new(&here, &between);
        pair.b.connection.attach(&relay);
        let _all = relay.download_all();
        pair.drive();
        assert_eq!(relay.count(0..SHORTER), SHORTER);
    }
    relay.set_push_mode(PushMode::Only); // it asks for no longer log
    writer
        .append_batch(all[SHORTER as usize..].to_vec())
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    {
        let (there, reader) = reader(folder.path(), &writer);
        for index in [0, 64] {
            fetch(&here, &there, &reader, index..index + 1);
        }
        assert_eq!(reader.length(), COUNT);
    }
    // The sibling of the relay's second root, which it does not have.
    damage(folder.path(), &writer.discovery_key(), 223, 9);
    let (there, reader) = reader(folder.path(), &writer);
    let mut pair = Pair::new(&between, &there);
    pair.b.connection.attach(&reader);
    let wanted = reader.download(0..SHORTER);
    pair.drive();
    assert_eq!(
        (relay.length(), reader.count(0..SHORTER)),
        (SHORTER, 64 + 1)
    );
    assert_eq!(pair.b.connection.backlog().requests, 0);
    assert!(!reader.has(65) && reader.get_local(64).unwrap().is_some());
    drop(wanted);
    fetch(&here, &there, &reader, 100..101);
    let _wanted = reader.download(0..SHORTER);
    pair.drive();
    assert_eq!(reader.count(0..SHORTER), SHORTER);
    assert_eq!(told(&mut pair), [""; 0]);
    assert_eq!(pair.b.stats().proofs_refused, 0);
}

/// Goal: who is asked for a path up to a root and gives less is the one to blame, and soon asked no more; an honest peer then mends all.
#[test]
fn who_gives_no_whole_path_is_asked_no_more() {
    // Below what is damaged the tree refutes what is given; beside it, that is right and has no place.
    for wanted in [64..128, 0..64] {
        check_who_gives_no_whole_path(wanted);
    }
}

fn check_who_gives_no_whole_path(wanted: Range<u64>) {
    const COUNT: u64 = 128;
    let here = Corestore::memory();
    let writer = here.get_named("log").unwrap();
    writer.append_batch(blocks(COUNT as usize)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    {
        let (there, reader) = reader(folder.path(), &writer);
        fetch(&here, &there, &reader, 0..1);
    }
    // A child of the root.
    damage(folder.path(), &writer.discovery_key(), 191, 9);
    let (there, reader) = reader(folder.path(), &writer);
    let download = reader.download(wanted.clone());
    let mut script = Script::open(&there, &reader);
    script.say(&sync_of(COUNT));
    script.say(&range(false, 0, COUNT));
    let mut asked = block_requests(&script.deliver().unwrap());
    let mut answered = 0;
    while !asked.is_empty() {
        for mut request in asked {
            let part = request.proof.block.as_mut().unwrap();
            part.nodes -= u64::from(part.nodes == u64::from(COUNT.ilog2()));
            let proof = writer.prove(&request.proof).unwrap().unwrap();
            let request = request.id;
            script.say(&Message::Data(Data { request, proof }));
            answered += 1;
        }
        asked = block_requests(&script.deliver().unwrap());
        assert!(answered < 100 * COUNT, "it is asked without end");
    }
    let blame = script.victim.connection.poll_misbehaviour().unwrap();
    assert!(blame.to_string().contains("withholds"), "{blame}");
    assert!(reader.count(wanted.clone()) < DENIALS_MAX as u64);
    drop((script, download));
    let refused = fetch(&here, &there, &reader, wanted.clone());
    let here = reader.count(wanted.clone());
    assert_eq!((refused, here), (0, wanted.end - wanted.start));
}

/// Goal: a pushed block that is right, and has no place here as our own tree is damaged, is of no use, which is not its sender's
/// fault; with its whole path it is welcome. Method: blocks beside a damaged child of the root, pushed with a path that ends below it.
#[test]
fn a_pushed_block_without_a_place_is_nobodys_fault() {
    const COUNT: u64 = 128;
    const PUSHED: u64 = BAD_PUSHES_MAX as u64 + 2;
    let here = Corestore::memory();
    let writer = here.get_named("log").unwrap();
    writer.append_batch(blocks(COUNT as usize)).unwrap();
    for durability in [Durability::Buffered, Durability::Sync] {
        let folder = tempfile::tempdir().unwrap();
        {
            let (there, reader) = reader(folder.path(), &writer);
            fetch(&here, &there, &reader, 0..1);
        }
        damage(folder.path(), &writer.discovery_key(), 191, 9);
        let options = StoreOptions {
            durability,
            ..StoreOptions::default()
        };
        let there = Corestore::open(folder.path(), options).unwrap();
        let reader = there.get(&writer.key()).unwrap();
        reader.set_push_mode(PushMode::Only);
        let mut script = Script::open(&there, &reader);
        script.say(&sync_of(COUNT));
        let push = |script: &mut Script, index, nodes| {
            let request = ProofRequest {
                block: Some(NodeRequest { index, nodes }),
                ..ProofRequest::default()
            };
            let (request, proof) = (0, writer.prove(&request).unwrap().unwrap());
            script.say(&Message::Data(Data { request, proof }));
            script.deliver().unwrap();
            while script.victim.connection.backlog().commits > 0 {
                thread::yield_now(); // another thread commits
                script.deliver().unwrap();
            }
        };
        for index in 1..=PUSHED {
            push(&mut script, index, u64::from(COUNT.ilog2()) - 1);
        }
        assert_eq!(reader.count(0..COUNT), 1);
        assert_eq!(script.victim.stats().answers_ignored, PUSHED);
        push(&mut script, 1, COUNT.ilog2().into());
        assert_eq!((reader.count(0..COUNT), reader.has(1)), (2, true));
        let stats = script.victim.stats();
        assert_eq!((stats.answers_ignored, stats.proofs_refused), (PUSHED, 0));
        let blame = script.victim.connection.poll_misbehaviour();
        assert!(blame.is_none() && script.is_open(&reader), "{blame:?}");
    }
}
