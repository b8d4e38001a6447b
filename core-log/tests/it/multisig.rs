//! Goal: a quorum appends what it agreed on and nothing else, wherever its secrets live.
//! Method: cores of several signers in memory; parts that are missing, doubled, of another tree,
//! of another length; signers that fail.
#![cfg(feature = "files")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ferrocore_log::manifest::ManifestBuilder;
use ferrocore_log::multisig::{MultiSignature, SignedLength, signable_length};
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_log::signer::{Signer, SignerError};
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{
    AppendOptions, Core, CoreError, CoreOptions, Corestore, Durability, EncryptionKey, Manifest,
    StoreOptions,
};
use ferrocore_primitives::encoding::{Decode as _, Encode as _};
use ferrocore_primitives::sign::{KeyPair, PublicKey, Signature};

fn key_pair(seed: u8) -> KeyPair {
    KeyPair::from_seed(&[seed; 32])
}

fn of_three() -> ManifestBuilder {
    let public_keys = [1, 2, 3].map(|seed| key_pair(seed).public_key());
    let builder = Manifest::builder();
    public_keys
        .into_iter()
        .fold(builder, ManifestBuilder::signer)
}

fn core_of(manifest: &Manifest) -> Core {
    let options = CoreOptions {
        manifest: Some(manifest.clone()),
        ..CoreOptions::default()
    };
    Corestore::memory().get_with(options).unwrap()
}

fn blocks(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(|i| Bytes::from(format!("block {i}"))).collect()
}

/// Brings `reader` to what `core` has.
fn upgrade(reader: &Core, core: &Core) {
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: reader.length(),
            length: core.length() - reader.length(),
        }),
        manifest: true,
        ..ProofRequest::default()
    };
    reader
        .accept(core.prove(&request).unwrap().unwrap())
        .unwrap();
}

#[test]
fn a_quorum_appends_and_readers_take_it() {
    for version in [0, 1, 3] {
        let core = core_of(&of_three().version(version).build().unwrap());
        let reader = Corestore::memory().get(&core.key()).unwrap();
        for (start, pair) in [(0, [1, 2]), (3, [3, 1]), (4, [2, 3])] {
            let proposal = core.propose(blocks(start..start + 3)).unwrap();
            let parts = pair.map(|seed| proposal.sign(&key_pair(seed)).unwrap());
            let signature = proposal.assemble(&parts);
            core.append_signed(proposal, &signature).unwrap();
            upgrade(&reader, &core);
            assert_eq!(reader.tree_hash(), core.tree_hash());
        }
        assert_eq!(core.length(), 9);
        assert!(!core.is_writable(), "not by one alone");
        assert!(matches!(
            core.append("x"),
            Err(CoreError::NotWritable { .. })
        ));
    }
}

#[test]
fn less_than_a_quorum_appends_nothing() {
    let core = core_of(&of_three().build().unwrap());
    let proposal = core.propose(blocks(0..2)).unwrap();
    let other = core.propose(blocks(1..3)).unwrap();
    let [one, two, three] = [1, 2, 3].map(|seed| proposal.sign(&key_pair(seed)).unwrap());
    let astray = other.sign(&key_pair(2)).unwrap();
    let renamed = SignedLength { signer: 2, ..two };
    assert!(proposal.verify_part(&two) && !proposal.verify_part(&astray));
    for parts in [
        vec![],
        vec![one],
        vec![one, one],
        vec![one, astray],
        vec![one, renamed],
    ] {
        let signature = proposal.assemble(&parts);
        let refused = core.append_signed(proposal.clone(), &signature);
        assert!(matches!(refused, Err(CoreError::Signature { .. })));
    }
    assert_eq!(core.length(), 0);
    // What does not belong is left out.
    let signature = proposal.assemble(&[astray, one, renamed, three]);
    assert_eq!(core.append_signed(proposal, &signature).unwrap().length, 2);
}

