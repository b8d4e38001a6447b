//! Goal: a byte of a valid proof changed on its way is refused, or leads to nothing else than the
//! proof as it was would have.
//! Method: proofs of every shape in their wire form, each byte changed in eleven ways, each told to
//! a reader of its own. What a reader takes is compared with the writer: its head, every block,
//! every node; and in the end it must be able to fetch the rest.

use bytes::Bytes;
use ferrocore_log::manifest::{Manifest, Prologue};
use ferrocore_log::merkle::Node;
use ferrocore_log::multisig::{MultiSignature, PartialSignature};
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, CoreOptions, Corestore};
use ferrocore_mux::Segment;
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::messages::{Data, Message};

/// Blocks of the log; its tree has three roots.
const LENGTH: u64 = 13;

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn block(index: u64) -> Bytes {
    (0..index * 7 % 11)
        .map(|byte| (index + byte) as u8)
        .collect()
}

fn writer(options: CoreOptions) -> Core {
    let options = CoreOptions {
        key_pair: Some(pair(1)),
        ..options
    };
    let core = Corestore::memory().get_with(options).unwrap();
    // Signed twice, so that there is a shorter head to upgrade to.
    core.append_batch((0..5).map(block).collect()).unwrap();
    core.append_batch((5..LENGTH).map(block).collect()).unwrap();
    core
}

/// Where the proofs of a case come from, and who reads them.
struct Source {
    writer: Core,
    key: Key,
    /// What replaces the writer's own manifest and signature.
    signed: Option<(Manifest, Bytes)>,
}

impl Source {
    fn of(options: CoreOptions) -> Self {
        let writer = writer(options);
        Self {
            key: writer.key(),
            writer,
            signed: None,
        }
    }

    /// Two of three signers.
    fn quorum() -> Self {
        let signers = [1, 2, 3].map(|seed| Manifest::single(pair(seed).public_key()).signers);
        let manifest = Manifest {
            quorum: 2,
            signers: signers.concat(),
            ..Manifest::single(pair(1).public_key())
        };
        Self::signed_by(manifest, &[(0, pair(1)), (2, pair(3))])
    }

    /// All of three signers, two of whom saw the log longer.
    fn patched() -> Self {
        let signers = [1, 2, 3].map(|seed| Manifest::single(pair(seed).public_key()).signers);
        let manifest = Manifest {
            quorum: 3,
            allow_patch: true,
            signers: signers.concat(),
            ..Manifest::single(pair(1).public_key())
        };
        let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
        let longer = writer(CoreOptions::default());
        longer
            .append_batch((LENGTH..LENGTH + 9).map(block).collect())
            .unwrap();
        let parts = [(1, LENGTH + 9), (2, LENGTH), (3, LENGTH + 2)].map(|(seed, length)| {
            let head = longer.tree_head(length).unwrap();
            verifier.sign_part(&head, &pair(seed)).unwrap()
        });
        let signature = longer.assemble_signature(&verifier, LENGTH, &parts);
        Self {
            writer: writer(CoreOptions::default()),
            key: manifest.key(),
            signed: Some((manifest, signature.unwrap())),
        }
    }

    /// A pinned beginning that is the whole log.
    fn pinned() -> Self {
        let writer = writer(CoreOptions::default());
        let manifest = Manifest {
            quorum: 0,
            signers: Vec::new(),
            prologue: Some(Prologue {
                hash: writer.tree_hash(),
                length: LENGTH,
            }),
            ..Manifest::single(pair(1).public_key())
        };
        Self::signed_by(manifest, &[])
    }

    fn signed_by(manifest: Manifest, signers: &[(usize, KeyPair)]) -> Self {
        let writer = writer(CoreOptions::default());
        let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
        let head = TreeHead {
            fork: 0,
            length: LENGTH,
            hash: writer.tree_hash(),
        };
        let proofs = signers.iter().map(|(signer, pair)| PartialSignature {
            signer: *signer as u64,
            signature: pair.sign(&verifier.signable(&head, *signer)),
            patch: 0,
        });
        let signature = MultiSignature {
            proofs: proofs.collect(),
            patch_nodes: Vec::new(),
        };
        Self {
            writer,
            key: manifest.key(),
            signed: Some((manifest, signature.to_vec().into())),
        }
    }

