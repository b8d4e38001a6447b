//! Nodes of the file `tree` that are kept in memory.
//!
//! A page is a subtree of seven levels, 127 nodes: the lowest pages lie in the file as they are and are read
//! whole; of higher ones, whose nodes lie far apart, only what was asked for is kept. A page takes room for
//! the nodes it has, so that a core of which little is here costs little. The top node of a lowest page is kept
//! beside the page, too: whoever only needs its size need not read the page.
//!
//! A lowest page is kept once it is asked for twice before another one of its place is. Who reads a long core
//! here and there would else read whole pages, to drop each before it is of use.
//!
//! Where a lowest page begins is kept longer than the page itself: with that, finding a block takes one read of
//! a page, or of a part of it, and no walk from the roots.
//!
//! Knows places of nodes. Does not know files.

use std::ops::Range;

use super::page_starts::PageStarts;
use super::tree::NODE_BYTES;
use super::tree_page::{NodeBytes, PAGE_LEVELS, PAGE_NODES, Page, is_node, size};
use crate::flat_tree;
use crate::places::Places;

/// Most of the lowest pages one core keeps: at 5 KiB each those of 131,072 blocks.
pub(super) const LOW_PAGES_MAX: usize = 2048;
/// Most higher pages one core keeps: at up to 5 KiB each those above 8 million blocks.
const HIGH_PAGES_MAX: usize = 2048;
/// Depth of the top node of a lowest page.
const TOP_DEPTH: u32 = PAGE_LEVELS - 1;

/// The cache of one tree.
///
/// A read that misses takes the generation along and hands in what it found under it: if a write
/// came between, what it found may be old and is not kept.
pub(super) struct Cache {
    generation: u64,
    low: Places<Page, LOW_PAGES_MAX>,
    high: Places<Page, HIGH_PAGES_MAX>,
    starts: PageStarts,
    /// The last lowest page that each place was asked for in vain: the end of its number, plus one.
    asked: Vec<u32>,
    /// The room of a page that was dropped.
    spare: Vec<NodeBytes>,
}

