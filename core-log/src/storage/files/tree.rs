//! The file `tree`: node `i` at byte `40 i`, as a u64 size (little endian) and 32 bytes of hash.
//! A node of 40 zero bytes is absent. As in `hypercore/lib/merkle-tree.js` 10.38.2.
//!
//! What was read is kept in a cache by the page: a hot walk from a root to a leaf costs no system call, and
//! finding a block whose page was visited before costs no walk.

use std::sync::Mutex;

use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::DiscoveryKey;

use super::overlay::crossing;
use super::part::Part;
use super::tree_cache::{self, Cache, Cached, NodeBytes, PAGE_NODES, is_high};
use crate::limits::NUMBER_MAX;
use crate::merkle::{Node, Roots};
use crate::seek::NodeSource;
use crate::storage::{BlockPlace, StorageError, lock};

/// Bytes of one node.
pub(super) const NODE_BYTES: usize = 40;

/// Lowest pages that are read at once where it is not known yet where they begin: 20 KiB. A power of two.
const GROUP_PAGES: u64 = 4;

/// Most bytes gathered into one write.
const RUN_BYTES_MAX: usize = 256 * 1024;

/// What hypercore 9 wrote at the start of its trees, in another format.
const V9_MAGIC: &[u8] = b"\x05\x02\x57\x02\x00\x00\x28\x07BLAKE2b";

