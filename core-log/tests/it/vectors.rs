//! Goal: trees, proofs, manifests and signatures equal those of the JavaScript, byte by byte.
//! Method: every vector of the sections flat-tree, manifest, tree, signable, signature and proof
//! whose features this crate has.

use std::collections::HashMap;

use crate::common::{bytes, fixed32, hash, nodes, section, vector};
use bytes::Bytes;
use ferrocore_log::manifest::{Prologue, Signer};
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, CoreOptions, Corestore, Manifest, flat_tree};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use serde_json::Value;

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn manifest(value: &Value) -> Manifest {
    let signers = value["signers"].as_array().expect("signers");
    let signer = |v: &Value| Signer {
        namespace: hash(&v["namespace"]),
        public_key: PublicKey::from(fixed32(&v["publicKey"])),
    };
    let prologue = |v: &Value| Prologue {
        hash: hash(&v["hash"]),
        length: number(&v["length"]),
    };
    let linked = |v: &Vec<Value>| v.iter().map(|key| Key::from(fixed32(key))).collect();
    Manifest {
        version: number(&value["version"]),
        allow_patch: value["allowPatch"] == true,
        quorum: number(&value["quorum"]),
        signers: signers.iter().map(signer).collect(),
        prologue: value["prologue"]
            .is_object()
            .then(|| prologue(&value["prologue"])),
        linked: value["linked"].as_array().map(linked),
        user_data: value["userData"]
            .is_string()
            .then(|| bytes(&value["userData"])),
    }
}

#[test]
fn flat_trees_are_equal() {
    for v in section("flat-tree") {
        let (id, input, output) = (v["id"].as_str().unwrap(), &v["input"], &v["output"]);
        if id.starts_with("fullRoots") {
            let roots: Vec<_> = flat_tree::full_roots(number(&input["length"])).collect();
            assert_eq!(serde_json::json!(roots), output["roots"], "{id}");
        } else if id.starts_with("node") {
            let index = number(&input["index"]);
            let spans = [flat_tree::left_span(index), flat_tree::right_span(index)];
            let children = flat_tree::children(index).map(|(l, r)| [l, r]);
            let ours = serde_json::json!({
                "depth": flat_tree::depth(index),
                "offset": flat_tree::offset(index),
                "parent": flat_tree::parent(index),
                "sibling": flat_tree::sibling(index),
                "children": children,
                "spans": spans,
                "leaves": flat_tree::leaves(index),
            });
            assert_eq!(&ours, output, "{id}");
        } else {
            assert_eq!(
                born(number(&input["from"]), number(&input["to"])),
                output["nodes"],
                "{id}"
            );
        }
    }
}

/// The nodes that come into being when a log grows, subtree by subtree.
fn born(from: u64, to: u64) -> Value {
    use ferrocore_log::merkle::{Node, Roots};
    let node = |index| Node {
        index,
        size: 0,
        hash: ferrocore_primitives::hash::leaf(b""),
    };
    let roots = flat_tree::full_roots(from).map(node).collect();
    let mut roots = Roots::new(from, roots).unwrap();
    let mut born = Vec::new();
    ferrocore_log::proof::growth(from, to, |index| {
        born.push(index);
        roots
            .push(node(index), |parent| born.push(parent.index))
            .unwrap();
    });
    serde_json::json!(born)
}

#[test]
fn manifests_are_equal() {
    for v in section("manifest") {
        let manifest = manifest(&v["input"]["manifest"]);
        let encoded = bytes(&v["output"]["encoded"]);
        let id = &v["id"];
        assert_eq!(manifest.to_vec(), encoded, "{id}");
        let key = manifest.key();
        assert_eq!(key.as_bytes(), &fixed32(&v["output"]["key"]), "{id}");
        assert_eq!(key.to_string(), v["output"]["id"].as_str().unwrap());
        let discovery_key = key.discovery_key();
        assert_eq!(
            discovery_key.as_bytes(),
            &fixed32(&v["output"]["discoveryKey"])
        );
        let decoded = Manifest::from_slice(&encoded).unwrap();
        assert_eq!(decoded.to_vec(), encoded, "{id}");
        for cut in 0..encoded.len() {
            assert!(
                Manifest::from_slice(&encoded[..cut]).is_err(),
                "{id} cut at {cut}"
            );
        }
    }
}

#[test]
fn signables_are_equal() {
    let public_key = KeyPair::from_seed(&[1; 32]).public_key();
    let key = Key::from(*public_key.as_bytes());
    let single = Manifest::single(public_key);
    let v0 = Manifest::compat(public_key);
    let verifiers = [
        ("v1", Verifier::new(single.key(), single).unwrap()),
        ("v0", Verifier::new(v0.key(), v0).unwrap()),
        ("compat", Verifier::compat(key)),
        ("legacy", Verifier::legacy(key)),
    ];
    assert_eq!(section("signable").len(), verifiers.len());
    for (id, verifier) in verifiers {
        let v = vector("signable", id);
        let head = TreeHead {
            fork: number(&v["input"]["fork"]),
            length: number(&v["input"]["length"]),
            hash: hash(&v["input"]["treeHash"]),
        };
        assert_eq!(
            verifier.signable(&head, 0),
            bytes(&v["output"]["signable"]),
            "{id}"
        );
    }
}

