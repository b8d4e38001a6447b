//! Goal: a node whose bytes are wrong does no harm beyond what it tells of: nothing is signed, overwritten or freed by it, and an
//! audit still mends all of it.
//! Method: cores on files in memory. A byte of each node but the roots is flipped while nobody has them open; then the log is cut,
//! blocks are cleared, or some are fetched.
#![cfg(feature = "files")]

use std::ops::Range;

use crate::audit::{BLOCKS, NODE_BYTES, block, byte_offset, repair, written};
use crate::audit_roots::reader_of;
use crate::rig::proofs::block_proof;
use crate::rig::{Contents, Disk, create, open};
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::AcceptError;
use ferrocore_log::manifest::ManifestBuilder;
use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_log::storage::StorageError;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, CoreError, Durability, Manifest};
use ferrocore_primitives::sign::KeyPair;

/// The nodes below the roots.
fn nodes() -> impl Iterator<Item = usize> {
    (0..2 * BLOCKS as usize - 1).filter(|node| ![7, 15, 17, 19, 20].contains(node))
}

/// The core in these files, of which this byte of a node is flipped.
fn damaged(files: &Contents, node: usize, at: usize, flip: u8) -> (Disk, Core) {
    let mut files = files.clone();
    let tree = files.get_mut("tree").unwrap();
    tree.edit(|tree| tree[node * NODE_BYTES + at] ^= flip);
    let disk = Disk::new(files);
    let core = open(&disk, Durability::Buffered).unwrap().unwrap();
    (disk, core)
}

fn check_named(error: &StorageError) {
    let is_named = matches!(error, StorageError::Corrupt { part: "tree", .. });
    assert!(is_named, "{error}");
}

/// An audit mends it, and these blocks are what they were.
fn check_mended(core: &Core, mut blocks: impl Iterator<Item = u64>) {
    let found = repair(core);
    assert!(found.iter().all(|(_, mendable)| *mendable), "{found:?}");
    let is_right = |i: u64| core.get_local(i).unwrap() == Some(block(i));
    assert_eq!(blocks.find(|i| !is_right(*i)), None, "{found:?}");
}

