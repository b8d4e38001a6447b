//! Proofs that do not hold, that nobody asked for, or that come in another order.

use super::{block_requests, upgrade, upgraded};
use crate::common::script::{Script, request};
use crate::common::{blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_replication::limits::DENIALS_MAX;
use ferrocore_replication::messages::{Message, NoData, Range, Reason};
use std::collections::BTreeSet;

#[test]
fn answers_to_nothing_are_ignored() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(10));
    let mut script = Script::open(&there, &reader);
    script.deliver().unwrap();
    let mut honest = Script::open(&here, &writer);
    honest.deliver().unwrap();
    honest.say(&request(0, upgrade(0, 10)));
    let stray = honest.deliver().unwrap();
    assert!(matches!(stray.as_slice(), [Message::Data(_)]));
    stray.iter().for_each(|message| script.say(message));
    script.say(&Message::NoData(NoData {
        request: 99,
        reason: Reason::None,
    }));
    script.deliver().unwrap();
    assert_eq!(reader.length(), 0);
    assert_eq!(script.victim.stats().answers_ignored, 1);
    assert!(script.is_open(&reader));
}

#[test]
fn a_proof_that_does_not_hold_closes_the_channel_and_stores_nothing() {
    for part in ["value", "node"] {
        let (mut script, mut honest, _, reader) = upgraded(10);
        let _want = reader.download(4..5);
        script.say(&Message::Range(Range {
            drop: false,
            start: 0,
            length: 10,
        }));
        let asked = block_requests(&script.deliver().unwrap());
        assert_eq!(asked.len(), 1);
        honest.say(&Message::Request(asked[0].clone()));
        let mut answers = honest.deliver().unwrap();
        let Some(Message::Data(data)) = answers.first_mut() else {
            panic!("{answers:?}")
        };
        let block = data.proof.block.as_mut().unwrap();
        match part {
            "value" => block.value = Bytes::from_static(b"block-X"),
            _ => block.nodes[0].hash = [9; 32].into(),
        }
        script.say(&answers[0]);
        // It may be of another history that is signed too, so the peer may show all it has.
        let asked = script.deliver().unwrap();
        assert!(script.is_open(&reader), "{part}");
        let whole = asked.iter().find_map(|message| match message {
            Message::Request(request) => Some(request.clone()),
            _ => None,
        });
        let whole = whole.expect("it is asked for its whole log");
        let upgrade = UpgradeRequest {
            start: 0,
            length: 10,
        };
        assert_eq!(whole.proof.upgrade, Some(upgrade));
        match part {
            "value" => {
                honest.say(&Message::Request(whole));
                script.say(&honest.deliver().unwrap()[0]);
            }
            _ => script.say(&Message::NoData(NoData {
                request: whole.id,
                reason: Reason::NotAvailable,
            })),
        }
        script.deliver().unwrap();
        assert!(reader.conflict().is_none(), "it has shown the same log");
        assert!(!reader.has(4));
        assert!(!script.is_open(&reader), "{part}");
        assert_eq!(script.victim.stats().proofs_refused, 1);
        assert_eq!(reader.supply().suppliers(), 0);
    }
}

#[test]
fn an_answer_to_another_question_is_no_answer() {
    let (mut script, mut honest, _, reader) = upgraded(10);
    let _want = reader.download(4..5);
    script.say(&Message::Range(Range {
        drop: false,
        start: 0,
        length: 10,
    }));
    let asked = block_requests(&script.deliver().unwrap());
    let other = ProofRequest {
        block: Some(NodeRequest { index: 7, nodes: 3 }),
        ..asked[0].proof.clone()
    };
    honest.say(&request(asked[0].id, other));
    honest
        .deliver()
        .unwrap()
        .iter()
        .for_each(|message| script.say(message));
    script.deliver().unwrap();
    assert!(!reader.has(7) && !reader.has(4));
    assert!(script.is_open(&reader));
}

#[test]
fn a_peer_that_withholds_what_it_announced_is_asked_no_more() {
    let (mut script, _, _, reader) = upgraded(200);
    let _want = reader.download_all();
    script.say(&Message::Range(Range {
        drop: false,
        start: 0,
        length: 200,
    }));
    let mut refused = BTreeSet::new();
    loop {
        let asked = block_requests(&script.deliver().unwrap());
        if asked.is_empty() {
            break;
        }
        for request in asked {
            let block = request.proof.block.unwrap().index;
            assert!(refused.insert(block), "block {block} is asked for again");
            script.say(&Message::NoData(NoData {
                request: request.id,
                reason: Reason::NotAvailable,
            }));
        }
    }
    assert!(refused.len() >= DENIALS_MAX);
    assert_eq!(reader.supply().suppliers(), 0, "readers may look elsewhere");
    assert!(script.is_open(&reader), "but it may still ask us");
}

#[test]
fn answers_that_overtake_each_other_are_put_in_order() {
    // Goal: JavaScript answers concurrently; what rests on another answer must wait for it.
    let (mut script, mut honest, writer, reader) = upgraded(40);
    let _want = reader.download_all();
    script.say(&Message::Range(Range {
        drop: false,
        start: 0,
        length: 40,
    }));
    let asked = block_requests(&script.deliver().unwrap());
    assert_eq!(asked.len(), 40);
    asked
        .iter()
        .for_each(|asked| honest.say(&Message::Request(asked.clone())));
    let mut answers = honest.deliver().unwrap();
    answers.reverse();
    for answer in &answers {
        script.say(answer);
        script.deliver().unwrap();
    }
    crate::common::assert_complete_copy(&writer, &reader);
    let stats = script.victim.stats();
    assert!(stats.proofs_parked > 30, "{stats:?}");
    assert_eq!(stats.proofs_refused, 0);
    assert_eq!(stats.requests_sent, 41, "nothing was asked twice");
}

#[test]
fn what_rests_on_a_refused_answer_is_asked_again() {
    let (mut script, mut honest, writer, reader) = upgraded(8);
    let _want = reader.download_all();
    script.say(&Message::Range(Range {
        drop: false,
        start: 0,
        length: 8,
    }));
    let asked = block_requests(&script.deliver().unwrap());
    // The first one's path carries the others. It alone is not given.
    asked[1..]
        .iter()
        .for_each(|asked| honest.say(&Message::Request(asked.clone())));
    honest
        .deliver()
        .unwrap()
        .iter()
        .for_each(|message| script.say(message));
    script.say(&Message::NoData(NoData {
        request: asked[0].id,
        reason: Reason::NotAvailable,
    }));
    let again = block_requests(&script.deliver().unwrap());
    assert!(!again.is_empty());
    again
        .iter()
        .for_each(|asked| honest.say(&Message::Request(asked.clone())));
    honest
        .deliver()
        .unwrap()
        .iter()
        .for_each(|message| script.say(message));
    script.deliver().unwrap();
    assert_eq!(reader.count(0..8), 7);
    assert_eq!(reader.get_local(7).unwrap(), writer.get_local(7).unwrap());
    assert_eq!(script.victim.stats().proofs_refused, 0);
}
