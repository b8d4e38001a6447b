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

use crate::seldom::Seldom;

/// The longest path to a node under way that is taken without asking storage for a shorter one.
const SHORT_LEVELS_MAX: u64 = 16;

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
    /// The path of `block` to the first node that is in storage, `missing` levels up.
    pub(crate) fn to_stored(block: u64, missing: u64) -> Self {
        Self {
            block,
            levels: missing,
            promised_anchor: None,
        }
    }

    /// The nodes that an answer along this path brings: the leaf, and at each level the sibling
    /// and the parent.
    pub(crate) fn nodes(self) -> impl Iterator<Item = u64> {
        let leaf = 2 * self.block;
        let levels = (0..self.levels).scan(leaf, |at, _| {
            let sibling = flat_tree::sibling(*at);
            *at = flat_tree::parent(*at);
            Some([sibling, *at])
        });
        std::iter::once(leaf).chain(levels.flatten())
    }
}

/// How many levels lie between a block and the root above it in a log of `length` blocks, if it is in there.
pub(crate) fn levels_below_root(block: u64, length: u64) -> Option<u64> {
    let depth = || flat_tree::depth(flat_tree::root_of(block, length)).into();
    (block < length).then(depth)
}

/// The nodes under way on one channel.
#[derive(Debug)]
pub(crate) struct Promises<T>(Seldom<UnderWay<T>>);

#[derive(Debug)]
struct UnderWay<T> {
    nodes: HashSet<u64>,
    /// Nodes that came and are not stored yet: paths may end at them, too, and need not wait for them.
    held: HashSet<u64>,
    /// Answers that overtook the one they rest on, by the node they wait for.
    parked: HashMap<u64, Vec<T>>,
}

impl<T> Default for Promises<T> {
    fn default() -> Self {
        Self(Seldom::default())
    }
}

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self {
            nodes: HashSet::new(),
            held: HashSet::new(),
            parked: HashMap::new(),
        }
    }
}

impl<T> Promises<T> {
    /// A short path for `block` to a node that is under way, if there is one.
    ///
    /// Storage may hold a node even closer; looking there costs more than the nodes it would spare.
    pub(crate) fn short_path(&self, block: u64) -> Option<Path> {
        let UnderWay { nodes, held, .. } = self.0.get()?;
        let mut at = 2 * block;
        for levels in 0..=SHORT_LEVELS_MAX {
            if nodes.contains(&at) || held.contains(&at) {
                return Some(Path {
                    block,
                    levels,
                    promised_anchor: Some(at),
                });
            }
            at = flat_tree::parent(at);
        }
        None
    }

    /// A request along `path` is in flight.
    pub(crate) fn promise(&mut self, path: Path) {
        // What came already must not be waited for: nobody would bring it.
        let UnderWay { nodes, held, .. } = self.0.need();
        nodes.extend(path.nodes().filter(|node| !held.contains(node)));
    }

    /// The answer along `path` came, and waits to be stored.
    pub(crate) fn hold(&mut self, path: Path) {
        self.0.need().held.extend(path.nodes());
    }

    /// What was held is in storage, or never will be.
    pub(crate) fn stored(&mut self) {
        if let Some(under_way) = self.0.get_mut() {
            under_way.held.clear();
        }
        self.forget_if_empty();
    }

    /// Whether an answer along `path` came too early. Then it belongs to [`park`](Self::park).
    pub(crate) fn is_early(&self, path: Path) -> bool {
        let anchor = path.promised_anchor.zip(self.0.get());
        anchor.is_some_and(|(anchor, under_way)| under_way.nodes.contains(&anchor))
    }

    /// Keeps an early answer until its anchor comes or is given up.
    pub(crate) fn park(&mut self, path: Path, answer: T) {
        if let Some(anchor) = path.promised_anchor {
            let parked = &mut self.0.need().parked;
            parked.entry(anchor).or_default().push(answer);
        }
    }

    /// Whether answers wait for others.
    pub(crate) fn has_parked(&self) -> bool {
        self.0
            .get()
            .is_some_and(|under_way| !under_way.parked.is_empty())
    }

