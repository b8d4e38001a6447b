//! Goal: what comes from a peer reaches the device before anybody sees it, and no poll waits for that.
//! Method: a reader with `Durability::Sync` on files whose syncs note their thread and wait at a gate, at one
//! end of a pair on virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::gate::{Gate, reader};
use crate::common::script::{Script, range, sync_of};
use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::core::Download;
use ferrocore_log::events::Event;
use ferrocore_log::fuzzing::claimed;
use ferrocore_log::proof::{BlockProof, NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::push::PushMode;
use ferrocore_log::supply::{All, Claim};
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::limits::{KEPT_BYTES_MAX, UNSTORED_BYTES_MAX};
use ferrocore_replication::messages::{Data, Message, Request};
use ferrocore_replication::session::SessionOptions;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split};
use tokio::task::yield_now;

/// A writer with `count` blocks, a durable reader, and the two connected.
fn connected(count: usize, mode: PushMode) -> (Core, Core, Gate, Pair) {
    let (here, writer, there, _) = writer_and_reader(&blocks(count));
    let (reader, gate) = reader(&writer.key());
    reader.set_push_mode(mode);
    gate.lock().by.clear();
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    (writer, reader, gate, pair)
}

/// Drives the pair until nothing is on its way to the device.
fn drive_all(pair: &mut Pair) {
    loop {
        pair.drive();
        if pair.b.connection.backlog().commits == 0 {
            return;
        }
        thread::yield_now();
    }
}

fn assert_synced_elsewhere(gate: &Gate) {
    let syncs = std::mem::take(&mut gate.lock().by);
    assert!(!syncs.is_empty());
    assert!(!syncs.contains(&thread::current().id()), "a poll waited");
}

#[test]
fn nobody_sees_what_came_before_it_is_durable() {
    let (writer, reader, gate, mut pair) = connected(300, PushMode::Refuse);
    let events = reader.events();
    gate.close();
    pair.drive();
    gate.await_sync();
    pair.drive();
    assert_eq!(pair.b.connection.backlog().commits, 1);
    assert_eq!((reader.length(), events.try_next()), (0, None));
    let told = |pair: &Pair| pair.a.connection.core_stats()[0].remote_length;
    assert_eq!(told(&pair), 0, "not even the peer");
    gate.open();
    drive_all(&mut pair);
    assert_eq!((reader.length(), told(&pair)), (300, 300));

    let _all = reader.download_all();
    gate.close();
    pair.drive();
    gate.await_sync();
    pair.drive();
    assert_eq!(reader.contiguous_length(), 0);
    assert!(reader.get_local(0).unwrap().is_none());
    gate.open();
    drive_all(&mut pair);
    assert_complete_copy(&writer, &reader);
    let blocks = std::iter::from_fn(|| events.try_next())
        .filter(|event| matches!(event, Event::Have(_)))
        .count();
    assert!(blocks > 0);
    assert_eq!(pair.b.stats().blocks_downloaded, 300);
    assert_synced_elsewhere(&gate);
}

#[test]
fn a_log_that_goes_on_is_followed() {
    let (writer, reader, gate, mut pair) = connected(10, PushMode::Refuse);
    let _all = reader.download_all();
    for _ in 0..20 {
        writer.append_batch(blocks(37)).unwrap();
        pair.step();
    }
    drive_all(&mut pair);
    assert_complete_copy(&writer, &reader);
    assert_eq!(pair.b.stats().proofs_refused, 0);
    assert_eq!(pair.b.stats().blocks_downloaded, 750);
    assert_synced_elsewhere(&gate);
}

#[test]
fn a_fork_is_followed() {
    let (writer, reader, gate, mut pair) = connected(100, PushMode::Refuse);
    let _all = reader.download_all();
    drive_all(&mut pair);
    gate.close();
    writer.truncate(41, None).unwrap();
    writer.append_batch(blocks(30)).unwrap();
    pair.drive();
    gate.await_sync();
    pair.drive();
    assert_eq!((reader.fork(), reader.length()), (0, 100));
    assert_eq!(pair.b.connection.backlog().commits, 1);
    gate.open();
    drive_all(&mut pair);
    assert_eq!(reader.fork(), 1);
    assert_complete_copy(&writer, &reader);
    assert_synced_elsewhere(&gate);
}

