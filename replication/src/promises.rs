//! Tree nodes that answers in flight will bring.
//!
//! The path of block 0 holds the leaf of block 1, the parent of 2 and 3 and so on. While it is in
//! flight, a request for block 1 need not ask for a path at all: its answer comes behind the other
//! and rests on it. Asking for the whole path of every block of a window instead would make proofs
//! the greater part of the traffic.
//!
//! Knows which nodes are under way, and which answers wait for them because they overtook theirs.
//! Does not know whether any of them holds.

use std::collections::{HashMap, HashSet};

use ferrocore_log::flat_tree;

/// Where the path of a requested block ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// The block.
    pub(crate) block: u64,
    /// Levels asked for.
    pub(crate) levels: u64,
    /// The node it ends at, if that is only promised.
    pub(crate) promised_anchor: Option<u64>,
}

impl Path {
    /// The nodes that an answer along this path brings: the leaf, and at each level the sibling
    /// and the parent.
    fn nodes(self) -> impl Iterator<Item = u64> {
        let leaf = 2 * self.block;
        let levels = (0..self.levels).scan(leaf, |at, _| {
            let sibling = flat_tree::sibling(*at);
            *at = flat_tree::parent(*at);
            Some([sibling, *at])
        });
        std::iter::once(leaf).chain(levels.flatten())
    }
}

/// The nodes under way on one channel.
#[derive(Debug)]
pub(crate) struct Promises<T> {
    nodes: HashSet<u64>,
    /// Answers that overtook the one they rest on, by the node they wait for.
    parked: HashMap<u64, Vec<T>>,
}

impl<T> Default for Promises<T> {
    fn default() -> Self {
        Self {
            nodes: HashSet::new(),
            parked: HashMap::new(),
        }
    }
}

impl<T> Promises<T> {
    /// The shortest path for `block`, given that `missing` levels are missing in storage.
    pub(crate) fn path(&self, block: u64, missing: u64) -> Path {
        let mut at = 2 * block;
        for levels in 0..missing {
            if self.nodes.contains(&at) {
                return Path {
                    block,
                    levels,
                    promised_anchor: Some(at),
                };
            }
            at = flat_tree::parent(at);
        }
        Path {
            block,
            levels: missing,
            promised_anchor: None,
        }
    }

    /// A request along `path` is in flight.
    pub(crate) fn promise(&mut self, path: Path) {
        self.nodes.extend(path.nodes());
    }

    /// Whether an answer along `path` came too early. Then it belongs to [`park`](Self::park).
    pub(crate) fn is_early(&self, path: Path) -> bool {
        path.promised_anchor
            .is_some_and(|anchor| self.nodes.contains(&anchor))
    }

    /// Keeps an early answer until its anchor comes or is given up.
    pub(crate) fn park(&mut self, path: Path, answer: T) {
        if let Some(anchor) = path.promised_anchor {
            self.parked.entry(anchor).or_default().push(answer);
        }
    }

    /// The answer along `path` came, or will not come. Returns the answers that waited for it.
    pub(crate) fn settle(&mut self, path: Path) -> Vec<T> {
        let mut ready = Vec::new();
        for node in path.nodes() {
            self.nodes.remove(&node);
            if !self.parked.is_empty() {
                ready.extend(self.parked.remove(&node).unwrap_or_default());
            }
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_blocks_asks_for_about_one_node_each() {
        // Goal: of 8 blocks under a root at tree index 7, only the first pays for the whole path.
        let mut promises = Promises::<()>::default();
        let levels = (0..8).map(|block| {
            let path = promises.path(block, 3);
            promises.promise(path);
            path.levels
        });
        assert_eq!(levels.collect::<Vec<_>>(), [3, 0, 1, 0, 2, 0, 1, 0]);
    }

    #[test]
    fn an_answer_that_overtook_its_anchor_waits_for_it() {
        let mut promises = Promises::default();
        let first = promises.path(0, 3);
        promises.promise(first);
        let second = promises.path(1, 3);
        promises.promise(second);
        assert_eq!(second.promised_anchor, Some(2));
        assert!(promises.is_early(second));
        promises.park(second, "second");
        assert_eq!(promises.settle(first), ["second"]);
        assert!(!promises.is_early(second));
    }

    #[test]
    fn nothing_is_left_behind() {
        let mut promises = Promises::<()>::default();
        let paths: Vec<_> = (0..16)
            .map(|block| {
                let path = promises.path(block, 4);
                promises.promise(path);
                path
            })
            .collect();
        paths
            .into_iter()
            .for_each(|path| assert!(promises.settle(path).is_empty()));
        assert!(promises.nodes.is_empty());
    }
}
