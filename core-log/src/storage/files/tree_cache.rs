//! Nodes of the file `tree` that are kept in memory.
//!
//! A page is a subtree of seven levels, 127 nodes: the lowest pages lie in the file as they are and are read
//! whole; of higher ones, whose nodes lie far apart, only what was asked for is kept. A page takes room for
//! the nodes it has, so that a core of which little is here costs little. A lowest page also remembers where
//! its first block begins: with that, finding a block takes one page and no walk from the roots.
//!
//! Knows places of nodes. Does not know files.

use std::ops::Range;

use super::tree::NODE_BYTES;
use crate::flat_tree;

/// Levels of one page.
const PAGE_LEVELS: u32 = 7;
/// Nodes in one page, and one more: by as much lie the lowest pages apart in the file.
pub(super) const PAGE_NODES: u64 = 1 << PAGE_LEVELS;
const PAGE_BYTES: usize = PAGE_NODES as usize * NODE_BYTES;

/// Most of the lowest pages one core keeps: at 5 KiB each those of 131,072 blocks.
const LOW_PAGES_MAX: usize = 2048;
/// Most higher pages one core keeps: those above 16 million blocks.
const HIGH_PAGES_MAX: usize = 2048;

/// A node as the file has it.
pub(super) type NodeBytes = [u8; NODE_BYTES];

/// The cache of one tree.
///
/// A read that misses takes the generation along and hands in what it found under it: if a write
/// came between, what it found may be old and is not kept.
pub(super) struct Cache {
    generation: u64,
    low: Places<Page, LOW_PAGES_MAX>,
    high: Places<Page, HIGH_PAGES_MAX>,
}

/// What the cache knows of a block.
pub(super) enum Cached<T> {
    /// This.
    Known(T),
    /// Nothing; hand in what is found under this generation.
    Unknown(u64),
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            low: Places::new(),
            high: Places::new(),
        }
    }

    /// The node at `index`; `None` if the file has none.
    pub(super) fn node(&self, index: u64) -> Cached<Option<NodeBytes>> {
        let place = Place::of(index);
        let node = match place.level {
            0 => self.low.get(place.key()).map(|page| page.get(place.at)),
            _ => {
                let page = self.high.get(place.key());
                page.and_then(|page| page.get(place.at)).map(Some)
            }
        };
        match node {
            Some(node) => Cached::Known(node.copied()),
            None => Cached::Unknown(self.generation),
        }
    }

    /// The leaf of block `block` and the byte it begins at; `None` if a node on the way is not in the file.
    pub(super) fn block(&self, block: u64) -> Cached<Option<(NodeBytes, u64)>> {
        let place = Place::of(2 * block);
        let page = self.low.get(place.key());
        match page.and_then(|page| Some((page, page.start?))) {
            Some((page, start)) => Cached::Known(page.block(place.at, start)),
            None => Cached::Unknown(self.generation),
        }
    }

    /// Keeps the lowest page that holds node `index`, whose bytes are `page`.
    pub(super) fn insert_page(&mut self, index: u64, page: &PageBytes, generation: u64) {
        if generation == self.generation {
            self.low.insert(Place::of(index).key(), Page::new(page));
        }
    }

    /// Keeps a node that is in no lowest page.
    pub(super) fn insert_high(&mut self, index: u64, node: NodeBytes, generation: u64) {
        let place = Place::of(index);
        if generation == self.generation && place.level > 0 {
            let page = self.high.get_or_insert(place.key(), Page::default);
            page.insert(place.at, node);
        }
    }

    /// Remembers the byte at which the lowest page of block `block` begins, if the page is kept.
    pub(super) fn insert_start(&mut self, block: u64, start: u64, generation: u64) {
        if generation == self.generation
            && let Some(page) = self.low.get_mut(Place::of(2 * block).key())
        {
            page.start = Some(start);
        }
    }

    /// Forgets the nodes in `range`, which were written.
    pub(super) fn forget(&mut self, range: Range<u64>) {
        self.generation += 1;
        for number in range.start / PAGE_NODES..range.end.div_ceil(PAGE_NODES) {
            self.low.remove(number);
            let high = Place::of((number + 1) * PAGE_NODES - 1);
            if let Some(page) = self.high.get_mut(high.key()) {
                page.remove(high.at);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.generation += 1;
        self.low.clear();
        self.high.clear();
    }

    /// Nodes kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        let pages = [&self.low.items, &self.high.items].into_iter().flatten();
        let pages = pages.chain(&self.high.items).flatten();
        pages.map(|(_, page)| page.nodes.len()).sum()
    }
}