    fn prove(&self, request: &ProofRequest) -> Proof {
        let mut proof = self.writer.prove(request).unwrap().unwrap();
        if let Some((manifest, signature)) = &self.signed {
            proof.manifest = proof.manifest.map(|_| manifest.clone());
            if let Some(upgrade) = &mut proof.upgrade {
                upgrade.signature = Some(signature.clone()).filter(|s| s.len() > 2);
            }
        }
        proof
    }

    /// A reader that has taken these.
    fn reader(&self, told: &[Proof]) -> Core {
        let reader = Corestore::memory().get(&self.key).unwrap();
        for proof in told {
            reader.accept(proof.clone()).unwrap();
        }
        reader
    }
}

/// What can be seen of a core.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    head: (u64, u64, Hash),
    manifest: Option<Manifest>,
    blocks: Vec<Option<Bytes>>,
    nodes: Vec<Option<Node>>,
}

fn see(core: &Core) -> Seen {
    let node = |index| {
        let request = ProofRequest {
            hash: Some(NodeRequest { index, nodes: 0 }),
            ..ProofRequest::default()
        };
        let proof = core.prove(&request).ok()??;
        proof.hash?.nodes.first().copied()
    };
    let length = core.length();
    Seen {
        head: (core.fork(), length, core.tree_hash()),
        manifest: core.manifest(),
        blocks: (0..length)
            .map(|index| core.get_local(index).unwrap())
            .collect(),
        nodes: (0..2 * length).map(node).collect(),
    }
}

/// What became of the changed proofs of one shape.
#[derive(Debug, Default)]
struct Count {
    /// The bytes are no message any more.
    undecodable: usize,
    /// They are, but it does not hold.
    refused: usize,
    /// They are another way to write the same.
    same: usize,
    /// It holds, and proves part of the same.
    harmless: usize,
}

/// Tells `request`'s answer to readers that were told `before`, each byte changed in each way.
fn flip(source: &Source, before: &[Proof], request: &ProofRequest) -> Count {
    let proof = source.prove(request);
    let bytes = encode(&proof);
    assert_eq!(decode(&bytes).as_ref(), Some(&proof));
    let start = see(&source.reader(before));
    let honest = see(&source.reader(&[before, std::slice::from_ref(&proof)].concat()));
    let writer = see(&source.writer);
    let mut count = Count::default();
    for at in 0..bytes.len() {
        for changed in changes(bytes[at]) {
            let mut bytes = bytes.clone();
            bytes[at] = changed;
            let Some(told) = decode(&bytes) else {
                count.undecodable += 1;
                continue;
            };
            let reader = source.reader(before);
            if reader.accept(told.clone()).is_err() {
                assert_eq!(see(&reader), start, "byte {at}: a refusal changes nothing");
                count.refused += 1;
                continue;
            }
            if told == proof {
                assert_eq!(see(&reader), honest);
                count.same += 1;
            } else {
                assert_harmless(&see(&reader), &start, &honest, &writer, at);
                count.harmless += 1;
            }
            assert_completes(source, &reader);
        }
    }
    count
}

/// Eight flipped bits, all of them, and the numbers next to it.
fn changes(byte: u8) -> impl Iterator<Item = u8> {
    let bits = (0..8).map(move |bit| byte ^ 1 << bit);
    bits.chain([!byte, byte.wrapping_add(1), byte.wrapping_sub(1)])
}

/// Whatever was taken is the writer's, and no more than the proof as it was would have brought.
fn assert_harmless(seen: &Seen, start: &Seen, honest: &Seen, writer: &Seen, at: usize) {
    assert!(
        seen.head == start.head || seen.head == honest.head,
        "byte {at}"
    );
    assert!(seen.manifest == start.manifest || seen.manifest == honest.manifest);
    for (index, block) in seen.blocks.iter().enumerate() {
        let is_known = block.is_none() || *block == honest.blocks[index];
        assert!(is_known, "byte {at}: block {index}");
    }
    for (index, node) in seen.nodes.iter().enumerate() {
        let is_right = node.is_none() || *node == writer.nodes[index];
        assert!(is_right, "byte {at}: tree index {index}");
    }
}

/// An honest peer can bring the reader everything.
fn assert_completes(source: &Source, reader: &Core) {
    if reader.length() < LENGTH {
        reader
            .accept(source.prove(&upgrade(reader.length())))
            .unwrap();
    }
    for index in 0..LENGTH {
        let nodes = reader.missing_nodes(2 * index).unwrap();
        reader.accept(source.prove(&get(index, nodes))).unwrap();
        assert_eq!(reader.get_local(index).unwrap(), Some(block(index)));
    }
}

