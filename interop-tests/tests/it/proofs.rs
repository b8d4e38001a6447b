//! Goal: what a peer may ask of a log, whatever parts it puts together, is answered with the proof that hypercore 11 and 10
//! make of the same log, node by node, and refused where they refuse.
//! Method: random logs under one key, some cut and grown again, and random requests of every combination of parts.
//! A failure prints the seed, which `FERROCORE_SEED` takes; `FERROCORE_PROOFS` requests are made of each log.

use std::collections::BTreeMap;

use crate::exceptions::Exceptions;
use bytes::Bytes;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{self, Peer};
use ferrocore_interop_tests::rng::Rng;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_log::{Core, CoreOptions, Corestore, flat_tree};
use ferrocore_primitives::sign::KeyPair;
use serde_json::{Map, Value, json};

/// Requests of each log.
const ASKS: usize = 1_500;
const LOGS: u64 = 4;
/// Combinations of parts that are answered at all: all but a seek alone, and nothing.
const PROVABLE: usize = 10;
const LOST: &str = "seek: theirs is lost below a node behind the first root";
const ENDLESS: &str = "hash and seek: theirs never ends for a node on both sides of the old end";
const SEED: [u8; 32] = [7; 32];

#[test]
fn proofs_are_those_of_node_in_every_combination() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|n| n.parse::<u64>().expect("a number"))
    };
    let seed = number("FERROCORE_SEED").unwrap_or(1);
    let asks = number("FERROCORE_PROOFS").map_or(ASKS, |asks| asks as usize);
    let mut exceptions = Exceptions::read("proofs");
    for tree in Tree::ALL {
        let mut answered = Kinds::new();
        for seed in seed..seed + LOGS {
            println!("FERROCORE_SEED={seed}, {tree:?}");
            let kinds = compare(tree, &mut Rng::new(seed), asks, &mut exceptions);
            answered.extend(kinds.into_iter().filter(|(_, [answered, _])| *answered > 0));
        }
        assert_eq!(answered.len(), PROVABLE, "{tree:?}: {answered:?}");
    }
    exceptions.check();
}

/// How many requests of one log Node answers and how many it refuses, by their parts.
type Kinds = BTreeMap<String, [usize; 2]>;

/// Asks both for the same; tells what was asked.
fn compare(tree: Tree, random: &mut Rng, count: usize, exceptions: &mut Exceptions) -> Kinds {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = peer::script("proofs.mjs", tree, &scratch.path().join("node"));
    let mut node = Peer::run("proofs.mjs", &mut command);
    let options = CoreOptions {
        key_pair: Some(KeyPair::from_seed(&SEED)),
        compat: tree == Tree::Legacy,
        ..CoreOptions::default()
    };
    let ours = Corestore::memory().get_with(options).unwrap();
    let steps = grow(&ours, random);
    let made = node.call("make", json!({ "seed": hex(&SEED), "steps": steps }));
    let expected =
        json!({ "key": hex(ours.key().as_bytes()), "fork": ours.fork(), "length": ours.length() });
    assert_eq!(made, expected);

    let mut asks: Vec<_> = (0..count).map(|_| ask(&ours, random)).collect();
    if tree == Tree::Legacy {
        asks.retain(|ask| {
            let is_endless = is_endless_in_node(ask);
            if is_endless {
                assert_eq!(answer(&ours, ask), Value::Null, "{ask:?} is refused");
                exceptions.meet(ENDLESS);
            }
            !is_endless
        });
    }
    let theirs = node.call(
        "prove",
        json!({ "asks": asks.iter().map(plain_ask).collect::<Vec<_>>() }),
    );
    let theirs = theirs["proofs"].as_array().unwrap();
    assert_eq!(theirs.len(), asks.len());
    let mut kinds = Kinds::new();
    for (ask, theirs) in asks.iter().zip(theirs) {
        // What proves nothing is no answer.
        let theirs = if *theirs == json!({ "fork": ours.fork() }) {
            &Value::Null
        } else {
            theirs
        };
        let found = answer(&ours, ask);
        if tree == Tree::Current && is_lost_by_node(ask, ours.length()) {
            let without = answer(&ours, &ProofRequest { seek: None, ..*ask });
            assert_eq!(&without, theirs, "{ask:?} of {} blocks", ours.length());
            exceptions.meet(LOST);
        } else {
            assert_eq!(&found, theirs, "{ask:?} of {} blocks", ours.length());
        }
        kinds.entry(parts(ask)).or_default()[usize::from(theirs.is_null())] += 1;
    }
    println!("answered and refused: {kinds:?}");
    kinds
}

/// What we answer; null if nothing.
fn answer(core: &Core, ask: &ProofRequest) -> Value {
    match core.prove(ask) {
        Ok(Some(proof)) => plain_proof(&proof),
        Ok(None) | Err(_) => Value::Null,
    }
}