#[test]
fn what_is_pushed_is_stored_in_order() {
    let (writer, reader, gate, mut pair) = connected(0, PushMode::Only);
    pair.drive();
    gate.close();
    for block in blocks(20) {
        let length = writer.append(block).unwrap().length;
        writer.push(length - 1);
        pair.drive();
    }
    gate.await_sync();
    assert_eq!(reader.length(), 0);
    gate.open();
    drive_all(&mut pair);
    assert_complete_copy(&writer, &reader);
    assert_eq!(pair.b.stats().requests_sent, 0);
    assert_synced_elsewhere(&gate);
}

#[test]
fn a_device_that_fails_ends_the_download() {
    let (_writer, reader, gate, mut pair) = connected(50, PushMode::Refuse);
    let _all = reader.download_all();
    gate.lock().fail = true;
    drive_all(&mut pair);
    assert_eq!(reader.length(), 0, "nobody sees what may be lost");
    assert_eq!(reader.supply().suppliers(), 0, "nothing more is asked for");
}

/// A script before a durable reader that knows the length, wants all, and waits for the device since it was given one
/// block; its requests for others, and the honest store.
fn waiting(count: usize) -> (Script, Vec<Request>, Corestore, Core, Core, Gate, Download) {
    let (here, writer, there, _) = writer_and_reader(&blocks(count));
    let (reader, gate) = reader(&writer.key());
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    drive_all(&mut pair);
    let mut honest = Script::open(&here, &writer);
    honest.deliver().unwrap();
    let mut script = Script::open(&there, &reader);
    script.victim.connection.attach(&reader);
    script.deliver().unwrap();
    script.say(&sync_of(count as u64));
    script.say(&range(false, 0, count as u64));
    let all = reader.download_all();
    let asked = script.deliver().unwrap().into_iter();
    let requests = asked.filter_map(|message| match message {
        Message::Request(request) if request.proof.block.is_some() => Some(request),
        _ => None,
    });
    let mut requests: Vec<Request> = requests.collect();
    honest.say(&Message::Request(requests.remove(0)));
    gate.close();
    script.say(&honest.deliver().unwrap()[0]);
    script.deliver().unwrap();
    gate.await_sync();
    assert_eq!(script.victim.connection.backlog().commits, 1);
    (script, requests, here, writer, reader, gate, all)
}

/// A long block that does not hold, as an answer to `request`.
fn garbage(request: u64, index: u64) -> Message {
    let block = BlockProof {
        index,
        value: Bytes::from(vec![7; 4 * 1024 * 1024]),
        nodes: Vec::new(),
    };
    let proof = Proof {
        block: Some(block),
        ..Proof::default()
    };
    Message::Data(Data { request, proof })
}

/// The script says long garbage, more than may be kept, and then the gate opens.
fn assert_bounded(script: &mut Script, garbage: Vec<Message>, gate: &Gate) {
    let kept = |script: &Script| script.victim.connection.backlog().kept_bytes;
    assert!(garbage.len() * (4 << 20) > KEPT_BYTES_MAX + (8 << 20));
    for message in garbage {
        script.say(&message);
        script.deliver().unwrap();
        assert!(kept(script) <= KEPT_BYTES_MAX);
    }
    assert!(
        kept(script) > KEPT_BYTES_MAX - (8 << 20),
        "{}",
        kept(script)
    );
    gate.open();
    while script.victim.connection.backlog().commits > 0 {
        script.deliver().unwrap();
        thread::yield_now();
    }
    assert_eq!(kept(script), 0);
}

