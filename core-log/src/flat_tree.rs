//! Flat trees: binary trees numbered in order, so that a log's growth never renumbers a node.
//!
//! Leaf `i` has index `2i`; the depth of a node is the number of trailing one bits of its index.
//! Knows arithmetic on indexes below 2^62 and nothing else.

/// Largest length, in blocks, whose tree this module can number.
pub const LENGTH_MAX: u64 = 1 << 53;

/// The node `offset` places from the left at `depth`.
pub const fn index(depth: u32, offset: u64) -> u64 {
    ((1 + 2 * offset) << depth) - 1
}

/// Levels above the leaves.
pub const fn depth(index: u64) -> u32 {
    index.trailing_ones()
}

/// Places from the left at its depth.
pub const fn offset(index: u64) -> u64 {
    (index + 1) >> (depth(index) + 1)
}

/// The node above.
pub const fn parent(node: u64) -> u64 {
    index(depth(node) + 1, offset(node) / 2)
}

/// The other child of the same parent.
pub const fn sibling(node: u64) -> u64 {
    index(depth(node), offset(node) ^ 1)
}

/// Whether the node is a left child.
pub const fn is_left(node: u64) -> bool {
    offset(node) & 1 == 0
}

/// Both children, or `None` for a leaf.
pub const fn children(node: u64) -> Option<(u64, u64)> {
    match depth(node) {
        0 => None,
        depth => {
            let half = 1 << (depth - 1);
            Some((node - half, node + half))
        }
    }
}

/// The leftmost leaf below (the node itself if it is one).
pub const fn left_span(node: u64) -> u64 {
    node + 1 - (1 << depth(node))
}

/// The rightmost leaf below (the node itself if it is one).
pub const fn right_span(node: u64) -> u64 {
    node + (1 << depth(node)) - 1
}

/// Leaves below: a power of two.
pub const fn leaves(node: u64) -> u64 {
    1 << depth(node)
}

/// The first block below.
pub const fn first_block(node: u64) -> u64 {
    left_span(node) / 2
}

/// One past the last block below.
pub const fn end_block(node: u64) -> u64 {
    right_span(node) / 2 + 1
}

/// Whether `other` is `node` or lies below it.
pub const fn contains(node: u64, other: u64) -> bool {
    left_span(node) <= other && other <= right_span(node)
}

/// The roots of a log of `length` blocks, from the left: one for each one bit of `length`.
pub fn full_roots(length: u64) -> impl DoubleEndedIterator<Item = u64> {
    (0..u64::BITS - length.leading_zeros())
        .rev()
        .filter(move |depth| length >> depth & 1 == 1)
        .map(move |depth| {
            let first = length >> (depth + 1) << (depth + 1);
            index(depth, first >> depth)
        })
}

/// The root of a log of `length` blocks above block `block`, which must be below `length`.
pub fn root_of(block: u64, length: u64) -> u64 {
    debug_assert!(block < length, "the block lies under a root");
    // The highest bit in which block and length differ is the root's depth.
    let depth = u64::BITS - 1 - (block ^ length).leading_zeros();
    index(depth, block >> depth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The obvious definition: peel the largest power of two off the left, again and again.
    fn full_roots_twin(length: u64) -> Vec<u64> {
        let (mut roots, mut first, mut rest) = (Vec::new(), 0, length);
        while rest > 0 {
            let size = 1 << rest.ilog2();
            roots.push(2 * first + size - 1);
            first += size;
            rest -= size;
        }
        roots
    }

    proptest! {
        #[test]
        fn families_agree(depth in 0u32..40, offset in 0u64..1 << 20) {
            let node = index(depth, offset);
            prop_assert_eq!(super::depth(node), depth);
            prop_assert_eq!(super::offset(node), offset);
            prop_assert_eq!(sibling(sibling(node)), node);
            prop_assert_eq!(parent(sibling(node)), parent(node));
            let (left, right) = children(parent(node)).unwrap();
            prop_assert_eq!(if is_left(node) { left } else { right }, node);
            prop_assert_eq!(end_block(node) - first_block(node), leaves(node));
            prop_assert!(contains(parent(node), node) && !contains(node, parent(node)));
        }

        #[test]
        fn roots_equal_their_definition(length in 0u64..1 << 50) {
            prop_assert_eq!(full_roots(length).collect::<Vec<_>>(), full_roots_twin(length));
        }

        #[test]
        fn each_block_has_one_root(length in 1u64..1 << 50, at in any::<u64>()) {
            let block = at % length;
            let above: Vec<_> = full_roots(length).filter(|r| contains(*r, 2 * block)).collect();
            prop_assert_eq!(above, vec![root_of(block, length)]);
        }
    }
}
