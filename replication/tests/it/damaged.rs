//! Goal: a reader whose tree was damaged on its disk gets what it asks for all the same, from honest peers, whom it does not
//! blame; what comes takes the place of what was damaged.
//! Method: two connections on virtual time; the reader's files are changed while nobody has them open.

use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::common::{Pair, blocks};
use ferrocore_log::{Core, Corestore, StoreOptions};
use ferrocore_primitives::keys::DiscoveryKey;

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
