//! What a peer can do wrong: what that is called, what it may cost, and what becomes of the peer.

use std::collections::BTreeSet;

use crate::common::script::{Script, block, reason, request, sync_of};
use crate::common::{HANDSHAKE_HASH, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::Core;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_mux::{Mux, Segment};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::time::Time;
use ferrocore_replication::PeerMisbehaved;
use ferrocore_replication::capability::capability;
use ferrocore_replication::limits::{
    DENIALS_MAX, INVALID_REQUESTS_MAX, OUTPUT_MAX, UPLOADS_MAX, WANT_BLOCKS,
};
use ferrocore_replication::messages::{
    Cancel, Data, Handshake, Message, NoData, Range, Reason, Request, Sync, Want,
};

fn upgrade(start: u64, length: u64) -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest { start, length }),
        ..ProofRequest::default()
    }
}

#[test]
fn a_peer_that_does_not_know_the_key_is_told_nothing() {
    let (store, core, ..) = writer_and_reader(&blocks(3));
    let wrong = Handshake {
        seeks: true,
        capability: [7; 32],
    }
    .to_vec();
    let mut script = Script::open_with(&store, &core, &wrong);
    assert!(matches!(
        script.deliver(),
        Err(PeerMisbehaved::BadCapability)
    ));
    let mut script = Script::open_with(&store, &core, b"\x01short");
    assert!(matches!(
        script.deliver(),
        Err(PeerMisbehaved::MalformedHandshake(_))
    ));
    // Nor by showing what was shown to it: the sides have different capabilities.
    let mirrored = Handshake {
        seeks: true,
        capability: capability(false, &core.key(), &HANDSHAKE_HASH),
    };
    let mut script = Script::open_with(&store, &core, &mirrored.to_vec());
    assert!(matches!(
        script.deliver(),
        Err(PeerMisbehaved::BadCapability)
    ));
}

#[test]
fn a_malformed_message_closes_the_connection() {
    let (store, core, ..) = writer_and_reader(&blocks(3));
    let mut script = Script::open(&store, &core);
    script
        .mux
        .send(script.channel, 0, &[Segment::Copy(&[1])])
        .unwrap();
    assert!(matches!(
        script.deliver(),
        Err(PeerMisbehaved::Malformed { kind: 0, .. })
    ));
}

#[test]
fn messages_of_a_later_version_are_ignored() {
    let (store, core, ..) = writer_and_reader(&blocks(3));
    let mut script = Script::open(&store, &core);
    script
        .mux
        .send(script.channel, 10, &[Segment::Copy(&[1, 2, 3])])
        .unwrap();
    script
        .mux
        .send(script.channel, 9, &[Segment::Copy(b"\x04nope!")])
        .unwrap();
    assert!(script.deliver().is_ok());
    assert!(script.is_open(&core));
}

#[test]
fn requests_that_make_no_sense_are_refused_and_counted() {
    let (store, core, ..) = writer_and_reader(&blocks(10));
    let mut script = Script::open(&store, &core);
    script.deliver().unwrap();
    let nonsense = [
        upgrade(4, 99),
        upgrade(3, 0),
        upgrade((1 << 53) - 1, (1 << 53) - 1),
        ProofRequest {
            block: Some(NodeRequest {
                index: 3,
                nodes: (1 << 53) - 1,
            }),
            ..ProofRequest::default()
        },
        ProofRequest {
            hash: Some(NodeRequest {
                index: (1 << 53) - 1,
                nodes: 1,
            }),
            ..ProofRequest::default()
        },
    ];
    for id in 1..u64::from(INVALID_REQUESTS_MAX) {
        script.say(&request(id, nonsense[id as usize % nonsense.len()].clone()));
    }
    let answers = script.deliver().unwrap();
    assert_eq!(answers.len(), INVALID_REQUESTS_MAX as usize - 1);
    assert!(
        answers
            .iter()
            .all(|answer| reason(answer) == Some(Reason::InvalidRequest)),
        "{answers:?}"
    );
    script.say(&request(99, upgrade(4, 99)));
    assert!(matches!(
        script.deliver(),
        Err(PeerMisbehaved::TooManyInvalidRequests)
    ));
}

#[test]
fn what_is_not_here_is_refused_without_blame() {
    let (store, core, ..) = writer_and_reader(&blocks(10));
    let mut script = Script::open(&store, &core);
    script.deliver().unwrap();
    for id in 0..1000 {
        let other_fork = ProofRequest {
            fork: 7,
            ..block(3)
        };
        script.say(&request(
            id,
            if id % 2 == 0 { block(99) } else { other_fork },
        ));
    }
    let answers = script.deliver().unwrap();
    assert_eq!(answers.len(), 1000);
    assert!(
        answers
            .iter()
            .all(|answer| reason(answer) == Some(Reason::NotAvailable))
    );
}

