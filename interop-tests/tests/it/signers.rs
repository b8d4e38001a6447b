//! Cores of many signers and of none, between Node and a node of ours in this process.
//!
//! Method: one side makes the core, the other opens it by its key alone and reads all of it.
#![cfg(unix)]

use bytes::Bytes;
use ferrocore::Node;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_log::manifest::{ManifestBuilder, Prologue};
use ferrocore_log::multisig::signable_length;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, CoreOptions, Manifest};
use ferrocore_primitives::sign::KeyPair;
use serde_json::{Value, json};

use crate::beside_node::{dial, listening, node_completes, node_reads, within};

/// What each signer of the source has seen; the last has not signed.
const SEEN: [u64; 3] = [12, 20, 16];

pub(crate) fn blocks(count: u64) -> Vec<Bytes> {
    (0..count)
        .map(|i| Bytes::from(format!("block {i}")))
        .collect()
}

/// The same for Node.
fn texts() -> Vec<String> {
    (0..20).map(|i| format!("block {i}")).collect()
}

pub(crate) fn key_pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

/// A core of three signers of whom two agree, at the length that both have seen.
fn quorum_core(node: &Node, version: u64) -> Core {
    let signers = [1, 2, 3].map(|seed| key_pair(seed).public_key());
    let builder = signers
        .into_iter()
        .fold(Manifest::builder(), ManifestBuilder::signer);
    let manifest = builder.allow_patch().version(version).build().unwrap();
    let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
    let source = node.create_core("source").unwrap();
    source.append_batch(blocks(20)).unwrap();
    let signed = [(1, SEEN[0]), (2, SEEN[1])];
    let parts = signed.map(|(seed, length)| {
        let head = source.tree_head(length).unwrap();
        verifier.sign_part(&head, &key_pair(seed)).unwrap()
    });
    let length = signable_length(&signed.map(|(_, length)| length), manifest.quorum);
    let signature = source
        .assemble_signature(&verifier, length, &parts)
        .unwrap();
    let options = CoreOptions {
        manifest: Some(manifest),
        ..CoreOptions::default()
    };
    let core = node.store().get_with(options).unwrap();
    let proposal = core.propose(blocks(length)).unwrap();
    core.append_signed(proposal, &signature).unwrap();
    core
}

/// Node opens the core by its key and reads all of it.
async fn assert_node_reads(tree: Tree, make: impl FnOnce(&Node) -> Core) {
    let (node, port) = listening().await;
    let core = make(&node);
    let scratch = tempfile::tempdir().unwrap();
    let mut peer = node_reads(tree, &scratch, &core, port);
    node_completes(&mut peer, &core);
    node.close().await;
}

/// We open the core that Node made by its key and read all of it.
async fn assert_we_read(peer: &mut Peer, made: &Value) -> Manifest {
    let (node, core) = dial(peer.listen(), made).await;
    let length = made["length"].as_u64().unwrap();
    for (index, block) in (0..length).zip(blocks(length)) {
        assert_eq!(within(core.get(index)).await.unwrap(), block);
    }
    assert_eq!(core.length(), length);
    assert_eq!(made["treeHash"], core.tree_hash().to_string());
    let manifest = core.manifest().unwrap();
    node.close().await;
    manifest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_reads_what_a_quorum_of_ours_signed() {
    for tree in Tree::ALL {
        for version in [0, 1] {
            assert_node_reads(tree, |node| quorum_core(node, version)).await;
        }
    }
    for version in [2, 3] {
        assert_node_reads(Tree::Current, |node| quorum_core(node, version)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_read_what_a_quorum_of_node_signed() {
    let mut keys = Vec::new();
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let made = peer.call(
            "quorum",
            json!({ "seeds": [1, 2, 3], "lengths": [SEEN[0], SEEN[1]], "texts": texts() }),
        );
        assert_eq!(made["length"], SEEN[0]);
        let manifest = assert_we_read(&mut peer, &made).await;
        assert!(manifest.allow_patch);
        assert_eq!((manifest.quorum, manifest.signers.len()), (2, 3));
        keys.push(manifest.key());
    }
    assert_eq!(keys[0], keys[1], "both trees make the same core");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_reads_our_static_cores() {
    for tree in Tree::ALL {
        assert_node_reads(tree, |node| {
            let source = node.create_core("source").unwrap();
            source.append_batch(blocks(20)).unwrap();
            let core = node.store().staticify(&source).unwrap();
            let made = node.store().create_static(blocks(20)).unwrap();
            assert_eq!(made.key(), core.key());
            core
        })
        .await;
    }
}

/// A core whose first blocks are pinned by its key, and the others signed.
fn pinned_core(node: &Node) -> Core {
    let source = node.create_core("source").unwrap();
    source.append_batch(blocks(5)).unwrap();
    let pair = key_pair(7);
    let builder = Manifest::builder().signer(pair.public_key());
    let manifest = builder
        .prologue(Prologue {
            hash: source.tree_hash(),
            length: 5,
        })
        .build()
        .unwrap();
    let options = CoreOptions {
        manifest: Some(manifest),
        key_pair: Some(pair),
        ..CoreOptions::default()
    };
    let core = node.store().get_with(options).unwrap();
    core.copy_prologue(&source).unwrap();
    core.append_batch(blocks(20).split_off(5)).unwrap();
    core
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_reads_what_begins_as_pinned_and_goes_on_signed() {
    for tree in Tree::ALL {
        assert_node_reads(tree, pinned_core).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_read_node_s_static_cores() {
    let mut keys = Vec::new();
    for tree in Tree::ALL {
        let scratch = tempfile::tempdir().unwrap();
        let mut peer = Peer::start(tree, Role::Core, scratch.path());
        let made = peer.call("staticify", json!({ "texts": texts() }));
        let manifest = assert_we_read(&mut peer, &made).await;
        assert!(manifest.signers.is_empty());
        keys.push(manifest.key());
        assert_eq!(manifest.prologue.unwrap().length, 20);
    }
    assert_eq!(keys[0], keys[1], "both trees make the same core");
}
