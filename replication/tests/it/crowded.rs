//! Goal: whoever has answers wait, for others or for the device, leaves room for the answers of others.
//! Method: scripts whose garbage waits for what they never say, and an honest peer that is faster than the device, on
//! connections that share what answers may take. What an honest peer gets is counted in commits, not in time.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ferrocore_log::core::Download;
use ferrocore_log::proof::{BlockProof, Proof};
use ferrocore_replication::limits::{KEPT_BYTES_ALL_MAX, PARKED_LOOK_INTERVAL};
use ferrocore_replication::messages::{Data, Message, Request};
use ferrocore_replication::session::PeersMemory;

use crate::common::gate::reader;
use crate::common::script::{Script, before_reader, range, sync_of};
use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};
use crate::hostile::block_requests;

/// Blocks of a log whose paths all lead to one root.
const COUNT: u64 = 4096;

/// A peer whose own log is read, and which answers all requests but the first with garbage of `len` bytes, until it is asked
/// nothing more. It goes on while its log is wanted.
fn park(shared: &PeersMemory, len: usize) -> (Script, Download) {
    let (_, reader, mut script) = before_reader(&blocks(COUNT as usize));
    script.victim.connection.share_answers(shared);
    let all = reader.download_all();
    script.say(&sync_of(COUNT));
    script.say(&range(false, 0, COUNT));
    let mut asked = block_requests(&script.deliver().unwrap());
    asked.remove(0);
    answer_garbage(&mut script, asked, len);
    (script, all)
}

/// Answers these requests with garbage, and what is asked then.
fn answer_garbage(script: &mut Script, mut asked: Vec<Request>, len: usize) {
    while !asked.is_empty() {
        for request in asked {
            let block = BlockProof {
                index: request.proof.block.unwrap().index,
                value: Bytes::from(vec![7; len]),
                nodes: Vec::new(),
            };
            let proof = Proof {
                block: Some(block),
                ..Proof::default()
            };
            let request = request.id;
            script.say(&Message::Data(Data { request, proof }));
        }
        asked = block_requests(&script.deliver().unwrap());
    }
}

/// In how many commits a durable reader has all of `blocks`, from a peer that answers while the device takes nothing; and how
/// many answers were dropped.
fn commits_for(blocks: &[Bytes], shared: &PeersMemory) -> (usize, u64) {
    let (here, writer, there, _) = writer_and_reader(blocks);
    let (reader, gate) = reader(&writer.key());
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.share_answers(shared);
    pair.b.connection.attach(&reader);
    let (_all, mut commits) = (reader.download_all(), 0);
    while reader.contiguous_length() < writer.length() || reader.length() == 0 {
        gate.close();
        pair.pass(Duration::from_millis(1));
        assert_eq!(pair.b.connection.backlog().commits, 1);
        gate.await_sync();
        gate.open();
        while pair.b.is_idle() {
            thread::yield_now(); // until it is told that the device has all
        }
        commits += 1;
    }
    pair.drive_all();
    assert_complete_copy(&writer, &reader);
    (commits, pair.b.stats().answers_dropped)
}

fn shared() -> PeersMemory {
    PeersMemory::new(KEPT_BYTES_ALL_MAX)
}

fn blocks_of(count: u32, len: usize) -> Vec<Bytes> {
    let block = |index: u32| Bytes::from(format!("{index:0len$}"));
    (0..count).map(block).collect()
}

#[test]
fn garbage_that_waits_leaves_room_to_others() {
    for (count, len) in [(2000, 10), (400, 16 * 1024)] {
        let blocks = blocks_of(count, len);
        let (alone, _) = commits_for(&blocks, &shared());
        let shared = shared();
        let _parked = park(&shared, 128 * 1024);
        let held = shared.held();
        assert!(
            held > KEPT_BYTES_ALL_MAX / 3 * 2,
            "{held}: it does its worst"
        );
        let (beside, _) = commits_for(&blocks, &shared);
        assert!(
            beside <= 2 * alone,
            "{count} x {len}: {beside} commits beside it, {alone} alone"
        );
    }
}

/// Goal: nobody gives up what nobody else wants.
#[test]
fn answers_wait_as_long_as_there_is_room() {
    let shared = shared();
    let (mut script, _all) = park(&shared, 128 * 1024);
    let held = shared.held();
    script.now += 2 * PARKED_LOOK_INTERVAL;
    script.deliver().unwrap();
    assert_eq!(shared.held(), held);
}

/// Goal: however many take what those before them have left, they give it back in seconds when somebody finds too little, and do
/// not get it again by the same means.
#[test]
fn garbage_that_waits_makes_way() {
    let (blocks, shared) = (blocks_of(2000, 10), shared());
    let (alone, _) = commits_for(&blocks, &shared);
    let mut parked: Vec<_> = (0..8).map(|_| park(&shared, 128 * 1024)).collect();
    let held = shared.held();
    assert!(held > KEPT_BYTES_ALL_MAX - 128 * 1024, "{held}");
    let (beside, dropped) = commits_for(&blocks, &shared);
    assert!(dropped > 0 && beside > 2 * alone, "{beside} commits");
    for (script, _) in &mut parked {
        script.now += PARKED_LOOK_INTERVAL;
        let asked = block_requests(&script.deliver().unwrap());
        let whole = |asked: &Request| asked.proof.block.unwrap().nodes == u64::from(COUNT.ilog2());
        assert!(asked.len() > 1 && asked.iter().all(whole));
        // Each answer is judged now, whether the first comes or not.
        answer_garbage(script, asked[1..].to_vec(), 128 * 1024);
        assert_eq!(script.victim.stats().proofs_refused, 1);
        assert_eq!(
            script.victim.connection.backlog().requests,
            0,
            "nor ever again"
        );
    }
    assert_eq!(shared.held(), 0);
    let (beside, _) = commits_for(&blocks, &shared);
    assert_eq!(beside, alone);
}
