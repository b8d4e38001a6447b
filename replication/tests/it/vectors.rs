//! Messages and capabilities equal those of hypercore 11.37.1, byte for byte.

use std::path::Path;

use bytes::Bytes;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{
    BlockProof, HashProof, NodeRequest, Proof, ProofRequest, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use ferrocore_log::{Core, CoreOptions, Corestore, Manifest};
use ferrocore_primitives::encoding::{Decode, DecodeError, Encode};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::capability::capability;
use ferrocore_replication::fully_remote::{FullyRemoteError, FullyRemoteProof};
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

#[test]
fn every_proof_as_a_message() {
    let mut checked = 0;
    for vector in vectors("proof") {
        let (id, output) = (&vector["id"], &vector["output"]);
        if !output["data"].is_string() {
            continue;
        }
        let wire = bytes(&output["data"]);
        let expected = Message::Data(Data {
            request: 1,
            proof: proof(&output["proof"]),
        });
        let decoded = Message::decode(expected.kind(), &wire).unwrap();
        assert_eq!(decoded.as_ref(), Some(&expected), "{id}");
        assert_eq!(encoded(&expected), wire, "{id}");
        checked += 1;
    }
    assert_eq!(checked, 11);
}

/// The core of the proofs: ten blocks, signed by the pair of seed 01...01.
fn writer() -> Core {
    let options = CoreOptions {
        key_pair: Some(KeyPair::from_seed(&[1; 32])),
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    let blocks = (0..10).map(|index| Bytes::from(format!("block-{index}")));
    core.append_batch(blocks.collect()).unwrap();
    core
}

/// The vector of a proof that travels alone.
fn fully_remote() -> (u64, Bytes) {
    let vectors = vectors("proof");
    let vector = vectors.iter().find(|v| v["id"] == "fully-remote").unwrap();
    let (input, output) = (&vector["input"], &vector["output"]);
    (uint(&input["index"]), bytes(&output["buffer"]))
}

#[test]
fn a_proof_that_travels_alone() {
    let (index, wire) = fully_remote();
    let writer = writer();
    let ours = FullyRemoteProof::of(&writer, Some(index)).unwrap().unwrap();
    assert_eq!(hex::encode(ours.to_vec()), hex::encode(&wire));

    let theirs = FullyRemoteProof::decode(&wire).unwrap();
    assert_eq!(theirs, ours);
    assert_eq!(theirs.to_vec(), wire);
    assert_eq!(theirs.verify(&writer.key()).unwrap(), 10);

    let reader = Corestore::memory().get(&writer.key()).unwrap();
    reader.accept(theirs.proof).unwrap();
    assert_eq!(reader.tree_hash(), writer.tree_hash());
    assert_eq!(reader.manifest(), writer.manifest());
    assert_eq!(reader.get_local(index).unwrap().unwrap(), "block-2");
}

#[test]
fn a_proof_that_travels_alone_and_does_not_hold_is_refused() {
    // Two bytes mean nothing here: the request's id, and a patch where the manifest allows none.
    let meaningless = [33, 252];
    let (_, wire) = fully_remote();
    let key = writer().key();
    for at in 0..wire.len() {
        assert!(FullyRemoteProof::decode(&wire.slice(..at)).is_err());
        let mut changed = wire.to_vec();
        changed[at] ^= 1;
        let changed = FullyRemoteProof::decode(&changed.into());
        let holds = changed.is_ok_and(|proof| proof.verify(&key).is_ok());
        assert_eq!(holds, meaningless.contains(&at), "byte {at}");
    }
    let proof = FullyRemoteProof::decode(&wire).unwrap();
    let other = proof.verify(&Key::from([9; 32]));
    assert!(matches!(other, Err(FullyRemoteError::OtherCore)));
}

#[test]
fn what_travels_alone_starts_from_nothing() {
    let writer = writer();
    let mut proof = FullyRemoteProof::of(&writer, None).unwrap().unwrap();
    assert_eq!(proof.verify(&writer.key()).unwrap(), 10);
    proof.proof.upgrade = None;
    let decoded = FullyRemoteProof::decode(&proof.to_vec().into());
    assert!(matches!(decoded, Err(DecodeError::Invalid(_))));

    writer.clear(3..4).unwrap();
    assert_eq!(FullyRemoteProof::of(&writer, Some(3)).unwrap(), None);
    let empty = Corestore::memory().get_named("empty").unwrap();
    assert_eq!(FullyRemoteProof::of(&empty, None).unwrap(), None);
}
