//! The signatures of a quorum: their encodings, and how one is assembled from its parts.
//!
//! Signers of a core that allows patches need not have seen trees of the same length. The
//! signature then names, for each, by how many blocks its tree was longer, and brings the nodes
//! that grow the shorter tree to it.
//!
//! Knows encodings and which nodes grow a tree. Does not know who may sign (`verifier`).

use std::collections::{HashMap, HashSet};

use ferrocore_primitives::encoding::{Decode, DecodeError, Encode, Reader, put_uint, uint_len};
use ferrocore_primitives::sign::Signature;

use crate::flat_tree;
use crate::limits::{NUMBER_MAX, PATCH_NODES_MAX};
use crate::manifest::SIGNERS_MAX;
use crate::merkle::{Node, Roots};
use crate::proof;

/// Whether a proof of version 0 has a patch.
const FLAG_PATCH: u64 = 1;

/// The signatures of a quorum (`hypercore/lib/messages.js` 11.37.1).
///
/// Manifests of version 1 on, which [`Encode`] and [`Decode`] speak:
///
/// | field | encoding |
/// |---|---|
/// | proofs | array of (uint signer, 64 bytes signature, uint patch) |
/// | patch nodes | array of nodes |
///
/// Version 0 ([`encode_v0`](Self::encode_v0), [`decode_v0`](Self::decode_v0)):
///
/// | field | encoding |
/// |---|---|
/// | proofs | array of (uint flags: 1 has a patch, uint signer, 64 bytes signature, patch) |
/// | a patch | uint length it leads to, uint blocks, array of uint: its nodes by their place |
/// | patch nodes | array of nodes |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiSignature {
    /// At least a quorum of signatures, at most [`SIGNERS_MAX`].
    pub proofs: Vec<PartialSignature>,
    /// Nodes that grow the tree to the longer ones some signers saw, at most
    /// [`PATCH_NODES_MAX`].
    pub patch_nodes: Vec<Node>,
}

/// One signer's part, as it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialSignature {
    /// Place in the manifest.
    pub signer: u64,
    /// Over the signable of this signer's tree.
    pub signature: Signature,
    /// Blocks by which this signer's tree was longer.
    pub patch: u64,
}

/// One signer's signature over a tree of `length` blocks: what signers send to whoever
/// assembles.
///
/// | field | encoding |
/// |---|---|
/// | signer | uint |
/// | length | uint |
/// | signature | 64 bytes |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedLength {
    /// Place in the manifest.
    pub signer: u64,
    /// Blocks of the tree that is signed.
    pub length: u64,
    /// Over its signable.
    pub signature: Signature,
}

/// The greatest length that a quorum has signed or grown past, of the `lengths` that signers
/// saw; 0 if they are too few.
pub fn signable_length(lengths: &[u64], quorum: u64) -> u64 {
    let mut lengths = lengths.to_vec();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let last = usize::try_from(quorum.max(1) - 1).ok();
    let length = last.and_then(|last| lengths.get(last));
    length.copied().unwrap_or_default()
}

impl MultiSignature {
    /// Puts together the signatures over `length` blocks or more, in the order given. `node`
    /// answers with the nodes of the tree that the longest of them signed.
    ///
    /// # Errors
    /// Whatever `node` answers for a node it cannot give.
    pub fn assemble<E>(
        length: u64,
        parts: &[SignedLength],
        mut node: impl FnMut(u64) -> Result<Node, E>,
    ) -> Result<Self, E> {
        let parts = parts.iter().filter(|part| part.length >= length);
        let (mut proofs, mut patch_nodes) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for part in parts {
            for index in growth(length, part.length) {
                if seen.insert(index) {
                    patch_nodes.push(node(index)?);
                }
            }
            proofs.push(PartialSignature {
                signer: part.signer,
                signature: part.signature,
                patch: part.length - length,
            });
        }
        Ok(Self {
            proofs,
            patch_nodes,
        })
    }

    /// The encoding for manifests of version 0 of a signature over `length` blocks, or `None`
    /// if a patch lacks a node.
    pub fn encode_v0(&self, length: u64) -> Option<Vec<u8>> {
        let nodes = self.patch_nodes.iter().map(|node| node.index);
        let places: HashMap<u64, usize> = nodes.zip(0..).collect();
        let mut out = Vec::new();
        put_uint(&mut out, self.proofs.len() as u64);
        for proof in &self.proofs {
            let flags = if proof.patch > 0 { FLAG_PATCH } else { 0 };
            put_uint(&mut out, flags);
            put_uint(&mut out, proof.signer);
            out.extend_from_slice(proof.signature.as_bytes());
            if proof.patch > 0 {
                let to = length.checked_add(proof.patch)?;
                let nodes = growth(length, to);
                put_uint(&mut out, to);
                put_uint(&mut out, proof.patch);
                put_uint(&mut out, nodes.len() as u64);
                for index in nodes {
                    put_uint(&mut out, *places.get(&index)? as u64);
                }
            }
        }
        put_nodes(&mut out, &self.patch_nodes);
        Some(out)
    }

    /// Decodes what a core with a manifest of version 0 has for a signature.
    ///
    /// # Errors
    /// [`DecodeError`] if it is none, or larger than its bounds.
    pub fn decode_v0(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        Self::read(&mut reader, 66, decode_proof_v0)
    }

