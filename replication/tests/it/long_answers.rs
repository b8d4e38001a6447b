//! Goal: an answer is no longer than the room that was given for it. Method: a scripted peer whose later question overtakes
//! the one that waits for room.

use bytes::Bytes;
use ferrocore_replication::messages::{Cancel, Message, Request};

use crate::common::script::{Script, block, request};
use crate::common::writer_and_reader;

const LENGTHS: [usize; 2] = [300 * 1024, 10 * 1024 * 1024];

fn scene() -> Script {
    let blocks: Vec<Bytes> = LENGTHS.iter().map(|len| vec![7; *len].into()).collect();
    let (here, writer, _, _) = writer_and_reader(&blocks);
    let mut script = Script::open(&here, &writer);
    script.victim.connection.limit_long_answers();
    script.deliver().unwrap();
    script.say(&request(1, block(0)));
    script.deliver().unwrap();
    script
}

/// Grants what is asked for until both answers have come, the lengths of which it returns.
fn answers(mut script: Script) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let Some(room) = script.victim.connection.wants_room() {
        script.victim.connection.grant_room();
        let frames = script.victim.step(script.now).unwrap();
        for frame in frames {
            assert!(frame.len() <= room, "{} of {room} bytes", frame.len());
            lengths.extend(LENGTHS.iter().filter(|len| frame.len() > **len).max());
        }
    }
    lengths
}

#[test]
fn a_longer_answer_that_overtakes_waits_for_room_of_its_own() {
    let mut script = scene();
    script.say(&Message::Request(Request {
        id: 2,
        proof: block(1),
        priority: 1,
    }));
    script.deliver().unwrap();
    assert_eq!(answers(script), [LENGTHS[1], LENGTHS[0]]);
}

#[test]
fn one_that_takes_the_place_of_what_was_taken_back_does_too() {
    let mut script = scene();
    script.say(&Message::Cancel(Cancel { request: 1 }));
    script.say(&request(2, block(1)));
    script.deliver().unwrap();
    assert_eq!(answers(script), [LENGTHS[1]]);
}