#[test]
fn a_flood_of_requests_is_answered_without_remembering_it() {
    let (store, core, ..) = writer_and_reader(&blocks(10));
    let mut script = Script::open(&store, &core);
    script.deliver().unwrap();
    let count = 10 * UPLOADS_MAX as u64;
    (1..=count).for_each(|id| script.say(&request(id, block(id % 10))));
    let answers = script.deliver().unwrap();
    assert_eq!(answers.len() as u64, count);
}

#[test]
fn a_peer_that_asks_and_does_not_read_is_read_no_more() {
    // Goal: nothing is taken out of the connection, so questions and answers must stop piling up.
    let (store, core, ..) = writer_and_reader(&blocks(10));
    let mut script = Script::open(&store, &core);
    script.deliver().unwrap();
    (1..=4 * UPLOADS_MAX as u64).for_each(|id| script.say(&request(id, block(1))));
    let connection = &mut script.victim.connection;
    let mut frames = std::iter::from_fn(|| script.mux.poll_transmit());
    while connection.wants_frame() {
        connection.handle_frame(frames.next().expect("it stops before the end").to_bytes());
        assert!(connection.poll_event(Time::ZERO).unwrap().is_none());
    }
    // Once its answers are taken, it is read again.
    while connection.poll_transmit().unwrap().is_some() {}
    connection.poll_event(Time::ZERO).unwrap();
    while connection.poll_transmit().unwrap().is_some() {}
    connection.poll_event(Time::ZERO).unwrap();
    assert!(connection.wants_frame());
}

#[test]
fn a_peer_that_makes_us_talk_and_does_not_read_is_read_no_more() {
    let (store, core, ..) = writer_and_reader(&blocks(10));
    let mut script = Script::open(&store, &core);
    script.deliver().unwrap();
    let connection = &mut script.victim.connection;
    let sync = |mux: &mut Mux, channel| {
        mux.send(channel, 0, &[Segment::Copy(&[0, 0, 0, 0])])
            .unwrap()
    };
    let mut sent = 0;
    while connection.wants_frame() && sent <= 2 * OUTPUT_MAX {
        for _ in 0..10_000 {
            sync(&mut script.mux, script.channel);
        }
        while let Some(frame) = script.mux.poll_transmit() {
            sent += frame.len();
            connection.handle_frame(frame.to_bytes());
            connection.poll_event(Time::ZERO).unwrap();
        }
    }
    assert!(!connection.wants_frame(), "it took {sent} bytes");
}

#[test]
fn a_cancelled_request_is_not_answered() {
    let (store, core, ..) = writer_and_reader(&blocks(10));
    let mut script = Script::open(&store, &core);
    script.deliver().unwrap();
    script.say(&request(1, block(1)));
    script.say(&request(2, block(2)));
    script.say(&Message::Cancel(Cancel { request: 1 }));
    script.say(&Message::Cancel(Cancel { request: 77 }));
    let answers = script.deliver().unwrap();
    assert!(
        matches!(answers.as_slice(), [Message::Data(data)] if data.request == 2),
        "{answers:?}"
    );
}

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

/// A script that has brought the victim to the length of the core, and the honest end it asks.
fn upgraded(count: usize) -> (Script, Script, Core, Core) {
    let (here, writer, there, reader) = writer_and_reader(&blocks(count));
    let mut honest = Script::open(&here, &writer);
    honest.deliver().unwrap();
    let mut script = Script::open(&there, &reader);
    script.deliver().unwrap();
    script.say(&sync_of(count as u64));
    let asked = script.deliver().unwrap();
    for message in &asked {
        if let Message::Request(asked) = message {
            let manifest = ProofRequest {
                manifest: true,
                ..asked.proof.clone()
            };
            honest.say(&request(asked.id, manifest));
        }
    }
    honest
        .deliver()
        .unwrap()
        .iter()
        .for_each(|message| script.say(message));
    script.deliver().unwrap();
    assert_eq!(reader.length(), count as u64);
    (script, honest, writer, reader)
}

/// The requests for blocks among `messages`.
fn block_requests(messages: &[Message]) -> Vec<Request> {
    let requests = messages.iter().filter_map(|message| match message {
        Message::Request(request) if request.proof.block.is_some() => Some(request.clone()),
        _ => None,
    });
    requests.collect()
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

#[test]
fn wants_are_answered_from_what_is_here_and_bounded() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(100));
    let mut pair = crate::common::Pair::new(&here, &there);
    let _some = reader.download(40..50);
    pair.b.connection.attach(&reader);
    pair.drive();
    let mut script = Script::open(&there, &reader);
    script.deliver().unwrap();
    let want = |start, length, any| Message::Want(Want { start, length, any });
    script.say(&want(0, WANT_BLOCKS, false));
    script.say(&want(32, 32, true));
    script.say(&want(64, 32, true));
    script.say(&want(0, WANT_BLOCKS + 1, false));
    script.say(&want((1 << 53) - 1, WANT_BLOCKS, false));
    let answers = script.deliver().unwrap();
    let [Message::Bitfield(bitfield), Message::Range(any)] = answers.as_slice() else {
        panic!("{answers:?}")
    };
    assert_eq!(bitfield.words, [0, 0x3ff00, 0, 0]);
    assert_eq!((any.start, any.length), (40, 1));

    let mut script = Script::open(&here, &writer);
    script.deliver().unwrap();
    script.say(&want(0, WANT_BLOCKS, false));
    let answers = script.deliver().unwrap();
    assert!(
        matches!(answers.as_slice(), [Message::Range(range)] if range.start == 0 && range.length == 100)
    );
}

