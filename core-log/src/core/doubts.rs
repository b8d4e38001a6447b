//! Where the stored tree was seen to be damaged: what is asked for below comes with its whole path, which mends it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::flat_tree;
use crate::storage::lock;

/// Most nodes that are remembered. Damage beyond is met again.
const DOUBTS_MAX: usize = 64;

/// Nodes whose children are missing or wrong, though they should be here.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<BTreeSet<u64>>);

impl Doubts {
    /// Remembers that what is right below `node` is not to be relied on.
    pub(super) fn doubt(&self, node: u64) {
        let mut nodes = lock(&self.0);
        if nodes.len() < DOUBTS_MAX {
            nodes.insert(node);
        }
    }

    /// Whether anything on the way up from node `index` is doubted.
    pub(super) fn concern(&self, index: u64) -> bool {
        let nodes = lock(&self.0);
        nodes.iter().any(|node| flat_tree::contains(*node, index))
    }

    /// Ends the doubts of nodes both of whose children were brought.
    pub(super) fn settle(&self, was_brought: impl Fn(u64) -> bool) {
        lock(&self.0).retain(|node| match flat_tree::children(*node) {
            Some((left, right)) => !(was_brought(left) && was_brought(right)),
            None => false,
        });
    }
}