/// What the cache knows of a block.
pub(super) enum Cached<T> {
    /// This.
    Known(T),
    /// Nothing.
    Unknown(Miss),
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Miss {
    /// Hand in what is found under this generation.
    pub(super) generation: u64,
    /// Whether the lowest page should be read whole, and handed in.
    pub(super) wants_page: bool,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            low: Places::new(),
            high: Places::new(),
            starts: PageStarts::new(),
            asked: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// The node at `index`, if it is kept; within that, `None` if the file has none.
    pub(super) fn known_node(&self, index: u64) -> Option<Option<NodeBytes>> {
        let low = Place::low(index).and_then(|place| {
            let page = self.low.get(place.number)?;
            Some(page.get(place.at).copied())
        });
        let high = || {
            let place = Place::high(index)?;
            let page = self.high.get(place.number)?;
            page.get(place.at).map(|node| Some(*node))
        };
        low.or_else(high)
    }

    /// As [`Self::known_node`]; takes note of it if it is not kept.
    pub(super) fn node(&mut self, index: u64) -> Cached<Option<NodeBytes>> {
        match self.known_node(index) {
            Some(node) => Cached::Known(node),
            None if is_high(index) => Cached::Unknown(Miss {
                generation: self.generation,
                wants_page: false,
            }),
            None => Cached::Unknown(self.miss(index / PAGE_NODES)),
        }
    }

    /// The leaf of block `block` and the byte it begins at, if what tells is kept; within that, `None` if a node on
    /// the way is not in the file.
    pub(super) fn known_block(&self, block: u64) -> Option<Option<(NodeBytes, u64)>> {
        let number = page_of(block);
        let page = self.low.get(number)?;
        let start = page.start.or_else(|| self.starts.get(number))?;
        let at = 2 * block - number * PAGE_NODES;
        Some(page.block(at as u32, start))
    }

    /// As [`Self::known_block`]; takes note of it if it is not kept.
    pub(super) fn block(&mut self, block: u64) -> Cached<Option<(NodeBytes, u64)>> {
        match self.known_block(block) {
            Some(found) => Cached::Known(found),
            None => Cached::Unknown(self.miss(page_of(block))),
        }
    }

    /// Takes note that lowest page `number` was asked for, and is not here.
    fn miss(&mut self, number: u64) -> Miss {
        let place = (number % LOW_PAGES_MAX as u64) as usize;
        if place >= self.asked.len() {
            self.asked.resize(place + 1, 0);
        }
        // Should another page have the same end of its number, this one is kept a little early.
        let now = (number as u32).wrapping_add(1);
        let last = self
            .asked
            .get_mut(place)
            .map(|last| std::mem::replace(last, now));
        Miss {
            generation: self.generation,
            wants_page: last == Some(now),
        }
    }

    /// Where lowest page `number` begins, in bytes, if that is known.
    pub(super) fn start(&self, number: u64) -> Option<u64> {
        self.starts.get(number)
    }

    /// Keeps the lowest page that holds node `index`: what was read into the [room](Self::take_room).
    pub(super) fn insert_page(&mut self, index: u64, page: Vec<NodeBytes>, generation: u64) {
        let number = index / PAGE_NODES;
        let right = page.last().copied().filter(is_node);
        if let Some(right) = right {
            self.insert_high((number + 1) * PAGE_NODES - 1, right, generation);
        }
        if generation != self.generation {
            return;
        }
        if let Some(dropped) = self.low.insert(number, Page::new(page)) {
            self.spare = dropped.into_room();
        }
        if let Some(start) = self.starts.get(number) {
            self.insert_start(number, start, generation);
        }
    }

    /// Room for the nodes of a lowest page, as the file has them, and the one high node to its right; whatever
    /// was in it.
    pub(super) fn take_room(&mut self) -> Vec<NodeBytes> {
        let mut room = std::mem::take(&mut self.spare);
        room.resize(PAGE_NODES as usize, [0; NODE_BYTES]);
        room
    }

    /// Keeps a node that [`is_high`].
    pub(super) fn insert_high(&mut self, index: u64, node: NodeBytes, generation: u64) {
        if generation == self.generation
            && let Some(place) = Place::high(index)
        {
            let page = self.high.get_or_insert(place.number, Page::default);
            page.insert(place.at, node);
        }
    }

    /// Remembers the byte at which lowest page `number` begins.
    ///
    /// And so the next one, where its start follows from this page: of several ways to come to a start only
    /// the one of [`left_of`] is taken, so that of a damaged tree the same is found in whatever order it is read.
    pub(super) fn insert_start(&mut self, number: u64, start: u64, generation: u64) {
        if generation != self.generation {
            return;
        }
        self.starts.insert(number, start);
        if let Some(page) = self.low.get_mut(number) {
            page.start = Some(start);
            let next = page.top().and_then(|top| start.checked_add(size(top)));
            if let Some(next) = next.filter(|_| number.is_multiple_of(2)) {
                self.starts.insert(number + 1, next);
            }
        }
    }

    /// Forgets the nodes in `range`, which were written.
    pub(super) fn forget(&mut self, range: Range<u64>) {
        self.generation += 1;
        for number in range.start / PAGE_NODES..range.end.div_ceil(PAGE_NODES) {
            self.low.remove(number);
            let first = number * PAGE_NODES;
            for high in [first + PAGE_NODES / 2 - 1, first + PAGE_NODES - 1] {
                self.forget_high(high);
            }
        }
    }

    fn forget_high(&mut self, index: u64) {
        if let Some(place) = Place::high(index)
            && let Some(page) = self.high.get_mut(place.number)
        {
            page.remove(place.at);
        }
    }

    pub(super) fn clear(&mut self) {
        self.generation += 1;
        self.low.clear();
        self.high.clear();
        self.starts.clear();
    }

    /// Nodes kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        let pages = self.low.iter().chain(self.high.iter());
        pages.map(Page::len).sum()
    }
}

/// Which lowest page holds block `block`.
pub(super) fn page_of(block: u64) -> u64 {
    2 * block / PAGE_NODES
}

/// The node above the lowest pages that end where page `number`, not the first, begins, and how many they are:
/// as many as a complete subtree can have.
pub(super) fn left_of(number: u64) -> (u64, u64) {
    let levels = number.trailing_zeros();
    let node = flat_tree::index(TOP_DEPTH + levels, (number >> levels) - 1);
    (node, 1 << levels)
}

/// Whether the node is kept without the lowest page below it: it is above 64 blocks or more.
pub(super) fn is_high(index: u64) -> bool {
    flat_tree::depth(index) >= TOP_DEPTH
}

/// Where a node is kept.
struct Place {
    /// Which page.
    number: u64,
    /// Flat-tree index within the page.
    at: u32,
}

