//! Manifests and signatures.
//!
//! Holds: both come back from their encoding; nobody signs without the secret.

use ferrocore_log::Manifest;
use ferrocore_log::manifest::{Prologue, SIGNERS_MAX};
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::multisig::MultiSignature;
use ferrocore_log::verifier::Verifier;
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::hash;

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

/// The bytes are a signature.
pub fn signatures(data: &[u8]) {
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
