//! What is no message of this protocol, or says what cannot be.

use super::{upgrade, upgraded};
use crate::common::script::{Script, block, request, sync_of};
use crate::common::{HANDSHAKE_HASH, blocks, writer_and_reader};
use ferrocore_log::proof::ProofRequest;
use ferrocore_mux::Segment;
use ferrocore_primitives::encoding::Encode;
use ferrocore_replication::PeerMisbehaved;
use ferrocore_replication::capability::capability;
use ferrocore_replication::messages::{Handshake, Message, Range, Sync, Want};

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
