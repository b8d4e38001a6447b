//! Reading and proving several blocks at once: the same answers as one by one, whatever is wrong with one of
//! them.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, Corestore, StoreOptions};

const BLOCKS: u64 = 300;

fn block(index: u64) -> Bytes {
    vec![index as u8; 1 + index as usize % 200].into()
}

/// A core on disk that lacks blocks 10 to 20, closed and opened again: `damage` may change its data between.
fn opened(directory: &tempfile::TempDir, damage: impl FnOnce(&mut [u8])) -> Core {
    let open = || Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = open().get_named("core").unwrap();
    core.append_batch((0..BLOCKS).map(block).collect()).unwrap();
    core.clear(10..20).unwrap();
    let name = core.discovery_key().to_string();
    drop(core);
    let [first, second] = [&name[..2], &name[2..4]];
    let path: PathBuf = ["corestore/cores", first, second, &name, "data"]
        .iter()
        .collect();
    let path = directory.path().join(path);
    let mut data = fs::read(&path).unwrap();
    damage(&mut data);
    fs::write(&path, data).unwrap();
    open().get_named("core").unwrap()
}

fn byte_offset(index: u64) -> usize {
    (0..index).map(|index| block(index).len()).sum()
}

/// Goal: blocks that are not here, are damaged or past the end are told as one by one, and harm no other.
#[test]
fn several_blocks_are_read_as_each_alone() {
    let directory = tempfile::tempdir().unwrap();
    let core = opened(&directory, |data| data[byte_offset(7)] ^= 1);
    let indexes: Vec<_> = (0..BLOCKS + 2).chain([5, 5, 7]).collect();
    let together = core.get_local_all(&indexes, usize::MAX);
    assert_eq!(together.len(), indexes.len());
    for (index, read) in indexes.into_iter().zip(together) {
        match index {
            7 => assert!(read.unwrap_err().to_string().contains("block 7")),
            10..20 | BLOCKS.. => assert_eq!(read.unwrap(), None),
            _ => assert_eq!(read.unwrap(), Some(block(index))),
        }
    }
}

/// Goal: blocks that lie one behind the other are read together, and damage to one, or an end of the file in
/// the middle of them, costs only those that it hits.
#[test]
fn neighbours_of_a_damaged_block_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let core = opened(&directory, |data| {
        data[byte_offset(30)..byte_offset(31)].fill(0xee);
    });
    let end = byte_offset(290) as u64;
    let name = core.discovery_key().to_string();
    drop(core);
    let [first, second] = [&name[..2], &name[2..4]];
    let place = ["corestore/cores", first, second, &name, "data"];
    let path = directory.path().join(place.iter().collect::<PathBuf>());
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(end + 1).unwrap(); // block 290 has more than a byte
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = store.get_named("core").unwrap();
    let indexes: Vec<_> = (25..35).chain(285..295).collect();
    let reads = core.get_raw_all(&indexes, usize::MAX);
    for (index, read) in indexes.into_iter().zip(reads) {
        match index {
            30 | 290.. => assert!(read.is_err(), "block {index}"),
            _ => assert_eq!(read.unwrap(), Some(block(index))),
        }
    }
}

#[test]
fn no_more_is_read_than_there_is_room_for() {
    let directory = tempfile::tempdir().unwrap();
    let core = opened(&directory, |_| ());
    let (indexes, sizes) = ([99, 12, 50, 98], [100, 0, 51, 99]);
    for bytes_max in 0..300 {
        let mut fits = 1;
        while fits < 4 && sizes[..=fits].iter().sum::<usize>() <= bytes_max.max(sizes[0]) {
            fits += 1;
        }
        assert_eq!(
            core.get_raw_all(&indexes, bytes_max).len(),
            fits,
            "{bytes_max}"
        );
    }
    assert!(core.get_raw_all(&[], 10).is_empty());
}

/// Goal: proofs made together are those made one by one, in every kind of request.
#[test]
fn several_requests_are_proven_as_each_alone() {
    let directory = tempfile::tempdir().unwrap();
    let core = opened(&directory, |data| data[byte_offset(7)] ^= 1);
    let node = |index| Some(NodeRequest { index, nodes: 3 });
    let (none, fork) = (ProofRequest::default(), 1);
    let mut requests = vec![
        none.clone(),
        ProofRequest {
            fork,
            ..none.clone()
        },
    ];
    for index in [0, 7, 12, 50, 51, 299, 300, 301] {
        requests.push(ProofRequest {
            block: node(index),
            ..none.clone()
        });
        requests.push(ProofRequest {
            block: node(index),
            fork,
            ..none.clone()
        });
        requests.push(ProofRequest {
            hash: node(2 * index),
            manifest: true,
            ..none.clone()
        });
    }
    let upgrade = Some(UpgradeRequest {
        start: 0,
        length: BLOCKS,
    });
    requests.push(ProofRequest {
        block: node(3),
        upgrade,
        ..none
    });
    let together = core.prove_all(&requests, usize::MAX);
    assert_eq!(together.len(), requests.len());
    for (request, proof) in requests.iter().zip(together) {
        match (proof, core.prove(request)) {
            (Ok(proof), Ok(alone)) => assert_eq!(proof, alone),
            (Err(error), Err(alone)) => assert_eq!(error.to_string(), alone.to_string()),
            differing => panic!("{request:?}: {differing:?}"),
        }
    }
    let blocks = [50, 51, 52].map(|index| ProofRequest {
        block: node(index),
        ..ProofRequest::default()
    });
    assert_eq!(core.prove_all(&blocks, 51 + 52).len(), 2);
}
