//! Goal: an audit names what was damaged, nothing else, and repairs what is proven.
//! Method: cores on files in memory, whose bytes are flipped one place at a time.
#![cfg(feature = "files")]

use std::sync::Arc;

use crate::rig::{Contents, Disk, create, header, open, open_unverified};
use bytes::Bytes;
use ferrocore_log::audit::{Damage, Mode, Report, Step};
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::storage::files::FileCore;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::storage::{CoreHeader, CoreStorage, CoreWrite, Head, Storage as _};
use ferrocore_log::{Core, Corestore, Durability, Manifest};
use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::sign::KeyPair;

pub(crate) const BLOCKS: u64 = 11;
pub(crate) const NODE_BYTES: usize = 40;

pub(crate) fn block(index: u64) -> Bytes {
    Bytes::from(vec![index as u8 + 1; 3 + index as usize])
}

pub(crate) fn byte_offset(index: u64) -> usize {
    (0..index).map(|i| block(i).len()).sum()
}

/// A core of [`BLOCKS`] blocks, as its files.
pub(crate) fn written() -> Contents {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch((0..BLOCKS).map(block).collect()).unwrap();
    core.flush().unwrap();
    disk.contents()
}

fn damaged(file: &'static str, damage: impl FnOnce(&mut Vec<u8>)) -> Core {
    let mut files = written();
    files.get_mut(file).unwrap().edit(damage);
    open(&Disk::new(files), Durability::Buffered)
        .unwrap()
        .unwrap()
}

pub(crate) fn audit(core: &Core, mode: Mode) -> (Report, Vec<(Damage, bool)>) {
    let mut found = Vec::new();
    let report = core.audit(mode, |step| {
        if let Step::Found { damage, mendable } = step {
            found.push((damage.clone(), *mendable));
        }
    });
    (report.unwrap(), found)
}

/// Repairs `core`, and checks that the dry run told the same before and nothing bad is left.
pub(crate) fn repair(core: &Core) -> Vec<(Damage, bool)> {
    let (_, told) = audit(core, Mode::DryRun);
    let (_, found) = audit(core, Mode::Repair);
    assert_eq!(told, found);
    assert_eq!(audit(core, Mode::DryRun).0.bad, 0, "after {found:?}");
    found
}

#[test]
fn a_sound_core_has_no_damage() {
    let core = damaged("data", |_| {});
    let (report, found) = audit(&core, Mode::DryRun);
    assert_eq!((report.blocks, report.bad, found), (BLOCKS, 0, vec![]));
    let empty = Corestore::memory().get_named("empty").unwrap();
    assert_eq!(audit(&empty, Mode::Repair).0, Report::default());
}

#[test]
fn a_flipped_byte_of_a_block_names_the_block() {
    for index in 0..BLOCKS {
        let core = damaged("data", |bytes| bytes[byte_offset(index) + 1] ^= 1);
        assert_eq!(repair(&core), [(Damage::Block(index), true)]);
        assert!(!core.has(index));
        assert_eq!(core.contiguous_length(), index);
        let others = (0..BLOCKS).filter(|other| *other != index);
        for other in others {
            assert_eq!(core.get_local(other).unwrap(), Some(block(other)));
        }
    }
}

/// Goal: each node of a core that has all its blocks is named and written anew, whichever of its
/// bytes is wrong, or all of them gone.
#[test]
fn a_damaged_node_is_named_and_made_anew() {
    let nodes = (0..2 * BLOCKS - 1).filter(|index| ![15, 19].contains(index));
    for (index, at) in nodes.flat_map(|index| [0, 1, 7, 8, 39].map(|at| (index, at))) {
        let mut files = written();
        let byte = index as usize * NODE_BYTES + at;
        let tree = files.get_mut("tree").unwrap();
        tree.edit(|tree| tree[byte] ^= 0x40);
        let disk = Disk::new(files);
        let core = match [7, 17, 20].contains(&index) {
            true => open_unverified(&disk, Durability::Buffered),
            false => open(&disk, Durability::Buffered).unwrap().unwrap(),
        };
        let found = repair(&core);
        assert_eq!(found, [(Damage::Node(index), true)], "byte {at}");
        for block_index in 0..BLOCKS {
            assert_eq!(
                core.get_local(block_index).unwrap(),
                Some(block(block_index))
            );
        }
    }
}

/// Goal: a node that is gone is made anew, too, and survives closing the core.
#[test]
fn a_missing_node_is_made_anew() {
    let mut files = written();
    let tree = files.get_mut("tree").unwrap();
    tree.punch(3 * NODE_BYTES..4 * NODE_BYTES);
    let disk = Disk::new(files);
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    assert_eq!(repair(&core), [(Damage::Node(3), true)]);
    core.flush().unwrap();
    assert_eq!(disk.contents()["tree"], written()["tree"]);
}

