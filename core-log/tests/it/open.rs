//! Goal: a core opens only if its head is signed: a writer never signs on top of what is damaged.
//! Method: every kind of core is opened again, then with a head that nobody signed.
#![cfg(feature = "files")]

use std::collections::BTreeMap;

use crate::rig::{Contents, Disk, create, open};
use bytes::Bytes;
use ferrocore_log::manifest::{Prologue, Signer};
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::storage::{
    BitWrite, BlockWrite, CoreHeader, CoreWrite, Head, HeadWrite, OpenedCore, Storage as _,
    StorageError,
};
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, CoreError, Durability, Manifest};
use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::namespace;
use ferrocore_primitives::sign::KeyPair;

const BLOCKS: [&str; 5] = ["a", "bc", "def", "", "ghij"];

fn key_pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn tree(length: usize) -> (Roots, Vec<Node>) {
    let (mut roots, mut nodes) = (Roots::default(), Vec::new());
    for (block, index) in BLOCKS[..length].iter().zip(0..) {
        let leaf = Node::leaf(index, block.as_bytes());
        nodes.push(leaf);
        roots.push(leaf, |parent| nodes.push(parent)).unwrap();
    }
    (roots, nodes)
}

/// A core with this head as storage has it.
fn stored(key: Key, manifest: Option<Manifest>, length: usize, signature: Bytes) -> OpenedCore {
    let header = CoreHeader {
        key,
        manifest,
        key_pair: None,
        user_data: BTreeMap::new(),
        head: Head::empty(),
    };
    let memory = Memory::new();
    let opened = memory.create(header).unwrap();
    let (roots, nodes) = tree(length);
    let head = Head {
        fork: 0,
        length: roots.length(),
        root_hash: roots.hash(),
        signature,
    };
    let blocks = BLOCKS[..length].iter().copied().map(Bytes::from).collect();
    let write = CoreWrite {
        nodes,
        blocks: vec![BlockWrite {
            byte_offset: 0,
            blocks,
        }],
        bits: vec![BitWrite {
            range: 0..roots.length(),
            value: true,
        }],
        head: Some(HeadWrite { head, ancestors: 0 }),
        ..CoreWrite::default()
    };
    opened.storage.commit(write, Durability::Buffered).unwrap();
    memory.open(&key.discovery_key()).unwrap().unwrap()
}

fn start(opened: OpenedCore) -> Result<Core, CoreError> {
    Core::open(opened, None, Durability::Buffered)
}

fn assert_corrupt(result: Result<Core, CoreError>) {
    let Err(CoreError::Storage(StorageError::Corrupt { part: "head", .. })) = result else {
        panic!("{result:?} where the head is not signed");
    };
}

/// Signs as the first and the last signer of `verifier`.
fn signature(verifier: &Verifier, length: usize) -> Bytes {
    let head = TreeHead::of(0, &tree(length).0);
    let signers = verifier.manifest().signers.iter();
    let seeds = (1..=3).filter(|seed| {
        let public_key = key_pair(*seed).public_key();
        signers
            .clone()
            .any(|signer| signer.public_key == public_key)
    });
    let parts: Vec<_> = seeds
        .map(|seed| verifier.sign_part(&head, &key_pair(seed)).unwrap())
        .collect();
    let node = |index| Err(index) as Result<Node, u64>;
    verifier.assemble(length as u64, &parts, node).unwrap()
}

fn quorum(version: u64) -> Manifest {
    let signer = |seed| Signer {
        namespace: namespace::default_namespace(),
        public_key: key_pair(seed).public_key(),
    };
    Manifest {
        version,
        quorum: 2,
        signers: [1, 2, 3].map(signer).to_vec(),
        ..Manifest::single(key_pair(1).public_key())
    }
}

