//! Messages and capabilities equal those of hypercore 11.37.1, byte for byte.

use std::path::Path;

use bytes::Bytes;
use ferrocore_log::Manifest;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{
    BlockProof, HashProof, NodeRequest, Proof, ProofRequest, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::keys::Key;
use ferrocore_replication::capability::capability;
use ferrocore_replication::messages::{
    BitfieldWords, Cancel, Data, Extension, Handshake, Message, NoData, Range, Request, Sync, Want,
};
use serde_json::Value;

fn vectors(section: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop-tests/vectors/core.json");
    let text = std::fs::read_to_string(path).expect("the vectors are part of the repository");
    let file: Value = serde_json::from_str(&text).unwrap();
    let all = file["vectors"].as_array().unwrap();
    all.iter()
        .filter(|vector| vector["section"] == section)
        .cloned()
        .collect()
}

fn hex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex")).unwrap()
}

fn bytes(value: &Value) -> Bytes {
    hex(value).into()
}

fn hash(value: &Value) -> [u8; 32] {
    hex(value).try_into().unwrap()
}

fn uint(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn optional<T>(value: &Value, read: impl FnOnce(&Value) -> T) -> Option<T> {
    (!value.is_null()).then(|| read(value))
}

fn nodes(value: &Value) -> Vec<Node> {
    let node = |node: &Value| Node {
        index: uint(&node["index"]),
        size: uint(&node["size"]),
        hash: hash(&node["hash"]).into(),
    };
    value.as_array().unwrap().iter().map(node).collect()
}

/// The message that a vector's `input` or `decoded` describes in JavaScript's words.
fn message(kind: &str, value: &Value) -> Message {
    match kind {
        "sync" => Message::Sync(Sync {
            fork: uint(&value["fork"]),
            length: uint(&value["length"]),
            remote_length: uint(&value["remoteLength"]),
            can_upgrade: value["canUpgrade"] == true,
            uploading: value["uploading"] == true,
            downloading: value["downloading"] == true,
            has_manifest: value["hasManifest"] == true,
            allow_push: value["allowPush"] == true,
        }),
        "request" => Message::Request(request(value)),
        "cancel" => Message::Cancel(Cancel {
            request: uint(&value["request"]),
        }),
        "data" => Message::Data(Data {
            request: uint(&value["request"]),
            proof: proof(value),
        }),
        "nodata" => Message::NoData(NoData {
            request: uint(&value["request"]),
            reason: uint(&value["reason"]).into(),
        }),
        "want" => Message::Want(want(value)),
        "unwant" => Message::Unwant(want(value)),
        "bitfield" => Message::Bitfield(BitfieldWords {
            start: uint(&value["start"]),
            words: value["bitfield"]
                .as_array()
                .unwrap()
                .iter()
                .map(|word| uint(word) as u32)
                .collect(),
        }),
        "range" => Message::Range(Range {
            drop: value["drop"] == true,
            start: uint(&value["start"]),
            length: uint(&value["length"]),
        }),
        "extension" => Message::Extension(Extension {
            name: value["name"].as_str().unwrap().to_owned(),
            message: bytes(&value["message"]),
        }),
        other => panic!("{other}"),
    }
}

fn want(value: &Value) -> Want {
    Want {
        start: uint(&value["start"]),
        length: uint(&value["length"]),
        any: value["any"] == true,
    }
}

fn request(value: &Value) -> Request {
    let node = |node: &Value| NodeRequest {
        index: uint(&node["index"]),
        nodes: uint(&node["nodes"]),
    };
    Request {
        id: uint(&value["id"]),
        proof: ProofRequest {
            fork: uint(&value["fork"]),
            block: optional(&value["block"], node),
            hash: optional(&value["hash"], node),
            seek: optional(&value["seek"], |seek| SeekRequest {
                bytes: uint(&seek["bytes"]),
                padding: uint(&seek["padding"]),
            }),
            upgrade: optional(&value["upgrade"], |upgrade| UpgradeRequest {
                start: uint(&upgrade["start"]),
                length: uint(&upgrade["length"]),
            }),
            manifest: value["manifest"] == true,
        },
        priority: uint(&value["priority"]),
    }
}

fn proof(value: &Value) -> Proof {
    Proof {
        fork: uint(&value["fork"]),
        block: optional(&value["block"], |block| BlockProof {
            index: uint(&block["index"]),
            value: bytes(&block["value"]),
            nodes: nodes(&block["nodes"]),
        }),
        hash: optional(&value["hash"], |hash| HashProof {
            index: uint(&hash["index"]),
            nodes: nodes(&hash["nodes"]),
        }),
        seek: optional(&value["seek"], |seek| SeekProof {
            bytes: uint(&seek["bytes"]),
            nodes: nodes(&seek["nodes"]),
        }),
        upgrade: optional(&value["upgrade"], |upgrade| UpgradeProof {
            start: uint(&upgrade["start"]),
            length: uint(&upgrade["length"]),
            nodes: nodes(&upgrade["nodes"]),
            additional: nodes(&upgrade["additionalNodes"]),
            signature: optional(&upgrade["signature"], bytes),
        }),
        manifest: optional(&value["manifest"], manifest),
    }
}

/// The only manifest in the vectors is a default one, named by its signer.
fn manifest(value: &Value) -> Manifest {
    Manifest::single(hash(&value["signers"][0]["publicKey"]).into())
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut Vec::new(), |segments| {
        for segment in segments {
            match segment {
                ferrocore_mux::Segment::Copy(bytes) => out.extend_from_slice(bytes),
                ferrocore_mux::Segment::Share(bytes) => out.extend_from_slice(bytes),
            }
        }
    });
    out
}

