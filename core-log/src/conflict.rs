//! Conflicts: two trees that were signed for one place of one history.
//!
//! Whoever signs a core must not sign two trees of one fork of which neither is the beginning of
//! the other: readers would hold different logs under one key. [`Conflict`] is the evidence that
//! it happened. It is verified with nothing but the core's key, so it can be passed on.
//!
//! Knows what a conflict is and how it is encoded. Does not know what is done about one (`core`).

use bytes::Bytes;
use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, put_array, put_buffer, put_optional_buffer, put_uint,
};
use ferrocore_primitives::keys::Key;
use thiserror::Error;

use crate::limits::{NUMBER_MAX, PROOF_NODES_MAX};
use crate::manifest::Manifest;
use crate::merkle::{Node, Roots};
use crate::proof::{Proof, UpgradeProof};
use crate::verifier::Verifier;

/// The encoding's version.
const VERSION: u64 = 1;

/// Longest encoding that is read, in bytes: a manifest as long as a core's header may be, which is 64 MiB, and two
/// signatures with their most signers.
pub const CONFLICT_BYTES_MAX: usize = 66 << 20;

/// Two signed trees of one core and fork that differ within their first `length` blocks.
///
/// | field | encoding |
/// |---|---|
/// | version | uint: 1 |
/// | manifest | buffer, empty for a compat core |
/// | fork | uint |
/// | length | uint: how many blocks both trees have and do not agree on |
/// | ours, theirs | each: array of nodes (roots at `length`), array of nodes (from there to the signed length), optional buffer (signature) |
///
/// The encoding is ferrocore's own: JavaScript tells of a conflict, but keeps and passes on no
/// evidence beyond the proofs themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The manifest; a compat core needs none.
    pub manifest: Option<Manifest>,
    /// The fork of both trees.
    pub fork: u64,
    /// Blocks that both trees have, and do not agree on.
    pub length: u64,
    /// The tree that was here.
    pub ours: SignedTree,
    /// The tree that was shown.
    pub theirs: SignedTree,
}

/// A tree, and the signature that makes it a core's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTree {
    /// Its roots at the conflict's length.
    pub nodes: Vec<Node>,
    /// What grows it from there to the length that was signed.
    pub additional: Vec<Node>,
    /// Over the length it was grown to.
    pub signature: Option<Bytes>,
}

/// Evidence proves nothing. Do not believe who showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConflictError {
    /// The manifest is not the one the key commits to.
    #[error("the evidence is about another core")]
    Manifest,
    /// Nodes do not make a tree of the length, or are too many.
    #[error("the evidence holds no tree of {length} blocks")]
    Tree {
        /// The length said.
        length: u64,
    },
    /// A tree is not signed.
    #[error("the evidence holds a tree that nobody signed")]
    Signature,
    /// Both trees are the same.
    #[error("the trees in the evidence do not conflict")]
    Agreement,
}

impl Conflict {
    /// Whether this proves that whoever signs for the core `key` signed two histories.
    ///
    /// Of a compat core both trees must be signed in one way, be it as before there were namespaces: whether a
    /// core is of that kind, its key does not tell. A [`Core`](crate::Core) that knows takes nothing else.
    ///
    /// Cost: the verification of two signatures, or of three, and some 100 hashes for each tree.
    ///
    /// # Errors
    /// [`ConflictError`] if it does not.
    pub fn verify(&self, key: &Key) -> Result<(), ConflictError> {
        let Some(manifest) = &self.manifest else {
            return match self.verify_under(&Verifier::compat(*key)) {
                Err(ConflictError::Signature) => self.verify_under(&Verifier::legacy(*key)),
                verified => verified,
            };
        };
        let verifier = Verifier::new(*key, manifest.clone()).ok_or(ConflictError::Manifest)?;
        self.verify_under(&verifier)
    }

    /// As [`Conflict::verify`], where it is known how the core is signed.
    pub(crate) fn verify_under(&self, verifier: &Verifier) -> Result<(), ConflictError> {
        let [ours, theirs] = [&self.ours, &self.theirs].map(|tree| {
            let roots = tree.roots(self.length)?;
            tree.check_signature(self.fork, &roots, verifier)?;
            Ok(roots.hash())
        });
        match ours? == theirs? {
            true => Err(ConflictError::Agreement),
            false => Ok(()),
        }
    }
}