#[test]
fn garbage_that_waits_for_the_device_is_bounded() {
    let (mut script, asked, here, writer, reader, gate, _wanted) = waiting(40);
    let answers = asked
        .iter()
        .map(|asked| garbage(asked.id, asked.proof.block.unwrap().index));
    assert_bounded(&mut script, answers.collect(), &gate);
    assert!(script.victim.stats().answers_dropped > 0);
    let mut pair = Pair::new(&here, &script.victim.store);
    pair.b.connection.attach(&reader);
    let _all = reader.download_all();
    drive_all(&mut pair);
    assert_complete_copy(&writer, &reader);
}

/// Goal: who answers truly and fast sends nothing twice because the device takes its time, however much is in flight.
#[test]
fn nothing_is_dropped_of_a_peer_that_is_faster_than_the_device() {
    const LEN: usize = 64 * 1024;
    let blocks: Vec<_> = (0..1200_u32)
        .map(|index| Bytes::from(index.to_le_bytes().repeat(LEN / 4)))
        .collect();
    let (here, writer, there, _) = writer_and_reader(&blocks);
    let (reader, gate) = reader(&writer.key());
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    drive_all(&mut pair);
    let _all = reader.download_all();
    let mut kept_max = 0;
    while reader.contiguous_length() < 1200 {
        gate.close();
        pair.pass(Duration::from_millis(1));
        kept_max = kept_max.max(pair.b.connection.backlog().kept_bytes);
        gate.open();
        thread::yield_now();
    }
    drive_all(&mut pair);
    let stats = pair.b.stats();
    println!("{kept_max} bytes waited, {stats:?}");
    assert!(kept_max > UNSTORED_BYTES_MAX as usize && kept_max <= KEPT_BYTES_MAX);
    assert_eq!((stats.answers_dropped, stats.blocks_downloaded), (0, 1200));
    assert_complete_copy(&writer, &reader);
}

#[test]
fn long_pushes_that_wait_for_the_device_are_bounded() {
    let (writer, reader, gate, mut pair) = connected(40, PushMode::Allow);
    drive_all(&mut pair);
    drop(pair);
    let mut script = Script::open(&Corestore::memory(), &reader);
    script.victim.connection.attach(&reader);
    script.deliver().unwrap();
    script.say(&sync_of(40));
    script.deliver().unwrap();
    let request = ProofRequest {
        block: Some(NodeRequest { index: 0, nodes: 5 }),
        ..ProofRequest::default()
    };
    let proof = writer.prove(&request).unwrap().unwrap();
    gate.close();
    script.say(&Message::Data(Data { request: 0, proof }));
    script.deliver().unwrap();
    gate.await_sync();
    let pushes = (1..26).map(|index| garbage(0, index));
    assert_bounded(&mut script, pushes.collect(), &gate);
    assert_eq!(reader.count(0..40), 1);
    assert!(script.is_open(&reader));
}

/// Goal: a block that is stored in memory, or waits for the device, keeps nothing else that came in its frame.
#[test]
fn a_short_block_keeps_no_long_frame() {
    let (_, writer, _, in_memory) = writer_and_reader(&["x".into()]);
    let (durable, gate) = reader(&writer.key());
    gate.close();
    for reader in [in_memory, durable] {
        let asked = ProofRequest {
            block: Some(NodeRequest { index: 0, nodes: 0 }),
            upgrade: Some(UpgradeRequest {
                start: 0,
                length: 1,
            }),
            manifest: true,
            ..ProofRequest::default()
        };
        let mut proof = writer.prove(&asked).unwrap().unwrap();
        let frame = Bytes::from(vec![b'x'; 1000]);
        proof.block.as_mut().unwrap().value = frame.slice(..1);
        let stored = reader.accept_async(proof);
        assert!(frame.is_unique());
        gate.open();
        stored.wait().unwrap();
        assert_eq!(reader.get_local(0).unwrap().unwrap(), "x");
    }
}

