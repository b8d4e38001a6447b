//! Manifests and signatures.
//!
//! Holds: both come back from their encoding; nobody signs without the secret.

use std::sync::LazyLock;

use ferrocore_log::Manifest;
use ferrocore_log::manifest::{Prologue, SIGNERS_MAX};
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::multisig::{MultiSignature, SignedLength};
use ferrocore_log::verifier::Verifier;
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::hash;
use ferrocore_primitives::sign::KeyPair;

use crate::honest;

/// The bytes are a manifest.
pub fn manifests(data: &[u8]) {
    let Ok(manifest) = Manifest::from_slice(data) else {
        return;
    };
    assert!(manifest.signers.len() <= SIGNERS_MAX);
    let encoded = manifest.to_vec();
    assert_eq!(encoded.len(), manifest.encoded_len());
    let again = Manifest::from_slice(&encoded);
    assert_eq!(again.as_ref().map(Encode::to_vec), Ok(encoded));
    let key = manifest.key();
    assert!(manifest.belongs_to(&key));
    let verifier = Verifier::new(key, manifest).expect("the key is the manifest's own");
    assert!(!verifier.verify(1, &roots(), Some(data)));
}

/// The bytes are a signature, one signer's part of one, or a secret key.
pub fn signatures(data: &[u8]) {
    if let Ok(part) = SignedLength::from_slice(data) {
        assert_eq!(SignedLength::from_slice(&part.to_vec()), Ok(part));
    }
    if let Some(secret) = data.first_chunk::<64>()
        && let Ok(pair) = KeyPair::from_secret(secret)
    {
        assert_eq!(pair.to_secret()[..], secret[..]);
    }
    if let Ok(signature) = MultiSignature::from_slice(data) {
        let encoded = signature.to_vec();
        assert_eq!(encoded.len(), signature.encoded_len());
        assert_eq!(MultiSignature::from_slice(&encoded), Ok(signature));
    }
    if let Ok(signature) = MultiSignature::decode_v0(data)
        && let Some(encoded) = signature.encode_v0(LENGTH)
    {
        assert_eq!(MultiSignature::decode_v0(&encoded), Ok(signature));
    }
    let public_key = honest::key_pair().public_key();
    let single = Manifest::single(public_key);
    let pinned = Prologue {
        hash: hash::leaf(b"pinned"),
        length: 9,
    };
    for manifest in [
        Manifest::compat(public_key),
        Manifest {
            allow_patch: true,
            quorum: 2,
            signers: [single.signers.clone(), single.signers.clone()].concat(),
            ..single.clone()
        },
        Manifest {
            prologue: Some(pinned),
            ..single.clone()
        },
        single,
    ] {
        let verifier = Verifier::new(manifest.key(), manifest).expect("the key is its own");
        assert!(
            !verifier.verify(1, &roots(), Some(data)),
            "nobody signed this"
        );
    }
    let compat = Verifier::compat(public_key.as_bytes().to_owned().into());
    assert!(
        !compat.verify(1, &roots(), Some(data)),
        "nobody signed this"
    );
}

/// The bytes are changes of a signature that three signers made, who saw trees of different lengths: of each
/// three bytes, two say where and one what is there then.
pub fn patches(data: &[u8]) {
    let Patched {
        verifier,
        trees,
        signature,
    } = &*PATCHED;
    let mut changed = signature.clone();
    for change in data.chunks_exact(3).take(CHANGES_MAX) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % (changed.len() + 1);
        match changed.get_mut(at) {
            Some(byte) => *byte = change[2],
            None => changed.push(change[2]),
        }
    }
    let signed = &trees[SIGNED_LENGTH];
    assert!(!verifier.verify(1, signed, Some(&changed)), "another fork");
    // Less would be signed too, for whoever has the nodes between.
    for (length, tree) in trees.iter().enumerate().skip(SIGNED_LENGTH + 1) {
        let holds = verifier.verify(0, tree, Some(&changed));
        assert!(!holds, "not {length} blocks");
    }
    if changed == *signature {
        assert!(verifier.verify(0, signed, Some(&changed)));
    }
}

/// Most bytes that are changed.
const CHANGES_MAX: usize = 64;
/// What a quorum has signed or grown past.
const SIGNED_LENGTH: usize = 5;

struct Patched {
    verifier: Verifier,
    /// By how many blocks they have.
    trees: Vec<Roots>,
    signature: Vec<u8>,
}

static PATCHED: LazyLock<Patched> = LazyLock::new(|| {
    let pairs = [1, 2, 3].map(|seed| KeyPair::from_seed(&[seed; 32]));
    let builder = Manifest::builder().allow_patch().quorum(3);
    let builder = pairs
        .iter()
        .fold(builder, |builder, pair| builder.signer(pair.public_key()));
    let manifest = builder.build().expect("three signers can agree");
    let verifier = Verifier::new(manifest.key(), manifest).expect("the key is its own");
    let core = honest::writer();
    let head = |length| core.tree_head(length).expect("all nodes are here");
    let lengths = [SIGNED_LENGTH as u64, 9, 7];
    let parts: Vec<_> = lengths
        .into_iter()
        .zip(&pairs)
        .map(|(length, pair)| verifier.sign_part(&head(length), pair))
        .collect::<Result<_, _>>()
        .expect("all three may sign");
    let signature = core.assemble_signature(&verifier, SIGNED_LENGTH as u64, &parts);
    let mut roots = Roots::default();
    let mut trees = vec![roots.clone()];
    for index in 0..core.length() {
        let leaf = Node::leaf(index, &honest::block(0, index));
        roots.push(leaf, |_| {}).expect("nine blocks are few");
        trees.push(roots.clone());
    }
    Patched {
        verifier,
        trees,
        signature: signature.expect("all nodes are here").to_vec(),
    }
});

/// Blocks of the tree that nobody signed.
const LENGTH: u64 = 8;

fn roots() -> Roots {
    let root = Node {
        index: LENGTH - 1,
        size: 80,
        hash: hash::leaf(b"tree"),
    };
    Roots::new(LENGTH, vec![root]).expect("eight blocks have one root")
}