impl Conflict {
    /// Both trees as upgrades from nothing: what to show to whoever may hold one of them.
    pub fn proofs(&self) -> [Proof; 2] {
        [&self.ours, &self.theirs].map(|tree| Proof {
            fork: self.fork,
            upgrade: Some(UpgradeProof {
                start: 0,
                length: self.length,
                nodes: tree.nodes.clone(),
                additional: tree.additional.clone(),
                signature: tree.signature.clone(),
            }),
            ..Proof::default()
        })
    }
}

impl SignedTree {
    /// What an upgrade from nothing shows.
    pub(crate) fn of(upgrade: &UpgradeProof) -> Self {
        Self {
            nodes: upgrade.nodes.clone(),
            additional: upgrade.additional.clone(),
            signature: upgrade.signature.clone(),
        }
    }

    /// The same tree, seen at another of the lengths it grows through: the last that is at most
    /// `length`, if that is not shorter than `start`, where its nodes end now.
    pub(crate) fn seen_at(&self, start: u64, length: u64) -> Option<(u64, Self)> {
        let mut roots = self.roots(start).ok().filter(|_| start <= length)?;
        let mut additional = self.additional.as_slice();
        while let Some((node, rest)) = additional.split_first() {
            let mut grown = roots.clone();
            grown.push(*node, |_| {})?;
            if grown.length() > length {
                break;
            }
            (roots, additional) = (grown, rest);
        }
        let seen = Self {
            nodes: roots.nodes().to_vec(),
            additional: additional.to_vec(),
            signature: self.signature.clone(),
        };
        Some((roots.length(), seen))
    }

    pub(crate) fn roots(&self, length: u64) -> Result<Roots, ConflictError> {
        let tree = ConflictError::Tree { length };
        let is_bounded =
            self.nodes.len() + self.additional.len() <= PROOF_NODES_MAX && length <= NUMBER_MAX / 2;
        let mut roots = Roots::default();
        // One by one, so that sizes that overflow are refused.
        for node in self.nodes.iter().filter(|_| is_bounded) {
            roots.push(*node, |_| {}).ok_or(tree)?;
        }
        let is_whole = is_bounded && length > 0 && roots.length() == length;
        let same = roots.nodes() == self.nodes;
        (is_whole && same).then_some(roots).ok_or(tree)
    }

    /// The roots of the tree that is signed: `roots`, grown to the length that the signature is over.
    pub(crate) fn check_signature(
        &self,
        fork: u64,
        roots: &Roots,
        verifier: &Verifier,
    ) -> Result<Roots, ConflictError> {
        let length = roots.length();
        let mut grown = roots.clone();
        for node in &self.additional {
            let fits = node.index < NUMBER_MAX;
            fits.then(|| grown.push(*node, |_| {}))
                .flatten()
                .ok_or(ConflictError::Tree { length })?;
        }
        match verifier.verify(fork, &grown, self.signature.as_deref()) {
            true => Ok(grown),
            false => Err(ConflictError::Signature),
        }
    }
}

impl Encode for Conflict {
    fn encoded_len(&self) -> usize {
        // Conflicts are rare: measuring is encoding.
        let mut out = Vec::new();
        self.encode(&mut out);
        out.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, VERSION);
        let manifest = self.manifest.as_ref().map(Encode::to_vec);
        put_buffer(out, &manifest.unwrap_or_default());
        put_uint(out, self.fork);
        put_uint(out, self.length);
        for tree in [&self.ours, &self.theirs] {
            put_array(out, &tree.nodes, |out, node| node.encode(out));
            put_array(out, &tree.additional, |out, node| node.encode(out));
            put_optional_buffer(out, tree.signature.as_deref());
        }
    }
}

impl Decode for Conflict {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.remaining() > CONFLICT_BYTES_MAX {
            return Err(DecodeError::Invalid("evidence that is too long"));
        }
        if reader.uint()? != VERSION {
            return Err(DecodeError::Invalid("an unknown version of evidence"));
        }
        let manifest = match reader.buffer()? {
            [] => None,
            encoded => Some(Manifest::from_slice(encoded)?),
        };
        Ok(Self {
            manifest,
            fork: reader.uint()?,
            length: reader.uint()?,
            ours: decode_tree(reader)?,
            theirs: decode_tree(reader)?,
        })
    }
}

fn decode_tree(reader: &mut Reader<'_>) -> Result<SignedTree, DecodeError> {
    Ok(SignedTree {
        nodes: reader.array(Node::ENCODED_LEN_MIN, Node::decode)?,
        additional: reader.array(Node::ENCODED_LEN_MIN, Node::decode)?,
        signature: reader.optional_buffer()?.map(Bytes::copy_from_slice),
    })
}