#[test]
fn a_proposal_is_for_the_log_it_was_made_for() {
    let core = core_of(&of_three().build().unwrap());
    let [first, second] = [0, 1].map(|start| core.propose(blocks(start..start + 1)).unwrap());
    let signature = |proposal: &ferrocore_log::core::Proposal| {
        let parts = [1, 2].map(|seed| proposal.sign(&key_pair(seed)).unwrap());
        proposal.assemble(&parts)
    };
    let signed = [signature(&first), signature(&second)];
    core.append_signed(first.clone(), &signed[0]).unwrap();
    for (proposal, signature) in [(first, &signed[0]), (second, &signed[1])] {
        let refused = core.append_signed(proposal, signature);
        assert!(matches!(refused, Err(CoreError::Moved { .. })));
    }
    assert_eq!(core.get_local(0).unwrap().unwrap(), "block 0");
}

/// Goal: what a quorum agrees to cut is cut, here and at readers, and nothing else is. Method: the same as
/// for appends: parts that are missing or of another cut, a log that moved, a head of the old fork.
#[test]
fn a_quorum_cuts_the_log_and_readers_follow() {
    for version in [0, 1, 3] {
        let builder = of_three().version(version);
        let core = core_of(&builder.build().unwrap());
        let reader = Corestore::memory().get(&core.key()).unwrap();
        let append = |range| {
            let proposal = core.propose(blocks(range)).unwrap();
            let parts = [1, 2].map(|seed| proposal.sign(&key_pair(seed)).unwrap());
            let signature = proposal.assemble(&parts);
            core.append_signed(proposal, &signature).unwrap();
        };
        append(0..9);
        upgrade(&reader, &core);
        assert!(matches!(
            core.truncate(5, None),
            Err(CoreError::NotWritable { .. })
        ));
        assert!(matches!(
            core.propose_truncate(10, None),
            Err(CoreError::OutOfBounds { .. })
        ));
        assert!(matches!(
            core.propose_truncate(5, Some(0)),
            Err(CoreError::InvalidFork { .. })
        ));
        let proposal = core.propose_truncate(5, None).unwrap();
        let other = core.propose_truncate(5, Some(2)).unwrap();
        let [one, three] = [1, 3].map(|seed| proposal.sign(&key_pair(seed)).unwrap());
        let astray = other.sign(&key_pair(3)).unwrap();
        assert!(proposal.verify_part(&three) && !proposal.verify_part(&astray));
        for parts in [vec![], vec![one], vec![one, one], vec![one, astray]] {
            let signature = proposal.assemble(&parts);
            let refused = core.truncate_signed(proposal.clone(), &signature);
            assert!(matches!(refused, Err(CoreError::Signature { .. })));
        }
        let signature = proposal.assemble(&[one, three]);
        assert_eq!(core.length(), 9);
        // The same tree under the old fork was never signed so.
        let head = core.tree_head(5).unwrap();
        assert_ne!(head.fork, proposal.head().fork);

        append(9..10);
        let moved = core.truncate_signed(proposal, &signature);
        assert!(matches!(moved, Err(CoreError::Moved { length: 10, .. })));
        let proposal = core.propose_truncate(5, None).unwrap();
        let parts = [2, 3].map(|seed| proposal.sign(&key_pair(seed)).unwrap());
        let signature = proposal.assemble(&parts);
        let cut = core.truncate_signed(proposal.clone(), &signature).unwrap();
        assert_eq!((cut.length, cut.fork, core.length()), (5, 1, 5));
        let again = core.truncate_signed(proposal, &signature);
        assert!(matches!(again, Err(CoreError::Moved { fork: 1, .. })));
        assert_eq!(core.get_local(4).unwrap().unwrap(), "block 4");
        assert_eq!(core.get_local(5).unwrap(), None);
        follow(&reader, &core);
        append(20..22);
        assert_eq!(core.get_local(6).unwrap().unwrap(), "block 21");
    }
}

/// Takes the higher fork of `core`, which cut what `reader` has.
fn follow(reader: &Core, core: &Core) {
    let request = ProofRequest {
        fork: core.fork(),
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: core.length(),
        }),
        ..ProofRequest::default()
    };
    let proof = core.prove(&request).unwrap().unwrap();
    let mut reorg = reader.reorg(proof).unwrap();
    while let Some(request) = reorg.wants() {
        let proof = core.prove(&request).unwrap().unwrap();
        reader.narrow(&mut reorg, &proof).unwrap();
    }
    reader.adopt(reorg).unwrap();
    assert_eq!(
        (reader.fork(), reader.tree_hash()),
        (core.fork(), core.tree_hash())
    );
}

