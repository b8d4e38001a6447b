//! The file `tree`: node `i` at byte `40 i`, as a u64 size (little endian) and 32 bytes of hash.
//! A node of 40 zero bytes is absent. As in `hypercore/lib/merkle-tree.js` 10.38.2.
//!
//! What is read again and again is kept in a cache by the page: a hot walk from a root to a leaf costs no system
//! call. Where pages begin is kept longer: finding a block in one that was visited before costs one read of a part
//! of it and no walk, however long the log is.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::DiscoveryKey;

use super::overlay::crossing;
use super::part::Part;
use super::tree_cache::{self, Cache, Cached, is_high};
use super::tree_page::{self, NodeBytes, PAGE_NODES};
use crate::limits::NUMBER_MAX;
use crate::merkle::Node;
use crate::seek::NodeSource;
use crate::storage::{BlockPlace, StorageError};

/// Bytes of one node.
pub(super) const NODE_BYTES: usize = 40;

/// Most bytes gathered into one write.
const RUN_BYTES_MAX: usize = 256 * 1024;

/// What hypercore 9 wrote at the start of its trees, in another format.
const V9_MAGIC: &[u8] = b"\x05\x02\x57\x02\x00\x00\x28\x07BLAKE2b";

/// The open tree of a core.
pub(super) struct Tree {
    core: DiscoveryKey,
    part: Part,
    /// What it knows many read at once.
    cache: RwLock<Cache>,
}

impl Tree {
    pub(super) fn new(core: DiscoveryKey, part: Part) -> Self {
        let cache = RwLock::new(Cache::new());
        Self { core, part, cache }
    }