/// The bytes of a lowest page as the file has them, and the one high node to its right.
pub(super) type PageBytes = [u8; PAGE_BYTES];

/// The index of the first node of the lowest page that holds node `index`.
pub(super) fn page_start(index: u64) -> u64 {
    index / PAGE_NODES * PAGE_NODES
}

/// The first block of the lowest page that holds block `block`.
pub(super) fn first_of_page(block: u64) -> u64 {
    page_start(2 * block) / 2
}

/// Whether the node is in no lowest page: it is above 128 blocks or more.
pub(super) fn is_high(index: u64) -> bool {
    flat_tree::depth(index) >= PAGE_LEVELS
}

/// Where a node is kept.
struct Place {
    /// 0 for the lowest pages.
    level: u32,
    /// Which page of the level.
    number: u64,
    /// Flat-tree index within the page.
    at: u32,
}

impl Place {
    fn of(index: u64) -> Self {
        let (depth, offset) = (flat_tree::depth(index), flat_tree::offset(index));
        let (level, depth) = (depth / PAGE_LEVELS, depth % PAGE_LEVELS);
        let above = PAGE_LEVELS - 1 - depth;
        let within = offset & ((1 << above) - 1);
        Self {
            level,
            number: offset >> above,
            at: flat_tree::index(depth, within) as u32,
        }
    }

    /// One number of both page and level. Upper levels have few pages: they may share the places of others.
    fn key(&self) -> u64 {
        self.number ^ u64::from(self.level) << 56
    }
}

/// Some nodes of a subtree, in order.
#[derive(Default)]
struct Page {
    /// One bit for each node of the subtree that is there.
    present: u128,
    nodes: Vec<NodeBytes>,
    /// Where the first block of a lowest page begins, once known.
    start: Option<u64>,
}

impl Page {
    fn new(bytes: &PageBytes) -> Self {
        let (nodes, _) = bytes.as_chunks::<NODE_BYTES>();
        let nodes = nodes.get(..PAGE_NODES as usize - 1).unwrap_or_default();
        let is_there = nodes.iter().map(is_node);
        let present = is_there
            .zip(0..)
            .fold(0, |bits, (there, at)| bits | u128::from(there) << at);
        let nodes = match present.count_ones() as usize == nodes.len() {
            true => nodes.to_vec(),
            false => nodes.iter().filter(|node| is_node(node)).copied().collect(),
        };
        let start = None;
        Self {
            present,
            nodes,
            start,
        }
    }

    fn get(&self, at: u32) -> Option<&NodeBytes> {
        let is_there = self.present >> at & 1 == 1;
        is_there.then(|| self.nodes.get(self.rank(at)))?
    }

    fn insert(&mut self, at: u32, node: NodeBytes) {
        self.remove(at);
        self.nodes.insert(self.rank(at), node);
        self.present |= 1 << at;
    }

    fn remove(&mut self, at: u32) {
        if self.get(at).is_some() {
            self.nodes.remove(self.rank(at));
            self.present &= !(1 << at);
        }
    }

    /// Nodes before `at`.
    fn rank(&self, at: u32) -> usize {
        (self.present & ((1 << at) - 1)).count_ones() as usize
    }

    /// The leaf at `at`, and where its block begins: `start`, and what lies to its left below this page.
    fn block(&self, at: u32, start: u64) -> Option<(NodeBytes, u64)> {
        let (mut node, mut begin) = (u64::from(at), start);
        for _ in 1..PAGE_LEVELS {
            if !flat_tree::is_left(node) {
                let left = self.get(flat_tree::sibling(node) as u32)?;
                begin = begin.checked_add(size(left))?;
            }
            node = flat_tree::parent(node);
        }
        Some((*self.get(at)?, begin))
    }
}

