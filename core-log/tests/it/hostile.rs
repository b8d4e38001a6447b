//! Goal: what a hostile peer asks or answers costs it the request, and changes nothing for those
//! who come after.
//! Method: requests and proofs that no honest program makes, over memory stores.

use bytes::Bytes;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::{AcceptError, ProveError};
use ferrocore_log::limits::{NUMBER_MAX, PROOF_NODES_MAX};
use ferrocore_log::manifest::{Prologue, Signer};
use ferrocore_log::proof::{
    NodeRequest, PlanError, Proof, ProofRequest, SeekRequest, UpgradeRequest,
};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, CoreOptions, Corestore, Manifest};
use ferrocore_primitives::hash;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use proptest::prelude::*;

fn writer(length: u8) -> Core {
    let core = Corestore::memory().get_named("writer").unwrap();
    let blocks = (1..=length).map(|i| Bytes::from(vec![i; usize::from(i)]));
    core.append_batch(blocks.collect()).unwrap();
    core
}

#[test]
fn a_node_half_inside_the_askers_tree_is_no_node_to_prove() {
    let core = writer(8);
    for (seek, hash) in [(Some(20), 3), (Some(20), 7), (Some(2), 3), (None, 3)] {
        let request = ProofRequest {
            hash: Some(NodeRequest {
                index: hash,
                nodes: 0,
            }),
            seek: seek.map(|bytes| SeekRequest { bytes, padding: 0 }),
            upgrade: Some(UpgradeRequest {
                start: 3,
                length: 5,
            }),
            ..ProofRequest::default()
        };
        let refused = core.prove(&request).unwrap_err();
        let expected = matches!(refused, ProveError::Invalid(PlanError::InvalidNode));
        assert!(expected, "{request:?}: {refused}");
    }
}

#[test]
fn a_byte_outside_the_node_beside_it_is_refused() {
    // The block of 3 bytes at index 2 lies at bytes 3 to 5; one level up, with the fourth, at 3 to 9.
    let core = writer(8);
    for (nodes, bytes, holds) in [
        (0, 2, false),
        (0, 3, true),
        (0, 5, true),
        (0, 6, false),
        (1, 2, false),
        (1, 9, true),
        (1, 10, false),
        (1, NUMBER_MAX, false),
    ] {
        let request = ProofRequest {
            hash: Some(NodeRequest { index: 4, nodes }),
            seek: Some(SeekRequest { bytes, padding: 0 }),
            ..ProofRequest::default()
        };
        let answer = core.prove(&request);
        let is_refused = matches!(answer, Err(ProveError::Invalid(PlanError::SeekOutside)));
        assert_eq!(is_refused, !holds, "{request:?}: {answer:?}");
    }
}

/// Numbers around the edges of a short log, and those at the end of all numbers.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..40, 1 => NUMBER_MAX - 3..=NUMBER_MAX]
}

