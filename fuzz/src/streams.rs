//! The Noise handshake and the encrypted stream behind it.
//!
//! Holds: nothing that the peer did not encrypt comes out, and the memory for a frame is not
//! given before its bytes are there.

use ferrocore_primitives::sign::KeyPair;
use ferrocore_secret_stream::unordered::{Opener, Sealer};
use ferrocore_secret_stream::{
    FRAME_LEN_MAX, Framer, Handshake, HandshakeResult, Incoming, Outgoing, READ_LEN_MAX, Role,
};

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

/// The first byte picks who we are, and after how many honest messages the input takes over: the
/// rest is one message.
pub fn handshakes(data: &[u8]) {
    let Some((first, message)) = data.split_first() else {
        return;
    };
    let (mut ours, mut theirs) = match first % 4 {
        0 => (
            Handshake::xx(Role::Responder, &pair(1)),
            Handshake::xx(Role::Initiator, &pair(2)),
        ),
        1 => (
            Handshake::xx(Role::Initiator, &pair(1)),
            Handshake::xx(Role::Responder, &pair(2)),
        ),
        2 => (
            Handshake::ik_responder(&pair(1)),
            Handshake::ik_initiator(&pair(2), pair(1).public_key()),
        ),
        _ => (
            Handshake::ik_initiator(&pair(1), pair(2).public_key()),
            Handshake::ik_responder(&pair(2)),
        ),
    };
    ours = ours.with_ephemeral(pair(3));
    theirs = theirs.with_ephemeral(pair(4));
    let mut honest = first / 4 % 2;
    loop {
        if ours.is_finished() {
            return;
        }
        if ours.is_our_turn() {
            let sent = ours.write(b"").expect("keys so far were honest");
            theirs.read(&sent).expect("it was honest");
        } else if honest > 0 {
            honest -= 1;
            let sent = theirs.write(b"").expect("keys so far were honest");
            ours.read(&sent).expect("it was honest");
        } else {
            break;
        }
    }
    if ours.read(message).is_ok() && ours.is_our_turn() {
        let _ = ours.write(b"");
    }
    if ours.is_finished() {
        let result = ours.finish().expect("it is finished");
        let _ = Incoming::new(&result, Framer::new(FRAME_LEN_MAX));
    }
}

/// What the input says about the stream.
///
/// | first byte | the rest |
/// |---|---|
/// | 0 | the stream behind the handshake |
/// | 1 | the stream behind an honest header and an honest message |
/// | other | an unordered message |
pub fn streams(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let (ours, theirs) = keys();
    match mode {
        0 => assert_eq!(receive(&ours, rest), 0, "nobody sent a message"),
        1 => {
            let mut sent = honest_stream(&theirs);
            sent.extend_from_slice(rest);
            assert_eq!(receive(&ours, &sent), 1, "one message was sent");
        }
        _ => {
            let honest = Sealer::with_counter(&theirs, 9).seal(b"datagram");
            let opened = Opener::new(&ours).open(rest);
            assert!(opened.is_none() || rest == honest, "nobody sent this");
        }
    }
}

/// How many messages come out.
fn receive(keys: &HandshakeResult, bytes: &[u8]) -> usize {
    let mut incoming = Incoming::new(keys, Framer::new(FRAME_LEN_MAX));
    let mut messages = 0;
    for chunk in bytes.chunks(97) {
        let space = incoming.space();
        assert!(space.capacity() <= READ_LEN_MAX + 4 * (bytes.len() + 64));
        space.extend_from_slice(chunk);
        loop {
            match incoming.next_message() {
                Ok(Some(message)) => {
                    assert_eq!(message, &b"honest"[..]);
                    messages += 1;
                }
                Ok(None) => break,
                Err(_) => {
                    assert!(
                        incoming.next_message().is_err(),
                        "a failed stream stays failed"
                    );
                    return messages;
                }
            }
        }
    }
    messages
}

fn honest_stream(keys: &HandshakeResult) -> Vec<u8> {
    let mut outgoing = Outgoing::with_header(keys, Vec::new(), &[5; 24]);
    outgoing.push(&[&b"honest"[..]]).expect("it is short");
    outgoing.pending().to_vec()
}

/// The keys of both sides of one handshake.
fn keys() -> (HandshakeResult, HandshakeResult) {
    let mut initiator = Handshake::xx(Role::Initiator, &pair(1)).with_ephemeral(pair(3));
    let mut responder = Handshake::xx(Role::Responder, &pair(2)).with_ephemeral(pair(4));
    let first = initiator.write(b"").expect("our turn");
    responder.read(&first).expect("honest");
    let second = responder.write(b"").expect("our turn");
    initiator.read(&second).expect("honest");
    let third = initiator.write(b"").expect("our turn");
    responder.read(&third).expect("honest");
    let finish = |side: Handshake| side.finish().expect("it is finished");
    (finish(initiator), finish(responder))
}

/// Honest messages to start from, by target.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut initiator = Handshake::xx(Role::Initiator, &pair(2)).with_ephemeral(pair(4));
    let mut ik = Handshake::ik_initiator(&pair(2), pair(1).public_key()).with_ephemeral(pair(4));
    let first = |side: &mut Handshake| side.write(b"").expect("our turn");
    let (_, theirs) = keys();
    let stream = honest_stream(&theirs);
    let datagram = Sealer::with_counter(&theirs, 9).seal(b"datagram");
    vec![
        ("handshakes", [&[0], &first(&mut initiator)[..]].concat()),
        ("handshakes", [&[2], &first(&mut ik)[..]].concat()),
        ("handshakes", [&[4], &[1; 64][..]].concat()),
        ("streams", [&[0], &stream[..59]].concat()),
        ("streams", [&[1], &[17, 0, 0][..], &[3; 17]].concat()),
        ("streams", [&[2], &datagram[..]].concat()),
    ]
}
