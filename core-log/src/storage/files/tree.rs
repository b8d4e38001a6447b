//! The file `tree`: node `i` at byte `40 i`, as a u64 size (little endian) and 32 bytes of hash.
//! A node of 40 zero bytes is absent. As in `hypercore/lib/merkle-tree.js` 10.38.2.
//!
//! Every read of a block walks from a root to its leaf. The nodes high up are in all these walks
//! and lie far apart, the low ones of one walk lie together: so a cache keeps the high nodes one
//! by one and the low ones by the page, and a hot walk costs no system call.

use std::ops::Range;
use std::sync::Mutex;

use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::DiscoveryKey;

use super::overlay::crossing;
use super::part::Part;
use crate::limits::NUMBER_MAX;
use crate::merkle::Node;
use crate::storage::{StorageError, lock};

/// Bytes of one node.
pub(super) const NODE_BYTES: usize = 40;

/// Nodes in one page: a subtree of 64 blocks, and last the one high node to its right.
const PAGE_NODES: u64 = 128;
const PAGE_BYTES: usize = PAGE_NODES as usize * NODE_BYTES;

/// Most pages one core keeps in memory: 10 MiB, the low nodes of 131,072 blocks.
const CACHED_PAGES_MAX: usize = 2048;
/// Most high nodes one core keeps in memory: those above 4 million blocks.
const CACHED_HIGH_NODES_MAX: usize = 65_536;

/// Most bytes gathered into one write.
const RUN_BYTES_MAX: usize = 256 * 1024;

/// What hypercore 9 wrote at the start of its trees, in another format.
const V9_MAGIC: &[u8] = b"\x05\x02\x57\x02\x00\x00\x28\x07BLAKE2b";

/// The open tree of a core.
pub(super) struct Tree {
    core: DiscoveryKey,
    part: Part,
    cache: Mutex<Cache>,
}

impl Tree {
    pub(super) fn new(core: DiscoveryKey, part: Part) -> Self {
        let cache = Mutex::new(Cache::new());
        Self { core, part, cache }
    }

