//! The golden vectors of the JavaScript packages: every handshake message and frame must have the same
//! bytes.

use ferrocore_primitives::sign::{KeyPair, PublicKey};
use ferrocore_secret_stream::unordered::{Opener, Sealer};
use ferrocore_secret_stream::{
    FRAME_LEN_MAX, Framer, Handshake, HandshakeResult, Incoming, Outgoing, Role,
};
use serde_json::Value;

fn vector(id: &str) -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../interop-tests/vectors/core.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    let wanted = |v: &&mut Value| v["section"] == "noise" && v["id"] == id;
    let found = file["vectors"].as_array_mut().unwrap();
    found.iter_mut().find(wanted).unwrap().take()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// Plays the handshake of vector `id`, checking every message, and returns both results.
fn play(id: &str) -> (HandshakeResult, HandshakeResult) {
    let vector = vector(id);
    let pair = |name: &str| KeyPair::from_seed(&array(&vector["input"][name]));
    let (initiator, responder) = (pair("staticInitiatorSeed"), pair("staticResponderSeed"));
    let (mut a, mut b) = match id {
        "handshake-XX" => (
            Handshake::xx(Role::Initiator, &initiator),
            Handshake::xx(Role::Responder, &responder),
        ),
        _ => (
            Handshake::ik_initiator(&initiator, responder.public_key()),
            Handshake::ik_responder(&responder),
        ),
    };
    a = a.with_ephemeral(pair("ephemeralInitiatorSeed"));
    b = b.with_ephemeral(pair("ephemeralResponderSeed"));
    for expected in vector["output"]["messages"].as_array().unwrap() {
        let (writer, reader) = match a.is_our_turn() {
            true => (&mut a, &mut b),
            false => (&mut b, &mut a),
        };
        let message = writer.write(&[]).unwrap();
        assert_eq!(message, bytes(expected));
        assert!(reader.read(&message).unwrap().is_empty());
    }
    let results = (a.finish().unwrap(), b.finish().unwrap());
    check(&vector["output"], &results);
    results
}

fn check(expected: &Value, (initiator, responder): &(HandshakeResult, HandshakeResult)) {
    let key = |name: &str| array(&expected[name]);
    assert_eq!(*initiator.tx, key("initiatorTx"));
    assert_eq!(*initiator.rx, key("initiatorRx"));
    assert_eq!(*responder.tx, key("responderTx"));
    assert_eq!(*responder.rx, key("responderRx"));
    let public = |name: &str| PublicKey::from(key(name));
    assert_eq!(initiator.remote_public_key, public("responderPublicKey"));
    assert_eq!(responder.remote_public_key, public("initiatorPublicKey"));
    assert_eq!(initiator.hash, array(&expected["handshakeHash"]));
    assert_eq!(responder.hash, initiator.hash);
    assert!(initiator.is_initiator && !responder.is_initiator);
}

#[test]
fn handshakes() {
    play("handshake-XX");
    play("handshake-IK");
}

#[test]
fn frames_of_the_initiator() {
    let (initiator, responder) = play("handshake-XX");
    let vector = vector("secretstream-initiator");
    let header = array(&vector["input"]["header"]);
    let mut outgoing = Outgoing::with_header(&initiator, Vec::new(), &header);
    let mut incoming = Incoming::new(&responder, Framer::new(FRAME_LEN_MAX));

    let expected = bytes(&vector["output"]["headerFrame"]);
    assert_eq!(outgoing.pending(), expected);
    incoming.space().extend_from_slice(&expected);
    outgoing.advance(expected.len());
    assert!(incoming.next_message().unwrap().is_none());
    assert!(incoming.is_open());

    let plaintexts = vector["input"]["plaintexts"].as_array().unwrap();
    let frames = vector["output"]["frames"].as_array().unwrap();
    assert_eq!(plaintexts.len(), frames.len());
    for (plaintext, frame) in plaintexts.iter().zip(frames) {
        let (plaintext, frame) = (bytes(plaintext), bytes(frame));
        outgoing.push(&[&plaintext]).unwrap();
        assert_eq!(outgoing.pending(), frame);
        incoming.space().extend_from_slice(&frame);
        outgoing.advance(frame.len());
        let message = incoming.next_message().unwrap().unwrap_or_default();
        assert_eq!(message, plaintext);
    }
}

#[test]
fn an_unordered_message_of_the_initiator() {
    let (initiator, responder) = play("handshake-XX");
    let vector = vector("unordered-send");
    let counter = u64::from_le_bytes(array(&vector["input"]["counter"]));
    let plaintext = bytes(&vector["input"]["plaintext"]);
    let envelope = bytes(&vector["output"]["envelope"]);
    assert_eq!(
        Sealer::with_counter(&initiator, counter).seal(&plaintext),
        envelope
    );
    assert_eq!(Opener::new(&responder).open(&envelope), Some(plaintext));
}
