//! Merkle trees over blocks: nodes, roots and how they grow.
//!
//! Knows hashing and node layout. Does not know storage, peers or signatures.

use ferrocore_primitives::encoding::{Decode, DecodeError, Encode, Reader, put_uint, uint_len};
use ferrocore_primitives::hash::{self, Hash};

use crate::flat_tree;
use crate::limits::NUMBER_MAX;

/// One node of the tree.
///
/// Wire form (`hypercore/lib/messages.js` 11.37.1): uint index, uint size, 32 bytes of hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Flat-tree index.
    pub index: u64,
    /// Bytes of all blocks below.
    pub size: u64,
    /// Leaf or parent hash.
    pub hash: Hash,
}

impl Node {
    /// The shortest encoding of a node, in bytes.
    pub const ENCODED_LEN_MIN: usize = 34;

    /// The leaf of `block` at block index `index`.
    pub fn leaf(index: u64, block: &[u8]) -> Self {
        Self {
            index: 2 * index,
            size: block.len() as u64,
            hash: hash::leaf(block),
        }
    }

    /// The node that a [`CoreWrite`](crate::storage::CoreWrite) removes another with: it has no
    /// size and a hash of zeros, which no block and no parent has.
    pub(crate) fn blank(index: u64) -> Self {
        let (size, hash) = (0, Hash::from([0; 32]));
        Self { index, size, hash }
    }

    pub(crate) fn is_blank(&self) -> bool {
        *self == Self::blank(self.index)
    }

    /// The parent of two siblings, given in either order; `None` if the sizes overflow.
    pub fn parent(a: &Self, b: &Self) -> Option<Self> {
        debug_assert_eq!(flat_tree::sibling(a.index), b.index, "siblings only");
        let (left, right) = if a.index < b.index { (a, b) } else { (b, a) };
        let size = left.size.checked_add(right.size)?;
        (size <= NUMBER_MAX).then(|| Self {
            index: flat_tree::parent(a.index),
            size,
            hash: hash::parent(left.size, &left.hash, right.size, &right.hash),
        })
    }
}

impl Encode for Node {
    fn encoded_len(&self) -> usize {
        uint_len(self.index) + uint_len(self.size) + 32
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.index);
        put_uint(out, self.size);
        out.extend_from_slice(self.hash.as_bytes());
    }
}

impl Decode for Node {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            index: reader.uint()?,
            size: reader.uint()?,
            hash: Hash::from(reader.fixed32()?),
        })
    }
}

/// The roots of a log, and with them its length, byte length and hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots {
    nodes: Vec<Node>,
}

impl Roots {
    /// Takes `nodes` as roots if they are those of a log of `length` blocks.
    pub fn new(length: u64, nodes: Vec<Node>) -> Option<Self> {
        let expected = flat_tree::full_roots(length);
        let fits = nodes.iter().map(|node| node.index).eq(expected);
        fits.then_some(Self { nodes })
    }

    /// The roots, from the left.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Blocks below.
    pub fn length(&self) -> u64 {
        self.nodes
            .last()
            .map_or(0, |n| flat_tree::end_block(n.index))
    }

    /// Bytes of the blocks below.
    pub fn byte_length(&self) -> u64 {
        self.nodes.iter().map(|node| node.size).sum()
    }

    /// The hash that is signed.
    pub fn hash(&self) -> Hash {
        hash::tree(self.nodes.iter().map(|n| (n.index, n.size, n.hash)))
    }

    /// Adds the next subtree on the right and merges siblings, handing every parent that comes
    /// into being to `born`. `None` if sizes overflow or `node` is not the next subtree.
    pub fn push(&mut self, node: Node, mut born: impl FnMut(Node)) -> Option<()> {
        let start = flat_tree::first_block(node.index);
        if start != self.length() || self.byte_length().checked_add(node.size)? > NUMBER_MAX {
            return None;
        }
        let mut top = node;
        while let Some(last) = self.nodes.last() {
            if flat_tree::sibling(last.index) != top.index {
                break;
            }
            top = Node::parent(last, &top)?;
            born(top);
            self.nodes.pop();
        }
        self.nodes.push(top);
        Some(())
    }
}