fn requests() -> impl Strategy<Value = ProofRequest> {
    let part = || proptest::option::of((number(), number()));
    (part(), part(), part(), part()).prop_map(|(block, hash, seek, upgrade)| ProofRequest {
        block: block.map(|(index, nodes)| NodeRequest { index, nodes }),
        hash: hash.map(|(index, nodes)| NodeRequest { index, nodes }),
        seek: seek.map(|(bytes, padding)| SeekRequest { bytes, padding }),
        upgrade: upgrade.map(|(start, length)| UpgradeRequest { start, length }),
        ..ProofRequest::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_request_is_answered_within_bounds_or_refused(length in 0u8..20, request in requests()) {
        if let Ok(Some(proof)) = writer(length).prove(&request) {
            let seek = proof.seek.iter().map(|part| part.nodes.len());
            let path = proof.block.iter().map(|part| part.nodes.len());
            let hash = proof.hash.iter().map(|part| part.nodes.len());
            let upgrade = proof.upgrade.iter().map(|part| part.nodes.len() + part.additional.len());
            let longest = seek.chain(path).chain(hash).chain(upgrade).max();
            prop_assert!(longest.unwrap_or(0) <= PROOF_NODES_MAX);
        }
    }
}

/// What the reader of a log of six blocks is told by a writer that has eight by now.
fn overlong_upgrade(core: &Core, reader: &Core) -> Proof {
    assert_eq!(reader.length(), 0);
    core.prove(&whole(6)).unwrap().unwrap()
}

fn fetch(core: &Core, reader: &Core, index: u64) {
    let nodes = reader.missing_nodes(2 * index).unwrap();
    let request = ProofRequest {
        block: Some(NodeRequest { index, nodes }),
        ..ProofRequest::default()
    };
    let proof = core.prove(&request).unwrap().unwrap();
    reader.accept(proof).unwrap();
}

/// A parent's hash covers the sum of its children's sizes only, so one of two siblings can be
/// said to be longer at the cost of the other.
#[test]
fn sizes_shifted_between_siblings_do_no_harm() {
    let core = writer(8);
    let reader = Corestore::memory().get(&core.key()).unwrap();
    let mut proof = overlong_upgrade(&core, &reader);
    let upgrade = proof.upgrade.as_mut().unwrap();
    let (left, right) = (&mut upgrade.nodes[1], &mut upgrade.additional[0]);
    assert_eq!((left.index, right.index), (9, 13), "they are siblings");
    left.size += 1;
    right.size -= 1;
    // It may be refused or accepted; what an honest peer says later counts.
    let _ = reader.accept(proof);
    if reader.length() == 0 {
        reader.accept(overlong_upgrade(&core, &reader)).unwrap();
    }
    for index in (0..8).rev() {
        fetch(&core, &reader, index);
    }
    for index in 0..8 {
        assert_eq!(
            reader.get_local(index).unwrap(),
            core.get_local(index).unwrap()
        );
    }
}

#[test]
fn nothing_that_nobody_signed_is_kept_behind_a_signature() {
    let core = writer(3);
    let reader = Corestore::memory().get(&core.key()).unwrap();
    let honest = core.prove(&whole(3)).unwrap().unwrap();
    let mut padded = honest.clone();
    let signature = &mut padded.upgrade.as_mut().unwrap().signature;
    let junk = vec![7; 1 << 20];
    *signature = Some([signature.as_deref().unwrap(), &junk].concat().into());
    reader.accept(padded).unwrap();
    let passed_on = reader.prove(&whole(3)).unwrap().unwrap();
    assert_eq!(passed_on, honest);
}

#[test]
fn a_compat_core_learns_no_manifest_but_its_own() {
    let options = CoreOptions {
        name: Some("writer".to_owned()),
        compat: true,
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    core.append("a").unwrap();
    let reader = Corestore::memory().get(&core.key()).unwrap();
    let public_key = PublicKey::from(*core.key().as_bytes());
    let mut proof = core.prove(&whole(1)).unwrap().unwrap();
    proof.manifest = Some(Manifest {
        version: 2,
        quorum: 9,
        user_data: Some(vec![7; 1000]),
        ..Manifest::single(public_key)
    });
    reader.accept(proof).unwrap();
    assert_eq!(reader.manifest(), Some(Manifest::compat(public_key)));
}

fn whole(length: u64) -> ProofRequest {
    ProofRequest {
        upgrade: Some(UpgradeRequest { start: 0, length }),
        manifest: true,
        ..ProofRequest::default()
    }
}

fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

/// A manifest that pins the beginning of a core, and lets `signers` go on from there.
fn pinning(prologue: Prologue, signers: Vec<Signer>) -> Manifest {
    Manifest {
        quorum: signers.len() as u64,
        signers,
        prologue: Some(prologue),
        ..Manifest::single(key_pair().public_key())
    }
}

/// The signature over `head` by the only signer.
fn signed(verifier: &Verifier, head: &TreeHead) -> Bytes {
    verifier.sign(head, &key_pair()).unwrap()
}

#[test]
fn a_static_core_keeps_no_signature_at_all() {
    let core = writer(3);
    let (hash, length) = (core.tree_hash(), 3);
    let manifest = pinning(Prologue { hash, length }, Vec::new());
    let reader = Corestore::memory().get(&manifest.key()).unwrap();
    let mut proof = core.prove(&whole(3)).unwrap().unwrap();
    proof.manifest = Some(manifest);
    assert!(proof.upgrade.as_ref().unwrap().signature.is_some());
    reader.accept(proof).unwrap();
    let passed_on = reader.prove(&whole(3)).unwrap().unwrap();
    assert_eq!(passed_on.upgrade.unwrap().signature, None);
}

/// Goal: who may sign what comes behind the pinned beginning cannot replace it.
#[test]
fn an_upgrade_that_steps_over_the_pinned_beginning_is_refused() {
    let core = writer(3);
    let signer = Manifest::single(key_pair().public_key()).signers;
    for (hash, accepted) in [
        (hash::leaf(b"pinned"), false),
        (writer(2).tree_hash(), true),
    ] {
        let manifest = pinning(Prologue { hash, length: 2 }, signer.clone());
        let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
        let head = TreeHead {
            fork: 0,
            length: 3,
            hash: core.tree_hash(),
        };
        let proof_of = |to| {
            let mut proof = core.prove(&whole(to)).unwrap().unwrap();
            proof.upgrade.as_mut().unwrap().signature = Some(signed(&verifier, &head));
            proof.manifest = Some(manifest.clone());
            proof
        };
        let reader = Corestore::memory().get(&manifest.key()).unwrap();
        let stepping_over = reader.accept(proof_of(3)).unwrap_err();
        assert!(matches!(
            stepping_over,
            AcceptError::Verify(VerifyError::Prologue)
        ));
        assert_eq!(reader.accept(proof_of(2)).is_ok(), accepted);
    }
}

/// Goal: what comes behind the pinned beginning is taken away by a signer only.
#[test]
fn cutting_a_log_back_to_its_pinned_beginning_takes_a_signature() {
    let core = writer(2);
    let signer = Manifest::single(key_pair().public_key()).signers;
    let (hash, length) = (core.tree_hash(), 2);
    let manifest = pinning(Prologue { hash, length }, signer);
    let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
    let reader = Corestore::memory().get(&manifest.key()).unwrap();
    let mut proof = core.prove(&whole(2)).unwrap().unwrap();
    proof.manifest = Some(manifest);
    reader.accept(proof.clone()).unwrap();
    proof.fork = 1;
    for signature in [None, Some(Bytes::from_static(&[7; 68]))] {
        proof.upgrade.as_mut().unwrap().signature = signature;
        let refused = reader.reorg(proof.clone()).unwrap_err();
        assert!(matches!(refused, VerifyError::Signature { length: 2 }));
    }
    let head = TreeHead {
        fork: 1,
        length,
        hash,
    };
    proof.upgrade.as_mut().unwrap().signature = Some(signed(&verifier, &head));
    reader.adopt(reader.reorg(proof).unwrap()).unwrap();
    assert_eq!((reader.fork(), reader.length()), (1, 2));
}
