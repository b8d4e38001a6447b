//! What is signed: a tree, bound to the core it belongs to.
//!
//! Knows the bytes under a signature. Does not know who signs, nor how signatures are encoded.

use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::namespace;

use crate::merkle::Roots;

/// A tree as it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// Which history.
    pub fork: u64,
    /// Blocks.
    pub length: u64,
    /// Hash over the roots.
    pub hash: Hash,
}

impl TreeHead {
    /// The tree with these roots.
    pub fn of(fork: u64, roots: &Roots) -> Self {
        Self {
            fork,
            length: roots.length(),
            hash: roots.hash(),
        }
    }
}

/// How a tree is turned into bytes to sign (`hypercore/lib/caps.js` 11.37.1).
///
/// | field | bytes | absent in |
/// |---|---|---|
/// | namespace TREE | 32 | `Legacy` |
/// | context: the core's key, or a signer's namespace | 32 | `Compat`, `Legacy` |
/// | tree hash | 32 | |
/// | length | 8, little endian | |
/// | fork | 8, little endian | |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signable {
    /// A core whose manifest is of version 1 or later: bound to the core's key.
    Core(Key),
    /// A core whose manifest is of version 0: bound to the signer's namespace.
    Namespace(Hash),
    /// A core whose key is its signer's: bound to nothing but the signer.
    Compat,
    /// As `Compat`, but nothing keeps it apart from what else the signer may sign: cores from
    /// before there were namespaces.
    Legacy,
}

impl Signable {
    /// The bytes that make `head` the core's once they are signed: 112, 80 or 48 of them.
    pub fn bytes(&self, head: &TreeHead) -> Vec<u8> {
        let mut out = Vec::with_capacity(112);
        if *self != Self::Legacy {
            out.extend_from_slice(namespace::tree().as_bytes());
        }
        match self {
            Self::Core(key) => out.extend_from_slice(key.as_bytes()),
            Self::Namespace(namespace) => out.extend_from_slice(namespace.as_bytes()),
            Self::Compat | Self::Legacy => {}
        }
        out.extend_from_slice(head.hash.as_bytes());
        out.extend_from_slice(&head.length.to_le_bytes());
        out.extend_from_slice(&head.fork.to_le_bytes());
        out
    }
}