fn encode(proof: &Proof) -> Vec<u8> {
    let message = Message::Data(Data {
        request: 3,
        proof: proof.clone(),
    });
    message.encode(&mut Vec::new(), |segments| {
        let bytes = segments.iter().map(|segment| match segment {
            Segment::Copy(bytes) => *bytes,
            Segment::Share(bytes) => bytes,
        });
        bytes.collect::<Vec<_>>().concat()
    })
}

fn decode(bytes: &[u8]) -> Option<Proof> {
    match Message::decode(3, &Bytes::copy_from_slice(bytes)) {
        Ok(Some(Message::Data(data))) => Some(data.proof),
        _ => None,
    }
}

fn upgrade(start: u64) -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest {
            start,
            length: LENGTH - start,
        }),
        manifest: true,
        ..ProofRequest::default()
    }
}

fn get(index: u64, nodes: u64) -> ProofRequest {
    ProofRequest {
        block: Some(NodeRequest { index, nodes }),
        ..ProofRequest::default()
    }
}

fn hash(index: u64, nodes: u64) -> ProofRequest {
    ProofRequest {
        hash: Some(NodeRequest { index, nodes }),
        ..ProofRequest::default()
    }
}

fn with_seek(bytes: u64, request: ProofRequest) -> ProofRequest {
    ProofRequest {
        seek: Some(SeekRequest { bytes, padding: 0 }),
        ..request
    }
}

/// Every shape that one core's proofs have.
fn check(name: &str, source: &Source) {
    let known = [source.prove(&upgrade(0))];
    let has_block = [known[0].clone(), source.prove(&get(6, 3))];
    let shapes: &[(&str, &[Proof], ProofRequest)] = &[
        ("upgrade", &[], upgrade(0)),
        (
            "block and upgrade",
            &[],
            ProofRequest {
                block: Some(NodeRequest { index: 9, nodes: 0 }),
                ..upgrade(0)
            },
        ),
        (
            "hash and upgrade",
            &[],
            ProofRequest {
                hash: Some(NodeRequest { index: 5, nodes: 0 }),
                ..upgrade(0)
            },
        ),
        ("seek and upgrade", &[], with_seek(30, upgrade(0))),
        ("block", &known, get(6, 3)),
        ("block below a known leaf", &has_block, get(7, 0)),
        ("hash", &known, hash(9, 2)),
        ("block and seek", &known, with_seek(8, get(6, 3))),
        ("hash and seek", &known, with_seek(8, hash(13, 2))),
    ];
    for (shape, before, request) in shapes {
        let count = flip(source, before, request);
        println!("{name}, {shape}: {count:?}");
        let taken = count.same + count.harmless;
        assert!(
            taken < count.refused,
            "most bytes of a proof prove something"
        );
    }
}

#[test]
fn no_changed_byte_gets_in() {
    check("version 1", &Source::of(CoreOptions::default()));
}

#[test]
fn no_changed_byte_gets_into_a_compat_core() {
    let compat = CoreOptions {
        compat: true,
        ..CoreOptions::default()
    };
    check("compat", &Source::of(compat));
}

#[test]
fn no_changed_byte_gets_into_a_core_of_version_0() {
    let manifest = Manifest {
        version: 0,
        ..Manifest::single(pair(1).public_key())
    };
    let options = CoreOptions {
        manifest: Some(manifest),
        ..CoreOptions::default()
    };
    check("version 0", &Source::of(options));
}

#[test]
fn no_changed_byte_gets_into_a_core_of_many_signers() {
    check("two of three", &Source::quorum());
}

#[test]
fn no_changed_byte_gets_into_a_core_whose_signers_saw_more() {
    check("patched", &Source::patched());
}

#[test]
fn no_changed_byte_gets_into_a_static_core() {
    check("static", &Source::pinned());
}

/// The shorter upgrade carries the nodes up to the length that is signed.
#[test]
fn no_changed_byte_gets_in_beyond_what_was_asked() {
    let source = Source::of(CoreOptions::default());
    let mut request = upgrade(0);
    request.upgrade = Some(UpgradeRequest {
        start: 0,
        length: 6,
    });
    let count = flip(&source, &[], &request);
    println!("version 1, additional nodes: {count:?}");
    assert!(count.same + count.harmless < count.refused);
}
