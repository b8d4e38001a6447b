use std::collections::BTreeMap;

use bytes::Bytes;
use ferrocore_primitives::sign::KeyPair;
use proptest::prelude::*;

use super::*;
use crate::Core;
use crate::bitfield::Bitfield;
use crate::manifest::Manifest;
use crate::storage::memory::Memory;
use crate::storage::{CoreHeader, CoreStorage, Durability, Head, Storage as _};

const BLOCKS: u64 = 64;
/// Enough for the way down from the root, and not for much beside it.
const FEW_READS: u64 = 64;

/// What is wrong with a node.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Hash,
    Size,
    Gone,
}

fn damage() -> impl Strategy<Value = Vec<(u64, Wrong)>> {
    let wrong = prop_oneof![Just(Wrong::Hash), Just(Wrong::Size), Just(Wrong::Gone)];
    prop::collection::vec((0..2 * BLOCKS - 1, wrong), 1..24)
}

fn damaged(storage: &dyn CoreStorage, places: &[(u64, Wrong)]) {
    let nodes = places.iter().filter_map(|(index, wrong)| {
        let mut node = storage.node(*index).unwrap()?;
        match wrong {
            Wrong::Hash => node.hash = Node::leaf(0, b"another").hash,
            Wrong::Size => node.size ^= 1,
            Wrong::Gone => node = Node::blank(*index),
        }
        Some(node)
    });
    let write = CoreWrite {
        nodes: nodes.collect(),
        ..CoreWrite::default()
    };
    storage.commit(write, Durability::Buffered).unwrap();
}

/// What an audit finds with so many reads a turn, and how often its turn ended in the middle of a search.
fn audited(
    storage: &dyn CoreStorage,
    bits: &Bitfield,
    roots: &Roots,
    reads: u64,
) -> (Report, Vec<Step>, String, usize) {
    let stored = Stored::with_reads(storage, bits, reads);
    let mut auditor = Auditor::default();
    auditor.start(&stored, roots, true).unwrap();
    let mut pauses = 0;
    let mut is_done = false;
    while !is_done {
        stored.begin_turn();
        is_done = auditor.take_turn(&stored).unwrap();
        pauses += usize::from(!auditor.search.is_empty());
    }
    let (steps, write) = auditor.take_found();
    (auditor.report(), steps, format!("{write:?}"), pauses)
}

/// Damages these nodes and compares an audit that pauses with one that does not. Returns how often it paused in the middle of a
/// search.
fn pauses_in(places: &[(u64, Wrong)]) -> usize {
    let key_pair = KeyPair::from_seed(&[1; 32]);
    let manifest = Manifest::single(key_pair.public_key());
    let header = CoreHeader {
        key: manifest.key(),
        manifest: Some(manifest),
        key_pair: None,
        user_data: BTreeMap::new(),
        head: Head::empty(),
    };
    let memory = Memory::new();
    let core = header.key.discovery_key();
    let opened = memory.create(header).unwrap();
    let writer = Core::open(opened, Some(key_pair), Durability::Buffered).unwrap();
    let block = |i: u64| Bytes::from(vec![i as u8; 1 + i as usize % 5]);
    writer
        .append_batch((0..BLOCKS).map(block).collect())
        .unwrap();
    let opened = memory.open(&core).unwrap().unwrap();
    let root = opened.storage.node(BLOCKS - 1).unwrap();
    let roots = Roots::new(BLOCKS, root.into_iter().collect()).unwrap();
    damaged(&*opened.storage, places);
    let audited = |reads| audited(&*opened.storage, &opened.bitfield, &roots, reads);
    let (at_once, paused) = (audited(u64::MAX), audited(FEW_READS));
    assert_eq!(at_once.3, 0);
    assert_eq!(
        (at_once.0, at_once.1, at_once.2),
        (paused.0, paused.1, paused.2)
    );
    paused.3
}

/// Goal: an audit that is made to pause in the middle of a search finds what another finds that is not. Method: all that is near
/// the root is wrong, so that what the root is made of is found by all that lies below.
#[test]
fn a_pause_in_a_search_changes_nothing() {
    let above = [15, 31, 47, 79, 95, 111].map(|index| (index, Wrong::Hash));
    assert!(pauses_in(&above) > 0);
}

proptest! {
    /// Goal: the same, whatever is damaged.
    #[test]
    fn pauses_change_nothing(places in damage()) {
        pauses_in(&places);
    }
}