    /// The node at `index`, if it is in the file.
    pub(super) fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        if index > NUMBER_MAX {
            return Ok(None);
        }
        let generation = {
            let cache = lock(&self.cache);
            match (cache.high(index), cache.low(index)) {
                (Some(node), _) => return Ok(Some(*node)),
                (_, Some(bytes)) => return self.decode(index, bytes),
                (None, None) => cache.generation,
            }
        };
        if is_high(index) {
            self.load_high(index, generation)
        } else {
            self.load_page(index, generation)
        }
    }

    /// Writes `nodes`, given in order of their indexes; neighbours go in one write.
    pub(super) fn write<'a>(
        &self,
        nodes: impl Iterator<Item = &'a Node>,
    ) -> Result<(), StorageError> {
        let mut run = Vec::new();
        let mut next = 0;
        for node in nodes {
            if node.index != next || run.len() >= RUN_BYTES_MAX {
                self.write_run(next, &run)?;
                run.clear();
            }
            run.extend_from_slice(&encode(node));
            next = node.index + 1;
        }
        self.write_run(next, &run)
    }

    /// Removes what a tree cut at `cut` must not hold below `length`, so that new nodes may come.
    pub(super) fn blank(&self, cut: u64, length: u64) -> Result<(), StorageError> {
        for index in crossing(cut).filter(|index| crate::flat_tree::end_block(*index) <= length) {
            self.erase(index)?;
        }
        let nodes = 2 * cut..(2 * length).saturating_sub(1);
        if !nodes.is_empty() {
            self.part.punch(offset(nodes.start)..offset(nodes.end))?;
        }
        lock(&self.cache).clear();
        Ok(())
    }

    /// Removes every node that a tree of `length` blocks cannot have, if any is there, for good:
    /// should a power cut bring one back once the log is longer, an old block would seem proven.
    pub(super) fn cut(&self, length: u64) -> Result<(), StorageError> {
        let len = self.part.len()?;
        let mut changes = len > offset(2 * length);
        if changes {
            self.part.set_len(offset(2 * length))?;
        }
        for index in crossing(length).filter(|index| offset(*index) < len) {
            changes |= self.erase(index)?;
        }
        lock(&self.cache).clear();
        match changes {
            true => self.sync(),
            false => Ok(()),
        }
    }

    /// Whether the file has nodes past the last one of a tree of `length` blocks.
    pub(super) fn reaches_past(&self, length: u64) -> Result<bool, StorageError> {
        Ok(self.part.len()? > offset(2 * length))
    }

    /// Refuses trees of hypercore 9.
    pub(super) fn check_format(&self) -> Result<(), StorageError> {
        let mut start = [0; V9_MAGIC.len()];
        self.part.read(0, &mut start)?;
        if start != *V9_MAGIC {
            return Ok(());
        }
        Err(StorageError::UnknownFormat {
            path: self.part.path().clone(),
            reason: "a tree of hypercore 9; migrate it with hypercore 10".to_owned(),
        })
    }

    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.part.sync()
    }

    fn load_high(&self, index: u64, generation: u64) -> Result<Option<Node>, StorageError> {
        let mut bytes = [0; NODE_BYTES];
        self.part.read(offset(index), &mut bytes)?;
        let node = self.decode(index, &bytes)?;
        if let Some(node) = node {
            lock(&self.cache).insert_high(node, generation);
        }
        Ok(node)
    }

    fn load_page(&self, index: u64, generation: u64) -> Result<Option<Node>, StorageError> {
        let number = index / PAGE_NODES;
        let mut page = Box::new([0; PAGE_BYTES]);
        self.part
            .read(offset(number * PAGE_NODES), page.as_mut_slice())?;
        let node = match node_in(&page, index) {
            Some(bytes) => self.decode(index, bytes)?,
            None => None,
        };
        lock(&self.cache).insert_page(number, page, generation);
        Ok(node)
    }

    /// Writes the nodes that end before index `next`.
    fn write_run(&self, next: u64, run: &[u8]) -> Result<(), StorageError> {
        if run.is_empty() {
            return Ok(());
        }
        let start = next - (run.len() / NODE_BYTES) as u64;
        self.part.write(offset(start), run)?;
        lock(&self.cache).forget(start..next);
        Ok(())
    }

    /// Removes a node, and says whether it was there.
    fn erase(&self, index: u64) -> Result<bool, StorageError> {
        let mut bytes = [0; NODE_BYTES];
        self.part.read(offset(index), &mut bytes)?;
        let was_there = bytes != [0; NODE_BYTES];
        if was_there {
            self.part.write(offset(index), &[0; NODE_BYTES])?;
        }
        Ok(was_there)
    }

    fn decode(&self, index: u64, bytes: &[u8; NODE_BYTES]) -> Result<Option<Node>, StorageError> {
        let node = decode(index, bytes);
        if node.size > NUMBER_MAX {
            return Err(StorageError::Corrupt {
                core: self.core,
                part: "tree",
                offset: offset(index),
                reason: format!("node {index} has an impossible size"),
            });
        }
        let is_absent = node.size == 0 && *node.hash.as_bytes() == [0; 32];
        Ok((!is_absent).then_some(node))
    }
}

fn offset(index: u64) -> u64 {
    index * NODE_BYTES as u64
}

/// Whether the node is kept by itself: it is above 64 blocks or more.
fn is_high(index: u64) -> bool {
    index % PAGE_NODES == PAGE_NODES - 1
}

fn node_in(page: &[u8; PAGE_BYTES], index: u64) -> Option<&[u8; NODE_BYTES]> {
    let (nodes, _) = page.as_chunks();
    nodes.get((index % PAGE_NODES) as usize)
}

fn encode(node: &Node) -> [u8; NODE_BYTES] {
    let mut bytes = [0; NODE_BYTES];
    let (size, hash) = bytes.split_at_mut(8);
    size.copy_from_slice(&node.size.to_le_bytes());
    hash.copy_from_slice(node.hash.as_bytes());
    bytes
}

fn decode(index: u64, bytes: &[u8; NODE_BYTES]) -> Node {
    let (mut size, mut hash) = ([0; 8], [0; 32]);
    let (size_bytes, hash_bytes) = bytes.split_at(size.len());
    size.copy_from_slice(size_bytes);
    hash.copy_from_slice(hash_bytes);
    Node {
        index,
        size: u64::from_le_bytes(size),
        hash: Hash::from(hash),
    }
}

/// Nodes of the file kept in memory.
///
/// A read that misses takes the generation along and hands in what it found under it: if a write
/// came between, what it found may be old and is not kept.
struct Cache {
    generation: u64,
    /// By the number of the page whose last node they are.
    high: Places<Node, CACHED_HIGH_NODES_MAX>,
    pages: Places<Box<[u8; PAGE_BYTES]>, CACHED_PAGES_MAX>,
}