/// Whether hypercore 11 drops the seek of a request, see exceptions.json, and answers the rest.
fn is_lost_by_node(ask: &ProofRequest, length: u64) -> bool {
    let Some(node) = ask
        .block
        .map(|block| 2 * block.index)
        .or(ask.hash.map(|hash| hash.index))
    else {
        return false;
    };
    let is_below_node = ask
        .upgrade
        .is_none_or(|upgrade| flat_tree::end_block(node) <= upgrade.start);
    let first_root = flat_tree::full_roots(length).next().unwrap();
    ask.seek.is_some()
        && is_below_node
        && flat_tree::first_block(node) >= flat_tree::end_block(first_root)
}

/// Whether hypercore 10 would look for an answer to a request for ever, see exceptions.json.
fn is_endless_in_node(ask: &ProofRequest) -> bool {
    let (Some(hash), Some(_), Some(upgrade)) = (ask.hash, ask.seek, ask.upgrade) else {
        return false;
    };
    let old_end = upgrade.start;
    flat_tree::first_block(hash.index) < old_end && flat_tree::end_block(hash.index) > old_end
}

/// Makes a log of blocks of every length, perhaps cut once, and tells how.
fn grow(core: &Core, random: &mut Rng) -> Vec<Value> {
    let mut steps = Vec::new();
    let append = |random: &mut Rng, steps: &mut Vec<Value>| {
        let count = 1 + random.below(60);
        let block = |random: &mut Rng| match random.below(6) {
            0 => Vec::new(),
            _ => {
                let len = 8 + random.index(40);
                random.bytes(len)
            }
        };
        let blocks: Vec<_> = (0..count).map(|_| block(random)).collect();
        steps.push(json!({ "append": blocks.iter().map(|block| hex(block)).collect::<Vec<_>>() }));
        core.append_batch(blocks.into_iter().map(Bytes::from).collect())
            .unwrap();
    };
    append(random, &mut steps);
    if random.below(2) == 0 {
        let length = random.below(core.length() + 1);
        core.truncate(length, None).unwrap();
        steps.push(json!({ "truncate": length }));
    }
    append(random, &mut steps);
    steps
}

/// What a peer may ask, sensible or not; but for blocks past the end, which Node refuses before it looks for a proof.
fn ask(core: &Core, random: &mut Rng) -> ProofRequest {
    let length = core.length();
    let mut request = ProofRequest {
        fork: core.fork(),
        ..ProofRequest::default()
    };
    let nodes = random.below(9);
    match random.below(3) {
        0 => {
            request.block = Some(NodeRequest {
                index: random.below(length),
                nodes,
            })
        }
        1 => {
            request.hash = Some(NodeRequest {
                index: random.below(2 * length + 1),
                nodes,
            })
        }
        _ => {}
    }
    if random.below(2) == 0 {
        let padding = *random.pick(&[0, 0, 8]);
        let bytes = random.below(core.byte_length() + 2);
        request.seek = Some(SeekRequest { bytes, padding });
    }
    if random.below(2) == 0 {
        let start = random.below(length);
        let length = 1 + random.below(length - start + 1);
        request.upgrade = Some(UpgradeRequest { start, length });
    }
    request
}

/// Which parts a request has.
fn parts(ask: &ProofRequest) -> String {
    let names = [
        ("block", ask.block.is_some()),
        ("hash", ask.hash.is_some()),
        ("seek", ask.seek.is_some()),
        ("upgrade", ask.upgrade.is_some()),
    ];
    let names: Vec<_> = names
        .iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(name, _)| *name)
        .collect();
    names.join("+")
}

fn plain_ask(ask: &ProofRequest) -> Value {
    let node = |part: &NodeRequest| json!({ "index": part.index, "nodes": part.nodes });
    object([
        ("block", ask.block.as_ref().map(node)),
        ("hash", ask.hash.as_ref().map(node)),
        (
            "seek",
            ask.seek
                .map(|seek| json!({ "bytes": seek.bytes, "padding": seek.padding })),
        ),
        (
            "upgrade",
            ask.upgrade
                .map(|upgrade| json!({ "start": upgrade.start, "length": upgrade.length })),
        ),
    ])
}

/// A proof in the shape of hypercore's own.
fn plain_proof(proof: &Proof) -> Value {
    object([
        ("fork", Some(json!(proof.fork))),
        ("block", proof.block.as_ref().map(|block| {
            json!({ "index": block.index, "nodes": nodes(&block.nodes), "value": hex(&block.value) })
        })),
        ("hash", proof.hash.as_ref().map(|hash| json!({ "index": hash.index, "nodes": nodes(&hash.nodes) }))),
        ("seek", proof.seek.as_ref().map(|seek| json!({ "bytes": seek.bytes, "nodes": nodes(&seek.nodes) }))),
        ("upgrade", proof.upgrade.as_ref().map(|upgrade| {
            json!({
                "start": upgrade.start,
                "length": upgrade.length,
                "nodes": nodes(&upgrade.nodes),
                "additionalNodes": nodes(&upgrade.additional),
                "signature": upgrade.signature.as_ref().map(|signature| hex(signature)),
            })
        })),
    ])
}

fn nodes(nodes: &[Node]) -> Value {
    let plain = |node: &Node| json!({ "index": node.index, "size": node.size, "hash": hex(node.hash.as_bytes()) });
    nodes.iter().map(plain).collect()
}

/// An object of the members that are there.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let present = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
