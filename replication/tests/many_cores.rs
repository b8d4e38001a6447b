//! Thousands of cores on one connection: what an idle one costs, and that it does nothing. In a binary of its
//! own, as it counts what is allocated.

mod common;

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use common::{Pair, blocks};
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
    let cost = ALLOCATOR.allocated().saturating_sub(before) / CORES / 2;
    println!("{CORES} cores, {cost} bytes each");
    assert!(cost <= COST_MAX, "{cost} bytes for a core");
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
}