/// A core of the key pair with seed 01…01 holding `blocks`.
fn core_of(blocks: &[Vec<u8>], compat: bool) -> Core {
    let options = CoreOptions {
        key_pair: Some(KeyPair::from_seed(&[1; 32])),
        compat,
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    for block in blocks {
        core.append(block.clone()).unwrap();
    }
    core
}

fn blocks_of(v: &Value) -> Vec<Vec<u8>> {
    let blocks = v["input"]["blocks"].as_array().expect("blocks");
    blocks.iter().map(bytes).collect()
}

fn whole(core: &Core) -> ProofRequest {
    ProofRequest {
        fork: core.fork(),
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: core.length(),
        }),
        ..ProofRequest::default()
    }
}

fn signature(core: &Core) -> Bytes {
    let proof = core.prove(&whole(core)).unwrap().unwrap();
    proof.upgrade.unwrap().signature.unwrap()
}

fn assert_head(core: &Core, head: &Value) {
    let length = number(&head["length"]);
    assert_eq!(core.length(), length);
    assert_eq!(core.fork(), number(&head["fork"]));
    assert_eq!(core.byte_length(), number(&head["byteLength"]));
    assert_eq!(core.tree_hash(), hash(&head["treeHash"]));
    assert_eq!(
        signature(core),
        bytes(&head["signature"]),
        "length {length}"
    );
}

/// Whether these nodes are in the tree of `core`.
fn assert_nodes(core: &Core, expected: &Value) {
    for node in nodes(expected) {
        let request = ProofRequest {
            fork: core.fork(),
            hash: Some(NodeRequest {
                index: node.index,
                nodes: 0,
            }),
            ..ProofRequest::default()
        };
        let proof = core.prove(&request).unwrap().unwrap();
        assert_eq!(proof.hash.unwrap().nodes, [node]);
    }
}

#[test]
fn the_same_history_makes_the_same_tree() {
    let v = vector("tree", "five-blocks");
    let core = core_of(&[], false);
    assert_eq!(core.key().as_bytes(), &fixed32(&v["input"]["key"]));
    for (block, step) in blocks_of(&v)
        .into_iter()
        .zip(v["output"]["steps"].as_array().unwrap())
    {
        core.append(block).unwrap();
        assert_head(&core, step);
    }
    assert_nodes(&core, &v["output"]["nodes"]);
    core.truncate(3, None).unwrap();
    let truncated = &vector("tree", "truncate")["output"];
    assert_head(&core, truncated);
    assert_nodes(&core, &truncated["roots"]);
    core.append(&b"new"[..]).unwrap();
    assert_head(&core, &vector("tree", "append-after-truncate")["output"]);
}

#[test]
fn compat_signatures_are_equal() {
    let v = vector("signature", "compat");
    let core = core_of(&blocks_of(&v), true);
    assert_eq!(core.key().as_bytes(), &fixed32(&v["input"]["key"]));
    assert_eq!(signature(&core), bytes(&v["output"]["signature"]));
}