/// Goal: a core from before there were namespaces is written and read where it is asked for, and is no other
/// core to anybody else.
#[test]
fn a_legacy_core_is_signed_over_48_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let options = |legacy| CoreOptions {
        key: Some((*key_pair(1).public_key().as_bytes()).into()),
        key_pair: Some(key_pair(1)),
        legacy,
        ..CoreOptions::default()
    };
    let store = || Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = store().get_with(options(true)).unwrap();
    core.append_batch(blocks(0..3)).unwrap();
    core.truncate(2, None).unwrap();
    let head = core.head();
    let mut signable = core.tree_hash().as_bytes().to_vec();
    signable.extend(2u64.to_le_bytes());
    signable.extend(1u64.to_le_bytes());
    let signature = Signature::try_from(&head.signature[..]).unwrap();
    assert!(key_pair(1).public_key().verify(&signable, &signature));

    let request = ProofRequest {
        fork: 1,
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 2,
        }),
        ..ProofRequest::default()
    };
    for legacy in [false, true] {
        let options = CoreOptions {
            key: Some(core.key()),
            legacy,
            ..CoreOptions::default()
        };
        let reader = Corestore::memory().get_with(options).unwrap();
        let proof = core.prove(&request).unwrap().unwrap();
        let adopted = reader
            .reorg(proof)
            .map(|reorg| reader.adopt(reorg).unwrap());
        assert_eq!(adopted.is_ok(), legacy);
        assert_eq!(reader.length(), if legacy { 2 } else { 0 });
    }
    drop(core);
    let error = store().get_with(options(false)).unwrap_err();
    assert!(error.to_string().contains("signature"), "{error}");
    let core = store().get_with(options(true)).unwrap();
    assert_eq!(core.append("goes on").unwrap().length, 3);
    assert!(core.is_compat());
}

#[test]
fn an_encrypted_log_is_signed_by_who_cannot_read_it() {
    let core = core_of(&of_three().build().unwrap());
    let secret = core.with_encryption(&EncryptionKey::generate());
    let proposal = secret.propose(blocks(0..1)).unwrap();
    let parts = [1, 2].map(|seed| proposal.sign(&key_pair(seed)).unwrap());
    let signature = proposal.assemble(&parts);
    assert_eq!(
        secret
            .append_signed(proposal, &signature)
            .unwrap()
            .byte_length,
        7
    );
    assert_eq!(secret.get_local(0).unwrap().unwrap(), "block 0");
    assert_ne!(core.get_local(0).unwrap().unwrap(), "block 0");
}

/// Goal: signers who saw different lengths of a source agree on what a quorum has seen. Method:
/// they sign the core's head over the source's tree; a fourth has the blocks and assembles.
#[test]
fn signers_need_not_have_seen_the_same_length() {
    let source = Corestore::memory().get_named("source").unwrap();
    source.append_batch(blocks(0..40)).unwrap();
    for version in [0, 1, 2] {
        let manifest = of_three().allow_patch().quorum(3).version(version);
        let manifest = manifest.build().unwrap();
        let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
        for lengths in [[40, 13, 27], [7, 7, 8], [1, 40, 33], [5, 5, 5]] {
            let parts: Vec<SignedLength> = lengths
                .into_iter()
                .zip(1..)
                .map(|(length, seed)| {
                    let head = source.tree_head(length).unwrap();
                    verifier.sign_part(&head, &key_pair(seed)).unwrap()
                })
                .map(|part| SignedLength::from_slice(&part.to_vec()).unwrap())
                .collect();
            let length = signable_length(&lengths, manifest.quorum);
            assert_eq!(length, *lengths.iter().min().unwrap());
            let signature = source
                .assemble_signature(&verifier, length, &parts)
                .unwrap();
            let core = core_of(&manifest);
            let proposal = core.propose(blocks(0..length as u32)).unwrap();
            core.append_signed(proposal, &signature).unwrap();
            let reader = Corestore::memory().get(&core.key()).unwrap();
            upgrade(&reader, &core);
            assert_eq!(reader.length(), length);
            // One block less or more is another tree.
            for other in [length - 1, length + 1] {
                let core = core_of(&manifest);
                let proposal = core.propose(blocks(0..other as u32)).unwrap();
                let refused = core.append_signed(proposal, &signature);
                assert!(matches!(refused, Err(CoreError::Signature { .. })));
            }
        }
    }
}

