//! Goal: a reader that holds a block far into a long log takes the disk that block takes, not what lies before it.
//! Method: what the file system says that the reader's files take.
#![cfg(all(unix, feature = "files"))]

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::{Corestore, StoreOptions};

const BLOCKS: u64 = 20_000;
const BLOCK_BYTES: usize = 1_000;
/// All that a reader of one block may take: its files' pages around that block, and the nodes that prove it.
const BYTES_MAX: u64 = 512 << 10;

#[test]
fn a_block_far_into_a_log_takes_no_room_for_those_before() {
    let writer = Corestore::memory().get_named("writer").unwrap();
    let block = |i: u64| Bytes::from(vec![i as u8; BLOCK_BYTES]);
    writer
        .append_batch((0..BLOCKS).map(block).collect())
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let reader = store.get(&writer.key()).unwrap();
    let last = BLOCKS - 1;
    let request = ProofRequest {
        block: Some(NodeRequest {
            index: last,
            nodes: 0,
        }),
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: BLOCKS,
        }),
        manifest: true,
        ..ProofRequest::default()
    };
    reader
        .accept(writer.prove(&request).unwrap().unwrap())
        .unwrap();
    reader.flush().unwrap();
    assert_eq!(reader.get_local(last).unwrap(), Some(block(last)));
    let lengths = sum(directory.path(), Metadata::len);
    let allocated = sum(directory.path(), |file| 512 * file.blocks());
    assert!(
        lengths > BLOCKS * BLOCK_BYTES as u64,
        "its data ends where the writer's does: {lengths}"
    );
    assert!(allocated < BYTES_MAX, "{allocated} bytes");
}

/// A size of all files below a path, in all.
fn sum(path: &Path, size: fn(&Metadata) -> u64) -> u64 {
    let metadata = std::fs::metadata(path).unwrap();
    if metadata.is_file() {
        return size(&metadata);
    }
    let below = std::fs::read_dir(path).unwrap();
    below.map(|entry| sum(&entry.unwrap().path(), size)).sum()
}