#[test]
fn a_block_whose_leaf_is_wrong_as_well_is_forgotten() {
    let mut files = written();
    let data = files.get_mut("data").unwrap();
    data.edit(|data| data[byte_offset(5)] ^= 1);
    let tree = files.get_mut("tree").unwrap();
    tree.edit(|tree| tree[10 * NODE_BYTES + 20] ^= 1);
    let disk = Disk::new(files);
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    let found = repair(&core);
    assert_eq!(
        found,
        [(Damage::Node(10), true), (Damage::Bits(5..6), true)]
    );
    assert!(!core.has(5) && core.has(4));
    fetch(&damaged("data", |_| {}), &core, 5);
    assert_eq!(core.get_local(5).unwrap(), Some(block(5)));
    assert_eq!(audit(&core, Mode::DryRun).1, []);
}

/// Goal: the block beside one whose leaf was given up is read all the same, also by who opens the core later.
#[test]
fn a_leaf_that_was_given_up_hides_no_other_block() {
    let mut files = written();
    let data = files.get_mut("data").unwrap();
    data.edit(|data| data[byte_offset(4)] ^= 1);
    let tree = files.get_mut("tree").unwrap();
    tree.edit(|tree| tree[8 * NODE_BYTES + 20] ^= 1);
    let disk = Disk::new(files);
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    let found = repair(&core);
    assert_eq!(found, [(Damage::Node(8), true), (Damage::Bits(4..5), true)]);
    core.flush().unwrap();
    drop(core);
    let again = open(&disk, Durability::Buffered).unwrap().unwrap();
    assert_eq!(again.get_local(5).unwrap(), Some(block(5)));
}

/// Goal: what has no nodes is forgotten, though nothing proves the node above it either.
#[test]
fn blocks_without_nodes_are_forgotten_below_what_is_unproven() {
    let mut files = written();
    let tree = files.get_mut("tree").unwrap();
    tree.edit(|tree| {
        tree[..7 * NODE_BYTES].fill(0); // all of blocks 0 to 3
        tree[12 * NODE_BYTES..15 * NODE_BYTES].fill(0); // of 6 and 7
    });
    let disk = Disk::new(files);
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    let found = repair(&core);
    assert_eq!(
        found,
        [(Damage::Bits(0..4), true), (Damage::Bits(6..8), true)]
    );
    let source = damaged("data", |_| {});
    for index in [0, 6, 1, 2, 3, 7] {
        fetch(&source, &core, index);
    }
    assert_eq!(audit(&core, Mode::DryRun).1, []);
    (0..BLOCKS).for_each(|i| assert_eq!(core.get_local(i).unwrap(), Some(block(i))));
}

/// A core whose tree is damaged, opened; with nothing of blocks 0 to 3, so that nothing proves node 11 above 4 to 7.
fn unproven(damage: impl FnOnce(&mut Vec<u8>)) -> Core {
    damaged("tree", |tree| {
        tree[..7 * NODE_BYTES].fill(0);
        damage(tree);
    })
}

/// Takes all blocks that are missing from a sound core, the last first, and expects that nothing is wrong then.
fn fetch_the_rest(core: &Core) {
    let source = damaged("data", |_| {});
    let missing: Vec<_> = (0..BLOCKS).filter(|index| !core.has(*index)).collect();
    missing.iter().rev().for_each(|i| fetch(&source, core, *i));
    assert_eq!(audit(core, Mode::DryRun).1, []);
    (0..BLOCKS).for_each(|i| assert_eq!(core.get_local(i).unwrap(), Some(block(i))));
}

/// Goal: below a node that nothing proves, what contradicts it is given up as if it were proven.
#[test]
fn a_wrong_node_below_what_is_unproven_is_given_up() {
    let core = unproven(|tree| {
        tree[13 * NODE_BYTES + 20] ^= 1;
        tree[12 * NODE_BYTES..13 * NODE_BYTES].fill(0);
        tree[14 * NODE_BYTES..15 * NODE_BYTES].fill(0);
    });
    let found = repair(&core);
    let expected = [Damage::Bits(0..4), Damage::Node(13), Damage::Bits(6..8)];
    assert_eq!(found, expected.map(|damage| (damage, true)));
    fetch_the_rest(&core);
}

/// Goal: an unproven node that all below it contradicts is the one that is wrong, and no block is lost for it.
#[test]
fn an_unproven_node_is_made_anew_of_what_is_below_it() {
    let core = unproven(|tree| tree[11 * NODE_BYTES + 20] ^= 1);
    let found = repair(&core);
    assert_eq!(
        found,
        [(Damage::Bits(0..4), true), (Damage::Node(11), true)]
    );
    assert!((4..BLOCKS).all(|index| core.has(index)));
    fetch_the_rest(&core);
}