/// Goal: when the peer is gone, what it has not answered is free for others, while what came still waits for the device.
#[test]
fn who_is_gone_claims_nothing_while_the_device_is_waited_for() {
    let (mut script, asked, _here, _writer, reader, gate, _wanted) = waiting(40);
    let beside = reader.supply().attach(Arc::new(|| {}));
    let claim = || reader.supply().claim(beside, &All, 100);
    let of_this: Vec<u64> = asked
        .iter()
        .map(|asked| asked.proof.block.unwrap().index)
        .collect();
    let claimed = |claims: Vec<Claim>| -> Vec<u64> {
        let indexes = claims.iter().map(|claim| claim.index);
        indexes.filter(|index| of_this.contains(index)).collect()
    };
    assert!(claimed(claim()).is_empty());
    script.victim.connection.end_asking();
    assert_eq!(claimed(claim()), of_this);
    script.deliver().unwrap();
    let backlog = script.victim.connection.backlog();
    assert_eq!((backlog.requests, backlog.commits), (0, 1));
    gate.open();
    while script.victim.connection.backlog().commits > 0 {
        script.deliver().unwrap();
        thread::yield_now();
    }
    assert_eq!(reader.count(0..40), 1, "what came is stored");
    assert_eq!(script.victim.connection.backlog().requests, 0);
}

/// Lets others work until something is so. The clock stands still meanwhile.
async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000_000 {
        if is_so() {
            return;
        }
        yield_now().await;
    }
    panic!("it does not come about");
}

/// Carries what two say to each other, but for what the second says once it is held.
async fn carry(first: DuplexStream, second: DuplexStream, is_held: Arc<AtomicBool>) {
    let (mut from_first, mut to_first) = split(first);
    let (mut from_second, mut to_second) = split(second);
    let there = copy(&mut from_first, &mut to_second);
    let back = async {
        let mut bytes = Vec::new();
        while from_second.read_buf(&mut bytes).await.is_ok() {
            if !is_held.load(Ordering::SeqCst) {
                to_first.write_all(&bytes).await.unwrap();
                bytes.clear();
            }
        }
    };
    let _ = tokio::join!(there, back);
}

async fn session(io: DuplexStream, role: Role, store: &Corestore) -> Session {
    let keys = KeyPair::generate();
    let stream = SecretStream::handshake(io, role, &keys, Options::default()).await;
    Session::spawn(stream.unwrap(), store.clone(), SessionOptions::default())
}

/// Goal: a session whose peer is gone leaves to others what that had not answered, though its own device takes nothing. Method: the
/// answer to one request is at the device, those to all others are held up; then the stream ends.
#[tokio::test(start_paused = true)]
async fn a_session_leaves_to_others_what_is_lost_before_its_device_is_done() {
    let (here, writer, _, _) = writer_and_reader(&blocks(40));
    let (reader, gate) = reader(&writer.key());
    let (at_reader, first) = duplex(100_000);
    let (second, at_writer) = duplex(100_000);
    let is_held = Arc::new(AtomicBool::new(false));
    let wire = tokio::spawn(carry(first, second, Arc::clone(&is_held)));
    let there = Corestore::memory();
    let (_writes, reads) = tokio::join!(
        session(at_writer, Role::Initiator, &here),
        session(at_reader, Role::Responder, &there)
    );
    reads.attach(&reader);
    until(|| reader.length() == 40).await;
    gate.close();
    gate.lock().by.clear();
    let _first = reader.download(0..1);
    until(|| !gate.lock().by.is_empty()).await;
    is_held.store(true, Ordering::SeqCst);
    let _rest = reader.download(1..40);
    until(|| claimed(&reader)[0] >= 39).await;

    let beside = reader.supply().attach(Arc::new(|| {}));
    let claim = || reader.supply().claim(beside, &All, 100);
    assert!(claim().is_empty(), "all are asked for");
    wire.abort();
    let mut left = Vec::new();
    until(|| {
        left.extend(claim().iter().map(|claim| claim.index));
        left.len() == 39
    })
    .await;
    assert_eq!(left, Vec::from_iter(1..40));
    assert!(!reads.is_closed(), "its device is waited for");
    gate.open();
    until(|| reads.is_closed()).await;
    assert!(reader.has(0), "what came is stored");
}
