//! The packet codec against datagrams captured from `udx-native` 1.21.3.

use ferrocore_udx::packet::{Kinds, Packet, put_sack};
use serde_json::Value;

fn vectors() -> Value {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../interop-tests/vectors/network.json"
    );
    let text = std::fs::read_to_string(file).expect("the vectors are in the repository");
    serde_json::from_str::<Value>(&text).expect("the vectors are JSON")["udx"].clone()
}

/// Kinds, sequence number, ack, SACK blocks and payload that the vectors' generator provoked.
type Expected = (
    &'static str,
    u8,
    u32,
    u32,
    &'static [(u32, u32)],
    &'static [u8],
);

const CAPTURED: [Expected; 12] = [
    ("firstData", 1, 0, 0, &[], b"hello"),
    ("message", 8, 1, 0, &[], b"abc"),
    ("end", 2, 1, 0, &[], b""),
    ("firstDataSeq100Ack50", 1, 100, 50, &[], b"x"),
    ("destroyAfterOneWrite", 16, 101, 50, &[], b""),
    ("ackOfSeq0", 0, 0, 1, &[], b""),
    ("sackAfter_0_2", 4, 0, 1, &[(2, 3)], b""),
    ("sackAfter_0_2_3", 4, 0, 1, &[(2, 4)], b""),
    ("sackAfter_0_2_3_6", 4, 0, 1, &[(2, 4), (6, 7)], b""),
    ("sackAfter_0_1_2_3_6", 4, 0, 4, &[(6, 7)], b""),
    ("heartbeat", 32, 0, 0, &[], b""),
    ("ackOfRemoteEnd", 0, 0, 2, &[], b""),
];

#[test]
fn captured_packets_are_read_and_written_byte_for_byte() {
    let vectors = vectors();
    for (name, kinds, seq, ack, sacks, payload) in CAPTURED {
        let text = vectors["capturedByPlainUdpSocket"][name].as_str().unwrap();
        let bytes = hex::decode(text).unwrap();
        let packet = Packet::parse(&bytes).unwrap_or_else(|| panic!("{name} is a packet"));
        assert_eq!(packet.header.kinds, Kinds::from_byte(kinds), "{name}");
        assert_eq!((packet.header.seq, packet.header.ack), (seq, ack), "{name}");
        assert_eq!(packet.header.stream_id, 0x0a0b_0c0d, "{name}");
        assert_eq!(packet.header.window, 4 * 1024 * 1024, "{name}");
        assert_eq!(packet.sacks().collect::<Vec<_>>(), sacks, "{name}");
        assert_eq!(packet.payload, payload, "{name}");

        let mut written = packet.header.to_bytes().to_vec();
        for &(start, end) in sacks {
            put_sack(&mut written, start, end);
        }
        written.extend_from_slice(payload);
        assert_eq!(written, bytes, "{name}");
    }
}

#[test]
fn the_padding_of_an_mtu_probe_is_no_payload() {
    // Method: the header as captured, then padding and payload of the lengths that were captured.
    for probe in vectors()["mtuProbe"].as_array().unwrap() {
        let mut bytes = hex::decode(probe["header"].as_str().unwrap()).unwrap();
        let padding = usize::try_from(probe["dataOffset"].as_u64().unwrap()).unwrap();
        let length = usize::try_from(probe["length"].as_u64().unwrap()).unwrap();
        let first = hex::decode(probe["payloadFirstByte"].as_str().unwrap()).unwrap()[0];
        bytes.resize(20 + padding, 0);
        bytes.resize(length, first);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.payload.len(), length - 20 - padding);
        assert!(packet.payload.iter().all(|&byte| byte == first));
    }
}
