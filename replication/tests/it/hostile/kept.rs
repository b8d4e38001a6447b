//! Goal: answers that have to wait for another take a bounded memory, and none of what was dropped is lost.
//! Method: a script holds back the answer that the others rest on.

use std::collections::VecDeque;
use std::time::Duration;

use super::{block_requests, upgraded, upgraded_to};
use crate::common::script::{Script, before_reader, range, sync_of};
use crate::common::{Pair, assert_complete_copy, blocks};
use bytes::Bytes;
use ferrocore_log::proof::{BlockProof, Proof};
use ferrocore_replication::limits::{
    KEPT_BYTES_MAX, REQUEST_TIMEOUT, UNSTORED_BYTES_MAX, WINDOW_START,
};
use ferrocore_replication::messages::{Data, Message, Request};
use ferrocore_replication::session::PeersMemory;

const LONG: usize = 4 * 1024 * 1024;

/// A long answer that does not hold.
fn garbage(asked: &Request) -> Message {
    let block = BlockProof {
        index: asked.proof.block.unwrap().index,
        value: Bytes::from(vec![7; LONG]),
        nodes: Vec::new(),
    };
    let proof = Proof {
        fork: asked.proof.fork,
        block: Some(block),
        ..Proof::default()
    };
    let request = asked.id;
    Message::Data(Data { request, proof })
}

fn kept(script: &Script) -> usize {
    script.victim.connection.backlog().kept_bytes
}

#[test]
fn garbage_that_waits_for_a_block_is_bounded_and_an_honest_peer_completes() {
    let (mut script, honest, writer, reader) = upgraded(400);
    let _all = reader.download_all();
    script.say(&range(false, 0, 400));
    let mut asked = VecDeque::from(block_requests(&script.deliver().unwrap()));
    assert_eq!(asked.len(), WINDOW_START);
    let mut asked_in_all = asked.len();
    asked.pop_front(); // never answered
    // In order: what rests on an answer that is dropped would be judged.
    while let Some(request) = asked.pop_front() {
        script.say(&garbage(&request));
        let more = block_requests(&script.deliver().unwrap());
        assert!(kept(&script) <= KEPT_BYTES_MAX);
        let is_full = kept(&script) as u64 >= UNSTORED_BYTES_MAX;
        assert!(!is_full || more.is_empty(), "more is asked for");
        asked_in_all += more.len();
        asked.extend(more);
    }
    assert!(
        kept(&script) > KEPT_BYTES_MAX - 2 * LONG,
        "it does its worst"
    );
    assert!(asked_in_all * LONG > 2 * KEPT_BYTES_MAX);
    assert!(script.victim.stats().answers_dropped > 0);
    assert!(script.is_open(&reader));

    let mut pair = Pair::new(&honest.victim.store, &script.victim.store);
    pair.b.connection.attach(&reader);
    for _ in 0..20 {
        pair.pass(Duration::from_millis(500));
        script.now = pair.now;
        script.deliver().unwrap();
    }
    assert_complete_copy(&writer, &reader);
    assert_eq!(kept(&script), 0, "what waited was judged");
    assert_eq!(script.victim.stats().proofs_refused, 1);
}

#[test]
fn what_was_dropped_is_asked_for_again() {
    // By their mean many of these may be in flight: most are short.
    let blocks = (0..1000_u32).map(|index| {
        let len = if index < 24 { LONG } else { 4 };
        Bytes::from(index.to_le_bytes().repeat(len / 4))
    });
    let (mut script, mut honest, writer, reader) = upgraded_to(&blocks.collect::<Vec<_>>());
    let _all = reader.download_all();
    script.say(&range(false, 0, 1000));
    let mut asked = block_requests(&script.deliver().unwrap());
    let first = asked.remove(0);
    let (mut dropped, mut rounds) = (0, 0);
    loop {
        for request in asked.drain(..) {
            honest.say(&Message::Request(request));
            for answer in honest.deliver().unwrap() {
                script.say(&answer);
            }
        }
        if rounds == 1 {
            dropped = script.victim.stats().answers_dropped;
            honest.say(&Message::Request(first.clone()));
            script.say(&honest.deliver().unwrap()[0]);
        }
        asked = block_requests(&script.deliver().unwrap());
        assert!(kept(&script) <= KEPT_BYTES_MAX);
        if asked.is_empty() && rounds > 1 {
            break;
        }
        rounds += 1;
    }
    assert!(dropped > 0, "{:?}", script.victim.stats());
    assert_complete_copy(&writer, &reader);
    assert_eq!(
        (kept(&script), script.victim.stats().proofs_refused),
        (0, 0)
    );
    assert_eq!(script.victim.connection.backlog().requests, 0);
}

/// Goal: where others have used up what is shared, what there is no room for is not asked for again and again, and all of it
/// comes in the end. Method: nothing is shared; garbage comes ahead of what it would rest on, and then the truth.
#[test]
fn what_there_is_no_room_for_is_asked_for_one_by_one() {
    let (writer, reader, mut script) = before_reader(&blocks(400));
    script.victim.connection.share_answers(&PeersMemory::new(0));
    let _all = reader.download_all();
    script.say(&sync_of(400));
    script.say(&range(false, 0, 400));
    let mut asked = block_requests(&script.deliver().unwrap());
    let first = asked.remove(0);
    for request in &asked {
        script.say(&garbage(request));
    }
    assert!(block_requests(&script.deliver().unwrap()).is_empty());
    let dropped = script.victim.stats().answers_dropped;
    assert!(dropped > 0 && kept(&script) == 0);
    let mut asked = vec![first];
    while let Some(Request { id, proof, .. }) = asked.pop() {
        assert!(asked.is_empty(), "more than one at a time");
        let proof = writer.prove(&proof).unwrap().unwrap();
        script.say(&Message::Data(Data { request: id, proof }));
        asked = block_requests(&script.deliver().unwrap());
    }
    assert_complete_copy(&writer, &reader);
    assert_eq!(script.victim.stats().answers_dropped, dropped);
}

/// Goal: who leaves one request unanswered gives all others, and is not to blame for what rested on that. Method: a script
/// truly answers all but those for block 0, and nobody else has any.
#[test]
fn who_never_answers_one_request_gives_all_others() {
    let (mut script, mut honest, _, reader) = upgraded(400);
    let _all = reader.download_all();
    script.say(&range(false, 0, 400));
    for _ in 0..2 {
        loop {
            let asked = block_requests(&script.deliver().unwrap());
            let asked = asked.into_iter();
            let answered = asked.filter(|asked| asked.proof.block.unwrap().index > 0);
            answered.for_each(|asked| honest.say(&Message::Request(asked)));
            let answers = honest.deliver().unwrap();
            if answers.is_empty() {
                break;
            }
            answers.iter().for_each(|answer| script.say(answer));
        }
        script.now += REQUEST_TIMEOUT;
    }
    assert_eq!((reader.count(0..400), kept(&script)), (399, 0));
    assert_eq!(script.victim.stats().proofs_refused, 0);
    assert!(script.victim.stats().proofs_parked > 0);
    assert!(script.is_open(&reader));
}