#[test]
fn version_0_signatures_are_equal() {
    let v = vector("signature", "v0-single");
    let key_pair = KeyPair::from_seed(&fixed32(&v["input"]["seed"]));
    let options = CoreOptions {
        manifest: Some(Manifest::compat(key_pair.public_key())),
        key_pair: Some(key_pair),
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    let blocks = blocks_of(&v).into_iter().map(Bytes::from);
    core.append_batch(blocks.collect()).unwrap();
    assert_eq!(core.key().as_bytes(), &fixed32(&v["input"]["key"]));
    assert_eq!(signature(&core), bytes(&v["output"]["signature"]));
}

/// The blocks that the vectors of quorums sign, 3 or all 5 of them.
fn roots_of(length: usize) -> (Roots, HashMap<u64, Node>) {
    let (mut roots, mut nodes) = (Roots::default(), HashMap::new());
    let blocks: [&[u8]; 5] = [b"a", b"bc", b"def", b"", b"ghij"];
    for (block, index) in blocks[..length].iter().zip(0..) {
        let leaf = Node::leaf(index, block);
        nodes.insert(leaf.index, leaf);
        let mut born = |parent: Node| nodes.extend([(parent.index, parent)]);
        roots.push(leaf, &mut born).unwrap();
    }
    (roots, nodes)
}

#[test]
fn quorum_signatures_are_equal() {
    let vectors = section("signature");
    let of_quorums = vectors
        .iter()
        .filter(|v| v["input"]["manifest"].is_object());
    let mut checked = 0;
    for v in of_quorums {
        let id = v["id"].as_str().unwrap();
        let manifest = manifest(&v["input"]["manifest"]);
        let verifier = Verifier::new(Key::from(fixed32(&v["input"]["key"])), manifest).unwrap();
        let (roots, _) = roots_of(3);
        let (_, nodes) = roots_of(5);
        // The pairs of the first and the third signer, who saw more where a patch is needed.
        let seen = if id.ends_with("-patched") { 5 } else { 3 };
        let parts = [(1, 3), (3, seen)].map(|(seed, length)| {
            let head = TreeHead::of(0, &roots_of(length).0);
            let signer = KeyPair::from_seed(&[seed; 32]);
            verifier.sign_part(&head, &signer).unwrap()
        });
        let node = |index: u64| nodes.get(&index).copied().ok_or(index);
        let ours = verifier.assemble(3, &parts, node).unwrap();
        let theirs = bytes(&v["output"]["signature"]);
        assert_eq!(ours, theirs, "{id}");
        assert!(verifier.verify(0, &roots, Some(&theirs)), "{id}");
        assert!(!verifier.verify(1, &roots, Some(&theirs)), "{id}");
        assert!(!verifier.verify(0, &roots_of(2).0, Some(&theirs)), "{id}");
        for byte in 0..theirs.len() {
            let mut flipped = theirs.clone();
            flipped[byte] ^= 1;
            assert_eq!(
                verifier.verify(0, &roots, Some(&flipped)),
                means_nothing(id, byte),
                "{id} at {byte}"
            );
        }
        checked += 1;
    }
    assert_eq!(checked, 6);
}

/// Whether a byte of a signature may be another. In version 0 a patch names the length it leads to
/// and the nodes it takes, which follow from the lengths; in version 1 a patch is named where none
/// is allowed.
fn means_nothing(id: &str, byte: usize) -> bool {
    match id {
        "v0-multi-patch-patched" => [133, 136, 137].contains(&byte),
        "v1-multi-2of3-nopatch" => [66, 132].contains(&byte),
        _ => false,
    }
}

fn request(ask: &Value) -> ProofRequest {
    let node = |v: &Value| {
        v.is_object().then(|| NodeRequest {
            index: number(&v["index"]),
            nodes: number(&v["nodes"]),
        })
    };
    ProofRequest {
        fork: 0,
        block: node(&ask["block"]),
        hash: node(&ask["hash"]),
        seek: ask["seek"].is_object().then(|| SeekRequest {
            bytes: number(&ask["seek"]["bytes"]),
            padding: number(&ask["seek"]["padding"]),
        }),
        upgrade: ask["upgrade"].is_object().then(|| UpgradeRequest {
            start: number(&ask["upgrade"]["start"]),
            length: number(&ask["upgrade"]["length"]),
        }),
        manifest: false,
    }
}

fn assert_proof_equals(ours: &Proof, theirs: &Value, id: &str) {
    let part = |name: &str| nodes(&theirs[name]["nodes"]);
    let block = ours.block.as_ref();
    assert_eq!(block.is_some(), theirs["block"].is_object(), "{id}");
    if let Some(block) = block {
        assert_eq!(block.index, number(&theirs["block"]["index"]), "{id}");
        assert_eq!(block.value, bytes(&theirs["block"]["value"]), "{id}");
        assert_eq!(block.nodes, part("block"), "{id}");
    }
    let hash = ours.hash.as_ref().map(|hash| hash.nodes.clone());
    assert_eq!(hash.unwrap_or_default(), part("hash"), "{id}");
    let seek = ours.seek.as_ref().map(|seek| seek.nodes.clone());
    assert_eq!(seek.unwrap_or_default(), part("seek"), "{id}");
    let upgrade = ours.upgrade.as_ref();
    assert_eq!(upgrade.is_some(), theirs["upgrade"].is_object(), "{id}");
    if let Some(upgrade) = upgrade {
        let theirs = &theirs["upgrade"];
        assert_eq!(upgrade.start, number(&theirs["start"]), "{id}");
        assert_eq!(upgrade.length, number(&theirs["length"]), "{id}");
        assert_eq!(upgrade.nodes, nodes(&theirs["nodes"]), "{id}");
        assert_eq!(
            upgrade.additional,
            nodes(&theirs["additionalNodes"]),
            "{id}"
        );
        assert_eq!(
            upgrade.signature.as_deref(),
            Some(&*bytes(&theirs["signature"])),
            "{id}"
        );
    }
}

#[test]
fn proofs_are_equal() {
    let blocks: Vec<_> = (0..10).map(|i| format!("block-{i}").into_bytes()).collect();
    let core = core_of(&blocks, false);
    let mut checked = 0;
    for v in section("proof")
        .iter()
        .filter(|v| v["input"]["ask"].is_object())
    {
        let id = v["id"].as_str().unwrap();
        let proof = core.prove(&request(&v["input"]["ask"])).unwrap().unwrap();
        assert_proof_equals(&proof, &v["output"]["proof"], id);
        checked += 1;
    }
    assert_eq!(checked, 11);
}