#[test]
fn every_kind_of_core_opens_with_a_signed_head_only() {
    let public_key = key_pair(1).public_key();
    let compat_key = Key::from(*public_key.as_bytes());
    let hashed = |manifest: Manifest| (manifest.key(), Some(manifest));
    let pinned = Prologue {
        hash: tree(3).0.hash(),
        length: 3,
    };
    let kinds = [
        ("compat", (compat_key, Some(Manifest::single(public_key)))),
        ("compat without a manifest", (compat_key, None)),
        ("version 0", hashed(Manifest::compat(public_key))),
        ("version 0, quorum", hashed(quorum(0))),
        ("version 1", hashed(Manifest::single(public_key))),
        ("version 1, quorum", hashed(quorum(1))),
        (
            "version 2, linked, with user data",
            hashed(Manifest {
                linked: Some(vec![compat_key]),
                user_data: Some(b"about it".to_vec()),
                ..quorum(2)
            }),
        ),
        ("version 3, quorum", hashed(quorum(3))),
        (
            "pinned beginning and signer",
            hashed(Manifest {
                prologue: Some(pinned),
                ..Manifest::single(public_key)
            }),
        ),
    ];
    for (kind, (key, manifest)) in kinds {
        let verifier = match &manifest {
            Some(manifest) => Verifier::new(key, manifest.clone()).unwrap(),
            None => Verifier::compat(key),
        };
        let signature = signature(&verifier, 5);
        let open = |length, signature| start(stored(key, manifest.clone(), length, signature));
        let core = open(5, signature.clone()).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(core.length(), 5, "{kind}");
        assert_eq!(open(0, Bytes::new()).unwrap().length(), 0, "{kind}");
        assert_corrupt(open(4, signature.clone()));
        assert_corrupt(open(5, Bytes::new()));
        let mut flipped = signature.to_vec();
        flipped[10] ^= 1;
        assert_corrupt(open(5, flipped.into()));
    }
}

#[test]
fn a_static_core_opens_if_it_is_what_its_manifest_pins() {
    let pinned = |hash: Hash| Manifest {
        quorum: 0,
        signers: Vec::new(),
        prologue: Some(Prologue { hash, length: 3 }),
        ..Manifest::single(key_pair(1).public_key())
    };
    let right = pinned(tree(3).0.hash());
    let open = |manifest: &Manifest, length| {
        start(stored(
            manifest.key(),
            Some(manifest.clone()),
            length,
            Bytes::new(),
        ))
    };
    assert_eq!(open(&right, 3).unwrap().length(), 3);
    assert_eq!(open(&right, 0).unwrap().length(), 0);
    assert_corrupt(open(&right, 2));
    assert_corrupt(open(&right, 4));
    assert_corrupt(open(&pinned(tree(2).0.hash()), 3));
}

/// Goal: the head of a journal names no root hash, so only its signature tells that a root in
/// `tree` is damaged.
#[test]
fn a_damaged_root_beside_a_journal_is_told() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    let blocks = ["a", "b", "c", "d"].map(Bytes::from);
    core.append_batch(blocks.to_vec()).unwrap();
    core.flush().unwrap();
    core.append("e").unwrap();
    let killed = disk.contents();
    let nodes_of_root = 3 * 40..4 * 40;
    for byte in nodes_of_root {
        let mut damaged = killed.clone();
        let tree = damaged.get_mut("tree").unwrap();
        tree.edit(|tree| tree[byte] ^= 1);
        let opened = open(&Disk::new(damaged), Durability::Buffered);
        assert!(
            matches!(opened, Err(StorageError::Corrupt { .. })),
            "byte {byte}"
        );
    }
    assert!(open(&Disk::new(killed), Durability::Buffered).is_ok());
}

/// Goal: a damaged core can still be looked at, but not written.
#[test]
fn a_core_that_nobody_signed_opens_for_reading_if_that_is_asked_for() {
    let manifest = Manifest::single(key_pair(1).public_key());
    let junk = Bytes::from_static(&[7; 68]);
    let opened = stored(manifest.key(), Some(manifest), 5, junk);
    let core = Core::danger_open_unverified(opened, Durability::Buffered).unwrap();
    assert_eq!(core.get_local(2).unwrap().unwrap(), "def");
    assert!(!core.is_writable());
}