impl Cache {
    fn new() -> Self {
        Self {
            generation: 0,
            high: Places::new(),
            pages: Places::new(),
        }
    }

    /// A node that is kept by itself.
    fn high(&self, index: u64) -> Option<&Node> {
        is_high(index).then(|| self.high.get(index / PAGE_NODES))?
    }

    /// The bytes of a node that is kept with its page.
    fn low(&self, index: u64) -> Option<&[u8; NODE_BYTES]> {
        let page = (!is_high(index)).then(|| self.pages.get(index / PAGE_NODES))?;
        node_in(page?, index)
    }

    fn insert_high(&mut self, node: Node, generation: u64) {
        if generation == self.generation {
            self.high.insert(node.index / PAGE_NODES, node);
        }
    }

    fn insert_page(&mut self, number: u64, page: Box<[u8; PAGE_BYTES]>, generation: u64) {
        if generation == self.generation {
            self.pages.insert(number, page);
        }
    }

    /// Forgets the nodes in `range`, which were written.
    fn forget(&mut self, range: Range<u64>) {
        self.generation += 1;
        for number in range.start / PAGE_NODES..range.end.div_ceil(PAGE_NODES) {
            self.high.remove(number);
            self.pages.remove(number);
        }
    }

    fn clear(&mut self) {
        self.generation += 1;
        self.high.clear();
        self.pages.clear();
    }
}

/// Items by number, at most so many: each has one place, which it takes from whatever is there.
struct Places<T, const MAX: usize> {
    items: Vec<Option<(u64, T)>>,
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

    fn insert(&mut self, number: u64, item: T) {
        let place = Self::place(number);
        if place >= self.items.len() {
            self.items.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.items.get_mut(place) {
            *slot = Some((number, item));
        }
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
        (number % MAX as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::files::block_file::OsFile;

    fn tree(directory: &tempfile::TempDir) -> Tree {
        let path = directory.path().join("tree");
        let part = Part::new(Box::new(OsFile::new(path.clone())), path);
        Tree::new(DiscoveryKey::from([0; 32]), part)
    }

    fn node(index: u64, tag: u8) -> Node {
        let hash = Hash::from([tag; 32]);
        let size = index;
        Node { index, size, hash }
    }

    /// Goal: a read never sees what was there before the last write, however it was cached.
    #[test]
    fn the_cache_follows_every_write() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree(&directory);
        let indexes: Vec<_> = (0..2000).filter(|i| i % 3 != 0).collect();
        for tag in 1..4 {
            let nodes: Vec<_> = indexes.iter().map(|i| node(*i, tag)).collect();
            tree.write(nodes.iter()).unwrap();
            for index in 0..2100 {
                let expected = indexes.contains(&index).then(|| node(index, tag));
                assert_eq!(tree.node(index).unwrap(), expected);
            }
        }
        tree.cut(500).unwrap();
        let left = (0..2000).filter(|i| tree.node(*i).unwrap().is_some());
        let expected = indexes.iter().filter(|i| **i < 1000);
        let expected = expected.filter(|i| !crossing(500).any(|c| c == **i));
        assert!(left.eq(expected.copied()));
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
            cache.insert_page(0, Box::new([1; PAGE_BYTES]), generation);
            cache.insert_high(node(127, 1), generation);
            assert_eq!(cache.low(5).is_none(), overtaken);
            assert_eq!(cache.high(127).is_none(), overtaken);
        }
    }

    #[test]
    fn the_cache_stays_within_its_bounds() {
        let mut places = Places::<u64, 10>::new();
        (0..25).for_each(|number| places.insert(number, number));
        assert_eq!(places.items.len(), 10);
        let kept: Vec<_> = (0..30).filter_map(|number| places.get(number)).collect();
        assert_eq!(
            kept,
            (15..25).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_impossible_size_is_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tree"), [0xff; 40]).unwrap();
        let error = tree(&directory).node(0).unwrap_err();
        assert!(matches!(error, StorageError::Corrupt { part: "tree", .. }));
    }

    #[test]
    fn a_tree_of_hypercore_9_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("tree"), [V9_MAGIC, &[0; 40]].concat()).unwrap();
        let error = tree(&directory).check_format().unwrap_err();
        assert!(matches!(error, StorageError::UnknownFormat { .. }));
    }
}
