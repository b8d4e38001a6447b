//! Requests and wants: without sense, without end, and of what is not here.

use super::upgrade;
use crate::common::script::{Script, block, reason, request};
use crate::common::{blocks, writer_and_reader};
use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_mux::{Mux, Segment};
use ferrocore_primitives::time::Time;
use ferrocore_replication::PeerMisbehaved;
use ferrocore_replication::limits::{
    INVALID_REQUESTS_MAX, OUTPUT_MAX, SHORT_FRAME_LEN, UPLOADS_MAX, WANT_BLOCKS,
};
use ferrocore_replication::messages::{Cancel, Message, Reason, Want};

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

/// Goal: what is told of a long log with a gap is told in short messages, one after the other, and completely.
#[test]
fn a_want_of_many_blocks_is_answered_by_short_messages() {
    const LENGTH: usize = 300_000;
    let (here, writer, ..) = writer_and_reader(&vec!["x".into(); LENGTH]);
    writer.clear(7..8).unwrap();
    let mut script = Script::open(&here, &writer);
    script.deliver().unwrap();
    script.say(&Message::Want(Want {
        start: 0,
        length: WANT_BLOCKS,
        any: false,
    }));
    let mut told: Vec<u32> = Vec::new();
    for answer in script.deliver().unwrap() {
        let Message::Bitfield(bitfield) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(bitfield.start, 32 * told.len() as u64);
        assert!(4 * bitfield.words.len() < SHORT_FRAME_LEN);
        told.extend(bitfield.words);
    }
    assert_eq!(told.len(), LENGTH.div_ceil(32));
    let ones: u32 = told.iter().map(|word| word.count_ones()).sum();
    assert_eq!((ones as usize, told[0]), (LENGTH - 1, !(1 << 7)));
}