fn sync_of_fork(fork: u64, length: u64) -> Message {
    Message::Sync(Sync {
        fork,
        length,
        uploading: true,
        ..Sync::default()
    })
}

#[test]
fn a_peer_that_does_not_prove_its_fork_supplies_nothing_until_it_is_back() {
    let (mut script, _, _, reader) = upgraded(10);
    for (fork, length, suppliers) in [(1, 0, 0), (0, 10, 1)] {
        script.say(&sync_of_fork(fork, length));
        script.deliver().unwrap();
        assert_eq!(reader.supply().suppliers(), suppliers, "fork {fork}");
    }
    // It is asked once each time it says so.
    for _ in 0..3 {
        script.say(&sync_of_fork(1, 10));
        let asked = requests_in(&script.deliver().unwrap());
        assert_eq!((asked.len(), asked[0].proof.fork), (1, 1));
        assert_eq!(reader.supply().suppliers(), 1);
        script.say(&Message::NoData(NoData {
            request: asked[0].id,
            reason: Reason::NotAvailable,
        }));
        assert!(requests_in(&script.deliver().unwrap()).is_empty());
        assert_eq!(reader.supply().suppliers(), 0);
    }
    assert_eq!((reader.fork(), reader.length()), (0, 10));
}

#[test]
fn a_fork_that_the_writer_has_not_signed_costs_the_channel() {
    for lie in ["fork", "node", "none"] {
        let (mut script, mut honest, writer, reader) = upgraded(10);
        script.say(&sync_of_fork(3, 10));
        let mut asked = requests_in(&script.deliver().unwrap());
        assert_eq!(asked.len(), 1);
        if lie != "fork" {
            writer.truncate(9, Some(3)).unwrap();
            writer.append_batch(blocks(7)).unwrap();
            honest.deliver().unwrap();
            asked[0].proof.upgrade.as_mut().unwrap().length = 16;
        } else {
            asked[0].proof.fork = 0;
        }
        honest.say(&Message::Request(asked[0].clone()));
        let answers = honest.deliver().unwrap();
        let mut data = data_in(&answers);
        data.proof.fork = 3;
        script.say(&Message::Data(data));
        let more = script.deliver().unwrap();
        if lie == "fork" {
            assert!(!script.is_open(&reader));
            assert_eq!((reader.fork(), reader.length()), (0, 10));
            continue;
        }
        let asked = requests_in(&more);
        assert!(asked[0].proof.hash.is_some(), "{asked:?}");
        honest.say(&Message::Request(asked[0].clone()));
        let mut data = data_in(&honest.deliver().unwrap());
        if lie == "node" {
            data.proof.hash.as_mut().unwrap().nodes[0].hash = [7; 32].into();
            script.say(&Message::Data(data));
            script.deliver().unwrap();
            assert!(!script.is_open(&reader));
            assert_eq!((reader.fork(), reader.length()), (0, 10));
        } else {
            // The fork is the writer's. Where it leaves ours cannot be learnt: so be it.
            script.say(&Message::NoData(NoData {
                request: asked[0].id,
                reason: Reason::NotAvailable,
            }));
            script.deliver().unwrap();
            assert_eq!((reader.fork(), reader.length()), (3, 16));
            assert_eq!(reader.tree_hash(), writer.tree_hash());
        }
    }
}

fn requests_in(messages: &[Message]) -> Vec<Request> {
    let requests = messages.iter().filter_map(|message| match message {
        Message::Request(request) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}

fn data_in(messages: &[Message]) -> Data {
    let data = messages.iter().find_map(|message| match message {
        Message::Data(data) => Some(data.clone()),
        _ => None,
    });
    data.unwrap()
}

#[test]
fn absurd_numbers_in_any_message_are_survived() {
    let (mut script, _, _, reader) = upgraded(10);
    let _want = reader.download_all();
    let max = (1 << 53) - 1;
    script.say(&Message::Sync(Sync {
        fork: max,
        length: max,
        remote_length: max,
        ..Sync::default()
    }));
    script.say(&Message::Range(Range {
        drop: false,
        start: max,
        length: max,
    }));
    script.say(&Message::Range(Range {
        drop: true,
        start: 1,
        length: max,
    }));
    script.say(&Message::Range(Range {
        drop: false,
        start: 3,
        length: max,
    }));
    script.say(&sync_of(max));
    script.say(&Message::Unwant(Want {
        start: max,
        length: max,
        any: false,
    }));
    script.say(&request(max, upgrade(max, max)));
    script.say(&request(
        max,
        ProofRequest {
            fork: max,
            ..block(max)
        },
    ));
    script.deliver().unwrap();
    assert_eq!(reader.length(), 10);
}
