//! The tree's changes that are in the oplog but not in the file `tree` yet.
//!
//! Knows which nodes an append adds and which a truncate takes away. Does not know files.

use std::collections::BTreeMap;
use std::iter;

use crate::flat_tree;
use crate::merkle::Node;

/// Changes on top of the file `tree`.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    nodes: BTreeMap<u64, Node>,
    /// The lowest truncate: the file's nodes above any block from here on are of the past.
    cut: Option<u64>,
    /// Whether a node was taken away alone, without a truncate.
    has_blanks: bool,
}

/// What an overlay says about a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// This is it.
    Here(Node),
    /// It is gone, whatever the file says.
    Gone,
    /// Ask the file.
    Unchanged,
}

impl Overlay {
    pub(super) fn insert(&mut self, nodes: impl IntoIterator<Item = Node>) {
        for node in nodes {
            self.has_blanks |= node.is_blank();
            self.nodes.insert(node.index, node);
        }
    }

    /// Forgets every node above a block at or past `ancestors`.
    pub(super) fn truncate(&mut self, ancestors: u64) {
        self.nodes
            .retain(|index, _| flat_tree::end_block(*index) <= ancestors);
        self.cut = Some(self.cut.map_or(ancestors, |cut| cut.min(ancestors)));
    }

    pub(super) fn get(&self, index: u64) -> Lookup {
        match self.nodes.get(&index) {
            Some(node) if node.is_blank() => Lookup::Gone,
            Some(node) => Lookup::Here(*node),
            None if self
                .cut
                .is_some_and(|cut| flat_tree::end_block(index) > cut) =>
            {
                Lookup::Gone
            }
            None => Lookup::Unchanged,
        }
    }

    /// The new nodes, in order of their indexes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The first index from `from` on at which there is a new node.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        self.nodes.range(from..).next().map(|(index, _)| *index)
    }

    pub(super) fn cut(&self) -> Option<u64> {
        self.cut
    }

    /// Whether it may hide a node that the file has, or gets: then it has to reach the file first.
    pub(super) fn hides_some(&self) -> bool {
        self.has_blanks || self.cut.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.cut.is_none()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The nodes before the leaf of block `length` that have blocks on both sides of it: at most one
/// for each level of the tree. None of them exists in a tree of `length` blocks.
pub(super) fn crossing(length: u64) -> impl Iterator<Item = u64> {
    let lowest = (length > 0).then(|| 2 * length - 1);
    iter::successors(lowest, |node| Some(flat_tree::parent(*node)))
        .take_while(move |node| *node < 2 * length || flat_tree::left_span(*node) > 0)
        .filter(move |node| *node < 2 * length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocore_primitives::hash::Hash;
    use proptest::prelude::*;

    fn node(index: u64) -> Node {
        let hash = Hash::from([1; 32]);
        let size = 1;
        Node { index, size, hash }
    }

    #[test]
    fn a_truncate_hides_the_file_above_its_cut() {
        let mut overlay = Overlay::default();
        overlay.insert([0, 1, 2, 3, 4, 5, 6].map(node));
        overlay.truncate(3);
        assert_eq!(overlay.get(1), Lookup::Here(node(1)));
        assert_eq!(overlay.get(3), Lookup::Gone, "blocks 0 to 3");
        assert_eq!(overlay.get(6), Lookup::Gone);
        assert_eq!(overlay.get(4), Lookup::Here(node(4)));
        overlay.insert([node(6)]);
        assert_eq!(overlay.get(6), Lookup::Here(node(6)));
        overlay.truncate(5);
        assert_eq!(overlay.cut(), Some(3), "the lowest cut counts");
    }

    #[test]
    fn a_blank_node_hides_the_file() {
        let mut overlay = Overlay::default();
        overlay.insert([node(1), Node::blank(1)]);
        assert_eq!(overlay.get(1), Lookup::Gone);
        assert_eq!(overlay.nodes().count(), 1, "it is yet to reach the file");
        assert!(overlay.hides_some());
    }

    proptest! {
        /// Goal: the crossing nodes are those a look at every node below the cut finds.
        #[test]
        fn crossing_nodes_are_those_with_both_sides(length in 0u64..2000) {
            let mut found: Vec<_> = crossing(length).collect();
            found.sort_unstable();
            let expected: Vec<_> = (0..2 * length)
                .filter(|node| flat_tree::first_block(*node) < length)
                .filter(|node| flat_tree::end_block(*node) > length)
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
