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

/// The parents of siblings given in order, two by two; `None` if sizes overflow.
fn parents(children: &[Node]) -> Option<Vec<Node>> {
    let (pairs, _) = children.as_chunks::<2>();
    let inputs: Vec<_> = pairs
        .iter()
        .map(|pair| pair.map(|child| (child.size, child.hash)))
        .collect();
    let hashes = hash::parents(&inputs).into_iter();
    let parents = pairs.iter().zip(hashes).map(|([left, right], hash)| {
        let size = left.size.checked_add(right.size)?;
        let index = flat_tree::parent(left.index);
        (size <= NUMBER_MAX).then_some(Node { index, size, hash })
    });
    parents.collect()
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

    /// Adds the next leaves on the right and returns them with every parent that comes into being, in order of
    /// their indexes. The same as [`Roots::push`] of each, but hashes many parents at a time. `None`, with the
    /// roots as they were, if sizes overflow or `leaves` are not the next ones.
    pub fn extend(&mut self, leaves: Vec<Node>) -> Option<Vec<Node>> {
        let fits = leaves
            .iter()
            .map(|leaf| leaf.index)
            .eq((2 * self.length()..).step_by(2).take(leaves.len()));
        let size = leaves
            .iter()
            .try_fold(self.byte_length(), |sum, leaf| sum.checked_add(leaf.size));
        if !fits || size? > NUMBER_MAX {
            return None;
        }
        let mut left = self.nodes.clone();
        let (mut right, mut levels) = (Vec::<Node>::new(), Vec::<Vec<Node>>::new());
        let mut level = leaves;
        while !level.is_empty() {
            // A root of this depth is the left sibling of the first.
            let sibling = left.pop_if(|root| flat_tree::depth(root.index) as usize == levels.len());
            let born = level.len();
            level.splice(..0, sibling);
            let above = parents(&level)?;
            if level.len() % 2 == 1 {
                right.extend(level.last());
            }
            levels.push(level.split_off(level.len() - born));
            level = above;
        }
        left.extend(right.into_iter().rev());
        self.nodes = left;
        Some(in_order(&levels))
    }
}

/// The nodes of levels that lie above each other, in order of their indexes.
fn in_order(levels: &[Vec<Node>]) -> Vec<Node> {
    let mut rest: Vec<_> = levels.iter().map(|level| level.iter().peekable()).collect();
    let mut nodes = Vec::with_capacity(levels.iter().map(Vec::len).sum());
    let leaves = levels.first().map(Vec::as_slice).unwrap_or_default();
    let (Some(first), Some(last)) = (leaves.first(), leaves.last()) else {
        return nodes;
    };
    // Parents that reach back behind the first leaf: the higher, the further.
    for level in rest.iter_mut().rev() {
        nodes.extend(level.next_if(|node| node.index < first.index));
    }
    for index in first.index..=last.index {
        let level = rest.get_mut(flat_tree::depth(index) as usize);
        nodes.extend(level.and_then(|level| level.next_if(|node| node.index == index)));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Goal: many leaves at once make the tree that one after the other makes.
        #[test]
        fn extend_equals_push(start in 0u64..300, count in 0u64..300) {
            let leaf = |index: u64| Node::leaf(index, &index.to_le_bytes());
            let mut pushed = Roots::default();
            (0..start).for_each(|index| pushed.push(leaf(index), |_| ()).unwrap());
            let mut extended = pushed.clone();
            let mut expected = Vec::new();
            for index in start..start + count {
                expected.push(leaf(index));
                pushed.push(leaf(index), |parent| expected.push(parent)).unwrap();
            }
            expected.sort_by_key(|node| node.index);
            let leaves = (start..start + count).map(leaf).collect();
            prop_assert_eq!(extended.extend(leaves), Some(expected));
            prop_assert_eq!(extended, pushed);
        }
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut roots = Roots::default();
        roots.push(Node::leaf(0, b"first"), |_| ()).unwrap();
        let before = roots.clone();
        let large = Node {
            size: NUMBER_MAX,
            ..Node::leaf(1, b"")
        };
        for leaves in [
            vec![Node::leaf(2, b"")],
            vec![large],
            vec![Node::leaf(1, b""), Node::leaf(1, b"")],
        ] {
            assert_eq!(roots.extend(leaves), None);
        }
        assert_eq!(roots, before);
    }
}