    /// The node at `index`, if it is in the file.
    pub(super) fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        if index > NUMBER_MAX {
            return Ok(None);
        }
        let known = self.cache().known_node(index);
        if let Some(known) = known {
            return self.decode(index, known);
        }
        let cached = self.cache_mut().node(index);
        match cached {
            Cached::Known(bytes) => self.decode(index, bytes),
            Cached::Unknown(miss) if is_high(index) => self.load_high(index, miss.generation),
            Cached::Unknown(miss) if miss.wants_page => self.load_page(index, miss.generation),
            Cached::Unknown(_) => self.read_node(index),
        }
    }

    /// Where block `block` of this log lies, if the nodes that tell are in the file.
    ///
    /// A byte offset within one history never changes, so it outlives whatever is appended; whoever cuts the
    /// history clears the cache.
    pub(super) fn locate(&self, block: u64) -> Result<Option<BlockPlace>, StorageError> {
        let number = tree_cache::page_of(block);
        let known = self.cache().known_block(block);
        if let Some(found) = known {
            return self.place(block, found);
        }
        let mut cache = self.cache_mut();
        let miss = match cache.block(block) {
            Cached::Known(found) => {
                drop(cache);
                return self.place(block, found);
            }
            Cached::Unknown(miss) => miss,
        };
        let start = cache.start(number);
        drop(cache);
        let start = match start {
            Some(start) => Some(start),
            None => self.find_start(number, miss.generation)?,
        };
        let Some(start) = start else { return Ok(None) };
        if miss.wants_page {
            self.load_page(2 * block, miss.generation)?;
            let known = self.cache().known_block(block);
            if let Some(found) = known {
                return self.place(block, found);
            }
        }
        let found = self.read_block(block, start)?;
        self.place(block, found)
    }

    /// The leaf of a block, of which the part of its page that tells is read, and where the block begins if its
    /// page begins at `start`.
    fn read_block(&self, block: u64, start: u64) -> Result<Option<(NodeBytes, u64)>, StorageError> {
        let first = tree_cache::page_of(block) * PAGE_NODES;
        let at = (2 * block - first) as u32;
        let part = tree_page::part_of_block(at);
        let mut room = [[0; NODE_BYTES]; PAGE_NODES as usize];
        let nodes = room.get_mut(..part.clone().count()).unwrap_or_default();
        let begin = offset(first + u64::from(*part.start()));
        self.part.read(begin, nodes.as_flattened_mut())?;
        Ok(tree_page::block_of_part(at, start, nodes))
    }

    /// Finds out where lowest page `number`, not the first, begins, from the next page to its left of which that
    /// is known, and remembers it, and all that it met on the way. `None` if a node that tells is not in the file.
    ///
    /// Over all pages that is one node each. A walk from the roots would take more: all those to its left below
    /// one root.
    fn find_start(&self, number: u64, generation: u64) -> Result<Option<u64>, StorageError> {
        let (left, pages) = tree_cache::left_of(number);
        let (known, left_node) = {
            let mut cache = self.cache_mut();
            (cache.start(number - pages), cache.node(left))
        };
        let left_node = match left_node {
            Cached::Known(bytes) => self.decode(left, bytes)?,
            // Once the start is remembered nobody looks for it here again.
            Cached::Unknown(_) => self.read_node(left)?,
        };
        let Some(left_node) = left_node else {
            return Ok(None);
        };
        let before = match known {
            Some(before) => Some(before),
            // As deep as the number has bits.
            None => self.find_start(number - pages, generation)?,
        };
        // No more than a few numbers below 2^53.
        let start = before.map(|before| before.saturating_add(left_node.size));
        if let Some(start) = start {
            self.cache_mut().insert_start(number, start, generation);
        }
        Ok(start)
    }

    /// Writes `nodes`, given in order of their indexes; neighbours go in one write.
    pub(super) fn write<'a>(
        &self,
        nodes: impl Iterator<Item = &'a Node>,
    ) -> Result<(), StorageError> {
        let bytes = nodes.size_hint().0.saturating_mul(NODE_BYTES);
        let mut run = Vec::with_capacity(bytes.min(RUN_BYTES_MAX));
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
        self.cache_mut().clear();
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
        self.cache_mut().clear();
        match changes {
            true => self.sync(),
            false => Ok(()),
        }
    }

    /// Whether the file has nodes past the last one of a tree of `length` blocks.
    pub(super) fn reaches_past(&self, length: u64) -> Result<bool, StorageError> {
        Ok(self.part.len()? > offset(2 * length))
    }

    /// The first index from `from` on at which the file may have a node; holes are skipped.
    pub(super) fn next(&self, from: u64) -> Result<Option<u64>, StorageError> {
        let data = self.part.next_data(offset(from))?;
        Ok(data.map(|data| data / NODE_BYTES as u64))
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
        let bytes = self.read_bytes(index)?;
        let node = self.decode(index, Some(bytes))?;
        if node.is_some() {
            self.cache_mut().insert_high(index, bytes, generation);
        }
        Ok(node)
    }

    fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache_mut(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at `index`, which nobody remembers.
    fn read_node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        let bytes = self.read_bytes(index)?;
        self.decode(index, Some(bytes))
    }

    /// Zeros past the end.
    fn read_bytes(&self, index: u64) -> Result<NodeBytes, StorageError> {
        let mut bytes = [0; NODE_BYTES];
        self.part.read(offset(index), &mut bytes)?;
        Ok(bytes)
    }

    fn load_page(&self, index: u64, generation: u64) -> Result<Option<Node>, StorageError> {
        let mut page = self.cache_mut().take_room();
        let start = offset(index / PAGE_NODES * PAGE_NODES);
        let count = self.part.read(start, page.as_flattened_mut())?;
        let behind = page.as_flattened_mut().get_mut(count..);
        behind.unwrap_or_default().fill(0);
        let bytes = page.get((index % PAGE_NODES) as usize).copied();
        self.cache_mut().insert_page(index, page, generation);
        self.decode(index, bytes)
    }

    /// Writes the nodes that end before index `next`.
    fn write_run(&self, next: u64, run: &[u8]) -> Result<(), StorageError> {
        if run.is_empty() {
            return Ok(());
        }
        let start = next - (run.len() / NODE_BYTES) as u64;
        self.part.write(offset(start), run)?;
        self.cache_mut().forget(start..next);
        Ok(())
    }

    /// Removes a node, and says whether it was there.
    fn erase(&self, index: u64) -> Result<bool, StorageError> {
        let bytes = self.read_bytes(index)?;
        let was_there = bytes != [0; NODE_BYTES];
        if was_there {
            self.part.write(offset(index), &[0; NODE_BYTES])?;
        }
        Ok(was_there)
    }

    fn place(
        &self,
        block: u64,
        found: Option<(NodeBytes, u64)>,
    ) -> Result<Option<BlockPlace>, StorageError> {
        let Some((bytes, byte_offset)) = found else {
            return Ok(None);
        };
        let leaf = self.decode(2 * block, Some(bytes))?;
        Ok(leaf.map(|leaf| BlockPlace { leaf, byte_offset }))
    }

    /// The node with these bytes; none if they are absent, or all zero.
    fn decode(&self, index: u64, bytes: Option<NodeBytes>) -> Result<Option<Node>, StorageError> {
        let Some(bytes) = bytes.filter(|bytes| *bytes != [0; NODE_BYTES]) else {
            return Ok(None);
        };
        let node = decode(index, &bytes);
        if node.size > NUMBER_MAX {
            return Err(StorageError::Corrupt {
                core: self.core,
                part: "tree",
                offset: offset(index),
                reason: format!("node {index} has an impossible size"),
            });
        }
        Ok(Some(node))
    }
}