    /// Takes out all answers that wait for others.
    pub(crate) fn take_parked(&mut self) -> Vec<T> {
        let parked = self.0.get_mut().map(|under_way| &mut under_way.parked);
        let parked = parked.map(std::mem::take).unwrap_or_default();
        self.forget_if_empty();
        parked.into_values().flatten().collect()
    }

    /// Whether an answer waits for what one along `path` will bring.
    pub(crate) fn is_awaited(&self, path: Path) -> bool {
        let parked = self.0.get().map(|under_way| &under_way.parked);
        let parked = parked.filter(|parked| !parked.is_empty());
        parked.is_some_and(|parked| path.nodes().any(|node| parked.contains_key(&node)))
    }

    /// The answer along `path` came, or will not come. Returns the answers that waited for it.
    pub(crate) fn settle(&mut self, path: Path) -> Vec<T> {
        let mut ready = Vec::new();
        let Some(under_way) = self.0.get_mut() else {
            return ready;
        };
        for node in path.nodes() {
            under_way.nodes.remove(&node);
            if !under_way.parked.is_empty() {
                ready.extend(under_way.parked.remove(&node).unwrap_or_default());
            }
        }
        self.forget_if_empty();
        ready
    }

    fn forget_if_empty(&mut self) {
        let is_empty = |under_way: &UnderWay<T>| {
            let UnderWay {
                nodes,
                held,
                parked,
            } = under_way;
            nodes.is_empty() && held.is_empty() && parked.is_empty()
        };
        if self.0.get().is_some_and(is_empty) {
            self.0.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for `block` in a tree of which nothing is stored below level 4.
    fn ask<T>(promises: &mut Promises<T>, block: u64) -> Path {
        let path = promises.short_path(block);
        let path = path.unwrap_or(Path::to_stored(block, 4));
        promises.promise(path);
        path
    }

    #[test]
    fn levels_are_as_javascript_counts_them() {
        // As `MerkleTree.maxMissingNodes(2 * block, length)` of hypercore 11.37.1.
        let cases = [
            ((0, 4), Some(2)),
            ((3, 4), Some(2)),
            ((4, 5), Some(0)),
            ((0, 5), Some(2)),
            ((5, 7), Some(1)),
            ((9, 9), None),
        ];
        for ((block, length), levels) in cases {
            assert_eq!(
                levels_below_root(block, length),
                levels,
                "{block} of {length}"
            );
        }
    }

    #[test]
    fn a_run_of_blocks_asks_for_about_one_node_each() {
        // Goal: of 16 blocks below one stored node, only the first pays for the whole path.
        let mut promises = Promises::<()>::default();
        let levels = (0..16).map(|block| ask(&mut promises, block).levels);
        let expected = [4, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 2, 0, 1, 0];
        assert_eq!(levels.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_answer_that_overtook_its_anchor_waits_for_it() {
        let mut promises = Promises::default();
        let (first, second) = (ask(&mut promises, 0), ask(&mut promises, 1));
        assert_eq!(second.promised_anchor, Some(2));
        assert!(promises.is_early(second));
        promises.park(second, "second");
        assert_eq!(promises.settle(first), ["second"]);
        assert!(!promises.is_early(second));
    }

    #[test]
    fn paths_rest_on_what_is_being_stored_and_do_not_wait_for_it() {
        let mut promises = Promises::<()>::default();
        let first = ask(&mut promises, 0);
        assert!(promises.settle(first).is_empty());
        assert_eq!(promises.short_path(2), None);
        promises.hold(first);
        let third = ask(&mut promises, 2);
        assert_eq!(third.promised_anchor, Some(5));
        assert!(!promises.is_early(third));
        promises.stored();
        assert!(!promises.is_early(third), "nor once it is stored");
        assert!(promises.settle(third).is_empty());
        assert_eq!(promises.short_path(3), None);
    }

    #[test]
    fn nothing_is_left_behind() {
        let mut promises = Promises::<()>::default();
        let paths: Vec<_> = (0..16).map(|block| ask(&mut promises, block)).collect();
        for path in paths {
            assert!(promises.settle(path).is_empty());
        }
        assert!(promises.0.get().is_none());
    }
}