#[test]
fn a_cut_signs_no_node_that_was_not_signed_before() {
    let (files, mut refused) = (written(), 0);
    let sound = open(&Disk::new(files.clone()), Durability::Buffered);
    let sound = sound.unwrap().unwrap();
    for (node, at) in nodes().flat_map(|node| [0, 9].map(|at| (node, at))) {
        for length in 0..BLOCKS {
            let (disk, core) = damaged(&files, node, at, 4);
            let hash = core.tree_hash_at(length);
            let hash = hash.inspect(|hash| assert_eq!(*hash, sound.tree_hash_at(length).unwrap()));
            match core.truncate(length, None) {
                Ok(_) => {
                    hash.unwrap();
                    core.append("goes on").unwrap();
                    assert_eq!(core.get_local(length).unwrap().unwrap(), "goes on");
                    check_mended(&core, 0..length);
                }
                Err(CoreError::Storage(error)) => {
                    check_named(&error);
                    hash.unwrap_err();
                    core.propose_truncate(length, None).unwrap_err();
                    assert_eq!((core.fork(), core.length(), disk.now()), (0, BLOCKS, 0));
                    check_mended(&core, 0..BLOCKS);
                    core.truncate(length, None).unwrap();
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 0);
}

/// Goal: what others sign is assembled with the nodes that they signed, or the damage is told where it is, instead of a signature
/// that nobody takes.
#[test]
fn a_patch_is_made_of_no_damaged_node() {
    let public_keys = [1, 2].map(|seed| KeyPair::from_seed(&[seed; 32]).public_key());
    let builder = Manifest::builder().allow_patch();
    let manifest = public_keys
        .into_iter()
        .fold(builder, ManifestBuilder::signer);
    let manifest = manifest.build().unwrap();
    let verifier = Verifier::new(manifest.key(), manifest).unwrap();
    let (files, mut refused) = (written(), 0);
    let sound = open(&Disk::new(files.clone()), Durability::Buffered);
    let sound = sound.unwrap().unwrap();
    for (shorter, longer) in [(1, BLOCKS), (4, 9), (3, 8), (5, 6)] {
        let parts = [(1, shorter), (2, longer)].map(|(seed, length)| {
            let head = sound.tree_head(length).unwrap();
            let signer = KeyPair::from_seed(&[seed; 32]);
            verifier.sign_part(&head, &signer).unwrap()
        });
        let assemble = |core: &Core| core.assemble_signature(&verifier, shorter, &parts);
        let expected = assemble(&sound).unwrap();
        for (node, at) in nodes().flat_map(|node| [0, 9].map(|at| (node, at))) {
            let (_, core) = damaged(&files, node, at, 4);
            match assemble(&core) {
                Ok(signature) => assert_eq!(signature, expected),
                Err(CoreError::Storage(error)) => {
                    check_named(&error);
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn no_block_goes_that_was_not_cleared() {
    let (files, mut refused) = (written(), 0);
    let ranges: [Range<u64>; 5] = [0..1, 2..4, 5..6, 9..11, 1..10];
    for (node, range) in nodes().flat_map(|node| ranges.clone().map(|range| (node, range))) {
        for (at, flip) in [(0, 0x30), (0, 4), (1, 1), (2, 0x80)] {
            let (disk, core) = damaged(&files, node, at, flip);
            match core.clear(range.clone()) {
                Ok(()) => check_mended(&core, (0..BLOCKS).filter(|i| !range.contains(i))),
                Err(CoreError::Storage(error)) => {
                    check_named(&error);
                    assert_eq!(disk.now(), 0);
                    check_mended(&core, 0..BLOCKS);
                    core.clear(range.clone()).unwrap();
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_block_that_is_fetched_takes_the_place_of_no_other() {
    const HERE: [u64; 5] = [0, 1, 2, 3, 8];
    let (files, mut refused) = (reader_of(&HERE), 0);
    let source = open(&Disk::new(written()), Durability::Buffered);
    let source = source.unwrap().unwrap();
    for (node, index) in nodes().flat_map(|node| [4, 5, 7, 9, 10].map(|index| (node, index))) {
        for (at, flip) in [(0, 4), (1, 1), (9, 1)] {
            let (disk, core) = damaged(&files, node, at, flip);
            let came = core.accept(block_proof(&core, &source, index));
            let is_there = |index: u64| {
                let data = disk.contents()["data"].to_vec();
                data[byte_offset(index)..].starts_with(&block(index))
            };
            if let Err(error) = came {
                let is_named = matches!(
                    error,
                    AcceptError::Unplaced { .. } | AcceptError::Verify(VerifyError::Damaged { .. })
                );
                assert!(is_named, "{error}");
                assert!(!core.has(index));
                refused += 1;
                // Now it is asked for with its whole path, which mends what was damaged.
                core.accept(block_proof(&core, &source, index)).unwrap();
                let found = repair(&core);
                assert!(found.is_empty(), "{found:?}");
            }
            assert!(is_there(index));
            assert!(
                HERE.into_iter().all(is_there),
                "block {index} is over one of them"
            );
            check_mended(&core, HERE.into_iter().chain([index]));
        }
    }
    assert!(refused > 0);
}

/// Goal: what was seen to be damaged is asked for with its whole path no longer once it is mended, or of another history.
#[test]
fn an_audit_and_a_cut_end_doubts() {
    let (files, mut ended) = (written(), 0);
    let doubted = |core: &Core| {
        let missing = |block: &u64| core.missing_nodes(2 * block).unwrap() > 0;
        (0..core.length()).filter(missing).count()
    };
    for (node, repairs) in nodes().flat_map(|node| [(node, true), (node, false)]) {
        let (_, core) = damaged(&files, node, 9, 1);
        for byte in 0..core.byte_length() {
            let _ = core.seek_local(byte);
        }
        if doubted(&core) == 0 {
            continue;
        }
        if repairs {
            repair(&core);
        } else if core.truncate(BLOCKS - 1, None).is_err() {
            continue;
        }
        assert_eq!(doubted(&core), 0, "node {node}, an audit: {repairs}");
        ended += 1 << (16 * u32::from(repairs));
    }
    assert!(ended > 1 << 16 && ended & 0xffff > 0, "{ended:x}");
}

/// Goal: damage that is seen in a history which was cut meanwhile is not doubted in the new one, where it need not be.
#[test]
fn nothing_of_a_history_that_is_no_more_is_doubted() {
    let files = written();
    let source = open(&Disk::new(files.clone()), Durability::Buffered);
    let (source, mut met) = (source.unwrap().unwrap(), [0; 2]);
    let paths = (0..8).flat_map(|index| (0..3).map(move |nodes| NodeRequest { index, nodes }));
    for (node, path) in nodes().flat_map(|node| paths.clone().map(move |path| (node, path))) {
        for is_cut in [false, true] {
            let (_, core) = damaged(&files, node, 9, 1);
            let request = ProofRequest {
                block: Some(path),
                ..ProofRequest::default()
            };
            let mut changeset = core.changeset();
            if is_cut && core.truncate(BLOCKS - 1, None).is_err() {
                continue;
            }
            let proof = source.prove(&request).unwrap().unwrap();
            let result = core.verify_into(&mut changeset, vec![proof]);
            if let [Err(VerifyError::Damaged { .. })] = &result[..] {
                let is_doubted = core.missing_nodes(2 * path.index).unwrap() > 0;
                assert_eq!(is_doubted, !is_cut, "node {node}, {path:?}");
                met[usize::from(is_cut)] += 1;
            }
        }
    }
    assert!(met.iter().all(|met| *met > 0), "{met:?}");
}

/// Goal: whoever waits for a block is not told that it is here if it found no place, however it waits.
#[test]
fn a_block_without_a_place_is_told_to_who_waits_for_it() {
    let (files, source) = (
        reader_of(&[0, 1, 2, 3, 8]),
        open(&Disk::new(written()), Durability::Buffered),
    );
    let source = source.unwrap().unwrap();
    for durability in [Durability::Buffered, Durability::Sync] {
        let mut unplaced = 0;
        for (node, index) in nodes().flat_map(|node| [4, 5, 7, 9, 10].map(|index| (node, index))) {
            let mut files = files.clone();
            let tree = files.get_mut("tree").unwrap();
            tree.edit(|tree| tree[node * NODE_BYTES + 9] ^= 1);
            let core = open(&Disk::new(files), durability).unwrap().unwrap();
            let proof = block_proof(&core, &source, index);
            let came = core.accept_async(proof).wait();
            assert_eq!(came.is_ok(), core.has(index), "block {index}, node {node}");
            unplaced += usize::from(matches!(came, Err(AcceptError::Unplaced { .. })));
        }
        assert!(unplaced > 0);
    }
}

#[test]
fn a_byte_is_found_where_it_is_or_the_damage_is_told() {
    let (files, mut told) = (written(), 0);
    let sound = open(&Disk::new(files.clone()), Durability::Buffered);
    let sound = sound.unwrap().unwrap();
    for node in nodes() {
        for (at, flip) in [(0, 4), (0, 0x18), (1, 1), (7, 1), (9, 1)] {
            let (_, core) = damaged(&files, node, at, flip);
            for byte in 0..sound.byte_length() {
                let right = sound.seek_local(byte).unwrap();
                match core.seek_local(byte) {
                    Ok(found) => assert_eq!(found, right, "byte {byte}, node {node}"),
                    Err(CoreError::Storage(error)) => {
                        check_named(&error);
                        let error = core.byte_range_local(byte..byte + 1).unwrap_err();
                        assert!(matches!(error, CoreError::Storage(_)), "{error}");
                        told += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(told > 0);
}

/// Goal: where a node is not here that proves what a shorter log is made of, as after an audit that gave it up, a cut is refused with
/// the name of a block that brings it; and once that came, it is made.
#[test]
fn a_block_brings_the_node_that_a_cut_lacks() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch((0..8).map(block).collect()).unwrap();
    core.flush().unwrap();
    let source = open(&Disk::new(disk.contents()), Durability::Buffered);
    let source = source.unwrap().unwrap();
    core.clear(4..8).unwrap();
    drop(core);
    let mut files = disk.contents();
    let tree = files.get_mut("tree").unwrap();
    tree.edit(|tree| tree[8 * NODE_BYTES..15 * NODE_BYTES].fill(0));
    let core = open(&Disk::new(files), Durability::Buffered);
    let core = core.unwrap().unwrap();
    let refused = [
        core.truncate(4, None).map(drop),
        core.propose_truncate(4, None).map(drop),
        core.tree_hash_at(4).map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        let CoreError::MissingNodes { index: 4, .. } = error else {
            panic!("{error}")
        };
    }
    core.accept(block_proof(&core, &source, 4)).unwrap();
    core.truncate(4, None).unwrap();
    assert_eq!(core.tree_hash(), source.tree_hash_at(4).unwrap());
}

/// Goal: the hash that a core's signers would sign is never one of something else than was drafted. Method: each byte of each node of
/// a draft is flipped while nobody has it open.
#[test]
fn a_draft_with_a_damaged_node_has_no_wrong_hash() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    core.append_batch((0..3).map(block).collect()).unwrap();
    let draft = core.draft("draft").unwrap();
    draft.append_batch((3..8).map(block).collect()).unwrap();
    let right: Vec<_> = (0..=8).map(|at| draft.tree_hash_at(at).unwrap()).collect();
    drop((draft, core));
    let files = disk.contents();
    let (nodes, mut refused) = (files["draft/tree"].len() / NODE_BYTES, 0);
    for (node, at) in (0..nodes).flat_map(|node| (0..NODE_BYTES).map(move |at| (node, at))) {
        let mut files = files.clone();
        let tree = files.get_mut("draft/tree").unwrap();
        tree.edit(|tree| tree[node * NODE_BYTES + at] ^= 1);
        let core = open(&Disk::new(files), Durability::Buffered);
        let Ok(draft) = core.unwrap().unwrap().draft("draft") else {
            refused += 1;
            continue; // a root
        };
        for (length, right) in (0..).zip(&right) {
            match draft.tree_hash_at(length) {
                Ok(found) => assert_eq!(found, *right, "node {node}, byte {at}, {length} blocks"),
                Err(CoreError::CorruptBlock { index, .. }) => {
                    assert!((3..length).contains(&index));
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