impl NodeSource for Tree {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        Tree::node(self, index)
    }
}

fn offset(index: u64) -> u64 {
    index * NODE_BYTES as u64
}

fn encode(node: &Node) -> NodeBytes {
    let mut bytes = [0; NODE_BYTES];
    let (size, hash) = bytes.split_at_mut(8);
    size.copy_from_slice(&node.size.to_le_bytes());
    hash.copy_from_slice(node.hash.as_bytes());
    bytes
}

fn decode(index: u64, bytes: &NodeBytes) -> Node {
    let hash = bytes.last_chunk().copied().unwrap_or_default();
    Node {
        index,
        size: tree_page::size(bytes),
        hash: Hash::from(hash),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io;
    use std::ops::Range;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::merkle::Roots;
    use crate::storage::files::block_file::{BlockFile, OsFile};
    use crate::storage::lock;

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
        // One write over pages that are all in the cache.
        let all: Vec<_> = (0..700).map(|i| node(i, 4)).collect();
        tree.write(all.iter()).unwrap();
        for expected in all {
            assert_eq!(tree.node(expected.index).unwrap(), Some(expected));
        }
        let indexes: Vec<_> = (0..700)
            .chain(indexes.into_iter().filter(|i| *i >= 700))
            .collect();
        tree.cut(500).unwrap();
        let left = (0..2000).filter(|i| tree.node(*i).unwrap().is_some());
        let expected = indexes.iter().filter(|i| **i < 1000);
        let expected = expected.filter(|i| !crossing(500).any(|c| c == **i));
        assert!(left.eq(expected.copied()));
    }

    /// Goal: the same of nodes that are kept though their page is not.
    #[test]
    fn a_node_without_its_page_follows_every_write() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree(&directory);
        for tag in 1..4 {
            for index in [63, 127, 191, 255, 511] {
                tree.write([node(index, tag)].iter()).unwrap();
                assert_eq!(tree.node(index).unwrap(), Some(node(index, tag)));
            }
        }
    }

    /// Goal: nothing is behind the end of the file, whatever was read into the same memory before.
    #[test]
    fn a_page_ends_with_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree(&directory);
        // Each takes the other's place in the cache.
        let pages = [0, 1, 2].map(|page| page * tree_cache::LOW_PAGES_MAX as u64 * PAGE_NODES);
        for (first, count) in pages.into_iter().zip([PAGE_NODES, PAGE_NODES, 1]) {
            let nodes: Vec<_> = (first..first + count).map(|i| node(i, 1)).collect();
            tree.write(nodes.iter()).unwrap();
        }
        for first in pages {
            assert_eq!(tree.node(first).unwrap(), Some(node(first, 1)));
        }
        for index in 1..PAGE_NODES {
            assert_eq!(tree.node(pages[2] + index).unwrap(), None);
        }
    }

    /// Goal: remembered or not, a block lies where a walk from the roots says, and what a cut or a
    /// write changed is not remembered.
    #[test]
    fn blocks_are_where_the_walk_says() {
        let directory = tempfile::tempdir().unwrap();
        let tree = tree(&directory);
        for (length, salt) in [(1000, 3), (300, 3), (1200, 5)] {
            tree.cut(length.min(300)).unwrap();
            let (mut roots, mut nodes) = (Roots::default(), Vec::new());
            for block in 0..length {
                let size = if block < 300 { 3 } else { salt } + block % 7;
                let hash = Hash::from([1; 32]);
                let leaf = Node {
                    index: 2 * block,
                    size,
                    hash,
                };
                nodes.push(leaf);
                roots.push(leaf, |parent| nodes.push(parent)).unwrap();
            }
            nodes.sort_by_key(|node| node.index);
            tree.write(nodes.iter()).unwrap();
            let mut begin = 0;
            for pass in 0..2 {
                for block in 0..length {
                    let place = tree.locate(block).unwrap().unwrap();
                    assert_eq!(place.byte_offset, begin, "block {block}, pass {pass}");
                    begin += place.leaf.size;
                }
                assert_eq!(std::mem::take(&mut begin), roots.byte_length());
            }
            assert!(tree.locate(length).unwrap().is_none());
        }
    }

    /// A file in memory that counts how often it is read.
    #[derive(Clone, Default)]
    struct Counted(Arc<(Mutex<Vec<u8>>, AtomicUsize)>);

    impl Counted {
        fn reads(&self) -> usize {
            self.0.1.load(Ordering::Relaxed)
        }
    }

    impl BlockFile for Counted {
        fn len(&self) -> io::Result<u64> {
            Ok(lock(&self.0.0).len() as u64)
        }

        fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.1.fetch_add(1, Ordering::Relaxed);
            let file = lock(&self.0.0);
            let rest = file.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            let (mut file, start) = (lock(&self.0.0), offset as usize);
            let len = file.len().max(start + bytes.len());
            file.resize(len, 0);
            file[start..start + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            lock(&self.0.0).resize(len as usize, 0);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn punch(&self, _: Range<u64>) -> io::Result<()> {
            Ok(())
        }
    }

    /// The tree of `length` blocks of different sizes, without the nodes that `keep` refuses.
    fn counted(length: u64, keep: impl Fn(u64) -> bool) -> (Tree, Roots, Counted) {
        let file = Counted::default();
        let part = Part::new(Box::new(file.clone()), PathBuf::new());
        let tree = Tree::new(DiscoveryKey::from([0; 32]), part);
        let (mut roots, mut nodes) = (Roots::default(), Vec::new());
        for index in (0..length).map(|block| 2 * block) {
            let (size, hash) = (1 + index % 31, Hash::from([1; 32]));
            let leaf = Node { index, size, hash };
            nodes.push(leaf);
            roots.push(leaf, |parent| nodes.push(parent)).unwrap();
        }
        nodes.sort_by_key(|node| node.index);
        tree.write(nodes.iter().filter(|node| keep(node.index)))
            .unwrap();
        (tree, roots, file)
    }

    /// Goal: what it takes to find a block does not grow with the log. Method: one block of each page, in an
    /// order that visits none beside the last; then another of each.
    #[test]
    fn a_page_costs_two_reads_at_the_first_visit_and_one_from_then_on() {
        let length = 64 * 1024;
        let (tree, _, file) = counted(length, |_| true);
        let begin = |block: u64| (0..block).map(|block| 1 + 2 * block % 31).sum::<u64>();
        let (pages, mut page) = (length / 64, 0);
        let mut visit_all = |offset| {
            let before = file.reads() as u64;
            for visit in offset..offset + pages {
                page = (page + 389) % pages;
                let block = page * 64 + visit % 64;
                let place = tree.locate(block).unwrap().unwrap();
                assert_eq!(place.byte_offset, begin(block), "block {block}");
            }
            file.reads() as u64 - before
        };
        let reads = [visit_all(0), visit_all(1)];
        // Few starts have to be found again: those of pages that share a place.
        assert!(reads[0] <= 2 * pages + pages / 8, "{reads:?}");
        assert!(reads[1] <= pages + pages / 8, "{reads:?}");
    }

    /// Goal: of a sparse core the same is found as by a walk, whatever of its neighbours is here.
    #[test]
    fn blocks_of_a_sparse_core_are_found_by_their_paths() {
        let length = 64 * 40;
        for salt in 0..8 {
            let blocks: Vec<u64> = (0..12).map(|i| (i * 977 + salt * 131) % length).collect();
            let mut paths = HashSet::new();
            for block in &blocks {
                let mut at = 2 * block;
                for _ in 0..12 {
                    paths.extend([at, crate::flat_tree::sibling(at)]);
                    at = crate::flat_tree::parent(at);
                }
            }
            let (tree, roots, _) = counted(length, |index| paths.contains(&index));
            for block in &blocks {
                let place = tree.locate(*block).unwrap();
                let expected = BlockPlace::find(&roots, &tree, *block).unwrap();
                assert!(expected.is_some(), "block {block}");
                assert_eq!(place, expected, "block {block}");
            }
        }
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
