//! Where the stored tree was seen to be damaged: what is asked for below comes with its whole path, which mends it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::flat_tree;
use crate::storage::lock;

/// Most nodes that are remembered. Where there are more, the whole tree is doubted.
const DOUBTS_MAX: usize = 64;

/// Nodes whose children are missing or wrong, though they should be here.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<Doubted>);

#[derive(Debug, Default)]
struct Doubted {
    nodes: BTreeSet<u64>,
    /// Whether there were more than are remembered. As nobody knows where, all is doubted until nothing else is.
    are_more: bool,
}

impl Doubts {
    /// Remembers that what is right below `node` is not to be relied on.
    pub(super) fn doubt(&self, node: u64) {
        let mut doubted = lock(&self.0);
        if doubted.nodes.len() < DOUBTS_MAX {
            doubted.nodes.insert(node);
        } else if !doubted.nodes.contains(&node) {
            doubted.are_more = true;
        }
    }

    /// Whether anything on the way up from node `index` is doubted.
    pub(super) fn concern(&self, index: u64) -> bool {
        let doubted = lock(&self.0);
        let mut nodes = doubted.nodes.iter();
        doubted.are_more || nodes.any(|node| flat_tree::contains(*node, index))
    }

    /// Ends the doubts of nodes both of whose children were brought.
    pub(super) fn settle(&self, was_brought: impl Fn(u64) -> bool) {
        let mut doubted = lock(&self.0);
        doubted
            .nodes
            .retain(|node| match flat_tree::children(*node) {
                Some((left, right)) => !(was_brought(left) && was_brought(right)),
                None => false,
            });
        doubted.are_more &= !doubted.nodes.is_empty();
    }

    /// Ends all of them: what is here was looked at, or is another history. What is still wrong is met again.
    pub(super) fn forget(&self) {
        *lock(&self.0) = Doubted::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: one place of damage too many is not forgotten as long as it may be there.
    #[test]
    fn more_than_are_remembered_are_doubted_until_all_is_settled() {
        let doubts = Doubts::default();
        let node = |number: usize| flat_tree::index(3, number as u64);
        let is_doubted = |number| doubts.concern(flat_tree::left_span(node(number)));
        (0..DOUBTS_MAX).for_each(|number| doubts.doubt(node(number)));
        doubts.doubt(node(0));
        assert!(is_doubted(DOUBTS_MAX - 1) && !is_doubted(DOUBTS_MAX));
        doubts.doubt(node(DOUBTS_MAX));
        assert!(is_doubted(DOUBTS_MAX) && is_doubted(10 * DOUBTS_MAX));
        let last = flat_tree::children(node(DOUBTS_MAX - 1)).unwrap();
        doubts.settle(|brought| brought < last.0);
        assert!(is_doubted(DOUBTS_MAX), "one of them is not settled");
        doubts.settle(|brought| [last.0, last.1].contains(&brought));
        assert!(!is_doubted(DOUBTS_MAX) && !is_doubted(DOUBTS_MAX - 1));
    }
}