const _: () = assert!(GROUP_PAGES.is_power_of_two());

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
        let cached = lock(&self.cache).node(index);
        match cached {
            Cached::Known(bytes) => self.decode(index, bytes),
            Cached::Unknown(generation) if is_high(index) => self.load_high(index, generation),
            Cached::Unknown(generation) => self.load_page(index, generation),
        }
    }

    /// Where block `block` of a log with these roots lies, if the nodes that tell are in the file.
    ///
    /// A byte offset within one history never changes, so it outlives whatever is appended; whoever cuts the
    /// history clears the cache.
    pub(super) fn locate(
        &self,
        roots: &Roots,
        block: u64,
    ) -> Result<Option<BlockPlace>, StorageError> {
        let cached = lock(&self.cache).block(block);
        let generation = match cached {
            Cached::Known(found) => return self.place(block, found),
            Cached::Unknown(generation) => generation,
        };
        let page = tree_cache::page_of(block);
        let is_known = lock(&self.cache).start(page).is_some();
        if !is_known {
            self.load_group(page, generation)?;
        }
        if self.node(2 * block)?.is_none() {
            return Ok(None);
        }
        let cached = lock(&self.cache).block(block);
        match cached {
            Cached::Known(found) => self.place(block, found),
            Cached::Unknown(_) => BlockPlace::find(roots, self, block),
        }
    }

    /// Reads lowest page `page` together with its neighbours, and remembers where each of them begins, as far
    /// as the nodes that tell are here.
    ///
    /// All but the first one's lie among those just read: a page that is visited at random, when the cache has
    /// none of it, costs this one read, and another for each group alone.
    fn load_group(&self, page: u64, generation: u64) -> Result<(), StorageError> {
        let first = page - page % GROUP_PAGES;
        let mut nodes = vec![[0; NODE_BYTES]; (GROUP_PAGES * PAGE_NODES) as usize];
        self.part
            .read(offset(first * PAGE_NODES), nodes.as_flattened_mut())?;
        let of_page = nodes
            .chunks(PAGE_NODES as usize)
            .nth((page - first) as usize);
        let of_page = of_page.unwrap_or_default().to_vec();
        lock(&self.cache).insert_page(page * PAGE_NODES, of_page, generation);
        let Some(start) = self.find_start(first, generation)? else {
            return Ok(());
        };
        let mut starts = [Some(start); GROUP_PAGES as usize];
        let mut cache = lock(&self.cache);
        for (number, at) in (first..).zip(0..starts.len()).skip(1) {
            let (left, pages) = tree_cache::left_of(number);
            let left = nodes.get((left - first * PAGE_NODES) as usize);
            let before = at
                .checked_sub(pages as usize)
                .and_then(|at| *starts.get(at)?);
            let size = left.filter(|node| **node != [0; NODE_BYTES]);
            // No more than a few numbers below 2^53.
            let start = before.zip(size);
            let start = start.map(|(start, node)| start.saturating_add(tree_cache::size(node)));
            if let Some(place) = starts.get_mut(at) {
                *place = start;
            }
            if let Some(start) = start {
                cache.insert_start(number, start, generation);
            }
        }
        Ok(())
    }

    /// Finds out where lowest page `page` begins, from the next page to its left of which that is known, and
    /// remembers it, and all that it met on the way. `None` if a node that tells is not in the file.
    ///
    /// A walk from the roots would take more nodes: all those to its left below one root.
    fn find_start(&self, page: u64, generation: u64) -> Result<Option<u64>, StorageError> {
        let (mut at, mut sizes) = (page, Vec::new());
        let mut start = loop {
            let known = lock(&self.cache).start(at);
            if let Some(start) = known {
                break start;
            }
            let (left, pages) = tree_cache::left_of(at);
            let Some(left) = self.node(left)? else {
                return Ok(None);
            };
            sizes.push((at, left.size));
            at -= pages;
        };
        let mut cache = lock(&self.cache);
        cache.insert_start(at, start, generation);
        while let Some((at, size)) = sizes.pop() {
            // No more than a few numbers below 2^53.
            start = start.saturating_add(size);
            cache.insert_start(at, start, generation);
        }
        Ok(Some(start))
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
        let mut bytes = [0; NODE_BYTES];
        self.part.read(offset(index), &mut bytes)?;
        let node = self.decode(index, Some(bytes))?;
        if node.is_some() {
            lock(&self.cache).insert_high(index, bytes, generation);
        }
        Ok(node)
    }

    fn load_page(&self, index: u64, generation: u64) -> Result<Option<Node>, StorageError> {
        let mut page = lock(&self.cache).take_room();
        let start = offset(index / PAGE_NODES * PAGE_NODES);
        let count = self.part.read(start, page.as_flattened_mut())?;
        let behind = page.as_flattened_mut().get_mut(count..);
        behind.unwrap_or_default().fill(0);
        let bytes = page.get((index % PAGE_NODES) as usize).copied();
        lock(&self.cache).insert_page(index, page, generation);
        self.decode(index, bytes)
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
        size: tree_cache::size(bytes),
        hash: Hash::from(hash),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io;
    use std::ops::Range;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::storage::files::block_file::{BlockFile, OsFile};

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
                    let place = tree.locate(&roots, block).unwrap().unwrap();
                    assert_eq!(place.byte_offset, begin, "block {block}, pass {pass}");
                    begin += place.leaf.size;
                }
                assert_eq!(std::mem::take(&mut begin), roots.byte_length());
            }
            assert!(tree.locate(&roots, length).unwrap().is_none());
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
    /// order that visits none beside the last.
    #[test]
    fn a_page_that_was_never_visited_costs_little_more_than_a_read() {
        let length = 64 * 1024;
        let (tree, roots, file) = counted(length, |_| true);
        let begin = |block: u64| (0..block).map(|block| 1 + 2 * block % 31).sum::<u64>();
        let (pages, mut page) = (length / 64, 0);
        for visit in 0..pages {
            page = (page + 389) % pages;
            let block = page * 64 + visit % 64;
            let place = tree.locate(&roots, block).unwrap().unwrap();
            assert_eq!(place.byte_offset, begin(block), "block {block}");
        }
        // Of each group one start has to be found.
        let allowed = pages + pages / GROUP_PAGES + 16;
        assert!(file.reads() as u64 <= allowed, "{} reads", file.reads());
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
                let place = tree.locate(&roots, *block).unwrap();
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