#[test]
fn every_wire_vector() {
    let mut checked = 0;
    for vector in vectors("wire") {
        let id = vector["id"].as_str().unwrap();
        let kind = id.split('-').next().unwrap();
        if kind == "handshake" {
            continue;
        }
        // The version 10 form is only read, never written.
        let (wire, is_written) = match vector["input"]["bytes"].is_string() {
            true => (bytes(&vector["input"]["bytes"]), false),
            false => (bytes(&vector["output"]["bytes"]), true),
        };
        let expected = message(kind, &vector["output"]["decoded"]);
        let decoded = Message::decode(expected.kind(), &wire).expect(id);
        assert_eq!(decoded.as_ref(), Some(&expected), "{id}");
        if is_written {
            assert_eq!(hex::encode(encoded(&expected)), hex::encode(&wire), "{id}");
        }
        checked += 1;
    }
    assert!(checked >= 28, "only {checked} vectors");
}

#[test]
fn handshake() {
    let vectors = vectors("wire");
    let vector = vectors
        .iter()
        .find(|vector| vector["id"] == "handshake")
        .unwrap();
    let wire = hex(&vector["output"]["bytes"]);
    let handshake = Handshake {
        seeks: true,
        capability: hash(&vector["input"]["capability"]),
    };
    assert_eq!(handshake.to_vec(), wire);
    assert_eq!(Handshake::from_slice(&wire), Ok(handshake));
}

#[test]
fn capabilities() {
    let mut checked = 0;
    for vector in vectors("crypto") {
        if !vector["id"].as_str().unwrap().starts_with("capability-") {
            continue;
        }
        let input = &vector["input"];
        let handshake_hash: [u8; 64] = hex(&input["handshakeHash"]).try_into().unwrap();
        let is_initiator = input["isInitiator"] == true;
        let shown = capability(
            is_initiator,
            &Key::from(hash(&input["key"])),
            &handshake_hash,
        );
        assert_eq!(shown.to_vec(), hex(&vector["output"]["capability"]));
        checked += 1;
    }
    assert_eq!(checked, 2);
}
