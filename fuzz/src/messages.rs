//! The messages of replication, and proofs that travel alone.
//!
//! Holds: what decodes comes back from its encoding; no proof by a stranger is believed.

use bytes::Bytes;
use ferrocore_mux::Segment;
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_replication::fully_remote::FullyRemoteProof;
use ferrocore_replication::messages::{Handshake, Message};

use crate::honest;

/// The number of kinds, and one more for the handshake.
const KINDS: u8 = 12;

/// The first byte picks the message.
pub fn run(data: &[u8]) {
    let Some((kind, payload)) = data.split_first() else {
        return;
    };
    let kind = kind % KINDS;
    if kind == KINDS - 1 {
        return handshake(payload);
    }
    let decode = |bytes: &[u8]| Message::decode(kind.into(), &Bytes::copy_from_slice(bytes));
    let Ok(Some(message)) = decode(payload) else {
        return;
    };
    assert_eq!(message.kind(), u64::from(kind));
    let encoded = encode(&message);
    let again = decode(&encoded).expect("what is encoded decodes");
    let again = again.expect("the kind is known");
    assert_eq!(encode(&again), encoded);
    assert_eq!(again, message);
}

fn handshake(payload: &[u8]) {
    if let Ok(handshake) = Handshake::from_slice(payload) {
        assert_eq!(Handshake::from_slice(&handshake.to_vec()), Ok(handshake));
    }
}

/// The bytes of a message.
pub(crate) fn encode(message: &Message) -> Vec<u8> {
    message.encode(&mut Vec::new(), concat)
}

fn concat(segments: &[Segment<'_>]) -> Vec<u8> {
    let bytes = segments.iter().map(|segment| match segment {
        Segment::Copy(bytes) => *bytes,
        Segment::Share(bytes) => bytes,
    });
    bytes.collect::<Vec<_>>().concat()
}

/// The bytes are a proof that travels alone.
pub fn remote_proofs(data: &[u8]) {
    let Ok(proof) = FullyRemoteProof::decode(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let encoded = Bytes::from(proof.to_vec());
    assert_eq!(FullyRemoteProof::decode(&encoded).as_ref(), Ok(&proof));
    let writer = honest::writer();
    match proof.verify(&writer.key()) {
        Ok(length) => assert_eq!(length, writer.length(), "the writer signed one length only"),
        Err(error) => drop(error.to_string()),
    }
}
