//! Frames equal those of the JavaScript package, byte for byte.

use std::path::Path;

use bytes::Bytes;
use ferrocore_mux::{Event, Mux, Segment};
use serde_json::Value;

fn frame_of(id: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../interop-tests/vectors/core.json");
    let text = std::fs::read_to_string(path).expect("the vectors are part of the repository");
    let vectors: Value = serde_json::from_str(&text).unwrap();
    let vectors = vectors["vectors"].as_array().unwrap();
    let vector = vectors
        .iter()
        .find(|v| v["section"] == "protomux" && v["id"] == id)
        .expect(id);
    hex::decode(vector["output"]["frame"].as_str().unwrap()).unwrap()
}

fn transmit(mux: &mut Mux) -> Vec<u8> {
    let frame = mux.poll_transmit().expect("something was sent");
    assert!(mux.poll_transmit().is_none(), "in one frame");
    frame.to_bytes().to_vec()
}

/// The handshake is a compact-encoded string in the vectors.
const HANDSHAKE: &[u8] = b"\x02hs";

#[test]
fn open_message_and_close() {
    let mut mux = Mux::new();
    let channel = mux.open("proto", Some(b"id"), HANDSHAKE).unwrap();
    assert_eq!(transmit(&mut mux), frame_of("open"));
    mux.send(
        channel,
        0,
        &[Segment::Copy(b"\x05"), Segment::Copy(b"hello")],
    )
    .unwrap();
    assert_eq!(transmit(&mut mux), frame_of("message"));
    mux.close(channel);
    assert_eq!(transmit(&mut mux), frame_of("close"));
}

#[test]
fn batch() {
    let mut mux = Mux::new();
    let first = mux.open("proto", Some(b"id"), HANDSHAKE).unwrap();
    transmit(&mut mux);
    mux.send(first, 0, &[Segment::Copy(b"\x01a")]).unwrap();
    mux.send(first, 1, &[Segment::Copy(&[0xfd, 0x2c, 0x01])])
        .unwrap();
    let second = mux.open("proto2", None, b"").unwrap();
    mux.send(second, 0, &[Segment::Copy(&[0x07])])
        .unwrap_or_else(|error| panic!("{error}"));
    mux.send(first, 1, &[Segment::Copy(&[0x01])]).unwrap();
    let frame = transmit(&mut mux);
    assert_eq!(hex::encode(frame), hex::encode(frame_of("batch")));
}

#[test]
fn the_batch_is_understood() {
    let mut mux = Mux::new();
    mux.open("proto", Some(b"id"), b"").unwrap();
    mux.handle_frame(frame_of("open").into());
    mux.handle_frame(frame_of("batch").into());
    let mut log = Vec::new();
    while let Some(event) = mux.poll_event().unwrap() {
        log.push(match event {
            Event::Opened { handshake, .. } => format!("opened {handshake:?}"),
            Event::Message { kind, payload, .. } => format!("{kind} {payload:?}"),
            Event::RemoteOpen {
                offer,
                protocol,
                id,
                ..
            } => {
                mux.accept(offer, b"").unwrap();
                format!("offered {protocol} {id:?}")
            }
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        "opened b\"\\x02hs\"",
        "0 b\"\\x01a\"",
        "1 b\"\\xfd,\\x01\"",
        "offered proto2 None",
        "opened b\"\"",
        "0 b\"\\x07\"",
        "1 b\"\\x01\"",
    ];
    assert_eq!(log, expected);
}

#[test]
fn payloads_are_slices_of_their_frame() {
    let mut mux = Mux::new();
    mux.open("proto", Some(b"id"), b"").unwrap();
    mux.handle_frame(frame_of("open").into());
    mux.poll_event().unwrap();
    let frame = Bytes::from(frame_of("message"));
    mux.handle_frame(frame.clone());
    let Some(Event::Message { payload, .. }) = mux.poll_event().unwrap() else {
        panic!("a message");
    };
    assert_eq!(payload.as_ptr(), frame[2..].as_ptr());
}