/// Goal: a patch counts only where the manifest allows it, and whatever one names is bounded.
#[test]
fn hostile_patches_are_refused_at_once() {
    let source = Corestore::memory().get_named("source").unwrap();
    source.append_batch(blocks(0..9)).unwrap();
    for allow in [false, true] {
        let builder = of_three();
        let builder = if allow {
            builder.allow_patch()
        } else {
            builder
        };
        let manifest = builder.build().unwrap();
        let verifier = Verifier::new(manifest.key(), manifest.clone()).unwrap();
        let parts = [(1, 4), (2, 9)].map(|(seed, length)| {
            let head = source.tree_head(length).unwrap();
            verifier.sign_part(&head, &key_pair(seed)).unwrap()
        });
        let signature = source.assemble_signature(&verifier, 4, &parts).unwrap();
        let append = |signature: &[u8]| {
            let core = core_of(&manifest);
            let proposal = core.propose(blocks(0..4)).unwrap();
            core.append_signed(proposal, signature).is_ok()
        };
        assert_eq!(append(&signature), allow);
        let honest = MultiSignature::from_slice(&signature).unwrap();
        for patch in [0, 1, 4, 6, 1 << 40, (1 << 53) - 1] {
            let mut multi = honest.clone();
            multi.proofs[1].patch = patch;
            assert!(!append(&multi.to_vec()), "patch {patch}");
        }
        let mut multi = honest.clone();
        multi.patch_nodes.pop();
        assert!(!append(&multi.to_vec()), "a node is missing");
        let mut multi = honest.clone();
        multi.patch_nodes[0].size = (1 << 53) - 1;
        assert!(!append(&multi.to_vec()), "sizes overflow");
        let mut multi = honest.clone();
        multi.patch_nodes = vec![honest.patch_nodes[0]; 5_000];
        assert!(!append(&multi.to_vec()), "too many nodes");
        let mut multi = honest.clone();
        multi.proofs = vec![honest.proofs[0]; 2_000];
        assert!(!append(&multi.to_vec()), "too many proofs");
        let mut multi = honest.clone();
        multi.proofs.extend(vec![honest.proofs[0]; 1_000]);
        multi.patch_nodes.extend(vec![source_node(&source); 1_000]);
        assert_eq!(
            append(&multi.to_vec()),
            allow,
            "what follows is not looked at"
        );
    }
}

fn source_node(source: &Core) -> ferrocore_log::merkle::Node {
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 9,
        }),
        ..ProofRequest::default()
    };
    let proof = source.prove(&request).unwrap().unwrap();
    proof.upgrade.unwrap().nodes[0]
}

/// Goal: of a signature only what was signed is kept and passed on.
#[test]
fn what_nobody_signed_is_not_passed_on() {
    let core = core_of(&of_three().allow_patch().build().unwrap());
    let proposal = core.propose(blocks(0..1)).unwrap();
    let parts = [1, 2, 3].map(|seed| proposal.sign(&key_pair(seed)).unwrap());
    let quorum = proposal.assemble(&parts[..2]);
    let mut multi = MultiSignature::from_slice(&proposal.assemble(&parts)).unwrap();
    multi.patch_nodes = vec![ferrocore_log::merkle::Node::leaf(1, b"junk"); 9];
    let padded = [multi.to_vec(), vec![7; 999]].concat();
    core.append_signed(proposal, &padded).unwrap();
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 1,
        }),
        ..ProofRequest::default()
    };
    let proof = core.prove(&request).unwrap().unwrap();
    assert_eq!(proof.upgrade.unwrap().signature.unwrap(), quorum);
}