/// Goal: of a leaf that nothing proves and its block, which it is not of, neither stays.
#[test]
fn a_leaf_without_a_proof_goes_with_a_block_that_is_not_its_own() {
    let mut files = written();
    files.get_mut("data").unwrap().edit(|data| {
        data[byte_offset(4)] ^= 1;
        data[byte_offset(5)] ^= 1;
    });
    files.get_mut("tree").unwrap().edit(|tree| {
        tree[10 * NODE_BYTES..11 * NODE_BYTES].fill(0);
    });
    let disk = Disk::new(files);
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    repair(&core);
    assert!(!core.has(4) && !core.has(5));
    fetch_the_rest(&core);
}

/// Goal: nodes that lost the one above them go with the blocks below it; else the right blocks could not come.
#[test]
fn nodes_without_the_one_above_them_are_given_up() {
    let core = damaged("tree", |tree| tree[..4 * NODE_BYTES].fill(0));
    assert_eq!(repair(&core), [(Damage::Bits(0..4), true)]);
    let source = damaged("data", |_| {});
    fetch(&source, &core, 2);
    assert_eq!(audit(&core, Mode::DryRun).0.bad, 0); // the bytes of others were here all along
    fetch_the_rest(&core);
}

/// Goal: so are those of which no block is here.
#[test]
fn nodes_that_nothing_hangs_on_are_named() {
    let mut files = written();
    let disk = Disk::new(files.clone());
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    core.clear(0..4).unwrap();
    core.flush().unwrap();
    drop(core);
    files = disk.contents();
    files.get_mut("tree").unwrap().edit(|tree| {
        tree[..4 * NODE_BYTES].fill(0);
        tree[5 * NODE_BYTES + 9] ^= 1;
        tree[11 * NODE_BYTES..12 * NODE_BYTES].fill(0); // made anew of what is below it
    });
    let core = open(&Disk::new(files), Durability::Buffered).unwrap();
    let core = core.unwrap();
    let found = repair(&core);
    assert!(found.contains(&(Damage::Node(4), true)), "{found:?}");
    fetch_the_rest(&core);
}

/// Goal: what comes is not held against a node that nothing proves, damaged or not.
#[test]
fn a_block_comes_past_a_damaged_node_without_a_sibling() {
    let core = unproven(|tree| {
        tree[8 * NODE_BYTES..15 * NODE_BYTES].fill(0);
        tree[11 * NODE_BYTES + 20] ^= 1; // zeros but for this
    });
    repair(&core);
    let source = damaged("data", |_| {});
    fetch(&source, &core, 4);
    assert_eq!(core.get_local(4).unwrap(), Some(block(4)));
    fetch_the_rest(&core);
}

#[test]
fn a_bit_without_a_block_is_named_and_one_that_is_missing_is_told() {
    let disk = Disk::new(written());
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    core.clear(2..5).unwrap();
    core.flush().unwrap();
    let mut files = disk.contents();
    files.get_mut("bitfield").unwrap().edit(|bits| {
        bits[0] |= 1 << 3;
        bits[0] &= !(1 << 6);
    });
    let disk = Disk::new(files);
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    let (report, found) = audit(&core, Mode::DryRun);
    assert_eq!((report.bad, report.mendable), (1, 2));
    assert_eq!(
        found,
        [(Damage::Block(3), true), (Damage::Unmarked(6), true)]
    );
    repair(&core);
    let here: Vec<_> = (0..BLOCKS).filter(|i| core.has(*i)).collect();
    assert_eq!(here, [0, 1, 5, 6, 7, 8, 9, 10]);
}

/// A core in memory, and a way to change what is stored behind its back.
fn in_memory() -> (Memory, Core, Arc<dyn CoreStorage>) {
    let key_pair = KeyPair::from_seed(&[1; 32]);
    let manifest = Manifest::single(key_pair.public_key());
    let header = CoreHeader {
        key: manifest.key(),
        manifest: Some(manifest),
        key_pair: Some(key_pair),
        user_data: Default::default(),
        head: Head::empty(),
    };
    let memory = Memory::new();
    let opened = memory.create(header).unwrap();
    let storage = Arc::clone(&opened.storage);
    let core = Core::open(opened, None, Durability::Buffered).unwrap();
    core.append_batch((0..BLOCKS).map(block).collect()).unwrap();
    (memory, core, storage)
}