impl Place {
    /// In a lowest page: there the nodes are as in the file.
    fn low(index: u64) -> Option<Self> {
        let at = index % PAGE_NODES;
        (at < PAGE_NODES - 1).then_some(Self {
            number: index / PAGE_NODES,
            at: at as u32,
        })
    }

    /// In a higher page. Its number is of both page and level: upper levels have few pages, which may share
    /// the places of others.
    fn high(index: u64) -> Option<Self> {
        let (depth, offset) = (flat_tree::depth(index), flat_tree::offset(index));
        let depth = depth.checked_sub(TOP_DEPTH)?;
        let (level, depth) = (depth / PAGE_LEVELS, depth % PAGE_LEVELS);
        let above = PAGE_LEVELS - 1 - depth;
        let within = offset & ((1 << above) - 1);
        Some(Self {
            number: offset >> above ^ u64::from(level) << 56,
            at: flat_tree::index(depth, within) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(tag: u8) -> NodeBytes {
        [tag; NODE_BYTES]
    }

    fn known<T>(cached: Cached<T>) -> Option<T> {
        match cached {
            Cached::Known(value) => Some(value),
            Cached::Unknown(_) => None,
        }
    }

    /// Goal: who reads here and there has no page kept, who comes back has.
    #[test]
    fn a_page_is_wanted_when_it_is_asked_for_twice() {
        let mut cache = Cache::new();
        let mut wants = |block| match cache.block(block) {
            Cached::Unknown(miss) => miss.wants_page,
            Cached::Known(_) => unreachable!("nothing is kept"),
        };
        let far = 64 * LOW_PAGES_MAX as u64;
        assert_eq!([wants(70), wants(71), wants(127)], [false, true, true]);
        assert_eq!([wants(0), wants(far), wants(0)], [false; 3], "one place");
        assert_eq!([wants(1), wants(70)], [true; 2]);
    }

    #[test]
    fn a_miss_that_a_write_overtook_is_not_kept() {
        let mut cache = Cache::new();
        for overtaken in [false, true] {
            cache.clear();
            let generation = cache.generation;
            if overtaken {
                cache.forget(5..6);
            }
            cache.insert_page(0, vec![bytes(1); PAGE_NODES as usize], generation);
            cache.insert_high(255, bytes(1), generation);
            cache.insert_start(0, 0, generation);
            assert_eq!(known(cache.node(5)).is_none(), overtaken);
            assert_eq!(known(cache.node(127)).is_none(), overtaken);
            assert_eq!(known(cache.node(255)).is_none(), overtaken);
            assert_eq!(known(cache.block(3)).is_none(), overtaken);
        }
    }

    /// Goal: a page takes room for what it has, however little.
    #[test]
    fn absent_nodes_take_no_room() {
        let mut cache = Cache::new();
        let mut page = cache.take_room();
        page[1] = bytes(1);
        cache.insert_page(0, page, 0);
        assert_eq!(cache.len(), 1);
        assert_eq!(known(cache.node(0)), Some(None), "known to be absent");
        assert_eq!(known(cache.node(1)), Some(Some(bytes(1))));
        assert_eq!(known(cache.node(127)), None, "not of this page");
    }

    proptest! {
        /// Goal: every node has a place of its own, and lowest pages are where the file has them.
        #[test]
        fn places_are_distinct(depth in 0u32..40, offset in 0u64..1 << 12, other in 0u64..1 << 20) {
            let index = flat_tree::index(depth, offset);
            for place in [Place::low, Place::high] {
                let (place, second) = (place(index), place(other));
                if let Some((place, second)) = place.as_ref().zip(second.as_ref()) {
                    let same = place.number == second.number && place.at == second.at;
                    prop_assert_eq!(same, index == other);
                    prop_assert!(u64::from(place.at) < PAGE_NODES - 1);
                }
            }
            prop_assert_eq!(Place::high(index).is_some(), is_high(index));
            prop_assert_eq!(Place::low(index).is_some(), depth < PAGE_LEVELS);
        }

        /// Goal: what lies left of a page is a subtree that ends there.
        #[test]
        fn pages_lie_right_of_what_is_left_of_them(number in 1u64..1 << 40) {
            let (node, pages) = left_of(number);
            prop_assert_eq!(flat_tree::end_block(node), number * PAGE_NODES / 2);
            prop_assert_eq!(flat_tree::leaves(node), pages * PAGE_NODES / 2);
        }
    }
}