/// A secret behind a wall: it signs only what its owner lets pass.
struct Remote {
    key_pair: KeyPair,
    answers: Mutex<Vec<Answer>>,
}

enum Answer {
    Sign,
    Refuse,
    Unreachable,
    Wrong,
}

impl Signer for Remote {
    fn public_key(&self) -> PublicKey {
        self.key_pair.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignerError> {
        match self.answers.lock().unwrap().pop() {
            Some(Answer::Sign) => Ok(self.key_pair.sign(message)),
            Some(Answer::Wrong) => Ok(self.key_pair.sign(b"something else")),
            Some(Answer::Unreachable) => Err(SignerError::Unavailable("unplugged".into())),
            Some(Answer::Refuse) | None => Err(SignerError::Refused {
                reason: "ask me later".to_owned(),
            }),
        }
    }
}

#[test]
fn a_secret_that_lives_elsewhere_signs_or_nothing_happens() {
    let answers = vec![
        Answer::Sign,
        Answer::Refuse,
        Answer::Wrong,
        Answer::Unreachable,
    ];
    let remote = Remote {
        key_pair: key_pair(1),
        answers: Mutex::new(answers),
    };
    let store = Corestore::memory();
    let core = store
        .get_with(CoreOptions {
            signer: Some(std::sync::Arc::new(remote)),
            ..CoreOptions::default()
        })
        .unwrap();
    assert_eq!(core.key(), Manifest::single(key_pair(1).public_key()).key());
    assert!(core.is_writable());
    let errors = [(); 3].map(|()| core.append("a").unwrap_err());
    assert!(matches!(
        errors,
        [
            CoreError::Signer {
                source: SignerError::Unavailable(_),
                ..
            },
            CoreError::Signer {
                source: SignerError::Invalid,
                ..
            },
            CoreError::Signer {
                source: SignerError::Refused { .. },
                ..
            },
        ]
    ));
    assert_eq!(core.length(), 0);
    assert_eq!(core.append("a").unwrap().length, 1);
    assert!(matches!(
        core.truncate(0, None),
        Err(CoreError::Signer { .. })
    ));
    assert_eq!(core.length(), 1);
}

/// Goal: whoever signs elsewhere, perhaps by a finger on a button, is not asked where nothing is appended.
#[test]
fn nobody_is_asked_to_sign_what_is_signed() {
    for durability in [Durability::Buffered, Durability::Sync] {
        let remote = Arc::new(Remote {
            key_pair: key_pair(1),
            answers: Mutex::new(vec![Answer::Refuse, Answer::Sign]),
        });
        let options = StoreOptions::from(durability);
        let store = Corestore::with_storage(Memory::new(), options).unwrap();
        let signer: Arc<dyn Signer> = remote.clone();
        let options = CoreOptions {
            signer: Some(signer),
            ..CoreOptions::default()
        };
        let core = store.get_with(options).unwrap();
        core.append("a").unwrap();
        assert_eq!(core.append_batch(Vec::new()).unwrap().length, 1);
        let elsewhere = AppendOptions::at(0, 9);
        let blocks = vec!["refused".into()];
        let moved = core.append_async_with(blocks, elsewhere).wait();
        assert!(matches!(moved, Err(CoreError::Moved { .. })));
        assert_eq!(remote.answers.lock().unwrap().len(), 1);
        let asked = core.append("refused");
        assert!(matches!(asked, Err(CoreError::Signer { .. })));
    }
    // Who cannot write is told so all the same.
    let reader = Corestore::memory().get(&[1; 32].into()).unwrap();
    let refused = reader.append_batch(Vec::new());
    assert!(matches!(refused, Err(CoreError::NotWritable { .. })));
}

#[test]
fn a_signer_of_another_core_is_refused() {
    let remote = Remote {
        key_pair: key_pair(9),
        answers: Mutex::default(),
    };
    let options = CoreOptions {
        manifest: Some(of_three().build().unwrap()),
        signer: Some(std::sync::Arc::new(remote)),
        ..CoreOptions::default()
    };
    let refused = Corestore::memory().get_with(options);
    assert!(matches!(
        refused,
        Err(ferrocore_log::StoreError::KeyPairMismatch { .. })
    ));
}