fn write_nodes(storage: &dyn CoreStorage, nodes: &[Node]) {
    let nodes = nodes.to_vec();
    let write = CoreWrite {
        nodes,
        ..CoreWrite::default()
    };
    storage.commit(write, Durability::Buffered).unwrap();
}

#[test]
fn a_root_that_is_damaged_while_the_core_is_open_is_written_anew() {
    let (_, core, storage) = in_memory();
    for index in [7, 17, 20] {
        let root = storage.node(index).unwrap().unwrap();
        let size = root.size + 1;
        write_nodes(&*storage, &[Node { size, ..root }]);
        assert_eq!(repair(&core), [(Damage::Node(index), true)]);
        assert_eq!(storage.node(index).unwrap(), Some(root));
    }
}

/// Goal: a wrong signature is told, nothing is repaired under it, and the rest is still checked.
#[test]
fn under_a_head_that_is_not_signed_nothing_is_touched() {
    let (memory, core, storage) = in_memory();
    write_nodes(&*storage, &[Node::leaf(0, b"wrong")]);
    let mut opened = memory.open(&core.discovery_key()).unwrap().unwrap();
    opened.header.head.signature = Bytes::from_static(&[7; 64]);
    let core = Core::danger_open_unverified(opened, Durability::Buffered).unwrap();
    let (report, found) = audit(&core, Mode::Repair);
    assert_eq!(found[0], (Damage::Head, false));
    assert!(found.contains(&(Damage::Node(0), false)), "{found:?}");
    assert_eq!((report.bad, report.mendable), (2, 0));
    assert!((0..BLOCKS).all(|index| core.has(index)));
}

/// What a repair writes over a node that is wrong.
fn blank(index: u64) -> Node {
    let (size, hash) = (0, Hash::from([0; 32]));
    Node { index, size, hash }
}

/// Goal: nodes that a repair took away, and that come again in a change so large that they are written past the journal, are
/// there from then on, whether the core stays open, is flushed, or is opened anew before or after.
#[test]
fn what_a_repair_took_away_comes_again_in_a_large_change() {
    const MANY: u64 = 400;
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    let blocks = vec![Bytes::from_static(b"block"); MANY as usize];
    core.append_batch(blocks).unwrap();
    core.flush().unwrap();
    drop(core);
    let open_files = |disk: &Disk| {
        let core = header().key.discovery_key();
        let opened = FileCore::open(&core, disk.core_files(), Durability::Buffered);
        opened.unwrap().unwrap().storage
    };
    for reopened_before in [false, true] {
        let disk = Disk::new(disk.contents());
        let mut storage = open_files(&disk);
        let leaves: Vec<_> = (0..MANY)
            .map(|block| storage.node(2 * block).unwrap().unwrap())
            .collect();
        write_nodes(&*storage, &[20, 600].map(blank));
        assert_eq!(storage.node(20).unwrap(), None);
        if reopened_before {
            drop(storage);
            storage = open_files(&disk);
        }
        write_nodes(&*storage, &leaves);
        let killed = open_files(&Disk::new(disk.contents()));
        for index in [20, 600] {
            assert!(storage.node(index).unwrap().is_some(), "{index} at once");
            assert!(
                killed.node(index).unwrap().is_some(),
                "{index} after a kill"
            );
        }
        storage.flush(Durability::Buffered).unwrap();
        drop((storage, killed));
        let core = open(&disk, Durability::Buffered).unwrap().unwrap();
        assert_eq!(audit(&core, Mode::DryRun).0.bad, 0);
    }
}

/// Copies block `index`, and the log's newest length.
fn fetch(from: &Core, to: &Core, index: u64) {
    let (start, end) = (to.length(), from.length());
    let nodes = to.missing_nodes(2 * index).unwrap();
    let request = ProofRequest {
        block: Some(NodeRequest { index, nodes }),
        upgrade: (start < end).then_some(UpgradeRequest {
            start,
            length: end - start,
        }),
        manifest: start == 0,
        ..ProofRequest::default()
    };
    to.accept(from.prove(&request).unwrap().unwrap()).unwrap();
}

#[test]
fn a_huge_sparse_core_is_audited_where_something_is_here() {
    let writer = Corestore::memory().get_named("writer").unwrap();
    for _ in 0..64 {
        writer
            .append_batch(vec![Bytes::from_static(b"x"); 4096])
            .unwrap();
    }
    let reader = Corestore::memory().get(&writer.key()).unwrap();
    fetch(&writer, &reader, 5);
    fetch(&writer, &reader, 200_000);
    let (report, found) = audit(&reader, Mode::DryRun);
    assert_eq!((report.blocks, report.bad), (2, 0), "{found:?}");
    assert!(report.nodes < 200, "{} nodes were looked at", report.nodes);
}