/// Whether these are not the zeros of an absent node. Most are told by their first bytes.
fn is_node(bytes: &NodeBytes) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().any(|word| *word != [0; 8])
}

/// Bytes of all blocks below a node.
pub(super) fn size(node: &NodeBytes) -> u64 {
    let size = node.first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(size)
}

/// Items by number, at most so many: each has one place, which it takes from whatever is there.
struct Places<T, const MAX: usize> {
    items: Vec<Option<(u64, Box<T>)>>,
}

impl<T, const MAX: usize> Places<T, MAX> {
    fn new() -> Self {
        let items = Vec::new();
        Self { items }
    }

    fn get(&self, number: u64) -> Option<&T> {
        let (found, item) = self.items.get(Self::place(number))?.as_ref()?;
        (*found == number).then_some(item)
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let (found, item) = self.items.get_mut(Self::place(number))?.as_mut()?;
        (*found == number).then_some(item)
    }

    fn get_or_insert(&mut self, number: u64, make: impl FnOnce() -> T) -> &mut T {
        let slot = self.slot(number);
        slot.take_if(|(found, _)| *found != number);
        &mut slot.get_or_insert_with(|| (number, Box::new(make()))).1
    }

    fn insert(&mut self, number: u64, item: T) {
        *self.slot(number) = Some((number, Box::new(item)));
    }

    fn slot(&mut self, number: u64) -> &mut Option<(u64, Box<T>)> {
        let place = Self::place(number);
        if place >= self.items.len() {
            self.items.resize_with(place + 1, || None);
        }
        #[expect(clippy::indexing_slicing, reason = "it was just made long enough")]
        &mut self.items[place]
    }

    fn remove(&mut self, number: u64) {
        let place = Self::place(number);
        if let Some(slot) = self.items.get_mut(place) {
            slot.take_if(|(found, _)| *found == number);
        }
    }

    fn clear(&mut self) {
        self.items.clear();
    }

    fn place(number: u64) -> usize {
        ((number ^ number >> 56) % MAX as u64) as usize
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

    #[test]
    fn a_miss_that_a_write_overtook_is_not_kept() {
        let mut cache = Cache::new();
        for overtaken in [false, true] {
            cache.clear();
            let generation = cache.generation;
            if overtaken {
                cache.forget(5..6);
            }
            cache.insert_page(0, &[1; PAGE_BYTES], generation);
            cache.insert_high(127, bytes(1), generation);
            cache.insert_start(3, 0, generation);
            assert_eq!(known(cache.node(5)).is_none(), overtaken);
            assert_eq!(known(cache.node(127)).is_none(), overtaken);
            assert_eq!(known(cache.block(3)).is_none(), overtaken);
        }
    }

    #[test]
    fn the_cache_stays_within_its_bounds() {
        let mut places = Places::<u64, 10>::new();
        (0..25).for_each(|number| places.insert(number, number));
        assert_eq!(places.items.len(), 10);
        let kept: Vec<_> = (0..30).filter_map(|number| places.get(number)).collect();
        assert!(kept.into_iter().copied().eq(15..25));
    }

    /// Goal: a page takes room for what it has, however little.
    #[test]
    fn absent_nodes_take_no_room() {
        let mut cache = Cache::new();
        let mut page = [0; PAGE_BYTES];
        page[NODE_BYTES..2 * NODE_BYTES].fill(1);
        cache.insert_page(0, &page, 0);
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
            let (place, second) = (Place::of(index), Place::of(other));
            let same = place.key() == second.key() && place.at == second.at;
            prop_assert_eq!(same, index == other);
            prop_assert!(u64::from(place.at) < PAGE_NODES - 1);
            prop_assert_eq!(place.level > 0, is_high(index));
            if place.level == 0 {
                prop_assert_eq!(index, place.number * PAGE_NODES + u64::from(place.at));
            }
        }
    }
}