    fn read(
        reader: &mut Reader<'_>,
        proof_len_min: usize,
        proof: impl FnMut(&mut Reader<'_>) -> Result<PartialSignature, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let proofs = reader.array(proof_len_min, proof)?;
        if proofs.len() > SIGNERS_MAX {
            return Err(DecodeError::Invalid("too many signatures"));
        }
        let patch_nodes = reader.array(Node::ENCODED_LEN_MIN, Node::decode)?;
        if patch_nodes.len() > PATCH_NODES_MAX {
            return Err(DecodeError::Invalid("too many patch nodes"));
        }
        Ok(Self {
            proofs,
            patch_nodes,
        })
    }

    /// Drops the nodes that no patch of `length` blocks uses.
    pub(crate) fn drop_unused_nodes(&mut self, length: u64) {
        let patches = self.proofs.iter().map(|proof| proof.patch);
        let mut used: HashSet<u64> = patches
            .flat_map(|patch| growth(length, length.saturating_add(patch)))
            .collect();
        // Of several nodes with one index, the last one counts.
        self.patch_nodes.reverse();
        self.patch_nodes.retain(|node| used.remove(&node.index));
        self.patch_nodes.reverse();
    }
}

/// `roots` grown by `patch` blocks with nodes of `patch_nodes`, if those are the ones it takes.
///
/// Cost: at most some 100 hashes, whatever the numbers are.
pub(crate) fn grow(roots: &Roots, patch: u64, patch_nodes: &HashMap<u64, Node>) -> Option<Roots> {
    let from = roots.length();
    let to = from.checked_add(patch).filter(|to| *to <= NUMBER_MAX / 2)?;
    let mut grown = roots.clone();
    for index in growth(from, to) {
        grown.push(*patch_nodes.get(&index)?, |_| {})?;
    }
    Some(grown)
}

/// The nodes that grow a tree of `from` blocks to one of `to`; none past the longest log.
fn growth(from: u64, to: u64) -> Vec<u64> {
    let mut nodes = Vec::new();
    if to <= NUMBER_MAX / 2 {
        proof::growth(from, to, |index| nodes.push(index));
    }
    debug_assert!(
        nodes
            .last()
            .is_none_or(|node| flat_tree::end_block(*node) == to)
    );
    nodes
}

fn decode_proof_v0(reader: &mut Reader<'_>) -> Result<PartialSignature, DecodeError> {
    let flags = reader.uint()?;
    let signer = reader.uint()?;
    let signature = Signature::from(reader.fixed64()?);
    let patch = match flags & FLAG_PATCH {
        0 => 0,
        _ => {
            let _to = reader.uint()?;
            let blocks = reader.uint()?;
            // Which nodes it takes follows from the lengths.
            reader.array(1, Reader::uint)?;
            blocks
        }
    };
    Ok(PartialSignature {
        signer,
        signature,
        patch,
    })
}

fn put_nodes(out: &mut Vec<u8>, nodes: &[Node]) {
    put_uint(out, nodes.len() as u64);
    nodes.iter().for_each(|node| node.encode(out));
}

impl Encode for MultiSignature {
    fn encoded_len(&self) -> usize {
        let proofs: usize = self.proofs.iter().map(Encode::encoded_len).sum();
        let nodes: usize = self.patch_nodes.iter().map(Encode::encoded_len).sum();
        uint_len(self.proofs.len() as u64)
            + proofs
            + uint_len(self.patch_nodes.len() as u64)
            + nodes
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.proofs.len() as u64);
        self.proofs.iter().for_each(|proof| proof.encode(out));
        put_nodes(out, &self.patch_nodes);
    }
}

impl Decode for MultiSignature {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read(reader, 66, PartialSignature::decode)
    }
}

impl Encode for PartialSignature {
    fn encoded_len(&self) -> usize {
        uint_len(self.signer) + 64 + uint_len(self.patch)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.signer);
        out.extend_from_slice(self.signature.as_bytes());
        put_uint(out, self.patch);
    }
}

impl Decode for PartialSignature {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            signer: reader.uint()?,
            signature: Signature::from(reader.fixed64()?),
            patch: reader.uint()?,
        })
    }
}

impl Encode for SignedLength {
    fn encoded_len(&self) -> usize {
        uint_len(self.signer) + uint_len(self.length) + 64
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.signer);
        put_uint(out, self.length);
        out.extend_from_slice(self.signature.as_bytes());
    }
}

impl Decode for SignedLength {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            signer: reader.uint()?,
            length: reader.uint()?,
            signature: Signature::from(reader.fixed64()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signable_length_is_that_of_the_last_of_a_quorum() {
        assert_eq!(signable_length(&[3, 9, 5], 1), 9);
        assert_eq!(signable_length(&[3, 9, 5], 2), 5);
        assert_eq!(signable_length(&[3, 9, 5], 3), 3);
        assert_eq!(signable_length(&[3, 9, 5], 4), 0);
        assert_eq!(
            signable_length(&[3, 9, 5], 0),
            9,
            "as for 1, like JavaScript"
        );
        assert_eq!(signable_length(&[], u64::MAX), 0);
    }

    #[test]
    fn a_patch_past_the_longest_log_is_none() {
        let nodes = HashMap::new();
        assert!(grow(&Roots::default(), u64::MAX, &nodes).is_none());
        assert!(grow(&Roots::default(), NUMBER_MAX, &nodes).is_none());
        assert!(grow(&Roots::default(), 1, &nodes).is_none());
        assert!(growth(0, u64::MAX).is_empty());
    }

    #[test]
    fn of_nodes_with_one_index_the_last_is_kept() {
        let signature = Signature::from([0; 64]);
        let patched = PartialSignature {
            signer: 0,
            signature,
            patch: 1,
        };
        let node = |text: &str| Node::leaf(1, text.as_bytes());
        let unused = Node::leaf(9, b"");
        let mut multi = MultiSignature {
            proofs: vec![patched],
            patch_nodes: vec![node("first"), unused, node("last")],
        };
        multi.drop_unused_nodes(1);
        assert_eq!(multi.patch_nodes, [node("last")]);
    }
}
