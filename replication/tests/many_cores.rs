//! Thousands of cores on one connection: what an idle one costs, and that it does nothing. In a binary of its
//! own, as it counts what is allocated.

mod common;

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use common::{End, Pair, blocks};
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, Corestore};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const CORES: usize = 10_000;

/// Bytes that an idle core may cost each end of a connection.
const COST_MAX: usize = 1024;

/// Goal: 10,000 idle cores cost each end little, wake nobody for 10 s, and one that gets news is
/// not lost among them. Method: cores are open on both sides before the connection is made; what is allocated
/// then is what the connection costs.
#[test]
fn idle_cores_cost_little_and_do_nothing() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let writers: Vec<Core> = (0..CORES)
        .map(|number| {
            let writer = here.get_named(&format!("core {number}")).unwrap();
            writer.append_batch(blocks(2)).unwrap();
            writer
        })
        .collect();
    let readers: Vec<Core> = writers
        .iter()
        .map(|writer| there.get(&writer.key()).unwrap())
        .collect();
    // They are up to date, and no peer was ever there.
    for (writer, reader) in writers.iter().zip(&readers) {
        let request = ProofRequest {
            upgrade: Some(UpgradeRequest {
                start: 0,
                length: 2,
            }),
            manifest: true,
            ..ProofRequest::default()
        };
        reader
            .accept(writer.prove(&request).unwrap().unwrap())
            .unwrap();
    }

    let before = ALLOCATOR.allocated();
    let mut pair = Pair::new(&here, &there);
    for reader in &readers {
        pair.b.connection.attach(reader);
    }
    pair.drive();
    // What is on the way is neither end's.
    pair.a.arriving.shrink_to_fit();
    pair.b.arriving.shrink_to_fit();
    let both = ALLOCATOR.allocated().saturating_sub(before);
    let of_readers = readers.iter().map(|reader| reader.supply().suppliers());
    assert_eq!(
        of_readers.sum::<usize>(),
        CORES,
        "each is on the connection"
    );

    let frames = (pair.a.received_bytes, pair.b.received_bytes);
    assert_eq!(pair.a.connection.next_timeout(), None);
    assert_eq!(pair.b.connection.next_timeout(), None);
    pair.now += Duration::from_secs(10);
    assert!(pair.a.is_idle() && pair.b.is_idle(), "nobody was woken");
    pair.drive();
    assert_eq!((pair.a.received_bytes, pair.b.received_bytes), frames);

    writers[7_777].append("news").unwrap();
    pair.drive();
    assert_eq!(readers[7_777].length(), 3);
    let length: u64 = readers.iter().map(Core::length).sum();
    assert_eq!(length, 2 * CORES as u64 + 1);

    // What an end gives back is its own, and what neither does counts for each.
    let Pair { a, b, .. } = pair;
    let [at_reader, at_writer] = [b, a].map(given_back);
    let left = both.saturating_sub(at_reader + at_writer);
    let costs = [at_reader, at_writer].map(|given_back| (given_back + left) / CORES);
    println!(
        "{CORES} cores: {costs:?} bytes each at who reads and who writes, {left} in all that stay"
    );
    assert!(
        costs.iter().all(|cost| *cost <= COST_MAX),
        "{costs:?} bytes for a core"
    );
}

/// Bytes that an end takes.
fn given_back(end: End) -> usize {
    let before = ALLOCATOR.allocated();
    drop(end);
    before - ALLOCATOR.allocated()
}
